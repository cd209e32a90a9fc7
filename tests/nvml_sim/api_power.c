/* NVML: power, energy and the field values. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api.h"

static unsigned milliwatts(double watts) {
    return (unsigned)llround(watts * 1000);
}

static unsigned power_mw(const struct device *d, enum sensor_channel channel, int64_t at_ns) {
    return milliwatts(sensor_power_w(&d->sensor, &d->power, channel, at_ns));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t handle, unsigned *power) {
    ON_DEVICE_CALL(CALL_POWER, handle, power,
                   *power = power_mw(device, SENSOR_AVERAGE, clock_elapsed_ns()));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t handle,
                                                             unsigned long long *energy) {
    ON_DEVICE_CALL(CALL_COUNTER, handle, energy,
                   if (!device->counter_supported) answer = NVML_ERROR_NOT_SUPPORTED;
                   else *energy = device_counter_mj(device, clock_elapsed_ns()));
}

static nvmlReturn_t put_power(nvmlFieldValue_t *field, const struct device *d, int64_t at_ns) {
    bool module = field->scopeId == NVML_POWER_SCOPE_MODULE && d->c2c;
    enum sensor_channel channel =
        field->fieldId == NVML_FI_DEV_POWER_INSTANT ? SENSOR_INSTANT : SENSOR_AVERAGE;
    if (field->scopeId != NVML_POWER_SCOPE_GPU && !module) return NVML_ERROR_NOT_SUPPORTED;
    field->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
    field->value.uiVal = power_mw(d, channel, at_ns);
    field->timestamp = clock_wall_us(sensor_update_ns(&d->sensor, at_ns));
    return NVML_SUCCESS;
}

static nvmlReturn_t put_counter(nvmlFieldValue_t *field, struct device *d, int64_t at_ns) {
    if (!d->counter_supported) return NVML_ERROR_NOT_SUPPORTED;
    field->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
    field->value.ullVal = device_counter_mj(d, at_ns);
    field->timestamp = clock_wall_us(sensor_counter_update_ns(&d->sensor, at_ns));
    return NVML_SUCCESS;
}

static nvmlReturn_t put_field(nvmlFieldValue_t *field, struct device *d, int64_t at_ns) {
    char number[12];
    snprintf(number, sizeof number, "%u", field->fieldId);
    if (session_check_supported(d, number) != NVML_SUCCESS) return NVML_ERROR_NOT_SUPPORTED;
    switch (field->fieldId) {
    case NVML_FI_DEV_POWER_INSTANT:
    case NVML_FI_DEV_POWER_AVERAGE:
        return put_power(field, d, at_ns);
    case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
        return put_counter(field, d, at_ns);
    default:
        return NVML_ERROR_NOT_SUPPORTED;
    }
}

/* A call for several fields takes as long as the slowest of them. */
static enum call_kind fields_kind(int count, const nvmlFieldValue_t *values) {
    enum call_kind kind = CALL_OTHER;
    for (int i = 0; values && i < count; i++) {
        unsigned id = values[i].fieldId;
        if (id == NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION) return CALL_COUNTER;
        if (id == NVML_FI_DEV_POWER_INSTANT || id == NVML_FI_DEV_POWER_AVERAGE) kind = CALL_POWER;
    }
    return kind;
}

/* All fields of one call show the same moment. */
NVML_EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t handle, int count,
                                                  nvmlFieldValue_t *values) {
    ON_DEVICE_CALL(fields_kind(count, values), handle, values && count > 0, {
        int64_t at_ns = clock_elapsed_ns();
        for (int i = 0; i < count; i++) {
            values[i].timestamp = values[i].latencyUsec = 0;
            values[i].valueType = 0;
            memset(&values[i].value, 0, sizeof values[i].value);
            values[i].nvmlReturn = put_field(&values[i], device, at_ns);
        }
    });
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t handle, unsigned *limit) {
    ON_DEVICE(handle, limit, *limit = milliwatts(device_power_limit_w(device)));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t handle, unsigned *limit) {
    ON_DEVICE(handle, limit, *limit = milliwatts(device_power_limit_w(device)));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t handle,
                                                                  unsigned *limit) {
    ON_DEVICE(handle, limit, *limit = milliwatts(device->limit_default_w));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t handle,
                                                                      unsigned *lowest,
                                                                      unsigned *highest) {
    ON_DEVICE(handle, lowest && highest, {
        *lowest = milliwatts(device->limit_min_w);
        *highest = milliwatts(device->limit_max_w);
    });
}

static nvmlReturn_t set_limit(struct device *d, unsigned limit_mw) {
    if (!d->may_set_power_limit) return NVML_ERROR_NO_PERMISSION;
    if (limit_mw < milliwatts(d->limit_min_w) || limit_mw > milliwatts(d->limit_max_w))
        return NVML_ERROR_INVALID_ARGUMENT;
    bool kept = state_set(session_trace(), d, SETTING_POWER_LIMIT, limit_mw, 0);
    return kept ? NVML_SUCCESS : NVML_ERROR_OPERATING_SYSTEM;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t handle, unsigned limit) {
    ON_DEVICE(handle, true, answer = set_limit(device, limit));
}
