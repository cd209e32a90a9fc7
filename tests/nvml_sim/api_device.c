/* NVML: what a card is and how it is doing. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api.h"

NVML_EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t handle, char *name, unsigned length) {
    ON_ANY(handle, name, {
        char text[sizeof device->name + 8];
        snprintf(text, sizeof text, "%s%s", device->name, mig ? " MIG" : "");
        answer = copy_text(name, length, text);
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t handle, char *uuid, unsigned length) {
    ON_ANY(handle, uuid, answer = copy_text(uuid, length, mig ? mig->uuid : device->uuid));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t handle, char *serial, unsigned length) {
    ON_DEVICE(handle, serial, answer = copy_text(serial, length, device->serial));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t handle, char *version,
                                                   unsigned length) {
    ON_DEVICE(handle, version, answer = copy_text(version, length, device->vbios));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetBoardPartNumber(nvmlDevice_t handle, char *number,
                                                      unsigned length) {
    ON_DEVICE(handle, number, answer = copy_text(number, length, device->part_number));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t handle, unsigned *index) {
    ON_ANY(handle, index, *index = mig ? (unsigned)(mig - device->mig) : device->index);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t handle, unsigned *minor) {
    ON_DEVICE(handle, minor, *minor = device->minor);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetBoardId(nvmlDevice_t handle, unsigned *board) {
    ON_DEVICE(handle, board, *board = device->pci_bus << 8 | device->pci_device);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t handle, unsigned *brand) {
    ON_DEVICE(handle, brand, *brand = 14); /* NVML_BRAND_NVIDIA */
}

/* NVML_DEVICE_ARCH_* of a compute capability, by NVIDIA's CUDA GPU list. */
static unsigned architecture(int major, int minor) {
    switch (major) {
    case 3: return 2;
    case 5: return 3;
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
    ON_ANY(handle, arch, {
        (void)mig;
        *arch = architecture(device->compute_major, device->compute_minor);
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t handle, int *major,
                                                            int *minor) {
    ON_ANY(handle, major && minor, {
        (void)mig;
        *major = device->compute_major;
        *minor = device->compute_minor;
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t handle, nvmlPciInfo_t *info) {
    ON_DEVICE(handle, info, {
        memset(info, 0, sizeof *info);
        info->domain = device->pci_domain;
        info->bus = device->pci_bus;
        info->device = device->pci_device;
        info->pciDeviceId = device->pci_device_id;
        info->pciSubSystemId = device->pci_subsystem_id;
        format_pci_address(device, info->busId, sizeof info->busId);
        snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "%04X:%02X:%02X.0",
                 device->pci_domain & 0xFFFF, device->pci_bus & 0xFF, device->pci_device & 0xFF);
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
    if (t && t->version != (1u << 24 | sizeof *t)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    ON_DEVICE(handle, t && t->sensorType == 0,
              t->temperature = (int)whole_celsius(&device->temperature_c));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t handle, unsigned threshold,
                                                           unsigned *celsius) {
    static const unsigned usual[] = {92, 89, 95, 87}; /* shutdown, slowdown, memory, GPU maximum */
    ON_DEVICE(handle, celsius, {
        (void)device;
        if (threshold < 4) *celsius = usual[threshold];
        else answer = NVML_ERROR_NOT_SUPPORTED;
    });
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

NVML_EXPORT nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t handle,
                                                                  unsigned long long *reasons) {
    ON_DEVICE(handle, reasons, {
        (void)device;
        *reasons = NVML_THROTTLE_ALL;
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetSupportedClocksThrottleReasons(nvmlDevice_t handle,
                                                                     unsigned long long *reasons) {
    return nvmlDeviceGetSupportedClocksEventReasons(handle, reasons);
}

static uint64_t used_memory(const struct device *d) {
    uint64_t used = (uint64_t)series_step(&d->used_bytes, session_now_s());
    return used < d->memory_bytes ? used : d->memory_bytes;
}

static void read_memory(const struct device *d, const struct mig_device *mig, nvmlMemory_t *memory) {
    memory->total = mig ? mig->memory_bytes : d->memory_bytes;
    memory->used = mig ? 0 : used_memory(d);
    memory->free = memory->total - memory->used;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, nvmlMemory_t *memory) {
    ON_ANY(handle, memory, read_memory(device, mig, memory));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, nvmlMemory_v2_t *memory) {
    if (memory && memory->version != (2u << 24 | sizeof *memory))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    ON_ANY(handle, memory, {
        nvmlMemory_t plain;
        read_memory(device, mig, &plain);
        memory->total = plain.total;
        memory->used = plain.used;
        memory->free = plain.free;
        memory->reserved = 0;
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, nvmlUtilization_t *u) {
    ON_DEVICE(handle, u, {
        double now_s = session_now_s();
        if (device->mig_current) answer = NVML_ERROR_NOT_SUPPORTED; /* as the real driver */
        else {
            u->gpu = (unsigned)lround(series_step(&device->utilization_gpu, now_s));
            u->memory = (unsigned)lround(series_step(&device->utilization_memory, now_s));
        }
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t handle, unsigned *state) {
    ON_DEVICE(handle, state, *state = device->performance_state);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetPowerState(nvmlDevice_t handle, unsigned *state) {
    ON_DEVICE(handle, state, *state = device->performance_state);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t handle, unsigned *mode) {
    ON_DEVICE(handle, mode, *mode = device->compute_mode);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t handle, unsigned *current,
                                              unsigned *pending) {
    ON_DEVICE(handle, current && pending, {
        if (!device->ecc_supported) answer = NVML_ERROR_NOT_SUPPORTED;
        *current = device->ecc_current;
        *pending = device->ecc_pending;
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t handle, unsigned type,
                                                     unsigned counter, unsigned long long *errors) {
    ON_DEVICE(handle, errors && type < 2 && counter < 2, {
        if (!device->ecc_supported || !device->ecc_current) answer = NVML_ERROR_NOT_SUPPORTED;
        *errors = 0;
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetNumFans(nvmlDevice_t handle, unsigned *count) {
    ON_DEVICE(handle, count, *count = device->has_fan);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetFanSpeed(nvmlDevice_t handle, unsigned *percent) {
    ON_DEVICE(handle, percent,
              if (device->has_fan) *percent = device->fan_percent;
              else answer = NVML_ERROR_NOT_SUPPORTED);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t handle, unsigned fan,
                                                  unsigned *percent) {
    if (fan > 0) return NVML_ERROR_INVALID_ARGUMENT;
    return nvmlDeviceGetFanSpeed(handle, percent);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetC2cModeInfoV(nvmlDevice_t handle, nvmlC2cModeInfo_v1_t *info) {
    ON_DEVICE(handle, info,
              if (device->c2c) info->isC2cEnabled = 1;
              else answer = NVML_ERROR_NOT_SUPPORTED);
}
