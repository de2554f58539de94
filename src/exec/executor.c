/* Owns the scratch that steps need beyond the program's arena.
 *
 * Invariants
 *  (1) Nothing is allocated after open: every scratch array is sized by the limits, and a run outside them is refused.
 *  (2) Work is split by row, head, token or expert, never inside a sum, so the number of workers changes no bit.
 *  (3) A step starts when the one before it is complete on all workers; steps that are products of the same rows are
 *      carried out together.
 * Threads: the caller of sl_executor_run is worker 0; the other workers touch only what their task was given. */
#include "exec/steps.h"

#include <string.h>

static size_t attention_stride(const sl_executor_limits *limits)
{
    if (limits->max_group_heads == 0) {
        return 0;
    }
    size_t n_floats = sl_attention_scratch_floats(limits->max_group_heads, limits->max_key_dim, limits->max_value_dim);
    return (n_floats + 15) / 16 * 16;
}

typedef struct scratch_sizes {
    size_t attention, router, expert_first, pairs, wanted, progress, ready;
} scratch_sizes;

static scratch_sizes sizes_of(const sl_executor_limits *limits, uint32_t n_workers)
{
    size_t n_pairs = (size_t)limits->max_rows * limits->max_used;
    return (scratch_sizes){
        .attention = attention_stride(limits) * n_workers * sizeof(float),
        .router = (size_t)limits->max_experts * n_workers * sizeof(float),
        .expert_first = ((size_t)limits->max_experts + 1) * sizeof(uint32_t),
        .pairs = n_pairs * sizeof(uint32_t),
        .wanted = (size_t)limits->max_experts * sizeof(uint32_t),
        .progress = (size_t)limits->max_experts * sizeof(uint64_t),
        .ready = (size_t)limits->max_experts * sizeof(sl_expert_view),
    };
}

enum { SCRATCH_ALIGNMENT = 64 };

uint64_t sl_executor_cost(const sl_executor_limits *limits, uint32_t n_workers)
{
    scratch_sizes sizes = sizes_of(limits, n_workers);
    return sl_memory_cost(sizeof(sl_executor), SCRATCH_ALIGNMENT) + sl_memory_cost(sizes.attention, SCRATCH_ALIGNMENT) +
           sl_memory_cost(sizes.router, SCRATCH_ALIGNMENT) + sl_memory_cost(sizes.expert_first, SCRATCH_ALIGNMENT) +
           2 * sl_memory_cost(sizes.pairs, SCRATCH_ALIGNMENT) + 2 * sl_memory_cost(sizes.wanted, SCRATCH_ALIGNMENT) +
           sl_memory_cost(sizes.progress, SCRATCH_ALIGNMENT) + sl_memory_cost(sizes.ready, SCRATCH_ALIGNMENT);
}

static void *scratch(sl_memory *memory, size_t bytes, bool *complete)
{
    void *pointer = sl_alloc_aligned(memory, SL_MEMORY_ACTIVATIONS, bytes, SCRATCH_ALIGNMENT);
    *complete = *complete && pointer != NULL;
    return pointer;
}

sluice_status sl_executor_open(sl_executor **out, const sl_executor_config *config, sluice_error *error)
{
    sl_memory *memory = config->memory;
    uint32_t n_workers = sl_workers_count(config->workers);
    scratch_sizes sizes = sizes_of(&config->limits, n_workers);
    bool complete = true;
    sl_executor *executor = scratch(memory, sizeof *executor, &complete);
    *out = executor;
    if (executor != NULL) {
        *executor = (sl_executor){
            .config = *config,
            .n_workers = n_workers,
            .attention_scratch = scratch(memory, sizes.attention, &complete),
            .attention_stride = attention_stride(&config->limits),
            .router_scratch = scratch(memory, sizes.router, &complete),
            .expert_first = scratch(memory, sizes.expert_first, &complete),
            .pair_of = scratch(memory, sizes.pairs, &complete),
            .place_of = scratch(memory, sizes.pairs, &complete),
            .wanted = scratch(memory, sizes.wanted, &complete),
            .tokens_of = scratch(memory, sizes.wanted, &complete),
            .progress = scratch(memory, sizes.progress, &complete),
            .ready = scratch(memory, sizes.ready, &complete),
        };
    }
    if (!complete) {
        sl_executor_close(out);
        return sl_error_no_memory(error, sl_executor_cost(&config->limits, n_workers), "the executor's scratch");
    }
    return SLUICE_OK;
}

void sl_executor_close(sl_executor **executor)
{
    sl_executor *closing = *executor;
    if (closing == NULL) {
        return;
    }
    sl_memory *memory = closing->config.memory;
    void *owned[] = {closing->attention_scratch, closing->router_scratch, closing->expert_first,
                     closing->pair_of,           closing->place_of,       closing->wanted,
                     closing->tokens_of,         closing->progress,       closing->ready};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        sl_free(memory, owned[i]);
    }
    sl_free(memory, closing);
    *executor = NULL;
}

static void *resolve(const sl_place *place, const sl_run *run)
{
    switch (place->kind) {
    case SL_PLACE_NONE: return NULL;
    case SL_PLACE_ARENA: return (char *)run->arena + place->offset;
    case SL_PLACE_BINDING: return run->bindings[place->binding];
    }
    return NULL;
}

static sluice_status check_run(const sl_executor *executor, const sl_run *run, sluice_error *error)
{
    uint64_t capacity =
        run->program->rows < executor->config.limits.max_rows ? run->program->rows : executor->config.limits.max_rows;
    if (run->rows == 0 || run->rows > capacity) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%u rows in a program that runs 1 to %llu", run->rows,
                            (unsigned long long)capacity);
    }
    return SLUICE_OK;
}

/* Tell the predictor that a token, or a chunk of them, is on its way through the layers, unless everything is in memory.
 * Returns whether it wants the steps that are for hints alone. */
static bool begin_pass(sl_executor *executor, const sl_run *run)
{
    sl_predictor *predictor = executor->config.predictor;
    const sl_program *program = run->program;
    uint32_t i_step = 0;
    while (i_step < program->n_steps && program->steps[i_step].kind != SL_OP_EXPERTS) {
        i_step++;
    }
    executor->with_hints =
        predictor != NULL && i_step < program->n_steps && !sl_store_is_settled(executor->config.store);
    if (!executor->with_hints) {
        return false;
    }
    sl_store_counters counters;
    sl_store_counters_get(executor->config.store, &counters);
    sl_predictor_begin_pass(predictor, run->rows, &counters);
    return sl_predictor_wants_router(predictor);
}

static sl_step_run step_run_of(sl_executor *executor, const sl_run *run, const sl_step *step)
{
    sl_step_run step_run = {
        .executor = executor, .kernels = executor->config.kernels, .step = step, .run = run, .rows = run->rows};
    for (uint32_t i = 0; i < SL_OP_MAX_INPUTS; i++) {
        step_run.inputs[i] = resolve(&step->inputs[i], run);
    }
    for (uint32_t i = 0; i < SL_OP_MAX_OUTPUTS; i++) {
        step_run.outputs[i] = resolve(&step->outputs[i], run);
    }
    return step_run;
}

static bool is_same_place(const sl_place *a, const sl_place *b)
{
    return a->kind == b->kind && a->type == b->type && a->offset == b->offset && a->binding == b->binding;
}

/* How many steps from this one on are products of the same rows: none of them reads what another writes. */
static uint32_t count_products(const sl_program *program, const sl_step *first)
{
    const sl_step *end = program->steps + program->n_steps;
    const sl_step *step = first;
    while (step < end && step - first < SL_MAX_PRODUCTS && step->kind == SL_OP_MATMUL &&
           step->for_hint == first->for_hint && is_same_place(&step->inputs[0], &first->inputs[0])) {
        step++;
    }
    return (uint32_t)(step - first);
}

/* The step, with those that are carried out together with it; sets how many they are. */
static sluice_status run_step(sl_executor *executor, const sl_run *run, const sl_step *step, uint32_t *n_steps,
                              sluice_error *error)
{
    *n_steps = 1;
    if (step->kind == SL_OP_MATMUL) {
        sl_step_run products[SL_MAX_PRODUCTS];
        *n_steps = count_products(run->program, step);
        for (uint32_t i = 0; i < *n_steps; i++) {
            products[i] = step_run_of(executor, run, step + i);
        }
        sl_step_products(products, *n_steps);
        return SLUICE_OK;
    }
    sl_step_run step_run = step_run_of(executor, run, step);
    switch (step->kind) {
    case SL_OP_EXPERTS: return sl_step_experts(&step_run, error);
    case SL_OP_ROUTE: return sl_step_route(&step_run, error);
    case SL_OP_PREDICT: sl_step_predict(&step_run); return SLUICE_OK;
    default: sl_step_rows(&step_run); return SLUICE_OK;
    }
}

static sluice_status run_steps(sl_executor *executor, const sl_run *run, bool with_hints, sluice_error *error)
{
    const sl_program *program = run->program;
    uint32_t n_steps = 0;
    for (uint32_t i = 0; i < program->n_steps; i += n_steps) {
        if (run->cancel != NULL && atomic_load_explicit(run->cancel, memory_order_relaxed)) {
            return sl_error_set(error, SLUICE_ERROR_CANCELLED, "cancelled by the caller");
        }
        const sl_step *step = &program->steps[i];
        n_steps = 1;
        if (!step->for_hint || with_hints) {
            SL_TRY(run_step(executor, run, step, &n_steps, error));
        }
    }
    return SLUICE_OK;
}

sluice_status sl_executor_run(sl_executor *executor, const sl_run *run, sluice_error *error)
{
    SL_TRY(check_run(executor, run, error));
    bool with_hints = begin_pass(executor, run);
    sluice_status status = run_steps(executor, run, with_hints, error);
    if (status != SLUICE_OK) {
        sl_step_give_up_demand(executor);
        if (executor->config.predictor != NULL) {
            sl_predictor_invalidate(executor->config.predictor);
        }
    }
    return status;
}
