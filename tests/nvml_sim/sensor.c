#include "sensor.h"

int64_t sensor_update_ns(const struct sensor *s, int64_t elapsed_ns) {
    const struct ticks *ticks = &s->power.ticks;
    return ticks_time_ns(ticks, ticks_last(ticks, elapsed_ns));
}

int64_t sensor_counter_update_ns(const struct sensor *s, int64_t elapsed_ns) {
    const struct ticks *ticks = &s->counter.ticks;
    return ticks_time_ns(ticks, ticks_last(ticks, elapsed_ns));
}

/* The same tick always has the same noise, uniform in [-1, 1). */
static double noise(uint64_t seed, int64_t tick) {
    return (double)ticks_draw(seed, tick) * 0x1p-52 - 1;
}

/* Each n-th renewal, counted from number 0. */
static bool reads_zero(const struct sensor *s, int64_t number) {
    if (s->zero_every == 0) return false;
    return number - ticks_floor_divide(number, s->zero_every) * s->zero_every == s->zero_every - 1;
}

double sensor_power_w(const struct sensor *s, const struct timeline *power,
                      enum sensor_channel channel, int64_t elapsed_ns) {
    bool average = channel == SENSOR_AVERAGE && s->average_window_ns > 0;
    int64_t window_ns = average ? s->average_window_ns : s->power.window_ns;
    int64_t number = ticks_last(&s->power.ticks, elapsed_ns);
    int64_t tick_ns = ticks_time_ns(&s->power.ticks, number);
    if (reads_zero(s, number)) return 0;
    double shown = (double)sampler_value_w(&s->power, power, window_ns, tick_ns);
    if (s->noise_w > 0)
        shown += s->noise_w * noise(s->seed + average, tick_ns / s->power.ticks.step_ns);
    return shown > 0 ? shown : 0;
}

void sensor_power_changed(struct sensor *s, double from_s) {
    sampler_power_changed(&s->power, from_s);
    sampler_power_changed(&s->counter.own, from_s);
}

void sensor_free(struct sensor *s) {
    sampler_free(&s->power);
    counter_free(&s->counter);
}
