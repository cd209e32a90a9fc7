/* Reads an object of the trace into a struct by a table of its keys. The first fault found is kept, with its
 * place, and reading goes on: callers look once, at the end. */
#ifndef NVML_SIM_KEYS_H
#define NVML_SIM_KEYS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json.h"

#define TIME_LIMIT_S 1e9

struct reader {
    const char *file;
    char fault[400]; /* empty while all is well */
};

/* What stands under a key, and what it becomes. */
enum kind {
    NUMBER,  /* double */
    COUNT,   /* unsigned */
    BYTES,   /* uint64_t */
    MS,      /* int64_t, in ns */
    FLAG,    /* bool */
    TEXT,    /* char[high] */
    TEXTS,   /* struct texts: strings, and numbers as text */
    CHOICE,  /* an enum, by its place among `words` */
    SERIES,  /* struct series: a number, or pairs [t_s, value] */
    PAIRS,   /* struct series: pairs, maybe none */
    TIMES,   /* struct series: times alone, maybe none */
    SECTION, /* an object with `keys` of the same struct */
    CUSTOM   /* whatever `read` makes of it */
};

typedef void read_value(struct reader *r, const char *path, const struct json *value, void *out);

struct key {
    const char *name; /* NULL ends a table */
    enum kind kind;
    size_t offset;   /* in the struct that is read into */
    double fallback; /* of an absent key; NAN: the struct keeps what it has */
    double low, high;
    union {
        const struct key *keys;
        const char *const *words;
        read_value *read;
    };
};

/* Rows of a table for the struct that OF names. */
#define KEY(kind, name, member, fallback, low, high) \
    {name, kind, offsetof(OF, member), fallback, low, high, {NULL}}
#define KEPT(kind, name, member) KEY(kind, name, member, NAN, 0, sizeof ((OF *)0)->member)
#define CHOSEN(name, member, list) {name, CHOICE, offsetof(OF, member), NAN, 0, 0, {.words = list}}
#define BELOW(name, list) {name, SECTION, 0, 0, 0, 0, {.keys = list}}
#define READ(name, member, function) {name, CUSTOM, offsetof(OF, member), NAN, 0, 0, {.read = function}}
#define END {NULL, NUMBER, 0, 0, 0, 0, {NULL}}

/* All of `keys` into `out`; without an object each takes its default. A key that is not known is named on
 * stderr: a misspelt one must not pass unseen. */
void read_object(struct reader *r, const char *path, const struct json *object, const struct key *keys,
                 void *out);

/* For CUSTOM keys. */
void fault(struct reader *r, const char *path, const struct json *at, const char *expected);
bool is_number(const struct json *value, double low, double high);
/* The elements of a list of at most so many; NULL, and a fault, where it is none. */
const struct json *elements(struct reader *r, const char *path, const struct json *list, unsigned most);
unsigned choose(struct reader *r, const char *path, const struct json *value, const char *const *words);
/* Zeroed memory for so many and one more. */
void *room(size_t count, size_t size);

#endif
