/* An instrument that samples power: at each tick the mean over the window before it, held to the next. */
#ifndef NVML_SIM_SAMPLER_H
#define NVML_SIM_SAMPLER_H

#include "ticks.h"
#include "timeline.h"

struct sampler {
    struct ticks ticks;
    int64_t window_ns; /* 0: the moment, and at a step the value after it */
    double gain, offset_w;
    /* sum_j[i]: joules of the held samples from time zero to tick first + i */
    long double *sum_j;
    size_t sum_count, sum_room;
};

/* The value made over `window_ns` before tick_ns, in watts, never below 0. */
long double sampler_value_w(const struct sampler *sampler, const struct timeline *power,
                            int64_t window_ns, int64_t tick_ns);
/* Integral of the held samples from time zero to elapsed_ns (not below 0), in joules. */
long double sampler_energy_j(struct sampler *sampler, const struct timeline *power,
                             int64_t elapsed_ns);
/* Power changed from from_s on: sums that reach past it are made anew. */
void sampler_power_changed(struct sampler *sampler, double from_s);
void sampler_free(struct sampler *sampler);

#endif
