/* Owns nothing of its own: fills the prepared part of an engine, everything that can be known from headers. No weight
 * is read here. Threads: the opening thread only. */
#include "engine/engine.h"

#include <string.h>

#include "os/cpu.h"

static void log_to_caller(void *user, sl_log_level level, const char *line)
{
    sluice_engine *engine = user;
    engine->log_function(engine->log_user, (sluice_log_level)level, line);
}

uint32_t sl_engine_bucket(const sluice_engine *engine, uint32_t rows)
{
    return sl_buckets_find(engine->buckets, SL_BODY_BUCKETS, rows);
}

static sluice_status take_policy(sluice_engine *engine, const sluice_engine_options *options, sluice_error *error)
{
    const char *policy = options->policy == NULL ? "auto" : options->policy;
    if (!sl_policy_kind_parse(policy, &engine->policy_kind)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "unknown policy '%s': expected auto, lru, lfru, pinned, placement or reuse", policy);
    }
    bool pins = engine->policy_kind == SL_POLICY_PINNED;
    if (pins && options->policy_trace == NULL) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "the policy pinned needs a recording that says which experts stay: make one with "
                            "--record-routing and give it with --policy-trace");
    }
    if (!pins && options->policy_trace != NULL) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "%s: the policy %s does not use a recording; give it with --policy pinned",
                            options->policy_trace, policy);
    }
    return SLUICE_OK;
}

static sluice_status take_options(sluice_engine *engine, const sluice_engine_options *options, sluice_error *error)
{
    if (options->model_path == NULL || options->model_path[0] == '\0') {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "no model file was given");
    }
    if (options->prefill_chunk > SL_MAX_CHUNK) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "a prefill chunk of %u tokens: expected 1 to %d",
                            options->prefill_chunk, SL_MAX_CHUNK);
    }
    sl_isa isa = SL_ISA_GENERIC;
    if (!sl_isa_parse(options->cpu_mask == NULL ? "auto" : options->cpu_mask, &isa)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "unknown CPU mask '%s': expected auto, generic, avx2, avx512, amx or neon",
                            options->cpu_mask);
    }
    if (isa > sl_cpu_best_isa()) {
        return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED, "this processor has no %s; its best is %s",
                            sl_isa_name(isa), sl_isa_name(sl_cpu_best_isa()));
    }
    const char *io = options->io == NULL ? "auto" : options->io;
    if (!sl_reads_kind_parse(io, &engine->reads_kind)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "unknown I/O backend '%s': expected auto, uring or pread",
                            io);
    }
    const char *prefetch = options->prefetch == NULL ? "auto" : options->prefetch;
    if (!sl_prefetch_kind_parse(prefetch, &engine->predictor_config.kind)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "unknown predictor '%s': expected none, previous, router or auto", prefetch);
    }
    SL_TRY(take_policy(engine, options, error));
    sl_kernel_table_init(&engine->kernels, isa);
    if (options->cpu_mask != NULL && strcmp(options->cpu_mask, sl_isa_name(isa)) == 0 && engine->kernels.isa < isa) {
        sl_log_line(&engine->log, SL_LOG_WARNING, "this build has no %s kernels: %s is in use", sl_isa_name(isa),
                    sl_isa_name(engine->kernels.isa));
    }
    engine->n_threads = options->n_threads > 0 ? options->n_threads : sl_cpu_usable_cores();
    engine->n_sessions_planned = options->n_sessions > 0 ? options->n_sessions : 1;
    engine->captures_routing = options->capture_routing;
    engine->kv_type = options->kv_type == SLUICE_KV_F32    ? SL_KV_F32
                      : options->kv_type == SLUICE_KV_Q8_0 ? SL_KV_Q8_0
                                                           : SL_KV_F16;
    return SLUICE_OK;
}

static sluice_status name_model(sluice_engine *engine, const char *path, sluice_error *error)
{
    const char *slash = strrchr(path, '/');
    sl_span name = sl_span_of(slash != NULL ? slash + 1 : path);
    sl_span given;
    if (sl_gguf_find_value(engine->file, "general.name") != NULL &&
        sl_gguf_get_string(engine->file, "general.name", &given, NULL) == SLUICE_OK && given.length > 0) {
        name = given;
    }
    engine->model_name = sl_alloc(&engine->memory, SL_MEMORY_OTHER, name.length + 1, 1);
    if (engine->model_name == NULL) {
        return sl_error_no_memory(error, name.length + 1, "the model's name");
    }
    memcpy(engine->model_name, name.data, name.length);
    return SLUICE_OK;
}

static sluice_status build_graphs(sluice_engine *engine, sluice_error *error)
{
    const sl_hyper *hyper = &engine->model->hyper;
    if (engine->kv_type == SL_KV_Q8_0 && (hyper->key_dim % SL_KV_BLOCK != 0 || hyper->value_dim % SL_KV_BLOCK != 0)) {
        return sl_error_set(
            error, SLUICE_ERROR_UNSUPPORTED,
            "a KV cache of Q8_0 takes heads of whole blocks of %d elements, and this model's keys have %u "
            "and its values %u: use f16",
            SL_KV_BLOCK, hyper->key_dim, hyper->value_dim);
    }
    const sl_family *family = engine->model->family;
    family->build_body(engine->model, &engine->body_graph, engine->kv_type);
    family->build_head(engine->model, &engine->head_graph);
    sl_graph *graphs[] = {&engine->body_graph, &engine->head_graph};
    for (size_t i = 0; i < 2; i++) {
        SL_TRY(sl_graph_verify(graphs[i], error));
        SL_TRY(sl_graph_fuse(graphs[i], error));
        SL_TRY(sl_graph_drop_dead(graphs[i], error));
        SL_TRY(sl_graph_verify(graphs[i], error));
    }
    return SLUICE_OK;
}

static sluice_status compile_programs(sluice_engine *engine, uint32_t max_chunk, sluice_error *error)
{
    uint32_t n_buckets = sl_bucket_ladder(1, SL_MAX_CHUNK, engine->buckets);
    if (n_buckets != SL_BODY_BUCKETS) {
        return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED, "%u buckets of rows: expected %d", n_buckets,
                            SL_BODY_BUCKETS);
    }
    for (uint32_t i = 0; i <= sl_engine_bucket(engine, max_chunk); i++) {
        uint64_t before = atomic_load_explicit(&engine->memory.total_bytes, memory_order_relaxed);
        SL_TRY(sl_program_compile(&engine->body[i], &engine->body_graph, engine->buckets[i].end - 1, &engine->memory,
                                  error));
        engine->body_cost[i] = atomic_load_explicit(&engine->memory.total_bytes, memory_order_relaxed) - before;
    }
    for (uint32_t i = 0; i < SL_HEAD_BUCKETS; i++) {
        SL_TRY(sl_program_compile(&engine->head[i], &engine->head_graph, engine->buckets[i].end - 1, &engine->memory,
                                  error));
    }
    return SLUICE_OK;
}

static sluice_status list_expert_ranges(sluice_engine *engine, sluice_error *error)
{
    const sl_model *model = engine->model;
    uint32_t n_layers = model->n_expert_layers;
    uint32_t n_experts = model->hyper.n_experts;
    size_t n_ranges = (size_t)n_layers * n_experts * SL_EXPERT_MATRICES;
    engine->ranges = sl_alloc(&engine->memory, SL_MEMORY_OTHER, n_ranges, sizeof *engine->ranges);
    engine->store_files =
        sl_alloc(&engine->memory, SL_MEMORY_OTHER, engine->file->n_files, sizeof *engine->store_files);
    if (engine->ranges == NULL || engine->store_files == NULL) {
        return sl_error_no_memory(error, n_ranges * sizeof *engine->ranges, "the list of experts");
    }
    for (size_t i = 0; i < n_ranges; i++) {
        uint32_t matrix = (uint32_t)(i % SL_EXPERT_MATRICES);
        uint32_t expert = (uint32_t)(i / SL_EXPERT_MATRICES % n_experts);
        uint32_t layer = (uint32_t)(i / SL_EXPERT_MATRICES / n_experts);
        sl_expert_range *range = &engine->ranges[i];
        sl_model_expert_range(model, layer, matrix, expert, &range->file, &range->offset, &range->bytes);
    }
    for (uint32_t i = 0; i < engine->file->n_files; i++) {
        engine->store_files[i] =
            (sl_store_file){.file = &engine->file->files[i].file, .path = engine->file->files[i].path};
    }
    engine->store_config =
        (sl_store_config){.n_layers = n_layers,
                          .n_experts = n_experts,
                          .n_used = model->hyper.n_experts_used,
                          .n_ranges = SL_EXPERT_MATRICES,
                          .ranges = engine->ranges,
                          .files = engine->store_files,
                          .n_files = engine->file->n_files,
                          .n_slots = 1,
                          .policy = engine->policy_kind,
                          .reads = {.kind = engine->reads_kind, .n_threads = SL_READ_THREADS, .from_cache = true},
                          .spare_core = engine->n_threads < sl_cpu_usable_cores(),
                          .faults = engine->faults,
                          .memory = &engine->memory,
                          .log = &engine->log};
    return SLUICE_OK;
}

static void configure_predictor(sluice_engine *engine)
{
    sl_predictor_config *config = &engine->predictor_config;
    config->n_layers = engine->model->n_expert_layers;
    config->n_experts = engine->model->hyper.n_experts;
    config->n_used = engine->model->hyper.n_experts_used;
    config->memory = &engine->memory;
    config->log = &engine->log;
}

static void warn_of_fallbacks(sluice_engine *engine)
{
    bool seen[SL_TYPE_COUNT] = {false};
    const sl_model *model = engine->model;
    for (uint32_t i = 0; i < model->n_dense; i++) {
        seen[model->dense[i]->type] |= model->dense[i]->n_dims > 1;
    }
    for (uint32_t i = 0; i < model->n_expert_layers; i++) {
        for (uint32_t m = 0; m < SL_EXPERT_MATRICES; m++) {
            seen[model->expert_layers[i].matrices[m].type] = true;
        }
    }
    for (int type = 0; type < SL_TYPE_COUNT; type++) {
        if (seen[type] && sl_kernel_table_falls_back(&engine->kernels, (sl_type)type)) {
            sl_log_line(&engine->log, SL_LOG_WARNING, "%s has no %s kernel yet: it runs in plain C, which is slow",
                        sl_type_traits_of(type)->name, sl_isa_name(engine->kernels.isa));
        }
    }
}

/* Settled once, before the plan is made: how to read decides what it costs. Reads through the page cache gain nothing
 * from io_uring, and one thread copies less than several. */
static sluice_status choose_reads(sluice_engine *engine, sluice_error *error)
{
    bool any_direct = false;
    for (uint32_t i = 0; i < engine->file->n_files; i++) {
        any_direct = any_direct || engine->file->files[i].file.direct_descriptor >= 0;
    }
    sl_reads_kind wanted = engine->reads_kind;
    sluice_error reason = {0};
    sluice_status status = SLUICE_OK;
    if (wanted == SL_READS_AUTO && !any_direct) {
        engine->reads_kind = SL_READS_PREAD;
        (void)sl_error_set(&reason, SLUICE_OK, "no model file allows direct reads");
    } else {
        status = sl_reads_choose(&engine->reads_kind, &reason);
    }
    if (status != SLUICE_OK && error != NULL) {
        *error = reason;
    }
    if (status == SLUICE_OK && engine->reads_kind != wanted) {
        sl_log_line(&engine->log, SL_LOG_INFO, "reading with pread: %s", reason.message);
    }
    return status;
}

sluice_status sl_engine_prepare(sluice_engine *engine, const sluice_engine_options *options, sluice_error *error)
{
    engine->log_function = options->log;
    engine->log_user = options->log_user;
    engine->log = (sl_log){.write = options->log != NULL ? log_to_caller : NULL,
                           .user = engine,
                           .level = (sl_log_level)options->log_level};
    SL_TRY(take_options(engine, options, error));
    SL_TRY(sl_gguf_open(&engine->file, options->model_path, &engine->memory, &engine->log, error));
    SL_TRY(choose_reads(engine, error));
    SL_TRY(name_model(engine, options->model_path, error));
    SL_TRY(sl_model_open(&engine->model, engine->file, &engine->memory, error));
    SL_TRY(sl_model_vocabulary_init(&engine->vocabulary, engine->file, &engine->memory, error));
    const sl_hyper *hyper = &engine->model->hyper;
    if (sl_tokenizer_size(engine->vocabulary.tokenizer) > hyper->n_vocab) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: the vocabulary has %u tokens but the embedding has %u rows", options->model_path,
                            sl_tokenizer_size(engine->vocabulary.tokenizer), hyper->n_vocab);
    }
    warn_of_fallbacks(engine);
    SL_TRY(build_graphs(engine, error));
    uint32_t max_chunk = options->prefill_chunk > 0 ? options->prefill_chunk : SL_MAX_CHUNK;
    SL_TRY(compile_programs(engine, max_chunk, error));
    SL_TRY(list_expert_ranges(engine, error));
    SL_TRY(sl_engine_open_pins(engine, error));
    configure_predictor(engine);
    SL_TRY(sl_dense_plan(&engine->dense, engine->model, &engine->memory, error));
    engine->limits = (sl_executor_limits){.max_rows = max_chunk,
                                          .max_experts = hyper->n_experts,
                                          .max_used = hyper->n_experts_used,
                                          .max_group_heads = hyper->n_heads / hyper->n_kv_heads,
                                          .max_key_dim = hyper->key_dim,
                                          .max_value_dim = hyper->value_dim};
    return sl_engine_make_plan(engine, options, error);
}
