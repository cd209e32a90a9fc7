#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int64_t t0_ns;
static int64_t first_open_ns;
static bool opened_before;
static const int64_t *stepped; /* the mapped file, or NULL */
static int64_t wall_minus_monotonic_ns;

static int64_t read_clock_ns(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The file must hold 8 bytes, and is not to be shortened. */
static bool open_stepped(const char *path) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    errno = EINVAL;
    bool fits = fstat(fd, &status) == 0 && status.st_size >= (off_t)sizeof *stepped;
    void *map = fits ? mmap(NULL, sizeof *stepped, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    stepped = map == MAP_FAILED ? NULL : map;
    return stepped != NULL;
}

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

bool clock_open(char *reason, size_t reason_size) {
    const char *file = variable("NVML_SIM_CLOCK"), *zero = variable("NVML_SIM_T0");
    char *end = "";
    if (file && !open_stepped(file)) {
        snprintf(reason, reason_size, "NVML_SIM_CLOCK=%s: %s", file, strerror(errno));
        return false;
    }
    if (!opened_before) first_open_ns = clock_now_ns();
    opened_before = true;
    t0_ns = zero ? strtoll(zero, &end, 10) : first_open_ns;
    wall_minus_monotonic_ns = read_clock_ns(CLOCK_REALTIME) - clock_now_ns();
    if (!*end) return true;
    snprintf(reason, reason_size, "NVML_SIM_T0=%s: not a whole number of ns", zero);
    clock_close();
    return false;
}

void clock_close(void) {
    if (stepped) munmap((void *)stepped, sizeof *stepped);
    stepped = NULL;
}

bool clock_is_stepped(void) {
    return stepped != NULL;
}

int64_t clock_now_ns(void) {
    return stepped ? __atomic_load_n(stepped, __ATOMIC_ACQUIRE) : read_clock_ns(CLOCK_MONOTONIC);
}

int64_t clock_elapsed_of_ns(int64_t monotonic_ns) {
    return monotonic_ns - t0_ns;
}

int64_t clock_elapsed_ns(void) {
    return clock_elapsed_of_ns(clock_now_ns());
}

int64_t clock_wall_us(int64_t elapsed_ns) {
    return (t0_ns + elapsed_ns + wall_minus_monotonic_ns) / 1000;
}
