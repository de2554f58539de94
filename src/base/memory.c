/* Owns no memory itself: it puts a header in front of every block and keeps the sums.
 *
 * Invariants
 *  (1) A block is [padding | header | user bytes]; the header lies directly before the user pointer.
 *  (2) The sum over tags equals total_bytes whenever no call is in progress; both count padding and header.
 *  (3) A block is charged to the tag it was allocated with until it is released.
 *  (4) What the source allowed to be charged is told back to it, byte for byte, when it is discharged.
 * Threads: all state is atomic; any thread may allocate and any thread may release. */
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { MINIMUM_ALIGNMENT = 16 };

typedef struct block_header {
    void *start;         /* what the source returned */
    uint64_t user_bytes; /* asked for by the caller */
    uint64_t cost_bytes; /* charged to the account */
    uint64_t tag;
} block_header;

_Static_assert(sizeof(block_header) % MINIMUM_ALIGNMENT == 0, "the user pointer keeps the minimum alignment");

static const char *const tag_names[] = {
    [SL_MEMORY_WEIGHTS] = "weights", [SL_MEMORY_EXPERTS] = "experts",
    [SL_MEMORY_KV] = "kv",           [SL_MEMORY_ACTIVATIONS] = "activations",
    [SL_MEMORY_IO] = "io",           [SL_MEMORY_TEXT] = "text",
    [SL_MEMORY_OTHER] = "other",
};
_Static_assert(sizeof tag_names / sizeof tag_names[0] == SL_MEMORY_TAG_COUNT, "every tag has a name");

static void *allocate_from_libc(void *user, size_t bytes, size_t alignment)
{
    (void)user;
    void *pointer = NULL;
    return posix_memalign(&pointer, alignment, bytes) == 0 ? pointer : NULL;
}

static void release_to_libc(void *user, void *pointer)
{
    (void)user;
    free(pointer);
}

void sl_memory_init(sl_memory *memory, const sl_memory_source *source)
{
    memset(memory, 0, sizeof *memory);
    if (source != NULL && source->allocate != NULL) {
        memory->source = *source;
    } else {
        memory->source = (sl_memory_source){.allocate = allocate_from_libc, .release = release_to_libc};
    }
}

size_t sl_memory_cost(size_t bytes, size_t alignment)
{
    size_t front = alignment > sizeof(block_header) ? alignment : sizeof(block_header);
    return front + bytes;
}

static block_header *header_of(void *pointer)
{
    return (block_header *)pointer - 1;
}

static void add_to_sums(sl_memory *memory, sl_memory_tag tag, uint64_t cost_bytes)
{
    atomic_fetch_add_explicit(&memory->bytes[tag], cost_bytes, memory_order_relaxed);
    uint64_t total = atomic_fetch_add_explicit(&memory->total_bytes, cost_bytes, memory_order_relaxed) + cost_bytes;
    uint64_t peak = atomic_load_explicit(&memory->peak_bytes, memory_order_relaxed);
    while (total > peak && !atomic_compare_exchange_weak_explicit(&memory->peak_bytes, &peak, total,
                                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void take_from_sums(sl_memory *memory, sl_memory_tag tag, uint64_t cost_bytes)
{
    atomic_fetch_sub_explicit(&memory->bytes[tag], cost_bytes, memory_order_relaxed);
    atomic_fetch_sub_explicit(&memory->total_bytes, cost_bytes, memory_order_relaxed);
}

bool sl_memory_charge(sl_memory *memory, sl_memory_tag tag, size_t bytes)
{
    if (memory->source.charge != NULL && !memory->source.charge(memory->source.user, bytes)) {
        return false;
    }
    add_to_sums(memory, tag, bytes);
    return true;
}

void sl_memory_discharge(sl_memory *memory, sl_memory_tag tag, size_t bytes)
{
    take_from_sums(memory, tag, bytes);
    if (memory->source.discharge != NULL) {
        memory->source.discharge(memory->source.user, bytes);
    }
}

void *sl_alloc_aligned(sl_memory *memory, sl_memory_tag tag, size_t bytes, size_t alignment)
{
    if (alignment < MINIMUM_ALIGNMENT) {
        alignment = MINIMUM_ALIGNMENT;
    }
    size_t front = sl_memory_cost(0, alignment);
    if (bytes > SIZE_MAX / 2 - front) {
        return NULL;
    }
    unsigned char *start = memory->source.allocate(memory->source.user, front + bytes, alignment);
    if (start == NULL) {
        return NULL;
    }
    void *pointer = start + front;
    *header_of(pointer) =
        (block_header){.start = start, .user_bytes = bytes, .cost_bytes = front + bytes, .tag = (uint64_t)tag};
    add_to_sums(memory, tag, front + bytes);
    atomic_fetch_add_explicit(&memory->n_allocations, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&memory->n_live, 1, memory_order_relaxed);
    return pointer;
}

void *sl_alloc(sl_memory *memory, sl_memory_tag tag, size_t count, size_t size)
{
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        return NULL;
    }
    void *pointer = sl_alloc_aligned(memory, tag, bytes, MINIMUM_ALIGNMENT);
    if (pointer != NULL) {
        memset(pointer, 0, bytes);
    }
    return pointer;
}

void *sl_realloc(sl_memory *memory, sl_memory_tag tag, void *pointer, size_t count, size_t size)
{
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        return NULL;
    }
    void *grown = sl_alloc_aligned(memory, tag, bytes, MINIMUM_ALIGNMENT);
    if (grown == NULL || pointer == NULL) {
        return grown;
    }
    size_t old_bytes = header_of(pointer)->user_bytes;
    memcpy(grown, pointer, old_bytes < bytes ? old_bytes : bytes);
    sl_free(memory, pointer);
    return grown;
}

void sl_free(sl_memory *memory, void *pointer)
{
    if (pointer == NULL) {
        return;
    }
    block_header header = *header_of(pointer);
    take_from_sums(memory, (sl_memory_tag)header.tag, header.cost_bytes);
    atomic_fetch_sub_explicit(&memory->n_live, 1, memory_order_relaxed);
    memory->source.release(memory->source.user, header.start);
}

const char *sl_memory_tag_name(sl_memory_tag tag)
{
    return tag_names[tag];
}
