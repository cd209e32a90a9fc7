/* Follows a text file that other processes append lines to. */
#ifndef NVML_SIM_TAIL_H
#define NVML_SIM_TAIL_H

#include <sys/types.h>

struct tail {
    char *path; /* NULL: there is none */
    off_t offset;
};

void tail_open(struct tail *tail, const char *path);
void tail_close(struct tail *tail);
/* Hands on the lines that are new since the last call, their newlines cut off; a line without one waits. */
void tail_poll(struct tail *tail, void (*take)(void *context, char *text), void *context);

#endif
