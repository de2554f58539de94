/* The chances of an expert at its layer's next turn and later: what turns teach, and that they stay chances whatever comes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka.h needs setjmp, stdarg, stddef and stdint. */
#include <cmocka.h>

#include "experts/chance.h"
#include "../support/failing_memory.h"

enum { N_LAYERS = 2, N_EXPERTS = 16, N_USED = 2 };

static sl_memory memory;

static sl_chance *open_chance(uint32_t n_experts, uint32_t n_used, bool with_pairs)
{
    sl_memory_init(&memory, NULL);
    const sl_chance_config config = {
        .n_layers = N_LAYERS, .n_experts = n_experts, .n_used = n_used, .with_pairs = with_pairs, .memory = &memory};
    sl_chance *chance = NULL;
    assert_int_equal(sl_chance_open(&chance, &config, NULL), SLUICE_OK);
    assert_int_equal(memory.total_bytes, sl_chance_cost(&config));
    return chance;
}

static void close_chance(sl_chance *chance)
{
    sl_chance_close(&chance);
    assert_null(chance);
    assert_int_equal(memory.total_bytes, 0);
}

static void turn(sl_chance *chance, uint32_t layer, uint32_t a, uint32_t b)
{
    const uint32_t experts[N_USED] = {a, b};
    sl_chance_turn(chance, layer, experts, NULL, N_USED, 1);
}

static void before_any_turn_all_have_the_average_chance(void **state)
{
    (void)state;
    sl_chance *chance = open_chance(N_EXPERTS, N_USED, true);
    for (uint32_t expert = 0; expert < N_EXPERTS; expert++) {
        assert_float_equal(sl_chance_of_next(chance, 1, expert), 2.5f / 17.0f, 1e-4f);
        assert_float_equal(sl_chance_of_later(chance, 1, expert), 2.5f / 17.0f, 1e-4f);
    }
    close_chance(chance);
}

static void favourites_have_a_higher_chance(void **state)
{
    (void)state;
    sl_chance *chance = open_chance(N_EXPERTS, N_USED, false);
    for (uint32_t i = 0; i < 60; i++) {
        turn(chance, 0, i % 2, 2 + i % 14);
    }
    float favourite = sl_chance_of_next(chance, 0, 0);
    for (uint32_t expert = 2; expert < N_EXPERTS; expert++) {
        assert_true(favourite > sl_chance_of_next(chance, 0, expert));
    }
    assert_true(favourite > 0.3f);
    close_chance(chance);
}

static void layers_learn_their_own_favourites(void **state)
{
    (void)state;
    sl_chance *chance = open_chance(N_EXPERTS, N_USED, false);
    for (uint32_t i = 0; i < 30; i++) {
        turn(chance, 0, 3, 4);
        turn(chance, 1, 5, 6);
    }
    assert_true(sl_chance_of_next(chance, 0, 3) > 4 * sl_chance_of_next(chance, 0, 5));
    assert_true(sl_chance_of_next(chance, 1, 5) > 4 * sl_chance_of_next(chance, 1, 3));
    close_chance(chance);
}

/* Two groups of two take turns: what was just asked for is what will not be asked for next. */
static void who_follows_whom_is_learned_with_pairs(void **state)
{
    (void)state;
    sl_chance *with = open_chance(N_EXPERTS, N_USED, true);
    for (uint32_t i = 0; i < 101; i++) {
        turn(with, 0, i % 2 == 0 ? 0 : 2, i % 2 == 0 ? 1 : 3);
    }
    assert_true(sl_chance_of_next(with, 0, 2) > 4 * sl_chance_of_next(with, 0, 0));
    close_chance(with);
}

/* Every turn repeats half of the one before it, out of experts that are all equally popular. */
static void repetition_is_learned_where_there_is_any(void **state)
{
    (void)state;
    sl_chance *chance = open_chance(N_EXPERTS, N_USED, false);
    uint32_t just = 0;
    for (uint32_t i = 0; i < 400; i++) {
        uint32_t next = (just + 5) % N_EXPERTS;
        turn(chance, 0, just, next);
        just = next;
    }
    for (uint32_t expert = 0; expert < N_EXPERTS; expert++) {
        assert_true(expert == just || sl_chance_of_next(chance, 0, just) > sl_chance_of_next(chance, 0, expert) ||
                    expert == (just + N_EXPERTS - 5) % N_EXPERTS);
    }
    close_chance(chance);
}

/* Two come by turns, one of the fourteen others with either: whoever just came will not come next, but then. */
static void who_sits_out_one_turn_is_worth_more_than_who_comes_rarely(void **state)
{
    (void)state;
    sl_chance *chance = open_chance(N_EXPERTS, N_USED, true);
    srand(13);
    for (uint32_t i = 0; i < 301; i++) {
        turn(chance, 0, i % 2, 2 + (uint32_t)rand() % 14);
    }
    float rare_next = 0.0f;
    for (uint32_t rare = 2; rare < N_EXPERTS; rare++) {
        rare_next += sl_chance_of_next(chance, 0, rare) / 14.0f;
        assert_true(sl_chance_worth(chance, 0, 0) > 1.5f * sl_chance_worth(chance, 0, rare));
        assert_true(sl_chance_worth(chance, 0, 1) > sl_chance_worth(chance, 0, 0));
    }
    assert_true(sl_chance_of_next(chance, 0, 0) < rare_next);
    close_chance(chance);
}

/* One that comes every second turn by chance, and fourteen of which one fills the other place. */
static void the_chance_of_later_is_how_often_later_turns_ask(void **state)
{
    (void)state;
    sl_chance *chance = open_chance(N_EXPERTS, N_USED, false);
    srand(17);
    float often = 0.0f;
    float rare = 0.0f;
    for (uint32_t i = 0; i < 1500; i++) {
        turn(chance, 0, rand() % 2 == 0 ? 0 : 1, 2 + i % 14);
        if (i >= 1000) {
            often += sl_chance_of_later(chance, 0, 0) / 500.0f;
            rare += sl_chance_of_later(chance, 0, 2) / 500.0f;
        }
    }
    assert_float_equal(often, 0.5f, 0.1f);
    assert_float_equal(rare, 1.0f / 14.0f, 0.03f);
    close_chance(chance);
}

static void a_chunk_counts_as_many_turns(void **state)
{
    (void)state;
    sl_chance *chance = open_chance(N_EXPERTS, N_USED, true);
    const uint32_t experts[4] = {1, 2, 3, 4};
    const uint32_t tokens_of[4] = {100, 60, 30, 10};
    sl_chance_turn(chance, 0, experts, tokens_of, 4, 100);
    for (uint32_t i = 0; i + 1 < 4; i++) {
        assert_true(sl_chance_of_next(chance, 0, experts[i]) > sl_chance_of_next(chance, 0, experts[i + 1]));
    }
    assert_true(sl_chance_of_next(chance, 0, 4) > sl_chance_of_next(chance, 0, 5));
    close_chance(chance);
}

static void it_is_a_chance_whatever_comes(void **state)
{
    (void)state;
    static const uint32_t shapes[][2] = {{1, 1}, {2, 2}, {16, 1}, {16, 16}, {64, 8}};
    for (size_t i_shape = 0; i_shape < sizeof shapes / sizeof shapes[0]; i_shape++) {
        uint32_t n_experts = shapes[i_shape][0];
        sl_chance *chance = open_chance(n_experts, shapes[i_shape][1], true);
        srand(7);
        for (int i = 0; i < 3000; i++) {
            uint32_t experts[64];
            uint32_t tokens_of[64];
            uint32_t n_asked = 0;
            uint32_t share = (uint32_t)rand() % 5;
            for (uint32_t expert = 0; expert < n_experts; expert++) {
                if ((uint32_t)rand() % 4 < share) {
                    tokens_of[n_asked] = (uint32_t)rand() % 700;
                    experts[n_asked++] = expert;
                }
            }
            sl_chance_turn(chance, (uint32_t)i % N_LAYERS, experts, i % 3 == 0 ? tokens_of : NULL, n_asked,
                           (uint32_t)rand() % 3 * 300 + (uint32_t)rand() % 2);
            for (uint32_t expert = 0; expert < n_experts; expert++) {
                float next = sl_chance_of_next(chance, (uint32_t)i % N_LAYERS, expert);
                float later = sl_chance_of_later(chance, (uint32_t)i % N_LAYERS, expert);
                float worth = sl_chance_worth(chance, (uint32_t)i % N_LAYERS, expert);
                assert_true(next > 0.0f && next < 1.0f && later > 0.0f && later < 1.0f);
                assert_true(worth >= next && worth <= 1.0f);
            }
        }
        close_chance(chance);
    }
}

static void a_refused_allocation_fails_open_and_leaves_nothing(void **state)
{
    (void)state;
    sluice_status status = SLUICE_ERROR_NO_MEMORY;
    uint64_t n_refused = 0;
    for (uint64_t failing = 0; status != SLUICE_OK; failing++) {
        failing_source source;
        failing_memory_init(&memory, &source, failing);
        const sl_chance_config config = {
            .n_layers = N_LAYERS, .n_experts = N_EXPERTS, .n_used = N_USED, .with_pairs = true, .memory = &memory};
        sl_chance *chance = NULL;
        status = sl_chance_open(&chance, &config, NULL);
        assert_true(status == SLUICE_OK || (status == SLUICE_ERROR_NO_MEMORY && chance == NULL));
        n_refused += status != SLUICE_OK;
        sl_chance_close(&chance);
        assert_int_equal(memory.total_bytes, 0);
    }
    assert_int_equal(n_refused, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_any_turn_all_have_the_average_chance),
        cmocka_unit_test(favourites_have_a_higher_chance),
        cmocka_unit_test(layers_learn_their_own_favourites),
        cmocka_unit_test(who_follows_whom_is_learned_with_pairs),
        cmocka_unit_test(repetition_is_learned_where_there_is_any),
        cmocka_unit_test(who_sits_out_one_turn_is_worth_more_than_who_comes_rarely),
        cmocka_unit_test(the_chance_of_later_is_how_often_later_turns_ask),
        cmocka_unit_test(a_chunk_counts_as_many_turns),
        cmocka_unit_test(it_is_a_chance_whatever_comes),
        cmocka_unit_test(a_refused_allocation_fails_open_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
