/* Owns what a session keeps of its routing: the choices of the last evaluation, a recording, counts by tier; and shows
 * where experts are.
 *
 * Invariants: (1) `routing` holds the first n_captured tokens of the last evaluation in every layer, all of them from
 * chunks that succeeded; (2) an evaluation cannot be longer than the context, so that there is always room; (3) nothing
 * is allocated after the session is open.
 * Threads: those of the session; residency comes from the store, which locks. */
#include "engine/engine.h"

#include <string.h>

static uint32_t n_layers_of(const sluice_engine *engine)
{
    return engine->model->n_expert_layers;
}

size_t sl_session_routing_stride(const sluice_engine *engine)
{
    return (size_t)engine->plan.context_length * engine->model->hyper.n_experts_used;
}

static size_t routing_bytes(const sluice_engine *engine)
{
    return n_layers_of(engine) * sl_session_routing_stride(engine) * sizeof(uint32_t);
}

uint64_t sl_session_routing_cost(const sluice_engine *engine)
{
    uint64_t cost = sl_memory_cost(n_layers_of(engine) * sizeof(sl_expert_use), 16);
    if (engine->captures_routing) {
        cost += sl_memory_cost(routing_bytes(engine), 16) + sl_memory_cost(sizeof(sl_recording_writer), 16);
    }
    return cost;
}

bool sl_session_routing_allocate(sluice_session *session)
{
    sluice_engine *engine = session->engine;
    sl_memory *memory = &engine->memory;
    session->expert_use = sl_alloc(memory, SL_MEMORY_ACTIVATIONS, n_layers_of(engine), sizeof *session->expert_use);
    if (engine->captures_routing) {
        session->routing = sl_alloc(memory, SL_MEMORY_ACTIVATIONS, 1, routing_bytes(engine));
        session->recording = sl_alloc(memory, SL_MEMORY_ACTIVATIONS, 1, sizeof *session->recording);
    }
    return session->expert_use != NULL &&
           (!engine->captures_routing || (session->routing != NULL && session->recording != NULL));
}

static void stop_recording(sluice_session *session)
{
    if (session->records) {
        sl_recording_discard(session->recording);
        session->records = false;
    }
}

void sl_session_routing_free(sluice_session *session)
{
    stop_recording(session);
    sl_memory *memory = &session->engine->memory;
    sl_free(memory, session->recording);
    sl_free(memory, session->routing);
    sl_free(memory, session->expert_use);
}

sluice_status sl_session_routing_take(sluice_session *session, uint32_t n_rows, sluice_error *error)
{
    if (!session->captures) {
        return SLUICE_OK;
    }
    const sluice_engine *engine = session->engine;
    const uint32_t *experts = session->routing + (size_t)session->n_captured * engine->model->hyper.n_experts_used;
    session->n_captured += n_rows;
    if (!session->records) {
        return SLUICE_OK;
    }
    sluice_status status =
        sl_recording_append(session->recording, experts, sl_session_routing_stride(engine), n_rows, error);
    if (status != SLUICE_OK) {
        stop_recording(session);
    }
    return status;
}

void sluice_engine_expert_shape(const sluice_engine *engine, sluice_expert_shape *shape)
{
    *shape = (sluice_expert_shape){.n_layers = n_layers_of(engine),
                                   .n_experts = engine->model->hyper.n_experts,
                                   .n_used = engine->model->hyper.n_experts_used};
}

static sluice_status need_room(const sluice_session *session, sluice_error *error)
{
    if (session->routing != NULL) {
        return SLUICE_OK;
    }
    return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                        "the engine was opened without room for routing: set capture_routing in its options");
}

sluice_status sluice_session_capture_routing(sluice_session *session, bool on, sluice_error *error)
{
    if (!on) {
        stop_recording(session);
        session->captures = false;
        session->n_captured = 0;
        return SLUICE_OK;
    }
    SL_TRY(need_room(session, error));
    session->captures = true;
    return SLUICE_OK;
}

bool sluice_session_routing(const sluice_session *session, uint32_t layer, const uint32_t **experts, uint32_t *n_tokens,
                            uint32_t *n_used)
{
    const sluice_engine *engine = session->engine;
    *experts = NULL;
    *n_tokens = 0;
    *n_used = engine->model->hyper.n_experts_used;
    if (layer >= n_layers_of(engine)) {
        return false;
    }
    if (session->captures) {
        *experts = session->routing + layer * sl_session_routing_stride(engine);
        *n_tokens = session->n_captured;
    }
    return true;
}

sluice_status sluice_session_record_routing(sluice_session *session, const char *path, sluice_error *error)
{
    SL_TRY(need_room(session, error));
    if (session->records) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "%s: this session is recording already: finish that recording first", path);
    }
    sluice_expert_shape shape;
    sluice_engine_expert_shape(session->engine, &shape);
    const sl_recording_shape recorded = {
        .n_layers = shape.n_layers, .n_experts = shape.n_experts, .n_used = shape.n_used};
    sluice_status status = sl_recording_create(session->recording, path, &recorded, error);
    if (status != SLUICE_OK) {
        sl_recording_discard(session->recording);
        return status;
    }
    session->captures = true;
    session->records = true;
    return SLUICE_OK;
}

sluice_status sluice_session_finish_recording(sluice_session *session, sluice_error *error)
{
    if (!session->records) {
        return SLUICE_OK;
    }
    sluice_status status = sl_recording_commit(session->recording, error);
    stop_recording(session);
    return status;
}

static sluice_expert_use public_use(const sl_expert_use *use)
{
    return (sluice_expert_use){.memory_calls = use->memory_calls,
                               .memory_tokens = use->memory_tokens,
                               .read_calls = use->read_calls,
                               .read_tokens = use->read_tokens};
}

bool sluice_session_expert_use(const sluice_session *session, uint32_t layer, sluice_expert_use *use)
{
    *use = (sluice_expert_use){0};
    if (layer >= n_layers_of(session->engine)) {
        return false;
    }
    *use = public_use(&session->expert_use[layer]);
    return true;
}

void sluice_session_expert_use_total(const sluice_session *session, sluice_expert_use *use)
{
    sl_expert_use total = {0};
    for (uint32_t layer = 0; layer < n_layers_of(session->engine); layer++) {
        const sl_expert_use *part = &session->expert_use[layer];
        total.memory_calls += part->memory_calls;
        total.memory_tokens += part->memory_tokens;
        total.read_calls += part->read_calls;
        total.read_tokens += part->read_tokens;
    }
    *use = public_use(&total);
}

void sluice_session_expert_use_reset(sluice_session *session)
{
    memset(session->expert_use, 0, n_layers_of(session->engine) * sizeof *session->expert_use);
}

/* Experts from `n_experts` on are missing. */
static void set_missing(uint64_t *mask, uint32_t n_words, uint32_t n_experts)
{
    for (uint32_t word = 0; word < n_words; word++) {
        uint64_t first = (uint64_t)word * 64;
        if (first >= n_experts) {
            mask[word] = UINT64_MAX;
        } else if (n_experts - first < 64) {
            mask[word] |= UINT64_MAX << (n_experts - first);
        }
    }
}

void sluice_engine_residency(sluice_engine *engine, uint32_t layer, uint64_t *mask, uint32_t n_words)
{
    sl_store_residency(engine->store, layer, mask, n_words);
    set_missing(mask, n_words, layer < n_layers_of(engine) ? engine->model->hyper.n_experts : 0);
}

void sluice_engine_merged_residency(sluice_engine *engine, uint64_t *mask, uint32_t n_words)
{
    sl_store_merged_residency(engine->store, mask, n_words);
    set_missing(mask, n_words, engine->model->hyper.n_experts);
}

bool sluice_residency_has(const uint64_t *mask, uint32_t n_words, uint32_t expert)
{
    return mask == NULL || expert / 64 >= n_words || (mask[expert / 64] >> (expert % 64) & 1) != 0;
}
