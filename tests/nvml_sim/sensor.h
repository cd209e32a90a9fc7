/* What the card's own instruments make of true power: windows, update ticks, gain, the counter. */
#ifndef NVML_SIM_SENSOR_H
#define NVML_SIM_SENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "timeline.h"

struct sensor {
    int64_t update_ns, phase_ns;
    int64_t window_ns;
    int64_t average_window_ns; /* nvmlDeviceGetPowerUsage and POWER_AVERAGE; 0: window_ns */
    int64_t counter_update_ns, counter_phase_ns;
    double gain, offset_w, noise_w;
    bool counter_from_samples;
    double counter_start_mj;
    uint64_t seed; /* of the noise */
    /* the sum over whole update intervals [time zero, tick `summed_to`), in joules */
    bool summed;
    int64_t summed_to;
    long double sum_j;
};

enum sensor_channel { SENSOR_INSTANT, SENSOR_AVERAGE };

/* Time of the last update (of the counter's last step) at or before elapsed_ns. */
int64_t sensor_update_ns(const struct sensor *sensor, int64_t elapsed_ns);
int64_t sensor_counter_update_ns(const struct sensor *sensor, int64_t elapsed_ns);

/* What the card shows at elapsed_ns (ns from time zero), in watts, never below 0. */
double sensor_power_w(const struct sensor *sensor, const struct timeline *power,
                      enum sensor_channel channel, int64_t elapsed_ns);
/* The energy counter at elapsed_ns, in mJ. */
uint64_t sensor_counter_mj(struct sensor *sensor, const struct timeline *power, int64_t elapsed_ns);
/* Power changed from from_s on: sums that reach past it are made anew. */
void sensor_power_changed(struct sensor *sensor, double from_s);

#endif
