/* Runs a flat program: splits steps over the workers, waits for experts, calls kernels. Knows no architecture. */
#ifndef SL_EXEC_EXECUTOR_H
#define SL_EXEC_EXECUTOR_H

#include <stdatomic.h>

#include "exec/workers.h"
#include "experts/predict.h"
#include "graph/program.h"
#include "kernels/table.h"

/* The largest shapes a run will have: scratch is sized for them once. */
typedef struct sl_executor_limits {
    uint32_t max_rows;        /* of any program */
    uint32_t max_experts;     /* per layer; 0: no EXPERTS steps */
    uint32_t max_used;        /* k */
    uint32_t max_group_heads; /* query heads per KV head; 0: no ATTENTION steps */
    uint32_t max_key_dim;
    uint32_t max_value_dim;
} sl_executor_limits;

typedef struct sl_executor_config {
    const sl_kernel_table *kernels; /* borrowed for the executor's life */
    sl_workers *workers;            /* borrowed for the executor's life */
    sl_store *store;                /* borrowed for the executor's life; NULL: no EXPERTS steps */
    sl_predictor *predictor;        /* borrowed for the executor's life; NULL: nothing is read ahead */
    sl_memory *memory;              /* borrowed for the executor's life */
    sl_executor_limits limits;
} sl_executor_config;

/* thread: one run at a time. */
typedef struct sl_executor sl_executor;

SLUICE_NODISCARD sluice_status sl_executor_open(sl_executor **out, const sl_executor_config *config,
                                                sluice_error *error);
void sl_executor_close(sl_executor **executor);

/* Bytes of scratch that sl_executor_open will take from the account, all under ACTIVATIONS, for `n_workers`. */
uint64_t sl_executor_cost(const sl_executor_limits *limits, uint32_t n_workers);

/* What one layer asked of its experts, by where they were: a call is one expert's turn in one run, its tokens are those
 * that were routed to it. */
typedef struct sl_expert_use {
    uint64_t memory_calls, memory_tokens; /* in memory when asked for */
    uint64_t read_calls, read_tokens;     /* the others */
} sl_expert_use;

typedef struct sl_run {
    const sl_program *program;
    void *const *bindings;     /* borrowed: [program->n_bindings] */
    void *arena;               /* borrowed: program->arena_bytes, aligned to SL_ARENA_ALIGNMENT */
    uint32_t rows;             /* 1 to program->rows */
    uint32_t kv_capacity;      /* positions that the bound states hold; every bound position is below it */
    const atomic_bool *cancel; /* borrowed; may be NULL: looked at between steps */
    uint32_t *routing; /* borrowed; may be NULL: row r of expert layer l gets its experts, in the router's order, at
                          l * routing_stride + r * k */
    size_t routing_stride;
    sl_expert_use *expert_use; /* borrowed; may be NULL: [expert layers]; added to */
} sl_run;

/* Where an output of the program lies after a run. */
static inline void *sl_run_output(const sl_run *run, uint32_t i_output)
{
    return (char *)run->arena + run->program->outputs[i_output].offset;
}

/* Run all steps on the active rows; those for hints alone only as far as the predictor wants them. Allocates nothing.
 * Errors: those of the store, CANCELLED, and FORMAT for a router that yields no number. After an error the outputs are
 * undefined and states hold rows that a later run overwrites. */
SLUICE_NODISCARD sluice_status sl_executor_run(sl_executor *executor, const sl_run *run, sluice_error *error);

#endif
