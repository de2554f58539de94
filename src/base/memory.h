/* Tagged allocation: every byte of the engine has an owner, and the sums are exact. */
#ifndef SL_BASE_MEMORY_H
#define SL_BASE_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum sl_memory_tag {
    SL_MEMORY_WEIGHTS,     /* dense weights */
    SL_MEMORY_EXPERTS,     /* the expert arena */
    SL_MEMORY_KV,          /* KV caches */
    SL_MEMORY_ACTIVATIONS, /* arenas of compiled programs, logits */
    SL_MEMORY_IO,          /* read buffers and queues */
    SL_MEMORY_TEXT,        /* vocabulary, merges, patterns */
    SL_MEMORY_OTHER,       /* metadata, graphs, tables */
    SL_MEMORY_TAG_COUNT
} sl_memory_tag;

/* Where the bytes come from. NULL functions mean the C library. `allocate` returns memory aligned to `alignment`
 * (a power of two, at least 16) or NULL; all may be called from any thread. */
typedef struct sl_memory_source {
    void *(*allocate)(void *user, size_t bytes, size_t alignment);
    void (*release)(void *user, void *pointer);
    /* Memory that is mapped and not allocated: whether `bytes` more may be taken, and that they were given back. NULL:
     * always, and nobody to tell. */
    bool (*charge)(void *user, size_t bytes);
    void (*discharge)(void *user, size_t bytes);
    void *user; /* borrowed: lives as long as the sl_memory */
} sl_memory_source;

/* One account, one per engine. thread: every function below is safe from any thread. */
typedef struct sl_memory {
    sl_memory_source source;
    _Atomic uint64_t bytes[SL_MEMORY_TAG_COUNT]; /* held now, with this module's own headers */
    _Atomic uint64_t total_bytes;
    _Atomic uint64_t peak_bytes;    /* highest total ever */
    _Atomic uint64_t n_allocations; /* ever made, charges of mapped memory not counted */
    _Atomic uint64_t n_live;        /* held now, likewise */
} sl_memory;

/* `source` may be NULL for the C library. */
void sl_memory_init(sl_memory *memory, const sl_memory_source *source);

/* `count * size` zeroed bytes, 16-byte aligned. NULL when the product overflows or the memory is refused.
 * A size of 0 gives a valid pointer. Release with sl_free. */
void *sl_alloc(sl_memory *memory, sl_memory_tag tag, size_t count, size_t size);

/* `bytes` uninitialised bytes aligned to `alignment`, a power of two. */
void *sl_alloc_aligned(sl_memory *memory, sl_memory_tag tag, size_t bytes, size_t alignment);

/* Grow or shrink a block from sl_alloc to `count * size` bytes; the tail is not initialised. On failure NULL, and the
 * old block stays valid. `pointer` may be NULL. */
void *sl_realloc(sl_memory *memory, sl_memory_tag tag, void *pointer, size_t count, size_t size);

/* Give a block back. NULL is ignored. */
void sl_free(sl_memory *memory, void *pointer);

/* Count memory that the caller maps itself, which has no header. false, with nothing counted, when the source refuses:
 * then nothing may be mapped. */
bool sl_memory_charge(sl_memory *memory, sl_memory_tag tag, size_t bytes);
void sl_memory_discharge(sl_memory *memory, sl_memory_tag tag, size_t bytes);

/* What one allocation of `bytes` costs the account, headers included: for plans that must be exact. */
size_t sl_memory_cost(size_t bytes, size_t alignment);

/* "weights", "experts", "kv", "activations", "io", "text", "other". */
const char *sl_memory_tag_name(sl_memory_tag tag);

#endif
