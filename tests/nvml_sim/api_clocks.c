/* NVML: clocks and their locks. Memory has one clock. */
#include "api.h"

#define CLOCK_STEP_MHZ 15

NVML_EXPORT nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t handle, unsigned type, unsigned *mhz) {
    ON_DEVICE(handle, mhz && type < DOMAIN_COUNT,
              *mhz = device_clock_mhz(device, (enum clock_domain)type, session_now_s()));
}

static unsigned highest_mhz(const struct device *d, unsigned type) {
    return type == DOMAIN_MEMORY ? MEMORY_MHZ : d->max_sm_mhz;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t handle, unsigned type,
                                                   unsigned *mhz) {
    ON_DEVICE(handle, mhz && type < DOMAIN_COUNT, *mhz = highest_mhz(device, type));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetApplicationsClock(nvmlDevice_t handle, unsigned type,
                                                        unsigned *mhz) {
    ON_DEVICE(handle, mhz && type < DOMAIN_COUNT, {
        unsigned set = device->settings.application_mhz[type == DOMAIN_MEMORY ? 0 : 1];
        *mhz = set ? set : highest_mhz(device, type);
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetDefaultApplicationsClock(nvmlDevice_t handle, unsigned type,
                                                               unsigned *mhz) {
    ON_DEVICE(handle, mhz && type < DOMAIN_COUNT, *mhz = highest_mhz(device, type));
}

/* Steps down from the highest clock; *count as for every NVML list. */
static nvmlReturn_t list_clocks(unsigned lowest, unsigned highest, unsigned *count, unsigned *out) {
    unsigned room = out ? *count : 0, there = (highest - lowest) / CLOCK_STEP_MHZ + 1;
    for (unsigned i = 0; i < there && i < room; i++) out[i] = highest - i * CLOCK_STEP_MHZ;
    *count = there;
    return there > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t handle, unsigned *count,
                                                            unsigned *mhz) {
    ON_DEVICE(handle, count, {
        (void)device;
        answer = list_clocks(MEMORY_MHZ, MEMORY_MHZ, count, mhz);
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t handle,
                                                              unsigned memory_mhz, unsigned *count,
                                                              unsigned *mhz) {
    ON_DEVICE(handle, count,
              answer = memory_mhz == MEMORY_MHZ
                           ? list_clocks(device->min_sm_mhz, device->max_sm_mhz, count, mhz)
                           : NVML_ERROR_NOT_FOUND);
}

static nvmlReturn_t lock_clocks(struct device *d, unsigned lowest, unsigned highest) {
    if (!d->may_set_clocks) return NVML_ERROR_NO_PERMISSION;
    bool kept = state_set(session_trace(), d, SETTING_GPU_LOCKED_CLOCKS, lowest, highest);
    return kept ? NVML_SUCCESS : NVML_ERROR_OPERATING_SYSTEM;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceSetGpuLockedClocks(nvmlDevice_t handle, unsigned lowest,
                                                      unsigned highest) {
    ON_DEVICE(handle, lowest <= highest && highest,
              if (highest < device->min_sm_mhz || lowest > device->max_sm_mhz)
                  answer = NVML_ERROR_INVALID_ARGUMENT;
              else answer = lock_clocks(device, lowest, highest));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceResetGpuLockedClocks(nvmlDevice_t handle) {
    ON_DEVICE(handle, true, answer = lock_clocks(device, 0, 0));
}
