/* Placing buffers in one arena.
 *
 * Owns: nothing; scratch is released before returning.
 * Invariants:
 *   1. Two buffers whose inclusive lifetimes meet do not overlap in space.
 *   2. The order of placing is total (size, first_write, value), so the plan is a function of the set of buffers.
 * Threads: any; works on the caller's buffers. */
#include "graph/plan.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"

static int compare_for_placing(const void *a, const void *b)
{
    const sl_plan_buffer *left = *(sl_plan_buffer *const *)a;
    const sl_plan_buffer *right = *(sl_plan_buffer *const *)b;
    if (left->bytes != right->bytes) {
        return left->bytes > right->bytes ? -1 : 1;
    }
    if (left->lifetime.first_write != right->lifetime.first_write) {
        return left->lifetime.first_write < right->lifetime.first_write ? -1 : 1;
    }
    return (left->lifetime.value > right->lifetime.value) - (left->lifetime.value < right->lifetime.value);
}

static bool alive_together(const sl_plan_buffer *a, const sl_plan_buffer *b)
{
    return a->lifetime.first_write <= b->lifetime.last_read && b->lifetime.first_write <= a->lifetime.last_read;
}

/* Sizes were checked: aligned ends of all buffers together do not overflow. */
static uint64_t aligned_bytes(const sl_plan_buffer *buffer)
{
    return (buffer->bytes + SL_ARENA_ALIGNMENT - 1) & ~(uint64_t)(SL_ARENA_ALIGNMENT - 1);
}

static bool sizes_fit(const sl_plan_buffer *buffers, uint32_t n_buffers)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < n_buffers; i++) {
        uint64_t aligned;
        if (!sl_checked_align(buffers[i].bytes, SL_ARENA_ALIGNMENT, &aligned) ||
            !sl_checked_add(total, aligned, &total)) {
            return false;
        }
    }
    return true;
}

/* Lowest offset at which `buffer` overlaps none of `placed` [n_placed], which is sorted by offset. */
static uint64_t lowest_offset(const sl_plan_buffer *buffer, sl_plan_buffer *const *placed, uint32_t n_placed)
{
    uint64_t offset = 0;
    for (uint32_t i = 0; i < n_placed; i++) {
        if (!alive_together(buffer, placed[i])) {
            continue;
        }
        if (offset + aligned_bytes(buffer) <= placed[i]->offset) {
            break;
        }
        uint64_t end = placed[i]->offset + aligned_bytes(placed[i]);
        if (end > offset) {
            offset = end;
        }
    }
    return offset;
}

static void insert_by_offset(sl_plan_buffer *buffer, sl_plan_buffer **placed, uint32_t n_placed)
{
    uint32_t i = n_placed;
    while (i > 0 && placed[i - 1]->offset > buffer->offset) {
        placed[i] = placed[i - 1];
        i--;
    }
    placed[i] = buffer;
}

sluice_status sl_plan_arena(sl_plan_buffer *buffers, uint32_t n_buffers, sl_memory *memory, uint64_t *arena_bytes,
                            sluice_error *error)
{
    *arena_bytes = 0;
    if (!sizes_fit(buffers, n_buffers)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "the buffers of the arena add up to more than 2^64 bytes");
    }
    sl_plan_buffer **order = sl_alloc(memory, SL_MEMORY_OTHER, n_buffers, sizeof *order);   /* [n_buffers] */
    sl_plan_buffer **placed = sl_alloc(memory, SL_MEMORY_OTHER, n_buffers, sizeof *placed); /* [n_buffers] */
    sluice_status status = SLUICE_OK;
    if (order == NULL || placed == NULL) {
        status = sl_error_no_memory(error, (unsigned long long)n_buffers * 2 * sizeof *order, "planning an arena");
    } else {
        for (uint32_t i = 0; i < n_buffers; i++) {
            order[i] = &buffers[i];
        }
        qsort(order, n_buffers, sizeof *order, compare_for_placing);
        for (uint32_t i = 0; i < n_buffers; i++) {
            order[i]->offset = lowest_offset(order[i], placed, i);
            insert_by_offset(order[i], placed, i);
            uint64_t end = order[i]->offset + aligned_bytes(order[i]);
            *arena_bytes = end > *arena_bytes ? end : *arena_bytes;
        }
    }
    sl_free(memory, placed);
    sl_free(memory, order);
    return status;
}

sluice_status sl_plan_check(const sl_plan_buffer *buffers, uint32_t n_buffers, uint64_t arena_bytes,
                            sluice_error *error)
{
    for (uint32_t i = 0; i < n_buffers; i++) {
        const sl_plan_buffer *a = &buffers[i];
        uint64_t end;
        if (a->offset % SL_ARENA_ALIGNMENT != 0 || !sl_checked_add(a->offset, a->bytes, &end) || end > arena_bytes) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "value %" PRIu32 " lies at %" PRIu64 " with %" PRIu64
                                " bytes: expected an aligned place inside an arena of %" PRIu64,
                                a->lifetime.value, a->offset, a->bytes, arena_bytes);
        }
        for (uint32_t j = 0; j < i; j++) {
            const sl_plan_buffer *b = &buffers[j];
            bool overlap = a->offset < b->offset + b->bytes && b->offset < end;
            if (overlap && alive_together(a, b)) {
                return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                    "values %" PRIu32 " and %" PRIu32 " are alive together and overlap in the arena",
                                    b->lifetime.value, a->lifetime.value);
            }
        }
    }
    return SLUICE_OK;
}
