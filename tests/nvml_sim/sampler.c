#include "sampler.h"

#include <stdlib.h>

#include "seconds.h"

long double sampler_value_w(const struct sampler *s, const struct timeline *power,
                            int64_t window_ns, int64_t tick_ns) {
    double end = seconds(tick_ns), start = seconds(tick_ns - window_ns);
    long double mean = window_ns > 0 ? timeline_energy_j(power, start, end) / seconds(window_ns)
                                     : timeline_power_w(power, end);
    long double shown = s->gain * mean + s->offset_w;
    return shown > 0 ? shown : 0;
}

static int64_t number_at(const struct sampler *s, int64_t elapsed_ns) {
    return ticks_floor_divide(elapsed_ns - s->ticks.phase_ns, s->ticks.step_ns);
}

static int64_t begin_ns(const struct sampler *s, int64_t number) {
    return number * s->ticks.step_ns + s->ticks.phase_ns;
}

static void keep_sum(struct sampler *s, long double sum_j) {
    if (s->sum_count == s->sum_room) {
        size_t room = s->sum_room ? s->sum_room * 2 : 64;
        s->sum_j = realloc(s->sum_j, room * sizeof *s->sum_j);
        if (!s->sum_j) abort();
        s->sum_room = room;
    }
    s->sum_j[s->sum_count++] = sum_j;
}

/* Joules of whole steps from time zero up to tick `until`, going on from the sums that are kept. */
static long double whole_steps_j(struct sampler *s, const struct timeline *power, int64_t until) {
    int64_t first = number_at(s, 0);
    if (s->sum_count == 0) keep_sum(s, 0);
    if ((size_t)(until - first) < s->sum_count) return s->sum_j[until - first];
    double end_s = power->t_s[power->count - 1];
    int64_t number = first + (int64_t)s->sum_count - 1;
    long double sum_j = s->sum_j[s->sum_count - 1];
    for (; number < until; number++) {
        int64_t from_ns = begin_ns(s, number), to_ns = from_ns + s->ticks.step_ns;
        int64_t made_ns = ticks_time_ns(&s->ticks, ticks_last(&s->ticks, from_ns));
        long double shown = sampler_value_w(s, power, s->window_ns, made_ns);
        if (from_ns >= 0 && seconds(made_ns - s->window_ns) > end_s)
            /* past the trace's end every further sample is the same: no need to walk them */
            return sum_j + shown * (until - number) * seconds(s->ticks.step_ns);
        sum_j += shown * seconds(to_ns - (from_ns > 0 ? from_ns : 0));
        keep_sum(s, sum_j);
    }
    return sum_j;
}

long double sampler_energy_j(struct sampler *s, const struct timeline *power, int64_t elapsed_ns) {
    int64_t number = number_at(s, elapsed_ns), from_ns = begin_ns(s, number);
    int64_t made_ns = ticks_time_ns(&s->ticks, ticks_last(&s->ticks, elapsed_ns));
    long double whole = whole_steps_j(s, power, number);
    long double shown = sampler_value_w(s, power, s->window_ns, made_ns);
    return whole + shown * seconds(elapsed_ns - (from_ns > 0 ? from_ns : 0));
}

void sampler_power_changed(struct sampler *s, double from_s) {
    int64_t first = number_at(s, 0);
    while (s->sum_count && seconds(begin_ns(s, first + (int64_t)s->sum_count - 1)) > from_s)
        s->sum_count--;
}

void sampler_free(struct sampler *s) {
    ticks_free(&s->ticks);
    free(s->sum_j);
}
