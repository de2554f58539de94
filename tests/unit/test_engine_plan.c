/* What a plan says before anything is loaded, against what is allocated then; and where a budget comes from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../support/engine_account.h"
#include "engine/engine.h"
#include "os/limits.h"

static const char *const models[] = {"models/tales.gguf", "tests/golden/models/qwen3moe.gguf",
                                     "tests/golden/models/qwen2moe.gguf", "tests/golden/models/olmoe.gguf",
                                     "tests/golden/models/mixtral.gguf"};
enum { N_MODELS = sizeof models / sizeof models[0] };

static sluice_engine_options options_for(const char *model_path)
{
    sluice_engine_options options;
    sluice_engine_options_init(&options);
    options.model_path = model_path;
    options.context_length = 48;
    options.n_threads = 2;
    return options;
}

static sluice_memory_plan plan_for(sluice_engine_options options, uint64_t budget_bytes, sluice_status expected)
{
    sluice_memory_plan plan;
    sluice_error error = {0};
    options.mem_budget_bytes = budget_bytes;
    if (sluice_engine_plan(&options, &plan, &error) != expected) {
        fail_msg("%s: %s", options.model_path, error.message);
    }
    return plan;
}

/* Open what was planned, with all its sessions, evaluate something, and look at the account before and after. */
static void expect_exact(sluice_engine_options options, uint64_t budget_bytes)
{
    static const int32_t tokens[] = {5, 17, 40, 99, 3, 61, 200, 7, 8, 120};
    sluice_memory_plan planned = plan_for(options, budget_bytes, SLUICE_OK);
    sluice_engine *engine = NULL;
    sluice_session *sessions[2] = {NULL, NULL};
    sluice_error error = {0};
    options.mem_budget_bytes = budget_bytes;
    if (sluice_engine_open(&engine, &options, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    uint32_t n_sessions = options.n_sessions == 0 ? 1 : options.n_sessions;
    for (uint32_t i = 0; i < n_sessions; i++) {
        assert_int_equal(sluice_session_open(&sessions[i], engine, &error), SLUICE_OK);
    }
    sluice_memory_plan plan = expect_account_as_planned(engine);
    assert_memory_equal(&plan, &planned, sizeof plan);
    assert_int_equal(sluice_session_eval(sessions[0], tokens, 10, SLUICE_LOGITS_ALL, NULL, NULL, &error), SLUICE_OK);
    (void)expect_account_as_planned(engine);
    for (uint32_t i = 0; i < n_sessions; i++) {
        sluice_session_close(&sessions[i]);
    }
    sluice_engine_close(&engine);
}

static void what_is_allocated_is_what_was_planned_part_by_part(void **state)
{
    (void)state;
    for (int i_model = 0; i_model < N_MODELS; i_model++) {
        sluice_engine_options options = options_for(models[i_model]);
        sluice_memory_plan refused = plan_for(options, 1, SLUICE_ERROR_BUDGET);
        uint64_t budgets[] = {refused.floor_bytes, refused.floor_bytes + 3 * refused.slot_bytes + 1,
                              (refused.floor_bytes + refused.resident_bytes) / 2, refused.resident_bytes,
                              (uint64_t)4 << 30};
        for (size_t i_budget = 0; i_budget < sizeof budgets / sizeof budgets[0]; i_budget++) {
            expect_exact(options, budgets[i_budget]);
        }
    }
}

static void every_option_is_in_the_plan(void **state)
{
    (void)state;
    for (int i_case = 0; i_case < 12; i_case++) {
        static const sluice_kv_type kv_types[] = {SLUICE_KV_F16, SLUICE_KV_F32, SLUICE_KV_Q8_0};
        /* Q8_0 needs heads of 32: those of the first and the third model. */
        sluice_engine_options options = options_for(models[i_case < 8 ? i_case % 2 : i_case % 2 * 2]);
        options.n_sessions = 1 + (uint32_t)i_case % 2;
        options.prefill_chunk = i_case / 2 % 2 == 0 ? 0 : 5;
        options.kv_type = kv_types[i_case / 4];
        options.capture_routing = i_case % 3 == 0;
        options.io = i_case % 2 == 0 ? "auto" : "pread";
        options.prefetch = i_case / 2 % 2 == 0 ? "auto" : "none";
        options.n_threads = 1 + (uint32_t)i_case % 3;
        expect_exact(options, plan_for(options, 1, SLUICE_ERROR_BUDGET).floor_bytes + 100000);
    }
}

/* What the router chose for a few tokens, in a file of that name. */
static void record_routing(const char *model_path, const char *path)
{
    static const int32_t tokens[] = {5, 17, 40, 99, 3, 61};
    sluice_engine_options options = options_for(model_path);
    options.capture_routing = true;
    sluice_engine *engine = NULL;
    sluice_session *session = NULL;
    assert_int_equal(sluice_engine_open(&engine, &options, NULL), SLUICE_OK);
    assert_int_equal(sluice_session_open(&session, engine, NULL), SLUICE_OK);
    assert_int_equal(sluice_session_record_routing(session, path, NULL), SLUICE_OK);
    assert_int_equal(sluice_session_eval(session, tokens, 6, SLUICE_LOGITS_NONE, NULL, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_session_finish_recording(session, NULL), SLUICE_OK);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

static void every_policy_is_in_the_plan(void **state)
{
    (void)state;
    static const char *const policies[] = {"auto", "lru", "lfru", "pinned", "placement", "reuse"};
    char path[64];
    snprintf(path, sizeof path, "%s/sluice-plan-XXXXXX", P_tmpdir);
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    for (int i_model = 0; i_model < 2; i_model++) {
        record_routing(models[i_model], path);
        for (size_t i_policy = 0; i_policy < sizeof policies / sizeof policies[0]; i_policy++) {
            sluice_engine_options options = options_for(models[i_model]);
            options.policy = policies[i_policy];
            options.policy_trace = strcmp(policies[i_policy], "pinned") == 0 ? path : NULL;
            sluice_memory_plan refused = plan_for(options, 1, SLUICE_ERROR_BUDGET);
            expect_exact(options, refused.floor_bytes);
            expect_exact(options, (refused.floor_bytes + refused.resident_bytes) / 2);
            expect_exact(options, refused.resident_bytes);
        }
    }
    unlink(path);
}

/* The rest of the budget is less than what one more slot takes, and what fits stays within it to the byte. */
static void the_budget_is_used_up_and_never_exceeded(void **state)
{
    (void)state;
    for (int i_model = 0; i_model < N_MODELS; i_model++) {
        sluice_engine_options options = options_for(models[i_model]);
        options.prefill_chunk = 4; /* or it would take its part of what is left */
        sluice_memory_plan refused = plan_for(options, 1, SLUICE_ERROR_BUDGET);
        assert_int_equal(plan_parts(&refused), refused.floor_bytes);
        sluice_memory_plan one_more = plan_for(options, refused.floor_bytes, SLUICE_OK);
        assert_int_equal(one_more.total_bytes, refused.floor_bytes);
        (void)plan_for(options, refused.floor_bytes - 1, SLUICE_ERROR_BUDGET);
        sluice_memory_plan middle = plan_for(options, (refused.floor_bytes + refused.resident_bytes) / 2, SLUICE_OK);
        assert_true(middle.n_slots > middle.minimum_slots && middle.n_slots < middle.maximum_slots);
        assert_int_equal(plan_for(options, middle.total_bytes, SLUICE_OK).n_slots, middle.n_slots);
        assert_int_equal(plan_for(options, middle.total_bytes - 1, SLUICE_OK).n_slots, middle.n_slots - 1);
        sluice_memory_plan resident = plan_for(options, refused.resident_bytes, SLUICE_OK);
        assert_int_equal(resident.n_slots, resident.maximum_slots);
        assert_int_equal(resident.total_bytes, resident.budget_bytes);
        assert_int_equal(plan_for(options, refused.resident_bytes - 1, SLUICE_OK).n_slots, resident.maximum_slots - 1);
        assert_int_equal(plan_for(options, UINT64_MAX, SLUICE_OK).total_bytes, resident.total_bytes);
    }
}

static void numbers_too_large_to_add_are_a_refusal(void **state)
{
    (void)state;
    sluice_engine_options options = options_for(models[1]);
    options.n_sessions = UINT32_MAX;
    options.context_length = UINT32_MAX;
    sluice_memory_plan plan = plan_for(options, (uint64_t)1 << 62, SLUICE_ERROR_BUDGET);
    assert_true(plan.floor_bytes > (uint64_t)1 << 62);
}

static void the_smallest_limit_less_a_reserve_is_the_budget(void **state)
{
    (void)state;
    static const uint64_t gib = (uint64_t)1 << 30;
    static const uint64_t reserve = (uint64_t)256 << 20;
    sl_memory_limits limits = {.cgroup_bytes = UINT64_MAX, .available_bytes = 40 * gib, .physical_bytes = 64 * gib};
    assert_int_equal(sl_budget_within(&limits), 40 * gib - reserve);
    limits.physical_bytes = 32 * gib;
    assert_int_equal(sl_budget_within(&limits), 32 * gib - reserve);
    limits.cgroup_bytes = 8 * gib;
    assert_int_equal(sl_budget_within(&limits), 8 * gib - reserve);
    limits.cgroup_bytes = 1600;
    assert_int_equal(sl_budget_within(&limits), 1500);
    limits = (sl_memory_limits){.cgroup_bytes = 4 * gib};
    assert_int_equal(sl_budget_within(&limits), 4 * gib - reserve); /* the machine says nothing */
    limits.cgroup_bytes = UINT64_MAX;
    assert_true(sl_budget_within(&limits) > (uint64_t)1 << 62); /* an unknown limit is none */
}

static void what_is_held_already_counts_as_available(void **state)
{
    (void)state;
    sl_memory_limits limits = {
        .cgroup_bytes = UINT64_MAX, .available_bytes = 1600, .physical_bytes = 160000, .held_bytes = 3200};
    assert_int_equal(sl_budget_within(&limits), 4500);
    limits.physical_bytes = 3200;
    assert_int_equal(sl_budget_within(&limits), 3000);
    limits.held_bytes = UINT64_MAX;
    assert_int_equal(sl_budget_within(&limits), 3000);
}

static void the_cache_stays_where_everything_fits_beside_it(void **state)
{
    (void)state;
    sl_memory_limits limits = {.cgroup_bytes = UINT64_MAX, .free_bytes = 100};
    assert_true(sl_cache_stays_within(&limits, 100, 1000));
    assert_false(sl_cache_stays_within(&limits, 101, 1000));
    limits.cgroup_bytes = 1100;
    assert_true(sl_cache_stays_within(&limits, 100, 1000));
    assert_false(sl_cache_stays_within(&limits, 100, 1001));
    assert_false(sl_cache_stays_within(&limits, 100, 1101));
    limits = (sl_memory_limits){.cgroup_bytes = UINT64_MAX}; /* the machine says nothing */
    assert_false(sl_cache_stays_within(&limits, 100, 1000));
}

static void a_budget_is_found_only_where_none_is_given(void **state)
{
    (void)state;
    sluice_engine_options options = options_for(models[1]);
    uint64_t largest = sl_machine_physical_bytes();
    uint64_t found = plan_for(options, 0, SLUICE_OK).budget_bytes;
    assert_true(found > 0 && found < largest && found < sl_cgroup_memory_limit());
    assert_int_equal(plan_for(options, 100 * largest, SLUICE_OK).budget_bytes, 100 * largest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_allocated_is_what_was_planned_part_by_part),
        cmocka_unit_test(every_option_is_in_the_plan),
        cmocka_unit_test(every_policy_is_in_the_plan),
        cmocka_unit_test(the_budget_is_used_up_and_never_exceeded),
        cmocka_unit_test(numbers_too_large_to_add_are_a_refusal),
        cmocka_unit_test(the_smallest_limit_less_a_reserve_is_the_budget),
        cmocka_unit_test(what_is_held_already_counts_as_available),
        cmocka_unit_test(the_cache_stays_where_everything_fits_beside_it),
        cmocka_unit_test(a_budget_is_found_only_where_none_is_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
