/* Opening an engine and generating ten tokens while something fails: every allocation, every thread, every read in
 * turn. Each failure is an error value with a sentence; nothing leaks; nothing hangs. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* cmocka.h needs setjmp, stdarg, stddef and stdint. */
#include <cmocka.h>

#include "../support/engine_run.h"

static const char model_path[] = "tests/golden/models/qwen3moe.gguf";

static unsigned fail_thread_at; /* counts down to 1, the creation that fails; 0: none */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    if (fail_thread_at > 0 && --fail_thread_at == 0) {
        return EAGAIN;
    }
    return __real_pthread_create(thread, attributes, run, argument);
}

static uint64_t expected_hash(void)
{
    engine_run run = {.model_path = model_path, .n_threads = 2, .n_generate = 10};
    uint64_t hash = 0;
    sluice_error error;
    assert_int_equal(run_engine(&run, &hash, NULL, &error), SLUICE_OK);
    assert_int_not_equal(hash, 0);
    return hash;
}

static void every_failed_allocation_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    uint64_t expected = expected_hash();
    unsigned long n_failures = 0;
    for (unsigned long n = 1;; n++) {
        counting_allocator counter = {.fail_at = n};
        engine_run run = {.model_path = model_path, .n_threads = 2, .n_generate = 10, .counter = &counter};
        uint64_t hash = 0;
        sluice_error error = {0};
        sluice_status status = run_engine(&run, &hash, NULL, &error);
        assert_int_equal(counter.n_allocated, counter.n_released);
        if (counter.fail_at != 0) {
            assert_int_equal(status, SLUICE_OK);
            assert_int_equal(hash, expected);
            break;
        }
        n_failures++;
        if (status == SLUICE_OK) {
            fail_msg("allocation %lu failed and nobody noticed", n);
        }
        if (status != SLUICE_ERROR_NO_MEMORY || error.message[0] == '\0') {
            fail_msg("allocation %lu: status %s, '%s'", n, sluice_status_name(status), error.message);
        }
    }
    assert_true(n_failures > 50);
}

static void every_failed_thread_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    uint64_t expected = expected_hash();
    unsigned n_failures = 0;
    for (unsigned n = 1;; n++) {
        counting_allocator counter = {0};
        engine_run run = {.model_path = model_path, .n_threads = 3, .n_generate = 10, .counter = &counter};
        uint64_t hash = 0;
        sluice_error error = {0};
        fail_thread_at = n;
        sluice_status status = run_engine(&run, &hash, NULL, &error);
        bool reached = fail_thread_at == 0;
        fail_thread_at = 0;
        assert_int_equal(counter.n_allocated, counter.n_released);
        if (!reached) {
            assert_int_equal(status, SLUICE_OK);
            assert_int_equal(hash, expected);
            break;
        }
        n_failures++;
        assert_int_equal(status, SLUICE_ERROR_SYSTEM);
        assert_non_null(strstr(error.message, "thread"));
    }
    assert_true(n_failures >= 3);
}

static uint64_t hash_of_four_tokens(void)
{
    engine_run run = {.model_path = model_path, .n_threads = 2, .n_generate = 4};
    uint64_t hash = 0;
    sluice_error error;
    assert_int_equal(run_engine(&run, &hash, NULL, &error), SLUICE_OK);
    assert_int_not_equal(hash, expected_hash());
    return hash;
}

/* At the floor every layer of every token reads, so faults hit prefill and decode alike. Nothing is read ahead: which
 * read is the n-th does not depend on threads. */
static void each_failed_read_ends_the_request_and_the_engine_goes_on(sl_read_fault fault, sluice_status wanted)
{
    engine_run run = {.model_path = model_path, .n_threads = 2, .n_generate = 4, .prefetch = "none"};
    uint64_t expected = hash_of_four_tokens();
    sluice_error error = {0};
    /* Above the floor only by what the injecting backend itself takes. */
    run.mem_budget_bytes = engine_floor_bytes(&run) + 4096;
    unsigned n_failures = 0;
    for (uint64_t n = 1;; n++) {
        sl_read_fault_plan plan = {.at_read = n, .fault = fault};
        run.faults = &plan;
        uint64_t hash = 0;
        uint64_t recovered = 0;
        sluice_status status = run_engine(&run, &hash, &recovered, &error);
        if (status == SLUICE_OK) {
            assert_int_equal(hash, expected);
            assert_true(fault == SL_READ_FAULT_INTERRUPTED || plan.n_seen < n);
            if (plan.n_seen < n) {
                break;
            }
            continue;
        }
        n_failures++;
        assert_int_equal(status, wanted);
        assert_non_null(strstr(error.message, "qwen3moe.gguf"));
        assert_int_equal(recovered, expected);
    }
    assert_true(fault == SL_READ_FAULT_INTERRUPTED ? n_failures == 0 : n_failures > 20);
}

/* The same with reads ahead of need: one of those that fails is nobody's error, any other one ends the request. */
static void each_failed_read_is_an_error_or_read_again(const char *prefetch, uint32_t chunk, uint64_t more_slots)
{
    engine_run run = {
        .model_path = model_path, .n_threads = 2, .n_generate = 4, .prefill_chunk = chunk, .prefetch = prefetch};
    uint64_t expected = hash_of_four_tokens();
    run.mem_budget_bytes = engine_floor_bytes(&run) + 4096 + more_slots * engine_slot_bytes(&run);
    unsigned n_failures = 0;
    unsigned n_beyond = 0;
    for (uint64_t n = 1; n_beyond < 5; n++) {
        sl_read_fault_plan plan = {.at_read = n, .fault = n % 2 == 0 ? SL_READ_FAULT_EIO : SL_READ_FAULT_SHORT};
        run.faults = &plan;
        uint64_t hash = 0;
        uint64_t recovered = 0;
        sluice_error error = {0};
        sluice_status status = run_engine(&run, &hash, &recovered, &error);
        n_beyond += plan.n_seen < n ? 1 : 0;
        if (status == SLUICE_OK) {
            assert_int_equal(hash, expected);
            continue;
        }
        n_failures++;
        assert_int_equal(status, n % 2 == 0 ? SLUICE_ERROR_IO : SLUICE_ERROR_CHANGED);
        assert_non_null(strstr(error.message, "qwen3moe.gguf"));
        assert_int_equal(recovered, expected);
    }
    assert_true(n_failures > 5);
}

static void a_read_ahead_that_fails_is_at_most_an_error(void **state)
{
    (void)state;
    static const char *const predictors[] = {"previous", "router", "auto"};
    for (size_t i = 0; i < sizeof predictors / sizeof predictors[0]; i++) {
        each_failed_read_is_an_error_or_read_again(predictors[i], 1, 0);
        each_failed_read_is_an_error_or_read_again(predictors[i], 1, 3);
        each_failed_read_is_an_error_or_read_again(predictors[i], 8, 3);
    }
}

static void a_read_that_fails_ends_the_request_and_the_engine_goes_on(void **state)
{
    (void)state;
    each_failed_read_ends_the_request_and_the_engine_goes_on(SL_READ_FAULT_EIO, SLUICE_ERROR_IO);
}

static void a_read_that_ends_early_ends_the_request_and_the_engine_goes_on(void **state)
{
    (void)state;
    each_failed_read_ends_the_request_and_the_engine_goes_on(SL_READ_FAULT_SHORT, SLUICE_ERROR_CHANGED);
}

static void an_interrupted_read_is_resumed(void **state)
{
    (void)state;
    each_failed_read_ends_the_request_and_the_engine_goes_on(SL_READ_FAULT_INTERRUPTED, SLUICE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failed_allocation_is_an_error_and_leaks_nothing),
        cmocka_unit_test(every_failed_thread_is_an_error_and_leaks_nothing),
        cmocka_unit_test(a_read_that_fails_ends_the_request_and_the_engine_goes_on),
        cmocka_unit_test(a_read_that_ends_early_ends_the_request_and_the_engine_goes_on),
        cmocka_unit_test(an_interrupted_read_is_resumed),
        cmocka_unit_test(a_read_ahead_that_fails_is_at_most_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
