/* A session by itself: what it refuses and how it goes on after that, and what it must not do while it runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka.h needs setjmp, stdarg, stddef and stdint. */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../support/counting_locks.h"
#include "../support/engine_run.h"

enum { CONTEXT = 32, CHUNK = 8, N_TOKENS = 20 };

static const int32_t tokens[N_TOKENS] = {5, 17, 40, 99, 3, 61, 200, 7, 8, 120, 44, 2, 250, 9, 33, 71, 18, 6, 90, 140};

typedef struct fixture {
    counting_allocator counter;
    sluice_engine *engine;
    sluice_session *session;
} fixture;

static void open_model(fixture *test, const char *model_path)
{
    sluice_allocator allocator = counting_allocator_interface(&test->counter);
    sluice_engine_options options;
    sluice_engine_options_init(&options);
    options.model_path = model_path;
    options.context_length = CONTEXT;
    options.n_threads = 2;
    options.prefill_chunk = CHUNK;
    options.allocator = &allocator;
    sluice_error error = {0};
    if (sluice_engine_open(&test->engine, &options, &error) != SLUICE_OK ||
        sluice_session_open(&test->session, test->engine, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
}

static void close_model(fixture *test)
{
    sluice_session_close(&test->session);
    sluice_engine_close(&test->engine);
    assert_int_equal(test->counter.n_allocated, test->counter.n_released);
}

static int set_up(void **state)
{
    fixture *test = test_calloc(1, sizeof *test);
    open_model(test, "tests/golden/models/qwen3moe.gguf");
    *state = test;
    return 0;
}

static int tear_down(void **state)
{
    close_model(*state);
    test_free(*state);
    return 0;
}

static sluice_status evaluate(fixture *test, const int32_t *list, size_t n_list, sluice_error *error)
{
    return sluice_session_eval(test->session, list, n_list, SLUICE_LOGITS_ALL, NULL, NULL, error);
}

/* The hash of all logits, from an empty context. */
static uint64_t whole_hash(fixture *test)
{
    sluice_session_reset(test->session);
    assert_int_equal(evaluate(test, tokens, N_TOKENS, NULL), SLUICE_OK);
    assert_int_equal(sluice_session_position(test->session), N_TOKENS);
    return sluice_session_logits_hash(test->session);
}

static void evaluating_allocates_nothing(void **state)
{
    fixture *test = *state;
    unsigned long n_before = test->counter.n_allocated;
    unsigned long n_released = test->counter.n_released;
    /* Every size of a chunk up to the largest, so every compiled program runs; experts are read meanwhile. */
    for (size_t n_list = 1; n_list <= CHUNK; n_list++) {
        sluice_session_reset(test->session);
        assert_int_equal(evaluate(test, tokens, n_list, NULL), SLUICE_OK);
    }
    (void)whole_hash(test);
    sluice_engine_stats stats;
    sluice_engine_stats_get(test->engine, &stats);
    assert_true(stats.expert_misses > 0);
    assert_int_equal(test->counter.n_allocated, n_before);
    assert_int_equal(test->counter.n_released, n_released);
}

static void decode(fixture *test)
{
    sluice_session_reset(test->session);
    for (int i_token = 0; i_token < N_TOKENS; i_token++) {
        assert_int_equal(evaluate(test, &tokens[i_token], 1, NULL), SLUICE_OK);
    }
}

static bool all_experts_are_in_memory(const fixture *test)
{
    uint64_t missing = 0;
    for (uint32_t layer = 0; layer < 64; layer++) { /* what the model has not got counts as there */
        uint64_t mask = 0;
        sluice_engine_residency(test->engine, layer, &mask, 1);
        missing |= ~mask;
    }
    return missing == 0;
}

/* One lock keeps sessions apart, taken before a token begins; on its way through the layers there is none. */
static void decoding_with_all_experts_in_memory_takes_no_lock_on_the_way(void **state)
{
    fixture *test = *state;
    for (int32_t token = 0; token < 250 && !all_experts_are_in_memory(test); token++) {
        sluice_session_reset(test->session);
        assert_int_equal(evaluate(test, &token, 1, NULL), SLUICE_OK);
    }
    assert_true(all_experts_are_in_memory(test));
    decode(test);
    unsigned long n_before = atomic_load(&n_locks);
    decode(test);
    assert_int_equal(atomic_load(&n_locks), n_before + N_TOKENS);
}

static void a_reset_session_is_as_new(void **state)
{
    fixture *test = *state;
    uint64_t hash = whole_hash(test);
    assert_int_not_equal(hash, 0);
    assert_int_equal(whole_hash(test), hash);
    sluice_session_reset(test->session);
    assert_int_equal(sluice_session_position(test->session), 0);
    assert_int_equal(sluice_session_logits_hash(test->session), 0);
    assert_null(sluice_session_logits(test->session));
}

static void what_is_refused_changes_nothing(void **state)
{
    fixture *test = *state;
    uint64_t hash = whole_hash(test);
    sluice_session_reset(test->session);
    assert_int_equal(evaluate(test, tokens, CHUNK, NULL), SLUICE_OK);
    uint64_t first_hash = sluice_session_logits_hash(test->session);
    const int32_t bad_tokens[][2] = {{5, -1}, {5, INT32_MIN}, {5, 300}, {INT32_MAX, 5}};
    for (size_t i_case = 0; i_case < sizeof bad_tokens / sizeof bad_tokens[0]; i_case++) {
        sluice_error error = {0};
        assert_int_equal(evaluate(test, bad_tokens[i_case], 2, &error), SLUICE_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "the vocabulary has ids 0 to 299"));
    }
    int32_t many[CONTEXT - CHUNK + 1] = {0};
    sluice_error error = {0};
    assert_int_equal(evaluate(test, many, CONTEXT - CHUNK + 1, &error), SLUICE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "32 positions and 8 are taken"));
    assert_int_equal(evaluate(test, NULL, 0, NULL), SLUICE_OK);
    assert_int_equal(sluice_session_position(test->session), CHUNK);
    assert_int_equal(sluice_session_logits_hash(test->session), first_hash);
    assert_int_equal(evaluate(test, tokens + CHUNK, N_TOKENS - CHUNK, NULL), SLUICE_OK);
    assert_int_equal(sluice_session_logits_hash(test->session), hash);
}

static void the_context_can_be_filled_to_its_last_position(void **state)
{
    fixture *test = *state;
    int32_t many[CONTEXT] = {0};
    assert_int_equal(evaluate(test, many, CONTEXT, NULL), SLUICE_OK);
    assert_int_equal(evaluate(test, tokens, 1, NULL), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sluice_session_position(test->session), CONTEXT);
}

static void a_cancelled_evaluation_stops_and_the_next_goes_on(void **state)
{
    fixture *test = *state;
    uint64_t hash = whole_hash(test);
    sluice_session_reset(test->session);
    sluice_session_cancel(test->session);
    assert_int_equal(evaluate(test, tokens, N_TOKENS, NULL), SLUICE_ERROR_CANCELLED);
    assert_int_equal(sluice_session_position(test->session), 0);
    assert_int_equal(evaluate(test, tokens, N_TOKENS, NULL), SLUICE_OK);
    assert_int_equal(sluice_session_logits_hash(test->session), hash);
}

static bool stop_at(void *user, uint32_t position, const float *logits)
{
    const uint32_t *stop = user;
    assert_non_null(logits);
    return position < *stop;
}

static void a_caller_stops_an_evaluation_between_chunks_or_within(void **state)
{
    fixture *test = *state;
    uint64_t hash = whole_hash(test);
    for (uint32_t stop = 0; stop < N_TOKENS; stop++) {
        sluice_session_reset(test->session);
        assert_int_equal(sluice_session_eval(test->session, tokens, N_TOKENS, SLUICE_LOGITS_ALL, stop_at, &stop, NULL),
                         SLUICE_ERROR_CANCELLED);
        /* The chunk in which it stopped does not count. */
        assert_int_equal(sluice_session_position(test->session), stop / CHUNK * CHUNK);
    }
    assert_int_equal(whole_hash(test), hash);
}

/* The head of qwen2moe's file is its embedding. */
static void a_tied_head_is_in_memory_once(void **state)
{
    (void)state;
    fixture test = {0};
    const char *model_path = "tests/golden/models/qwen2moe.gguf";
    sluice_file *file = NULL;
    assert_int_equal(sluice_file_open(&file, model_path, NULL), SLUICE_OK);
    sluice_file_summary summary;
    sluice_file_summarize(file, &summary);
    uint64_t embedding_bytes = 0;
    uint64_t all_bytes = 0;
    sluice_file_tensor tensor;
    for (uint64_t i_tensor = 0; sluice_file_tensor_at(file, i_tensor, &tensor); i_tensor++) {
        assert_string_not_equal(tensor.name, "output.weight");
        all_bytes += tensor.bytes;
        embedding_bytes = strcmp(tensor.name, "token_embd.weight") == 0 ? tensor.bytes : embedding_bytes;
    }
    assert_int_equal(summary.dense_bytes, all_bytes - summary.expert_bytes);
    sluice_file_close(&file);
    open_model(&test, model_path);
    sluice_engine_stats stats;
    sluice_engine_stats_get(test.engine, &stats);
    assert_string_equal(sluice_memory_tag_name(0), "weights");
    sluice_memory_plan plan;
    sluice_engine_memory_plan_get(test.engine, &plan);
    assert_int_equal(stats.mem_by_tag[0], plan.dense_bytes);
    assert_true(stats.mem_by_tag[0] >= summary.dense_bytes);
    assert_true(stats.mem_by_tag[0] < summary.dense_bytes + embedding_bytes);
    close_model(&test);
}

/* A copy of the model whose tensor `name` begins with a NaN. */
static void write_poisoned_model(const char *path, const char *model_path, const char *name)
{
    static const unsigned char nan_bytes[4] = {0x00, 0x00, 0xc0, 0x7f};
    sluice_file *file = NULL;
    sluice_file_tensor tensor = {0};
    assert_int_equal(sluice_file_open(&file, model_path, NULL), SLUICE_OK);
    for (uint64_t i_tensor = 0; sluice_file_tensor_at(file, i_tensor, &tensor); i_tensor++) {
        if (strcmp(tensor.name, name) == 0) {
            break;
        }
    }
    assert_string_equal(tensor.name, name);
    FILE *source = fopen(model_path, "rb");
    FILE *target = fopen(path, "wb");
    assert_true(source != NULL && target != NULL);
    char buffer[65536];
    for (size_t got; (got = fread(buffer, 1, sizeof buffer, source)) > 0;) {
        assert_int_equal(fwrite(buffer, 1, got, target), got);
    }
    assert_int_equal(fseek(target, (long)tensor.offset, SEEK_SET), 0);
    assert_int_equal(fwrite(nan_bytes, 1, sizeof nan_bytes, target), sizeof nan_bytes);
    assert_int_equal(fclose(target), 0);
    fclose(source);
    sluice_file_close(&file);
}

static void weights_that_are_no_numbers_are_an_error_that_says_where(void **state)
{
    (void)state;
    static const char *const poisons[][2] = {{"blk.1.ffn_gate_inp.weight", "the router of MoE layer 1 finds no"},
                                             {"blk.0.ffn_down_exps.weight", "the router of MoE layer 1 finds no"},
                                             {"output.weight", "the logit of token 0 at position 0"}};
    for (size_t i_case = 0; i_case < sizeof poisons / sizeof poisons[0]; i_case++) {
        char path[] = P_tmpdir "/sluice-poisoned-XXXXXX";
        int descriptor = mkstemp(path);
        assert_true(descriptor >= 0);
        close(descriptor);
        write_poisoned_model(path, "tests/golden/models/qwen3moe.gguf", poisons[i_case][0]);
        fixture test = {0};
        open_model(&test, path);
        sluice_error error = {0};
        /* Every expert of the first layer is used by one of them. */
        assert_int_equal(evaluate(&test, tokens, N_TOKENS, &error), SLUICE_ERROR_FORMAT);
        assert_non_null(strstr(error.message, poisons[i_case][1]));
        assert_non_null(strstr(error.message, sluice_engine_model_name(test.engine)));
        assert_true(sluice_session_position(test.session) % CHUNK == 0);
        close_model(&test);
        unlink(path);
    }
}

typedef struct load_progress {
    uint64_t done_bytes, total_bytes;
    uint32_t n_calls;
    uint32_t n_allowed; /* then it is cancelled */
} load_progress;

static bool note_progress(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    load_progress *seen = user;
    assert_true(done_bytes >= seen->done_bytes && done_bytes <= total_bytes);
    seen->done_bytes = done_bytes;
    seen->total_bytes = total_bytes;
    return seen->n_calls++ < seen->n_allowed;
}

static void loading_says_how_far_it_is_and_can_be_cancelled(void **state)
{
    (void)state;
    for (uint32_t n_allowed = 0; n_allowed <= 100; n_allowed += 100) {
        counting_allocator counter = {0};
        sluice_allocator allocator = counting_allocator_interface(&counter);
        load_progress seen = {.n_allowed = n_allowed};
        sluice_engine_options options;
        sluice_engine_options_init(&options);
        options.model_path = "tests/golden/models/qwen3moe.gguf";
        options.allocator = &allocator;
        options.progress = note_progress;
        options.progress_user = &seen;
        sluice_engine *engine = NULL;
        sluice_status status = sluice_engine_open(&engine, &options, NULL);
        assert_true(seen.n_calls > 0 && seen.total_bytes > 0);
        assert_int_equal(status, n_allowed == 0 ? SLUICE_ERROR_CANCELLED : SLUICE_OK);
        assert_true(n_allowed == 0 || seen.done_bytes == seen.total_bytes);
        sluice_engine_close(&engine);
        assert_int_equal(counter.n_allocated, counter.n_released);
    }
}

#define SESSION_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SESSION_TEST(evaluating_allocates_nothing),
        SESSION_TEST(decoding_with_all_experts_in_memory_takes_no_lock_on_the_way),
        SESSION_TEST(a_reset_session_is_as_new),
        SESSION_TEST(what_is_refused_changes_nothing),
        SESSION_TEST(the_context_can_be_filled_to_its_last_position),
        SESSION_TEST(a_cancelled_evaluation_stops_and_the_next_goes_on),
        SESSION_TEST(a_caller_stops_an_evaluation_between_chunks_or_within),
        cmocka_unit_test(loading_says_how_far_it_is_and_can_be_cancelled),
        cmocka_unit_test(a_tied_head_is_in_memory_once),
        cmocka_unit_test(weights_that_are_no_numbers_are_an_error_that_says_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
