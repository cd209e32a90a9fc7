/* NVML: library, driver and finding a device. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

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

NVML_EXPORT const char *nvmlErrorString(nvmlReturn_t code) {
    switch (code) {
    case NVML_SUCCESS: return "The operation was successful";
    case NVML_ERROR_UNINITIALIZED: return "NVML was not first initialized with nvmlInit()";
    case NVML_ERROR_INVALID_ARGUMENT: return "A supplied argument is invalid";
    case NVML_ERROR_NOT_SUPPORTED: return "The requested operation is not available on target device";
    case NVML_ERROR_NO_PERMISSION: return "The current user does not have permission for operation";
    case NVML_ERROR_NOT_FOUND: return "A query to find an object was unsuccessful";
    case NVML_ERROR_INSUFFICIENT_SIZE: return "An input argument is not large enough";
    case NVML_ERROR_DRIVER_NOT_LOADED: return "NVIDIA driver is not loaded";
    case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
    case NVML_ERROR_OPERATING_SYSTEM: return "The GPU control device has been blocked by the operating system";
    case NVML_ERROR_MEMORY: return "Insufficient memory";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH: return "The provided version is invalid/unsupported";
    default: return "Unknown error";
    }
}

nvmlReturn_t copy_text(char *out, unsigned size, const char *text) {
    if (!out) return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(text) >= size) return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(out, text);
    return NVML_SUCCESS;
}

NVML_EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    struct trace *trace;
    nvmlReturn_t answer = session_enter(&trace);
    if (answer != NVML_SUCCESS) return answer;
    answer = copy_text(version, length, trace->driver_version);
    session_leave();
    return answer;
}

NVML_EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length) {
    struct trace *trace;
    nvmlReturn_t answer = session_enter(&trace);
    if (answer != NVML_SUCCESS) return answer;
    answer = copy_text(version, length, trace->nvml_version);
    session_leave();
    return answer;
}

NVML_EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    struct trace *trace;
    if (!version) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = session_enter(&trace);
    if (answer != NVML_SUCCESS) return answer;
    *version = trace->cuda_version;
    session_leave();
    return NVML_SUCCESS;
}

NVML_EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

NVML_EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
    struct trace *trace;
    if (!name || !length) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = session_enter(&trace);
    if (answer != NVML_SUCCESS) return answer;
    answer = NVML_ERROR_NOT_FOUND;
    for (unsigned i = 0; i < trace->count; i++) {
        const struct device *d = &trace->devices[i];
        for (unsigned k = 0; k < d->process_count && answer != NVML_SUCCESS; k++) {
            if (d->processes[k].pid != pid) continue;
            snprintf(name, length, "%s", d->processes[k].name);
            answer = NVML_SUCCESS;
        }
    }
    session_leave();
    return answer;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    struct trace *trace;
    if (!count) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = session_enter(&trace);
    if (answer != NVML_SUCCESS) return answer;
    *count = trace->count;
    session_leave();
    return NVML_SUCCESS;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned *count) {
    return nvmlDeviceGetCount_v2(count);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *handle) {
    struct trace *trace;
    if (!handle) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = session_enter(&trace);
    if (answer != NVML_SUCCESS) return answer;
    answer = NVML_ERROR_INVALID_ARGUMENT;
    if (index < trace->count) {
        *handle = session_handle(&trace->devices[index], -1);
        answer = session_check_lost(&trace->devices[index]);
    }
    session_leave();
    return answer;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *handle) {
    return nvmlDeviceGetHandleByIndex_v2(index, handle);
}

void format_pci_address(const struct device *d, char *out, size_t size) {
    snprintf(out, size, "%08X:%02X:%02X.0", d->pci_domain, d->pci_bus & 0xFF, d->pci_device & 0xFF);
}

/* An address may leave out leading zeros of its domain, or the domain. */
static bool same_address(const struct device *d, const char *address) {
    unsigned domain = 0, bus, slot, function = 0;
    if (sscanf(address, "%8x:%2x:%2x.%1x", &domain, &bus, &slot, &function) < 3) {
        domain = 0;
        if (sscanf(address, "%2x:%2x.%1x", &bus, &slot, &function) < 2) return false;
    }
    return domain == d->pci_domain && bus == d->pci_bus && slot == d->pci_device;
}

static bool same_uuid(const struct device *d, const char *uuid) {
    return strcmp(d->uuid, uuid) == 0;
}

static bool same_serial(const struct device *d, const char *serial) {
    return strcmp(d->serial, serial) == 0;
}

static nvmlReturn_t find_handle(const char *text, bool (*same)(const struct device *, const char *),
                                nvmlDevice_t *handle) {
    struct trace *trace;
    if (!text || !handle) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t answer = session_enter(&trace);
    if (answer != NVML_SUCCESS) return answer;
    answer = NVML_ERROR_NOT_FOUND;
    for (unsigned i = 0; i < trace->count && answer == NVML_ERROR_NOT_FOUND; i++) {
        const struct device *d = &trace->devices[i];
        int mig = -1;
        for (unsigned k = 0; k < d->mig_count; k++)
            if (same == same_uuid && strcmp(d->mig[k].uuid, text) == 0) mig = (int)k;
        if (mig < 0 && !same(d, text)) continue;
        *handle = session_handle(d, mig);
        answer = session_check_lost(d);
    }
    session_leave();
    return answer;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *handle) {
    return find_handle(uuid, same_uuid, handle);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *handle) {
    return find_handle(serial, same_serial, handle);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *address,
                                                          nvmlDevice_t *handle) {
    return find_handle(address, same_address, handle);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *address, nvmlDevice_t *handle) {
    return find_handle(address, same_address, handle);
}
