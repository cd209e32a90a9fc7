/* Shared by the files that hold NVML's functions. */
#ifndef NVML_SIM_API_H
#define NVML_SIM_API_H

#include "clock.h"
#include "session.h"
#include "state.h"

nvmlReturn_t copy_text(char *out, unsigned size, const char *text);

/* The body of an NVML function that answers from a card: the lock is taken on the way in and let go
 * after the statement(s) in `...`, which may use `device` and set `answer`. */
#define ON_DEVICE_CALL(kind, handle, usable, ...)                                     \
    do {                                                                              \
        struct device *device;                                                        \
        if (!(usable)) return NVML_ERROR_INVALID_ARGUMENT;                            \
        nvmlReturn_t answer = session_enter_device((handle), __func__, (kind), &device); \
        if (answer != NVML_SUCCESS) return answer;                                    \
        __VA_ARGS__;                                                                  \
        session_leave();                                                              \
        return answer;                                                                \
    } while (0)

#define ON_DEVICE(handle, usable, ...) ON_DEVICE_CALL(CALL_OTHER, handle, usable, __VA_ARGS__)

#endif
