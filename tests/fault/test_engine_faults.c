/* Opening an engine and generating ten tokens while something fails: every allocation and every thread in turn. Each
 * failure is an error value with a sentence; nothing leaks; nothing hangs. */
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
    assert_int_equal(run_engine(&run, &hash, &error), SLUICE_OK);
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
        sluice_status status = run_engine(&run, &hash, &error);
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
        sluice_status status = run_engine(&run, &hash, &error);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failed_allocation_is_an_error_and_leaks_nothing),
        cmocka_unit_test(every_failed_thread_is_an_error_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
