/* A bump allocator for the bytes of keys, strings and arrays: they never move and go all at once. Private to this
 * room. */
#ifndef SL_GGUF_STORAGE_H
#define SL_GGUF_STORAGE_H

#include <stdbool.h>

#include "base/memory.h"

/* thread: owner only while it grows; its bytes may be read from any thread afterwards. */
typedef struct sl_gguf_storage {
    sl_memory *memory;             /* borrowed: outlives the storage */
    struct sl_gguf_chunk *current; /* owned, with all that are linked behind it; NULL when empty */
} sl_gguf_storage;

void sl_gguf_storage_init(sl_gguf_storage *storage, sl_memory *memory);
void sl_gguf_storage_fini(sl_gguf_storage *storage);

/* `bytes` uninitialised bytes, 8-byte aligned; NULL when memory is refused. */
void *sl_gguf_storage_take(sl_gguf_storage *storage, uint64_t bytes);

/* Move everything in `source` behind `storage`; `source` is empty afterwards. */
void sl_gguf_storage_adopt(sl_gguf_storage *storage, sl_gguf_storage *source);

#endif
