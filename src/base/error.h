/* Filling in a sluice_error, and forwarding a failed status. */
#ifndef SL_BASE_ERROR_H
#define SL_BASE_ERROR_H

#include "sluice/errors.h"

#define SL_PRINTF(format_index, first_argument) __attribute__((format(printf, format_index, first_argument)))

/* Write the sentence into `error` (may be NULL) and return `status`, so a failing function can
 * `return sl_error_set(error, SLUICE_ERROR_FORMAT, "%s: ...", path)`. Truncates at the buffer's end. */
sluice_status sl_error_set(sluice_error *error, sluice_status status, const char *format, ...) SL_PRINTF(3, 4);

/* The same, with ": " and the text of `system_errno` appended. */
sluice_status sl_error_set_system(sluice_error *error, sluice_status status, int system_errno, const char *format, ...)
    SL_PRINTF(4, 5);

/* "out of memory: <bytes> bytes for <what>" with SLUICE_ERROR_NO_MEMORY. */
sluice_status sl_error_no_memory(sluice_error *error, unsigned long long bytes, const char *what);

/* Forward a failure to the caller. Only where nothing needs cleaning up. */
#define SL_TRY(expression)                                                                                             \
    do {                                                                                                               \
        sluice_status sl_try_status = (expression);                                                                    \
        if (sl_try_status != SLUICE_OK) {                                                                              \
            return sl_try_status;                                                                                      \
        }                                                                                                              \
    } while (0)

#endif
