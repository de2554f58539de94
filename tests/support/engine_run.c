/* Owns what it opens during one call. */
#include "engine_run.h"

#include <stdlib.h>

/* Whether the next one succeeds. */
static bool count(counting_allocator *counter)
{
    if (atomic_fetch_add(&counter->n_allocated, 1) + 1 != counter->fail_at) {
        return true;
    }
    atomic_fetch_sub(&counter->n_allocated, 1);
    counter->fail_at = 0;
    return false;
}

static bool counted_charge(void *user, size_t bytes)
{
    counting_allocator *counter = user;
    if (!count(counter)) {
        return false;
    }
    atomic_fetch_add(&counter->n_charges, 1);
    atomic_fetch_add(&counter->charged_bytes, bytes);
    return true;
}

static void counted_discharge(void *user, size_t bytes)
{
    counting_allocator *counter = user;
    if (atomic_fetch_sub(&counter->charged_bytes, bytes) == bytes) {
        atomic_fetch_add(&counter->n_released, atomic_exchange(&counter->n_charges, 0));
    }
}

static void *counted_allocate(void *user, size_t bytes, size_t alignment)
{
    counting_allocator *counter = user;
    if (!count(counter)) {
        return NULL;
    }
    void *pointer = NULL;
    return posix_memalign(&pointer, alignment, bytes) == 0 ? pointer : NULL;
}

static void counted_release(void *user, void *pointer)
{
    counting_allocator *counter = user;
    atomic_fetch_add(&counter->n_released, 1);
    free(pointer);
}

sluice_allocator counting_allocator_interface(counting_allocator *counter)
{
    return (sluice_allocator){.allocate = counted_allocate,
                              .release = counted_release,
                              .charge = counted_charge,
                              .discharge = counted_discharge,
                              .user = counter};
}

static sluice_engine_options options_of(const engine_run *run, const sluice_allocator *allocator)
{
    sluice_engine_options options;
    sluice_engine_options_init(&options);
    options.model_path = run->model_path;
    options.mem_budget_bytes = run->mem_budget_bytes;
    options.context_length = 64;
    options.n_threads = run->n_threads;
    options.prefill_chunk = run->prefill_chunk;
    options.cpu_mask = run->cpu_mask;
    options.prefetch = run->prefetch;
    options.io = run->io;
    options.n_sessions = run->n_sessions;
    options.allocator = run->counter != NULL ? allocator : NULL;
    return options;
}

static sluice_status generate(sluice_engine *engine, uint32_t n_generate, uint64_t *hash, sluice_error *error)
{
    static const int32_t prompt[] = {5, 17, 40, 99, 3, 61, 200, 7, 8, 120};
    sluice_session *session = NULL;
    SL_TRY(sluice_session_open(&session, engine, error));
    sluice_generation generation = {.prompt = prompt,
                                    .n_prompt = sizeof prompt / sizeof prompt[0],
                                    .max_tokens = n_generate,
                                    .ignore_eos = true,
                                    .sampling = {.temperature = 0.0f, .top_p = 1.0f, .repetition_penalty = 1.0f}};
    sluice_generation_result result;
    sluice_status status = sluice_session_generate(session, &generation, &result, error);
    *hash = sluice_session_logits_hash(session);
    sluice_session_close(&session);
    return status;
}

sluice_status open_engine(sluice_engine **out, const engine_run *run, sl_read_fault_plan *faults, sluice_error *error)
{
    sluice_allocator allocator = counting_allocator_interface(run->counter);
    sluice_engine_options options = options_of(run, &allocator);
    return sl_engine_open_with_faults(out, &options, faults, error);
}

sluice_status run_engine(const engine_run *run, uint64_t *hash, sluice_error *error)
{
    *hash = 0;
    sluice_engine *engine = NULL;
    SL_TRY(open_engine(&engine, run, NULL, error));
    sluice_status status = generate(engine, run->n_generate, hash, error);
    sluice_engine_close(&engine);
    return status;
}

static sluice_memory_plan plan_of(const engine_run *run, uint64_t budget_bytes)
{
    engine_run asking = *run;
    asking.mem_budget_bytes = budget_bytes;
    asking.counter = NULL;
    sluice_engine_options options = options_of(&asking, NULL);
    sluice_memory_plan plan;
    sluice_error error;
    sluice_status status = sluice_engine_plan(&options, &plan, &error);
    return status == SLUICE_OK || status == SLUICE_ERROR_BUDGET ? plan : (sluice_memory_plan){0};
}

uint64_t engine_floor_bytes(const engine_run *run)
{
    return plan_of(run, 1).floor_bytes;
}

uint64_t engine_resident_bytes(const engine_run *run)
{
    return plan_of(run, 1).resident_bytes;
}

uint64_t engine_slot_bytes(const engine_run *run)
{
    return plan_of(run, 1).slot_bytes;
}
