/* The placement pool: which experts have a place, and when that changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h needs setjmp, stdarg, stddef and stdint. */
#include <cmocka.h>

#include "../support/failing_memory.h"
#include "experts/placement_pool.h"

enum { MAX_EXPERTS = 256 };
#define GIB (UINT64_C(1) << 30)
#define MIB (UINT64_C(1) << 20)

static sl_memory memory;

static sl_placement_pool *open_pool(uint32_t n_experts, uint32_t budget, float margin, uint32_t dwell)
{
    sl_memory_init(&memory, NULL);
    const sl_placement_config config = {.n_experts = n_experts,
                                        .budget = budget,
                                        .refresh = SL_PLACEMENT_EVERY_STEPS,
                                        .interval = 3,
                                        .margin = margin,
                                        .dwell = dwell,
                                        .memory = &memory};
    sl_placement_pool *pool = NULL;
    assert_int_equal(sl_placement_pool_open(&pool, &config, NULL), SLUICE_OK);
    assert_int_equal(memory.total_bytes, sl_placement_pool_cost(&config));
    return pool;
}

static void close_pool(sl_placement_pool *pool)
{
    sl_placement_pool_close(&pool);
    assert_null(pool);
    assert_int_equal(memory.total_bytes, 0);
}

/* Exactly the experts of `mask` have a place. */
static void expect_placed(const sl_placement_pool *pool, uint64_t mask)
{
    uint64_t found = 0;
    sl_placement_add_mask(pool, &found);
    assert_int_equal(found, mask);
}

static void expect_moves(const sl_placement_pool *pool, uint64_t promotions, uint64_t demotions)
{
    assert_int_equal(sl_placement_statistics_of(pool).promotions, promotions);
    assert_int_equal(sl_placement_statistics_of(pool).demotions, demotions);
}

static void uses_are_counted_and_strangers_ignored(void **state)
{
    (void)state;
    const uint32_t ids[] = {1, 0, 1, 2, 1};
    uint32_t counts[4] = {0};
    sl_placement_count(ids, 5, 4, counts);
    assert_memory_equal(counts, ((uint32_t[]){1, 3, 1, 0}), sizeof counts);
    const uint32_t strangers[] = {4, UINT32_MAX};
    sl_placement_count(strangers, 2, 4, counts);
    assert_memory_equal(counts, ((uint32_t[]){1, 3, 1, 0}), sizeof counts);
}

static void the_target_is_the_most_used_with_ties_to_the_lower_number(void **state)
{
    (void)state;
    const uint32_t counts[] = {10, 50, 30, 0, 50};
    uint32_t target[5];
    assert_int_equal(sl_placement_target(counts, 5, 3, target), 3);
    assert_memory_equal(target, ((uint32_t[]){1, 4, 2}), 3 * sizeof *target);
}

static void the_target_leaves_out_what_is_never_used(void **state)
{
    (void)state;
    const uint32_t counts[] = {0, 0, 7, 0};
    uint32_t target[4];
    assert_int_equal(sl_placement_target(counts, 4, 3, target), 1);
    assert_int_equal(target[0], 2);
    assert_int_equal(sl_placement_target(counts, 4, 0, target), 0);
}

static void a_refresh_from_choices_takes_the_most_chosen(void **state)
{
    (void)state;
    const uint32_t ids[] = {1, 1, 0, 2};
    uint32_t counts[3] = {0};
    uint32_t target[3];
    sl_placement_count(ids, 4, 3, counts);
    assert_int_equal(sl_placement_target(counts, 3, 2, target), 2);
    assert_memory_equal(target, ((uint32_t[]){1, 0}), 2 * sizeof *target);
}

static void a_disjoint_target_replaces_all(void **state)
{
    (void)state;
    sl_placement_pool *pool = open_pool(8, 2, 0.0f, 0);
    expect_placed(pool, 0x03);
    const uint32_t counts[8] = {[6] = 2, [7] = 1};
    sl_placement_refresh_pool(pool, counts);
    expect_placed(pool, 0xc0);
    expect_moves(pool, 2, 2);
    close_pool(pool);
}

static void an_overlapping_target_keeps_what_both_have(void **state)
{
    (void)state;
    sl_placement_pool *pool = open_pool(8, 4, 0.0f, 0);
    const uint32_t counts[8] = {[2] = 4, [3] = 3, [4] = 2, [5] = 1};
    sl_placement_refresh_pool(pool, counts);
    expect_placed(pool, 0x3c);
    expect_moves(pool, 2, 2);
    assert_int_equal(sl_placement_statistics_of(pool).refreshes, 1);
    close_pool(pool);
}

static void refreshes_come_every_few_steps_and_always_in_a_prefill(void **state)
{
    (void)state;
    sl_placement_pool *pool = open_pool(256, 64, 0.0f, 0);
    assert_true(sl_placement_should_refresh(pool, 0, false));
    assert_false(sl_placement_should_refresh(pool, 1, false));
    assert_false(sl_placement_should_refresh(pool, 2, false));
    assert_true(sl_placement_should_refresh(pool, 3, false));
    assert_true(sl_placement_should_refresh(pool, 1, true));
    close_pool(pool);
}

static void an_explicit_refresh_is_never_put_off(void **state)
{
    (void)state;
    sl_memory_init(&memory, NULL);
    for (int mode = SL_PLACEMENT_EVERY_FORWARD; mode <= SL_PLACEMENT_ALWAYS; mode++) {
        const sl_placement_config config = {
            .n_experts = 8, .budget = 4, .refresh = (sl_placement_refresh)mode, .interval = 3, .memory = &memory};
        sl_placement_pool *pool = NULL;
        assert_int_equal(sl_placement_pool_open(&pool, &config, NULL), SLUICE_OK);
        assert_int_equal(sl_placement_should_refresh(pool, 1, false), mode != SL_PLACEMENT_EVERY_STEPS);
        close_pool(pool);
    }
}

static void a_place_for_everyone_needs_no_refresh(void **state)
{
    (void)state;
    sl_placement_pool *pool = open_pool(8, 9, 0.0f, 0);
    assert_int_equal(sl_placement_n_placed(pool), 8);
    assert_false(sl_placement_should_refresh(pool, 0, true));
    close_pool(pool);
}

static void the_budget_is_what_free_memory_holds(void **state)
{
    (void)state;
    assert_int_equal(sl_placement_budget(40 * GIB, 2 * GIB, 50 * MIB, 20, 128, 256), 38);
    assert_int_equal(sl_placement_budget(1000 * GIB, 0, 50 * MIB, 20, 128, 256), 128);
    assert_int_equal(sl_placement_budget(1000 * GIB, 0, 50 * MIB, 20, 512, 256), 256);
    assert_int_equal(sl_placement_budget(GIB, 2 * GIB, 50 * MIB, 20, 128, 256), 0);
    assert_int_equal(sl_placement_budget(GIB, 0, 0, 20, 128, 256), 128);
    assert_int_equal(sl_placement_budget(GIB, 0, 50 * MIB, 0, 300, 256), 256);
    assert_int_equal(sl_placement_budget(UINT64_MAX, 0, UINT64_MAX, 2, 128, 256), 0);
}

static void masks_of_several_pools_are_united(void **state)
{
    (void)state;
    sl_placement_pool *first = open_pool(4, 2, 0.0f, 0);
    sl_memory second_memory;
    sl_memory_init(&second_memory, NULL);
    const sl_placement_config config = {.n_experts = 4, .budget = 2, .memory = &second_memory};
    sl_placement_pool *second = NULL;
    assert_int_equal(sl_placement_pool_open(&second, &config, NULL), SLUICE_OK);
    sl_placement_refresh_pool(second, (const uint32_t[4]){0, 0, 1, 1});
    expect_placed(first, 0x3);
    expect_placed(second, 0xc);
    uint64_t all = 0;
    sl_placement_add_mask(first, &all);
    sl_placement_add_mask(second, &all);
    assert_int_equal(all, 0xf);
    sl_placement_pool_close(&second);
    close_pool(first);
}

static void who_gives_way_is_the_least_used_then_the_longest_placed_then_the_lowest(void **state)
{
    (void)state;
    sl_placement_pool *pool = open_pool(8, 4, 0.0f, 0);
    sl_placement_refresh_pool(pool, (const uint32_t[8]){[0] = 3, [1] = 1, [2] = 3, [3] = 3, [4] = 5});
    expect_placed(pool, 0x1d); /* 1 was used least */
    sl_placement_refresh_pool(pool, (const uint32_t[8]){[5] = 1});
    expect_placed(pool, 0x3c); /* 0, 2 and 3 were placed longest; 0 is the lowest */
    close_pool(pool);
}

static void a_newcomer_must_win_by_the_margin(void **state)
{
    (void)state;
    sl_placement_pool *pool = open_pool(4, 1, 0.5f, 0);
    sl_placement_refresh_pool(pool, (const uint32_t[4]){10, 14, 0, 0});
    expect_placed(pool, 0x1);
    sl_placement_refresh_pool(pool, (const uint32_t[4]){10, 15, 0, 0});
    expect_placed(pool, 0x2);
    close_pool(pool);
}

static void a_place_is_kept_for_the_dwell(void **state)
{
    (void)state;
    sl_placement_pool *pool = open_pool(4, 1, 0.0f, 2);
    const uint32_t counts[4] = {0, 5, 0, 0};
    sl_placement_refresh_pool(pool, counts);
    expect_placed(pool, 0x1);
    sl_placement_refresh_pool(pool, counts);
    expect_placed(pool, 0x2);
    close_pool(pool);
}

static void a_smaller_budget_keeps_the_most_used(void **state)
{
    (void)state;
    sl_placement_pool *pool = open_pool(4, 4, 0.0f, 0);
    const uint32_t counts[4] = {1, 7, 3, 5};
    sl_placement_set_budget(pool, 2, counts);
    expect_placed(pool, 0xa);
    sl_placement_set_budget(pool, 3, counts);
    expect_placed(pool, 0xa);
    sl_placement_refresh_pool(pool, counts);
    expect_placed(pool, 0xe);
    close_pool(pool);
}

static void whatever_the_counts_the_number_of_places_stays(void **state)
{
    (void)state;
    srand(11);
    for (int round = 0; round < 200; round++) {
        uint32_t n_experts = 1 + (uint32_t)rand() % 40;
        uint32_t budget = (uint32_t)rand() % (n_experts + 2);
        bool plain = round % 2 == 0;
        sl_placement_pool *pool = open_pool(n_experts, budget, plain ? 0.0f : 0.3f, plain ? 0 : 3);
        uint32_t n_places = sl_placement_n_placed(pool);
        for (int refresh = 0; refresh < 20; refresh++) {
            uint32_t counts[MAX_EXPERTS];
            uint32_t target[MAX_EXPERTS + 1];
            for (uint32_t expert = 0; expert < n_experts; expert++) {
                counts[expert] = (uint32_t)rand() % 6;
            }
            sl_placement_refresh_pool(pool, counts);
            assert_int_equal(sl_placement_n_placed(pool), n_places);
            uint32_t n_target = sl_placement_target(counts, n_experts, n_places, target);
            for (uint32_t i = 0; i < n_target && plain; i++) {
                assert_true(sl_placement_has(pool, target[i]));
            }
        }
        expect_moves(pool, sl_placement_statistics_of(pool).promotions, sl_placement_statistics_of(pool).promotions);
        close_pool(pool);
    }
}

static void a_refused_allocation_fails_open_and_leaves_nothing(void **state)
{
    (void)state;
    sluice_status status = SLUICE_ERROR_NO_MEMORY;
    uint64_t failing = 0;
    for (; status != SLUICE_OK; failing++) {
        failing_source source;
        failing_memory_init(&memory, &source, failing);
        const sl_placement_config config = {.n_experts = 8, .budget = 4, .memory = &memory};
        sl_placement_pool *pool = NULL;
        status = sl_placement_pool_open(&pool, &config, NULL);
        assert_true(status == SLUICE_OK || (status == SLUICE_ERROR_NO_MEMORY && pool == NULL));
        sl_placement_pool_close(&pool);
        assert_int_equal(memory.total_bytes, 0);
    }
    assert_int_equal(failing, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uses_are_counted_and_strangers_ignored),
        cmocka_unit_test(the_target_is_the_most_used_with_ties_to_the_lower_number),
        cmocka_unit_test(the_target_leaves_out_what_is_never_used),
        cmocka_unit_test(a_refresh_from_choices_takes_the_most_chosen),
        cmocka_unit_test(a_disjoint_target_replaces_all),
        cmocka_unit_test(an_overlapping_target_keeps_what_both_have),
        cmocka_unit_test(refreshes_come_every_few_steps_and_always_in_a_prefill),
        cmocka_unit_test(an_explicit_refresh_is_never_put_off),
        cmocka_unit_test(a_place_for_everyone_needs_no_refresh),
        cmocka_unit_test(the_budget_is_what_free_memory_holds),
        cmocka_unit_test(masks_of_several_pools_are_united),
        cmocka_unit_test(who_gives_way_is_the_least_used_then_the_longest_placed_then_the_lowest),
        cmocka_unit_test(a_newcomer_must_win_by_the_margin),
        cmocka_unit_test(a_place_is_kept_for_the_dwell),
        cmocka_unit_test(a_smaller_budget_keeps_the_most_used),
        cmocka_unit_test(whatever_the_counts_the_number_of_places_stays),
        cmocka_unit_test(a_refused_allocation_fails_open_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
