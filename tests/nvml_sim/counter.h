/* The energy counter: what it sums, when it shows it, and what befalls it. */
#ifndef NVML_SIM_COUNTER_H
#define NVML_SIM_COUNTER_H

#include "sampler.h"
#include "series.h"

enum counter_source { COUNTER_TRUE, COUNTER_SAMPLES, COUNTER_OWN_SAMPLES };

struct counter {
    struct ticks ticks;
    int64_t lag_ns; /* at a tick it shows what it was this long before */
    enum counter_source source;
    struct sampler own; /* of COUNTER_OWN_SAMPLES */
    double gain;
    double start_mj;
    uint64_t wrap_mj; /* 0: never wraps */
    struct series resets; /* times alone */
    struct series jumps_j;
};

/* What the counter has come to, before it wraps. */
struct counter_reading {
    uint64_t mj;
    size_t events; /* resets and jumps so far: where it differs, the counter may have gone back */
};

/* The reading shown at elapsed_ns; `samples` is the power sensor, for COUNTER_SAMPLES. */
struct counter_reading counter_read(struct counter *counter, struct sampler *samples,
                                    const struct timeline *power, int64_t elapsed_ns);
uint64_t counter_wrapped(const struct counter *counter, uint64_t mj);
void counter_free(struct counter *counter);

#endif
