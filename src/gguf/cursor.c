/* Owns the slice of the header that is in memory.
 *
 * Invariants
 *  (1) position <= end <= the file's size at open: `end - position` never wraps, and no count is believed beyond it.
 *  (2) The slice holds slice_length bytes of the file from slice_offset on.
 *  (3) After a failure the cursor is only good for sl_gguf_cursor_fini.
 * Threads: a cursor lives inside one call of sl_gguf_open. */
#include "gguf/cursor.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SLICE_BYTES = 64 * 1024 };

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are taken from the file as they lie there");

sluice_status sl_gguf_cursor_init(sl_gguf_cursor *cursor, const sl_file *file, const char *path, sl_memory *memory,
                                  sluice_error *error)
{
    *cursor = (sl_gguf_cursor){.file = file, .path = path, .memory = memory, .error = error, .subject = "file header"};
    cursor->end =
        file->identity.bytes < SL_GGUF_MAX_HEADER_BYTES ? file->identity.bytes : (uint64_t)SL_GGUF_MAX_HEADER_BYTES;
    cursor->slice = sl_alloc_aligned(memory, SL_MEMORY_IO, SLICE_BYTES, 16);
    if (cursor->slice == NULL) {
        return sl_error_no_memory(error, SLICE_BYTES, "reading the header of a model file");
    }
    return SLUICE_OK;
}

void sl_gguf_cursor_fini(sl_gguf_cursor *cursor)
{
    sl_file_forget(cursor->file, 0, cursor->slice_offset + cursor->slice_length);
    sl_free(cursor->memory, cursor->slice);
    cursor->slice = NULL;
}

void sl_gguf_cursor_set_subject(sl_gguf_cursor *cursor, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(cursor->subject, sizeof cursor->subject, format, arguments);
    va_end(arguments);
}

sluice_status sl_gguf_cursor_fail(sl_gguf_cursor *cursor, sluice_status status, uint64_t offset, const char *format,
                                  ...)
{
    char sentence[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return sl_error_set(cursor->error, status, "%s: %s at byte %" PRIu64 ": %s", cursor->path, cursor->subject, offset,
                        sentence);
}

static sluice_status fail_short(sl_gguf_cursor *cursor, uint64_t count, uint64_t item_bytes, const char *what)
{
    uint64_t remaining = cursor->end - cursor->position;
    if (cursor->end < cursor->file->identity.bytes) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, cursor->position,
                                   "%s (%" PRIu64 " of at least %" PRIu64
                                   " bytes) would reach beyond the largest header, %d bytes; the file is damaged, "
                                   "download it again",
                                   what, count, item_bytes, SL_GGUF_MAX_HEADER_BYTES);
    }
    return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, cursor->position,
                               "expected %s (%" PRIu64 " of at least %" PRIu64 " bytes), found the end of the file "
                               "after %" PRIu64 " bytes; it is truncated or damaged, download it again",
                               what, count, item_bytes, remaining);
}

sluice_status sl_gguf_cursor_expect(sl_gguf_cursor *cursor, uint64_t count, uint64_t item_bytes, const char *what)
{
    if (count > (cursor->end - cursor->position) / item_bytes) {
        return fail_short(cursor, count, item_bytes, what);
    }
    return SLUICE_OK;
}

/* Load the slice that starts at the position. */
static sluice_status load_slice(sl_gguf_cursor *cursor)
{
    uint64_t remaining = cursor->end - cursor->position;
    size_t length = remaining < SLICE_BYTES ? (size_t)remaining : SLICE_BYTES;
    SL_TRY(sl_file_read(cursor->file, cursor->path, cursor->slice, length, cursor->position, cursor->error));
    cursor->slice_offset = cursor->position;
    cursor->slice_length = length;
    return SLUICE_OK;
}

sluice_status sl_gguf_cursor_take(sl_gguf_cursor *cursor, void *destination, uint64_t length, const char *what)
{
    if (length > cursor->end - cursor->position) {
        return fail_short(cursor, length, 1, what);
    }
    unsigned char *target = destination;
    while (length > 0) {
        uint64_t slice_end = cursor->slice_offset + cursor->slice_length;
        if (cursor->position >= slice_end) {
            SL_TRY(load_slice(cursor));
            continue;
        }
        uint64_t available = slice_end - cursor->position;
        size_t n_bytes = (size_t)(length < available ? length : available);
        memcpy(target, cursor->slice + (cursor->position - cursor->slice_offset), n_bytes);
        target += n_bytes;
        cursor->position += n_bytes;
        length -= n_bytes;
    }
    return SLUICE_OK;
}

sluice_status sl_gguf_cursor_take_u32(sl_gguf_cursor *cursor, uint32_t *number, const char *what)
{
    return sl_gguf_cursor_take(cursor, number, sizeof *number, what);
}

sluice_status sl_gguf_cursor_take_u64(sl_gguf_cursor *cursor, uint64_t *number, const char *what)
{
    return sl_gguf_cursor_take(cursor, number, sizeof *number, what);
}

const char *sl_gguf_quote(sl_span span, char *buffer)
{
    /* Room for one escape, the dots, the closing quote and the NUL. */
    static const size_t reserve_bytes = 9;
    size_t used = 0;
    buffer[used++] = '"';
    size_t i = 0;
    for (; i < span.length && used + reserve_bytes < SL_GGUF_QUOTED_BYTES; i++) {
        unsigned char byte = (unsigned char)span.data[i];
        if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\') {
            buffer[used++] = (char)byte;
        } else {
            used += (size_t)snprintf(buffer + used, 5, "\\x%02x", byte);
        }
    }
    snprintf(buffer + used, SL_GGUF_QUOTED_BYTES - used, i < span.length ? "...\"" : "\"");
    return buffer;
}
