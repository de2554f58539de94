/* Owns the engine from open to close.
 *
 * Invariants
 *  (1) Opening is preparing (headers only), then loading; a failure at any point releases everything through close.
 *  (2) Every byte comes from the engine's own account; after close the account is empty.
 *  (3) Programs, weights and `plan` are immutable once open returns; what a run writes is guarded by run_lock or belongs
 *      to a session; what a new budget writes is current_plan and the store's. Lock order: run_lock,
 *      budget_lock, the store's. */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "os/limits.h"

static void *allocate_from_caller(void *user, size_t bytes, size_t alignment)
{
    const sluice_allocator *allocator = user;
    return allocator->allocate(allocator->user, bytes, alignment);
}

static void release_to_caller(void *user, void *pointer)
{
    const sluice_allocator *allocator = user;
    allocator->release(allocator->user, pointer);
}

static bool charge_to_caller(void *user, size_t bytes)
{
    const sluice_allocator *allocator = user;
    return allocator->charge == NULL || allocator->charge(allocator->user, bytes);
}

static void discharge_to_caller(void *user, size_t bytes)
{
    const sluice_allocator *allocator = user;
    if (allocator->discharge != NULL) {
        allocator->discharge(allocator->user, bytes);
    }
}

static sluice_engine *create(const sluice_allocator *allocator)
{
    sluice_engine *engine =
        allocator == NULL ? malloc(sizeof *engine) : allocator->allocate(allocator->user, sizeof *engine, 64);
    if (engine == NULL) {
        return NULL;
    }
    memset(engine, 0, sizeof *engine);
    sl_memory_source source = {.allocate = allocate_from_caller,
                               .release = release_to_caller,
                               .charge = charge_to_caller,
                               .discharge = discharge_to_caller,
                               .user = &engine->allocator};
    if (allocator != NULL) {
        engine->allocator = *allocator;
    }
    sl_memory_init(&engine->memory, allocator == NULL ? NULL : &source);
    sl_graph_init(&engine->body_graph, &engine->memory);
    sl_graph_init(&engine->head_graph, &engine->memory);
    pthread_mutex_init(&engine->run_lock, NULL);
    pthread_mutex_init(&engine->budget_lock, NULL);
    pthread_mutex_init(&engine->plan_lock, NULL);
    engine->resident_before = sl_process_resident_bytes();
    return engine;
}

static void destroy(sluice_engine *engine)
{
    pthread_mutex_destroy(&engine->run_lock);
    pthread_mutex_destroy(&engine->budget_lock);
    pthread_mutex_destroy(&engine->plan_lock);
    sluice_allocator allocator = engine->allocator;
    if (allocator.release == NULL) {
        free(engine);
    } else {
        allocator.release(allocator.user, engine);
    }
}

void sluice_engine_close(sluice_engine **engine)
{
    sluice_engine *closing = *engine;
    if (closing == NULL) {
        return;
    }
    sl_memory *memory = &closing->memory;
    sl_executor_close(&closing->executor);
    sl_predictor_close(&closing->predictor);
    sl_store_close(&closing->store);
    sl_workers_close(&closing->workers);
    sl_free(memory, closing->body_arena);
    sl_free(memory, closing->head_arena);
    sl_dense_fini(&closing->dense);
    for (uint32_t i = 0; i < SL_BODY_BUCKETS; i++) {
        sl_program_free(&closing->body[i]);
    }
    for (uint32_t i = 0; i < SL_HEAD_BUCKETS; i++) {
        sl_program_free(&closing->head[i]);
    }
    sl_graph_fini(&closing->body_graph);
    sl_graph_fini(&closing->head_graph);
    sl_free(memory, closing->pins);
    sl_free(memory, closing->ranges);
    sl_free(memory, closing->store_files);
    sl_model_vocabulary_fini(&closing->vocabulary);
    sl_model_close(&closing->model);
    sl_gguf_close(&closing->file);
    sl_free(memory, closing->model_name);
    destroy(closing);
    *engine = NULL;
}

static bool prepare_slot(void *store)
{
    return sl_store_prepare(store);
}

/* The store is there first, so that its slots are prepared by who waits for the dense weights. */
static sluice_status open_store_and_read_dense(sluice_engine *engine, const sluice_engine_options *options,
                                               sluice_error *error)
{
    SL_TRY(sl_engine_read_pins(engine, options->policy_trace, error));
    SL_TRY(sl_store_open(&engine->store, &engine->store_config, error));
    return sl_dense_load(&engine->dense, engine->model,
                         &(sl_dense_loading){.reads = &engine->store_config.reads,
                                             .faults = engine->faults,
                                             .log = &engine->log,
                                             .progress = options->progress,
                                             .progress_user = options->progress_user,
                                             .idle = prepare_slot,
                                             .idle_user = engine->store},
                         error);
}

static sluice_status load(sluice_engine *engine, const sluice_engine_options *options, sluice_error *error)
{
    sl_memory *memory = &engine->memory;
    for (uint32_t i = sl_engine_bucket(engine, engine->plan.prefill_chunk) + 1; i < SL_BODY_BUCKETS; i++) {
        sl_program_free(&engine->body[i]);
    }
    SL_TRY(open_store_and_read_dense(engine, options, error));
    uint64_t body_bytes = engine->body[sl_engine_bucket(engine, engine->plan.prefill_chunk)]->arena_bytes;
    uint64_t head_bytes = engine->head[SL_HEAD_BUCKETS - 1]->arena_bytes;
    engine->body_arena = sl_alloc_aligned(memory, SL_MEMORY_ACTIVATIONS, body_bytes, SL_ARENA_ALIGNMENT);
    engine->head_arena = sl_alloc_aligned(memory, SL_MEMORY_ACTIVATIONS, head_bytes, SL_ARENA_ALIGNMENT);
    if (engine->body_arena == NULL || engine->head_arena == NULL) {
        return sl_error_no_memory(error, body_bytes + head_bytes, "activations");
    }
    SL_TRY(sl_workers_open(&engine->workers, engine->n_threads, memory, error));
    if (engine->predictor_config.kind != SL_PREFETCH_NONE) {
        SL_TRY(sl_predictor_open(&engine->predictor, &engine->predictor_config, error));
    }
    return sl_executor_open(&engine->executor,
                            &(sl_executor_config){.kernels = &engine->kernels,
                                                  .workers = engine->workers,
                                                  .store = engine->store,
                                                  .predictor = engine->predictor,
                                                  .memory = memory,
                                                  .limits = engine->limits},
                            error);
}

static void log_start(const sluice_engine *engine)
{
    const sluice_memory_plan *plan = &engine->plan;
    char budget[24];
    char total[24];
    sl_log_line(&engine->log, SL_LOG_INFO, "%s: %s, %u threads, kernels %s, reads %s", engine->model_name,
                engine->model->family->architecture, engine->n_threads, sl_isa_name(engine->kernels.isa),
                sl_store_backend(engine->store));
    sl_log_line(&engine->log, SL_LOG_INFO,
                "budget %s, planned %s: %llu of %llu experts fit, policy %s, chunks of %u tokens, context %u",
                sl_format_size(plan->budget_bytes, budget, sizeof budget),
                sl_format_size(plan->total_bytes, total, sizeof total), (unsigned long long)plan->n_slots,
                (unsigned long long)plan->maximum_slots, sl_policy_kind_name(engine->policy_kind), plan->prefill_chunk,
                plan->context_length);
}

sluice_status sl_engine_open_with_faults(sluice_engine **out, const sluice_engine_options *options,
                                         sl_read_fault_plan *faults, sluice_error *error)
{
    *out = NULL;
    sluice_engine *engine = create(options->allocator);
    if (engine == NULL) {
        return sl_error_no_memory(error, sizeof *engine, "the engine");
    }
    engine->faults = faults;
    sluice_status status = sl_engine_prepare(engine, options, error);
    if (status == SLUICE_OK) {
        status = load(engine, options, error);
    }
    if (status != SLUICE_OK) {
        sluice_engine_close(&engine);
        return status;
    }
    engine->current_plan = engine->plan;
    log_start(engine);
    *out = engine;
    return SLUICE_OK;
}

sluice_status sluice_engine_open(sluice_engine **out, const sluice_engine_options *options, sluice_error *error)
{
    return sl_engine_open_with_faults(out, options, NULL, error);
}

sluice_status sluice_engine_plan(const sluice_engine_options *options, sluice_memory_plan *plan, sluice_error *error)
{
    *plan = (sluice_memory_plan){0};
    sluice_engine *engine = create(options->allocator);
    if (engine == NULL) {
        return sl_error_no_memory(error, sizeof *engine, "the engine");
    }
    sluice_status status = sl_engine_prepare(engine, options, error);
    *plan = engine->plan;
    sluice_engine_close(&engine);
    return status;
}

void sluice_engine_options_init(sluice_engine_options *options)
{
    *options = (sluice_engine_options){.log_level = SLUICE_LOG_WARNING};
}

const sluice_vocabulary *sluice_engine_vocabulary(const sluice_engine *engine)
{
    return &engine->vocabulary;
}

uint32_t sluice_engine_n_vocab(const sluice_engine *engine)
{
    return engine->model->hyper.n_vocab;
}

const char *sluice_engine_model_name(const sluice_engine *engine)
{
    return engine->model_name;
}

const char *sluice_engine_isa(const sluice_engine *engine)
{
    return sl_isa_name(engine->kernels.isa);
}

const char *sluice_engine_io_backend(const sluice_engine *engine)
{
    return sl_store_backend(engine->store);
}

uint32_t sluice_engine_n_threads(const sluice_engine *engine)
{
    return engine->n_threads;
}

const char *sluice_version(void)
{
    return SLUICE_VERSION;
}

const char *sluice_memory_tag_name(uint32_t tag)
{
    return tag < SL_MEMORY_TAG_COUNT ? sl_memory_tag_name((sl_memory_tag)tag) : "";
}

_Static_assert((int)SLUICE_MEMORY_TAGS == (int)SL_MEMORY_TAG_COUNT, "the public number of tags");

void sluice_engine_stats_get(sluice_engine *engine, sluice_engine_stats *stats)
{
    sl_store_counters counters;
    sl_store_counters_get(engine->store, &counters);
    *stats = (sluice_engine_stats){.expert_requests = counters.requests,
                                   .expert_hits = counters.hits,
                                   .expert_misses = counters.misses,
                                   .expert_evictions = counters.evictions,
                                   .bytes_read = counters.bytes_read,
                                   .expert_bytes = counters.expert_bytes,
                                   .io_wait_ms = (double)counters.wait_ns * 1e-6,
                                   .io_busy_ms = (double)counters.busy_ns * 1e-6,
                                   .prefetch_issued = counters.prefetch_issued,
                                   .prefetch_used = counters.prefetch_used,
                                   .prefetch_late = counters.prefetch_late,
                                   .prefetch_useless = counters.prefetch_useless,
                                   .mem_peak_bytes = sl_process_peak_bytes()};
    for (uint32_t i = 0; i < SLUICE_MEMORY_TAGS; i++) {
        stats->mem_by_tag[i] = atomic_load_explicit(&engine->memory.bytes[i], memory_order_relaxed);
    }
    stats->mem_by_tag[SL_MEMORY_OTHER] += sizeof *engine;
}

void sluice_engine_stats_reset(sluice_engine *engine)
{
    sl_store_counters_reset(engine->store);
}

sluice_status sluice_engine_dump_graph(sluice_engine *engine, uint32_t rows, char **text, sluice_error *error)
{
    *text = NULL;
    if (rows == 0 || rows > engine->plan.prefill_chunk) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%u rows: this engine runs 1 to %u at once", rows,
                            engine->plan.prefill_chunk);
    }
    sl_text dump;
    sl_text_init(&dump, &engine->memory, SL_MEMORY_OTHER);
    const sl_program *body = engine->body[sl_engine_bucket(engine, rows)];
    bool complete = sl_graph_dump(&engine->body_graph, &dump) && sl_program_dump(body, &dump) &&
                    sl_program_dump_plan(body, &dump) && sl_graph_dump(&engine->head_graph, &dump) &&
                    sl_program_dump(engine->head[0], &dump) && sl_program_dump_plan(engine->head[0], &dump);
    if (complete) {
        *text = strdup(dump.data);
    }
    sl_text_fini(&dump);
    return *text != NULL ? SLUICE_OK : sl_error_no_memory(error, dump.length, "the dump");
}
