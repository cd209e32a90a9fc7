#include "json.h"

#include <stdlib.h>
#include <string.h>

struct parser {
    char *text, *at;
    struct json *unused; /* the next node */
    const char *reason;  /* NULL while all is well */
    char *where;
};

static void *fail(struct parser *p, char *where, const char *reason) {
    p->reason = reason;
    p->where = where;
    return NULL;
}

static char peek(struct parser *p) {
    p->at += strspn(p->at, " \t\r\n");
    return *p->at;
}

static char *parse_string(struct parser *p) {
    static const char escaped[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    char *quote = p->at++, *text = p->at, *out = text;
    for (char c; (c = *p->at++) != '"'; *out++ = c) {
        if (!c) return fail(p, quote, "string without its closing quote");
        if (c != '\\') continue;
        const char *known = *p->at ? strchr(escaped, *p->at) : NULL;
        if (!known) return fail(p, p->at - 1, "an escape that is not read here: write the character");
        c = meant[known - escaped];
        p->at++;
    }
    *out = 0;
    return text;
}

static struct json *parse_value(struct parser *p);

static struct json *parse_list(struct parser *p, struct json *list, char close) {
    struct json **end = &list->first;
    p->at++;
    if (peek(p) == close) {
        p->at++;
        return list;
    }
    for (;;) {
        char *key = NULL;
        if (list->type == JSON_OBJECT) {
            if (peek(p) != '"') return fail(p, p->at, "expected a key in quotes");
            if (!(key = parse_string(p))) return NULL;
            if (peek(p) != ':') return fail(p, p->at, "expected ':' after a key");
            p->at++;
        }
        struct json *value = parse_value(p);
        if (!value) return NULL;
        value->key = key;
        *end = value;
        end = &value->next;
        list->count++;
        char after = peek(p);
        if (after != ',' && after != close) return fail(p, p->at, "expected ',' or the end of the list");
        p->at++;
        if (after == close) return list;
    }
}

static struct json *parse_value(struct parser *p) {
    static const struct {
        const char *word;
        enum json_type type;
        double number;
    } words[] = {{"true", JSON_BOOL, 1}, {"false", JSON_BOOL, 0}, {"null", JSON_NULL, 0}};
    struct json *value = p->unused;
    char *end, first = peek(p);
    value->offset = (size_t)(p->at - p->text);
    if (!first) return fail(p, p->at, "the text ends where a value is expected");
    p->unused++;
    if (first == '{' || first == '[') {
        value->type = first == '{' ? JSON_OBJECT : JSON_ARRAY;
        return parse_list(p, value, first == '{' ? '}' : ']');
    }
    if (first == '"') {
        value->type = JSON_STRING;
        return (value->string = parse_string(p)) ? value : NULL;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strncmp(p->at, words[i].word, strlen(words[i].word)) != 0) continue;
        value->type = words[i].type;
        value->number = words[i].number;
        p->at += strlen(words[i].word);
        return value;
    }
    value->type = JSON_NUMBER;
    value->number = strtod(p->at, &end); /* Python leaves numbers in the C locale */
    if (end == p->at) return fail(p, p->at, "expected a value");
    p->at = end;
    return value;
}

struct json *json_parse(char *text, const char **reason, size_t *offset) {
    struct parser p = {.text = text, .at = text};
    size_t most = 1; /* each value but the root follows one of these */
    for (const char *c = text; (c = strpbrk(c, "[{,")) != NULL; c++) most++;
    struct json *nodes = p.unused = calloc(most, sizeof *nodes);
    struct json *root = nodes ? parse_value(&p) : fail(&p, text, "not enough memory");
    if (root && peek(&p)) fail(&p, p.at, "unexpected text after the end of the document");
    if (!p.reason) return root;
    *reason = p.reason;
    *offset = (size_t)(p.where - text);
    free(nodes);
    return NULL;
}

const struct json *json_member(const struct json *object, const char *key) {
    for (const struct json *m = object ? object->first : NULL; m; m = m->next)
        if (strcmp(m->key, key) == 0) return m->type == JSON_NULL ? NULL : m;
    return NULL;
}
