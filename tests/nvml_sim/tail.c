#include "tail.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void tail_open(struct tail *tail, const char *path) {
    *tail = (struct tail){.path = strdup(path)};
}

void tail_close(struct tail *tail) {
    free(tail->path);
    *tail = (struct tail){0};
}

void tail_poll(struct tail *tail, void (*take)(void *context, char *text), void *context) {
    struct stat status;
    if (!tail->path || stat(tail->path, &status) != 0 || status.st_size <= tail->offset) return;
    int fd = open(tail->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    size_t wanted = (size_t)(status.st_size - tail->offset), start = 0;
    char *text = malloc(wanted);
    ssize_t got = text ? pread(fd, text, wanted, tail->offset) : 0;
    size_t length = got > 0 ? (size_t)got : 0;
    for (char *end; length && (end = memchr(text + start, '\n', length - start)) != NULL;) {
        *end = 0;
        take(context, text + start);
        start = (size_t)(end - text) + 1;
    }
    tail->offset += (off_t)start;
    free(text);
    close(fd);
}
