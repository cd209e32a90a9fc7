#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Keeps every difference of two times inside int64. */
#define LIMIT_NS ((int64_t)4000000000000000000)

static int64_t t0_ns;
static int64_t first_open_ns;
static bool opened_before;
static long double speed = 1;
static const int64_t *stepped; /* the mapped file, or NULL */
static int64_t wall_minus_monotonic_ns;

static int64_t read_clock_ns(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t bounded(long double ns) {
    if (ns > (long double)LIMIT_NS) return LIMIT_NS;
    if (ns < -(long double)LIMIT_NS) return -LIMIT_NS;
    return (int64_t)floorl(ns);
}

static bool open_stepped(const char *path, char *reason, size_t size) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        snprintf(reason, size,
                 "NVML_SIM_CLOCK=%s: neither xN (a speed, as x10) nor a readable file (%s)", path,
                 strerror(errno));
        return false;
    }
    if (fstat(fd, &status) != 0 || status.st_size < (off_t)sizeof *stepped) {
        snprintf(reason, size, "NVML_SIM_CLOCK=%s: the file must hold 8 bytes (int64 ns)", path);
        close(fd);
        return false;
    }
    void *map = mmap(NULL, sizeof *stepped, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) {
        snprintf(reason, size, "NVML_SIM_CLOCK=%s: cannot map it (%s)", path, strerror(errno));
        return false;
    }
    stepped = map;
    return true;
}

static bool open_clock(char *reason, size_t size) {
    const char *value = getenv("NVML_SIM_CLOCK");
    clock_close();
    if (!value || !*value) return true;
    if (value[0] == 'x') {
        char *end;
        double factor = strtod(value + 1, &end);
        if (end != value + 1 && !*end && factor > 0 && factor <= 1e6) {
            speed = factor;
            return true;
        }
    }
    return open_stepped(value, reason, size);
}

static bool open_zero(char *reason, size_t size) {
    const char *value = getenv("NVML_SIM_T0");
    if (!opened_before) {
        /* read through a speed of 1: elapsed time is nil at time zero */
        first_open_ns = stepped ? __atomic_load_n(stepped, __ATOMIC_ACQUIRE)
                                : read_clock_ns(CLOCK_MONOTONIC);
        first_open_ns = bounded((long double)first_open_ns);
        opened_before = true;
    }
    t0_ns = first_open_ns;
    if (!value || !*value) return true;
    char *end;
    errno = 0;
    long long given = strtoll(value, &end, 10);
    if (errno || *end || given > LIMIT_NS || given < -LIMIT_NS) {
        snprintf(reason, size, "NVML_SIM_T0=%s: not a whole number of ns", value);
        return false;
    }
    t0_ns = given;
    return true;
}

bool clock_open(char *reason, size_t reason_size) {
    if (!open_clock(reason, reason_size) || !open_zero(reason, reason_size)) {
        clock_close();
        return false;
    }
    wall_minus_monotonic_ns = read_clock_ns(CLOCK_REALTIME) - clock_now_ns();
    return true;
}

void clock_close(void) {
    if (stepped) munmap((void *)stepped, sizeof *stepped);
    stepped = NULL;
    speed = 1;
}

bool clock_is_stepped(void) {
    return stepped != NULL;
}

int64_t clock_elapsed_of_ns(int64_t monotonic_ns) {
    long double elapsed = (long double)monotonic_ns - t0_ns;
    return bounded(stepped ? elapsed : elapsed * speed);
}

int64_t clock_elapsed_ns(void) {
    if (stepped) return clock_elapsed_of_ns(__atomic_load_n(stepped, __ATOMIC_ACQUIRE));
    return clock_elapsed_of_ns(read_clock_ns(CLOCK_MONOTONIC));
}

static int64_t simulated_ns(int64_t elapsed_ns) {
    return bounded((long double)t0_ns + elapsed_ns);
}

int64_t clock_elapsed_of_simulated_ns(int64_t simulated) {
    return bounded((long double)simulated - t0_ns);
}

int64_t clock_now_ns(void) {
    return simulated_ns(clock_elapsed_ns());
}

int64_t clock_wall_us(int64_t elapsed_ns) {
    return bounded((long double)simulated_ns(elapsed_ns) + wall_minus_monotonic_ns) / 1000;
}
