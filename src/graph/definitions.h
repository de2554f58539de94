/* What the passes share: one row per operation kind, and raw growth of a graph. Internal to this folder. */
#ifndef SL_GRAPH_DEFINITIONS_H
#define SL_GRAPH_DEFINITIONS_H

#include "graph/graph.h"

/* Which attributes a kind uses. */
enum {
    SL_ATTRIBUTE_EPSILON = 1u << 0,
    SL_ATTRIBUTE_LIMIT = 1u << 1,
    SL_ATTRIBUTE_N_HEADS = 1u << 2,
    SL_ATTRIBUTE_N_KV_HEADS = 1u << 3,
    SL_ATTRIBUTE_HEAD_DIM = 1u << 4,
    SL_ATTRIBUTE_VALUE_DIM = 1u << 5,
    SL_ATTRIBUTE_SCALE = 1u << 6,
    SL_ATTRIBUTE_N_ROT = 1u << 7,
    SL_ATTRIBUTE_ROPE_TABLE = 1u << 8, /* rope_base, rope_scale */
    SL_ATTRIBUTE_PAIRING = 1u << 9,
    SL_ATTRIBUTE_ROUTE = 1u << 10,   /* n_experts, n_used, gating, renormalise, weights_scale */
    SL_ATTRIBUTE_EXPERTS = 1u << 11, /* n_experts, n_used, expert_layer, n_ff and the three types */
    SL_ATTRIBUTE_PREDICT = 1u << 12  /* n_experts, n_used, expert_layer */
};

typedef struct sl_op_result {
    sl_type type;
    sl_shape shape;
} sl_op_result;

/* Check the inputs of `op` and give the type and shape of each output. Inputs exist. */
typedef sluice_status sl_op_infer_fn(const sl_graph *graph, const sl_op *op, sl_op_result *results,
                                     sluice_error *error);

typedef struct sl_op_definition {
    const char *name;
    uint32_t n_inputs; /* with the optional ones */
    uint32_t optional; /* bit i: inputs[i] may be absent */
    uint32_t n_outputs;
    uint32_t attributes;
    bool in_place; /* output i is input first_rewritten + i */
    uint32_t first_rewritten;
    sl_op_infer_fn *infer; /* NULL: only lowering makes it */
} sl_op_definition;

/* NULL for a number that is no kind. */
const sl_op_definition *sl_op_definition_of(sl_op_kind kind);

/* Check number, existence, kinds, types and shapes of the inputs and infer the outputs. ARGUMENT says what does not
 * fit. */
SLUICE_NODISCARD sluice_status sl_op_check(const sl_graph *graph, const sl_op *op, sl_op_result *results,
                                           sluice_error *error);

/* Whether `op` rewrites the value that it names as outputs[i_output]. */
bool sl_op_rewrites(const sl_op *op, uint32_t i_output);

/* "[rows][64]" into `buffer`; returns `buffer`. */
enum { SL_SHAPE_TEXT_BYTES = 96 };
const char *sl_shape_text(const sl_shape *shape, char buffer[SL_SHAPE_TEXT_BYTES]);

/* Append without any check; SL_NO_VALUE or false, and the graph's error, when memory is refused. */
sl_value sl_graph_append_value(sl_graph *graph, const sl_value_info *info);
SLUICE_NODISCARD bool sl_graph_append_op(sl_graph *graph, const sl_op *op);

#endif
