#include "trace_device.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trace_sensor.h"

#define GIB (1024.0 * 1024 * 1024)
#define DEFAULT_LIMIT_W 700.0

static const struct range watts = {0, 1e6};
static const struct range bytes = {0, 1e15};
static const struct range celsius = {-100, 1000};
static const struct range percent = {0, 100};
static const struct range mhz = {0, 100000};
static const struct range small_count = {0, 65535};
static const struct range word = {0, 4294967295.0};

static bool put_power(void *context, double t_s, double power_w) {
    return timeline_append(context, t_s, power_w);
}

/* A path in the trace is relative to the trace's own folder. */
static bool open_load(const struct section *s, struct device *d, const char *path) {
    char whole[4096];
    const char *slash = strrchr(s->config->file, '/');
    int folder = slash && path[0] != '/' ? (int)(slash - s->config->file) + 1 : 0;
    snprintf(whole, sizeof whole, "%.*s%s", folder, s->config->file, path);
    return tail_open(&d->load.tail, whole);
}

static void read_power(const struct section *s, struct device *d) {
    const struct json *points = config_get(s, "power_w");
    char load_file[2048];
    d->load.idle_w = config_number(s, "idle_w", 100, watts);
    d->load.max_w = config_number(s, "max_w", 700, watts);
    config_string(s, "load_file", "", load_file, sizeof load_file);
    d->has_load = *load_file != 0;
    if (d->has_load && !open_load(s, d, load_file))
        config_fault(s->config, s->path, "load_file", config_get(s, "load_file"), "enough memory");
    if (points && !d->has_load && points->type == JSON_ARRAY)
        config_points(s, "power_w", points, watts, put_power, &d->demand);
    else if (points && !d->has_load)
        timeline_append(&d->demand, 0, config_number(s, "power_w", 0, watts));
    else timeline_append(&d->demand, 0, d->load.idle_w);
}

static void read_limit(const struct section *s, struct device *d) {
    static const char *const known[] = {"default", "min", "max", NULL};
    const struct json *value = config_get(s, "power_limit_w");
    double peak = d->has_load ? fmax(d->load.idle_w, d->load.max_w) : timeline_peak_w(&d->demand);
    double fallback = fmax(DEFAULT_LIMIT_W, ceil(peak));
    if (value && value->type == JSON_NUMBER) {
        fallback = config_number(s, "power_limit_w", fallback, watts);
        value = NULL;
    }
    struct section limit = {.config = s->config};
    if (value) {
        limit = config_section(s, "power_limit_w");
        config_warn_unknown(&limit, known);
    }
    double highest = config_number(&limit, "max", fallback, watts);
    d->limit_default_w = config_number(&limit, "default", highest, (struct range){0, highest});
    d->limit_max_w = highest;
    d->limit_min_w = config_number(&limit, "min", fmin(100, d->limit_default_w),
                                   (struct range){0, d->limit_default_w});
}

static const char *const clock_names[] = {"graphics_mhz", "sm_mhz", "mem_mhz", "video_mhz", NULL};

/* Of SM and graphics clock, the one that is given stands for the other. */
static const char *clock_key(const struct section *s, int domain) {
    if (domain == DOMAIN_GRAPHICS && !config_get(s, "graphics_mhz")) return "sm_mhz";
    if (domain == DOMAIN_SM && !config_get(s, "sm_mhz")) return "graphics_mhz";
    return clock_names[domain];
}

/* "max" and "min": an object with a number for each clock, or one number for SM and graphics. */
static unsigned read_clock_bound(const struct section *clocks, const char *key, int domain,
                                 double fallback) {
    const struct json *value = config_get(clocks, key);
    if (value && value->type == JSON_NUMBER) {
        bool core = domain == DOMAIN_GRAPHICS || domain == DOMAIN_SM;
        double number = config_number(clocks, key, 0, mhz);
        return (unsigned)(core ? number : fallback);
    }
    struct section bounds = config_section(clocks, key);
    if (domain == 0) config_warn_unknown(&bounds, clock_names);
    return (unsigned)config_number(&bounds, clock_key(&bounds, domain), fallback, mhz);
}

static void read_clocks(const struct section *device, struct device *d) {
    static const char *const known[] = {"graphics_mhz", "sm_mhz", "mem_mhz", "video_mhz",
                                        "max",          "min",    NULL};
    static const double usual_max[] = {1980, 1980, 2619, 1545};
    static const double usual_min[] = {210, 210, 0, 0};
    struct section s = config_section(device, "clocks");
    config_warn_unknown(&s, known);
    for (int i = 0; i < DOMAIN_COUNT; i++) {
        config_series(&s, clock_key(&s, i), usual_max[i], mhz, &d->clock_mhz[i]);
        double highest = config_get(&s, clock_key(&s, i)) ? 0 : usual_max[i];
        for (size_t k = 0; k < d->clock_mhz[i].count; k++)
            highest = fmax(highest, d->clock_mhz[i].value[k]);
        d->max_mhz[i] = read_clock_bound(&s, "max", i, highest);
        double lowest = usual_min[i] > 0 ? usual_min[i] : d->max_mhz[i];
        d->min_mhz[i] = read_clock_bound(&s, "min", i, fmin(lowest, d->max_mhz[i]));
        if (d->min_mhz[i] > d->max_mhz[i])
            config_fault(s.config, s.path, "min", config_get(&s, "min"), "less than max");
    }
}

static void read_memory(const struct section *device, struct device *d) {
    static const char *const known[] = {"total_bytes", "used_bytes", NULL};
    struct section s = config_section(device, "memory");
    config_warn_unknown(&s, known);
    d->memory_bytes = (uint64_t)config_number(&s, "total_bytes", 80 * GIB, bytes);
    config_series(&s, "used_bytes", 0, bytes, &d->used_bytes);
}

static void read_utilization(const struct section *device, struct device *d) {
    static const char *const known[] = {"gpu", "memory", NULL};
    struct section s = config_section(device, "utilization");
    config_warn_unknown(&s, known);
    config_series(&s, "gpu", 0, percent, &d->utilization_gpu);
    config_series(&s, "memory", 0, percent, &d->utilization_memory);
}

static void read_conditions(const struct section *s, struct device *d) {
    struct range reasons = {0, 9007199254740992.0};
    config_series(s, "temperature_c", 40, celsius, &d->temperature_c);
    config_series(s, "memory_temperature_c", 40, celsius, &d->memory_temperature_c);
    d->has_memory_temperature = config_get(s, "memory_temperature_c") != NULL;
    config_series(s, "throttle", 0, reasons, &d->throttle);
    d->counter_supported = config_boolean(s, "counter_supported", true);
    struct range after = {-CONFIG_TIME_LIMIT_S, CONFIG_TIME_LIMIT_S};
    d->fail_after_s = config_number(s, "fail_after_s", INFINITY, after);
    d->has_fan = config_get(s, "fan_percent") != NULL;
    d->fan_percent = (unsigned)config_number(s, "fan_percent", 0, percent);
    d->performance_state = (unsigned)config_number(s, "performance_state", 0, (struct range){0, 15});
    d->compute_mode = (unsigned)config_number(s, "compute_mode", 0, (struct range){0, 3});
}

static void read_process(const struct section *s, struct process *p) {
    static const char *const known[] = {"pid",     "used_memory_bytes", "name",
                                        "from_s",  "until_s",           "type",
                                        "gpu_instance_id", "compute_instance_id", NULL};
    char type[16];
    struct range time = {-CONFIG_TIME_LIMIT_S, CONFIG_TIME_LIMIT_S};
    config_warn_unknown(s, known);
    if (!config_get(s, "pid")) config_fault(s->config, s->path, "pid", NULL, "a process id");
    p->pid = (unsigned)config_number(s, "pid", 0, word);
    p->memory_known = config_get(s, "used_memory_bytes") != NULL;
    p->used_memory_bytes = (uint64_t)config_number(s, "used_memory_bytes", 0, bytes);
    p->from_s = config_number(s, "from_s", -INFINITY, time);
    p->until_s = config_number(s, "until_s", INFINITY, time);
    p->gpu_instance = (unsigned)config_number(s, "gpu_instance_id", 4294967295.0, word);
    p->compute_instance = (unsigned)config_number(s, "compute_instance_id", 4294967295.0, word);
    config_string(s, "name", "simulated process", p->name, sizeof p->name);
    config_string(s, "type", "compute", type, sizeof type);
    p->graphics = strcmp(type, "graphics") == 0;
    if (!p->graphics && strcmp(type, "compute") != 0)
        config_fault(s->config, s->path, "type", config_get(s, "type"),
                     "\"compute\" or \"graphics\"");
}

static void read_processes(const struct section *device, struct device *d) {
    const struct json *list = config_get(device, "processes");
    if (!list) return;
    if (list->type != JSON_ARRAY) {
        config_fault(device->config, device->path, "processes", list, "a list of objects");
        return;
    }
    d->processes = calloc(list->as.list.count + 1, sizeof *d->processes);
    if (!d->processes) {
        config_fault(device->config, device->path, "processes", list, "enough memory");
        return;
    }
    for (const struct json *item = list->as.list.first; item; item = item->next) {
        struct section s = {.config = device->config, .object = item};
        snprintf(s.path, sizeof s.path, "%.80s.processes[%u]", device->path, d->process_count);
        if (item->type != JSON_OBJECT) config_fault(s.config, s.path, "", item, "an object with a pid");
        else read_process(&s, &d->processes[d->process_count++]);
    }
}

static void read_identity(const struct section *s, struct device *d) {
    char fallback[80];
    config_string(s, "name", "Simulated GPU", d->name, sizeof d->name);
    snprintf(fallback, sizeof fallback, "GPU-51b0cafe-0000-4000-8000-%012x", d->index);
    config_string(s, "uuid", fallback, d->uuid, sizeof d->uuid);
    for (const char *c = d->uuid; *c; c++)
        if (!isgraph((unsigned char)*c))
            config_fault(s->config, s->path, "uuid", config_get(s, "uuid"),
                         "letters, digits and signs, no space");
    snprintf(fallback, sizeof fallback, "51%011u", d->index);
    config_string(s, "serial", fallback, d->serial, sizeof d->serial);
    config_string(s, "vbios", "96.00.00.00.00", d->vbios, sizeof d->vbios);
    config_string(s, "board_part_number", "SIM-0000-0000", d->part_number, sizeof d->part_number);
    d->minor = (unsigned)config_number(s, "minor_number", d->index, small_count);
}

/* [9, 0] or "9.0" */
static void read_capability(const struct section *s, struct device *d) {
    const struct json *value = config_get(s, "compute_capability");
    d->compute_major = 9;
    d->compute_minor = 0;
    if (!value) return;
    bool good = false;
    int end = 0;
    if (value->type == JSON_STRING) {
        good = sscanf(value->as.string, "%3d.%3d%n", &d->compute_major, &d->compute_minor, &end) == 2 &&
               !value->as.string[end];
    } else if (value->type == JSON_ARRAY && value->as.list.count == 2) {
        const struct json *major = value->as.list.first, *minor = major->next;
        good = major->type == JSON_NUMBER && minor->type == JSON_NUMBER &&
               fabs(major->as.number) < 1000 && fabs(minor->as.number) < 1000;
        if (good) d->compute_major = (int)major->as.number;
        if (good) d->compute_minor = (int)minor->as.number;
    }
    if (!good || d->compute_major < 1 || d->compute_minor < 0)
        config_fault(s->config, s->path, "compute_capability", value, "[9, 0] or \"9.0\"");
}

/* "00000000:01:00.0" or an object with numbers */
static void read_pci(const struct section *s, struct device *d) {
    static const char *const known[] = {"domain",    "bus",          "device",
                                        "device_id", "subsystem_id", NULL};
    const struct json *value = config_get(s, "pci");
    d->pci_bus = d->index + 1;
    d->pci_device_id = 0x233010DE;
    d->pci_subsystem_id = 0x16C110DE;
    if (value && value->type == JSON_STRING) {
        unsigned function;
        int end = 0;
        if (sscanf(value->as.string, "%8x:%2x:%2x.%1x%n", &d->pci_domain, &d->pci_bus,
                   &d->pci_device, &function, &end) != 4 || value->as.string[end])
            config_fault(s->config, s->path, "pci", value, "an address as \"00000000:01:00.0\"");
        return;
    }
    struct section pci = config_section(s, "pci");
    config_warn_unknown(&pci, known);
    d->pci_domain = (unsigned)config_number(&pci, "domain", 0, word);
    d->pci_bus = (unsigned)config_number(&pci, "bus", d->pci_bus, (struct range){0, 255});
    d->pci_device = (unsigned)config_number(&pci, "device", 0, (struct range){0, 31});
    d->pci_device_id = (unsigned)config_number(&pci, "device_id", d->pci_device_id, word);
    d->pci_subsystem_id = (unsigned)config_number(&pci, "subsystem_id", d->pci_subsystem_id, word);
}

/* true, false, or an object with current and pending (and supported). */
static void read_mode(const struct section *s, const char *key, bool fallback, bool *supported,
                      bool *current, bool *pending, struct section *details) {
    const struct json *value = config_get(s, key);
    *supported = true;
    *details = (struct section){.config = s->config};
    if (value && value->type == JSON_BOOL) {
        *current = *pending = value->as.boolean;
        return;
    }
    *details = config_section(s, key);
    *supported = config_boolean(details, "supported", true);
    bool enabled = config_boolean(details, "enabled", fallback);
    *current = config_boolean(details, "current", enabled);
    *pending = config_boolean(details, "pending", *current);
}

static void read_mig(const struct section *s, struct device *d) {
    static const char *const known[] = {"supported", "enabled", "current",
                                        "pending",   "devices", NULL};
    static const char *const known_one[] = {"uuid", "gpu_instance_id", "compute_instance_id",
                                            "memory_bytes", NULL};
    struct section mig;
    read_mode(s, "mig", false, &d->mig_supported, &d->mig_current, &d->mig_pending, &mig);
    config_warn_unknown(&mig, known);
    const struct json *list = config_get(&mig, "devices");
    if (!list) return;
    if (list->type != JSON_ARRAY || list->as.list.count > MAX_MIG_DEVICES) {
        config_fault(s->config, mig.path, "devices", list, "a list of at most 7 objects");
        return;
    }
    for (const struct json *item = list->as.list.first; item; item = item->next) {
        struct mig_device *m = &d->mig[d->mig_count];
        struct section one = {.config = s->config, .object = item};
        char fallback[80];
        snprintf(one.path, sizeof one.path, "%.80s.devices[%u]", mig.path, d->mig_count);
        if (item->type != JSON_OBJECT) config_fault(s->config, one.path, "", item, "an object");
        config_warn_unknown(&one, known_one);
        snprintf(fallback, sizeof fallback, "MIG-51b0cafe-0000-4000-%04x-%012x", d->mig_count + 1,
                 d->index);
        config_string(&one, "uuid", fallback, m->uuid, sizeof m->uuid);
        m->gpu_instance =
            (unsigned)config_number(&one, "gpu_instance_id", d->mig_count + 1, small_count);
        m->compute_instance = (unsigned)config_number(&one, "compute_instance_id", 0, small_count);
        double share = (double)d->memory_bytes / MAX_MIG_DEVICES;
        m->memory_bytes = (uint64_t)config_number(&one, "memory_bytes", share, bytes);
        d->mig_count++;
    }
}

static void read_modes(const struct section *s, struct device *d) {
    static const char *const known_ecc[] = {"supported", "enabled", "current", "pending", NULL};
    static const char *const known_c2c[] = {"enabled", "module_extra_w", NULL};
    struct section details;
    read_mode(s, "ecc", true, &d->ecc_supported, &d->ecc_current, &d->ecc_pending, &details);
    config_warn_unknown(&details, known_ecc);
    read_mig(s, d);
    struct section c2c = config_section(s, "c2c");
    config_warn_unknown(&c2c, known_c2c);
    d->c2c = config_boolean(&c2c, "enabled", false);
    d->module_extra_w = config_number(&c2c, "module_extra_w", 0, watts);
    d->persistence_default = config_boolean(s, "persistence_mode", true);
}

/* A device's own `permission` wins over the one at top level. */
static void read_permission(const struct section *s, const struct section *top, struct device *d) {
    static const char *const known[] = {"set_power_limit", "set_clocks", "set_persistence", NULL};
    const struct section *levels[] = {top, s};
    d->may_set = (struct permissions){true, true, true};
    for (int i = 0; i < 2; i++) {
        struct section p = config_section(levels[i], "permission");
        if (i == 1 || d->index == 0) config_warn_unknown(&p, known);
        d->may_set.power_limit = config_boolean(&p, "set_power_limit", d->may_set.power_limit);
        d->may_set.clocks = config_boolean(&p, "set_clocks", d->may_set.clocks);
        d->may_set.persistence = config_boolean(&p, "set_persistence", d->may_set.persistence);
    }
}

/* `not_supported`: names of NVML functions and numbers of fields. */
static void read_unsupported(const struct section *s, struct device *d) {
    const struct json *list = config_get(s, "not_supported");
    if (!list) return;
    if (list->type != JSON_ARRAY) {
        config_fault(s->config, s->path, "not_supported", list,
                     "a list of NVML function names and field numbers");
        return;
    }
    d->unsupported_names = calloc(list->as.list.count + 1, sizeof *d->unsupported_names);
    d->unsupported_fields = calloc(list->as.list.count + 1, sizeof *d->unsupported_fields);
    if (!d->unsupported_names || !d->unsupported_fields) return;
    for (const struct json *item = list->as.list.first; item; item = item->next) {
        if (item->type == JSON_STRING) {
            char *name = strdup(item->as.string);
            if (name) d->unsupported_names[d->unsupported_name_count++] = name;
        } else if (item->type == JSON_NUMBER && item->as.number >= 0 && item->as.number < 65536) {
            d->unsupported_fields[d->unsupported_field_count++] = (unsigned)item->as.number;
        } else {
            config_fault(s->config, s->path, "not_supported", item,
                         "an NVML function's name or a field's number");
        }
    }
}

void trace_read_device(const struct section *section, const struct section *top,
                       struct device *d, unsigned index) {
    static const char *const known[] = {
        "name", "uuid", "serial", "vbios", "board_part_number", "minor_number",
        "compute_capability", "pci", "power_w", "load_file", "idle_w", "max_w", "sensor",
        "counter_supported", "fail_after_s", "temperature_c", "memory_temperature_c", "throttle",
        "processes", "memory", "utilization", "clocks", "power_limit_w", "persistence_mode",
        "permission", "mig", "ecc", "c2c", "fan_percent", "performance_state", "compute_mode",
        "not_supported", NULL};
    config_warn_unknown(section, known);
    d->index = index;
    read_identity(section, d);
    read_capability(section, d);
    read_pci(section, d);
    trace_read_sensor(section, &d->sensor, index);
    read_power(section, d);
    read_limit(section, d);
    read_conditions(section, d);
    read_memory(section, d);
    read_utilization(section, d);
    read_clocks(section, d);
    read_modes(section, d);
    read_permission(section, top, d);
    read_processes(section, d);
    read_unsupported(section, d);
    if (!section->config->fault[0] && !device_reset_settings(d))
        config_fault(section->config, section->path, "power_w", NULL, "enough memory for it");
}
