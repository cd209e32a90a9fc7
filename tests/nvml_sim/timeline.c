#include "timeline.h"

#include <stdbool.h>
#include <stdlib.h>

#include "series.h"

/* Room for one more point. */
static void grow(struct timeline *line) {
    if (line->count < line->room) return;
    line->room = line->room ? line->room * 2 : 16;
    line->t_s = realloc(line->t_s, line->room * sizeof *line->t_s);
    line->power_w = realloc(line->power_w, line->room * sizeof *line->power_w);
    line->energy_j = realloc(line->energy_j, line->room * sizeof *line->energy_j);
    if (!line->t_s || !line->power_w || !line->energy_j) abort();
}

void timeline_append(struct timeline *line, double t_s, double power_w) {
    size_t n = line->count;
    if (n && t_s < line->t_s[n - 1]) t_s = line->t_s[n - 1];
    if (n && t_s == line->t_s[n - 1] && power_w == line->power_w[n - 1]) return;
    grow(line);
    line->t_s[n] = t_s;
    line->power_w[n] = power_w;
    line->energy_j[n] = 0;
    if (n) {
        long double span = (long double)t_s - line->t_s[n - 1];
        long double mean = ((long double)power_w + line->power_w[n - 1]) / 2;
        line->energy_j[n] = line->energy_j[n - 1] + span * mean;
    }
    line->count = n + 1;
}

void timeline_clear(struct timeline *line) {
    line->count = 0;
}

void timeline_free(struct timeline *line) {
    free(line->t_s);
    free(line->power_w);
    free(line->energy_j);
    *line = (struct timeline){0};
}

static long double power_inside(const struct timeline *line, size_t i, double t_s) {
    if (i + 1 == line->count) return line->power_w[i];
    long double span = (long double)line->t_s[i + 1] - line->t_s[i];
    if (span <= 0) return line->power_w[i];
    long double slope = ((long double)line->power_w[i + 1] - line->power_w[i]) / span;
    return line->power_w[i] + slope * (t_s - line->t_s[i]);
}

static long double energy_to(const struct timeline *line, double t_s) {
    size_t last = line->count - 1;
    if (t_s <= line->t_s[0]) return ((long double)t_s - line->t_s[0]) * line->power_w[0];
    if (t_s >= line->t_s[last])
        return line->energy_j[last] + ((long double)t_s - line->t_s[last]) * line->power_w[last];
    size_t i = series_locate(line->t_s, line->count, t_s);
    long double mean = (line->power_w[i] + power_inside(line, i, t_s)) / 2;
    return line->energy_j[i] + ((long double)t_s - line->t_s[i]) * mean;
}

long double timeline_energy_j(const struct timeline *line, double from_s, double to_s) {
    return energy_to(line, to_s) - energy_to(line, from_s);
}

double timeline_power_w(const struct timeline *line, double t_s) {
    if (t_s < line->t_s[0]) return line->power_w[0];
    return (double)power_inside(line, series_locate(line->t_s, line->count, t_s), t_s);
}

double timeline_peak_w(const struct timeline *line) {
    double peak = 0;
    for (size_t i = 0; i < line->count; i++)
        if (line->power_w[i] > peak) peak = line->power_w[i];
    return peak;
}

struct limiter {
    struct timeline *out;
    const struct limit_step *limits;
    size_t count, next; /* next limit that has not begun */
    double limit_w;
};

static double least(double a, double b) {
    return a < b ? a : b;
}

/* One linear stretch under one constant limit. */
static void put_stretch(struct limiter *l, double a, double wa, double b, double wb) {
    timeline_append(l->out, a, least(wa, l->limit_w));
    bool crosses = (wa < l->limit_w) != (wb < l->limit_w) && b > a && wa != wb;
    if (crosses) {
        double at = a + (b - a) * ((l->limit_w - wa) / (wb - wa));
        timeline_append(l->out, least(at, b), l->limit_w);
    }
    timeline_append(l->out, b, least(wb, l->limit_w));
}

/* One linear stretch of demand, cut where a limit begins inside it. */
static void put_demand(struct limiter *l, double a, double wa, double b, double wb) {
    while (l->next < l->count && l->limits[l->next].t_s < b) {
        const struct limit_step *step = &l->limits[l->next++];
        if (step->t_s > a) {
            double w = wa + (wb - wa) * ((step->t_s - a) / (b - a));
            put_stretch(l, a, wa, step->t_s, w);
            a = step->t_s;
            wa = w;
        }
        l->limit_w = step->limit_w;
    }
    put_stretch(l, a, wa, b, wb);
}

void timeline_limit(struct timeline *out, const struct timeline *demand,
                    const struct limit_step *limits, size_t limit_count) {
    struct limiter l = {out, limits, limit_count, 1, limits[0].limit_w};
    double t = demand->t_s[0], w = demand->power_w[0];
    timeline_clear(out);
    if (limit_count > 1 && limits[1].t_s < t) {
        double first = limits[1].t_s;
        put_demand(&l, first, w, first, w);
        put_demand(&l, first, w, t, w);
    }
    for (size_t i = 0; i < demand->count; i++) {
        put_demand(&l, t, w, demand->t_s[i], demand->power_w[i]);
        t = demand->t_s[i];
        w = demand->power_w[i];
    }
    while (l.next < l.count) {
        const struct limit_step *step = &l.limits[l.next++];
        put_stretch(&l, t, w, step->t_s, w);
        t = step->t_s;
        l.limit_w = step->limit_w;
    }
    put_stretch(&l, t, w, t, w);
}
