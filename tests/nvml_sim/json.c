#include "json.h"

#include <locale.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 64
#define BLOCK_BYTES ((size_t)1 << 20)

struct json_block {
    struct json_block *next;
    size_t used, size;
    _Alignas(16) char data[];
};

struct parser {
    const char *text;
    size_t length, at;
    struct json_document *document;
    struct json_error *error;
    locale_t c_locale; /* the host program may have set a decimal comma */
    bool failed;
};

static void *fail(struct parser *p, size_t offset, const char *reason) {
    if (!p->failed) {
        p->failed = true;
        p->error->offset = offset;
        snprintf(p->error->reason, sizeof p->error->reason, "%s", reason);
    }
    return NULL;
}

static void *allocate(struct parser *p, size_t bytes) {
    bytes = (bytes + 15) & ~(size_t)15;
    struct json_block *block = p->document->blocks;
    if (!block || block->size - block->used < bytes) {
        size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        block = malloc(sizeof *block + size);
        if (!block) return fail(p, p->at, "out of memory");
        block->next = p->document->blocks;
        block->used = 0;
        block->size = size;
        p->document->blocks = block;
    }
    void *memory = block->data + block->used;
    block->used += bytes;
    return memory;
}

static int peek(const struct parser *p) {
    return p->at < p->length ? (unsigned char)p->text[p->at] : -1;
}

static void skip_space(struct parser *p) {
    for (;;) {
        int c = peek(p);
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return;
        p->at++;
    }
}

static bool hex4(struct parser *p, unsigned *code) {
    *code = 0;
    for (int i = 0; i < 4; i++) {
        int c = peek(p);
        unsigned digit;
        if (c >= '0' && c <= '9') digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f') digit = (unsigned)(c - 'a' + 10);
        else if (c >= 'A' && c <= 'F') digit = (unsigned)(c - 'A' + 10);
        else return fail(p, p->at, "expected four hexadecimal digits after \\u"), false;
        *code = *code * 16 + digit;
        p->at++;
    }
    return true;
}

static size_t put_utf8(char *out, unsigned code) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 63));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 63));
        out[2] = (char)(0x80 | (code & 63));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 63));
    out[2] = (char)(0x80 | (code >> 6 & 63));
    out[3] = (char)(0x80 | (code & 63));
    return 4;
}

/* Length of the UTF-8 character at the cursor, 0 if it is not one. */
static size_t utf8_length(const struct parser *p) {
    const unsigned char *s = (const unsigned char *)p->text + p->at;
    size_t left = p->length - p->at;
    size_t need;
    unsigned code;
    if (s[0] < 0x80) return 1;
    if (s[0] >= 0xC2 && s[0] <= 0xDF) need = 2, code = s[0] & 31u;
    else if (s[0] >= 0xE0 && s[0] <= 0xEF) need = 3, code = s[0] & 15u;
    else if (s[0] >= 0xF0 && s[0] <= 0xF4) need = 4, code = s[0] & 7u;
    else return 0;
    if (left < need) return 0;
    for (size_t i = 1; i < need; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        code = code << 6 | (s[i] & 63u);
    }
    if (need == 3 && (code < 0x800 || (code >= 0xD800 && code <= 0xDFFF))) return 0;
    if (need == 4 && (code < 0x10000 || code > 0x10FFFF)) return 0;
    return need;
}

static bool escape(struct parser *p, char *out, size_t *used) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    size_t start = p->at - 1;
    int c = peek(p);
    const char *simple = c > 0 ? strchr(from, c) : NULL;
    if (simple) {
        out[(*used)++] = to[simple - from];
        p->at++;
        return true;
    }
    if (c != 'u') return fail(p, start, "unknown escape in string"), false;
    p->at++;
    unsigned code, low;
    if (!hex4(p, &code)) return false;
    if (code >= 0xD800 && code <= 0xDBFF) {
        if (peek(p) != '\\' || p->at + 1 >= p->length || p->text[p->at + 1] != 'u')
            return fail(p, start, "half of a surrogate pair in string"), false;
        p->at += 2;
        if (!hex4(p, &low)) return false;
        if (low < 0xDC00 || low > 0xDFFF)
            return fail(p, start, "half of a surrogate pair in string"), false;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code <= 0xDFFF) {
        return fail(p, start, "half of a surrogate pair in string"), false;
    }
    if (code == 0) return fail(p, start, "\\u0000 is not allowed in a string here"), false;
    *used += put_utf8(out + *used, code);
    return true;
}

/* Reads a string at the cursor (on its opening quote); decoded text is never longer than source. */
static const char *parse_string(struct parser *p) {
    size_t start = p->at++;
    size_t end = p->at;
    while (end < p->length && p->text[end] != '"') end += p->text[end] == '\\' ? 2 : 1;
    if (end >= p->length) return fail(p, start, "string without its closing quote");
    char *out = allocate(p, end - p->at + 1);
    size_t used = 0;
    if (!out) return NULL;
    while (p->at < end) {
        unsigned char c = (unsigned char)p->text[p->at];
        if (c == '\\') {
            p->at++;
            if (!escape(p, out, &used)) return NULL;
            continue;
        }
        if (c < 0x20) return fail(p, p->at, "control character in string");
        size_t bytes = utf8_length(p);
        if (!bytes) return fail(p, p->at, "string is not valid UTF-8");
        memcpy(out + used, p->text + p->at, bytes);
        used += bytes;
        p->at += bytes;
    }
    out[used] = 0;
    p->at = end + 1;
    return out;
}

static bool digits(struct parser *p) {
    size_t start = p->at;
    while (peek(p) >= '0' && peek(p) <= '9') p->at++;
    return p->at > start;
}

static bool parse_number(struct parser *p, double *number) {
    size_t start = p->at;
    if (peek(p) == '-') p->at++;
    if (peek(p) == '0') p->at++;
    else if (!digits(p)) return fail(p, start, "expected a value"), false;
    if (peek(p) == '.') {
        p->at++;
        if (!digits(p)) return fail(p, p->at, "expected a digit after the decimal point"), false;
    }
    if (peek(p) == 'e' || peek(p) == 'E') {
        p->at++;
        if (peek(p) == '+' || peek(p) == '-') p->at++;
        if (!digits(p)) return fail(p, p->at, "expected a digit in the exponent"), false;
    }
    *number = strtod_l(p->text + start, NULL, p->c_locale);
    if (!isfinite(*number)) return fail(p, start, "number out of range"), false;
    return true;
}

static bool literal(struct parser *p, const char *word) {
    size_t length = strlen(word);
    if (p->length - p->at < length || memcmp(p->text + p->at, word, length) != 0)
        return fail(p, p->at, "expected a value"), false;
    p->at += length;
    return true;
}

static struct json *parse_value(struct parser *p, int depth);

static bool parse_list(struct parser *p, struct json *list, int depth) {
    bool object = list->type == JSON_OBJECT;
    char close = object ? '}' : ']';
    struct json **tail = &list->as.list.first;
    p->at++;
    skip_space(p);
    if (peek(p) == close) {
        p->at++;
        return true;
    }
    for (;;) {
        const char *key = NULL;
        skip_space(p);
        if (object) {
            if (peek(p) != '"') return fail(p, p->at, "expected a key in quotes"), false;
            if (!(key = parse_string(p))) return false;
            skip_space(p);
            if (peek(p) != ':') return fail(p, p->at, "expected ':' after a key"), false;
            p->at++;
        }
        struct json *value = parse_value(p, depth + 1);
        if (!value) return false;
        value->key = key;
        *tail = value;
        tail = &value->next;
        list->as.list.count++;
        skip_space(p);
        int c = peek(p);
        if (c != ',' && c != close)
            return fail(p, p->at, object ? "expected ',' or '}'" : "expected ',' or ']'"), false;
        p->at++;
        if (c == close) return true;
    }
}

static struct json *parse_value(struct parser *p, int depth) {
    skip_space(p);
    if (depth > MAX_DEPTH) return fail(p, p->at, "nested too deeply");
    struct json *value = allocate(p, sizeof *value);
    if (!value) return NULL;
    memset(value, 0, sizeof *value);
    value->offset = p->at;
    bool ok;
    switch (peek(p)) {
    case -1:
        return fail(p, p->at, "the text ends where a value is expected");
    case '{':
        value->type = JSON_OBJECT;
        ok = parse_list(p, value, depth);
        break;
    case '[':
        value->type = JSON_ARRAY;
        ok = parse_list(p, value, depth);
        break;
    case '"':
        value->type = JSON_STRING;
        ok = (value->as.string = parse_string(p)) != NULL;
        break;
    case 't':
        value->type = JSON_BOOL;
        value->as.boolean = true;
        ok = literal(p, "true");
        break;
    case 'f':
        value->type = JSON_BOOL;
        ok = literal(p, "false");
        break;
    case 'n':
        ok = literal(p, "null");
        break;
    default:
        value->type = JSON_NUMBER;
        ok = parse_number(p, &value->as.number);
    }
    return ok ? value : NULL;
}

bool json_parse(const char *text, size_t length, struct json_document *document,
                struct json_error *error) {
    *document = (struct json_document){0};
    struct parser p = {.text = text, .length = length, .document = document, .error = error};
    p.c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    document->root = parse_value(&p, 0);
    skip_space(&p);
    if (document->root && p.at < length) {
        fail(&p, p.at, "unexpected text after the end of the document");
    }
    freelocale(p.c_locale);
    if (!p.failed) return true;
    json_free(document);
    return false;
}

void json_free(struct json_document *document) {
    while (document->blocks) {
        struct json_block *next = document->blocks->next;
        free(document->blocks);
        document->blocks = next;
    }
    document->root = NULL;
}

const struct json *json_member(const struct json *object, const char *key) {
    const struct json *found = NULL;
    if (!object || object->type != JSON_OBJECT) return NULL;
    for (const struct json *m = object->as.list.first; m; m = m->next)
        if (strcmp(m->key, key) == 0) found = m;
    return found;
}

const char *json_type_name(enum json_type type) {
    static const char *const names[] = {"null", "a boolean", "a number",
                                        "a string", "an array", "an object"};
    return names[type];
}
