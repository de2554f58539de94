/* Owns the descriptor while it reads. */
#include "cli/input.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/interrupt.h"

static sluice_status read_all(sl_text *text, int descriptor, const char *path, sluice_error *error)
{
    char buffer[65536];
    for (;;) {
        ssize_t got = read(descriptor, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR && !sl_interrupt_caught()) {
            continue;
        }
        if (got < 0 && errno == EINTR) {
            return sl_error_set(error, SLUICE_ERROR_CANCELLED, "%s: stopped by a signal while reading", path);
        }
        if (got < 0) {
            return sl_error_set_system(error, SLUICE_ERROR_IO, errno, "%s: cannot read", path);
        }
        if (got == 0) {
            return SLUICE_OK;
        }
        if (!sl_text_append(text, buffer, (size_t)got)) {
            return sl_error_no_memory(error, text->length + (size_t)got, "the text");
        }
    }
}

sluice_status sl_input_read_file(sl_text *text, const char *path, sluice_error *error)
{
    if (strcmp(path, "-") == 0) {
        return read_all(text, STDIN_FILENO, "standard input", error);
    }
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (descriptor < 0) {
        return sl_error_set_system(error, errno == ENOENT ? SLUICE_ERROR_NOT_FOUND : SLUICE_ERROR_IO, errno,
                                   "%s: cannot open the text file", path);
    }
    struct stat information;
    sluice_status status;
    if (fstat(descriptor, &information) == 0 && S_ISDIR(information.st_mode)) {
        status = sl_error_set(error, SLUICE_ERROR_IO, "%s: expected a text file, found a directory", path);
    } else {
        status = read_all(text, descriptor, path, error);
    }
    close(descriptor);
    return status;
}

sluice_status sl_input_read(sl_text *text, const sl_options *options, sluice_error *error)
{
    if (sl_options_given(options, SL_OPTION_FILE)) {
        return sl_input_read_file(text, sl_options_text(options, SL_OPTION_FILE), error);
    }
    const char *prompt = sl_options_text(options, SL_OPTION_PROMPT);
    if (prompt != NULL) {
        return sl_text_append(text, prompt, strlen(prompt)) ? SLUICE_OK
                                                            : sl_error_no_memory(error, strlen(prompt), "the text");
    }
    if (isatty(STDIN_FILENO) == 1) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "there is no text: give -p TEXT or -f FILE, or send it on standard input");
    }
    return sl_input_read_file(text, "-", error);
}
