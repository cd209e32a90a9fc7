/* True power over time: piecewise linear, with exact integrals from prefix sums. */
#ifndef NVML_SIM_TIMELINE_H
#define NVML_SIM_TIMELINE_H

#include <stddef.h>

/* Points (t_s ascending, two equal times make a step); before the first point its value holds,
 * after the last one likewise. energy_j[i] is the integral from t_s[0] to t_s[i]. */
struct timeline {
    size_t count, room;
    double *t_s, *power_w;
    long double *energy_j;
};

/* A limit on power from t_s on. The first of a list has t_s = -infinity. */
struct limit_step {
    double t_s, limit_w;
};

/* Appends a point; an earlier time than the last point's is moved up to it. */
void timeline_append(struct timeline *line, double t_s, double power_w);
void timeline_clear(struct timeline *line);
void timeline_free(struct timeline *line);

/* Integral of power over [from_s, to_s] in joules. */
long double timeline_energy_j(const struct timeline *line, double from_s, double to_s);
/* Power at t_s; at a step the value after it. */
double timeline_power_w(const struct timeline *line, double t_s);
double timeline_peak_w(const struct timeline *line);

/* Replaces `out` by min(demand, limit) with the crossing points put in, so it stays exact. */
void timeline_limit(struct timeline *out, const struct timeline *demand,
                    const struct limit_step *limits, size_t limit_count);

#endif
