/* Which time it is on the card. Times are ns of a CLOCK_MONOTONIC that a test may step. */
#ifndef NVML_SIM_CLOCK_H
#define NVML_SIM_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads NVML_SIM_T0 and NVML_SIM_CLOCK. Without NVML_SIM_T0 time zero is the process' first
 * open and stays so. False and a reason when one of the two is not usable. */
bool clock_open(char *reason, size_t reason_size);
void clock_close(void);

/* Whether time stands still but for a test's steps. */
bool clock_is_stepped(void);
int64_t clock_now_ns(void);
/* The same, counted from time zero. */
int64_t clock_elapsed_ns(void);
/* A stamp as clock_now_ns gives it, in ns from time zero. */
int64_t clock_elapsed_of_ns(int64_t monotonic_ns);
/* Wall clock (CLOCK_REALTIME, us) of a moment given in ns from time zero. */
int64_t clock_wall_us(int64_t elapsed_ns);
#endif
