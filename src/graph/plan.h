/* The arena plan: where buffers with known lifetimes lie so that those alive at the same time never overlap. */
#ifndef SL_GRAPH_PLAN_H
#define SL_GRAPH_PLAN_H

#include "graph/graph.h"

enum { SL_ARENA_ALIGNMENT = 64 };

typedef struct sl_plan_buffer {
    sl_interval lifetime;
    uint64_t bytes;
    uint64_t offset; /* in the arena; a multiple of SL_ARENA_ALIGNMENT */
} sl_plan_buffer;

/* Fill in the offsets: buffers by size descending (ties by first_write, then value), each at the lowest offset that
 * overlaps nothing alive at the same time. Lifetimes are inclusive: two buffers that meet at one operation are apart in
 * space. The result does not depend on the order of `buffers`. `*arena_bytes` receives the end of the last buffer,
 * aligned. ARGUMENT when sizes overflow, NO_MEMORY. */
SLUICE_NODISCARD sluice_status sl_plan_arena(sl_plan_buffer *buffers, uint32_t n_buffers, sl_memory *memory,
                                             uint64_t *arena_bytes, sluice_error *error);

/* Whether the plan is sound: aligned, inside the arena, and nothing alive at the same time overlaps. ARGUMENT names the
 * offending values. */
SLUICE_NODISCARD sluice_status sl_plan_check(const sl_plan_buffer *buffers, uint32_t n_buffers, uint64_t arena_bytes,
                                             sluice_error *error);

#endif
