/* A source of memory that refuses one chosen allocation, for tests that fail the n-th one for every n. */
#ifndef SL_TESTS_FAILING_MEMORY_H
#define SL_TESTS_FAILING_MEMORY_H

#include <stdint.h>
#include <stdlib.h>

#include "base/memory.h"

typedef struct failing_source {
    uint64_t n_calls;
    uint64_t failing_call; /* counted from 0; UINT64_MAX: none */
    uint64_t charged_bytes;
} failing_source;

static inline void *failing_allocate(void *user, size_t bytes, size_t alignment)
{
    failing_source *source = user;
    if (source->n_calls++ == source->failing_call) {
        return NULL;
    }
    void *pointer = NULL;
    return posix_memalign(&pointer, alignment, bytes) == 0 ? pointer : NULL;
}

static inline void failing_release(void *user, void *pointer)
{
    (void)user;
    free(pointer);
}

static inline bool failing_charge(void *user, size_t bytes)
{
    failing_source *source = user;
    if (source->n_calls++ == source->failing_call) {
        return false;
    }
    source->charged_bytes += bytes;
    return true;
}

static inline void failing_discharge(void *user, size_t bytes)
{
    failing_source *source = user;
    source->charged_bytes -= bytes;
}

/* `source` outlives the account. */
static inline void failing_memory_init(sl_memory *memory, failing_source *source, uint64_t failing_call)
{
    *source = (failing_source){.failing_call = failing_call};
    sl_memory_init(memory, &(sl_memory_source){.allocate = failing_allocate,
                                               .release = failing_release,
                                               .charge = failing_charge,
                                               .discharge = failing_discharge,
                                               .user = source});
}

#endif
