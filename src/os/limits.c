/* Owns nothing: reads the kernel's text files through a buffer on the stack.
 *
 * Invariants
 *  (1) Nothing is allocated and nothing is kept: every call asks the kernel again.
 *  (2) A file that is missing, unreadable or oddly formed counts as silence, never as an error: "unknown" for a figure,
 *      "no limit" for a limit.
 *  (3) A cgroup binds a process through its own limit and through those of all its ancestors, so the smallest counts.
 *      Under v1 an ancestor may lie outside what is mounted here; hierarchical_memory_limit of memory.stat knows it.
 * Threads: any. */
#include "os/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/limits_root.h"

enum {
    PATH_BYTES = 4096,
    LINE_BYTES = 8192 /* longer lines are skipped whole */
};

/* Version 1 says "no limit" with the largest page-aligned signed number; anything that large is none. */
static const uint64_t no_limit_from = (uint64_t)1 << 62;

/* Reads a text file line by line. */
typedef struct line_reader {
    int descriptor; /* owned; -1 when the file could not be opened */
    size_t begin, end;
    bool skipping; /* inside a line that did not fit */
    char buffer[LINE_BYTES];
} line_reader;

static void line_reader_open(line_reader *reader, const char *root, const char *path)
{
    char full[2 * PATH_BYTES];
    int length = snprintf(full, sizeof full, "%s%s", root, path);
    reader->descriptor = -1;
    reader->begin = 0;
    reader->end = 0;
    reader->skipping = false;
    if (length > 0 && (size_t)length < sizeof full) {
        reader->descriptor = open(full, O_RDONLY | O_CLOEXEC);
    }
}

static void line_reader_close(line_reader *reader)
{
    if (reader->descriptor >= 0) {
        close(reader->descriptor);
        reader->descriptor = -1;
    }
}

/* Append what the file still has to the buffer. false at the end of the file or on a failure. */
static bool refill(line_reader *reader)
{
    memmove(reader->buffer, reader->buffer + reader->begin, reader->end - reader->begin);
    reader->end -= reader->begin;
    reader->begin = 0;
    if (reader->end == sizeof reader->buffer - 1) {
        reader->end = 0;
        reader->skipping = true;
    }
    ssize_t got;
    do {
        got = read(reader->descriptor, reader->buffer + reader->end, sizeof reader->buffer - 1 - reader->end);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
        return false;
    }
    reader->end += (size_t)got;
    return true;
}

/* The next line without its newline, NUL-terminated, valid until the next call; NULL at the end. */
static char *next_line(line_reader *reader)
{
    if (reader->descriptor < 0) {
        return NULL;
    }
    for (;;) {
        char *start = reader->buffer + reader->begin;
        char *newline = memchr(start, '\n', reader->end - reader->begin);
        if (newline != NULL) {
            *newline = '\0';
            reader->begin = (size_t)(newline - reader->buffer) + 1;
            if (!reader->skipping) {
                return start;
            }
            reader->skipping = false;
        } else if (!refill(reader)) {
            if (reader->end == reader->begin || reader->skipping) {
                return NULL;
            }
            reader->buffer[reader->end] = '\0';
            start = reader->buffer + reader->begin;
            reader->begin = reader->end;
            return start;
        }
    }
}

/* Digits, nothing else before them but blanks. false when there are none or they overflow. */
static bool parse_number(const char *text, uint64_t *value)
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
    return true;
}

/* The number after `key` in the file at `path`; false when there is none. */
static bool find_number(const char *root, const char *path, const char *key, uint64_t *value)
{
    line_reader reader;
    line_reader_open(&reader, root, path);
    bool found = false;
    size_t key_length = strlen(key);
    for (char *line = next_line(&reader); line != NULL && !found; line = next_line(&reader)) {
        found = strncmp(line, key, key_length) == 0 && parse_number(line + key_length, value);
    }
    line_reader_close(&reader);
    return found;
}

/* A figure that the kernel writes as "key: 123 kB". */
static uint64_t find_kilobytes(const char *root, const char *path, const char *key)
{
    uint64_t kilobytes = 0;
    uint64_t bytes = 0;
    if (!find_number(root, path, key, &kilobytes) || __builtin_mul_overflow(kilobytes, (uint64_t)1024, &bytes)) {
        return 0;
    }
    return bytes;
}

uint64_t sl_process_resident_bytes_under(const char *root)
{
    return find_kilobytes(root, "/proc/self/status", "VmRSS:");
}

uint64_t sl_process_peak_bytes_under(const char *root)
{
    return find_kilobytes(root, "/proc/self/status", "VmHWM:");
}

uint64_t sl_machine_available_bytes_under(const char *root)
{
    return find_kilobytes(root, "/proc/meminfo", "MemAvailable:");
}

uint64_t sl_machine_physical_bytes_under(const char *root)
{
    return find_kilobytes(root, "/proc/meminfo", "MemTotal:");
}

/* Whether a comma-separated list holds `word`. */
static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);
    while (list != NULL) {
        if (strncmp(list, word, length) == 0 && (list[length] == ',' || list[length] == '\0')) {
            return true;
        }
        list = strchr(list, ',');
        if (list != NULL) {
            list++;
        }
    }
    return false;
}

/* Turn the kernel's \ooo escapes of blanks and backslashes back, in place. */
static void unescape(char *text)
{
    char *out = text;
    while (*text != '\0') {
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' && text[2] <= '7' && text[3] >= '0' &&
            text[3] <= '7') {
            *out++ = (char)(((text[1] - '0') << 6) | ((text[2] - '0') << 3) | (text[3] - '0'));
            text += 4;
        } else {
            *out++ = *text++;
        }
    }
    *out = '\0';
}

/* One cgroup hierarchy that may limit memory: where it is mounted and which part of it. */
typedef struct cgroup_mount {
    bool is_v2;
    char *root;  /* borrowed from the line: the cgroup that the mount shows as its top */
    char *point; /* borrowed from the line: the directory it is mounted on */
} cgroup_mount;

/* Take a line of mountinfo apart: "id parent major:minor root point options [optional...] - type source options".
 * false when it is no cgroup hierarchy with memory. */
static bool parse_mount(char *line, cgroup_mount *mount)
{
    char *separator = strstr(line, " - ");
    if (separator == NULL) {
        return false;
    }
    *separator = '\0';
    char *rest = NULL;
    char *type = strtok_r(separator + 3, " ", &rest);
    (void)strtok_r(NULL, " ", &rest);
    char *super_options = strtok_r(NULL, " ", &rest);
    if (type == NULL || super_options == NULL) {
        return false;
    }
    mount->is_v2 = strcmp(type, "cgroup2") == 0;
    if (!mount->is_v2 && (strcmp(type, "cgroup") != 0 || !list_has(super_options, "memory"))) {
        return false;
    }
    rest = NULL;
    char *field = strtok_r(line, " ", &rest);
    for (int i = 0; i < 3 && field != NULL; i++) {
        field = strtok_r(NULL, " ", &rest);
    }
    mount->root = field;
    mount->point = field == NULL ? NULL : strtok_r(NULL, " ", &rest);
    if (mount->point == NULL) {
        return false;
    }
    unescape(mount->root);
    unescape(mount->point);
    return true;
}

/* This process's path in the hierarchy, from /proc/self/cgroup: "0::/path" for version 2, "4:cpu,memory:/path" for
 * version 1. */
static bool find_cgroup_path(const char *root, bool is_v2, char path[PATH_BYTES])
{
    line_reader reader;
    line_reader_open(&reader, root, "/proc/self/cgroup");
    bool found = false;
    for (char *line = next_line(&reader); line != NULL && !found; line = next_line(&reader)) {
        char *controllers = strchr(line, ':');
        char *place = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (place == NULL || place[1] != '/' || strlen(place + 1) >= PATH_BYTES) {
            continue;
        }
        *place = '\0';
        if (is_v2 ? strncmp(line, "0:", 2) == 0 && controllers[1] == '\0' : list_has(controllers + 1, "memory")) {
            memcpy(path, place + 1, strlen(place + 1) + 1);
            found = true;
        }
    }
    line_reader_close(&reader);
    return found;
}

/* Lower `*limit` to the number in the file `name` of a cgroup's directory. */
static void apply_limit(const char *root, const char *directory, const char *name, const char *key, uint64_t *limit)
{
    char path[2 * PATH_BYTES];
    uint64_t value = 0;
    int length = snprintf(path, sizeof path, "%s/%s", directory, name);
    if (length > 0 && (size_t)length < sizeof path && find_number(root, path, key, &value) && value < no_limit_from &&
        value < *limit) {
        *limit = value;
    }
}

/* The smallest limit from the process's own cgroup up to the top of the mount. */
static void apply_mount(const char *root, const cgroup_mount *mount, uint64_t *limit)
{
    char path[PATH_BYTES];
    if (!find_cgroup_path(root, mount->is_v2, path)) {
        return;
    }
    /* The mount may show only a part of the hierarchy, as in a container that sees its host's names. */
    size_t skip = strcmp(mount->root, "/") == 0 ? 0 : strlen(mount->root);
    const char *below = path + skip;
    bool inside = strncmp(path, mount->root, skip) == 0 && (*below == '/' || *below == '\0');
    char directory[2 * PATH_BYTES];
    int length = snprintf(directory, sizeof directory, "%s%s", mount->point, inside ? below : "");
    if (length < 0 || (size_t)length >= sizeof directory) {
        return;
    }
    size_t top = strlen(mount->point);
    size_t end = (size_t)length;
    if (!mount->is_v2) {
        apply_limit(root, directory, "memory.stat", "hierarchical_memory_limit", limit);
    }
    for (;;) {
        while (end > top && directory[end - 1] == '/') {
            end--;
        }
        directory[end] = '\0';
        if (mount->is_v2) {
            apply_limit(root, directory, "memory.max", "", limit);
            /* Above memory.high the kernel reclaims and throttles: not killed, but not runnable either. */
            apply_limit(root, directory, "memory.high", "", limit);
        } else {
            apply_limit(root, directory, "memory.limit_in_bytes", "", limit);
        }
        if (end <= top) {
            return;
        }
        while (end > top && directory[end - 1] != '/') {
            end--;
        }
    }
}

uint64_t sl_cgroup_memory_limit_under(const char *root)
{
    uint64_t limit = UINT64_MAX;
    line_reader mounts;
    line_reader_open(&mounts, root, "/proc/self/mountinfo");
    for (char *line = next_line(&mounts); line != NULL; line = next_line(&mounts)) {
        cgroup_mount mount;
        if (parse_mount(line, &mount)) {
            apply_mount(root, &mount, &limit);
        }
    }
    line_reader_close(&mounts);
    return limit;
}

uint64_t sl_process_resident_bytes(void)
{
    return sl_process_resident_bytes_under("");
}

uint64_t sl_process_peak_bytes(void)
{
    return sl_process_peak_bytes_under("");
}

uint64_t sl_cgroup_memory_limit(void)
{
    return sl_cgroup_memory_limit_under("");
}

uint64_t sl_machine_available_bytes(void)
{
    return sl_machine_available_bytes_under("");
}

uint64_t sl_machine_physical_bytes(void)
{
    return sl_machine_physical_bytes_under("");
}
