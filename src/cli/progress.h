/* A progress bar on standard error, where that is a terminal; nothing otherwise. */
#ifndef SL_CLI_PROGRESS_H
#define SL_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/console.h"

/* thread: the main thread only. */
typedef struct sl_progress {
    bool enabled;
    bool visible;
    const char *label; /* borrowed */
    uint64_t drawn_ns; /* clock of the last drawing */
} sl_progress;

void sl_progress_init(sl_progress *progress, const sl_console *console, const char *label);
/* Draw, at most ten times a second. `unit` NULL: done and total are bytes. */
void sl_progress_show(sl_progress *progress, uint64_t done, uint64_t total, const char *unit);
/* Take the bar away again. */
void sl_progress_clear(sl_progress *progress);

#endif
