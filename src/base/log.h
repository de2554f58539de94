/* Log lines go to a function the caller supplies; without one they go nowhere. */
#ifndef SL_BASE_LOG_H
#define SL_BASE_LOG_H

#include "base/error.h"

/* Levels say how often a line can appear, not how bad it is, save for the first two. */
typedef enum sl_log_level {
    SL_LOG_ERROR,
    SL_LOG_WARNING, /* something falls back or looks wrong */
    SL_LOG_INFO,    /* once per process or model */
    SL_LOG_DEBUG,   /* once per request */
    SL_LOG_TRACE    /* once per token or layer */
} sl_log_level;

/* thread: immutable after set-up; `write` may be called from any thread. */
typedef struct sl_log {
    void (*write)(void *user, sl_log_level level, const char *line); /* NULL: silent */
    void *user;                                                      /* borrowed */
    sl_log_level level;                                              /* lines above it are dropped */
} sl_log;

/* `log` may be NULL. The line carries no newline and is cut at 1 KiB. */
void sl_log_line(const sl_log *log, sl_log_level level, const char *format, ...) SL_PRINTF(3, 4);

#endif
