/* NVML: clocks, their locks, and persistence mode. */
#include "api.h"

#define CLOCK_STEP_MHZ 15

NVML_EXPORT nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t handle, unsigned type, unsigned *mhz) {
    ON_DEVICE(handle, mhz && type < DOMAIN_COUNT,
              *mhz = device_clock_mhz(device, (enum clock_domain)type, session_now_s()));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t handle, unsigned type,
                                                   unsigned *mhz) {
    ON_DEVICE(handle, mhz && type < DOMAIN_COUNT, *mhz = device->max_mhz[type]);
}

static unsigned application_mhz(const struct device *d, unsigned type) {
    unsigned set = d->settings.application_mhz[type == DOMAIN_MEMORY ? 0 : 1];
    return set ? set : d->max_mhz[type];
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetApplicationsClock(nvmlDevice_t handle, unsigned type,
                                                        unsigned *mhz) {
    ON_DEVICE(handle, mhz && type < DOMAIN_COUNT, *mhz = application_mhz(device, type));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetDefaultApplicationsClock(nvmlDevice_t handle, unsigned type,
                                                               unsigned *mhz) {
    ON_DEVICE(handle, mhz && type < DOMAIN_COUNT, *mhz = device->max_mhz[type]);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetMaxCustomerBoostClock(nvmlDevice_t handle, unsigned type,
                                                            unsigned *mhz) {
    ON_DEVICE(handle, mhz && type < DOMAIN_COUNT, *mhz = device->max_mhz[type]);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t handle, unsigned type, unsigned id,
                                            unsigned *mhz) {
    switch (id) {
    case NVML_CLOCK_ID_CURRENT: return nvmlDeviceGetClockInfo(handle, type, mhz);
    case NVML_CLOCK_ID_APP_CLOCK_TARGET: return nvmlDeviceGetApplicationsClock(handle, type, mhz);
    case NVML_CLOCK_ID_APP_CLOCK_DEFAULT:
    case NVML_CLOCK_ID_CUSTOMER_BOOST_MAX: return nvmlDeviceGetMaxClockInfo(handle, type, mhz);
    default: return NVML_ERROR_INVALID_ARGUMENT;
    }
}

/* Steps down from the highest clock; *count as for every NVML list. */
static nvmlReturn_t list_clocks(unsigned lowest, unsigned highest, unsigned *count, unsigned *out) {
    unsigned room = out ? *count : 0, found = 0;
    for (unsigned mhz = highest; mhz >= lowest && mhz > 0; found++) {
        if (found < room) out[found] = mhz;
        if (mhz < lowest + CLOCK_STEP_MHZ) {
            found++;
            break;
        }
        mhz -= CLOCK_STEP_MHZ;
    }
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t handle, unsigned *count,
                                                            unsigned *mhz) {
    ON_DEVICE(handle, count, {
        unsigned highest = device->max_mhz[DOMAIN_MEMORY];
        unsigned lowest = device->min_mhz[DOMAIN_MEMORY];
        unsigned there = highest == lowest ? 1 : 2, room = mhz ? *count : 0;
        if (room >= 1) mhz[0] = highest;
        if (room >= 2 && there == 2) mhz[1] = lowest;
        *count = there;
        if (there > room) answer = NVML_ERROR_INSUFFICIENT_SIZE;
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t handle,
                                                              unsigned memory_mhz, unsigned *count,
                                                              unsigned *mhz) {
    ON_DEVICE(handle, count, {
        if (memory_mhz != device->max_mhz[DOMAIN_MEMORY] &&
            memory_mhz != device->min_mhz[DOMAIN_MEMORY])
            answer = NVML_ERROR_NOT_FOUND;
        else
            answer = list_clocks(device->min_mhz[DOMAIN_GRAPHICS], device->max_mhz[DOMAIN_GRAPHICS],
                                 count, mhz);
    });
}

static nvmlReturn_t keep(struct device *d, bool allowed, enum setting setting, unsigned a,
                         unsigned b) {
    struct trace *trace = session_trace();
    if (!allowed) return NVML_ERROR_NO_PERMISSION;
    bool kept = state_set(trace->devices, trace->count, d, setting, a, b);
    return kept ? NVML_SUCCESS : NVML_ERROR_OPERATING_SYSTEM;
}

static nvmlReturn_t set_lock(struct device *d, enum clock_domain domain, enum setting setting,
                             unsigned lowest, unsigned highest) {
    if (!d->may_set.clocks) return NVML_ERROR_NO_PERMISSION;
    if (lowest > highest || highest < d->min_mhz[domain] || lowest > d->max_mhz[domain] || !highest)
        return NVML_ERROR_INVALID_ARGUMENT;
    return keep(d, true, setting, lowest, highest);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceSetGpuLockedClocks(nvmlDevice_t handle, unsigned lowest,
                                                      unsigned highest) {
    ON_DEVICE(handle, true, answer = set_lock(device, DOMAIN_GRAPHICS, SETTING_GPU_LOCKED_CLOCKS,
                                              lowest, highest));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceResetGpuLockedClocks(nvmlDevice_t handle) {
    ON_DEVICE(handle, true,
              answer = keep(device, device->may_set.clocks, SETTING_GPU_LOCKED_CLOCKS, 0, 0));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceSetMemoryLockedClocks(nvmlDevice_t handle, unsigned lowest,
                                                         unsigned highest) {
    ON_DEVICE(handle, true, answer = set_lock(device, DOMAIN_MEMORY, SETTING_MEMORY_LOCKED_CLOCKS,
                                              lowest, highest));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceResetMemoryLockedClocks(nvmlDevice_t handle) {
    ON_DEVICE(handle, true,
              answer = keep(device, device->may_set.clocks, SETTING_MEMORY_LOCKED_CLOCKS, 0, 0));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceSetApplicationsClocks(nvmlDevice_t handle, unsigned memory_mhz,
                                                         unsigned graphics_mhz) {
    ON_DEVICE(handle, memory_mhz && graphics_mhz,
              answer = keep(device, device->may_set.clocks, SETTING_APPLICATION_CLOCKS, memory_mhz,
                            graphics_mhz));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceResetApplicationsClocks(nvmlDevice_t handle) {
    ON_DEVICE(handle, true,
              answer = keep(device, device->may_set.clocks, SETTING_APPLICATION_CLOCKS, 0, 0));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t handle, unsigned *mode) {
    ON_DEVICE(handle, mode, *mode = device->settings.persistence);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceSetPersistenceMode(nvmlDevice_t handle, unsigned mode) {
    ON_DEVICE(handle, mode <= 1,
              answer = keep(device, device->may_set.persistence, SETTING_PERSISTENCE, mode, 0));
}
