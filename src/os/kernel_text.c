/* Owns nothing but an open descriptor and a buffer inside the caller's struct.
 *
 * Invariants
 *  (1) Nothing is allocated.
 *  (2) A file that is missing or unreadable has no lines; a line that does not fit is skipped whole.
 *  (3) [begin, end) of the buffer is read and not yet handed out; one byte is kept for the NUL.
 * Threads: any; each struct by its owner only. */
#include "os/kernel_text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void sl_kernel_text_open(sl_kernel_text *text, const char *root, const char *path)
{
    char full[2 * SL_KERNEL_PATH_BYTES];
    int length = snprintf(full, sizeof full, "%s%s", root, path);
    text->descriptor = -1;
    text->begin = 0;
    text->end = 0;
    text->skipping = false;
    if (length > 0 && (size_t)length < sizeof full) {
        text->descriptor = open(full, O_RDONLY | O_CLOEXEC);
    }
}

void sl_kernel_text_close(sl_kernel_text *text)
{
    if (text->descriptor >= 0) {
        close(text->descriptor);
        text->descriptor = -1;
    }
}

/* Append what the file still has to the buffer. false at the end of the file or on a failure. */
static bool refill(sl_kernel_text *text)
{
    memmove(text->buffer, text->buffer + text->begin, text->end - text->begin);
    text->end -= text->begin;
    text->begin = 0;
    if (text->end == sizeof text->buffer - 1) {
        text->end = 0;
        text->skipping = true;
    }
    ssize_t got;
    do {
        got = read(text->descriptor, text->buffer + text->end, sizeof text->buffer - 1 - text->end);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
        return false;
    }
    text->end += (size_t)got;
    return true;
}

char *sl_kernel_text_line(sl_kernel_text *text)
{
    if (text->descriptor < 0) {
        return NULL;
    }
    for (;;) {
        char *start = text->buffer + text->begin;
        char *newline = memchr(start, '\n', text->end - text->begin);
        if (newline != NULL) {
            *newline = '\0';
            text->begin = (size_t)(newline - text->buffer) + 1;
            if (!text->skipping) {
                return start;
            }
            text->skipping = false;
        } else if (!refill(text)) {
            if (text->end == text->begin || text->skipping) {
                return NULL;
            }
            text->buffer[text->end] = '\0';
            start = text->buffer + text->begin;
            text->begin = text->end;
            return start;
        }
    }
}

bool sl_kernel_text_number(const char *text, uint64_t *value, const char **end)
{
    while (*text == ' ' || *text == '\t') {
        text++;
    }
    if (*text < '0' || *text > '9') {
        return false;
    }
    uint64_t sum = 0;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (__builtin_mul_overflow(sum, (uint64_t)10, &sum) ||
            __builtin_add_overflow(sum, (uint64_t)(*text - '0'), &sum)) {
            return false;
        }
    }
    *value = sum;
    if (end != NULL) {
        *end = text;
    }
    return true;
}

bool sl_kernel_text_find(const char *root, const char *path, const char *key, uint64_t *value)
{
    sl_kernel_text text;
    sl_kernel_text_open(&text, root, path);
    bool found = false;
    size_t key_length = strlen(key);
    for (char *line = sl_kernel_text_line(&text); line != NULL && !found; line = sl_kernel_text_line(&text)) {
        found = strncmp(line, key, key_length) == 0 && sl_kernel_text_number(line + key_length, value, NULL);
    }
    sl_kernel_text_close(&text);
    return found;
}
