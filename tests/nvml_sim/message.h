/* What the library says on stderr: one line each, whatever a file may hold. */
#ifndef NVML_SIM_MESSAGE_H
#define NVML_SIM_MESSAGE_H

#include <stddef.h>

/* Copies the start of a text found in a file, with '?' for all that is not printable ASCII. */
const char *message_excerpt(char *out, size_t size, const char *text);
/* Prints "nvml_sim: " and the line in one piece. */
void message_print(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
