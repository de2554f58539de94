/* The graph IR: an ordered list of typed operations on values. A model file builds one (through graph/roles.h), the
 * passes check, fuse and plan it, and graph/program.h lowers it to a flat program. Knows no I/O and no threads. */
#ifndef SL_GRAPH_GRAPH_H
#define SL_GRAPH_GRAPH_H

#include <stdbool.h>

#include "base/memory.h"
#include "base/strings.h"
#include "kernels/table.h"
#include "quant/traits.h"

/* A value of a graph: what an operation reads or writes. */
typedef struct sl_value {
    uint32_t index;
} sl_value;

#define SL_NO_VALUE ((sl_value){UINT32_MAX})

static inline bool sl_value_exists(sl_value value)
{
    return value.index != UINT32_MAX;
}

enum { SL_GRAPH_MAX_DIMS = 4, SL_OP_MAX_INPUTS = 6, SL_OP_MAX_OUTPUTS = 6, SL_GRAPH_NAME_BYTES = 64 };

/* Dimensions that are known only when a program is compiled (rows) or run (positions). */
#define SL_DIM_ROWS                                                                                                    \
    ((uint64_t)UINT64_MAX)                          /* tokens in the batch: the outermost dimension of inputs and      \
                                                     * temporaries, and of nothing else */
#define SL_DIM_POSITIONS ((uint64_t)UINT64_MAX - 1) /* capacity of a KV cache; only in states, and not outermost */
#define SL_DIM_MAX ((uint64_t)INT32_MAX)            /* every other dimension lies in [1, SL_DIM_MAX] */

typedef struct sl_shape {
    uint32_t n_dims;                  /* 1 to 4 */
    uint64_t dims[SL_GRAPH_MAX_DIMS]; /* outermost first; the last one is contiguous */
} sl_shape;

typedef enum sl_value_kind {
    SL_VALUE_INPUT,    /* bound for each run, only read */
    SL_VALUE_WEIGHT,   /* bound once, only read */
    SL_VALUE_STATE,    /* bound once per session, read and written (KV caches) */
    SL_VALUE_TEMPORARY /* written by an operation, lives in the arena */
} sl_value_kind;

typedef struct sl_value_info {
    char name[SL_GRAPH_NAME_BYTES]; /* a weight's name is its tensor's name */
    sl_value_kind kind;
    sl_type
        type; /* F32, I32; a weight: any readable type; a state: F32, F16 or Q8_0; after lowering: activation forms */
    sl_shape shape;
    bool is_output; /* a temporary that must survive until the end of the run */
} sl_value_info;

/* R: rows of the batch. All floats are F32. Matrices [out][in] are weights of any readable type, vectors [n] weights of
 * type F32. */
typedef enum sl_op_kind {
    SL_OP_EMBED,         /* (tokens I32 [R], table [vocab][d]) -> [R][d] */
    SL_OP_MATMUL,        /* (x [R][in], weight [out][in], bias [out] or none) -> [R][out] */
    SL_OP_RMS_NORM,      /* (x [R][d], weight [d]) -> [R][d] */
    SL_OP_NORM_HEADS,    /* (x [R][h * group], weight [group]) -> x itself: an RMS norm of each group, in place */
    SL_OP_ADD,           /* (a [R][d], b [R][d] or [d]) -> [R][d] */
    SL_OP_MULTIPLY,      /* (a [R][d], b [R][d]) -> [R][d] */
    SL_OP_CLAMP,         /* (x) -> x itself, in place */
    SL_OP_SILU,          /* (x) -> same shape */
    SL_OP_GELU,          /* (x) -> same shape */
    SL_OP_SOFTMAX,       /* (x [R][d]) -> [R][d], over the last dimension */
    SL_OP_SIGMOID_SCALE, /* (x [R][d], gate [R][1]) -> [R][d] */
    SL_OP_ROPE_TABLE,    /* (positions I32 [R], factors [n_rot / 2] or none) -> [R][n_rot] */
    SL_OP_ROPE,          /* (x [R][n_heads * head_dim], table [R][n_rot]) -> x itself, in place */
    SL_OP_KV_STORE,  /* (k [R][kv * kd], v [R][kv * vd], positions, K state, V state) -> K state, V state, in place */
    SL_OP_ATTENTION, /* (q [R][h * kd], positions, K state [kv][P][kd], V state [kv][P][vd]) -> [R][h * vd] */
    SL_OP_ROUTE,     /* (logits [R][n_experts]) -> ids I32 [R][k], weights [R][k] */
    SL_OP_EXPERTS,   /* (x [R][d], ids, weights) -> [R][d]; the experts' matrices come from the store */
    SL_OP_PREDICT,   /* (logits [R][n_experts]) -> ids I32 [R][k]: a hint, see sl_op_is_hint */

    /* Made by fusion. */
    SL_OP_SWIGLU,        /* (gate, up) -> silu(gate) * up */
    SL_OP_ADD_RMS_NORM,  /* (a, b, weight) -> sum, normed */
    SL_OP_MATMUL_SWIGLU, /* (x [R][in], gate [out][in], up [out][in]) -> [R][out]; gate and up share an activation form
                          */

    /* Made by lowering. */
    SL_OP_QUANTIZE, /* (x [R][d]) -> the same in an activation form */
    SL_OP_KIND_COUNT
} sl_op_kind;

typedef enum sl_gating {
    SL_GATING_SOFTMAX /* probabilities over all experts, then the top k */
} sl_gating;

/* Which fields of an operation's attributes are used is said at each kind. */
typedef struct sl_op_attributes {
    float epsilon;                         /* RMS_NORM, NORM_HEADS, ADD_RMS_NORM */
    float limit;                           /* CLAMP */
    uint32_t n_heads;                      /* ROPE, ATTENTION: query heads */
    uint32_t n_kv_heads;                   /* KV_STORE, ATTENTION */
    uint32_t head_dim;                     /* ROPE; NORM_HEADS: the group; KV_STORE, ATTENTION: of queries and keys */
    uint32_t value_dim;                    /* KV_STORE, ATTENTION */
    float scale;                           /* ATTENTION */
    uint32_t n_rot;                        /* ROPE_TABLE, ROPE */
    float rope_base;                       /* ROPE_TABLE */
    float rope_scale;                      /* ROPE_TABLE */
    sl_rope_pairing pairing;               /* ROPE */
    uint32_t n_experts;                    /* ROUTE, EXPERTS, PREDICT */
    uint32_t n_used;                       /* ROUTE, EXPERTS, PREDICT: k */
    sl_gating gating;                      /* ROUTE */
    bool renormalise;                      /* ROUTE: weights / max(sum, 2^-14) */
    float weights_scale;                   /* ROUTE: 0 or 1: none */
    uint32_t expert_layer;                 /* EXPERTS, PREDICT: number among the layers that have experts */
    uint32_t n_ff;                         /* EXPERTS: rows of gate and up */
    sl_type gate_type, up_type, down_type; /* EXPERTS */
} sl_op_attributes;

/* While a graph is built, optional inputs may be left away at the end; in `ops` they are SL_NO_VALUE. */
typedef struct sl_op {
    sl_op_kind kind;
    uint32_t n_inputs;
    uint32_t n_outputs;
    sl_value inputs[SL_OP_MAX_INPUTS];   /* SL_NO_VALUE for an optional input that is absent */
    sl_value outputs[SL_OP_MAX_OUTPUTS]; /* an in-place operation names its input here again */
    sl_op_attributes attributes;
} sl_op;

/* thread: owner only. The first error of building is kept, later calls do nothing, and verifying reports it: a builder
 * need not check each step. */
typedef struct sl_graph {
    sl_memory *memory;     /* borrowed: outlives the graph */
    sl_value_info *values; /* owned; [n_values] */
    uint32_t n_values, values_capacity;
    sl_op *ops; /* owned; [n_ops], in execution order */
    uint32_t n_ops, ops_capacity;
    sluice_error error; /* status OK while building went well */
} sl_graph;

void sl_graph_init(sl_graph *graph, sl_memory *memory);
void sl_graph_fini(sl_graph *graph);

/* Make `graph`, freshly initialised, equal to `source`, with memory of its own. */
SLUICE_NODISCARD sluice_status sl_graph_copy(sl_graph *graph, const sl_graph *source, sluice_error *error);

/* Values from outside. `name` is copied; one longer than SL_GRAPH_NAME_BYTES - 1 is an error. Names are unique among
 * them. */
sl_value sl_graph_input(sl_graph *graph, const char *name, sl_type type, sl_shape shape);
sl_value sl_graph_weight(sl_graph *graph, const char *name, sl_type type, sl_shape shape);
sl_value sl_graph_state(sl_graph *graph, const char *name, sl_type type, sl_shape shape);

/* Append an operation: checks number, kinds, types and shapes of its inputs, infers and creates its outputs.
 * `attributes` may be NULL for all zero; `outputs` may be NULL when only the first is wanted, else it has room for all
 * of the kind's. Returns the first output, SL_NO_VALUE after an error. */
sl_value sl_graph_op(sl_graph *graph, sl_op_kind kind, const sl_value *inputs, uint32_t n_inputs,
                     const sl_op_attributes *attributes, sl_value *outputs);
/* Only temporaries can be outputs. */
void sl_graph_mark_output(sl_graph *graph, sl_value value);

static inline sl_shape sl_shape_of_1(uint64_t a)
{
    return (sl_shape){.n_dims = 1, .dims = {a}};
}
static inline sl_shape sl_shape_of_2(uint64_t a, uint64_t b)
{
    return (sl_shape){.n_dims = 2, .dims = {a, b}};
}
static inline sl_shape sl_shape_of_3(uint64_t a, uint64_t b, uint64_t c)
{
    return (sl_shape){.n_dims = 3, .dims = {a, b, c}};
}

/* Check the whole graph: the building error if there is one; every read value was written before or comes from outside;
 * nothing from outside but states is written; only in-place kinds rewrite a value; shapes and types still fit. */
SLUICE_NODISCARD sluice_status sl_graph_verify(const sl_graph *graph, sluice_error *error);

/* Fuse in place: silu * multiply to SWIGLU, two products of one input under SWIGLU to MATMUL_SWIGLU, add then norm to
 * ADD_RMS_NORM, product then add of a [out] vector to a product with bias. A fusion never changes a bit of the result:
 * fused kernels compute the same sequence. The fused-away values keep their entries but are no longer written. */
SLUICE_NODISCARD sluice_status sl_graph_fuse(sl_graph *graph, sluice_error *error);

/* Drop operations whose results nobody reads (outputs, states and what hints name count as read). On failure the graph
 * is as before. */
SLUICE_NODISCARD sluice_status sl_graph_drop_dead(sl_graph *graph, sluice_error *error);

/* One line per value and operation, stable: for goldens and for people. */
SLUICE_NODISCARD bool sl_graph_dump(const sl_graph *graph, sl_text *out);

/* "matmul", "rms_norm", ... */
const char *sl_op_name(sl_op_kind kind);

/* Whether the kind's results are for the store alone: no other operation reads them, nothing that is computed depends
 * on whether it runs, and it counts as needed all the same. */
bool sl_op_is_hint(sl_op_kind kind);

/* When a buffer is alive: operations [first_write, last_read], inclusive. */
typedef struct sl_interval {
    uint32_t value;
    uint32_t first_write;
    uint32_t last_read; /* equals first_write for a value that is written and never read */
} sl_interval;

/* Intervals of all values that some operation writes and that are not from outside, sorted by (first_write, value).
 * first_write is set once; last_read is updated only after the first write; outputs live to the last operation.
 * `intervals` has room for n_values; returns how many. */
uint32_t sl_graph_lifetimes(const sl_graph *graph, sl_interval *intervals);

/* Colour intervals greedily by (first_write, value), lowest free colour first; intervals that touch at one operation
 * get different colours. `intervals` may come in any order; colours[i] belongs to intervals[i]. false when memory is
 * refused. */
SLUICE_NODISCARD bool sl_intervals_colour(const sl_interval *intervals, uint32_t n_intervals, sl_memory *memory,
                                          uint32_t *colours, uint32_t *n_colours);

#endif
