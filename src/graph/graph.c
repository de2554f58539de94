/* Building a graph.
 *
 * Owns: the arrays of values and operations of an sl_graph.
 * Invariants:
 *   1. error.status is SLUICE_OK, or the graph stopped growing at its first error and keeps that sentence.
 *   2. Every operation appended by sl_graph_op passed sl_op_check, and its outputs have the inferred types and shapes.
 *   3. An in-place operation names the rewritten input again as its output and creates no value.
 *   4. Values are only appended: an index stays valid as long as the graph.
 * Threads: one owner. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "graph/definitions.h"

void sl_graph_init(sl_graph *graph, sl_memory *memory)
{
    *graph = (sl_graph){.memory = memory};
}

void sl_graph_fini(sl_graph *graph)
{
    sl_free(graph->memory, graph->values);
    sl_free(graph->memory, graph->ops);
    *graph = (sl_graph){.memory = graph->memory};
}

sluice_status sl_graph_copy(sl_graph *graph, const sl_graph *source, sluice_error *error)
{
    sl_value_info *values = sl_alloc(graph->memory, SL_MEMORY_OTHER, source->values_capacity, sizeof *values);
    sl_op *ops = sl_alloc(graph->memory, SL_MEMORY_OTHER, source->ops_capacity, sizeof *ops);
    if (values == NULL || ops == NULL) {
        sl_free(graph->memory, values);
        sl_free(graph->memory, ops);
        return sl_error_no_memory(error, source->n_ops * sizeof *ops, "a copy of a graph");
    }
    if (source->n_values > 0) {
        memcpy(values, source->values, source->n_values * sizeof *values);
    }
    if (source->n_ops > 0) {
        memcpy(ops, source->ops, source->n_ops * sizeof *ops);
    }
    sl_memory *memory = graph->memory;
    *graph = *source;
    graph->memory = memory;
    graph->values = values;
    graph->ops = ops;
    return SLUICE_OK;
}

/* `elements` grown so that one more fits, or NULL with the graph's error set. */
static void *grown(sl_graph *graph, void *elements, uint32_t count, uint32_t *capacity, size_t size, const char *what)
{
    if (count < *capacity) {
        return elements;
    }
    uint32_t wanted = *capacity == 0 ? 32 : *capacity * 2;
    if (wanted <= *capacity) {
        sl_error_set(&graph->error, SLUICE_ERROR_ARGUMENT, "the graph has too many %s: at most %" PRIu32 " fit", what,
                     *capacity);
        return NULL;
    }
    void *larger = sl_realloc(graph->memory, SL_MEMORY_OTHER, elements, wanted, size);
    if (larger == NULL) {
        sl_error_no_memory(&graph->error, (unsigned long long)wanted * size, what);
        return NULL;
    }
    *capacity = wanted;
    return larger;
}

sl_value sl_graph_append_value(sl_graph *graph, const sl_value_info *info)
{
    sl_value_info *values =
        grown(graph, graph->values, graph->n_values, &graph->values_capacity, sizeof *values, "values of a graph");
    if (values == NULL) {
        return SL_NO_VALUE;
    }
    graph->values = values;
    values[graph->n_values] = *info;
    return (sl_value){graph->n_values++};
}

bool sl_graph_append_op(sl_graph *graph, const sl_op *op)
{
    sl_op *ops = grown(graph, graph->ops, graph->n_ops, &graph->ops_capacity, sizeof *ops, "operations of a graph");
    if (ops == NULL) {
        return false;
    }
    graph->ops = ops;
    ops[graph->n_ops++] = *op;
    return true;
}

/* Whether the dimensions are ones that a value of this kind may have. */
static sluice_status check_shape(const char *name, sl_value_kind kind, const sl_shape *shape, sluice_error *error)
{
    if (shape->n_dims == 0 || shape->n_dims > SL_GRAPH_MAX_DIMS) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "value '%s' has %" PRIu32 " dimensions: 1 to %d are possible",
                            name, shape->n_dims, SL_GRAPH_MAX_DIMS);
    }
    uint32_t n_positions = 0;
    for (uint32_t i = 0; i < shape->n_dims; i++) {
        uint64_t dim = shape->dims[i];
        bool is_rows = dim == SL_DIM_ROWS;
        bool is_positions = dim == SL_DIM_POSITIONS;
        bool rows_expected = kind == SL_VALUE_INPUT && i == 0;
        n_positions += is_positions;
        bool allowed = rows_expected  ? is_rows
                       : is_positions ? kind == SL_VALUE_STATE && i > 0 && n_positions == 1
                                      : dim >= 1 && dim <= SL_DIM_MAX;
        if (!allowed) {
            char text[SL_SHAPE_TEXT_BYTES];
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "value '%s' has shape %s: dimension %" PRIu32
                                " is not possible there (inputs begin with the rows of the batch, positions are for "
                                "states, every other dimension is between 1 and %" PRIu64 ")",
                                name, sl_shape_text(shape, text), i, SL_DIM_MAX);
        }
    }
    return SLUICE_OK;
}

static sluice_status check_type(const char *name, sl_value_kind kind, sl_type type, sluice_error *error)
{
    const sl_type_traits *traits = sl_type_traits_of((int)type);
    bool allowed = false;
    const char *expected = "";
    switch (kind) {
    case SL_VALUE_INPUT:
    case SL_VALUE_TEMPORARY:
        allowed = type == SL_TYPE_F32 || type == SL_TYPE_I32;
        expected = "F32 or I32";
        break;
    case SL_VALUE_WEIGHT:
        allowed = traits != NULL && traits->decode_row != NULL;
        expected = "a type this build can decode";
        break;
    case SL_VALUE_STATE:
        allowed = type == SL_TYPE_F32 || type == SL_TYPE_F16 || type == SL_TYPE_Q8_0;
        expected = "F32, F16 or Q8_0";
        break;
    }
    if (allowed) {
        return SLUICE_OK;
    }
    return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "value '%s' has type %s (%d): expected %s", name,
                        traits != NULL ? traits->name : "unknown", (int)type, expected);
}

static sl_value add_outside(sl_graph *graph, const char *name, sl_value_kind kind, sl_type type, sl_shape shape)
{
    sluice_error *error = &graph->error;
    if (error->status != SLUICE_OK) {
        return SL_NO_VALUE;
    }
    size_t length = strlen(name);
    if (length == 0 || length >= SL_GRAPH_NAME_BYTES) {
        sl_error_set(error, SLUICE_ERROR_ARGUMENT, "value name '%.80s' has %zu bytes: 1 to %d are possible", name,
                     length, SL_GRAPH_NAME_BYTES - 1);
        return SL_NO_VALUE;
    }
    if (check_type(name, kind, type, error) != SLUICE_OK || check_shape(name, kind, &shape, error) != SLUICE_OK) {
        return SL_NO_VALUE;
    }
    sl_value_info info = {.kind = kind, .type = type, .shape = shape};
    memcpy(info.name, name, length + 1);
    return sl_graph_append_value(graph, &info);
}

sl_value sl_graph_input(sl_graph *graph, const char *name, sl_type type, sl_shape shape)
{
    return add_outside(graph, name, SL_VALUE_INPUT, type, shape);
}

sl_value sl_graph_weight(sl_graph *graph, const char *name, sl_type type, sl_shape shape)
{
    return add_outside(graph, name, SL_VALUE_WEIGHT, type, shape);
}

sl_value sl_graph_state(sl_graph *graph, const char *name, sl_type type, sl_shape shape)
{
    return add_outside(graph, name, SL_VALUE_STATE, type, shape);
}

/* Name the rewritten inputs or create new values; false when memory is refused. */
static bool create_outputs(sl_graph *graph, sl_op *op, const sl_op_result *results)
{
    const sl_op_definition *definition = sl_op_definition_of(op->kind);
    op->n_outputs = definition->n_outputs;
    for (uint32_t i = 0; i < op->n_outputs; i++) {
        if (definition->in_place) {
            op->outputs[i] = op->inputs[definition->first_rewritten + i];
            continue;
        }
        sl_value_info info = {.kind = SL_VALUE_TEMPORARY, .type = results[i].type, .shape = results[i].shape};
        if (op->n_outputs == 1) {
            snprintf(info.name, sizeof info.name, "%s.%" PRIu32, definition->name, graph->n_ops);
        } else {
            snprintf(info.name, sizeof info.name, "%s.%" PRIu32 ".%" PRIu32, definition->name, graph->n_ops, i);
        }
        op->outputs[i] = sl_graph_append_value(graph, &info);
        if (!sl_value_exists(op->outputs[i])) {
            return false;
        }
    }
    return true;
}

sl_value sl_graph_op(sl_graph *graph, sl_op_kind kind, const sl_value *inputs, uint32_t n_inputs,
                     const sl_op_attributes *attributes, sl_value *outputs)
{
    const sl_op_definition *definition = sl_op_definition_of(kind);
    uint32_t n_outputs = definition != NULL ? definition->n_outputs : 0;
    for (uint32_t i = 0; outputs != NULL && i < n_outputs; i++) {
        outputs[i] = SL_NO_VALUE;
    }
    if (graph->error.status != SLUICE_OK) {
        return SL_NO_VALUE;
    }
    sl_op op = {.kind = kind, .n_inputs = n_inputs};
    for (uint32_t i = 0; i < SL_OP_MAX_INPUTS; i++) {
        op.inputs[i] = i < n_inputs ? inputs[i] : SL_NO_VALUE;
    }
    for (uint32_t i = 0; i < SL_OP_MAX_OUTPUTS; i++) {
        op.outputs[i] = SL_NO_VALUE;
    }
    if (attributes != NULL) {
        op.attributes = *attributes;
    }
    if (definition != NULL && n_inputs <= definition->n_inputs) {
        op.n_inputs = definition->n_inputs;
    }
    sl_op_result results[SL_OP_MAX_OUTPUTS];
    if (sl_op_check(graph, &op, results, &graph->error) != SLUICE_OK || !create_outputs(graph, &op, results) ||
        !sl_graph_append_op(graph, &op)) {
        return SL_NO_VALUE;
    }
    for (uint32_t i = 0; outputs != NULL && i < op.n_outputs; i++) {
        outputs[i] = op.outputs[i];
    }
    return op.outputs[0];
}

void sl_graph_mark_output(sl_graph *graph, sl_value value)
{
    if (graph->error.status != SLUICE_OK) {
        return;
    }
    if (value.index >= graph->n_values) {
        sl_error_set(&graph->error, SLUICE_ERROR_ARGUMENT, "an output names value %" PRIu32 ": the graph has %" PRIu32,
                     value.index, graph->n_values);
        return;
    }
    sl_value_info *info = &graph->values[value.index];
    if (info->kind != SL_VALUE_TEMPORARY) {
        sl_error_set(&graph->error, SLUICE_ERROR_ARGUMENT,
                     "value '%s' comes from outside and cannot be an output: only results of operations can",
                     info->name);
        return;
    }
    info->is_output = true;
}
