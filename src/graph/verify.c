/* Checking a whole graph: order of writes and reads, what may be written, and that shapes and types still fit.
 *
 * Owns: nothing; scratch is released before returning.
 * Invariant: a graph that verifies can be fused, planned and lowered without looking at these rules again.
 * Threads: reads the graph; its owner. */
#include <inttypes.h>
#include <string.h>

#include "base/map.h"
#include "graph/definitions.h"

/* Names of values from outside are how they are bound: each must mean one value. */
static sluice_status check_names(const sl_graph *graph, sl_map *names, sluice_error *error)
{
    for (uint32_t i = 0; i < graph->n_values; i++) {
        const sl_value_info *info = &graph->values[i];
        if (info->kind == SL_VALUE_TEMPORARY) {
            continue;
        }
        bool existing = false;
        if (!sl_map_insert(names, sl_span_of(info->name), i, &existing)) {
            return sl_error_no_memory(error, sizeof(sl_map_entry), "the names of a graph");
        }
        if (existing) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "the graph has two values named '%s': names of inputs, weights and states are unique",
                                info->name);
        }
    }
    return SLUICE_OK;
}

static sluice_status check_reads(const sl_graph *graph, uint32_t i_op, const bool *written, sluice_error *error)
{
    const sl_op *op = &graph->ops[i_op];
    for (uint32_t i = 0; i < op->n_inputs; i++) {
        if (!sl_value_exists(op->inputs[i])) {
            continue;
        }
        const sl_value_info *info = &graph->values[op->inputs[i].index];
        if (info->kind == SL_VALUE_TEMPORARY && !written[op->inputs[i].index]) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "operation %" PRIu32 " (%s) reads '%s', which nothing before it writes", i_op,
                                sl_op_name(op->kind), info->name);
        }
    }
    return SLUICE_OK;
}

static bool equal_shapes(const sl_shape *a, const sl_shape *b)
{
    return a->n_dims == b->n_dims && memcmp(a->dims, b->dims, a->n_dims * sizeof a->dims[0]) == 0;
}

static sluice_status check_writes(const sl_graph *graph, uint32_t i_op, const sl_op_result *results, bool *written,
                                  sluice_error *error)
{
    const sl_op *op = &graph->ops[i_op];
    const sl_op_definition *definition = sl_op_definition_of(op->kind);
    const char *name = definition->name;
    if (op->n_outputs != definition->n_outputs) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "operation %" PRIu32 " (%s) has %" PRIu32 " outputs: expected %" PRIu32, i_op, name,
                            op->n_outputs, definition->n_outputs);
    }
    for (uint32_t i = 0; i < op->n_outputs; i++) {
        uint32_t index = op->outputs[i].index;
        if (index >= graph->n_values) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "operation %" PRIu32 " (%s): output %" PRIu32 " is missing", i_op, name, i);
        }
        const sl_value_info *info = &graph->values[index];
        if (info->kind == SL_VALUE_INPUT || info->kind == SL_VALUE_WEIGHT) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "operation %" PRIu32 " (%s) writes '%s', which comes from outside and is only read",
                                i_op, name, info->name);
        }
        if (definition->in_place) {
            if (index != op->inputs[definition->first_rewritten + i].index) {
                return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                    "operation %" PRIu32 " (%s) works in place: its output must be its input", i_op,
                                    name);
            }
        } else if (info->kind == SL_VALUE_STATE) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "operation %" PRIu32 " (%s) writes state '%s': only in-place kinds may", i_op, name,
                                info->name);
        } else if (written[index]) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "operation %" PRIu32 " (%s) writes '%s' again: only in-place kinds may", i_op, name,
                                info->name);
        }
        if (info->type != results[i].type || !equal_shapes(&info->shape, &results[i].shape)) {
            char found[SL_SHAPE_TEXT_BYTES];
            char expected[SL_SHAPE_TEXT_BYTES];
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "operation %" PRIu32 " (%s): output '%s' has type %d and shape %s: expected %d and %s",
                                i_op, name, info->name, (int)info->type, sl_shape_text(&info->shape, found),
                                (int)results[i].type, sl_shape_text(&results[i].shape, expected));
        }
        written[index] = true;
    }
    return SLUICE_OK;
}

static sluice_status check_operations(const sl_graph *graph, bool *written, sluice_error *error)
{
    for (uint32_t i = 0; i < graph->n_ops; i++) {
        sl_op_result results[SL_OP_MAX_OUTPUTS];
        SL_TRY(sl_op_check(graph, &graph->ops[i], results, error));
        SL_TRY(check_reads(graph, i, written, error));
        SL_TRY(check_writes(graph, i, results, written, error));
    }
    for (uint32_t i = 0; i < graph->n_values; i++) {
        if (graph->values[i].is_output && !written[i]) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "output '%s' is written by no operation",
                                graph->values[i].name);
        }
    }
    return SLUICE_OK;
}

sluice_status sl_graph_verify(const sl_graph *graph, sluice_error *error)
{
    if (graph->error.status != SLUICE_OK) {
        if (error != NULL) {
            *error = graph->error;
        }
        return graph->error.status;
    }
    sl_map names;
    sl_map_init(&names, graph->memory, SL_MEMORY_OTHER);
    bool *written = sl_alloc(graph->memory, SL_MEMORY_OTHER, graph->n_values, sizeof *written); /* [n_values] */
    sluice_status status;
    if (written == NULL) {
        status = sl_error_no_memory(error, graph->n_values, "checking a graph");
    } else {
        status = check_names(graph, &names, error);
        if (status == SLUICE_OK) {
            status = check_operations(graph, written, error);
        }
    }
    sl_free(graph->memory, written);
    sl_map_fini(&names);
    return status;
}
