/* What the files of the reader share. Private to this room. */
#ifndef SL_GGUF_PARSE_H
#define SL_GGUF_PARSE_H

#include "base/map.h"
#include "gguf/cursor.h"
#include "gguf/reader.h"
#include "gguf/storage.h"

/* Beyond these a count is damage: real files hold under a hundred keys, and at most some hundred thousand tensors where
 * experts are stored one by one. */
enum { SL_GGUF_MAX_VALUES = 1 << 16, SL_GGUF_MAX_TENSORS = 1 << 20, SL_GGUF_MAX_KEY_BYTES = 65535 };
enum { SL_GGUF_DEFAULT_ALIGNMENT = 32, SL_GGUF_MAX_ALIGNMENT = 1 << 20 };

/* thread: owner only during open, immutable afterwards. */
typedef struct sl_gguf_index {
    sl_map value_positions;  /* key to index into values */
    sl_map tensor_positions; /* name to index into tensors */
    sl_gguf_storage storage; /* the bytes of keys, names, strings and numbers */
} sl_gguf_index;

/* Read `n_values` entries into reader->values. */
SLUICE_NODISCARD sluice_status sl_gguf_parse_values(sl_gguf *reader, sl_gguf_cursor *cursor, uint64_t n_values);

/* Read `n_tensors` descriptions into reader->tensors, with offsets still relative to the data section. */
SLUICE_NODISCARD sluice_status sl_gguf_parse_tensors(sl_gguf *reader, sl_gguf_cursor *cursor, uint64_t n_tensors);

/* Make the offsets absolute: the data section starts at the first multiple of the alignment from the cursor's position
 * on. FORMAT where a tensor leaves the file or shares bytes with another. */
SLUICE_NODISCARD sluice_status sl_gguf_place_tensors(sl_gguf *reader, sl_gguf_cursor *cursor);

/* The bytes of a tensor from its type and its four dims. false when rows are no whole blocks, a dim is 0 or the product
 * does not fit 63 bits. */
SLUICE_NODISCARD bool sl_gguf_measure_tensor(const sl_gguf_tensor *tensor, uint64_t *bytes);

/* Open and parse the one file at `path`, whether or not it is a part of a set. */
SLUICE_NODISCARD sluice_status sl_gguf_open_part(sl_gguf **out, const char *path, sl_memory *memory,
                                                 sluice_error *error);

/* Turn `*reader`, opened from `path`, into the whole set it belongs to; a file that belongs to none stays as it is. On
 * failure the reader is still the caller's to close, and may be NULL. */
SLUICE_NODISCARD sluice_status sl_gguf_open_other_parts(sl_gguf **reader, const char *path, const sl_log *log,
                                                        sluice_error *error);

/* Whether tensor data may be aligned like this: a power of two up to the maximum. */
bool sl_gguf_alignment_is_valid(uint64_t alignment);

/* Bytes of one number of this type; 0 for strings, arrays and unknown types. */
uint64_t sl_gguf_type_bytes(sl_gguf_type type);

/* Room for `n_needed` items of `item_bytes` in an array that grows towards `n_expected`. NULL when memory is refused;
 * the old array then stays valid. */
void *sl_gguf_grow(sl_memory *memory, void *items, uint64_t *capacity, uint64_t n_needed, uint64_t n_expected,
                   size_t item_bytes);

#endif
