/* Reading the text files of /proc and /sys. */
#ifndef SL_OS_KERNEL_TEXT_H
#define SL_OS_KERNEL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SL_KERNEL_PATH_BYTES = 4096,
    SL_KERNEL_LINE_BYTES = 8192 /* longer lines are skipped whole */
};

/* Reads a text file line by line. thread: owner only. */
typedef struct sl_kernel_text {
    int descriptor; /* owned; -1 when the file could not be opened */
    size_t begin, end;
    bool skipping; /* inside a line that did not fit */
    char buffer[SL_KERNEL_LINE_BYTES];
} sl_kernel_text;

/* `root` is put before `path`, "" for the real machine. A file that cannot be opened has no lines. */
void sl_kernel_text_open(sl_kernel_text *text, const char *root, const char *path);
void sl_kernel_text_close(sl_kernel_text *text);
/* The next line without its newline, NUL-terminated, valid until the next call; NULL at the end. */
char *sl_kernel_text_line(sl_kernel_text *text);

/* Digits, nothing else before them but blanks. false when there are none or they overflow. `end` (may be NULL) receives
 * what follows them. */
bool sl_kernel_text_number(const char *text, uint64_t *value, const char **end);
/* The number after `key` in the file at `path`; false when there is none. */
bool sl_kernel_text_find(const char *root, const char *path, const char *key, uint64_t *value);

#endif
