#include "message.h"

#include <stdarg.h>
#include <stdio.h>

void message_print(const char *format, ...) {
    char line[5000];
    va_list values;
    va_start(values, format);
    vsnprintf(line, sizeof line, format, values);
    va_end(values);
    fprintf(stderr, "nvml_sim: %s\n", line);
}
