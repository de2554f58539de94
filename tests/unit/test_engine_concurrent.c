/* Two engines with two models in one process, and the counters of memory at the end of each. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs setjmp, stdarg, stddef and stdint. */
#include <cmocka.h>

#include "../support/engine_run.h"

typedef struct job {
    engine_run run;
    counting_allocator counter;
    uint64_t hash;
    sluice_status status;
    sluice_error error;
} job;

static void *run_job(void *argument)
{
    job *self = argument;
    self->run.counter = &self->counter;
    for (int i = 0; i < 3 && self->status == SLUICE_OK; i++) {
        self->status = run_engine(&self->run, &self->hash, &self->error);
    }
    return NULL;
}

static void two_engines_with_two_models_do_not_disturb_each_other(void **state)
{
    (void)state;
    job jobs[2] = {{.run = {.model_path = "tests/golden/models/qwen3moe.gguf", .n_threads = 2, .n_generate = 12}},
                   {.run = {.model_path = "tests/golden/models/qwen2moe.gguf", .n_threads = 2, .n_generate = 12}}};
    uint64_t alone[2];
    for (int i = 0; i < 2; i++) {
        sluice_error error;
        jobs[i].run.mem_budget_bytes = engine_floor_bytes(&jobs[i].run);
        assert_int_equal(run_engine(&jobs[i].run, &alone[i], &error), SLUICE_OK);
    }
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(jobs[i].status, SLUICE_OK);
        assert_int_equal(jobs[i].hash, alone[i]);
        assert_true(jobs[i].counter.n_allocated > 0);
        assert_int_equal(jobs[i].counter.n_allocated, jobs[i].counter.n_released);
    }
    assert_true(alone[0] != alone[1]);
}

typedef struct session_job {
    sluice_engine *engine;
    uint64_t hash;
    sluice_status status;
    sluice_error error;
} session_job;

static void *run_session(void *argument)
{
    session_job *self = argument;
    static const int32_t prompt[] = {5, 17, 40, 99, 3, 61, 200, 7, 8, 120};
    sluice_session *session = NULL;
    self->status = sluice_session_open(&session, self->engine, &self->error);
    if (self->status == SLUICE_OK) {
        self->status = sluice_session_eval(session, prompt, 10, SLUICE_LOGITS_ALL, NULL, NULL, &self->error);
        self->hash = sluice_session_logits_hash(session);
    }
    sluice_session_close(&session);
    return NULL;
}

static void two_sessions_of_one_engine_give_the_same_logits(void **state)
{
    (void)state;
    engine_run run = {.model_path = "tests/golden/models/qwen3moe.gguf"};
    sluice_engine_options options;
    sluice_engine_options_init(&options);
    options.model_path = run.model_path;
    options.context_length = 32;
    options.n_sessions = 2;
    options.n_threads = 2;
    options.prefill_chunk = 3;
    sluice_engine *engine = NULL;
    sluice_error error;
    assert_int_equal(sluice_engine_open(&engine, &options, &error), SLUICE_OK);
    session_job jobs[2] = {{.engine = engine}, {.engine = engine}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run_session, &jobs[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(jobs[i].status, SLUICE_OK);
    }
    assert_int_equal(jobs[0].hash, jobs[1].hash);
    sluice_session *third[3] = {NULL, NULL, NULL};
    assert_int_equal(sluice_session_open(&third[0], engine, &error), SLUICE_OK);
    assert_int_equal(sluice_session_open(&third[1], engine, &error), SLUICE_OK);
    assert_int_equal(sluice_session_open(&third[2], engine, &error), SLUICE_ERROR_BUDGET);
    sluice_session_close(&third[0]);
    sluice_session_close(&third[1]);
    sluice_engine_close(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_engines_with_two_models_do_not_disturb_each_other),
        cmocka_unit_test(two_sessions_of_one_engine_give_the_same_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
