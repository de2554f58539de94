/* An engine whose reads fail as planned, and one session of it that evaluates a few fixed tokens: a prompt in chunks,
 * then one by one. Include after cmocka.h. */
#ifndef SL_TESTS_SESSION_FAULTS_H
#define SL_TESTS_SESSION_FAULTS_H

#include <string.h>
#include <unistd.h>

#include "../support/engine_run.h"

enum { N_PROMPT = 5, N_TOKENS = 7, CHUNK = 3 };

typedef struct subject {
    sl_read_fault_plan plan; /* only at_read changes while the engine is open: reads ahead may be in flight */
    sluice_engine *engine;
    sluice_session *session;
    uint64_t expected; /* hash of the logits of all tokens */
} subject;

/* Evaluate what the session has not evaluated yet. */
static inline sluice_status go_on(sluice_session *session, sluice_error *error)
{
    static const int32_t tokens[N_TOKENS] = {5, 17, 200, 99, 3, 61, 40};
    for (uint32_t position; (position = sluice_session_position(session)) < N_TOKENS;) {
        size_t n_tokens = position < N_PROMPT ? N_PROMPT - position : 1;
        SL_TRY(sluice_session_eval(session, tokens + position, n_tokens, SLUICE_LOGITS_ALL, NULL, NULL, error));
    }
    return SLUICE_OK;
}

static inline sluice_status start_over(sluice_session *session, sluice_error *error)
{
    sluice_session_reset(session);
    return go_on(session, error);
}

static inline uint64_t expected_hash_of(const char *model_path)
{
    engine_run run = {.model_path = model_path, .n_threads = 1};
    sluice_engine *engine = NULL;
    sluice_session *session = NULL;
    assert_int_equal(open_engine(&engine, &run, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_session_open(&session, engine, NULL), SLUICE_OK);
    assert_int_equal(go_on(session, NULL), SLUICE_OK);
    uint64_t hash = sluice_session_logits_hash(session);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    return hash;
}

/* At the floor, where every layer of every token reads, but for `more_slots`. */
static inline void open_subject(subject *test, const engine_run *run, uint64_t more_slots)
{
    engine_run tight = *run;
    tight.n_threads = 2;
    tight.prefill_chunk = CHUNK;
    test->expected = expected_hash_of(run->model_path);
    tight.mem_budget_bytes =
        engine_floor_bytes(&tight) + sl_reads_faults_cost() + more_slots * engine_slot_bytes(&tight);
    sluice_error error = {0};
    if (open_engine(&test->engine, &tight, &test->plan, &error) != SLUICE_OK ||
        sluice_session_open(&test->session, test->engine, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
}

static inline void close_subject(subject *test)
{
    sluice_session_close(&test->session);
    sluice_engine_close(&test->engine);
}

/* Let the n-th read from now on, counted from 1, be the first that fails; 0: none. */
static inline void plan_fault(subject *test, uint64_t n)
{
    uint64_t n_seen = __atomic_load_n(&test->plan.n_seen, __ATOMIC_RELAXED);
    __atomic_store_n(&test->plan.at_read, n == 0 ? 0 : n_seen + n, __ATOMIC_RELAXED);
}

static inline bool fault_was_reached(const subject *test)
{
    return __atomic_load_n(&test->plan.n_seen, __ATOMIC_RELAXED) >= test->plan.at_read;
}

/* Wait until no read is in flight: the busy time stands still. Those of a failed evaluation may carry faults too. */
static inline void settle(const subject *test)
{
    sluice_engine_stats before;
    sluice_engine_stats after;
    do {
        sluice_engine_stats_get(test->engine, &before);
        usleep(100);
        sluice_engine_stats_get(test->engine, &after);
    } while (after.io_busy_ms > before.io_busy_ms);
}

/* What a failed evaluation must leave: a sentence that names the file, and whole chunks. */
static inline void check_failure(const subject *test, sluice_status status, sluice_status wanted,
                                 const sluice_error *error)
{
    if (status != wanted) {
        fail_msg("status %s, '%s'", sluice_status_name(status), error->message);
    }
    assert_non_null(strstr(error->message, ".gguf: "));
    assert_non_null(strstr(error->message, "expert "));
    uint32_t position = sluice_session_position(test->session);
    assert_true(position % CHUNK == 0 || position >= N_PROMPT);
    assert_true(position < N_TOKENS);
}

/* Once the fault is gone the same session goes on from where it stands, or begins again: both come to the true end. */
static inline void check_recovery(const subject *test, bool from_the_start)
{
    sluice_error error = {0};
    sluice_status status = from_the_start ? start_over(test->session, &error) : go_on(test->session, &error);
    if (status != SLUICE_OK) {
        fail_msg("after the fault was gone: %s", error.message);
    }
    assert_int_equal(sluice_session_logits_hash(test->session), test->expected);
}

#endif
