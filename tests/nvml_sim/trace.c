#include "trace.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message.h"
#include "nvml_abi.h"

#define TIME_LIMIT_S 1e9
#define WATTS_LIMIT 1e6
#define DEFAULT_LIMIT_W 700.0
#define EXACT_INTEGER 9007199254740992.0
#define TENTH_NS 100000000

struct reader {
    const char *file;
    unsigned line;
    const char *key; /* the line's first word */
    char *rest;      /* what is not read of the line */
    char fault[400]; /* the first one; empty while all is well */
};

/* What stands behind a key, and what it becomes. */
enum kind {
    NUMBER, /* double */
    COUNT,  /* unsigned */
    BYTES,  /* uint64_t */
    MS,     /* int64_t, in ns */
    FLAG,   /* bool: `false` or `true` */
    CHOICE, /* an enum, by its place among `words` */
    TEXT,   /* the rest of the line: char[high] */
    TEXTS,  /* struct texts: words */
    SERIES, /* struct series: a number, or a time and a value again and again */
    TIMES,  /* struct series: times alone, maybe none */
    STALLS, /* struct ticks: from, until and what becomes of the energy, maybe none */
    VERSION, /* int[2] */
    PROCESS /* struct processes: one more */
};

struct key {
    const char *name; /* NULL ends a table */
    enum kind kind;
    size_t offset; /* in the struct that is read into */
    double low, high;
    const char *const *words;
};

static void fault(struct reader *r, const char *expected, const char *found) {
    if (r->fault[0]) return;
    snprintf(r->fault, sizeof r->fault, "line %u: %.60s: expected %s, found \"%.60s\"", r->line,
             r->key, expected, found);
}

static bool at_end(struct reader *r) {
    r->rest += strspn(r->rest, " ");
    return !*r->rest;
}

/* An empty one at the end of the line. */
static const char *next_word(struct reader *r) {
    at_end(r);
    char *word = r->rest;
    r->rest += strcspn(r->rest, " ");
    if (*r->rest) *r->rest++ = 0;
    return word;
}

static double read_number(struct reader *r, double low, double high) {
    char expected[80], *end;
    const char *word = next_word(r);
    double number = strtod(word, &end); /* Python leaves numbers in the C locale */
    if (*word && !*end && number >= low && number <= high) return number;
    snprintf(expected, sizeof expected, "a number from %g to %g", low, high);
    fault(r, expected, word);
    return low;
}

static unsigned choose(struct reader *r, const char *const *words) {
    char expected[80] = "one of";
    const char *word = next_word(r);
    for (unsigned i = 0; words[i]; i++) {
        if (strcmp(word, words[i]) == 0) return i;
        size_t used = strlen(expected);
        snprintf(expected + used, sizeof expected - used, " %s", words[i]);
    }
    fault(r, expected, word);
    return 0;
}

static void read_text(struct reader *r, const char *text, size_t size, char *out) {
    if (strlen(text) < size) strcpy(out, text);
    else fault(r, "less text", text);
}

static void read_rest(struct reader *r, size_t size, char *out) {
    at_end(r);
    read_text(r, r->rest, size, out);
    r->rest += strlen(r->rest);
}

/* Room for one element more than so many: it doubles where it is full. */
static void *grown(void *all, size_t count, size_t size) {
    if (count & (count - 1)) return all;
    void *made = realloc(all, (count ? 2 * count : 1) * size);
    if (!made) abort();
    return made;
}

static void append(struct series *s, double t_s, double value) {
    s->t_s = grown(s->t_s, s->count, sizeof *s->t_s);
    s->value = grown(s->value, s->count, sizeof *s->value);
    s->t_s[s->count] = t_s;
    s->value[s->count++] = value;
}

/* Times may not fall. */
static void read_series(struct reader *r, const struct key *key, struct series *out) {
    double t_s = -TIME_LIMIT_S;
    if (key->kind == SERIES && !strchr(r->rest, ' ')) {
        append(out, 0, read_number(r, key->low, key->high));
        return;
    }
    while (!at_end(r)) {
        t_s = read_number(r, t_s, TIME_LIMIT_S);
        append(out, t_s, key->kind == TIMES ? 0 : read_number(r, key->low, key->high));
    }
}

/* In order, none in another. */
static void read_stalls(struct reader *r, struct ticks *out) {
    static const char *const ends[] = {"catch_up", "lose", NULL};
    double until_s = -TIME_LIMIT_S;
    while (!at_end(r)) {
        double from_s = read_number(r, until_s, TIME_LIMIT_S);
        until_s = read_number(r, from_s, TIME_LIMIT_S);
        out->stalls = grown(out->stalls, out->stall_count, sizeof *out->stalls);
        out->stalls[out->stall_count++] =
            (struct stall){llround(from_s * 1e9), llround(until_s * 1e9), choose(r, ends) == 1};
    }
}

static void read_texts(struct reader *r, struct texts *out) {
    while (!at_end(r)) {
        out->all = grown(out->all, out->count, sizeof *out->all);
        read_text(r, next_word(r), sizeof *out->all, out->all[out->count++]);
    }
}

static void read_process(struct reader *r, struct processes *out) {
    static const char *const types[] = {"compute", "graphics", NULL};
    out->all = grown(out->all, out->count, sizeof *out->all);
    struct process *p = &out->all[out->count++];
    *p = (struct process){.pid = (unsigned)read_number(r, 0, UINT32_MAX),
                          .used_memory_bytes = NVML_VALUE_NOT_AVAILABLE};
    p->graphics = choose(r, types);
    if (at_end(r) || *r->rest != '-') p->used_memory_bytes = (uint64_t)read_number(r, 0, 1e15);
    else next_word(r);
    read_rest(r, sizeof p->name, p->name);
}

static void read_value(struct reader *r, const struct key *key, void *out) {
    void *at = (char *)out + key->offset;
    at_end(r);
    switch (key->kind) {
    case NUMBER: *(double *)at = read_number(r, key->low, key->high); break;
    case COUNT: *(unsigned *)at = (unsigned)read_number(r, key->low, key->high); break;
    case BYTES: *(uint64_t *)at = (uint64_t)read_number(r, key->low, key->high); break;
    case MS: *(int64_t *)at = llround(read_number(r, key->low, key->high) * 1e6); break;
    case FLAG: *(bool *)at = choose(r, key->words) == 1; break;
    case CHOICE: *(unsigned *)at = choose(r, key->words); break;
    case TEXT: read_rest(r, (size_t)key->high, at); break;
    case TEXTS: read_texts(r, at); break;
    case SERIES:
    case TIMES: read_series(r, key, at); break;
    case STALLS: read_stalls(r, at); break;
    case VERSION:
        ((int *)at)[0] = (int)read_number(r, 1, 999);
        ((int *)at)[1] = (int)read_number(r, 0, 999);
        break;
    case PROCESS: read_process(r, at); break;
    }
    if (!at_end(r)) fault(r, "the end of the line", r->rest);
}

/* --- the keys ------------------------------------------------------------------------------------- */

static const char *const flags[] = {"false", "true", NULL};
static const char *const counter_sources[] = {"true", "samples", "own_samples", NULL};

/* Rows of a table for the struct that OF names. */
#define OF struct device
#define KEY(kind, name, member, low, high) {name, kind, offsetof(OF, member), low, high, NULL}
#define WORDS(kind, name, member, words) {name, kind, offsetof(OF, member), 0, 0, words}
#define WRITTEN(name, member) KEY(TEXT, name, member, 0, sizeof ((OF *)0)->member)
#define ALONE(kind, name, member) KEY(kind, name, member, 0, 0)
#define SWITCH(name, member) WORDS(FLAG, name, member, flags)
#define SENSOR(kind, name, member, low, high) KEY(kind, "sensor." name, sensor.member, low, high)
#define DURATION(name, member, low) SENSOR(MS, name, member, low, 1e9)
#define PHASE(name, member) SENSOR(MS, name, member, -1e9, 1e9)
/* Of ticks left out: some must be left. */
#define SHARE(name, member) SENSOR(NUMBER, name, member, 0, 0.99)
#define CALL(name, kind) SENSOR(MS, "call_ms." name, call_ns[kind], 0, 60000)

static const struct key device_keys[] = {
    WRITTEN("name", name),
    WRITTEN("uuid", uuid),
    WRITTEN("vbios", vbios),
    ALONE(VERSION, "compute_capability", compute_capability),
    WRITTEN("pci", pci),
    KEY(SERIES, "power_w", power_points, 0, WATTS_LIMIT),
    WRITTEN("load_file", load.file),
    KEY(NUMBER, "idle_w", load.idle_w, 0, WATTS_LIMIT),
    KEY(NUMBER, "max_w", load.max_w, 0, WATTS_LIMIT),
    DURATION("update_ms", power.ticks.step_ns, 1),
    PHASE("phase_ms", power.ticks.phase_ns),
    DURATION("window_ms", power.window_ns, 0),
    DURATION("average_window_ms", average_window_ns, 0),
    SENSOR(NUMBER, "gain", power.gain, 0, 1000),
    SENSOR(NUMBER, "offset_w", power.offset_w, -WATTS_LIMIT, WATTS_LIMIT),
    SENSOR(NUMBER, "power_noise_w", noise_w, 0, WATTS_LIMIT),
    SHARE("power_skip", power.ticks.skip),
    SENSOR(COUNT, "zero_every", zero_every, 0, 1e9),
    DURATION("counter_update_ms", counter.ticks.step_ns, 1),
    PHASE("counter_phase_ms", counter.ticks.phase_ns),
    DURATION("counter_jitter_ms", counter.ticks.jitter_ns, 0),
    SHARE("counter_skip", counter.ticks.skip),
    SENSOR(STALLS, "counter_stalls", counter.ticks, 0, 0),
    DURATION("counter_lag_ms", counter.lag_ns, 0),
    WORDS(CHOICE, "sensor.counter_from", sensor.counter.source, counter_sources),
    DURATION("counter_sample_ms", counter.own.ticks.step_ns, 1),
    PHASE("counter_sample_phase_ms", counter.own.ticks.phase_ns),
    DURATION("counter_window_ms", counter.own.window_ns, 0),
    SENSOR(NUMBER, "counter_gain", counter.gain, 0, 1000),
    SENSOR(NUMBER, "counter_start_mj", counter.start_mj, 0, 1e15),
    SENSOR(BYTES, "counter_wrap_mj", counter.wrap_mj, 1, EXACT_INTEGER),
    SENSOR(TIMES, "counter_resets_s", counter.resets, 0, 0),
    SENSOR(SERIES, "counter_jumps", counter.jumps_j, -1e12, 1e12),
    CALL("other", CALL_OTHER),
    CALL("power", CALL_POWER),
    CALL("counter", CALL_COUNTER),
    SWITCH("counter_supported", counter_supported),
    KEY(NUMBER, "fail_after_s", fail_after_s, -TIME_LIMIT_S, TIME_LIMIT_S),
    KEY(SERIES, "temperature_c", temperature_c, -100, 1000),
    KEY(SERIES, "throttle", throttle, 0, EXACT_INTEGER),
    ALONE(PROCESS, "process", processes),
    KEY(BYTES, "memory.total_bytes", memory_bytes, 0, 1e15),
    KEY(SERIES, "memory.used_bytes", used_bytes, 0, 1e15),
    KEY(SERIES, "clocks.sm_mhz", sm_mhz, 0, 1e5),
    KEY(COUNT, "clocks.max", max_sm_mhz, 0, 1e5),
    KEY(COUNT, "clocks.min", min_sm_mhz, 0, 1e5),
    KEY(NUMBER, "power_limit_w.default", limit_default_w, 0, WATTS_LIMIT),
    KEY(NUMBER, "power_limit_w.min", limit_min_w, 0, WATTS_LIMIT),
    KEY(NUMBER, "power_limit_w.max", limit_max_w, 0, WATTS_LIMIT),
    SWITCH("persistence_mode", persistence),
    SWITCH("permission.set_power_limit", may_set_power_limit),
    SWITCH("permission.set_clocks", may_set_clocks),
    SWITCH("mig", mig),
    ALONE(TEXTS, "mig_uuids", mig_uuids),
    SWITCH("ecc.supported", ecc_supported),
    SWITCH("ecc.current", ecc_current),
    SWITCH("ecc.pending", ecc_pending),
    SWITCH("c2c.enabled", c2c),
    ALONE(TEXTS, "not_supported", not_supported),
    {0}};

/* Seeds of what is drawn for each tick are the same on every card and in every process. */
static const struct device plain = {
    .name = "Simulated GPU",
    .vbios = "96.00.00.00.00",
    .compute_capability = {9, 0},
    .load = {.idle_w = 100, .max_w = 700},
    .sensor = {.power = {.ticks = {.step_ns = TENTH_NS, .skip_seed = 3}, .window_ns = TENTH_NS, .gain = 1},
               .counter = {.ticks = {.step_ns = TENTH_NS, .jitter_seed = 1, .skip_seed = 2},
                           .own = {.ticks = {.step_ns = TENTH_NS}, .window_ns = TENTH_NS, .gain = 1},
                           .gain = 1}},
    .counter_supported = true,
    .fail_after_s = INFINITY,
    .memory_bytes = UINT64_C(80) << 30,
    .persistence = true,
    .may_set_power_limit = true,
    .may_set_clocks = true,
    .ecc_supported = true,
    .ecc_current = true,
    .ecc_pending = true,
};

#undef OF
#define OF struct trace
static const struct key trace_keys[] = {WRITTEN("driver_version", driver_version),
                                        WRITTEN("cuda_version", cuda_version),
                                        {0}};

static void begin_card(struct reader *r, struct trace *trace) {
    if (trace->count == MAX_DEVICES) {
        fault(r, "fewer of them", "one more");
        return;
    }
    trace->devices = grown(trace->devices, trace->count, sizeof *trace->devices);
    struct device *d = &trace->devices[trace->count];
    *d = plain;
    d->index = trace->count++;
    d->sensor.seed = ((uint64_t)d->index + 1) * UINT64_C(0xD1B54A32D192ED03);
    snprintf(d->pci, sizeof d->pci, "00000000:%02X:00.0", d->index + 1);
    snprintf(d->uuid, sizeof d->uuid, "GPU-51b0cafe-0000-4000-8000-%012x", d->index);
}

/* The file's path is relative to the trace's own folder. */
static void open_load(const char *trace, struct load_source *load) {
    char path[4096];
    const char *slash = load->file[0] == '/' ? NULL : strrchr(trace, '/');
    snprintf(path, sizeof path, "%.*s%s", slash ? (int)(slash - trace) + 1 : 0, trace, load->file);
    tail_open(&load->tail, path);
}

static void or_else(struct series *s, double value) {
    if (!s->count) append(s, 0, value);
}

/* What follows from other keys: true power, its limit, the range of clocks. */
static void complete(struct reader *r, struct device *d) {
    const struct ticks *steps = &d->sensor.counter.ticks;
    bool given = d->power_points.count && !d->load.file[0];
    if (d->load.file[0]) open_load(r->file, &d->load);
    if (!given) timeline_append(&d->demand, 0, d->load.idle_w);
    for (size_t i = 0; given && i < d->power_points.count; i++)
        timeline_append(&d->demand, d->power_points.t_s[i], d->power_points.value[i]);
    series_free(&d->power_points);
    or_else(&d->temperature_c, 40);
    or_else(&d->throttle, 0);
    or_else(&d->used_bytes, 0);
    or_else(&d->sm_mhz, 1980);
    double peak_w = given ? timeline_peak_w(&d->demand) : fmax(d->load.idle_w, d->load.max_w);
    if (!d->limit_max_w) d->limit_max_w = fmax(DEFAULT_LIMIT_W, ceil(peak_w));
    if (!d->limit_default_w) d->limit_default_w = d->limit_max_w;
    if (!d->limit_min_w) d->limit_min_w = fmin(100, d->limit_default_w);
    double highest_mhz = 0;
    for (size_t i = 0; i < d->sm_mhz.count; i++) highest_mhz = fmax(highest_mhz, d->sm_mhz.value[i]);
    if (!d->max_sm_mhz) d->max_sm_mhz = (unsigned)highest_mhz;
    if (!d->min_sm_mhz) d->min_sm_mhz = d->max_sm_mhz < 210 ? d->max_sm_mhz : 210;
    r->key = d->uuid;
    if (steps->jitter_ns > steps->step_ns / 2)
        fault(r, "a counter_jitter_ms of at most half its counter_update_ms", "more");
    device_limit_power(d, -INFINITY, d->limit_default_w);
}

static void read_line(struct reader *r, struct trace *trace) {
    struct device *d = trace->count ? &trace->devices[trace->count - 1] : NULL;
    const struct key *key = d ? device_keys : trace_keys;
    r->key = next_word(r);
    if (!*r->key || *r->key == '#') return;
    if (strcmp(r->key, "card") == 0) {
        begin_card(r, trace);
        return;
    }
    while (key->name && strcmp(key->name, r->key) != 0) key++;
    if (key->name) read_value(r, key, d ? (void *)d : trace);
    else fault(r, d ? "a key of a card" : "a key of the trace, or card", r->key);
}

static void read_lines(struct reader *r, FILE *file, struct trace *trace) {
    char *line = NULL;
    size_t room = 0;
    while (!r->fault[0] && getline(&line, &room, file) >= 0) {
        line[strcspn(line, "\n")] = 0;
        r->line++;
        r->rest = line;
        read_line(r, trace);
    }
    if (ferror(file)) snprintf(r->fault, sizeof r->fault, "%s", strerror(errno));
    for (unsigned i = 0; i < trace->count && !r->fault[0]; i++) complete(r, &trace->devices[i]);
    free(line);
}

bool trace_load(const char *path, struct trace *trace) {
    struct reader r = {.file = path};
    FILE *file = fopen(path, "rbe");
    *trace = (struct trace){.driver_version = "570.00.00", .cuda_version = "12.8"};
    if (file) {
        read_lines(&r, file, trace);
        fclose(file);
    } else snprintf(r.fault, sizeof r.fault, "%s", strerror(errno));
    if (!r.fault[0]) return true;
    message_print("%s: %s", path, r.fault);
    trace_free(trace);
    return false;
}

void trace_free(struct trace *trace) {
    for (unsigned i = 0; i < trace->count; i++) device_free(&trace->devices[i]);
    free(trace->devices);
    *trace = (struct trace){0};
}
