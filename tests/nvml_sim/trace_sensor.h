/* Reads the `sensor` of one device of a trace. */
#ifndef NVML_SIM_TRACE_SENSOR_H
#define NVML_SIM_TRACE_SENSOR_H

#include "config.h"
#include "sensor.h"

/* Fills a zeroed sensor; faults go to the section's config. `index` is the device's. */
void trace_read_sensor(const struct section *device, struct sensor *sensor, unsigned index);

#endif
