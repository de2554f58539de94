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

static void a_protected_one_is_skipped_for_a_hotter_one_that_may_go(void **state)
{
    (void)state;
    sl_placement_pool *pool = open_pool(5, 2, 0.0f, 2);
    sl_placement_refresh_pool(pool, (const uint32_t[5]){2, 1, 0, 0, 0});
    sl_placement_refresh_pool(pool, (const uint32_t[5]){9, 0, 1, 0, 0});
    expect_placed(pool, 0x5); /* 2 came just now */
    sl_placement_refresh_pool(pool, (const uint32_t[5]){3, 0, 1, 5, 4});
    expect_placed(pool, 0xc); /* 2 is the coldest but protected: 0 goes for 3, and nobody may go for 4 */
    close_pool(pool);
}

static void the_first_newcomer_that_fails_ends_the_refresh(void **state)
{
    (void)state;
    sl_placement_pool *pool = open_pool(6, 3, 1.0f, 0);
    sl_placement_refresh_pool(pool, (const uint32_t[6]){1, 5, 6, 8, 9, 7});
    expect_placed(pool, 0x16); /* 4 takes 0's place; 3 has not twice the uses of 1, and nobody after it is tried */
    close_pool(pool);
}

static void masks_reach_past_one_word(void **state)
{
    (void)state;
    sl_placement_pool *pool = open_pool(130, 1, 0.0f, 0);
    uint32_t uses[130] = {[129] = 1};
    sl_placement_refresh_pool(pool, uses);
    uint64_t mask[3] = {0};
    sl_placement_add_mask(pool, mask);
    assert_memory_equal(mask, ((uint64_t[]){0, 0, 2}), sizeof mask);
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

/* ---- Against the rules written down a second time ---- */

enum { MODEL_EXPERTS = 40 };

typedef struct model_expert {
    uint32_t id, uses;
    uint64_t placed_at;
    bool placed, wanted;
} model_expert;

typedef struct model {
    model_expert experts[MODEL_EXPERTS]; // [n_experts], by id
    uint32_t n_experts, budget;
    uint64_t clock, dwell;
    uint32_t margin_percent;
} model;

static int compare(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int by_rank(const void *left, const void *right)
{
    const model_expert *a = left;
    const model_expert *b = right;
    int order = compare(b->uses, a->uses);
    return order != 0 ? order : compare(a->id, b->id);
}

static int by_weakness(const void *left, const void *right)
{
    const model_expert *a = left;
    const model_expert *b = right;
    int order = compare(a->uses, b->uses);
    order = order != 0 ? order : compare(a->placed_at, b->placed_at);
    return order != 0 ? order : compare(a->id, b->id);
}

/* Both lists are made once and walked side by side. Returns how many came. */
static uint32_t model_refresh(model *self, const uint32_t *uses)
{
    model_expert ranked[MODEL_EXPERTS];
    model_expert weak[MODEL_EXPERTS];
    uint32_t n_weak = 0;
    self->clock++;
    for (uint32_t expert = 0; expert < self->n_experts; expert++) {
        self->experts[expert].uses = uses[expert];
        self->experts[expert].wanted = false;
    }
    memcpy(ranked, self->experts, sizeof ranked);
    qsort(ranked, self->n_experts, sizeof *ranked, by_rank);
    for (uint32_t rank = 0; rank < self->budget; rank++) {
        self->experts[ranked[rank].id].wanted = ranked[rank].uses > 0;
    }
    for (uint32_t expert = 0; expert < self->n_experts; expert++) {
        const model_expert *candidate = &self->experts[expert];
        if (candidate->placed && !candidate->wanted && self->clock >= candidate->placed_at + self->dwell) {
            weak[n_weak++] = *candidate;
        }
    }
    qsort(weak, n_weak, sizeof *weak, by_weakness);
    uint32_t n_moves = 0;
    for (uint32_t rank = 0; rank < self->budget && ranked[rank].uses > 0; rank++) {
        if (ranked[rank].placed) {
            continue;
        }
        if (n_moves == n_weak ||
            (uint64_t)ranked[rank].uses * 100 < (uint64_t)weak[n_moves].uses * (100 + self->margin_percent)) {
            break;
        }
        self->experts[weak[n_moves].id].placed = false;
        self->experts[ranked[rank].id].placed = true;
        self->experts[ranked[rank].id].placed_at = self->clock;
        n_moves++;
    }
    return n_moves;
}

static uint32_t draw(uint64_t *random, uint32_t below)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*random >> 33) % below;
}

/* Sparse or dense, with many ties or few. */
static void draw_uses(uint64_t *random, uint32_t *uses, uint32_t n_experts)
{
    uint32_t used_of_8 = draw(random, 9);
    uint32_t most = draw(random, 2) == 0 ? 4 : 4000;
    for (uint32_t expert = 0; expert < n_experts; expert++) {
        uses[expert] = draw(random, 8) < used_of_8 ? draw(random, most) : 0;
    }
}

/* Returns the moves made. */
static uint64_t run_random_refreshes(sl_placement_pool *pool, model *expected, uint64_t *random)
{
    uint64_t n_moves = 0;
    for (uint32_t refresh = 1; refresh <= 60; refresh++) {
        uint32_t uses[MODEL_EXPERTS] = {0};
        draw_uses(random, uses, expected->n_experts);
        sl_placement_refresh_pool(pool, uses);
        n_moves += model_refresh(expected, uses);
        for (uint32_t expert = 0; expert < expected->n_experts; expert++) {
            assert_int_equal(sl_placement_has(pool, expert), expected->experts[expert].placed);
        }
        assert_int_equal(sl_placement_n_placed(pool), expected->budget);
        assert_int_equal(sl_placement_statistics_of(pool).refreshes, refresh);
        expect_moves(pool, n_moves, n_moves);
    }
    return n_moves;
}

static void random_refreshes_follow_the_rules(void **state)
{
    (void)state;
    uint64_t random = 20;
    uint64_t n_moves[2] = {0}; /* without and with hysteresis */
    for (uint32_t round = 0; round < 200; round++) {
        model expected = {.n_experts = 1 + draw(&random, MODEL_EXPERTS)};
        expected.budget = draw(&random, expected.n_experts + 1);
        expected.dwell = round % 4 >= 2 ? draw(&random, 6) : 0;
        expected.margin_percent = round % 2 == 1 ? 25 * draw(&random, 9) : 0; /* exact in binary */
        for (uint32_t expert = 0; expert < expected.n_experts; expert++) {
            expected.experts[expert] = (model_expert){.id = expert, .placed = expert < expected.budget};
        }
        sl_placement_pool *pool = open_pool(expected.n_experts, expected.budget,
                                            (float)expected.margin_percent / 100.0f, (uint32_t)expected.dwell);
        uint64_t n_allocations = memory.n_allocations;
        n_moves[round % 4 == 0 ? 0 : 1] += run_random_refreshes(pool, &expected, &random);
        assert_int_equal(memory.n_allocations, n_allocations);
        close_pool(pool);
    }
    assert_true(n_moves[0] > 1000 && n_moves[1] > 1000);
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
        cmocka_unit_test(a_protected_one_is_skipped_for_a_hotter_one_that_may_go),
        cmocka_unit_test(the_first_newcomer_that_fails_ends_the_refresh),
        cmocka_unit_test(masks_reach_past_one_word),
        cmocka_unit_test(random_refreshes_follow_the_rules),
        cmocka_unit_test(a_refused_allocation_fails_open_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
