#include "message.h"

#include <stdarg.h>
#include <stdio.h>

const char *message_excerpt(char *out, size_t size, const char *text) {
    size_t i = 0;
    for (; i + 1 < size && text[i]; i++)
        out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    out[i] = 0;
    return out;
}

void message_print(const char *format, ...) {
    char line[5000];
    va_list values;
    va_start(values, format);
    vsnprintf(line, sizeof line, format, values);
    va_end(values);
    fprintf(stderr, "nvml_sim: %s\n", line);
}
