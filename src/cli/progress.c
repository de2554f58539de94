/* Owns one line of the terminal while a bar is visible. Invariant: a visible bar is the last thing on standard error.
 */
#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/strings.h"
#include "os/clock.h"

enum { BAR_COLUMNS = 30 };
static const uint64_t redraw_ns = 100000000;

void sl_progress_init(sl_progress *progress, const sl_console *console, const char *label)
{
    *progress = (sl_progress){.enabled = console->error_is_terminal, .label = label};
}

void sl_progress_show(sl_progress *progress, uint64_t done, uint64_t total, const char *unit)
{
    uint64_t now_ns = sl_clock_ns();
    bool is_due = !progress->visible || now_ns - progress->drawn_ns >= redraw_ns;
    if (!progress->enabled || total == 0 || !is_due) {
        return;
    }
    double share = done < total ? (double)done / (double)total : 1.0;
    char bar[BAR_COLUMNS + 1];
    for (int i = 0; i < BAR_COLUMNS; i++) {
        bar[i] = i < (int)(share * BAR_COLUMNS) ? '#' : '.';
    }
    bar[BAR_COLUMNS] = '\0';
    char amounts[80];
    if (unit == NULL) {
        char done_text[24];
        char total_text[24];
        snprintf(amounts, sizeof amounts, "%s of %s", sl_format_size(done, done_text, sizeof done_text),
                 sl_format_size(total, total_text, sizeof total_text));
    } else {
        snprintf(amounts, sizeof amounts, "%" PRIu64 " of %" PRIu64 " %s", done, total, unit);
    }
    (void)fprintf(stderr, "\r%s [%s] %3.0f %%  %s\033[K", progress->label, bar, share * 100.0, amounts);
    (void)fflush(stderr);
    progress->visible = true;
    progress->drawn_ns = now_ns;
}

void sl_progress_clear(sl_progress *progress)
{
    if (progress->visible) {
        (void)fprintf(stderr, "\r\033[K");
        (void)fflush(stderr);
        progress->visible = false;
    }
}
