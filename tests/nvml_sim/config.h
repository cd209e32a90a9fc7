/* Typed reading of the trace's JSON. The first fault found is kept, with its place, and reading goes on
 * with defaults: callers look once, at the end. */
#ifndef NVML_SIM_CONFIG_H
#define NVML_SIM_CONFIG_H

#include <stdbool.h>

#include "json.h"
#include "series.h"

#define CONFIG_TIME_LIMIT_S 1e9

struct config {
    const char *file;
    char fault[400]; /* empty while all is well */
};

/* An object in the document and the way to it ("devices[0].sensor"), for messages. */
struct section {
    struct config *config;
    const struct json *object; /* NULL: absent, every key takes its default */
    char path[120];
};

struct range {
    double low, high;
};

void config_fault(struct config *config, const char *path, const char *key, const struct json *at,
                  const char *expected);

/* The object under key; absent or null gives an empty section. */
struct section config_section(const struct section *parent, const char *key);
/* A line on stderr for each key not in `known` (NULL-ended): a misspelt key must not pass unseen. */
void config_warn_unknown(const struct section *section, const char *const *known);

/* NULL where the key is absent or null. */
const struct json *config_get(const struct section *section, const char *key);
double config_number(const struct section *section, const char *key, double fallback,
                     struct range range);
bool config_boolean(const struct section *section, const char *key, bool fallback);
/* Copies a string of 1 to size-1 bytes. */
void config_string(const struct section *section, const char *key, const char *fallback, char *out,
                   size_t size);

/* [[t_s, value], ...] with times that do not fall. Calls `put` for each point; false ends it. */
typedef bool config_put(void *context, double t_s, double value);
void config_points(const struct section *section, const char *key, const struct json *points,
                   struct range range, config_put *put, void *context);
/* A number or [[t_s, value], ...]; absent gives the constant fallback. */
void config_series(const struct section *section, const char *key, double fallback,
                   struct range range, struct series *out);

#endif
