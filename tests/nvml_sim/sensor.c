#include "sensor.h"

#include <math.h>

#include "seconds.h"

static int64_t floor_divide(int64_t a, int64_t b) {
    int64_t q = a / b;
    return a % b < 0 ? q - 1 : q;
}

static int64_t tick_at(int64_t elapsed_ns, int64_t step_ns, int64_t phase_ns) {
    return floor_divide(elapsed_ns - phase_ns, step_ns);
}

int64_t sensor_update_ns(const struct sensor *s, int64_t elapsed_ns) {
    return tick_at(elapsed_ns, s->update_ns, s->phase_ns) * s->update_ns + s->phase_ns;
}

int64_t sensor_counter_update_ns(const struct sensor *s, int64_t elapsed_ns) {
    int64_t step = s->counter_update_ns;
    return tick_at(elapsed_ns, step, s->counter_phase_ns) * step + s->counter_phase_ns;
}

/* splitmix64 (Steele, Lea, Flood 2014): the same tick always has the same noise. */
static double noise(uint64_t seed, int64_t tick) {
    uint64_t z = seed + (uint64_t)tick * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-52 - 1; /* uniform in [-1, 1) */
}

/* The channel's value made at time tick_ns, before noise. */
static long double seen_w(const struct sensor *s, const struct timeline *power, int64_t window_ns,
                          int64_t tick_ns) {
    double end = seconds(tick_ns), start = seconds(tick_ns - window_ns);
    long double mean = window_ns > 0 ? timeline_energy_j(power, start, end) / seconds(window_ns)
                                     : timeline_power_w(power, end);
    long double shown = s->gain * mean + s->offset_w;
    return shown > 0 ? shown : 0;
}

double sensor_power_w(const struct sensor *s, const struct timeline *power,
                      enum sensor_channel channel, int64_t elapsed_ns) {
    bool average = channel == SENSOR_AVERAGE && s->average_window_ns > 0;
    int64_t window = average ? s->average_window_ns : s->window_ns;
    int64_t tick_ns = sensor_update_ns(s, elapsed_ns);
    double shown = (double)seen_w(s, power, window, tick_ns);
    if (s->noise_w > 0) shown += s->noise_w * noise(s->seed + average, tick_ns / s->update_ns);
    return shown > 0 ? shown : 0;
}

/* Sums whole update intervals from time zero up to tick `until`, going on from the last sum. */
static long double sum_intervals(struct sensor *s, const struct timeline *power, int64_t until) {
    int64_t first = tick_at(0, s->update_ns, s->phase_ns);
    if (!s->summed || s->summed_to > until) {
        s->summed = true;
        s->summed_to = first;
        s->sum_j = 0;
    }
    double end_s = power->t_s[power->count - 1];
    for (; s->summed_to < until; s->summed_to++) {
        int64_t from = s->summed_to * s->update_ns + s->phase_ns;
        long double shown = seen_w(s, power, s->window_ns, from);
        if (from >= 0 && seconds(from - s->window_ns) > end_s) {
            /* past the trace's end every further sample is the same: no need to walk them */
            s->sum_j += shown * (until - s->summed_to) * seconds(s->update_ns);
            s->summed_to = until;
            break;
        }
        int64_t to = from + s->update_ns;
        s->sum_j += shown * seconds(to - (from > 0 ? from : 0));
    }
    return s->sum_j;
}

/* Integral from time zero of the held samples. */
static long double samples_energy_j(struct sensor *s, const struct timeline *power,
                                    int64_t elapsed_ns) {
    int64_t tick = tick_at(elapsed_ns, s->update_ns, s->phase_ns);
    int64_t from = tick * s->update_ns + s->phase_ns;
    long double whole = sum_intervals(s, power, tick);
    int64_t held_ns = elapsed_ns - (from > 0 ? from : 0);
    return whole + seen_w(s, power, s->window_ns, from) * seconds(held_ns);
}

uint64_t sensor_counter_mj(struct sensor *s, const struct timeline *power, int64_t elapsed_ns) {
    int64_t tick_ns = sensor_counter_update_ns(s, elapsed_ns);
    long double energy_j = 0;
    if (tick_ns > 0)
        energy_j = s->counter_from_samples ? samples_energy_j(s, power, tick_ns)
                                           : timeline_energy_j(power, 0, seconds(tick_ns));
    long double counter_mj = s->counter_start_mj + energy_j * 1000;
    if (counter_mj <= 0) return 0;
    return counter_mj < 9e18L ? (uint64_t)llroundl(counter_mj) : (uint64_t)9e18L;
}

void sensor_power_changed(struct sensor *s, double from_s) {
    if (s->summed && seconds(s->summed_to * s->update_ns + s->phase_ns) > from_s) s->summed = false;
}
