/* Owns nothing: formats sentences into the caller's sluice_error. Safe from any thread. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *sluice_status_name(sluice_status status)
{
    switch (status) {
    case SLUICE_OK: return "ok";
    case SLUICE_ERROR_ARGUMENT: return "argument";
    case SLUICE_ERROR_NO_MEMORY: return "no memory";
    case SLUICE_ERROR_BUDGET: return "budget";
    case SLUICE_ERROR_IO: return "io";
    case SLUICE_ERROR_FORMAT: return "format";
    case SLUICE_ERROR_UNSUPPORTED: return "unsupported";
    case SLUICE_ERROR_NOT_FOUND: return "not found";
    case SLUICE_ERROR_CANCELLED: return "cancelled";
    case SLUICE_ERROR_SYSTEM: return "system";
    case SLUICE_ERROR_CHANGED: return "changed";
    }
    return "unknown";
}

static void fill(sluice_error *error, sluice_status status, int system_errno, const char *format, va_list arguments)
{
    error->status = status;
    error->system_errno = system_errno;
    vsnprintf(error->message, sizeof error->message, format, arguments);
}

sluice_status sl_error_set(sluice_error *error, sluice_status status, const char *format, ...)
{
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        fill(error, status, 0, format, arguments);
        va_end(arguments);
    }
    return status;
}

sluice_status sl_error_set_system(sluice_error *error, sluice_status status, int system_errno, const char *format, ...)
{
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        fill(error, status, system_errno, format, arguments);
        va_end(arguments);
        size_t used = strlen(error->message);
        char reason[128];
        snprintf(error->message + used, sizeof error->message - used, ": %s",
                 strerror_r(system_errno, reason, sizeof reason));
    }
    return status;
}

sluice_status sl_error_no_memory(sluice_error *error, unsigned long long bytes, const char *what)
{
    return sl_error_set(error, SLUICE_ERROR_NO_MEMORY,
                        "out of memory: the system refused %llu bytes for %s; close other programs or use a smaller "
                        "--ctx or --mem",
                        bytes, what);
}
