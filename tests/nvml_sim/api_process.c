/* NVML: the processes on a card. */
#include "api.h"

/* NVML's way with lists: *count says how many fit, and comes back as how many there are. */
static nvmlReturn_t list(const struct processes *processes, bool graphics, unsigned *count,
                         nvmlProcessInfo_t *out) {
    unsigned room = out ? *count : 0, found = 0;
    for (unsigned i = 0; i < processes->count; i++) {
        const struct process *p = &processes->all[i];
        if ((p->graphics != 0) != graphics) continue;
        if (found < room)
            out[found] = (nvmlProcessInfo_t){p->pid, p->used_memory_bytes, UINT32_MAX, UINT32_MAX};
        found++;
    }
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t handle,
                                                                 unsigned *count,
                                                                 nvmlProcessInfo_t *out) {
    ON_DEVICE(handle, count, answer = list(&device->processes, false, count, out));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t handle,
                                                                  unsigned *count,
                                                                  nvmlProcessInfo_t *out) {
    ON_DEVICE(handle, count, answer = list(&device->processes, true, count, out));
}
