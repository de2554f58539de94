/* Shared by the files of this folder: the executor's state and the functions that carry out one step. */
#ifndef SL_EXEC_STEPS_H
#define SL_EXEC_STEPS_H

#include "exec/executor.h"

/* The experts that an EXPERTS step waits for, asked for as soon as they were known. */
typedef struct sl_demand {
    const sl_step *step; /* borrowed from the program: the EXPERTS step; NULL: no request is open */
    sl_store_request request;
    uint32_t n_wanted; /* distinct experts */
    uint32_t n_pairs;
} sl_demand;

struct sl_executor {
    sl_executor_config config;
    uint32_t n_workers;
    sl_demand demand;
    bool with_hints; /* this run tells the store what it will probably need */

    /* Per worker, `stride` floats apart: [n_workers][...] */
    float *attention_scratch; /* owned */
    size_t attention_stride;
    float *router_scratch; /* owned; [n_workers][max_experts] */

    /* Of the EXPERTS step; pairs are (token, rank). */
    uint32_t *expert_first; /* owned; [max_experts + 1]: where an expert's pairs start in pair order */
    uint32_t *pair_of;      /* owned; [max_rows * max_used]: pair at a place in pair order */
    uint32_t *place_of;     /* owned; [max_rows * max_used]: place of a pair */
    uint32_t *wanted;       /* owned; [max_experts]: distinct experts in the order in which they are asked for */
    uint32_t *tokens_of;    /* owned; [max_experts]: how many tokens ask for each of the wanted */
    uint64_t *progress;     /* owned; [max_experts]: for the store */
    sl_expert_view *ready;  /* owned; [max_experts] */
};

/* One step with its places turned into pointers. thread: immutable while the workers run it. */
typedef struct sl_step_run {
    sl_executor *executor;
    const sl_kernel_table *kernels;
    const sl_step *step;
    const sl_run *run;
    void *inputs[SL_OP_MAX_INPUTS];   /* NULL: absent */
    void *outputs[SL_OP_MAX_OUTPUTS]; /* NULL: absent */
    uint32_t rows;
} sl_step_run;

/* How the rows of a matrix, or of several of one shape, are given out. With one token they are read once, in runs as long as
 * can be: every beginning of a run is slow. With more, rows stay in the second-level cache while tokens pass. Units are
 * whole cache lines of outputs, and small, so that the workers finish together. */
enum { SL_UNIT_BYTES = 32 << 10, SL_UNIT_GRAIN = 16, SL_MANY_TOKENS_BYTES = 128 << 10 };

typedef struct sl_pieces {
    uint32_t n_rows;
    uint32_t unit_rows;
    sl_units units; /* a span is a matrix */
} sl_pieces;

static inline sl_pieces sl_pieces_of(uint32_t n_matrices, uint32_t n_rows, uint64_t row_bytes, uint32_t n_tokens,
                                     uint32_t n_workers)
{
    uint64_t n_grains = SL_UNIT_BYTES / (row_bytes * SL_UNIT_GRAIN + 1);
    uint32_t unit_rows = (uint32_t)(n_grains < 1 ? 1 : n_grains) * SL_UNIT_GRAIN;
    uint32_t n_units = (n_rows + unit_rows - 1) / unit_rows;
    uint64_t many = SL_MANY_TOKENS_BYTES / (row_bytes * unit_rows + 1);
    bool all = n_tokens == 1 || n_workers == 1;
    return (sl_pieces){.n_rows = n_rows,
                       .unit_rows = unit_rows,
                       .units = {.count = n_matrices * n_units,
                                 .span = n_units,
                                 .most = all ? UINT32_MAX : (uint32_t)(many < 1 ? 1 : many)}};
}

/* Where the first n_units units of a matrix end. */
static inline uint32_t sl_end_row(const sl_pieces *pieces, uint32_t n_units)
{
    return n_units >= pieces->units.span ? pieces->n_rows : n_units * pieces->unit_rows;
}

/* Rows [begin, end) of one of the matrices. */
typedef struct sl_rows {
    uint32_t matrix, begin, end;
} sl_rows;

/* The next rows for this worker, as sl_workers_next has it; false when none are left. */
static inline bool sl_next_rows(sl_workers *workers, const sl_pieces *pieces, uint32_t worker, sl_rows *rows)
{
    uint32_t begin = 0;
    uint32_t end = 0;
    if (!sl_workers_next(workers, &pieces->units, worker, &begin, &end)) {
        return false;
    }
    rows->matrix = begin / pieces->units.span;
    rows->begin = begin % pieces->units.span * pieces->unit_rows;
    rows->end = sl_end_row(pieces, begin % pieces->units.span + end - begin);
    return true;
}

static inline const float *sl_float_row(const void *base, const sl_place *place, uint32_t row)
{
    return (const float *)((const char *)base + place->row_bytes * row);
}

static inline float *sl_float_row_of(void *base, const sl_place *place, uint32_t row)
{
    return (float *)((char *)base + place->row_bytes * row);
}

/* Every kind but those below; cannot fail. */
void sl_step_rows(const sl_step_run *step);

/* At most SL_MAX_PRODUCTS MATMUL steps that read the same rows, as one: fewer runs of weights begin, and workers meet once. */
enum { SL_MAX_PRODUCTS = 4 };
void sl_step_products(const sl_step_run *runs, uint32_t n_runs);

/* Also asks the store for what the EXPERTS step that follows will need, so that reads begin at once. */
SLUICE_NODISCARD sluice_status sl_step_route(const sl_step_run *step, sluice_error *error);
void sl_step_predict(const sl_step_run *step);
SLUICE_NODISCARD sluice_status sl_step_experts(const sl_step_run *step, sluice_error *error);
/* Close the request of an EXPERTS step that will not be run. */
void sl_step_give_up_demand(sl_executor *executor);

#endif
