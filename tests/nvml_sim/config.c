#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message.h"

void config_fault(struct config *config, const char *path, const char *key, const struct json *at,
                  const char *expected) {
    char found[80] = "nothing", excerpt[61];
    char name[200];
    if (config->fault[0]) return;
    if (at && at->type == JSON_NUMBER) snprintf(found, sizeof found, "%.15g", at->as.number);
    else if (at && at->type == JSON_STRING)
        snprintf(found, sizeof found, "\"%s\"",
                 message_excerpt(excerpt, sizeof excerpt, at->as.string));
    else if (at && at->type == JSON_BOOL)
        snprintf(found, sizeof found, "%s", at->as.boolean ? "true" : "false");
    else if (at) snprintf(found, sizeof found, "%s", json_type_name(at->type));
    snprintf(name, sizeof name, "%s%s%s", path, *path && *key ? "." : "", key);
    snprintf(config->fault, sizeof config->fault, "offset %zu: %.190s: expected %s, found %s",
             at ? at->offset : 0, *name ? name : "the document", expected, found);
}

const struct json *config_get(const struct section *section, const char *key) {
    const struct json *value = json_member(section->object, key);
    return value && value->type != JSON_NULL ? value : NULL;
}

struct section config_section(const struct section *parent, const char *key) {
    struct section section = {.config = parent->config};
    const struct json *value = config_get(parent, key);
    snprintf(section.path, sizeof section.path, "%.80s%s%.36s", parent->path,
             parent->path[0] ? "." : "", key);
    if (value && value->type != JSON_OBJECT)
        config_fault(parent->config, parent->path, key, value, "an object");
    else section.object = value;
    return section;
}

void config_warn_unknown(const struct section *section, const char *const *known) {
    if (!section->object || section->object->type != JSON_OBJECT) return;
    for (const struct json *m = section->object->as.list.first; m; m = m->next) {
        const char *const *name = known;
        while (*name && strcmp(*name, m->key) != 0) name++;
        if (*name || m->key[0] == '_' || strcmp(m->key, "comment") == 0) continue;
        char key[61];
        message_print("%s: offset %zu: %s: key \"%s\" is not known and not used",
                      section->config->file, m->offset,
                      section->path[0] ? section->path : "top level",
                      message_excerpt(key, sizeof key, m->key));
    }
}

double config_number(const struct section *section, const char *key, double fallback,
                     struct range range) {
    const struct json *value = config_get(section, key);
    char expected[80];
    if (!value) return fallback;
    if (value->type == JSON_NUMBER && value->as.number >= range.low &&
        value->as.number <= range.high)
        return value->as.number;
    snprintf(expected, sizeof expected, "a number from %g to %g", range.low, range.high);
    config_fault(section->config, section->path, key, value, expected);
    return fallback;
}

bool config_boolean(const struct section *section, const char *key, bool fallback) {
    const struct json *value = config_get(section, key);
    if (!value) return fallback;
    if (value->type == JSON_BOOL) return value->as.boolean;
    config_fault(section->config, section->path, key, value, "true or false");
    return fallback;
}

void config_string(const struct section *section, const char *key, const char *fallback, char *out,
                   size_t size) {
    const struct json *value = config_get(section, key);
    char expected[60];
    snprintf(out, size, "%s", fallback);
    if (!value) return;
    if (value->type == JSON_STRING && *value->as.string && strlen(value->as.string) < size) {
        snprintf(out, size, "%s", value->as.string);
        return;
    }
    snprintf(expected, sizeof expected, "a string of 1 to %zu bytes", size - 1);
    config_fault(section->config, section->path, key, value, expected);
}

static bool is_pair(const struct json *pair) {
    return pair->type == JSON_ARRAY && pair->as.list.count == 2 &&
           pair->as.list.first->type == JSON_NUMBER &&
           pair->as.list.first->next->type == JSON_NUMBER;
}

void config_points(const struct section *section, const char *key, const struct json *points,
                   struct range range, config_put *put, void *context) {
    struct config *config = section->config;
    double last = -CONFIG_TIME_LIMIT_S;
    char expected[100];
    if (points->type != JSON_ARRAY || points->as.list.count == 0) {
        config_fault(config, section->path, key, points, "a list [[t_s, value], ...]");
        return;
    }
    for (const struct json *pair = points->as.list.first; pair; pair = pair->next) {
        if (!is_pair(pair)) {
            config_fault(config, section->path, key, pair, "a pair of numbers [t_s, value]");
            return;
        }
        const struct json *t = pair->as.list.first, *value = t->next;
        if (t->as.number < last || t->as.number > CONFIG_TIME_LIMIT_S) {
            snprintf(expected, sizeof expected, "a time from %.9g (the one before) to %g s", last,
                     CONFIG_TIME_LIMIT_S);
            config_fault(config, section->path, key, t, expected);
            return;
        }
        if (value->as.number < range.low || value->as.number > range.high) {
            snprintf(expected, sizeof expected, "a value from %g to %g", range.low, range.high);
            config_fault(config, section->path, key, value, expected);
            return;
        }
        if (!put(context, t->as.number, value->as.number)) {
            config_fault(config, section->path, key, pair, "enough memory for it");
            return;
        }
        last = t->as.number;
    }
}

static bool put_series(void *context, double t_s, double value) {
    struct series *series = context;
    series->t_s[series->count] = t_s;
    series->value[series->count++] = value;
    return true;
}

void config_series(const struct section *section, const char *key, double fallback,
                   struct range range, struct series *out) {
    const struct json *value = config_get(section, key);
    bool listed = value && value->type == JSON_ARRAY && value->as.list.count > 0;
    size_t room = listed ? value->as.list.count : 1;
    series_free(out);
    out->t_s = calloc(room, sizeof *out->t_s);
    out->value = calloc(room, sizeof *out->value);
    if (!out->t_s || !out->value) {
        config_fault(section->config, section->path, key, value, "enough memory for it");
        return;
    }
    if (listed) {
        config_points(section, key, value, range, put_series, out);
    } else if (value && value->type != JSON_NUMBER) {
        config_fault(section->config, section->path, key, value,
                     "a number or a list [[t_s, value], ...]");
    } else {
        put_series(out, 0, config_number(section, key, fallback, range));
    }
}
