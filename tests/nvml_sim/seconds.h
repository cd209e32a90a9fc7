/* Whole nanoseconds as seconds. */
#ifndef NVML_SIM_SECONDS_H
#define NVML_SIM_SECONDS_H

#include <stdint.h>

/* One correctly rounded division, so that 100 ms is the very number that 0.1 in a trace is: at a step
 * that lies on a tick, the tick sees the value after it. */
static inline double seconds(int64_t ns) {
    return (double)ns / 1e9;
}

#endif
