/* What a session shows of its routing, and an engine of where its experts are. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "experts/recording.h"
#include "sluice/sluice.h"

static const char model_path[] = "tests/golden/models/qwen3moe.gguf";
enum { N_TOKENS = 10, MAX_PAIRS = N_TOKENS * 8, MAX_LAYERS = 8 };
static const int32_t tokens[N_TOKENS] = {5, 17, 40, 99, 3, 61, 200, 7, 8, 120};

static sluice_engine_options options_of(uint32_t chunk)
{
    sluice_engine_options options;
    sluice_engine_options_init(&options);
    options.model_path = model_path;
    options.context_length = 32;
    options.n_threads = 2;
    options.n_sessions = 3;
    options.prefill_chunk = chunk;
    options.capture_routing = true;
    options.prefetch = "none"; /* what is in memory follows from what was used */
    return options;
}

static sluice_engine *open_engine(const sluice_engine_options *options)
{
    sluice_engine *engine = NULL;
    sluice_error error;
    if (sluice_engine_open(&engine, options, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    return engine;
}

static sluice_session *open_session(sluice_engine *engine)
{
    sluice_session *session = NULL;
    assert_int_equal(sluice_session_open(&session, engine, NULL), SLUICE_OK);
    return session;
}

static void evaluate(sluice_session *session, uint32_t first, uint32_t n_tokens)
{
    assert_int_equal(sluice_session_eval(session, tokens + first, n_tokens, SLUICE_LOGITS_LAST, NULL, NULL, NULL),
                     SLUICE_OK);
}

typedef struct routing {
    uint32_t n_layers, n_used;
    uint32_t experts[MAX_LAYERS][MAX_PAIRS];
} routing;

/* What a session has captured, `first` tokens further on in `all`. */
static void take_routing(const sluice_session *session, uint32_t first, uint32_t n_expected, routing *all)
{
    for (uint32_t layer = 0; layer < all->n_layers; layer++) {
        const uint32_t *experts = NULL;
        uint32_t n_tokens = 0;
        uint32_t n_used = 0;
        assert_true(sluice_session_routing(session, layer, &experts, &n_tokens, &n_used));
        assert_int_equal(n_tokens, n_expected);
        assert_int_equal(n_used, all->n_used);
        memcpy(&all->experts[layer][first * n_used], experts, (size_t)n_tokens * n_used * sizeof *experts);
    }
}

static routing routing_for(const sluice_engine *engine)
{
    sluice_expert_shape shape;
    sluice_engine_expert_shape(engine, &shape);
    assert_true(shape.n_layers <= MAX_LAYERS && shape.n_used * N_TOKENS <= MAX_PAIRS && shape.n_used > 1);
    return (routing){.n_layers = shape.n_layers, .n_used = shape.n_used};
}

/* Token by token: the reference for all other ways. */
static routing reference(void)
{
    sluice_engine_options options = options_of(1);
    sluice_engine *engine = open_engine(&options);
    sluice_session *session = open_session(engine);
    assert_int_equal(sluice_session_capture_routing(session, true, NULL), SLUICE_OK);
    routing all = routing_for(engine);
    for (uint32_t i = 0; i < N_TOKENS; i++) {
        evaluate(session, i, 1);
        take_routing(session, i, 1, &all);
    }
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    return all;
}

static void chunks_show_the_same_routing_as_single_tokens(void **state)
{
    (void)state;
    routing expected = reference();
    for (uint32_t chunk = 3; chunk <= 16; chunk += 13) {
        sluice_engine_options options = options_of(chunk);
        sluice_engine *engine = open_engine(&options);
        sluice_session *session = open_session(engine);
        assert_int_equal(sluice_session_capture_routing(session, true, NULL), SLUICE_OK);
        routing all = routing_for(engine);
        evaluate(session, 0, N_TOKENS);
        take_routing(session, 0, N_TOKENS, &all);
        assert_memory_equal(&all, &expected, sizeof all);
        sluice_session_close(&session);
        sluice_engine_close(&engine);
    }
}

static void every_evaluation_begins_with_nothing(void **state)
{
    (void)state;
    sluice_engine_options options = options_of(4);
    sluice_engine *engine = open_engine(&options);
    sluice_session *session = open_session(engine);
    const uint32_t *experts = NULL;
    uint32_t n_tokens = 1;
    uint32_t n_used = 0;
    evaluate(session, 0, 2);
    assert_true(sluice_session_routing(session, 0, &experts, &n_tokens, &n_used));
    assert_int_equal(n_tokens, 0);
    assert_int_equal(sluice_session_capture_routing(session, true, NULL), SLUICE_OK);
    evaluate(session, 2, 6);
    assert_true(sluice_session_routing(session, 0, &experts, &n_tokens, &n_used));
    assert_int_equal(n_tokens, 6);
    const int32_t outside = -1;
    assert_int_equal(sluice_session_eval(session, &outside, 1, SLUICE_LOGITS_LAST, NULL, NULL, NULL),
                     SLUICE_ERROR_ARGUMENT);
    assert_true(sluice_session_routing(session, 0, &experts, &n_tokens, &n_used));
    assert_int_equal(n_tokens, 0);
    evaluate(session, 8, 1);
    assert_true(sluice_session_routing(session, 0, &experts, &n_tokens, &n_used));
    assert_int_equal(n_tokens, 1);
    assert_int_equal(sluice_session_capture_routing(session, false, NULL), SLUICE_OK);
    assert_true(sluice_session_routing(session, 0, &experts, &n_tokens, &n_used));
    assert_int_equal(n_tokens, 0);
    assert_false(sluice_session_routing(session, 1000, &experts, &n_tokens, &n_used));
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

static void capturing_needs_room_and_changes_no_logit(void **state)
{
    (void)state;
    sluice_engine_options options = options_of(4);
    options.capture_routing = false;
    sluice_engine *plain = open_engine(&options);
    options.capture_routing = true;
    sluice_engine *capturing = open_engine(&options);
    sluice_session *sessions[2] = {open_session(plain), open_session(capturing)};
    sluice_error error = {0};
    assert_int_equal(sluice_session_capture_routing(sessions[0], true, &error), SLUICE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "capture_routing"));
    assert_int_equal(sluice_session_record_routing(sessions[0], "/nowhere/x", &error), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sluice_session_capture_routing(sessions[0], false, &error), SLUICE_OK);
    assert_int_equal(sluice_session_capture_routing(sessions[1], true, &error), SLUICE_OK);
    evaluate(sessions[0], 0, N_TOKENS);
    evaluate(sessions[1], 0, N_TOKENS);
    assert_true(sluice_session_logits_hash(sessions[0]) == sluice_session_logits_hash(sessions[1]));
    sluice_session_close(&sessions[0]);
    sluice_session_close(&sessions[1]);
    sluice_engine_close(&plain);
    sluice_engine_close(&capturing);
}

/* The plan counts what three sessions with room for routing take. */
static void the_plan_counts_the_room(void **state)
{
    (void)state;
    sluice_engine_options options = options_of(4);
    sluice_engine *engine = open_engine(&options);
    sluice_session *sessions[3] = {open_session(engine), open_session(engine), open_session(engine)};
    sluice_engine_stats stats;
    sluice_engine_stats_get(engine, &stats);
    uint64_t activation_bytes = 0;
    for (uint32_t tag = 0; tag < SLUICE_MEMORY_TAGS; tag++) {
        if (strcmp(sluice_memory_tag_name(tag), "activations") == 0) {
            activation_bytes = stats.mem_by_tag[tag];
        }
    }
    sluice_memory_plan plan;
    sluice_engine_memory_plan_get(engine, &plan);
    assert_int_equal(activation_bytes, plan.activation_bytes);
    for (int i = 0; i < 3; i++) {
        sluice_session_close(&sessions[i]);
    }
    sluice_engine_close(&engine);
}

typedef struct job {
    sluice_engine *engine;
    routing all;
    sluice_expert_use use;
    bool backwards;
} job;

static void *capture(void *argument)
{
    job *self = argument;
    sluice_session *session = open_session(self->engine);
    if (sluice_session_capture_routing(session, true, NULL) == SLUICE_OK) {
        for (uint32_t i = 0; i < N_TOKENS; i++) {
            const int32_t token = tokens[self->backwards ? N_TOKENS - 1 - i : i];
            if (sluice_session_eval(session, &token, 1, SLUICE_LOGITS_LAST, NULL, NULL, NULL) == SLUICE_OK) {
                take_routing(session, i, 1, &self->all);
            }
        }
    }
    sluice_session_expert_use_total(session, &self->use);
    sluice_session_close(&session);
    return NULL;
}

static void sessions_side_by_side_capture_their_own(void **state)
{
    (void)state;
    sluice_engine_options options = options_of(1);
    sluice_engine *engine = open_engine(&options);
    job alone[2] = {{.engine = engine, .all = routing_for(engine)},
                    {.engine = engine, .all = routing_for(engine), .backwards = true}};
    job jobs[2] = {alone[0], alone[1]};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        capture(&alone[i]);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, capture, &jobs[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_memory_equal(&jobs[i].all, &alone[i].all, sizeof alone[i].all);
        assert_int_equal(jobs[i].use.memory_tokens + jobs[i].use.read_tokens,
                         (uint64_t)N_TOKENS * jobs[i].all.n_layers * jobs[i].all.n_used);
    }
    assert_memory_not_equal(&alone[0].all, &alone[1].all, sizeof alone[0].all);
    sluice_engine_close(&engine);
}

static void a_recording_holds_what_was_captured(void **state)
{
    (void)state;
    char path[] = P_tmpdir "/sluice-routing-XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    routing expected = reference();
    sluice_engine_options options = options_of(4);
    sluice_engine *engine = open_engine(&options);
    sluice_session *session = open_session(engine);
    sluice_error error;
    assert_int_equal(sluice_session_finish_recording(session, &error), SLUICE_OK);
    assert_int_equal(sluice_session_record_routing(session, path, &error), SLUICE_OK);
    assert_int_equal(sluice_session_record_routing(session, path, &error), SLUICE_ERROR_ARGUMENT);
    evaluate(session, 0, 9);
    evaluate(session, 9, 1);
    assert_int_equal(sluice_session_finish_recording(session, &error), SLUICE_OK);
    sluice_session_close(&session);
    sluice_engine_close(&engine);

    sl_recording_reader reader;
    assert_int_equal(sl_recording_open(&reader, path, &error), SLUICE_OK);
    assert_int_equal(reader.shape.n_layers, expected.n_layers);
    const uint32_t lengths[] = {4, 4, 1, 1};
    uint32_t first = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t n_tokens = 0;
        assert_int_equal(sl_recording_next_chunk(&reader, &n_tokens, &error), SLUICE_OK);
        assert_int_equal(n_tokens, lengths[i]);
        for (uint32_t layer = 0; layer < expected.n_layers; layer++) {
            uint32_t experts[MAX_PAIRS];
            assert_int_equal(sl_recording_next_layer(&reader, n_tokens, experts, &error), SLUICE_OK);
            assert_memory_equal(experts, &expected.experts[layer][first * expected.n_used],
                                (size_t)n_tokens * expected.n_used * sizeof *experts);
        }
        first += n_tokens;
    }
    sl_recording_close(&reader);
    unlink(path);
}

static void tiers_count_every_routed_token_once(void **state)
{
    (void)state;
    sluice_engine_options options = options_of(N_TOKENS);
    sluice_engine *engine = open_engine(&options);
    sluice_session *session = open_session(engine);
    sluice_expert_shape shape;
    sluice_engine_expert_shape(engine, &shape);
    for (int i_round = 0; i_round < 3; i_round++) {
        sluice_session_reset(session);
        evaluate(session, 0, N_TOKENS);
        for (uint32_t layer = 0; layer < shape.n_layers; layer++) {
            sluice_expert_use use;
            assert_true(sluice_session_expert_use(session, layer, &use));
            /* The budget holds everything: read in the first round, kept in the first or the second, in memory in the
             * third. */
            assert_int_equal(i_round == 0 ? use.memory_tokens : i_round == 2 ? use.read_tokens : 0, 0);
            assert_int_equal(i_round == 0 ? use.memory_calls : i_round == 2 ? use.read_calls : 0, 0);
            assert_int_equal(use.read_tokens + use.memory_tokens, N_TOKENS * shape.n_used);
            assert_true(use.read_calls + use.memory_calls <= shape.n_experts);
            assert_true(use.read_calls + use.memory_calls >= shape.n_used);
        }
        sluice_session_expert_use_reset(session);
    }
    sluice_expert_use total;
    sluice_session_expert_use_total(session, &total);
    assert_int_equal(total.memory_calls + total.memory_tokens + total.read_calls + total.read_tokens, 0);
    assert_false(sluice_session_expert_use(session, shape.n_layers, &total));
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

static void residency_is_what_was_used_and_what_is_missing(void **state)
{
    (void)state;
    sluice_engine_options options = options_of(1);
    sluice_engine *engine = open_engine(&options);
    sluice_session *session = open_session(engine);
    sluice_expert_shape shape;
    sluice_engine_expert_shape(engine, &shape);
    assert_true(shape.n_experts < 64);
    assert_int_equal(sluice_session_capture_routing(session, true, NULL), SLUICE_OK);
    evaluate(session, 0, 1);
    uint64_t missing = UINT64_MAX << shape.n_experts;
    uint64_t merged = missing;
    for (uint32_t layer = 0; layer < shape.n_layers; layer++) {
        const uint32_t *experts = NULL;
        uint32_t n_tokens = 0;
        uint32_t n_used = 0;
        uint64_t mask[2];
        uint64_t expected = missing;
        assert_true(sluice_session_routing(session, layer, &experts, &n_tokens, &n_used));
        for (uint32_t i = 0; i < n_used; i++) {
            expected |= (uint64_t)1 << experts[i];
        }
        sluice_engine_residency(engine, layer, mask, 2);
        assert_true(mask[0] == expected && mask[1] == UINT64_MAX);
        assert_true(sluice_residency_has(mask, 2, experts[0]));
        merged |= expected;
    }
    uint64_t mask = 0;
    sluice_engine_merged_residency(engine, &mask, 1);
    assert_true(mask == merged);
    sluice_engine_residency(engine, shape.n_layers, &mask, 1);
    assert_true(mask == UINT64_MAX);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

static void what_a_mask_does_not_hold_is_resident(void **state)
{
    (void)state;
    const uint64_t masks[2] = {0xe, 0xd}; /* layer 0 lacks expert 0, layer 1 lacks expert 1 */
    for (uint32_t expert = 0; expert < 4; expert++) {
        assert_int_equal(sluice_residency_has(&masks[0], 1, expert), expert != 0);
        assert_int_equal(sluice_residency_has(&masks[1], 1, expert), expert != 1);
        assert_true(sluice_residency_has(NULL, 1, expert));
    }
    assert_true(sluice_residency_has(masks, 1, 64));
    assert_false(sluice_residency_has(masks, 2, 65));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_show_the_same_routing_as_single_tokens),
        cmocka_unit_test(every_evaluation_begins_with_nothing),
        cmocka_unit_test(capturing_needs_room_and_changes_no_logit),
        cmocka_unit_test(the_plan_counts_the_room),
        cmocka_unit_test(sessions_side_by_side_capture_their_own),
        cmocka_unit_test(a_recording_holds_what_was_captured),
        cmocka_unit_test(tiers_count_every_routed_token_once),
        cmocka_unit_test(residency_is_what_was_used_and_what_is_missing),
        cmocka_unit_test(what_a_mask_does_not_hold_is_resident),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
