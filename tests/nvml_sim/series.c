#include "series.h"

#include <stdlib.h>

size_t series_locate(const double *times_s, size_t count, double t_s) {
    size_t low = 0, high = count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (times_s[middle] <= t_s) low = middle;
        else high = middle;
    }
    return low;
}

double series_step(const struct series *s, double t_s) {
    return s->value[series_locate(s->t_s, s->count, t_s)];
}

double series_linear(const struct series *s, double t_s) {
    size_t i = series_locate(s->t_s, s->count, t_s);
    if (i + 1 == s->count || t_s <= s->t_s[i]) return s->value[i];
    long double span = (long double)s->t_s[i + 1] - s->t_s[i];
    return (double)(s->value[i] + (s->value[i + 1] - s->value[i]) * ((t_s - s->t_s[i]) / span));
}

void series_free(struct series *s) {
    free(s->t_s);
    free(s->value);
    *s = (struct series){0};
}
