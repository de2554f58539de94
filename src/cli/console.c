/* Owns the use of standard output and standard error.
 *
 * Invariants: (1) standard output carries results only; (2) no byte that a terminal would obey reaches one, save
 * newlines and tabs; (3) the first failed write is remembered and none follows it. */
#include "cli/console.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void sl_console_init(sl_console *console)
{
    *console =
        (sl_console){.out_is_terminal = isatty(STDOUT_FILENO) == 1, .error_is_terminal = isatty(STDERR_FILENO) == 1};
    sl_memory_init(&console->memory, NULL);
}

size_t sl_utf8_length(const char *bytes, size_t length)
{
    if (length == 0) {
        return 0;
    }
    unsigned char first = (unsigned char)bytes[0];
    size_t n_bytes = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (n_bytes > length) {
        return 0;
    }
    for (size_t i = 1; i < n_bytes; i++) {
        if (((unsigned char)bytes[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if (n_bytes >= 3) {
        unsigned char second = (unsigned char)bytes[1];
        bool is_overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
        bool is_surrogate = first == 0xed && second >= 0xa0;
        bool is_beyond = first == 0xf4 && second >= 0x90;
        if (is_overlong || is_surrogate || is_beyond) {
            return 0;
        }
    }
    return n_bytes;
}

/* Control characters are C0, DEL and, as U+0080 to U+009F, C1. */
static bool is_control(const char *bytes, size_t n_bytes)
{
    unsigned char first = (unsigned char)bytes[0];
    return first < 0x20 || first == 0x7f || (n_bytes == 2 && first == 0xc2 && (unsigned char)bytes[1] < 0xa0);
}

bool sl_text_append_escaped(sl_text *text, const char *bytes, size_t length, bool keep_lines)
{
    size_t step;
    for (size_t i = 0; i < length; i += step) {
        size_t n_bytes = sl_utf8_length(bytes + i, length - i);
        step = n_bytes > 0 ? n_bytes : 1;
        bool is_line = bytes[i] == '\n' || bytes[i] == '\t';
        bool done;
        if (n_bytes > 0 && (!is_control(bytes + i, n_bytes) || (is_line && keep_lines))) {
            done = sl_text_append(text, bytes + i, n_bytes);
        } else if (is_line) {
            done = sl_text_append(text, bytes[i] == '\n' ? "\\n" : "\\t", 2);
        } else {
            done = sl_text_format(text, "\\x%02x", (unsigned char)bytes[i + step - 1]);
        }
        if (!done) {
            return false;
        }
    }
    return true;
}

static void write_out(sl_console *console, const char *bytes, size_t length)
{
    if (console->write_errno == 0 && length > 0 && fwrite(bytes, 1, length, stdout) != length) {
        console->write_errno = errno != 0 ? errno : EIO;
    }
}

void sl_console_print(sl_console *console, const char *format, ...)
{
    if (console->write_errno != 0) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    if (vfprintf(stdout, format, arguments) < 0) {
        console->write_errno = errno != 0 ? errno : EIO;
    }
    va_end(arguments);
}

void sl_console_print_escaped(sl_console *console, const char *bytes, size_t length)
{
    sl_text text;
    sl_text_init(&text, &console->memory, SL_MEMORY_OTHER);
    if (sl_text_append_escaped(&text, bytes, length, false)) {
        write_out(console, text.data, text.length);
    } else {
        console->write_errno = ENOMEM;
    }
    sl_text_fini(&text);
}

void sl_console_stream(sl_console *console, const char *bytes, size_t length)
{
    if (!console->out_is_terminal) {
        write_out(console, bytes, length);
    } else {
        sl_text text;
        sl_text_init(&text, &console->memory, SL_MEMORY_OTHER);
        if (sl_text_append_escaped(&text, bytes, length, true)) {
            write_out(console, text.data, text.length);
        } else {
            console->write_errno = ENOMEM;
        }
        sl_text_fini(&text);
    }
    if (console->write_errno == 0 && fflush(stdout) != 0) {
        console->write_errno = errno;
    }
}

void sl_console_say(const char *format, ...)
{
    char line[1200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_text text;
    sl_text_init(&text, &memory, SL_MEMORY_OTHER);
    /* One call, so that lines of several threads stay whole. */
    if (sl_text_append_escaped(&text, line, strlen(line), true)) {
        (void)fprintf(stderr, "sluice: %s\n", text.data != NULL ? text.data : "");
    }
    sl_text_fini(&text);
}

int sl_console_finish(sl_console *console, int exit_status)
{
    if (console->write_errno == 0 && fflush(stdout) != 0) {
        console->write_errno = errno;
    }
    if (console->write_errno == 0) {
        return exit_status;
    }
    if (console->write_errno == EPIPE) {
        sl_console_say("standard output: the reader closed the pipe before everything was written");
    } else {
        char reason[128];
        sl_console_say("standard output: cannot write: %s", strerror_r(console->write_errno, reason, sizeof reason));
    }
    return SL_EXIT_FAILURE;
}
