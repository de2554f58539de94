/* A bounded walk through the header of a GGUF file, in slices, with errors that say where. Private to this room. */
#ifndef SL_GGUF_CURSOR_H
#define SL_GGUF_CURSOR_H

#include "base/memory.h"
#include "base/strings.h"
#include "os/file.h"

/* No tokenizer comes near it: a header beyond this is damage, and memory use follows the header. */
enum { SL_GGUF_MAX_HEADER_BYTES = 256 << 20 };

enum { SL_GGUF_SUBJECT_BYTES = 200, SL_GGUF_QUOTED_BYTES = 160 };

/* thread: owner only. */
typedef struct sl_gguf_cursor {
    const sl_file *file;  /* borrowed */
    const char *path;     /* borrowed; for messages */
    sl_memory *memory;    /* borrowed */
    sluice_error *error;  /* borrowed; may be NULL */
    unsigned char *slice; /* owned; the bytes [slice_offset, slice_offset + slice_length) of the file */
    uint64_t slice_offset;
    size_t slice_length;
    uint64_t position;
    uint64_t end;                        /* of the file or of the largest header, whichever comes first */
    char subject[SL_GGUF_SUBJECT_BYTES]; /* what is being read: `key "general.name"`; for messages */
} sl_gguf_cursor;

SLUICE_NODISCARD sluice_status sl_gguf_cursor_init(sl_gguf_cursor *cursor, const sl_file *file, const char *path,
                                                   sl_memory *memory, sluice_error *error);
/* Also drops the page cache of what was read. */
void sl_gguf_cursor_fini(sl_gguf_cursor *cursor);

/* What the next messages are about. */
void sl_gguf_cursor_set_subject(sl_gguf_cursor *cursor, const char *format, ...) SL_PRINTF(2, 3);

/* Copy `length` bytes; `what` names them when the file ends first. */
SLUICE_NODISCARD sluice_status sl_gguf_cursor_take(sl_gguf_cursor *cursor, void *destination, uint64_t length,
                                                   const char *what);
SLUICE_NODISCARD sluice_status sl_gguf_cursor_take_u32(sl_gguf_cursor *cursor, uint32_t *number, const char *what);
SLUICE_NODISCARD sluice_status sl_gguf_cursor_take_u64(sl_gguf_cursor *cursor, uint64_t *number, const char *what);

/* FORMAT unless `count` items of at least `item_bytes` each can follow: asked before anything is allocated for them. */
SLUICE_NODISCARD sluice_status sl_gguf_cursor_expect(sl_gguf_cursor *cursor, uint64_t count, uint64_t item_bytes,
                                                     const char *what);

/* "<path>: <subject> at byte <offset>: <sentence>" */
sluice_status sl_gguf_cursor_fail(sl_gguf_cursor *cursor, sluice_status status, uint64_t offset, const char *format,
                                  ...) SL_PRINTF(4, 5);

/* The start of `span` in double quotes with everything but printable ASCII escaped, for messages. `buffer` holds
 * SL_GGUF_QUOTED_BYTES; returns it. */
const char *sl_gguf_quote(sl_span span, char *buffer);

#endif
