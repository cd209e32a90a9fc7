#include "trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keys.h"
#include "message.h"
#include "nvml_abi.h"

#define GIB (1024.0 * 1024 * 1024)
#define WATTS_LIMIT 1e6
#define DEFAULT_LIMIT_W 700.0
#define EXACT_INTEGER 9007199254740992.0

/* Seeds of what is drawn for each tick: the same on every card and in every process. */
enum { SEED_COUNTER_JITTER = 1, SEED_COUNTER_SKIP, SEED_POWER_SKIP };

/* --- the sensor --------------------------------------------------------------------------------- */

/* [from_s, until_s, "catch_up" or "lose"], in order, none in another. */
static void read_stalls(struct reader *r, const char *path, const struct json *list, void *out) {
    static const char *const ends[] = {"catch_up", "lose", NULL};
    struct ticks *ticks = out;
    double last_s = -TIME_LIMIT_S;
    ticks->stalls = room(list->count, sizeof *ticks->stalls);
    const struct json *item = elements(r, path, list, UINT32_MAX);
    for (; item; item = item->next) {
        const struct json *from = item->type == JSON_ARRAY && item->count == 3 ? item->first : NULL;
        if (!is_number(from, last_s, TIME_LIMIT_S) ||
            !is_number(from->next, from->number, TIME_LIMIT_S)) {
            fault(r, path, item, "[from_s, until_s, \"catch_up\" or \"lose\"], in order");
            return;
        }
        last_s = from->next->number;
        ticks->stalls[ticks->stall_count++] =
            (struct stall){llround(from->number * 1e9), llround(last_s * 1e9),
                           choose(r, path, from->next->next, ends) == 1};
    }
}

#define OF struct device
#define SENSOR(kind, name, member, fallback, low, high) \
    KEY(kind, name, sensor.member, fallback, low, high)
#define DURATION(name, member, fallback, low) SENSOR(MS, name, member, fallback, low, 1e9)
#define PHASE(name, member) SENSOR(MS, name, member, 0, -1e9, 1e9)
/* Of ticks left out: some must be left. */
#define SHARE(name, member) SENSOR(NUMBER, name, member, 0, 0, 0.99)

static const char *const counter_sources[] = {"true", "samples", "own_samples", NULL};

static const struct key call_keys[] = {
    SENSOR(MS, "other", call_ns[CALL_OTHER], 0, 0, 60000),
    SENSOR(MS, "power", call_ns[CALL_POWER], 0, 0, 60000),
    SENSOR(MS, "counter", call_ns[CALL_COUNTER], 0, 0, 60000),
    END};

static const struct key sensor_keys[] = {
    DURATION("update_ms", power.ticks.step_ns, 100, 1),
    PHASE("phase_ms", power.ticks.phase_ns),
    DURATION("window_ms", power.window_ns, 100, 0),
    DURATION("average_window_ms", average_window_ns, 0, 0),
    SENSOR(NUMBER, "gain", power.gain, 1, 0, 1000),
    SENSOR(NUMBER, "offset_w", power.offset_w, 0, -WATTS_LIMIT, WATTS_LIMIT),
    SENSOR(NUMBER, "power_noise_w", noise_w, 0, 0, WATTS_LIMIT),
    SHARE("power_skip", power.ticks.skip),
    SENSOR(COUNT, "zero_every", zero_every, 0, 0, 1e9),
    DURATION("counter_update_ms", counter.ticks.step_ns, 100, 1),
    PHASE("counter_phase_ms", counter.ticks.phase_ns),
    DURATION("counter_jitter_ms", counter.ticks.jitter_ns, 0, 0),
    SHARE("counter_skip", counter.ticks.skip),
    READ("counter_stalls", sensor.counter.ticks, read_stalls),
    DURATION("counter_lag_ms", counter.lag_ns, 0, 0),
    CHOSEN("counter_from", sensor.counter.source, counter_sources),
    DURATION("counter_sample_ms", counter.own.ticks.step_ns, 100, 1),
    PHASE("counter_sample_phase_ms", counter.own.ticks.phase_ns),
    DURATION("counter_window_ms", counter.own.window_ns, 100, 0),
    SENSOR(NUMBER, "counter_gain", counter.gain, 1, 0, 1000),
    SENSOR(NUMBER, "counter_start_mj", counter.start_mj, 0, 0, 1e15),
    SENSOR(BYTES, "counter_wrap_mj", counter.wrap_mj, 0, 1, EXACT_INTEGER),
    SENSOR(TIMES, "counter_resets_s", counter.resets, NAN, 0, 0),
    SENSOR(PAIRS, "counter_jumps", counter.jumps_j, NAN, -1e12, 1e12),
    BELOW("call_ms", call_keys),
    END};

/* --- a card ------------------------------------------------------------------------------------- */

static void read_capability(struct reader *r, const char *path, const struct json *value, void *out) {
    int *version = out; /* major, minor */
    const struct json *major = value->type == JSON_ARRAY && value->count == 2 ? value->first : NULL;
    if (!is_number(major, 1, 999) || !is_number(major->next, 0, 999)) {
        fault(r, path, value, "[9, 0]");
        return;
    }
    version[0] = (int)major->number;
    version[1] = (int)major->next->number;
}

static void read_processes(struct reader *r, const char *path, const struct json *list, void *out);

static const struct key memory_keys[] = {KEY(BYTES, "total_bytes", memory_bytes, 80 * GIB, 0, 1e15),
                                         KEY(SERIES, "used_bytes", used_bytes, 0, 0, 1e15), END};
static const struct key clock_keys[] = {KEY(SERIES, "sm_mhz", sm_mhz, 1980, 0, 1e5),
                                        KEY(COUNT, "max", max_sm_mhz, 0, 0, 1e5),
                                        KEY(COUNT, "min", min_sm_mhz, 0, 0, 1e5), END};
static const struct key limit_keys[] = {KEY(NUMBER, "default", limit_default_w, 0, 0, WATTS_LIMIT),
                                        KEY(NUMBER, "min", limit_min_w, 0, 0, WATTS_LIMIT),
                                        KEY(NUMBER, "max", limit_max_w, 0, 0, WATTS_LIMIT), END};
static const struct key permission_keys[] = {
    KEY(FLAG, "set_power_limit", may_set_power_limit, true, 0, 0),
    KEY(FLAG, "set_clocks", may_set_clocks, true, 0, 0), END};
static const struct key ecc_keys[] = {KEY(FLAG, "supported", ecc_supported, true, 0, 0),
                                      KEY(FLAG, "current", ecc_current, true, 0, 0),
                                      KEY(FLAG, "pending", ecc_pending, true, 0, 0), END};
static const struct key c2c_keys[] = {KEY(FLAG, "enabled", c2c, false, 0, 0), END};

static const struct key device_keys[] = {
    KEPT(TEXT, "name", name),
    KEPT(TEXT, "uuid", uuid),
    KEPT(TEXT, "vbios", vbios),
    READ("compute_capability", compute_capability, read_capability),
    KEPT(TEXT, "pci", pci),
    KEY(SERIES, "power_w", power_points, NAN, 0, WATTS_LIMIT),
    KEPT(TEXT, "load_file", load.file),
    KEY(NUMBER, "idle_w", load.idle_w, 100, 0, WATTS_LIMIT),
    KEY(NUMBER, "max_w", load.max_w, 700, 0, WATTS_LIMIT),
    BELOW("sensor", sensor_keys),
    KEY(FLAG, "counter_supported", counter_supported, true, 0, 0),
    KEY(NUMBER, "fail_after_s", fail_after_s, INFINITY, -TIME_LIMIT_S, TIME_LIMIT_S),
    KEY(SERIES, "temperature_c", temperature_c, 40, -100, 1000),
    KEY(SERIES, "throttle", throttle, 0, 0, EXACT_INTEGER),
    READ("processes", processes, read_processes),
    BELOW("memory", memory_keys),
    BELOW("clocks", clock_keys),
    BELOW("power_limit_w", limit_keys),
    KEY(FLAG, "persistence_mode", persistence, true, 0, 0),
    BELOW("permission", permission_keys),
    KEY(FLAG, "mig", mig, false, 0, 0),
    KEPT(TEXTS, "mig_uuids", mig_uuids),
    BELOW("ecc", ecc_keys),
    BELOW("c2c", c2c_keys),
    KEPT(TEXTS, "not_supported", not_supported),
    END};

#undef OF
#define OF struct process
static const char *const process_types[] = {"compute", "graphics", NULL};
static const struct key process_keys[] = {
    KEY(COUNT, "pid", pid, 0, 0, UINT32_MAX),
    KEY(BYTES, "used_memory_bytes", used_memory_bytes, NAN, 0, 1e15), KEPT(TEXT, "name", name),
    CHOSEN("type", graphics, process_types), END};

static void read_processes(struct reader *r, const char *path, const struct json *list, void *out) {
    struct processes *processes = out;
    char inner[120];
    processes->all = room(list->count, sizeof *processes->all);
    const struct json *item = elements(r, path, list, UINT32_MAX);
    for (; item; item = item->next) {
        struct process *p = &processes->all[processes->count++];
        *p = (struct process){.used_memory_bytes = NVML_VALUE_NOT_AVAILABLE, .name = "a process"};
        snprintf(inner, sizeof inner, "%.80s[%u]", path, processes->count - 1);
        read_object(r, inner, item, process_keys, p);
    }
}

/* The file's path is relative to the trace's own folder. */
static void open_load(const char *trace, struct load_source *load) {
    char path[4096];
    const char *slash = load->file[0] == '/' ? NULL : strrchr(trace, '/');
    snprintf(path, sizeof path, "%.*s%s", slash ? (int)(slash - trace) + 1 : 0, trace, load->file);
    tail_open(&load->tail, path);
}

/* What follows from other keys: true power, its limit, the range of clocks. */
static void complete(struct reader *r, const char *path, struct device *d) {
    struct ticks *steps = &d->sensor.counter.ticks;
    bool given = d->power_points.count && !d->load.file[0];
    if (d->load.file[0]) open_load(r->file, &d->load);
    if (!given) timeline_append(&d->demand, 0, d->load.idle_w);
    for (size_t i = 0; given && i < d->power_points.count; i++)
        timeline_append(&d->demand, d->power_points.t_s[i], d->power_points.value[i]);
    series_free(&d->power_points);
    double peak_w = given ? timeline_peak_w(&d->demand) : fmax(d->load.idle_w, d->load.max_w);
    if (!d->limit_max_w) d->limit_max_w = fmax(DEFAULT_LIMIT_W, ceil(peak_w));
    if (!d->limit_default_w) d->limit_default_w = d->limit_max_w;
    if (!d->limit_min_w) d->limit_min_w = fmin(100, d->limit_default_w);
    double highest_mhz = 0;
    for (size_t i = 0; i < d->sm_mhz.count; i++) highest_mhz = fmax(highest_mhz, d->sm_mhz.value[i]);
    if (!d->max_sm_mhz) d->max_sm_mhz = (unsigned)highest_mhz;
    if (!d->min_sm_mhz) d->min_sm_mhz = d->max_sm_mhz < 210 ? d->max_sm_mhz : 210;
    if (steps->jitter_ns > steps->step_ns / 2)
        fault(r, path, NULL, "a counter_jitter_ms of at most half its counter_update_ms");
    steps->jitter_seed = SEED_COUNTER_JITTER;
    steps->skip_seed = SEED_COUNTER_SKIP;
    d->sensor.power.ticks.skip_seed = SEED_POWER_SKIP;
    d->sensor.counter.own.gain = 1;
    d->sensor.seed = ((uint64_t)d->index + 1) * UINT64_C(0xD1B54A32D192ED03);
    device_limit_power(d, -INFINITY, d->limit_default_w);
}

/* --- the whole ---------------------------------------------------------------------------------- */

static void read_devices(struct reader *r, const char *path, const struct json *list, void *out) {
    struct trace *trace = out;
    char inner[120];
    const struct json *item = elements(r, path, list, MAX_DEVICES);
    trace->devices = room(item ? list->count : 0, sizeof *trace->devices);
    for (; item && !r->fault[0]; item = item->next) {
        struct device *d = &trace->devices[trace->count];
        d->index = trace->count++;
        d->compute_capability[0] = 9;
        strcpy(d->name, "Simulated GPU");
        strcpy(d->vbios, "96.00.00.00.00");
        snprintf(d->pci, sizeof d->pci, "00000000:%02X:00.0", d->index + 1);
        snprintf(d->uuid, sizeof d->uuid, "GPU-51b0cafe-0000-4000-8000-%012x", d->index);
        snprintf(inner, sizeof inner, "%s[%u]", path, d->index);
        read_object(r, inner, item, device_keys, d);
        if (!r->fault[0]) complete(r, inner, d);
    }
}

#undef OF
#define OF struct trace
static const struct key trace_keys[] = {
    {"devices", CUSTOM, 0, 0, 0, 0, {.read = read_devices}},
    KEPT(TEXT, "driver_version", driver_version),
    KEPT(TEXT, "cuda_version", cuda_version), END};

/* The whole file with a 0 after it; NULL with errno set. */
static char *read_file(const char *path) {
    FILE *file = fopen(path, "rbe");
    char *text = NULL;
    size_t size = 0;
    if (!file) return NULL;
    errno = 0;
    if (getdelim(&text, &size, 0, file) < 0 && errno == 0 && text) *text = 0;
    int failed = errno;
    fclose(file);
    if (!failed) return text;
    free(text);
    errno = failed;
    return NULL;
}

bool trace_load(const char *path, struct trace *trace) {
    struct reader r = {.file = path};
    const char *reason;
    size_t offset;
    *trace = (struct trace){.driver_version = "570.00.00", .cuda_version = "12.8"};
    char *text = read_file(path);
    struct json *root = text ? json_parse(text, &reason, &offset) : NULL;
    if (!text) snprintf(r.fault, sizeof r.fault, "%s", strerror(errno));
    else if (!root) snprintf(r.fault, sizeof r.fault, "offset %zu: not JSON: %s", offset, reason);
    else read_object(&r, "", root, trace_keys, trace);
    free(root);
    free(text);
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
