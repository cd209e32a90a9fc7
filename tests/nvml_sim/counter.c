#include "counter.h"

#include <math.h>

#include "seconds.h"

/* What the counter adds up, all stalls left aside: joules from time zero to at_ns. */
static long double summed_j(struct counter *c, struct sampler *samples,
                            const struct timeline *power, int64_t at_ns) {
    if (at_ns <= 0) return 0;
    if (c->source == COUNTER_TRUE) return timeline_energy_j(power, 0, seconds(at_ns));
    return sampler_energy_j(c->source == COUNTER_SAMPLES ? samples : &c->own, power, at_ns);
}

/* The same without the energy of the stalls that lose it. */
static long double kept_j(struct counter *c, struct sampler *samples, const struct timeline *power,
                          int64_t at_ns) {
    long double kept = summed_j(c, samples, power, at_ns);
    for (size_t i = 0; i < c->ticks.stall_count; i++) {
        const struct stall *stall = &c->ticks.stalls[i];
        if (!stall->loses || stall->from_ns >= at_ns) continue;
        int64_t until_ns = stall->until_ns < at_ns ? stall->until_ns : at_ns;
        kept -= summed_j(c, samples, power, until_ns) - summed_j(c, samples, power, stall->from_ns);
    }
    return kept;
}

static int64_t time_ns(const struct series *events, size_t i) {
    return llround(events->t_s[i] * 1e9);
}

struct counter_reading counter_read(struct counter *c, struct sampler *samples,
                                    const struct timeline *power, int64_t elapsed_ns) {
    int64_t at_ns = ticks_time_ns(&c->ticks, ticks_last(&c->ticks, elapsed_ns)) - c->lag_ns;
    if (at_ns < 0) at_ns = 0;
    size_t resets = 0, jumps = 0;
    while (resets < c->resets.count && time_ns(&c->resets, resets) <= at_ns) resets++;
    int64_t since_ns = resets ? time_ns(&c->resets, resets - 1) : INT64_MIN;
    long double energy_j = kept_j(c, samples, power, at_ns) - kept_j(c, samples, power, since_ns);
    long double mj = (resets ? 0 : c->start_mj) + c->gain * energy_j * 1000;
    for (; jumps < c->jumps_j.count && time_ns(&c->jumps_j, jumps) <= at_ns; jumps++)
        if (time_ns(&c->jumps_j, jumps) >= since_ns) mj += (long double)c->jumps_j.value[jumps] * 1000;
    struct counter_reading reading = {.events = resets + jumps};
    if (mj > 0) reading.mj = mj < 9e18L ? (uint64_t)llroundl(mj) : (uint64_t)9e18L;
    return reading;
}

uint64_t counter_wrapped(const struct counter *c, uint64_t mj) {
    return c->wrap_mj ? mj % c->wrap_mj : mj;
}

void counter_free(struct counter *c) {
    ticks_free(&c->ticks);
    sampler_free(&c->own);
    series_free(&c->resets);
    series_free(&c->jumps_j);
}
