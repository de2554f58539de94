/* Owns the KV caches, buffers and position of a session.
 *
 * Invariants
 *  (1) position is the number of tokens whose keys and values are in the caches; rows of the caches at or above it
 *      are free.
 *  (2) A chunk is evaluated whole or not at all: position moves only after the chunk's program and its logits
 *      succeeded.
 *  (3) The hash covers the logits rows in the order in which they were delivered.
 * Threads: one at a time, but for sluice_session_cancel, which only sets `cancelled`. A chunk runs under the engine's
 * run_lock, so sessions of one engine take turns chunk by chunk. */
#include "engine/engine.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "os/pages.h"

/* Caches from here on are in a mapping of their own, so that huge pages end with them. */
static const uint64_t large_kv_bytes = 32 * (uint64_t)SL_HUGE_PAGE_BYTES;

static const void *weight_named(const sluice_engine *engine, const char *name)
{
    for (uint32_t i = 0; i < engine->model->n_dense; i++) {
        if (sl_span_equal_text(engine->model->dense[i]->name, name)) {
            return sl_dense_tensor(&engine->dense, engine->model, i);
        }
    }
    return NULL;
}

/* Inputs by name, weights by tensor, states one after the other in the session's cache memory. */
static sluice_status bind(sluice_session *session, const sl_program *program, void **bindings, sluice_error *error)
{
    char *kv = session->kv;
    for (uint32_t i = 0; i < program->n_bindings; i++) {
        const sl_binding *binding = &program->bindings[i];
        switch (binding->kind) {
        case SL_VALUE_INPUT:
            /* "hidden", the input of the head, is set for each run. */
            bindings[i] = strcmp(binding->name, "tokens") == 0      ? session->tokens
                          : strcmp(binding->name, "positions") == 0 ? session->positions
                                                                    : NULL;
            break;
        case SL_VALUE_WEIGHT: bindings[i] = (void *)weight_named(session->engine, binding->name); break;
        case SL_VALUE_STATE:
            bindings[i] = kv;
            kv += sl_engine_state_bytes(session->engine, binding->value);
            break;
        case SL_VALUE_TEMPORARY: break;
        }
        if (bindings[i] == NULL && binding->kind == SL_VALUE_WEIGHT) {
            return sl_error_set(error, SLUICE_ERROR_NOT_FOUND, "the model has no tensor %s", binding->name);
        }
    }
    return SLUICE_OK;
}

static bool allocate(sluice_session *session)
{
    sluice_engine *engine = session->engine;
    sl_memory *memory = &engine->memory;
    session->tokens = sl_alloc(memory, SL_MEMORY_ACTIVATIONS, SL_MAX_CHUNK, sizeof *session->tokens);
    session->positions = sl_alloc(memory, SL_MEMORY_ACTIVATIONS, SL_MAX_CHUNK, sizeof *session->positions);
    session->body_bindings =
        sl_alloc(memory, SL_MEMORY_ACTIVATIONS, engine->body[0]->n_bindings, sizeof *session->body_bindings);
    session->head_bindings =
        sl_alloc(memory, SL_MEMORY_ACTIVATIONS, engine->head[0]->n_bindings, sizeof *session->head_bindings);
    session->logits = sl_alloc(memory, SL_MEMORY_ACTIVATIONS, engine->model->hyper.n_vocab, sizeof *session->logits);
    session->kv = sl_alloc_aligned(memory, SL_MEMORY_KV, sl_engine_kv_bytes(engine), 4096);
    if (session->kv != NULL && sl_engine_kv_bytes(engine) >= large_kv_bytes) {
        sl_pages_advise_huge(session->kv, sl_engine_kv_bytes(engine));
    }
    return session->tokens != NULL && session->positions != NULL && session->body_bindings != NULL &&
           session->head_bindings != NULL && session->logits != NULL && session->kv != NULL &&
           sl_session_routing_allocate(session);
}

sluice_status sluice_session_open(sluice_session **out, sluice_engine *engine, sluice_error *error)
{
    *out = NULL;
    if (atomic_fetch_add(&engine->n_sessions, 1) >= engine->n_sessions_planned) {
        atomic_fetch_sub(&engine->n_sessions, 1);
        return sl_error_set(
            error, SLUICE_ERROR_BUDGET,
            "the memory plan has room for %u sessions and all are open: close one or open the engine with "
            "a larger n_sessions",
            engine->n_sessions_planned);
    }
    sluice_session *session = sl_alloc(&engine->memory, SL_MEMORY_ACTIVATIONS, 1, sizeof *session);
    if (session == NULL) {
        atomic_fetch_sub(&engine->n_sessions, 1);
        return sl_error_no_memory(error, sizeof *session, "a session");
    }
    session->engine = engine;
    sluice_status status = SLUICE_OK;
    if (!allocate(session)) {
        status = sl_error_no_memory(error, sl_engine_kv_bytes(engine), "the KV cache and buffers of a session");
    }
    if (status == SLUICE_OK) {
        status = bind(session, engine->body[0], session->body_bindings, error);
    }
    if (status == SLUICE_OK) {
        status = bind(session, engine->head[0], session->head_bindings, error);
    }
    if (status != SLUICE_OK) {
        sluice_session_close(&session);
        return status;
    }
    *out = session;
    return SLUICE_OK;
}

void sluice_session_close(sluice_session **session)
{
    sluice_session *closing = *session;
    if (closing == NULL) {
        return;
    }
    sluice_engine *engine = closing->engine;
    sl_session_routing_free(closing);
    void *owned[] = {closing->tokens,        closing->positions, closing->body_bindings,
                     closing->head_bindings, closing->logits,    closing->kv};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        sl_free(&engine->memory, owned[i]);
    }
    sl_free(&engine->memory, closing);
    atomic_fetch_sub(&engine->n_sessions, 1);
    *session = NULL;
}

uint32_t sluice_session_position(const sluice_session *session)
{
    return session->position;
}

void sluice_session_reset(sluice_session *session)
{
    session->position = 0;
    session->logits_hash = 0;
    session->has_logits = false;
}

const float *sluice_session_logits(const sluice_session *session)
{
    return session->has_logits ? session->logits : NULL;
}

uint64_t sluice_session_logits_hash(const sluice_session *session)
{
    return session->logits_hash;
}

void sluice_session_cancel(sluice_session *session)
{
    atomic_store_explicit(&session->cancelled, true, memory_order_relaxed);
}

typedef struct delivery {
    sluice_logits_fn *on_logits; /* may be NULL */
    void *user;
} delivery;

static sluice_status deliver(sluice_session *session, uint32_t position, const float *logits, const delivery *to,
                             sluice_error *error)
{
    uint32_t n_vocab = session->engine->model->hyper.n_vocab;
    uint32_t n_finite = 0; /* counted in full: vectors do that faster than a loop that may end early */
    for (uint32_t i = 0; i < n_vocab; i++) {
        n_finite += isfinite(logits[i]) ? 1 : 0;
    }
    if (n_finite < n_vocab) {
        uint32_t i = 0;
        while (isfinite(logits[i])) {
            i++;
        }
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: the logit of token %u at position %u is not a finite number; the weights are damaged "
                            "or too large for their type",
                            session->engine->model_name, i, position);
    }
    memcpy(session->logits, logits, n_vocab * sizeof *logits);
    session->has_logits = true;
    session->logits_hash = sl_hash64(logits, n_vocab * sizeof *logits, session->logits_hash);
    if (to->on_logits != NULL && !to->on_logits(to->user, position, logits)) {
        return sl_error_set(error, SLUICE_ERROR_CANCELLED, "stopped by the caller at position %u", position);
    }
    return SLUICE_OK;
}

/* The program knows no files: what is wrong with the weights is said of the model. */
static sluice_status run_program(const sluice_engine *engine, sl_run *run, sluice_error *error)
{
    sluice_error cause = {0};
    sluice_status status = sl_executor_run(engine->executor, run, &cause);
    if (status == SLUICE_ERROR_FORMAT) {
        return sl_error_set(error, status, "%s: %s", engine->model_name, cause.message);
    }
    if (status != SLUICE_OK && error != NULL) {
        *error = cause;
    }
    return status;
}

/* Logits of rows [first, end) of the hidden rows, a few at a time. */
static sluice_status run_head(sluice_session *session, const float *hidden, uint32_t first, uint32_t end,
                              const delivery *to, sluice_error *error)
{
    sluice_engine *engine = session->engine;
    uint32_t n_embd = engine->model->hyper.n_embd;
    uint32_t i_hidden = sl_program_find_binding(engine->head[0], "hidden");
    for (uint32_t row = first; row < end; row += SL_HEAD_ROWS) {
        uint32_t n_rows = end - row < SL_HEAD_ROWS ? end - row : SL_HEAD_ROWS;
        session->head_bindings[i_hidden] = (void *)(hidden + (size_t)row * n_embd);
        sl_run run = {.program = engine->head[sl_engine_bucket(engine, n_rows)],
                      .bindings = session->head_bindings,
                      .arena = engine->head_arena,
                      .rows = n_rows,
                      .kv_capacity = engine->plan.context_length,
                      .cancel = &session->cancelled};
        SL_TRY(run_program(engine, &run, error));
        const float *logits = sl_run_output(&run, 0);
        for (uint32_t i = 0; i < n_rows; i++) {
            SL_TRY(deliver(session, session->position + row + i, logits + (size_t)i * engine->model->hyper.n_vocab, to,
                           error));
        }
    }
    return SLUICE_OK;
}

/* One chunk; `first_wanted` is the first row whose logits are wanted, n_rows for none. */
static sluice_status run_chunk(sluice_session *session, const int32_t *tokens, uint32_t n_rows, uint32_t first_wanted,
                               const delivery *to, sluice_error *error)
{
    sluice_engine *engine = session->engine;
    for (uint32_t i = 0; i < n_rows; i++) {
        session->tokens[i] = tokens[i];
        session->positions[i] = (int32_t)(session->position + i);
    }
    sl_run run = {.program = engine->body[sl_engine_bucket(engine, n_rows)],
                  .bindings = session->body_bindings,
                  .arena = engine->body_arena,
                  .rows = n_rows,
                  .kv_capacity = engine->plan.context_length,
                  .cancel = &session->cancelled,
                  .expert_use = session->expert_use};
    if (session->captures) {
        run.routing = session->routing + (size_t)session->n_captured * engine->model->hyper.n_experts_used;
        run.routing_stride = sl_session_routing_stride(engine);
    }
    SL_TRY(run_program(engine, &run, error));
    if (first_wanted < n_rows) {
        SL_TRY(run_head(session, sl_run_output(&run, 0), first_wanted, n_rows, to, error));
    }
    session->position += n_rows;
    return sl_session_routing_take(session, n_rows, error);
}

static sluice_status check_tokens(const sluice_session *session, const int32_t *tokens, size_t n_tokens,
                                  sluice_error *error)
{
    uint32_t n_vocab = session->engine->model->hyper.n_vocab;
    uint32_t context_length = session->engine->plan.context_length;
    if (n_tokens > context_length - session->position) {
        return sl_error_set(
            error, SLUICE_ERROR_ARGUMENT,
            "%zu tokens do not fit: the context has %u positions and %u are taken; use a larger --ctx or a "
            "shorter prompt",
            n_tokens, context_length, session->position);
    }
    for (size_t i = 0; i < n_tokens; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= n_vocab) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "token %d at index %zu: the vocabulary has ids 0 to %u",
                                tokens[i], i, n_vocab - 1);
        }
    }
    return SLUICE_OK;
}

sluice_status sluice_session_eval(sluice_session *session, const int32_t *tokens, size_t n_tokens,
                                  sluice_logits_want want, sluice_logits_fn *on_logits, void *user, sluice_error *error)
{
    session->n_captured = 0;
    SL_TRY(check_tokens(session, tokens, n_tokens, error));
    sluice_engine *engine = session->engine;
    delivery to = {.on_logits = on_logits, .user = user};
    sluice_status status = SLUICE_OK;
    for (size_t done = 0; done < n_tokens && status == SLUICE_OK;) {
        size_t left = n_tokens - done;
        uint32_t n_rows = left < engine->plan.prefill_chunk ? (uint32_t)left : engine->plan.prefill_chunk;
        uint32_t first_wanted = want == SLUICE_LOGITS_ALL                                 ? 0
                                : want == SLUICE_LOGITS_LAST && done + n_rows == n_tokens ? n_rows - 1
                                                                                          : n_rows;
        pthread_mutex_lock(&engine->run_lock);
        status = run_chunk(session, tokens + done, n_rows, first_wanted, &to, error);
        pthread_mutex_unlock(&engine->run_lock);
        done += n_rows;
    }
    if (status == SLUICE_ERROR_CANCELLED) {
        atomic_store_explicit(&session->cancelled, false, memory_order_relaxed);
    }
    return status;
}
