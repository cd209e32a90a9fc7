/* The trace's JSON as a tree. Text stays where it is: strings are decoded in place, each value knows its
 * offset. Of JSON all but \u escapes is read; what is not JSON is refused where it stops making sense. */
#ifndef NVML_SIM_JSON_H
#define NVML_SIM_JSON_H

#include <stddef.h>

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_type type;
    unsigned count;    /* of members or elements */
    size_t offset;     /* byte where the value begins, for messages */
    const char *key;   /* name inside an object, else NULL */
    struct json *next; /* next member or element */
    union {
        double number; /* of a boolean: 0 or 1 */
        const char *string;
        struct json *first;
    };
};

/* The tree of `text`, which must outlive it; free() of the root frees all. NULL where the text is not
 * JSON: then *reason says why, and *offset where. */
struct json *json_parse(char *text, const char **reason, size_t *offset);
/* Member of an object by name; NULL where it is absent or null. */
const struct json *json_member(const struct json *object, const char *key);

#endif
