/* NVML: library, driver and finding a device. */
#include <stdio.h>
#include <string.h>

#include "api.h"

NVML_EXPORT nvmlReturn_t nvmlInit_v2(void) {
    return session_init();
}

NVML_EXPORT nvmlReturn_t nvmlInit(void) {
    return session_init();
}

NVML_EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return session_init();
}

NVML_EXPORT nvmlReturn_t nvmlShutdown(void) {
    return session_shutdown();
}

nvmlReturn_t copy_text(char *out, unsigned size, const char *text) {
    if (strlen(text) >= size) return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(out, text);
    return NVML_SUCCESS;
}

/* The body of an NVML function that no card answers; the statement(s) in `...` may use `trace` and set
 * `answer`. */
#define ON_TRACE(usable, ...)                                  \
    do {                                                       \
        struct trace *trace;                                   \
        if (!(usable)) return NVML_ERROR_INVALID_ARGUMENT;     \
        nvmlReturn_t answer = session_enter(&trace);           \
        if (answer != NVML_SUCCESS) return answer;             \
        __VA_ARGS__;                                           \
        session_leave();                                       \
        return answer;                                         \
    } while (0)

NVML_EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    ON_TRACE(version, answer = copy_text(version, length, trace->driver_version));
}

NVML_EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    ON_TRACE(version, {
        int major = 0, minor = 0;
        sscanf(trace->cuda_version, "%d.%d", &major, &minor);
        *version = major * 1000 + minor * 10;
    });
}

static nvmlReturn_t process_name(const struct trace *trace, unsigned pid, char *name, unsigned length) {
    for (unsigned i = 0; i < trace->count; i++) {
        const struct processes *processes = &trace->devices[i].processes;
        for (unsigned k = 0; k < processes->count; k++)
            if (processes->all[k].pid == pid) return copy_text(name, length, processes->all[k].name);
    }
    return NVML_ERROR_NOT_FOUND;
}

NVML_EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
    ON_TRACE(name, answer = process_name(trace, pid, name, length));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    ON_TRACE(count, *count = trace->count);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *handle) {
    ON_TRACE(handle, {
        if (index >= trace->count) answer = NVML_ERROR_INVALID_ARGUMENT;
        else {
            *handle = session_handle(&trace->devices[index], 0);
            answer = session_check_lost(&trace->devices[index]);
        }
    });
}

static nvmlReturn_t find_uuid(const struct trace *trace, const char *uuid, nvmlDevice_t *handle) {
    for (unsigned i = 0; i < trace->count; i++) {
        const struct device *d = &trace->devices[i];
        bool found = strcmp(d->uuid, uuid) == 0;
        *handle = session_handle(d, 0);
        for (unsigned k = 0; k < d->mig_uuids.count && !found; k++) {
            found = strcmp(d->mig_uuids.all[k], uuid) == 0;
            if (found) *handle = session_handle(d, k + 1);
        }
        if (found) return session_check_lost(d);
    }
    return NVML_ERROR_NOT_FOUND;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *handle) {
    ON_TRACE(uuid && handle, answer = find_uuid(trace, uuid, handle));
}
