/* When buffers are alive, and the fewest equal buffers that hold them.
 *
 * Owns: nothing; scratch is released before returning.
 * Invariants:
 *   1. An interval is inclusive at both ends: a reader and a writer at one operation never share.
 *   2. Results depend on the intervals alone, not on the order they are given in.
 * Threads: any; the graph is only read. */
#include <stdlib.h>

#include "graph/definitions.h"

enum { NOT_WRITTEN = UINT32_MAX };

static int compare_intervals(const void *a, const void *b)
{
    const sl_interval *left = a;
    const sl_interval *right = b;
    if (left->first_write != right->first_write) {
        return left->first_write < right->first_write ? -1 : 1;
    }
    return (left->value > right->value) - (left->value < right->value);
}

uint32_t sl_graph_lifetimes(const sl_graph *graph, sl_interval *intervals)
{
    for (uint32_t i = 0; i < graph->n_values; i++) {
        intervals[i] = (sl_interval){.value = i, .first_write = (uint32_t)NOT_WRITTEN};
    }
    for (uint32_t i_op = 0; i_op < graph->n_ops; i_op++) {
        const sl_op *op = &graph->ops[i_op];
        for (uint32_t i = 0; i < op->n_outputs; i++) {
            if (!sl_value_exists(op->outputs[i])) {
                continue;
            }
            sl_interval *interval = &intervals[op->outputs[i].index];
            if (interval->first_write == (uint32_t)NOT_WRITTEN) {
                interval->first_write = i_op;
                interval->last_read = i_op;
            }
        }
        for (uint32_t i = 0; i < op->n_inputs; i++) {
            if (sl_value_exists(op->inputs[i]) && intervals[op->inputs[i].index].first_write != (uint32_t)NOT_WRITTEN) {
                intervals[op->inputs[i].index].last_read = i_op;
            }
        }
    }
    uint32_t n_intervals = 0;
    for (uint32_t i = 0; i < graph->n_values; i++) {
        const sl_value_info *info = &graph->values[i];
        sl_interval interval = intervals[i];
        if (info->kind != SL_VALUE_TEMPORARY || interval.first_write == (uint32_t)NOT_WRITTEN) {
            continue;
        }
        if (info->is_output) {
            interval.last_read = graph->n_ops - 1;
        }
        intervals[n_intervals++] = interval;
    }
    qsort(intervals, n_intervals, sizeof *intervals, compare_intervals);
    return n_intervals;
}

/* An interval and where it stood in the caller's list. */
typedef struct ordered_interval {
    sl_interval interval;
    uint32_t position;
} ordered_interval;

bool sl_intervals_colour(const sl_interval *intervals, uint32_t n_intervals, sl_memory *memory, uint32_t *colours,
                         uint32_t *n_colours)
{
    *n_colours = 0;
    ordered_interval *ordered = sl_alloc(memory, SL_MEMORY_OTHER, n_intervals, sizeof *ordered); /* [n_intervals] */
    uint32_t *busy_until = sl_alloc(memory, SL_MEMORY_OTHER, n_intervals, sizeof *busy_until);   /* [n_colours] */
    bool allocated = ordered != NULL && busy_until != NULL;
    if (allocated) {
        for (uint32_t i = 0; i < n_intervals; i++) {
            ordered[i] = (ordered_interval){.interval = intervals[i], .position = i};
        }
        /* The interval is the first member, so the same comparison serves. */
        qsort(ordered, n_intervals, sizeof *ordered, compare_intervals);
        for (uint32_t i = 0; i < n_intervals; i++) {
            const sl_interval *interval = &ordered[i].interval;
            uint32_t colour = 0;
            while (colour < *n_colours && busy_until[colour] >= interval->first_write) {
                colour++;
            }
            *n_colours += colour == *n_colours;
            busy_until[colour] = interval->last_read;
            colours[ordered[i].position] = colour;
        }
    }
    sl_free(memory, busy_until);
    sl_free(memory, ordered);
    return allocated;
}
