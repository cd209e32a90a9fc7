/* What the library says on stderr. */
#ifndef NVML_SIM_MESSAGE_H
#define NVML_SIM_MESSAGE_H

/* Prints "nvml_sim: " and the line in one piece. */
void message_print(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
