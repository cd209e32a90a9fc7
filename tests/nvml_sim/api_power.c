/* NVML: power, energy and the field values. */
#include <math.h>
#include <string.h>

#include "api.h"
#include "seconds.h"

/* How many samples the driver keeps. */
#define KEPT_SAMPLES 120

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

static void put_unsigned(nvmlFieldValue_t *field, unsigned value) {
    field->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
    field->value.uiVal = value;
}

static nvmlReturn_t put_power(nvmlFieldValue_t *field, const struct device *d, int64_t at_ns) {
    bool module = field->scopeId == NVML_POWER_SCOPE_MODULE && d->c2c;
    enum sensor_channel channel =
        field->fieldId == NVML_FI_DEV_POWER_INSTANT ? SENSOR_INSTANT : SENSOR_AVERAGE;
    if (field->scopeId != NVML_POWER_SCOPE_GPU && !module) return NVML_ERROR_NOT_SUPPORTED;
    unsigned value = power_mw(d, channel, at_ns);
    put_unsigned(field, module ? value + milliwatts(d->module_extra_w) : value);
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
    for (unsigned i = 0; i < d->unsupported_field_count; i++)
        if (d->unsupported_fields[i] == field->fieldId) return NVML_ERROR_NOT_SUPPORTED;
    field->timestamp = clock_wall_us(at_ns);
    switch (field->fieldId) {
    case NVML_FI_DEV_POWER_INSTANT:
    case NVML_FI_DEV_POWER_AVERAGE:
        return put_power(field, d, at_ns);
    case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
        return put_counter(field, d, at_ns);
    case NVML_FI_DEV_POWER_MIN_LIMIT:
        put_unsigned(field, milliwatts(d->limit_min_w));
        return NVML_SUCCESS;
    case NVML_FI_DEV_POWER_MAX_LIMIT:
        put_unsigned(field, milliwatts(d->limit_max_w));
        return NVML_SUCCESS;
    case NVML_FI_DEV_POWER_DEFAULT_LIMIT:
        put_unsigned(field, milliwatts(d->limit_default_w));
        return NVML_SUCCESS;
    case NVML_FI_DEV_POWER_CURRENT_LIMIT:
    case NVML_FI_DEV_POWER_REQUESTED_LIMIT:
        put_unsigned(field, milliwatts(device_power_limit_w(d)));
        return NVML_SUCCESS;
    case NVML_FI_DEV_MEMORY_TEMP:
        if (!d->has_memory_temperature) return NVML_ERROR_NOT_SUPPORTED;
        put_unsigned(field, (unsigned)lround(fmax(
                                0, series_linear(&d->memory_temperature_c, seconds(at_ns)))));
        return NVML_SUCCESS;
    case NVML_FI_DEV_ECC_CURRENT:
    case NVML_FI_DEV_ECC_PENDING:
        if (!d->ecc_supported) return NVML_ERROR_NOT_SUPPORTED;
        put_unsigned(field, field->fieldId == NVML_FI_DEV_ECC_CURRENT ? d->ecc_current
                                                                     : d->ecc_pending);
        return NVML_SUCCESS;
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

/* Those newer than since_us, the oldest first, as many as there is room for; without `out` the room that
 * all of them need. */
static nvmlReturn_t list_samples(const struct device *d, unsigned long long since_us,
                                 unsigned *count, nvmlSample_t *out) {
    int64_t step_ns = d->sensor.samples_ns;
    unsigned room = *count, found = 0;
    if (out && room == 0) return NVML_ERROR_INVALID_ARGUMENT;
    *count = KEPT_SAMPLES;
    if (!out) return NVML_SUCCESS;
    int64_t last = ticks_floor_divide(clock_elapsed_ns(), step_ns);
    for (int64_t n = last - KEPT_SAMPLES + 1; n <= last && found < room; n++) {
        int64_t stamp_us = clock_wall_us(n * step_ns);
        if (stamp_us < 0 || (unsigned long long)stamp_us <= since_us) continue;
        unsigned value = milliwatts(sensor_sample_w(&d->sensor, &d->power, n * step_ns));
        out[found++] = (nvmlSample_t){(unsigned long long)stamp_us, {.uiVal = value}};
    }
    *count = found;
    return found ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t handle, unsigned type,
                                              unsigned long long since_us, unsigned *value_type,
                                              unsigned *count, nvmlSample_t *samples) {
    ON_DEVICE_CALL(CALL_POWER, handle, value_type && count, {
        bool supported = type == NVML_TOTAL_POWER_SAMPLES && device->sensor.samples_ns > 0;
        *value_type = NVML_VALUE_TYPE_UNSIGNED_INT;
        answer = supported ? list_samples(device, since_us, count, samples)
                           : NVML_ERROR_NOT_SUPPORTED;
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

NVML_EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementMode(nvmlDevice_t handle, unsigned *mode) {
    ON_DEVICE(handle, mode, *mode = 1);
}

static nvmlReturn_t set_limit(struct device *d, unsigned limit_mw) {
    struct trace *trace = session_trace();
    if (!d->may_set.power_limit) return NVML_ERROR_NO_PERMISSION;
    if (limit_mw < milliwatts(d->limit_min_w) || limit_mw > milliwatts(d->limit_max_w))
        return NVML_ERROR_INVALID_ARGUMENT;
    bool kept = state_set(trace->devices, trace->count, d, SETTING_POWER_LIMIT, limit_mw, 0);
    return kept ? NVML_SUCCESS : NVML_ERROR_OPERATING_SYSTEM;
}

NVML_EXPORT nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t handle, unsigned limit) {
    ON_DEVICE(handle, true, answer = set_limit(device, limit));
}

NVML_EXPORT nvmlReturn_t nvmlDeviceSetPowerManagementLimit_v2(nvmlDevice_t handle,
                                                              nvmlPowerValue_v2_t *value) {
    ON_DEVICE(handle, value,
              if (value->powerScope != NVML_POWER_SCOPE_GPU) answer = NVML_ERROR_NOT_SUPPORTED;
              else answer = set_limit(device, value->powerValueMw));
}
