/* The trace file: what NVML_SIM_TRACE describes, as devices. */
#ifndef NVML_SIM_TRACE_H
#define NVML_SIM_TRACE_H

#include "device.h"

struct trace {
    struct device *devices;
    unsigned count;
    char driver_version[80];
    char cuda_version[16]; /* "12.8" */
};

/* Prints one line on stderr (file, line, reason) and returns false where the file is no good. */
bool trace_load(const char *path, struct trace *trace);
void trace_free(struct trace *trace);

#endif
