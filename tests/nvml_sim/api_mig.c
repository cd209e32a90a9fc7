/* NVML: multi-instance GPU. A MIG device has a handle, a name and memory, and no power of its own. */
#include "api.h"

NVML_EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t handle, unsigned *current,
                                              unsigned *pending) {
    ON_DEVICE(handle, current && pending, {
        if (!device->mig_supported) answer = NVML_ERROR_NOT_SUPPORTED;
        *current = device->mig_current;
        *pending = device->mig_pending;
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t handle, unsigned *is_mig) {
    ON_ANY(handle, is_mig, {
        (void)device;
        *is_mig = mig != NULL;
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t handle, unsigned *count) {
    ON_DEVICE(handle, count, *count = device->mig_supported ? MAX_MIG_DEVICES : 0);
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t handle, unsigned index,
                                                             nvmlDevice_t *out) {
    ON_DEVICE(handle, out,
              if (!device->mig_current || index >= device->mig_count) answer = NVML_ERROR_NOT_FOUND;
              else *out = session_handle(device, (int)index));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t handle,
                                                                      nvmlDevice_t *out) {
    ON_ANY(handle, out,
           if (!mig) answer = NVML_ERROR_INVALID_ARGUMENT;
           else *out = session_handle(device, -1));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t handle, unsigned *id) {
    ON_ANY(handle, id, {
        (void)device;
        if (mig) *id = mig->gpu_instance;
        else answer = NVML_ERROR_NOT_SUPPORTED;
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t handle, unsigned *id) {
    ON_ANY(handle, id, {
        (void)device;
        if (mig) *id = mig->compute_instance;
        else answer = NVML_ERROR_NOT_SUPPORTED;
    });
}
