/* A small JSON reader (RFC 8259): a whole document into one tree, freed at once. */
#ifndef NVML_SIM_JSON_H
#define NVML_SIM_JSON_H

#include <stdbool.h>
#include <stddef.h>

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_type type;
    size_t offset;    /* byte where the value begins, for messages */
    const char *key;  /* name inside an object, else NULL */
    struct json *next; /* next member or element */
    union {
        bool boolean;
        double number;
        const char *string;
        struct {
            struct json *first;
            size_t count;
        } list;
    } as;
};

struct json_document {
    struct json *root;
    struct json_block *blocks;
};

struct json_error {
    size_t offset;
    char reason[160];
};

/* text[length] must be 0. Returns false and fills error when the text is not JSON. */
bool json_parse(const char *text, size_t length, struct json_document *document,
                struct json_error *error);
void json_free(struct json_document *document);

/* Member of an object by name, NULL if absent; of several the last, as in Python's json. */
const struct json *json_member(const struct json *object, const char *key);
const char *json_type_name(enum json_type type);

#endif
