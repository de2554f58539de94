/* Strings that may hold any byte, a growing text, and the sizes that people type. */
#ifndef SL_BASE_STRINGS_H
#define SL_BASE_STRINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/memory.h"

/* A borrowed run of bytes; not NUL-terminated, may contain NUL. */
typedef struct sl_span {
    const char *data;
    size_t length;
} sl_span;

/* The span of a NUL-terminated string. */
sl_span sl_span_of(const char *text);
bool sl_span_equal(sl_span a, sl_span b);
bool sl_span_equal_text(sl_span span, const char *text);

/* For printf's "%.*s": at most 200 bytes of it. */
#define SL_SPAN_ARGUMENTS(span) (int)((span).length < 200 ? (span).length : 200), (span).data

/* A byte string that grows. thread: owner only. */
typedef struct sl_text {
    sl_memory *memory; /* borrowed: outlives the text */
    sl_memory_tag tag;
    char *data; /* owned; always NUL-terminated after the first append */
    size_t length;
    size_t capacity;
} sl_text;

void sl_text_init(sl_text *text, sl_memory *memory, sl_memory_tag tag);
void sl_text_fini(sl_text *text);
/* false when memory is refused; the text is then unchanged. */
SLUICE_NODISCARD bool sl_text_append(sl_text *text, const void *bytes, size_t length);
SLUICE_NODISCARD bool sl_text_format(sl_text *text, const char *format, ...) SL_PRINTF(2, 3);

/* Parse SIZE: decimal bytes with an optional K, M, G, T or KiB, MiB, GiB, TiB (all binary); fractions of a unit, such
 * as 13.3M, are accepted and rounded down to a byte. false on anything else or on overflow. */
bool sl_parse_size(const char *text, uint64_t *bytes);

/* "1.50 GiB", "864 KiB", "12 B" into `buffer`, which holds at least 24 bytes; returns `buffer`. */
const char *sl_format_size(uint64_t bytes, char *buffer, size_t capacity);

#endif
