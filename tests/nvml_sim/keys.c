#include "keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "message.h"

void fault(struct reader *r, const char *path, const struct json *at, const char *expected) {
    static const char *const types[] = {"null", "true or false", "", "", "a list", "an object"};
    char found[80] = "nothing";
    if (r->fault[0]) return;
    if (at && at->type == JSON_NUMBER) snprintf(found, sizeof found, "%.15g", at->number);
    else if (at && at->type == JSON_STRING)
        snprintf(found, sizeof found, "\"%.60s\"", at->string);
    else if (at) snprintf(found, sizeof found, "%s", types[at->type]);
    snprintf(r->fault, sizeof r->fault, "offset %zu: %.120s: expected %s, found %s",
             at ? at->offset : 0, path, expected, found);
}

void *room(size_t count, size_t size) {
    void *made = calloc(count + 1, size);
    if (!made) abort();
    return made;
}

bool is_number(const struct json *value, double low, double high) {
    return value && value->type == JSON_NUMBER && value->number >= low && value->number <= high;
}

const struct json *elements(struct reader *r, const char *path, const struct json *list,
                            unsigned most) {
    char expected[60];
    if (list && list->type == JSON_ARRAY && list->count <= most) return list->first;
    snprintf(expected, sizeof expected, "a list of at most %u", most);
    fault(r, path, list, expected);
    return NULL;
}

unsigned choose(struct reader *r, const char *path, const struct json *value,
                const char *const *words) {
    char expected[80] = "one of";
    for (unsigned i = 0; words[i]; i++) {
        if (value->type == JSON_STRING && strcmp(value->string, words[i]) == 0) return i;
        size_t used = strlen(expected);
        snprintf(expected + used, sizeof expected - used, " \"%s\"", words[i]);
    }
    fault(r, path, value, expected);
    return 0;
}

static double read_number(struct reader *r, const char *path, const struct json *value,
                          const struct key *key) {
    char expected[80];
    if (!value) return key->fallback;
    if (is_number(value, key->low, key->high)) return value->number;
    snprintf(expected, sizeof expected, "a number from %g to %g", key->low, key->high);
    fault(r, path, value, expected);
    return 0;
}

/* A number alone, or one point for each element: [t_s, value], of TIMES t_s. */
static void read_series(struct reader *r, const char *path, const struct json *value,
                        const struct key *key, struct series *out) {
    bool listed = value && value->type == JSON_ARRAY;
    double last_s = -TIME_LIMIT_S;
    out->t_s = room(listed ? value->count : 1, sizeof *out->t_s);
    out->value = room(listed ? value->count : 1, sizeof *out->value);
    if (key->kind == SERIES && (!listed || !value->count)) {
        out->value[out->count++] = read_number(r, path, value, key);
        return;
    }
    const struct json *item = elements(r, path, value, UINT32_MAX);
    for (; item; item = item->next, out->count++) {
        const struct json *t = item, *number = NULL;
        if (key->kind != TIMES) {
            t = item->type == JSON_ARRAY && item->count == 2 ? item->first : NULL;
            number = t ? t->next : NULL;
        }
        if (!is_number(t, last_s, TIME_LIMIT_S)) {
            fault(r, path, item, key->kind == TIMES ? "times in s, in order" : "pairs [t_s, value], in order");
            return;
        }
        last_s = out->t_s[out->count] = t->number;
        if (number) out->value[out->count] = read_number(r, path, number, key);
    }
}

static void read_text(struct reader *r, const char *path, const struct json *value, size_t size,
                      char *out) {
    if (value->type == JSON_STRING && strlen(value->string) < size) strcpy(out, value->string);
    else fault(r, path, value, "a string, and not too long");
}

static void read_texts(struct reader *r, const char *path, const struct json *list,
                       struct texts *out) {
    out->all = room(list->count, sizeof *out->all);
    const struct json *item = elements(r, path, list, UINT32_MAX);
    for (; item; item = item->next) {
        char *text = out->all[out->count++];
        if (is_number(item, 0, UINT32_MAX)) snprintf(text, sizeof *out->all, "%.0f", item->number);
        else read_text(r, path, item, sizeof *out->all, text);
    }
}

static void read_key(struct reader *r, const char *path, const struct json *value,
                     const struct key *key, char *out) {
    void *at = out + key->offset;
    if (!value && isnan(key->fallback)) return;
    switch (key->kind) {
    case NUMBER: *(double *)at = read_number(r, path, value, key); break;
    case COUNT: *(unsigned *)at = (unsigned)read_number(r, path, value, key); break;
    case BYTES: *(uint64_t *)at = (uint64_t)read_number(r, path, value, key); break;
    case MS: *(int64_t *)at = llround(read_number(r, path, value, key) * 1e6); break;
    case FLAG:
        if (value && value->type != JSON_BOOL) fault(r, path, value, "true or false");
        *(bool *)at = value ? value->type == JSON_BOOL && value->number : key->fallback != 0;
        break;
    case TEXT: read_text(r, path, value, (size_t)key->high, at); break;
    case TEXTS: read_texts(r, path, value, at); break;
    case CHOICE: *(unsigned *)at = choose(r, path, value, key->words); break;
    case SERIES:
    case PAIRS:
    case TIMES: read_series(r, path, value, key, at); break;
    case SECTION: read_object(r, path, value, key->keys, out); break;
    case CUSTOM: key->read(r, path, value, at); break;
    }
}

static const struct key *find(const struct key *keys, const char *name) {
    while (keys->name && strcmp(keys->name, name) != 0) keys++;
    return keys->name ? keys : NULL;
}

void read_object(struct reader *r, const char *path, const struct json *object,
                 const struct key *keys, void *out) {
    char inner[120];
    if (object && object->type != JSON_OBJECT) {
        fault(r, path, object, "an object");
        return;
    }
    for (const struct key *key = keys; key->name; key++) {
        snprintf(inner, sizeof inner, "%.80s%s%s", path, *path ? "." : "", key->name);
        read_key(r, inner, object ? json_member(object, key->name) : NULL, key, out);
    }
    for (const struct json *m = object ? object->first : NULL; m; m = m->next)
        if (!find(keys, m->key) && m->key[0] != '_' && strcmp(m->key, "comment") != 0)
            message_print("%s: offset %zu: %s: key \"%.60s\" is not known and not used", r->file,
                          m->offset, *path ? path : "top level", m->key);
}
