/* Sessions whose reads fail: at the n-th read, for every n until the evaluation has no n-th read. The evaluation ends
 * with an error that says what happened, the engine and its other sessions go on, and the same session comes to the
 * true logits when the disk works again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <pthread.h>

#include "session_faults.h"

static const char model_path[] = "tests/golden/models/qwen3moe.gguf";

/* Both backends deliver faults in the same way, so each test has one of them; tests/unit/test_io_reads.c has both. */
static const engine_run without_prefetch = {.model_path = model_path, .prefetch = "none"};
static const engine_run with_pread = {.model_path = model_path, .prefetch = "none", .io = "pread"};

/* Nothing is read ahead: which read is the n-th does not depend on threads. `wanted` is OK when the fault must not be
 * noticed. */
static void hit_every_read(const engine_run *run, sl_read_fault fault, uint64_t n_after, sluice_status wanted)
{
    subject test = {.plan = {.fault = fault, .n_after = n_after}};
    open_subject(&test, run, 0);
    uint32_t n_hits = 0;
    for (uint64_t n = 1;; n++) {
        sluice_error error = {0};
        plan_fault(&test, n);
        sluice_status status = start_over(test.session, &error);
        if (!fault_was_reached(&test)) {
            assert_int_equal(status, SLUICE_OK);
            break;
        }
        n_hits++;
        if (wanted == SLUICE_OK) {
            assert_int_equal(status, SLUICE_OK);
            assert_int_equal(sluice_session_logits_hash(test.session), test.expected);
            continue;
        }
        check_failure(&test, status, wanted, &error);
        if (n_after == UINT64_MAX) {
            /* As long as the disk is gone, so is every evaluation. */
            check_failure(&test, go_on(test.session, &error), wanted, &error);
        }
        plan_fault(&test, 0);
        settle(&test);
        check_recovery(&test, n % 2 == 0);
    }
    assert_true(n_hits > 50);
    close_subject(&test);
}

static void a_read_that_fails_ends_the_evaluation(void **state)
{
    (void)state;
    hit_every_read(&without_prefetch, SL_READ_FAULT_EIO, 0, SLUICE_ERROR_IO);
}

static void a_read_that_ends_early_ends_the_evaluation(void **state)
{
    (void)state;
    hit_every_read(&with_pread, SL_READ_FAULT_SHORT, 0, SLUICE_ERROR_CHANGED);
}

static void a_disk_that_disappears_ends_evaluations_until_it_is_back(void **state)
{
    (void)state;
    hit_every_read(&without_prefetch, SL_READ_FAULT_GONE, UINT64_MAX, SLUICE_ERROR_IO);
}

static void an_interrupted_read_is_resumed(void **state)
{
    (void)state;
    hit_every_read(&with_pread, SL_READ_FAULT_INTERRUPTED, 0, SLUICE_OK);
}

static void a_slow_read_changes_nothing(void **state)
{
    (void)state;
    hit_every_read(&without_prefetch, SL_READ_FAULT_SLOW, 2, SLUICE_OK);
    hit_every_read(&with_pread, SL_READ_FAULT_SLOW, UINT64_MAX, SLUICE_OK);
}

/* With reads ahead of need, one of those that fails is nobody's error; any other one ends the evaluation. */
static void hit_reads_ahead(const char *prefetch, uint64_t more_slots)
{
    engine_run run = {.model_path = model_path, .prefetch = prefetch};
    subject test = {.plan = {.fault = SL_READ_FAULT_EIO}};
    open_subject(&test, &run, more_slots);
    uint32_t n_failures = 0;
    uint32_t n_unnoticed = 0;
    for (uint64_t n = 1, n_beyond = 0; n_beyond < 5; n++) {
        sluice_error error = {0};
        plan_fault(&test, n);
        sluice_status status = start_over(test.session, &error);
        bool was_reached = fault_was_reached(&test);
        n_beyond += was_reached ? 0 : 1;
        plan_fault(&test, 0);
        if (status == SLUICE_OK) {
            assert_int_equal(sluice_session_logits_hash(test.session), test.expected);
            n_unnoticed += was_reached ? 1 : 0;
        } else {
            check_failure(&test, status, SLUICE_ERROR_IO, &error);
            n_failures++;
            check_recovery(&test, n % 2 == 0);
        }
    }
    assert_true(n_failures > 5);
    assert_true(n_unnoticed > 0);
    close_subject(&test);
}

static void a_read_ahead_that_fails_is_at_most_an_error(void **state)
{
    (void)state;
    hit_reads_ahead("previous", 0);
    hit_reads_ahead("router", 3);
    hit_reads_ahead("auto", 3);
}

static void a_failed_read_of_dense_weights_fails_open(void **state)
{
    (void)state;
    static const sluice_status wanted[] = {[SL_READ_FAULT_EIO] = SLUICE_ERROR_IO,
                                           [SL_READ_FAULT_GONE] = SLUICE_ERROR_IO,
                                           [SL_READ_FAULT_SHORT] = SLUICE_ERROR_CHANGED,
                                           [SL_READ_FAULT_INTERRUPTED] = SLUICE_OK,
                                           [SL_READ_FAULT_SLOW] = SLUICE_OK};
    uint64_t expected = expected_hash_of(model_path);
    for (int fault = SL_READ_FAULT_EIO; fault <= SL_READ_FAULT_SLOW; fault++) {
        sl_read_fault_plan plan = {.at_read = 1, .fault = (sl_read_fault)fault};
        for (bool reached = true; reached; plan.at_read++) {
            counting_allocator counter = {0};
            engine_run run = {.model_path = model_path, .n_threads = 2, .counter = &counter};
            sluice_engine *engine = NULL;
            sluice_session *session = NULL;
            sluice_error error = {0};
            plan.n_seen = 0;
            sluice_status status = open_engine(&engine, &run, &plan, &error);
            reached = plan.n_seen >= plan.at_read;
            assert_true(reached || plan.at_read > 1);
            assert_int_equal(status, reached ? wanted[fault] : SLUICE_OK);
            if (status == SLUICE_OK) {
                plan.at_read = 0;
                assert_int_equal(sluice_session_open(&session, engine, NULL), SLUICE_OK);
                assert_int_equal(go_on(session, NULL), SLUICE_OK);
                assert_int_equal(sluice_session_logits_hash(session), expected);
                sluice_session_close(&session);
                sluice_engine_close(&engine);
                break;
            }
            assert_null(engine);
            assert_non_null(strstr(error.message, model_path));
            assert_int_equal(counter.n_allocated, counter.n_released);
        }
    }
}

/* --- Two sessions --- */

typedef struct runner {
    sluice_session *session;
    pthread_t thread;
    sluice_status status;
    sluice_error error;
} runner;

static void *run_session(void *argument)
{
    runner *self = argument;
    self->status = start_over(self->session, &self->error);
    return NULL;
}

/* Runs both at once. Returns which of them failed, or -1; both never do. */
static int run_both(runner runners[2])
{
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&runners[i].thread, NULL, run_session, &runners[i]), 0);
    }
    int failed = -1;
    for (int i = 0; i < 2; i++) {
        pthread_join(runners[i].thread, NULL);
        if (runners[i].status != SLUICE_OK) {
            assert_int_equal(failed, -1);
            failed = i;
        }
    }
    return failed;
}

static void a_session_that_fails_leaves_the_other_alone(void **state)
{
    (void)state;
    engine_run run = without_prefetch;
    run.n_sessions = 2;
    subject test = {.plan = {.fault = SL_READ_FAULT_EIO}};
    open_subject(&test, &run, 0);
    runner runners[2] = {{.session = test.session}};
    assert_int_equal(sluice_session_open(&runners[1].session, test.engine, NULL), SLUICE_OK);
    for (uint64_t n = 1, reached = 1; reached; n += 3) {
        plan_fault(&test, n);
        int failed = run_both(runners);
        reached = fault_was_reached(&test);
        assert_true((failed >= 0) == reached);
        plan_fault(&test, 0);
        for (int i = 0; i < 2; i++) {
            test.session = runners[i].session;
            if (i == failed) {
                check_failure(&test, runners[i].status, SLUICE_ERROR_IO, &runners[i].error);
                check_recovery(&test, n % 2 == 0);
            }
            assert_int_equal(sluice_session_logits_hash(runners[i].session), test.expected);
        }
    }
    sluice_session_close(&runners[0].session);
    sluice_session_close(&runners[1].session);
    sluice_engine_close(&test.engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_that_fails_ends_the_evaluation),
        cmocka_unit_test(a_read_that_ends_early_ends_the_evaluation),
        cmocka_unit_test(a_disk_that_disappears_ends_evaluations_until_it_is_back),
        cmocka_unit_test(an_interrupted_read_is_resumed),
        cmocka_unit_test(a_slow_read_changes_nothing),
        cmocka_unit_test(a_read_ahead_that_fails_is_at_most_an_error),
        cmocka_unit_test(a_failed_read_of_dense_weights_fails_open),
        cmocka_unit_test(a_session_that_fails_leaves_the_other_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
