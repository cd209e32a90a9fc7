/* What the card's own instruments make of true power: the readings of power, and the counter. */
#ifndef NVML_SIM_SENSOR_H
#define NVML_SIM_SENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "counter.h"
#include "sampler.h"
#include "timeline.h"

/* What a call on the card asks for. */
enum call_kind { CALL_OTHER, CALL_POWER, CALL_COUNTER, CALL_KIND_COUNT };

struct sensor {
    struct sampler power;
    int64_t average_window_ns; /* nvmlDeviceGetPowerUsage and POWER_AVERAGE; 0: the power's window */
    double noise_w;
    uint64_t seed; /* of the noise */
    unsigned zero_every; /* the n-th renewal of each n reads 0; 0: none does */
    struct counter counter;
    int64_t call_ns[CALL_KIND_COUNT]; /* how long a call takes */
};

enum sensor_channel { SENSOR_INSTANT, SENSOR_AVERAGE };

/* Time of the last update (of the counter's last step) at or before elapsed_ns. */
int64_t sensor_update_ns(const struct sensor *sensor, int64_t elapsed_ns);
int64_t sensor_counter_update_ns(const struct sensor *sensor, int64_t elapsed_ns);

/* What the card shows at elapsed_ns (ns from time zero), in watts, never below 0. */
double sensor_power_w(const struct sensor *sensor, const struct timeline *power,
                      enum sensor_channel channel, int64_t elapsed_ns);
/* Power changed from from_s on: sums that reach past it are made anew. */
void sensor_power_changed(struct sensor *sensor, double from_s);
void sensor_free(struct sensor *sensor);

#endif
