#include "ticks.h"

#include <stdlib.h>

int64_t ticks_floor_divide(int64_t a, int64_t b) {
    int64_t q = a / b;
    return a % b < 0 ? q - 1 : q;
}

uint64_t ticks_draw(uint64_t seed, int64_t number) {
    uint64_t z = seed + (uint64_t)number * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    return z >> 11;
}

int64_t ticks_time_ns(const struct ticks *t, int64_t number) {
    int64_t at_ns = number * t->step_ns + t->phase_ns;
    if (!t->jitter_ns) return at_ns;
    /* a whole number of ns from -jitter to +jitter, each as likely */
    unsigned __int128 choices = (unsigned __int128)(2 * t->jitter_ns + 1);
    return at_ns - t->jitter_ns + (int64_t)(choices * ticks_draw(t->jitter_seed, number) >> 53);
}

static bool is_skipped(const struct ticks *t, int64_t number) {
    return t->skip > 0 && (double)ticks_draw(t->skip_seed, number) * 0x1p-53 < t->skip;
}

static const struct stall *stall_at(const struct ticks *t, int64_t at_ns) {
    for (size_t i = 0; i < t->stall_count; i++)
        if (t->stalls[i].from_ns <= at_ns && at_ns < t->stalls[i].until_ns) return &t->stalls[i];
    return NULL;
}

/* The last number whose time may lie at or before elapsed_ns. */
static int64_t latest(const struct ticks *t, int64_t elapsed_ns) {
    return ticks_floor_divide(elapsed_ns + t->jitter_ns - t->phase_ns, t->step_ns);
}

int64_t ticks_last(const struct ticks *t, int64_t elapsed_ns) {
    int64_t number = latest(t, elapsed_ns);
    for (;;) {
        int64_t at_ns = ticks_time_ns(t, number);
        const struct stall *stall = stall_at(t, at_ns);
        if (at_ns <= elapsed_ns && !stall && !is_skipped(t, number)) return number;
        number--;
        if (stall && latest(t, stall->from_ns) < number) number = latest(t, stall->from_ns);
    }
}

void ticks_free(struct ticks *t) {
    free(t->stalls);
}
