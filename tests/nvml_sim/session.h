/* The library between nvmlInit and nvmlShutdown: the loaded trace, handles, and the one lock. */
#ifndef NVML_SIM_SESSION_H
#define NVML_SIM_SESSION_H

#include "device.h"
#include "nvml_abi.h"
#include "trace.h"

nvmlReturn_t session_init(void);
nvmlReturn_t session_shutdown(void);

/* Enter takes the lock; on any answer but NVML_SUCCESS it is not held. Each success needs a leave. */
nvmlReturn_t session_enter(struct trace **trace);
void session_leave(void);
/* Inside a session only. */
struct trace *session_trace(void);

/* A call on a card. `function` is the NVML function's name. A lost card, a function the trace declares
 * unsupported and a MIG handle are answered here; a call that takes its time waits here, without the lock. */
nvmlReturn_t session_enter_device(nvmlDevice_t handle, const char *function, enum call_kind kind,
                                  struct device **device);
/* The same for the calls a MIG device answers as well; *mig is 0 for a whole card, else
 * the number of its MIG device. */
nvmlReturn_t session_enter_any(nvmlDevice_t handle, const char *function, enum call_kind kind,
                               struct device **device, unsigned *mig);
/* Handle of a card, or of its MIG device number `mig`, from 1. */
nvmlDevice_t session_handle(const struct device *device, unsigned mig);
/* NVML_ERROR_NOT_SUPPORTED where the trace names the function, or the number of a field. */
nvmlReturn_t session_check_supported(const struct device *device, const char *function);
/* Inside a session: NVML_ERROR_GPU_IS_LOST once the card has failed. */
nvmlReturn_t session_check_lost(const struct device *device);

/* Simulated seconds from time zero. */
double session_now_s(void);

#endif
