/* When an instrument renews what it shows: at phase + k * step, k being a tick's number. Ticks may be moved
 * a little, left out at random, or halt for a while; the same number always has the same lot. */
#ifndef NVML_SIM_TICKS_H
#define NVML_SIM_TICKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No tick happens from from_ns on and before until_ns. */
struct stall {
    int64_t from_ns, until_ns;
    bool loses; /* of the counter: the energy of that time is never counted */
};

struct ticks {
    int64_t step_ns, phase_ns;
    int64_t jitter_ns; /* at most step_ns / 2: ticks keep their order */
    uint64_t jitter_seed, skip_seed;
    double skip; /* share of ticks that do not happen */
    struct stall *stalls; /* in order, none in another */
    size_t stall_count;
};

/* 53 random bits of a number (splitmix64: Steele, Lea, Flood 2014). */
uint64_t ticks_draw(uint64_t seed, int64_t number);
/* Quotient and remainder for a positive b, the remainder never below 0. */
int64_t ticks_floor_divide(int64_t a, int64_t b);

int64_t ticks_time_ns(const struct ticks *ticks, int64_t number);
/* Number of the last tick that happens at or before elapsed_ns. */
int64_t ticks_last(const struct ticks *ticks, int64_t elapsed_ns);
void ticks_free(struct ticks *ticks);

#endif
