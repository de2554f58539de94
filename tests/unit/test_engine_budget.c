/* Changing the budget of an engine that runs: same output, exact account, memory that goes back. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs setjmp, stdarg, stddef and stdint. */
#include <cmocka.h>

#include <string.h>

#include "../support/engine_account.h"
#include "../support/engine_run.h"
#include "os/limits.h"

static const char *const models[] = {"tests/golden/models/qwen3moe.gguf", "tests/golden/models/qwen2moe.gguf",
                                     "tests/golden/models/olmoe.gguf", "tests/golden/models/mixtral.gguf"};
enum { N_MODELS = sizeof models / sizeof models[0], N_TOKENS = 24 };

static const int32_t tokens[N_TOKENS] = {5,  17, 40, 99, 3,  61, 200, 7,  8,  120, 33, 2,
                                         44, 71, 19, 6,  90, 14, 150, 77, 23, 9,   1,  64};

/* An engine with a session, and what it may be asked for. */
typedef struct running {
    sluice_engine *engine;   /* owned */
    sluice_session *session; /* owned */
    uint64_t floor_bytes, resident_bytes, slot_bytes;
} running;

static running start_with(const char *model_path, uint64_t budget_bytes, const char *prefetch, const char *policy,
                          const sluice_allocator *allocator)
{
    running self = {0};
    sluice_engine_options options;
    sluice_engine_options_init(&options);
    options.model_path = model_path;
    options.context_length = 64;
    options.n_threads = 2;
    options.prefill_chunk = 6;
    options.prefetch = prefetch;
    options.policy = policy;
    options.allocator = allocator;
    options.mem_budget_bytes = 1;
    sluice_memory_plan plan;
    sluice_error error = {0};
    assert_int_equal(sluice_engine_plan(&options, &plan, &error), SLUICE_ERROR_BUDGET);
    self.floor_bytes = plan.floor_bytes;
    self.resident_bytes = plan.resident_bytes;
    self.slot_bytes = plan.slot_bytes;
    options.mem_budget_bytes = budget_bytes == 0 ? plan.resident_bytes : budget_bytes;
    if (sluice_engine_open(&self.engine, &options, &error) != SLUICE_OK ||
        sluice_session_open(&self.session, self.engine, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    return self;
}

static running start(const char *model_path, uint64_t budget_bytes, const char *prefetch,
                     const sluice_allocator *allocator)
{
    return start_with(model_path, budget_bytes, prefetch, NULL, allocator);
}

static void stop(running *self)
{
    sluice_session_close(&self->session);
    sluice_engine_close(&self->engine);
}

static void evaluate(running *self, size_t begin, size_t end)
{
    sluice_error error = {0};
    if (sluice_session_eval(self->session, tokens + begin, end - begin, SLUICE_LOGITS_ALL, NULL, NULL, &error) !=
        SLUICE_OK) {
        fail_msg("%s", error.message);
    }
}

static uint64_t undisturbed_hash(const char *model_path)
{
    running self = start(model_path, 0, NULL, NULL);
    evaluate(&self, 0, N_TOKENS);
    uint64_t hash = sluice_session_logits_hash(self.session);
    stop(&self);
    return hash;
}

static sluice_memory_plan set_budget(running *self, uint64_t budget_bytes)
{
    sluice_memory_plan said;
    sluice_error error = {0};
    if (sluice_engine_set_budget(self->engine, budget_bytes, &said, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    sluice_memory_plan plan = expect_account_as_planned(self->engine);
    assert_memory_equal(&plan, &said, sizeof plan);
    assert_true(budget_bytes == 0 || plan.budget_bytes == budget_bytes);
    return plan;
}

static void results_are_the_same_with_another_budget_between_evaluations(void **state)
{
    (void)state;
    for (int i_model = 0; i_model < N_MODELS; i_model++) {
        uint64_t expected = undisturbed_hash(models[i_model]);
        running self = start(models[i_model], 0, NULL, NULL);
        uint64_t budgets[] = {self.floor_bytes,
                              self.resident_bytes,
                              self.floor_bytes + 2 * self.slot_bytes,
                              self.floor_bytes + 9 * self.slot_bytes,
                              self.resident_bytes - self.slot_bytes,
                              (uint64_t)1 << 40,
                              self.floor_bytes,
                              0};
        for (size_t i_token = 0; i_token < N_TOKENS; i_token += 3) {
            evaluate(&self, i_token, i_token + 3);
            (void)set_budget(&self, budgets[i_token / 3]);
        }
        assert_int_equal(sluice_session_logits_hash(self.session), expected);
        stop(&self);
    }
}

typedef struct changer {
    running *running;
    atomic_bool finished;
    uint32_t n_changes, n_failed;
} changer;

static void *change_again_and_again(void *argument)
{
    changer *self = argument;
    const running *engine = self->running;
    uint32_t random = 7;
    do {
        random = random * 1664525u + 1013904223u;
        uint64_t more = random / 65536 % 20 * engine->slot_bytes;
        uint64_t budget = random % 5 == 0 ? engine->resident_bytes : engine->floor_bytes + more;
        sluice_memory_plan plan;
        sluice_memory_plan current;
        sluice_error error;
        self->n_failed += sluice_engine_set_budget(engine->engine, budget, &plan, &error) == SLUICE_OK ? 0 : 1;
        sluice_engine_memory_plan_get(engine->engine, &current);
        self->n_failed += current.total_bytes <= current.budget_bytes ? 0 : 1;
        self->n_changes++;
    } while (!atomic_load(&self->finished));
    return NULL;
}

static void expect_same_while_it_changes(const char *model_path, const char *prefetch, const char *policy)
{
    uint64_t expected = undisturbed_hash(model_path);
    running self = start_with(model_path, 0, prefetch, policy, NULL);
    changer changers[2] = {{.running = &self}, {.running = &self}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, change_again_and_again, &changers[i]), 0);
    }
    for (int i_round = 0; i_round < 10; i_round++) {
        sluice_session_reset(self.session);
        evaluate(&self, 0, 13);
        for (size_t i_token = 13; i_token < N_TOKENS; i_token++) {
            evaluate(&self, i_token, i_token + 1);
        }
        assert_int_equal(sluice_session_logits_hash(self.session), expected);
    }
    for (int i = 0; i < 2; i++) {
        atomic_store(&changers[i].finished, true);
        pthread_join(threads[i], NULL);
        assert_int_equal(changers[i].n_failed, 0);
        assert_true(changers[i].n_changes > 0);
    }
    (void)expect_account_as_planned(self.engine);
    stop(&self);
}

static void results_are_the_same_with_another_budget_during_evaluations(void **state)
{
    (void)state;
    for (int i_model = 0; i_model < N_MODELS; i_model++) {
        expect_same_while_it_changes(models[i_model], i_model % 2 == 0 ? NULL : "none", NULL);
    }
    expect_same_while_it_changes(models[0], "router", "lru");
    expect_same_while_it_changes(models[1], "previous", "lfru");
    expect_same_while_it_changes(models[2], "router", "placement");
}

/* Logits are delivered in the middle of an evaluation. */
static bool change_at_logits(void *user, uint32_t position, const float *logits)
{
    running *self = user;
    (void)logits;
    (void)set_budget(self, position % 2 == 0 ? self->floor_bytes : self->resident_bytes);
    return true;
}

static void the_receiver_of_logits_may_change_the_budget(void **state)
{
    (void)state;
    uint64_t expected = undisturbed_hash(models[0]);
    running self = start(models[0], 0, NULL, NULL);
    sluice_error error = {0};
    assert_int_equal(
        sluice_session_eval(self.session, tokens, N_TOKENS, SLUICE_LOGITS_ALL, change_at_logits, &self, &error),
        SLUICE_OK);
    assert_int_equal(sluice_session_logits_hash(self.session), expected);
    stop(&self);
}

static void the_plan_follows_the_budget(void **state)
{
    (void)state;
    running self = start(models[0], 0, NULL, NULL);
    sluice_memory_plan resident = expect_account_as_planned(self.engine);
    assert_int_equal(resident.n_slots, resident.maximum_slots);
    sluice_memory_plan floor = set_budget(&self, self.floor_bytes);
    assert_int_equal(floor.n_slots, floor.minimum_slots);
    assert_int_equal(floor.total_bytes, self.floor_bytes);
    assert_int_equal(floor.floor_bytes, self.floor_bytes);
    assert_int_equal(floor.resident_bytes, self.resident_bytes);
    sluice_memory_plan middle = set_budget(&self, (self.floor_bytes + self.resident_bytes) / 2);
    assert_true(middle.n_slots > floor.n_slots && middle.n_slots < resident.n_slots);
    assert_true(middle.budget_bytes - middle.total_bytes < middle.slot_bytes + middle.slot_bytes / 512 + 1);
    assert_int_equal(middle.prefill_chunk, resident.prefill_chunk);
    assert_int_equal(set_budget(&self, middle.total_bytes).n_slots, middle.n_slots);
    assert_int_equal(set_budget(&self, middle.total_bytes - 1).n_slots, middle.n_slots - 1);
    sluice_memory_plan again = set_budget(&self, self.resident_bytes);
    assert_memory_equal(&again, &resident, sizeof again);
    assert_true(set_budget(&self, 0).budget_bytes > self.resident_bytes); /* this machine has more */
    stop(&self);
}

/* Opened with a chunk that the budget chose: it stays, and the floor with it is higher than the one at open. */
static void the_chunk_stays_as_opened(void **state)
{
    (void)state;
    sluice_engine_options options;
    sluice_engine_options_init(&options);
    options.model_path = models[0];
    options.context_length = 64;
    sluice_engine *engine = NULL;
    sluice_memory_plan opened;
    sluice_memory_plan refused;
    sluice_memory_plan lowest;
    sluice_error error = {0};
    assert_int_equal(sluice_engine_open(&engine, &options, &error), SLUICE_OK);
    sluice_engine_memory_plan_get(engine, &opened);
    assert_true(opened.prefill_chunk > 1);
    assert_int_equal(sluice_engine_set_budget(engine, opened.floor_bytes, &refused, &error), SLUICE_ERROR_BUDGET);
    assert_true(refused.floor_bytes > opened.floor_bytes);
    assert_int_equal(refused.prefill_chunk, opened.prefill_chunk);
    assert_int_equal(sluice_engine_set_budget(engine, refused.floor_bytes - 1, NULL, &error), SLUICE_ERROR_BUDGET);
    assert_int_equal(sluice_engine_set_budget(engine, refused.floor_bytes, &lowest, &error), SLUICE_OK);
    assert_int_equal(lowest.n_slots, lowest.minimum_slots);
    assert_int_equal(lowest.activation_bytes, opened.activation_bytes);
    sluice_engine_close(&engine);
}

static void below_the_floor_every_part_is_named_and_nothing_changes(void **state)
{
    (void)state;
    running self = start(models[0], 0, NULL, NULL);
    evaluate(&self, 0, 10);
    uint64_t mask = 0;
    uint64_t mask_after = 0;
    sluice_engine_residency(self.engine, 1, &mask, 1);
    sluice_memory_plan before = expect_account_as_planned(self.engine);
    sluice_memory_plan refused;
    sluice_error error = {0};
    assert_int_equal(sluice_engine_set_budget(self.engine, self.floor_bytes - 1, &refused, &error),
                     SLUICE_ERROR_BUDGET);
    assert_int_equal(refused.floor_bytes, self.floor_bytes);
    assert_int_equal(plan_parts(&refused), self.floor_bytes);
    static const char *const parts[] = {"process ",    "dense weights ", "KV cache ",        "activations ",   "I/O ",
                                        "vocabulary ", "other ",         "expert slots of ", "too small by 1:"};
    for (size_t i_part = 0; i_part < sizeof parts / sizeof parts[0]; i_part++) {
        assert_non_null(strstr(error.message, parts[i_part]));
    }
    char floor[40];
    snprintf(floor, sizeof floor, "works is %llu bytes", (unsigned long long)self.floor_bytes);
    assert_non_null(strstr(error.message, floor));
    sluice_memory_plan after = expect_account_as_planned(self.engine);
    assert_memory_equal(&after, &before, sizeof after);
    sluice_engine_residency(self.engine, 1, &mask_after, 1);
    assert_true(mask != 0 && mask == mask_after);
    stop(&self);
}

static void a_refused_charge_changes_nothing(void **state)
{
    (void)state;
    counting_allocator counter = {0};
    sluice_allocator allocator = counting_allocator_interface(&counter);
    uint64_t expected = undisturbed_hash(models[0]);
    running self = start(models[0], 0, NULL, &allocator);
    sluice_memory_plan low = set_budget(&self, self.floor_bytes);
    assert_int_equal(counter.charged_bytes, low.n_slots * low.slot_bytes);
    evaluate(&self, 0, 10);
    sluice_error error = {0};
    counter.fail_at = counter.n_allocated + 1;
    assert_int_equal(sluice_engine_set_budget(self.engine, self.resident_bytes, NULL, &error), SLUICE_ERROR_NO_MEMORY);
    assert_int_equal(counter.fail_at, 0);
    assert_non_null(strstr(error.message, "expert slots"));
    sluice_memory_plan after = expect_account_as_planned(self.engine);
    assert_memory_equal(&after, &low, sizeof after);
    sluice_memory_plan high = set_budget(&self, self.resident_bytes);
    assert_int_equal(counter.charged_bytes, high.n_slots * high.slot_bytes);
    evaluate(&self, 10, N_TOKENS);
    assert_int_equal(sluice_session_logits_hash(self.session), expected);
    stop(&self);
    assert_int_equal(counter.charged_bytes, 0);
    assert_int_equal(counter.n_allocated, counter.n_released);
}

/* By the kernel's figure: what the experts that went took is back. */
static void lowering_gives_memory_back_to_the_kernel(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    print_message("the sanitizer has memory of its own for ours\n");
    skip();
#endif
    running self = start("models/tales.gguf", 0, "none", NULL);
    for (int i_round = 0; i_round < 2; i_round++) {
        sluice_engine_stats stats;
        evaluate(&self, 0, N_TOKENS);
        sluice_engine_stats_reset(self.engine);
        uint64_t before = sl_process_resident_bytes();
        (void)set_budget(&self, self.floor_bytes);
        uint64_t after = sl_process_resident_bytes();
        sluice_engine_stats_get(self.engine, &stats);
        assert_true(stats.expert_evictions > 40);
        assert_true(before - after > stats.expert_evictions * self.slot_bytes * 3 / 4);
        (void)set_budget(&self, self.resident_bytes);
        sluice_session_reset(self.session);
    }
    stop(&self);
}

/* Experts of what was lowered are read again, and only they. */
static void raising_brings_the_hits_back(void **state)
{
    (void)state;
    running self = start(models[0], 0, "none", NULL);
    sluice_engine_stats stats;
    for (int i_round = 0; i_round < 3; i_round++) { /* the page cache has the file: kept from the second time on */
        sluice_engine_stats_reset(self.engine);
        sluice_session_reset(self.session);
        evaluate(&self, 0, N_TOKENS);
    }
    sluice_engine_stats_get(self.engine, &stats);
    assert_int_equal(stats.expert_misses, 0);
    (void)set_budget(&self, self.floor_bytes);
    sluice_engine_stats_get(self.engine, &stats);
    assert_true(stats.expert_evictions > 0);
    sluice_session_reset(self.session);
    evaluate(&self, 0, N_TOKENS);
    sluice_engine_stats_get(self.engine, &stats);
    assert_true(stats.expert_misses > 0);
    (void)set_budget(&self, self.resident_bytes);
    for (int i_round = 0; i_round < 2; i_round++) {
        sluice_engine_stats_reset(self.engine);
        sluice_session_reset(self.session);
        evaluate(&self, 0, N_TOKENS);
    }
    sluice_engine_stats_get(self.engine, &stats);
    assert_int_equal(stats.expert_misses, 0);
    stop(&self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_the_same_with_another_budget_between_evaluations),
        cmocka_unit_test(results_are_the_same_with_another_budget_during_evaluations),
        cmocka_unit_test(the_receiver_of_logits_may_change_the_budget),
        cmocka_unit_test(the_plan_follows_the_budget),
        cmocka_unit_test(the_chunk_stays_as_opened),
        cmocka_unit_test(below_the_floor_every_part_is_named_and_nothing_changes),
        cmocka_unit_test(a_refused_charge_changes_nothing),
        cmocka_unit_test(lowering_gives_memory_back_to_the_kernel),
        cmocka_unit_test(raising_brings_the_hits_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
