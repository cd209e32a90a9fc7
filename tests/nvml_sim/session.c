#include "session.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "message.h"
#include "seconds.h"
#include "state.h"

#define SLOTS 8 /* the card, and its MIG devices */

/* A handle is an address in this table: valid in every session, and never mistaken for another. */
static char handles[MAX_DEVICES * SLOTS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct trace trace;
static unsigned users; /* nvmlInit less nvmlShutdown */

static void hold(void) {
    pthread_mutex_lock(&lock);
}

static void let_go(void) {
    pthread_mutex_unlock(&lock);
}

/* A fork while another thread holds the lock must not leave the child without it. */
__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(hold, let_go, let_go);
}

static nvmlReturn_t open_session(void) {
    char reason[300];
    const char *path = getenv("NVML_SIM_TRACE");
    if (!path || !*path) {
        message_print("NVML_SIM_TRACE is not set; it names the trace file");
        return NVML_ERROR_DRIVER_NOT_LOADED;
    }
    if (!clock_open(reason, sizeof reason)) {
        message_print("%s", reason);
        return NVML_ERROR_UNKNOWN;
    }
    if (!trace_load(path, &trace)) {
        clock_close();
        return NVML_ERROR_UNKNOWN;
    }
    state_open();
    return NVML_SUCCESS;
}

nvmlReturn_t session_init(void) {
    hold();
    nvmlReturn_t answer = users ? NVML_SUCCESS : open_session();
    if (answer == NVML_SUCCESS) users++;
    let_go();
    return answer;
}

nvmlReturn_t session_shutdown(void) {
    nvmlReturn_t answer = NVML_ERROR_UNINITIALIZED;
    hold();
    if (users) {
        answer = NVML_SUCCESS;
        if (--users == 0) {
            trace_free(&trace);
            state_close();
            clock_close();
        }
    }
    let_go();
    return answer;
}

nvmlReturn_t session_enter(struct trace **out) {
    hold();
    if (!users) {
        let_go();
        return NVML_ERROR_UNINITIALIZED;
    }
    *out = &trace;
    return NVML_SUCCESS;
}

void session_leave(void) {
    let_go();
}

struct trace *session_trace(void) {
    return &trace;
}

nvmlReturn_t session_check_lost(const struct device *device) {
    return session_now_s() >= device->fail_after_s ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

/* *mig is the number of a MIG device, 0 for a whole card. */
static nvmlReturn_t resolve(nvmlDevice_t handle, struct device **device, unsigned *mig) {
    uintptr_t slot = (uintptr_t)handle - (uintptr_t)handles;
    if (slot >= sizeof handles || slot / SLOTS >= trace.count) return NVML_ERROR_INVALID_ARGUMENT;
    *device = &trace.devices[slot / SLOTS];
    *mig = slot % SLOTS;
    return session_check_lost(*device);
}

/* A name without its version stands for all versions: nvmlDeviceGetMemoryInfo for ..._v2 too. */
static bool names_function(const char *name, const char *function) {
    size_t length = strlen(name);
    if (strncmp(name, function, length) != 0) return false;
    return !function[length] || (function[length] == '_' && function[length + 1] == 'v');
}

nvmlReturn_t session_check_supported(const struct device *device, const char *function) {
    const struct texts *names = &device->not_supported;
    for (unsigned i = 0; i < names->count; i++)
        if (names_function(names->all[i], function)) return NVML_ERROR_NOT_SUPPORTED;
    return NVML_SUCCESS;
}

static nvmlReturn_t enter_card(nvmlDevice_t handle, const char *function, struct device **device,
                               unsigned *mig) {
    struct trace *ignored;
    nvmlReturn_t answer = session_enter(&ignored);
    if (answer != NVML_SUCCESS) return answer;
    answer = resolve(handle, device, mig);
    if (answer == NVML_SUCCESS) answer = session_check_supported(*device, function);
    if (answer != NVML_SUCCESS) session_leave();
    return answer;
}

/* Real time, whatever a signal does. */
static void sleep_ns(int64_t ns) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    ns += until.tv_nsec;
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) continue;
}

nvmlReturn_t session_enter_any(nvmlDevice_t handle, const char *function, enum call_kind kind,
                               struct device **device, unsigned *mig) {
    nvmlReturn_t answer = enter_card(handle, function, device, mig);
    if (answer != NVML_SUCCESS) return answer;
    int64_t wait_ns = clock_is_stepped() ? 0 : (*device)->sensor.call_ns[kind];
    if (wait_ns > 0) {
        session_leave();
        sleep_ns(wait_ns);
        answer = enter_card(handle, function, device, mig);
        if (answer != NVML_SUCCESS) return answer;
    }
    state_poll(&trace);
    device_poll_load(*device);
    return NVML_SUCCESS;
}

nvmlReturn_t session_enter_device(nvmlDevice_t handle, const char *function, enum call_kind kind,
                                  struct device **device) {
    unsigned mig;
    nvmlReturn_t answer = session_enter_any(handle, function, kind, device, &mig);
    if (answer != NVML_SUCCESS || !mig) return answer;
    session_leave();
    return NVML_ERROR_NOT_SUPPORTED;
}

nvmlDevice_t session_handle(const struct device *device, unsigned mig) {
    return (nvmlDevice_t)(void *)&handles[device->index * SLOTS + mig % SLOTS];
}

double session_now_s(void) {
    return seconds(clock_elapsed_ns());
}
