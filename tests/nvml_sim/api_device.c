/* NVML: what a card is and how it is doing. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api.h"

NVML_EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t handle, char *name, unsigned length) {
    ON_DEVICE(handle, name, answer = copy_text(name, length, device->name));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t handle, char *uuid, unsigned length) {
    ON_DEVICE(handle, uuid, answer = copy_text(uuid, length, device->uuid));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t handle, char *version,
                                                   unsigned length) {
    ON_DEVICE(handle, version, answer = copy_text(version, length, device->vbios));
}

/* NVML_DEVICE_ARCH_* of a compute capability, by NVIDIA's CUDA GPU list. */
static unsigned architecture(int major, int minor) {
    switch (major) {
    case 6: return 4;
    case 7: return minor >= 5 ? 6 : 5;
    case 8: return minor >= 9 ? 8 : 7;
    case 9: return 9;
    case 10:
    case 11:
    case 12: return 10;
    default: return 0xFFFFFFFF;
    }
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t handle, unsigned *arch) {
    ON_DEVICE(handle, arch, {
        const int *version = device->compute_capability;
        *arch = architecture(version[0], version[1]);
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t handle, int *major,
                                                            int *minor) {
    ON_DEVICE(handle, major && minor, {
        *major = device->compute_capability[0];
        *minor = device->compute_capability[1];
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t handle, nvmlPciInfo_t *info) {
    ON_DEVICE(handle, info, {
        *info = (nvmlPciInfo_t){.pciDeviceId = 0x233010DE, .pciSubSystemId = 0x16C110DE};
        sscanf(device->pci, "%8x:%2x:%2x", &info->domain, &info->bus, &info->device);
        strcpy(info->busId, device->pci);
        snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "%04X:%02X:%02X.0",
                 info->domain & 0xFFFF, info->bus & 0xFF, info->device & 0xFF);
    });
}

static unsigned whole_celsius(const struct series *series) {
    return (unsigned)lround(fmax(0, series_linear(series, session_now_s())));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t handle, unsigned sensor,
                                                  unsigned *celsius) {
    ON_DEVICE(handle, celsius && sensor == 0, *celsius = whole_celsius(&device->temperature_c));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t handle, nvmlTemperature_v1_t *t) {
    ON_DEVICE(handle, t && t->sensorType == 0,
              t->temperature = (int)whole_celsius(&device->temperature_c));
}

static unsigned long long throttle_reasons(const struct device *d) {
    double now_s = session_now_s();
    unsigned long long reasons = (unsigned long long)series_step(&d->throttle, now_s);
    return device_is_power_capped(d, now_s) ? reasons | NVML_THROTTLE_SW_POWER_CAP : reasons;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t handle,
                                                                unsigned long long *reasons) {
    ON_DEVICE(handle, reasons, *reasons = throttle_reasons(device));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t handle,
                                                                   unsigned long long *reasons) {
    ON_DEVICE(handle, reasons, *reasons = throttle_reasons(device));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, nvmlMemory_t *memory) {
    ON_DEVICE(handle, memory, {
        double used = series_step(&device->used_bytes, session_now_s());
        memory->total = device->memory_bytes;
        memory->used = (unsigned long long)fmin(used, (double)device->memory_bytes);
        memory->free = memory->total - memory->used;
    });
}

/* The simulated program keeps nothing busy; a card in slices does not say, as with the real driver. */
NVML_EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, nvmlUtilization_t *u) {
    ON_DEVICE(handle, u, {
        *u = (nvmlUtilization_t){0, 0};
        if (device->mig) answer = NVML_ERROR_NOT_SUPPORTED;
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t handle, unsigned *mode) {
    ON_DEVICE(handle, mode, *mode = device->persistence);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t handle, unsigned *current,
                                              unsigned *pending) {
    ON_DEVICE(handle, current && pending, {
        if (!device->ecc_supported) answer = NVML_ERROR_NOT_SUPPORTED;
        *current = device->ecc_current;
        *pending = device->ecc_pending;
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetC2cModeInfoV(nvmlDevice_t handle, nvmlC2cModeInfo_v1_t *info) {
    ON_DEVICE(handle, info,
              if (device->c2c) info->isC2cEnabled = 1;
              else answer = NVML_ERROR_NOT_SUPPORTED);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t handle, unsigned *current,
                                              unsigned *pending) {
    ON_DEVICE(handle, current && pending, *current = *pending = device->mig);
}

/* The one call that a MIG device answers. */
NVML_EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t handle,
                                                                      nvmlDevice_t *out) {
    struct device *device;
    unsigned mig;
    nvmlReturn_t answer = session_enter_any(handle, __func__, CALL_OTHER, &device, &mig);
    if (answer != NVML_SUCCESS) return answer;
    *out = session_handle(device, 0);
    session_leave();
    return mig ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}
