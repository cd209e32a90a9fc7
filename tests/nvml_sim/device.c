#include "device.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "message.h"
#include "seconds.h"

void device_free(struct device *d) {
    timeline_free(&d->demand);
    timeline_free(&d->power);
    sensor_free(&d->sensor);
    tail_close(&d->load.tail);
    series_free(&d->power_points);
    series_free(&d->temperature_c);
    series_free(&d->throttle);
    series_free(&d->used_bytes);
    series_free(&d->sm_mhz);
    free(d->mig_uuids.all);
    free(d->not_supported.all);
    free(d->settings.limits);
    free(d->processes.all);
}

void device_power_changed(struct device *d, double from_s) {
    sensor_power_changed(&d->sensor, from_s);
    timeline_limit(&d->power, &d->demand, d->settings.limits, d->settings.limit_count);
}

void device_limit_power(struct device *d, double t_s, double limit_w) {
    struct settings *set = &d->settings;
    set->limits = realloc(set->limits, (set->limit_count + 1) * sizeof *set->limits);
    if (!set->limits) abort();
    if (set->limit_count) t_s = fmax(t_s, set->limits[set->limit_count - 1].t_s);
    set->limits[set->limit_count++] = (struct limit_step){t_s, limit_w};
    device_power_changed(d, t_s);
}

double device_power_limit_w(const struct device *d) {
    return d->settings.limits[d->settings.limit_count - 1].limit_w;
}

struct load_poll {
    struct device *device;
    double changed_from_s;
};

static double load_power_w(const struct load_source *load) {
    return load->idle_w + load->load * (load->max_w - load->idle_w);
}

static void take_load_line(void *context, char *text) {
    struct load_poll *poll = context;
    struct device *d = poll->device;
    int64_t t_ns;
    double load;
    int end = 0;
    if (!*text || *text == '#' || strcmp(text, "t_ns,load") == 0) return;
    bool whole = sscanf(text, "%" SCNd64 ",%lf%n", &t_ns, &load, &end) == 2 && !text[end];
    if (!whole || !(load >= 0 && load <= 1)) {
        if (!d->load.complained)
            message_print("%s: line \"%.60s\" is not t_ns,load with load 0 to 1", d->load.tail.path,
                          text);
        d->load.complained = true;
        return;
    }
    double t_s = seconds(clock_elapsed_of_ns(t_ns));
    double last_s = d->demand.t_s[d->demand.count - 1];
    if (t_s < last_s && d->demand.count > 1) t_s = last_s;
    if (d->demand.count == 1 && t_s < last_s) d->demand.t_s[0] = t_s;
    timeline_append(&d->demand, t_s, load_power_w(&d->load));
    d->load.load = load;
    timeline_append(&d->demand, t_s, load_power_w(&d->load));
    poll->changed_from_s = fmin(poll->changed_from_s, t_s);
}

void device_poll_load(struct device *d) {
    struct load_poll poll = {d, INFINITY};
    tail_poll(&d->load.tail, take_load_line, &poll);
    if (poll.changed_from_s < INFINITY) device_power_changed(d, poll.changed_from_s);
}

bool device_is_power_capped(const struct device *d, double t_s) {
    return timeline_power_w(&d->demand, t_s) > timeline_power_w(&d->power, t_s) + 1e-9;
}

/* The highest value shown, until a reset or a jump sets it anew. */
static uint64_t held_up_mj(struct load_source *load, struct counter_reading reading) {
    if (reading.events != load->events || reading.mj > load->highest_mj)
        load->highest_mj = reading.mj;
    load->events = reading.events;
    return load->highest_mj;
}

uint64_t device_counter_mj(struct device *d, int64_t elapsed_ns) {
    struct counter *counter = &d->sensor.counter;
    struct counter_reading reading =
        counter_read(counter, &d->sensor.power, &d->power, elapsed_ns);
    return counter_wrapped(counter, d->load.tail.path ? held_up_mj(&d->load, reading) : reading.mj);
}

unsigned device_clock_mhz(const struct device *d, enum clock_domain domain, double t_s) {
    if (domain == DOMAIN_MEMORY) return MEMORY_MHZ;
    double now = series_step(&d->sm_mhz, t_s);
    const unsigned *lock = d->settings.gpu_lock_mhz;
    unsigned application = d->settings.application_mhz[1];
    if (application && now > application) now = application;
    if (lock[1]) now = fmin(fmax(now, lock[0]), lock[1]);
    return (unsigned)lround(now);
}
