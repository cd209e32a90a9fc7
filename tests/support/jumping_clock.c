/* Clocks that can be set, for one process tree: preloaded before libc, it adds to what
 * CLOCK_REALTIME shows the seconds that stand in the file $JUMPING_CLOCK, and to CLOCK_BOOTTIME
 * those in $JUMPING_BOOT_CLOCK. CLOCK_MONOTONIC, and all else, is the system's own; but a lock is
 * waited for by CLOCK_REALTIME, as Python does it where libc has no sem_clockwait (glibc < 2.30). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead_s(const char *variable) {
    const char *path = getenv(variable);
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    char text[32] = "0";
    if (file >= 0) {
        ssize_t got = read(file, text, sizeof text - 1);
        text[got > 0 ? got : 0] = '\0';
        close(file);
    }
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (code == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += ahead_s("JUMPING_CLOCK");
    if (code == 0 && clock == CLOCK_BOOTTIME)
        now->tv_sec += ahead_s("JUMPING_BOOT_CLOCK");
    return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec found;
    int code = clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return code;
}

time_t time(time_t *where) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (where)
        *where = found.tv_sec;
    return found.tv_sec;
}

static long long ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int sem_clockwait(sem_t *restrict lock, clockid_t clock, const struct timespec *restrict until) {
    static int (*real)(sem_t *, clockid_t, const struct timespec *);
    if (!real)
        real = (int (*)(sem_t *, clockid_t, const struct timespec *))dlsym(RTLD_NEXT, "sem_clockwait");
    long long end = until->tv_sec * 1000000000LL + until->tv_nsec + ns(CLOCK_REALTIME) - ns(clock);
    for (;;) {
        long long left = end - ns(CLOCK_REALTIME);
        long long next = ns(clock) + (left < 2000000 ? left : 2000000);
        struct timespec soon = {next / 1000000000, next % 1000000000};
        int code = real(lock, clock, &soon);
        if (code == 0 || errno != ETIMEDOUT || left <= 2000000)
            return code;
    }
}
