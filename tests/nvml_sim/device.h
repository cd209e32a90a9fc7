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
#define MEMORY_MHZ 2619

/* As NVML numbers its clocks. */
enum clock_domain { DOMAIN_GRAPHICS, DOMAIN_SM, DOMAIN_MEMORY, DOMAIN_COUNT };

struct texts {
    char (*all)[80];
    unsigned count;
};

struct process {
    unsigned pid;
    uint64_t used_memory_bytes;
    unsigned graphics; /* or compute */
    char name[256];
};

struct processes {
    struct process *all;
    unsigned count;
};

/* Values a caller can set; kept in the state file. A lock of 0, 0 is none. */
struct settings {
    struct limit_step *limits; /* power limit over time; the first is the trace's own */
    size_t limit_count;
    unsigned gpu_lock_mhz[2];
    unsigned application_mhz[2]; /* memory, graphics; 0: the default */
};

struct load_source {
    char file[2000]; /* as the trace names it; empty: there is none */
    struct tail tail;
    double idle_w, max_w;
    double load; /* of the last line */
    bool complained;
    uint64_t highest_mj; /* late lines change the past; the counter must not run back */
    size_t events;       /* of the counter, when it was last read */
};

struct device {
    unsigned index;
    char name[96], uuid[80], vbios[32], pci[32];
    int compute_capability[2]; /* major, minor */

    struct series power_points; /* while the trace is read */
    struct timeline demand;     /* true power were there no limit */
    struct timeline power;      /* true power */
    struct sensor sensor;
    bool counter_supported;
    struct load_source load;
    double fail_after_s; /* infinity: never */

    struct series temperature_c, throttle, used_bytes, sm_mhz;
    uint64_t memory_bytes;
    unsigned max_sm_mhz, min_sm_mhz;
    bool ecc_supported, ecc_current, ecc_pending;
    bool c2c;
    bool persistence;

    double limit_default_w, limit_min_w, limit_max_w;
    bool may_set_power_limit, may_set_clocks;
    struct settings settings;

    bool mig;
    struct texts mig_uuids;
    struct processes processes;
    struct texts not_supported; /* NVML functions, and numbers of fields */
};

void device_free(struct device *device);

/* Makes true power anew after demand (from from_s on) or the limit changed. */
void device_power_changed(struct device *device, double from_s);
/* A new power limit from t_s on; the first is the trace's own, from -infinity on. */
void device_limit_power(struct device *device, double t_s, double limit_w);
double device_power_limit_w(const struct device *device);
/* Takes in the load file's new lines. */
void device_poll_load(struct device *device);

/* Whether true power is held down by the limit at t_s. */
bool device_is_power_capped(const struct device *device, double t_s);
uint64_t device_counter_mj(struct device *device, int64_t elapsed_ns);
unsigned device_clock_mhz(const struct device *device, enum clock_domain domain, double t_s);

#endif
