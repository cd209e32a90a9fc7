#include "trace_sensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A share of ticks left out must leave some. */
#define HIGHEST_SKIP 0.99
#define HIGHEST_CALL_MS 60000
/* Whole mJ up to here are exact in JSON's numbers. */
#define HIGHEST_WRAP_MJ 9007199254740992.0

/* Seeds of what is drawn for each tick: the same on every card and in every process. */
enum { SEED_COUNTER_JITTER = 1, SEED_COUNTER_SKIP, SEED_POWER_SKIP };

static const struct range watts = {0, 1e6};

static int64_t milliseconds(const struct section *s, const char *key, double fallback, double low,
                            double high) {
    return (int64_t)llround(config_number(s, key, fallback, (struct range){low, high}) * 1e6);
}

static int64_t duration(const struct section *s, const char *key, double fallback, double low) {
    return milliseconds(s, key, fallback, low, 1e9);
}

static int64_t phase(const struct section *s, const char *key) {
    return milliseconds(s, key, 0, -1e9, 1e9);
}

static double share(const struct section *s, const char *key) {
    return config_number(s, key, 0, (struct range){0, HIGHEST_SKIP});
}

/* The list under key, with room in *out for as many items of `size`; NULL where there is none. */
static const struct json *list_items(const struct section *s, const char *key, size_t size,
                                     void **out) {
    const struct json *list = config_get(s, key);
    if (!list) return NULL;
    if (list->type != JSON_ARRAY) {
        config_fault(s->config, s->path, key, list, "a list");
        return NULL;
    }
    *out = calloc(list->as.list.count + 1, size);
    if (!*out) config_fault(s->config, s->path, key, list, "enough memory for it");
    return *out ? list->as.list.first : NULL;
}

/* A time of the trace from `lowest_ns` on. */
static bool read_time(const struct json *value, int64_t lowest_ns, int64_t *out) {
    if (!value || value->type != JSON_NUMBER || fabs(value->as.number) > CONFIG_TIME_LIMIT_S)
        return false;
    *out = (int64_t)llround(value->as.number * 1e9);
    return *out >= lowest_ns;
}

static void read_resets(const struct section *s, const char *key, struct counter *c) {
    void *room = NULL;
    const struct json *item = list_items(s, key, sizeof *c->resets_ns, &room);
    c->resets_ns = room;
    int64_t lowest_ns = INT64_MIN;
    for (; item; item = item->next, c->reset_count++) {
        if (!read_time(item, lowest_ns, &c->resets_ns[c->reset_count])) {
            config_fault(s->config, s->path, key, item, "a time in s, in order");
            return;
        }
        lowest_ns = c->resets_ns[c->reset_count];
    }
}

static bool put_jump(void *context, double t_s, double joules) {
    struct counter *c = context;
    c->jumps[c->jump_count++] = (struct counter_jump){(int64_t)llround(t_s * 1e9), joules};
    return true;
}

static void read_jumps(const struct section *s, const char *key, struct counter *c) {
    struct range joules = {-1e12, 1e12};
    void *room = NULL;
    const struct json *item = list_items(s, key, sizeof *c->jumps, &room);
    c->jumps = room;
    if (item) config_points(s, key, config_get(s, key), joules, put_jump, c);
}

/* [from_s, until_s], and for the counter what becomes of the energy. */
static bool read_stall(const struct json *item, bool of_counter, int64_t lowest_ns,
                       struct stall *out) {
    if (item->type != JSON_ARRAY || item->as.list.count < 2) return false;
    const struct json *from = item->as.list.first, *until = from->next, *after = until->next;
    if (!read_time(from, lowest_ns, &out->from_ns)) return false;
    if (!read_time(until, out->from_ns, &out->until_ns)) return false;
    if (!after) return true;
    if (!of_counter || after->next || after->type != JSON_STRING) return false;
    out->loses = strcmp(after->as.string, "lose") == 0;
    return out->loses || strcmp(after->as.string, "catch_up") == 0;
}

static void read_stalls(const struct section *s, const char *key, bool of_counter,
                        struct ticks *ticks) {
    void *room = NULL;
    const struct json *item = list_items(s, key, sizeof *ticks->stalls, &room);
    ticks->stalls = room;
    int64_t lowest_ns = INT64_MIN;
    for (; item; item = item->next, ticks->stall_count++) {
        if (!read_stall(item, of_counter, lowest_ns, &ticks->stalls[ticks->stall_count])) {
            config_fault(s->config, s->path, key, item,
                         of_counter ? "[from_s, until_s, \"catch_up\" or \"lose\"], in order"
                                    : "[from_s, until_s], in order");
            return;
        }
        lowest_ns = ticks->stalls[ticks->stall_count].until_ns;
    }
}

static void read_source(const struct section *s, struct counter *c) {
    char from[16];
    config_string(s, "counter_from", "true", from, sizeof from);
    if (strcmp(from, "samples") == 0) c->source = COUNTER_SAMPLES;
    else if (strcmp(from, "own_samples") == 0) c->source = COUNTER_OWN_SAMPLES;
    else if (strcmp(from, "true") != 0)
        config_fault(s->config, s->path, "counter_from", config_get(s, "counter_from"),
                     "\"true\" or \"samples\" or \"own_samples\"");
}

static void read_counter(const struct section *s, struct counter *c) {
    struct ticks *ticks = &c->ticks;
    ticks->step_ns = duration(s, "counter_update_ms", 100, 1);
    ticks->phase_ns = phase(s, "counter_phase_ms");
    ticks->jitter_ns = milliseconds(s, "counter_jitter_ms", 0, 0, (double)ticks->step_ns / 2e6);
    if (ticks->jitter_ns > ticks->step_ns / 2) ticks->jitter_ns = ticks->step_ns / 2;
    ticks->skip = share(s, "counter_skip");
    ticks->jitter_seed = SEED_COUNTER_JITTER;
    ticks->skip_seed = SEED_COUNTER_SKIP;
    read_stalls(s, "counter_stalls", true, ticks);
    c->lag_ns = duration(s, "counter_lag_ms", 0, 0);
    read_source(s, c);
    c->own.ticks.step_ns = duration(s, "counter_sample_ms", 100, 1);
    c->own.ticks.phase_ns = phase(s, "counter_sample_phase_ms");
    c->own.window_ns = duration(s, "counter_window_ms", 100, 0);
    c->own.gain = 1;
    c->gain = config_number(s, "counter_gain", 1, (struct range){0, 1000});
    c->start_mj = config_number(s, "counter_start_mj", 0, (struct range){0, 1e15});
    if (config_get(s, "counter_wrap_mj"))
        c->wrap_mj = (uint64_t)llround(
            config_number(s, "counter_wrap_mj", 1, (struct range){1, HIGHEST_WRAP_MJ}));
    read_resets(s, "counter_resets_s", c);
    read_jumps(s, "counter_jumps", c);
}

static void read_calls(const struct section *sensor, int64_t *call_ns) {
    static const char *const known[] = {"other", "power", "counter", NULL}; /* as enum call_kind */
    struct section s = config_section(sensor, "call_ms");
    config_warn_unknown(&s, known);
    for (int kind = 0; kind < CALL_KIND_COUNT; kind++)
        call_ns[kind] = milliseconds(&s, known[kind], 0, 0, HIGHEST_CALL_MS);
}

void trace_read_sensor(const struct section *device, struct sensor *sensor, unsigned index) {
    static const char *const known[] = {
        "update_ms", "phase_ms", "window_ms", "average_window_ms", "gain", "offset_w",
        "power_noise_w", "power_skip", "power_stalls", "zero_every", "counter_update_ms", "counter_phase_ms", "counter_jitter_ms",
        "counter_skip", "counter_stalls", "counter_lag_ms", "counter_from", "counter_sample_ms",
        "counter_sample_phase_ms", "counter_window_ms", "counter_gain", "counter_start_mj",
        "counter_wrap_mj", "counter_resets_s", "counter_jumps", "call_ms",
        "samples_ms", NULL};
    struct section s = config_section(device, "sensor");
    config_warn_unknown(&s, known);
    sensor->power.ticks.step_ns = duration(&s, "update_ms", 100, 1);
    sensor->power.ticks.phase_ns = phase(&s, "phase_ms");
    sensor->power.ticks.skip = share(&s, "power_skip");
    sensor->power.ticks.skip_seed = SEED_POWER_SKIP;
    read_stalls(&s, "power_stalls", false, &sensor->power.ticks);
    sensor->zero_every = (int64_t)config_number(&s, "zero_every", 0, (struct range){0, 1e9});
    sensor->power.window_ns = duration(&s, "window_ms", 100, 0);
    sensor->power.gain = config_number(&s, "gain", 1, (struct range){0, 1000});
    sensor->power.offset_w = config_number(&s, "offset_w", 0, (struct range){-1e6, 1e6});
    sensor->average_window_ns = duration(&s, "average_window_ms", 0, 0);
    sensor->noise_w = config_number(&s, "power_noise_w", 0, watts);
    sensor->seed = ((uint64_t)index + 1) * UINT64_C(0xD1B54A32D192ED03);
    read_counter(&s, &sensor->counter);
    read_calls(&s, sensor->call_ns);
    sensor->samples_ns = duration(&s, "samples_ms", 0, 1);
}
