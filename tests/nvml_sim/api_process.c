/* NVML: the processes on a card. */
#include <stdlib.h>

#include "api.h"

static bool runs(const struct process *p, const struct mig_device *mig, bool graphics,
                 double now_s) {
    if (p->graphics != graphics || now_s < p->from_s || now_s >= p->until_s) return false;
    return !mig || p->gpu_instance == mig->gpu_instance;
}

/* NVML's way with lists: *count says how many fit, and comes back as how many there are. */
static nvmlReturn_t list(const struct device *d, const struct mig_device *mig, bool graphics,
                         unsigned *count, nvmlProcessInfo_t *out) {
    double now_s = session_now_s();
    unsigned room = out ? *count : 0, found = 0;
    for (unsigned i = 0; i < d->process_count; i++) {
        const struct process *p = &d->processes[i];
        if (!runs(p, mig, graphics, now_s)) continue;
        if (found < room)
            out[found] = (nvmlProcessInfo_t){
                p->pid, p->memory_known ? p->used_memory_bytes : NVML_VALUE_NOT_AVAILABLE,
                p->gpu_instance, p->compute_instance};
        found++;
    }
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

/* As before there was MIG: entries without instances. */
static nvmlReturn_t list_v1(const struct device *d, const struct mig_device *mig, bool graphics,
                            unsigned *count, nvmlProcessInfo_v1_t *out) {
    nvmlProcessInfo_t *whole = out ? calloc((size_t)d->process_count + 1, sizeof *whole) : NULL;
    if (out && !whole) return NVML_ERROR_MEMORY;
    unsigned room = whole && *count > d->process_count ? d->process_count : *count;
    *count = room;
    nvmlReturn_t answer = list(d, mig, graphics, count, whole);
    for (unsigned i = 0; whole && i < room && i < *count; i++)
        out[i] = (nvmlProcessInfo_v1_t){whole[i].pid, whole[i].usedGpuMemory};
    free(whole);
    return answer;
}

#define PROCESS_LIST(name, graphics)                                                             \
    NVML_EXPORT nvmlReturn_t name(nvmlDevice_t handle, unsigned *count, nvmlProcessInfo_t *out) { \
        ON_ANY(handle, count, answer = list(device, mig, graphics, count, out));                 \
    }

#define PROCESS_LIST_V1(name, graphics)                                               \
    NVML_EXPORT nvmlReturn_t name(nvmlDevice_t handle, unsigned *count,               \
                                  nvmlProcessInfo_v1_t *out) {                        \
        ON_ANY(handle, count, answer = list_v1(device, mig, graphics, count, out));   \
    }

PROCESS_LIST_V1(nvmlDeviceGetComputeRunningProcesses, false)
PROCESS_LIST_V1(nvmlDeviceGetGraphicsRunningProcesses, true)
PROCESS_LIST(nvmlDeviceGetComputeRunningProcesses_v2, false)
PROCESS_LIST(nvmlDeviceGetComputeRunningProcesses_v3, false)
PROCESS_LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, true)
PROCESS_LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, true)

NVML_EXPORT nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t handle,
                                                                    unsigned *count,
                                                                    nvmlProcessInfo_t *out) {
    (void)out;
    ON_ANY(handle, count, {
        (void)device, (void)mig;
        *count = 0;
    });
}
