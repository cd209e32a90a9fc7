#include "tail.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool tail_open(struct tail *tail, const char *path) {
    *tail = (struct tail){0};
    tail->path = strdup(path);
    return tail->path != NULL;
}

void tail_close(struct tail *tail) {
    free(tail->path);
    *tail = (struct tail){0};
}

static void forget(struct tail *tail, const struct tail_reader *reader) {
    tail->seen = false;
    tail->offset = 0;
    reader->restart(reader->context);
}

/* Reads [offset, size) and hands on its whole lines. */
static void read_lines(struct tail *tail, int fd, off_t size, const struct tail_reader *reader) {
    size_t wanted = (size_t)(size - tail->offset);
    char *text = malloc(wanted + 1);
    if (!text) return;
    ssize_t got = pread(fd, text, wanted, tail->offset);
    size_t length = got > 0 ? (size_t)got : 0;
    size_t start = 0;
    for (char *end; (end = memchr(text + start, '\n', length - start)) != NULL;) {
        *end = 0;
        reader->line(reader->context, text + start);
        start = (size_t)(end - text) + 1;
    }
    tail->offset += (off_t)start;
    free(text);
}

void tail_poll(struct tail *tail, const struct tail_reader *reader) {
    struct stat status;
    if (!tail->path) return;
    if (stat(tail->path, &status) != 0 || !S_ISREG(status.st_mode)) {
        if (tail->seen) forget(tail, reader);
        return;
    }
    bool other = status.st_dev != tail->device || status.st_ino != tail->inode;
    if (tail->seen && (other || status.st_size < tail->offset)) forget(tail, reader);
    if (tail->seen && status.st_size == tail->offset) return;
    int fd = open(tail->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (fstat(fd, &status) == 0) {
        tail->seen = true;
        tail->device = status.st_dev;
        tail->inode = status.st_ino;
        if (status.st_size > tail->offset) read_lines(tail, fd, status.st_size, reader);
    }
    close(fd);
}
