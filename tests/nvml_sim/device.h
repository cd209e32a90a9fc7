/* One simulated card: what the trace says of it, and what callers have set. */
#ifndef NVML_SIM_DEVICE_H
#define NVML_SIM_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "sensor.h"
#include "series.h"
#include "tail.h"
#include "timeline.h"

#define MAX_DEVICES 64
#define MAX_MIG_DEVICES 7

enum clock_domain { DOMAIN_GRAPHICS, DOMAIN_SM, DOMAIN_MEMORY, DOMAIN_VIDEO, DOMAIN_COUNT };

struct process {
    unsigned pid;
    uint64_t used_memory_bytes;
    bool memory_known;
    bool graphics;
    double from_s, until_s;
    char name[256];
    unsigned gpu_instance, compute_instance;
};

struct mig_device {
    char uuid[80];
    unsigned gpu_instance, compute_instance;
    uint64_t memory_bytes;
};

/* Values a caller can set; kept in the state file. A lock of 0, 0 is none. */
struct settings {
    struct limit_step *limits; /* power limit over time; the first is the trace's own */
    size_t limit_count;
    unsigned gpu_lock_mhz[2], memory_lock_mhz[2];
    unsigned application_mhz[2]; /* memory, graphics; 0: the default */
    bool persistence;
};

struct permissions {
    bool power_limit, clocks, persistence;
};

struct load_source {
    struct tail tail;
    double idle_w, max_w;
    double load; /* of the last line */
    bool complained;
    uint64_t highest_mj; /* late lines change the past; the counter must not run back */
    size_t events;       /* of the counter, when it was last read */
};

struct device {
    unsigned index;
    char name[96], uuid[80], serial[30], vbios[32], part_number[80];
    unsigned minor;
    int compute_major, compute_minor;
    unsigned pci_domain, pci_bus, pci_device, pci_device_id, pci_subsystem_id;

    struct timeline demand; /* true power were there no limit */
    struct timeline power;  /* true power */
    struct sensor sensor;
    bool counter_supported;
    bool has_load;
    struct load_source load;
    double fail_after_s; /* infinity: never */

    struct series temperature_c, memory_temperature_c, throttle, utilization_gpu, utilization_memory;
    bool has_memory_temperature;
    struct series used_bytes;
    uint64_t memory_bytes;
    struct series clock_mhz[DOMAIN_COUNT];
    unsigned max_mhz[DOMAIN_COUNT], min_mhz[DOMAIN_COUNT];
    unsigned fan_percent;
    bool has_fan;
    unsigned performance_state, compute_mode;
    bool ecc_supported, ecc_current, ecc_pending;
    bool c2c;
    double module_extra_w;

    double limit_default_w, limit_min_w, limit_max_w;
    bool persistence_default;
    struct permissions may_set;
    struct settings settings;

    bool mig_supported, mig_current, mig_pending;
    struct mig_device mig[MAX_MIG_DEVICES];
    unsigned mig_count;

    struct process *processes;
    unsigned process_count;

    char **unsupported_names; /* NVML functions that answer NOT_SUPPORTED */
    unsigned unsupported_name_count;
    unsigned *unsupported_fields;
    unsigned unsupported_field_count;
};

void device_free(struct device *device);

/* Makes true power anew after demand (from from_s on) or the limit changed. */
bool device_power_changed(struct device *device, double from_s);
/* Back to the trace's own settings. */
bool device_reset_settings(struct device *device);
/* A new power limit from t_s on. */
bool device_limit_power(struct device *device, double t_s, double limit_w);
double device_power_limit_w(const struct device *device);
/* Takes in the load file's new lines. */
void device_poll_load(struct device *device);

/* Whether true power is held down by the limit at t_s. */
bool device_is_power_capped(const struct device *device, double t_s);
uint64_t device_counter_mj(struct device *device, int64_t elapsed_ns);
unsigned device_clock_mhz(const struct device *device, enum clock_domain domain, double t_s);

#endif
