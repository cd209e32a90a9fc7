#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "message.h"
#include "seconds.h"

static const char *const setting_names[SETTING_COUNT] = {
    "power_limit_mw", "gpu_locked_clocks_mhz", "application_clocks_mhz"};

static struct tail tail;
static bool complained;

static void apply(struct device *d, int64_t t_ns, enum setting setting, unsigned a, unsigned b) {
    if (setting == SETTING_POWER_LIMIT) {
        device_limit_power(d, seconds(clock_elapsed_of_ns(t_ns)), a / 1000.0);
        return;
    }
    unsigned *pair = setting == SETTING_GPU_LOCKED_CLOCKS ? d->settings.gpu_lock_mhz
                                                          : d->settings.application_mhz;
    pair[0] = a;
    pair[1] = b;
}

static struct device *find_device(const struct trace *trace, const char *uuid) {
    for (unsigned i = 0; i < trace->count; i++)
        if (strcmp(trace->devices[i].uuid, uuid) == 0) return &trace->devices[i];
    return NULL;
}

static void take_line(void *context, char *text) {
    int64_t t_ns;
    char uuid[80], name[40];
    unsigned a, b;
    int end = 0;
    bool whole = sscanf(text, "%" SCNd64 " %79s %39s %u %u%n", &t_ns, uuid, name, &a, &b, &end) == 5;
    enum setting setting = 0;
    while (whole && setting < SETTING_COUNT && strcmp(setting_names[setting], name) != 0) setting++;
    if (!whole || text[end] || setting == SETTING_COUNT) {
        if (!complained)
            message_print("%s: line \"%.80s\" is not a setting and not used", tail.path, text);
        complained = true;
        return;
    }
    struct device *device = find_device(context, uuid);
    if (device) apply(device, t_ns, setting, a, b);
}

void state_open(void) {
    const char *path = getenv("NVML_SIM_STATE");
    complained = false;
    if (path && *path) tail_open(&tail, path);
}

void state_close(void) {
    tail_close(&tail);
}

void state_poll(struct trace *trace) {
    tail_poll(&tail, take_line, trace);
}

/* One write with O_APPEND: lines of several processes never mix, and readers take whole lines only. */
static bool append_line(const char *line) {
    int fd = open(tail.path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    size_t length = strlen(line);
    bool done = fd >= 0 && write(fd, line, length) == (ssize_t)length;
    if (!done) message_print("NVML_SIM_STATE=%s: cannot write (%s)", tail.path, strerror(errno));
    if (fd >= 0) close(fd);
    return done;
}

bool state_set(struct trace *trace, struct device *device, enum setting setting, unsigned a,
               unsigned b) {
    int64_t now_ns = clock_now_ns();
    char line[200];
    if (!tail.path) {
        apply(device, now_ns, setting, a, b);
        return true;
    }
    snprintf(line, sizeof line, "%" PRId64 " %s %s %u %u\n", now_ns, device->uuid,
             setting_names[setting], a, b);
    if (!append_line(line)) return false;
    state_poll(trace);
    return true;
}
