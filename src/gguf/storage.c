/* Owns a list of chunks.
 *
 * Invariants
 *  (1) Bytes that were handed out never move and never overlap.
 *  (2) Only the first chunk has room; a block too large to share a chunk gets one of its exact size, behind the first.
 */
#include "gguf/storage.h"

#include <stdalign.h>

enum { CHUNK_BYTES = 32 * 1024, SHARED_BLOCK_BYTES = 4 * 1024, BLOCK_ALIGNMENT = 8 };

typedef struct sl_gguf_chunk {
    struct sl_gguf_chunk *next; /* owned */
    size_t used;
    size_t capacity;
    alignas(BLOCK_ALIGNMENT) unsigned char bytes[]; // [capacity]
} sl_gguf_chunk;

void sl_gguf_storage_init(sl_gguf_storage *storage, sl_memory *memory)
{
    *storage = (sl_gguf_storage){.memory = memory};
}

void sl_gguf_storage_fini(sl_gguf_storage *storage)
{
    while (storage->current != NULL) {
        sl_gguf_chunk *next = storage->current->next;
        sl_free(storage->memory, storage->current);
        storage->current = next;
    }
}

static sl_gguf_chunk *create_chunk(sl_gguf_storage *storage, size_t capacity)
{
    sl_gguf_chunk *chunk =
        sl_alloc_aligned(storage->memory, SL_MEMORY_OTHER, sizeof(sl_gguf_chunk) + capacity, alignof(sl_gguf_chunk));
    if (chunk != NULL) {
        *chunk = (sl_gguf_chunk){.capacity = capacity};
    }
    return chunk;
}

static void *take_from(sl_gguf_chunk *chunk, size_t bytes)
{
    void *block = chunk->bytes + chunk->used;
    chunk->used += bytes;
    return block;
}

void *sl_gguf_storage_take(sl_gguf_storage *storage, uint64_t bytes)
{
    if (bytes > SIZE_MAX / 4) {
        return NULL;
    }
    size_t rounded = ((size_t)bytes + BLOCK_ALIGNMENT - 1) & ~(size_t)(BLOCK_ALIGNMENT - 1);
    sl_gguf_chunk *current = storage->current;
    if (current != NULL && rounded <= current->capacity - current->used) {
        return take_from(current, rounded);
    }
    bool shared = rounded <= SHARED_BLOCK_BYTES;
    sl_gguf_chunk *chunk = create_chunk(storage, shared ? CHUNK_BYTES : rounded);
    if (chunk == NULL) {
        return NULL;
    }
    if (shared || current == NULL) {
        chunk->next = current;
        storage->current = chunk;
    } else {
        chunk->next = current->next;
        current->next = chunk;
    }
    return take_from(chunk, rounded);
}

void sl_gguf_storage_adopt(sl_gguf_storage *storage, sl_gguf_storage *source)
{
    if (storage->current == NULL) {
        storage->current = source->current;
    } else {
        sl_gguf_chunk **end = &source->current;
        while (*end != NULL) {
            end = &(*end)->next;
        }
        *end = storage->current->next;
        storage->current->next = source->current;
    }
    source->current = NULL;
}
