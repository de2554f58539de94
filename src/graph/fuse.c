/* Fusing operations, and dropping those that nobody needs.
 *
 * Owns: nothing; scratch is released before returning.
 * Invariants:
 *   1. A fusion changes no bit of any output: the fused kernel computes the same sequence of operations.
 *   2. An intermediate disappears only when exactly one operation reads it, exactly one writes it, and it is no output.
 *   3. A fused operation that runs later than a part of it did reads only what nothing in between rewrites; one that
 * runs earlier writes only what nothing in between reads or writes.
 *   4. The graph verifies before and after; on failure it is as it was before.
 * Threads: the graph's owner. */
#include <string.h>

#include "graph/definitions.h"

enum { NO_OP = UINT32_MAX };

/* Who touches a value. */
typedef struct value_use {
    uint32_t n_reads; /* by operations, one for each input that names it */
    uint32_t n_writes;
    uint32_t first_write; /* operation; NO_OP: none */
} value_use;

typedef struct fusion_state {
    sl_graph *graph; /* borrowed */
    value_use *uses; /* owned; [n_values] */
    bool *removed;   /* owned; [n_ops] */
} fusion_state;

/* Fuse `op` with what it reads, if that is possible. */
typedef void fusion_rule(fusion_state *fusion, sl_op *op);

static void count_uses(fusion_state *fusion)
{
    const sl_graph *graph = fusion->graph;
    for (uint32_t i = 0; i < graph->n_values; i++) {
        fusion->uses[i] = (value_use){.first_write = (uint32_t)NO_OP};
    }
    for (uint32_t i_op = 0; i_op < graph->n_ops; i_op++) {
        const sl_op *op = &graph->ops[i_op];
        if (fusion->removed[i_op]) {
            continue;
        }
        for (uint32_t i = 0; i < op->n_inputs; i++) {
            if (sl_value_exists(op->inputs[i])) {
                fusion->uses[op->inputs[i].index].n_reads++;
            }
        }
        for (uint32_t i = 0; i < op->n_outputs; i++) {
            value_use *use = &fusion->uses[op->outputs[i].index];
            use->first_write = use->n_writes++ == 0 ? i_op : use->first_write;
        }
    }
}

/* The operation of this kind whose only purpose is `value`: written once, by it, read once, no output. NULL if there is
 * none. */
static sl_op *sole_producer(const fusion_state *fusion, sl_value value, sl_op_kind kind)
{
    const value_use *use = &fusion->uses[value.index];
    const sl_value_info *info = &fusion->graph->values[value.index];
    if (info->kind != SL_VALUE_TEMPORARY || info->is_output || use->n_writes != 1 || use->n_reads != 1) {
        return NULL;
    }
    sl_op *op = &fusion->graph->ops[use->first_write];
    return op->kind == kind ? op : NULL;
}

/* Whether an operation strictly between the two writes `value`. */
static bool written_between(const fusion_state *fusion, sl_value value, const sl_op *first, const sl_op *last)
{
    for (const sl_op *op = first + 1; op < last; op++) {
        if (fusion->removed[op - fusion->graph->ops]) {
            continue;
        }
        for (uint32_t i = 0; i < op->n_outputs; i++) {
            if (op->outputs[i].index == value.index) {
                return true;
            }
        }
    }
    return false;
}

static void remove_op(fusion_state *fusion, const sl_op *op)
{
    fusion->removed[op - fusion->graph->ops] = true;
}

/* MATMUL, then ADD of a vector of its width: a MATMUL with bias, where the product stood. */
static void fuse_bias(fusion_state *fusion, sl_op *add)
{
    if (add->kind != SL_OP_ADD || fusion->graph->values[add->inputs[1].index].shape.n_dims != 1) {
        return;
    }
    sl_op *product = sole_producer(fusion, add->inputs[0], SL_OP_MATMUL);
    if (product == NULL || sl_value_exists(product->inputs[2])) {
        return;
    }
    product->inputs[2] = add->inputs[1];
    product->outputs[0] = add->outputs[0];
    remove_op(fusion, add);
}

/* MULTIPLY of something with the SILU of something: SWIGLU, where the product stood. */
static void fuse_swiglu(fusion_state *fusion, sl_op *multiply)
{
    if (multiply->kind != SL_OP_MULTIPLY) {
        return;
    }
    for (uint32_t i = 0; i < 2; i++) {
        sl_op *silu = sole_producer(fusion, multiply->inputs[i], SL_OP_SILU);
        if (silu == NULL || written_between(fusion, silu->inputs[0], silu, multiply)) {
            continue;
        }
        sl_value up = multiply->inputs[1 - i];
        multiply->kind = SL_OP_SWIGLU;
        multiply->inputs[0] = silu->inputs[0];
        multiply->inputs[1] = up;
        remove_op(fusion, silu);
        return;
    }
}

static bool same_form(const sl_graph *graph, sl_value a, sl_value b)
{
    return sl_type_traits_of((int)graph->values[a.index].type)->activation_type ==
           sl_type_traits_of((int)graph->values[b.index].type)->activation_type;
}

/* SWIGLU of two products of one input without bias: MATMUL_SWIGLU, where the SWIGLU stood. */
static void fuse_matmul_swiglu(fusion_state *fusion, sl_op *swiglu)
{
    if (swiglu->kind != SL_OP_SWIGLU) {
        return;
    }
    sl_op *gate = sole_producer(fusion, swiglu->inputs[0], SL_OP_MATMUL);
    sl_op *up = sole_producer(fusion, swiglu->inputs[1], SL_OP_MATMUL);
    if (gate == NULL || up == NULL || gate->inputs[0].index != up->inputs[0].index ||
        sl_value_exists(gate->inputs[2]) || sl_value_exists(up->inputs[2]) ||
        !same_form(fusion->graph, gate->inputs[1], up->inputs[1]) ||
        written_between(fusion, gate->inputs[0], gate < up ? gate : up, swiglu)) {
        return;
    }
    swiglu->kind = SL_OP_MATMUL_SWIGLU;
    swiglu->n_inputs = sl_op_definition_of(SL_OP_MATMUL_SWIGLU)->n_inputs;
    swiglu->inputs[0] = gate->inputs[0];
    swiglu->inputs[1] = gate->inputs[1];
    swiglu->inputs[2] = up->inputs[1];
    remove_op(fusion, gate);
    remove_op(fusion, up);
}

/* ADD of two batches, then RMS_NORM of the sum: ADD_RMS_NORM, where the ADD stood; the sum stays readable. */
static void fuse_add_rms_norm(fusion_state *fusion, sl_op *norm)
{
    if (norm->kind != SL_OP_RMS_NORM || fusion->graph->values[norm->inputs[0].index].kind != SL_VALUE_TEMPORARY) {
        return;
    }
    sl_op *add = &fusion->graph->ops[fusion->uses[norm->inputs[0].index].first_write];
    if (add->kind != SL_OP_ADD || fusion->graph->values[add->inputs[1].index].shape.n_dims != 2 ||
        written_between(fusion, norm->inputs[0], add, norm)) {
        return;
    }
    add->kind = SL_OP_ADD_RMS_NORM;
    add->attributes = norm->attributes;
    add->n_inputs = sl_op_definition_of(SL_OP_ADD_RMS_NORM)->n_inputs;
    add->n_outputs = sl_op_definition_of(SL_OP_ADD_RMS_NORM)->n_outputs;
    add->inputs[2] = norm->inputs[1];
    add->outputs[1] = norm->outputs[0];
    remove_op(fusion, norm);
}

static void compact(sl_graph *graph, const bool *removed)
{
    uint32_t n_kept = 0;
    for (uint32_t i = 0; i < graph->n_ops; i++) {
        if (!removed[i]) {
            graph->ops[n_kept++] = graph->ops[i];
        }
    }
    graph->n_ops = n_kept;
}

sluice_status sl_graph_fuse(sl_graph *graph, sluice_error *error)
{
    SL_TRY(sl_graph_verify(graph, error));
    /* Each looks for what the ones before it made. */
    static fusion_rule *const rules[] = {fuse_bias, fuse_swiglu, fuse_matmul_swiglu, fuse_add_rms_norm};
    fusion_state fusion = {.graph = graph};
    fusion.uses = sl_alloc(graph->memory, SL_MEMORY_OTHER, graph->n_values, sizeof *fusion.uses);
    fusion.removed = sl_alloc(graph->memory, SL_MEMORY_OTHER, graph->n_ops, sizeof *fusion.removed);
    sluice_status status = SLUICE_OK;
    if (fusion.uses == NULL || fusion.removed == NULL) {
        status = sl_error_no_memory(error, graph->n_values * sizeof *fusion.uses, "fusing a graph");
    } else {
        for (size_t i_rule = 0; i_rule < sizeof rules / sizeof rules[0]; i_rule++) {
            count_uses(&fusion);
            for (uint32_t i = 0; i < graph->n_ops; i++) {
                if (!fusion.removed[i]) {
                    rules[i_rule](&fusion, &graph->ops[i]);
                }
            }
        }
        compact(graph, fusion.removed);
    }
    sl_free(graph->memory, fusion.removed);
    sl_free(graph->memory, fusion.uses);
    return status;
}

sluice_status sl_graph_drop_dead(sl_graph *graph, sluice_error *error)
{
    bool *needed = sl_alloc(graph->memory, SL_MEMORY_OTHER, graph->n_values, sizeof *needed); /* [n_values] */
    bool *removed = sl_alloc(graph->memory, SL_MEMORY_OTHER, graph->n_ops, sizeof *removed);  /* [n_ops] */
    sluice_status status = SLUICE_OK;
    if (needed == NULL || removed == NULL) {
        status = sl_error_no_memory(error, graph->n_values, "dropping dead operations");
    } else {
        for (uint32_t i = 0; i < graph->n_values; i++) {
            needed[i] = graph->values[i].is_output || graph->values[i].kind == SL_VALUE_STATE;
        }
        for (uint32_t i = graph->n_ops; i-- > 0;) {
            const sl_op *op = &graph->ops[i];
            removed[i] = !sl_op_is_hint(op->kind);
            for (uint32_t j = 0; j < op->n_outputs; j++) {
                removed[i] = removed[i] && !needed[op->outputs[j].index];
            }
            for (uint32_t j = 0; j < op->n_inputs && !removed[i]; j++) {
                if (sl_value_exists(op->inputs[j])) {
                    needed[op->inputs[j].index] = true;
                }
            }
        }
        compact(graph, removed);
    }
    sl_free(graph->memory, removed);
    sl_free(graph->memory, needed);
    return status;
}
