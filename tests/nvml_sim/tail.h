/* Follows a text file that other processes append lines to. */
#ifndef NVML_SIM_TAIL_H
#define NVML_SIM_TAIL_H

#include <stdbool.h>
#include <sys/types.h>

struct tail {
    char *path;
    bool seen;
    dev_t device;
    ino_t inode;
    off_t offset;
};

struct tail_reader {
    void (*line)(void *context, char *text); /* one whole line, its newline cut off */
    void (*restart)(void *context); /* the file was replaced, shortened or removed */
    void *context;
};

bool tail_open(struct tail *tail, const char *path);
void tail_close(struct tail *tail);
/* Hands on the lines that are new since the last call; a line without its newline waits. */
void tail_poll(struct tail *tail, const struct tail_reader *reader);

#endif
