/* Standard output and standard error: results, sentences, and what a terminal may be sent. */
#ifndef SL_CLI_CONSOLE_H
#define SL_CLI_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/strings.h"

/* Exit statuses of the program. */
enum { SL_EXIT_OK = 0, SL_EXIT_FAILURE = 1, SL_EXIT_USAGE = 2 };

/* thread: the main thread only, but for sl_console_say. */
typedef struct sl_console {
    sl_memory memory; /* account of everything the command line allocates itself */
    bool out_is_terminal;
    bool error_is_terminal;
    int write_errno; /* of the first write to standard output that failed, or 0 */
} sl_console;

void sl_console_init(sl_console *console);

/* Results. After a failed write these do nothing; sl_console_finish reports it. */
void sl_console_print(sl_console *console, const char *format, ...) SL_PRINTF(2, 3);
/* Bytes of unknown origin: as they are into a file or pipe, made harmless on a terminal. Sent at once. */
void sl_console_stream(sl_console *console, const char *bytes, size_t length);
/* Bytes of unknown origin inside a line of a listing: control characters are always escaped. */
void sl_console_print_escaped(sl_console *console, const char *bytes, size_t length);

/* One sentence on standard error, "sluice: " before it; control characters are escaped. Any thread. */
void sl_console_say(const char *format, ...) SL_PRINTF(1, 2);

/* Flush standard output. `exit_status`, or failure with a sentence when a write failed. */
int sl_console_finish(sl_console *console, int exit_status);

/* The length of the UTF-8 character that starts here; 0 when it is not valid UTF-8. */
size_t sl_utf8_length(const char *bytes, size_t length);

/* Append `bytes` with control characters and invalid UTF-8 written as \n, \t or \x1b; `keep_lines` leaves newlines and
 * tabs. */
SLUICE_NODISCARD bool sl_text_append_escaped(sl_text *text, const char *bytes, size_t length, bool keep_lines);

#endif
