/* The arena plan: sound, tight in hand cases, the same every time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <string.h>

#include "graph/plan.h"

static sl_memory memory;

static int start(void **state)
{
    (void)state;
    sl_memory_init(&memory, NULL);
    return 0;
}

static int nothing_leaked(void **state)
{
    (void)state;
    return memory.n_live == 0 ? 0 : -1;
}

static uint64_t plan(sl_plan_buffer *buffers, uint32_t n_buffers)
{
    uint64_t arena_bytes = UINT64_MAX;
    sluice_error error = {0};
    if (sl_plan_arena(buffers, n_buffers, &memory, &arena_bytes, &error) != SLUICE_OK ||
        sl_plan_check(buffers, n_buffers, arena_bytes, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    return arena_bytes;
}

static void no_buffers_need_no_arena(void **state)
{
    (void)state;
    assert_int_equal(plan(NULL, 0), 0);
}

static void buffers_that_never_meet_share_their_place(void **state)
{
    (void)state;
    sl_plan_buffer buffers[] = {{{0, 0, 1}, 100, 0}, {{1, 2, 3}, 200, 0}};
    assert_int_equal(plan(buffers, 2), 256);
    assert_int_equal(buffers[0].offset, 0);
    assert_int_equal(buffers[1].offset, 0);
}

static void buffers_that_meet_at_one_operation_are_apart(void **state)
{
    (void)state;
    sl_plan_buffer buffers[] = {{{0, 0, 1}, 64, 0}, {{1, 1, 2}, 64, 0}};
    assert_int_equal(plan(buffers, 2), 128);
}

static void the_largest_is_placed_first_and_others_fill_the_lowest_gap(void **state)
{
    (void)state;
    /* 2 lies at 0; 0 meets it and goes behind; 1 meets only 0 and finds the place of 2 free. */
    sl_plan_buffer buffers[] = {{{0, 0, 4}, 512, 0}, {{1, 3, 4}, 256, 0}, {{2, 0, 2}, 1024, 0}};
    assert_int_equal(plan(buffers, 3), 1536);
    assert_int_equal(buffers[2].offset, 0);
    assert_int_equal(buffers[0].offset, 1024);
    assert_int_equal(buffers[1].offset, 0);
}

static void equal_sizes_go_by_first_write_then_value(void **state)
{
    (void)state;
    sl_plan_buffer buffers[] = {{{7, 1, 2}, 64, 0}, {{3, 1, 2}, 64, 0}, {{9, 0, 2}, 64, 0}};
    plan(buffers, 3);
    assert_int_equal(buffers[2].offset, 0);
    assert_int_equal(buffers[1].offset, 64);
    assert_int_equal(buffers[0].offset, 128);
}

static void sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    sl_plan_buffer one[] = {{{0, 0, 1}, UINT64_MAX - 3, 0}};
    sl_plan_buffer two[] = {{{0, 0, 1}, (uint64_t)1 << 63, 0}, {{1, 0, 1}, (uint64_t)1 << 63, 0}};
    uint64_t arena_bytes;
    assert_int_equal(sl_plan_arena(one, 1, &memory, &arena_bytes, NULL), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sl_plan_arena(two, 2, &memory, &arena_bytes, NULL), SLUICE_ERROR_ARGUMENT);
}

static void the_check_sees_overlap_misalignment_and_excess(void **state)
{
    (void)state;
    const sl_plan_buffer overlapping[] = {{{0, 0, 1}, 128, 0}, {{1, 1, 2}, 64, 64}};
    const sl_plan_buffer crooked[] = {{{0, 0, 1}, 64, 32}};
    const sl_plan_buffer outside[] = {{{0, 0, 1}, 65, 64}};
    const sl_plan_buffer wrapping[] = {{{0, 0, 1}, UINT64_MAX, 64}};
    assert_int_equal(sl_plan_check(overlapping, 2, 128, NULL), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sl_plan_check(crooked, 1, 128, NULL), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sl_plan_check(outside, 1, 128, NULL), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sl_plan_check(wrapping, 1, 128, NULL), SLUICE_ERROR_ARGUMENT);
    const sl_plan_buffer apart_in_time[] = {{{0, 0, 1}, 128, 0}, {{1, 2, 2}, 64, 64}};
    assert_int_equal(sl_plan_check(apart_in_time, 2, 128, NULL), SLUICE_OK);
}

/* Numbers from a fixed seed. */
static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

enum { N_RANDOM = 80, N_OPS = 50 };

static void draw_buffers(uint64_t *seed, sl_plan_buffer *buffers)
{
    for (uint32_t i = 0; i < N_RANDOM; i++) {
        uint32_t first = next_random(seed) % N_OPS;
        uint32_t span = next_random(seed) % 8;
        uint32_t last = first + span < N_OPS ? first + span : N_OPS - 1;
        buffers[i] = (sl_plan_buffer){{i, first, last}, 1 + next_random(seed) % 5000, 0};
    }
}

static void random_plans_are_sound_and_hold_what_is_alive(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (int round = 0; round < 200; round++) {
        sl_plan_buffer buffers[N_RANDOM];
        draw_buffers(&seed, buffers);
        uint64_t arena_bytes = plan(buffers, N_RANDOM);
        uint64_t all_bytes = 0;
        for (uint32_t i = 0; i < N_RANDOM; i++) {
            all_bytes += (buffers[i].bytes + 63) / 64 * 64;
        }
        assert_true(arena_bytes < all_bytes);
        for (uint32_t op = 0; op < N_OPS; op++) {
            uint64_t live_bytes = 0;
            for (uint32_t i = 0; i < N_RANDOM; i++) {
                bool alive = buffers[i].lifetime.first_write <= op && op <= buffers[i].lifetime.last_read;
                live_bytes += alive ? buffers[i].bytes : 0;
            }
            assert_true(arena_bytes >= live_bytes);
        }
    }
}

static void the_order_of_the_list_does_not_change_the_plan(void **state)
{
    (void)state;
    uint64_t seed = 4;
    sl_plan_buffer buffers[N_RANDOM];
    sl_plan_buffer reversed[N_RANDOM];
    draw_buffers(&seed, buffers);
    for (uint32_t i = 0; i < N_RANDOM; i++) {
        reversed[N_RANDOM - 1 - i] = buffers[i];
    }
    assert_int_equal(plan(buffers, N_RANDOM), plan(reversed, N_RANDOM));
    for (uint32_t i = 0; i < N_RANDOM; i++) {
        assert_int_equal(buffers[i].offset, reversed[N_RANDOM - 1 - i].offset);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, nothing_leaked)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(no_buffers_need_no_arena),
        TEST(buffers_that_never_meet_share_their_place),
        TEST(buffers_that_meet_at_one_operation_are_apart),
        TEST(the_largest_is_placed_first_and_others_fill_the_lowest_gap),
        TEST(equal_sizes_go_by_first_write_then_value),
        TEST(sizes_that_overflow_are_refused),
        TEST(the_check_sees_overlap_misalignment_and_excess),
        TEST(random_plans_are_sound_and_hold_what_is_alive),
        TEST(the_order_of_the_list_does_not_change_the_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
