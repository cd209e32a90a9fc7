/* A value over time that is not power: temperature, clocks, memory, utilisation, reasons. */
#ifndef NVML_SIM_SERIES_H
#define NVML_SIM_SERIES_H

#include <stddef.h>

struct series {
    size_t count;
    double *t_s, *value;
};

/* Place of the last time at or before t_s; the first one's where there is none. */
size_t series_locate(const double *times_s, size_t count, double t_s);
/* The value of the last point at or before t_s; before the first point that point's value. */
double series_step(const struct series *s, double t_s);
/* Linear between points, constant outside. */
double series_linear(const struct series *s, double t_s);
void series_free(struct series *s);

#endif
