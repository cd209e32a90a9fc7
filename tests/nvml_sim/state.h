/* Settings that processes share through the file NVML_SIM_STATE names: one line a change, appended whole,
 * `t_ns uuid setting a b`. Without the variable they live in this process alone. */
#ifndef NVML_SIM_STATE_H
#define NVML_SIM_STATE_H

#include <stdbool.h>

#include "trace.h"

enum setting {
    SETTING_POWER_LIMIT,        /* mW */
    SETTING_GPU_LOCKED_CLOCKS,  /* MHz, MHz; 0 0: none */
    SETTING_APPLICATION_CLOCKS, /* memory MHz, graphics MHz; 0 0: the default. No call sets them */
    SETTING_COUNT
};

void state_open(void);
void state_close(void);
/* Takes in what other processes have set. */
void state_poll(struct trace *trace);
/* False when the state file cannot be written. */
bool state_set(struct trace *trace, struct device *device, enum setting setting, unsigned a,
               unsigned b);

#endif
