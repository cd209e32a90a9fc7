/* One element of the trace's `devices`. */
#ifndef NVML_SIM_TRACE_DEVICE_H
#define NVML_SIM_TRACE_DEVICE_H

#include "config.h"
#include "device.h"

/* Fills a zeroed device; faults go to the section's config. `top` gives the defaults for all. */
void trace_read_device(const struct section *section, const struct section *top,
                       struct device *device, unsigned index);

#endif
