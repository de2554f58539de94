/* A flat program: what a graph becomes for one batch-size bucket. Every buffer has its place, nothing is decided or
 * allocated when it runs, and it runs on the active rows only. */
#ifndef SL_GRAPH_PROGRAM_H
#define SL_GRAPH_PROGRAM_H

#include "graph/plan.h"

typedef enum sl_place_kind {
    SL_PLACE_NONE,   /* an absent optional input */
    SL_PLACE_ARENA,  /* at `offset` in the run's arena */
    SL_PLACE_BINDING /* at bindings[binding] */
} sl_place_kind;

/* Where a value is and how its rows lie. */
typedef struct sl_place {
    sl_place_kind kind;
    sl_type type;
    uint64_t offset;    /* ARENA: bytes, a multiple of SL_ARENA_ALIGNMENT */
    uint32_t binding;   /* BINDING */
    uint64_t rows;      /* outermost dimension: the bucket's rows for SL_DIM_ROWS */
    uint64_t width;     /* elements in one row: product of the other dimensions; 1-dimensional values: rows = 1 for
                         * weights (vectors), width = 1 for batch values ([R]). States [heads][positions][dim]:
                         * rows = heads and width = dim, the elements of one position: the capacity comes with the binding */
    uint64_t row_bytes; /* of `width` elements; rows lie one after another without gaps */
} sl_place;

/* Scratch place of a MATMUL_SWIGLU step, as its second output: [R][out]. */
enum { SL_SWIGLU_UP = 1 };

/* Scratch places of an EXPERTS step, as its outputs after the first. Pairs are (token, rank), R * k of them. */
enum {
    SL_EXPERTS_OUT = 0,  /* [R][d] */
    SL_EXPERTS_GATHERED, /* [R * k][d] in the activation form of gate and up: rows sorted by expert */
    SL_EXPERTS_GATE,     /* [R * k][n_ff]; also receives silu(gate) * up */
    SL_EXPERTS_UP,       /* [R * k][n_ff] */
    SL_EXPERTS_HIDDEN,   /* [R * k][n_ff] in the activation form of down; absent when that is F32 */
    SL_EXPERTS_PAIR_OUT  /* [R * k][d]: one expert's output for one token */
};

typedef struct sl_step {
    sl_op_kind kind;
    uint32_t op;   /* index in the graph it was lowered from, for traces; QUANTIZE: of its first reader */
    bool for_hint; /* only hints depend on it: leaving all such steps out changes no result */
    sl_place inputs[SL_OP_MAX_INPUTS];
    sl_place outputs[SL_OP_MAX_OUTPUTS];
    sl_op_attributes attributes;
} sl_step;

typedef struct sl_binding {
    sl_value value; /* of the graph */
    sl_value_kind kind;
    char name[SL_GRAPH_NAME_BYTES];
    sl_place place;
} sl_binding;

/* Immutable after compile; any thread may read it. */
typedef struct sl_program {
    sl_memory *memory; /* borrowed: outlives the program */
    sl_step *steps;    /* owned; [n_steps] */
    uint32_t n_steps;
    sl_binding *bindings; /* owned; [n_bindings]: inputs, weights and states in the order they were declared */
    uint32_t n_bindings;
    sl_place *outputs; /* owned; [n_outputs]: values marked as outputs, in value order */
    uint32_t n_outputs;
    sl_plan_buffer *buffers; /* owned; [n_buffers]: the arena's plan, by (first_write, value); lifetimes are steps */
    uint32_t n_buffers;
    uint32_t n_colours;      /* the fewest buffers that could hold everything if all were equal in size */
    uint64_t rows;           /* capacity of the bucket */
    uint64_t arena_bytes;    /* what a run needs, aligned to SL_ARENA_ALIGNMENT */
    uint64_t unshared_bytes; /* what it would need without sharing */
} sl_program;

/* Lower a verified graph for up to `rows` rows: inserts QUANTIZE once per value and activation form, plans the arena
 * (buffers by size descending, lowest offset that conflicts with nothing alive at the same time), resolves places. The
 * graph is not changed and may be freed afterwards. Errors: ARGUMENT for a graph that does not verify or no rows,
 * UNSUPPORTED for matrices whose width does not fit their activation form, NO_MEMORY. */
SLUICE_NODISCARD sluice_status sl_program_compile(sl_program **out, const sl_graph *graph, uint64_t rows,
                                                  sl_memory *memory, sluice_error *error);
void sl_program_free(sl_program **program);

/* The binding of a name; UINT32_MAX when there is none. */
uint32_t sl_program_find_binding(const sl_program *program, const char *name);

/* Steps with places, arena size and sharing: stable text. */
SLUICE_NODISCARD bool sl_program_dump(const sl_program *program, sl_text *out);

/* The memory plan alone: one line per buffer with offset, bytes and lifetime. */
SLUICE_NODISCARD bool sl_program_dump_plan(const sl_program *program, sl_text *out);

#endif
