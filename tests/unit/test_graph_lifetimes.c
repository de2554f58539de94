/* Lifetimes of values and colouring of intervals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdlib.h>

#include "graph/graph.h"

enum { WIDTH = 4, MAX_VALUES = 64 };

static sl_memory memory;
static sl_graph graph;

static int start(void **state)
{
    (void)state;
    sl_memory_init(&memory, NULL);
    sl_graph_init(&graph, &memory);
    return 0;
}

static int nothing_leaked(void **state)
{
    (void)state;
    sl_graph_fini(&graph);
    return memory.n_live == 0 ? 0 : -1;
}

static void add_inputs(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const char name[] = {(char)('a' + i), '\0'};
        sl_graph_input(&graph, name, SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, WIDTH));
    }
}

/* (a, b) -> the value it returns */
static uint32_t add(uint32_t a, uint32_t b)
{
    return sl_graph_op(&graph, SL_OP_ADD, (const sl_value[]){{a}, {b}}, 2, NULL, NULL).index;
}

static void assert_interval(sl_interval interval, uint32_t value, uint32_t first_write, uint32_t last_read)
{
    assert_int_equal(interval.value, value);
    assert_int_equal(interval.first_write, first_write);
    assert_int_equal(interval.last_read, last_read);
}

static uint32_t count_colours(const sl_interval *intervals, uint32_t n_intervals, uint32_t *colours)
{
    uint32_t n_colours = UINT32_MAX;
    assert_true(sl_intervals_colour(intervals, n_intervals, &memory, colours, &n_colours));
    return n_colours;
}

static void an_empty_graph_has_no_intervals_and_no_colours(void **state)
{
    (void)state;
    sl_interval intervals[1];
    uint32_t colours[1];
    assert_int_equal(sl_graph_lifetimes(&graph, intervals), 0);
    assert_int_equal(count_colours(intervals, 0, colours), 0);
}

static void values_from_outside_have_no_interval(void **state)
{
    (void)state;
    add_inputs(2);
    assert_int_equal(add(0, 1), 2);
    sl_interval intervals[MAX_VALUES];
    assert_int_equal(sl_graph_lifetimes(&graph, intervals), 1);
    assert_interval(intervals[0], 2, 0, 0);
}

static void a_chain_needs_two_colours(void **state)
{
    (void)state;
    add_inputs(5);
    assert_int_equal(add(0, 1), 5);
    assert_int_equal(add(5, 2), 6);
    assert_int_equal(add(6, 3), 7);
    assert_int_equal(add(7, 4), 8);
    sl_interval intervals[MAX_VALUES];
    uint32_t colours[MAX_VALUES];
    assert_int_equal(sl_graph_lifetimes(&graph, intervals), 4);
    assert_interval(intervals[0], 5, 0, 1);
    assert_interval(intervals[1], 6, 1, 2);
    assert_interval(intervals[2], 7, 2, 3);
    assert_interval(intervals[3], 8, 3, 3);
    assert_int_equal(count_colours(intervals, 4, colours), 2);
}

static void a_long_ping_pong_needs_two_colours(void **state)
{
    (void)state;
    add_inputs(1);
    uint32_t value = 0;
    for (int i = 0; i < 10; i++) {
        value = add(value, 0);
    }
    sl_interval intervals[MAX_VALUES];
    uint32_t colours[MAX_VALUES];
    uint32_t n_intervals = sl_graph_lifetimes(&graph, intervals);
    assert_int_equal(n_intervals, 10);
    assert_int_equal(count_colours(intervals, n_intervals, colours), 2);
}

static void an_in_place_operation_on_an_unwritten_buffer_is_a_point(void **state)
{
    (void)state;
    /* Not a graph that verifies: lifetimes alone are looked at. */
    sl_value_info values[] = {{.kind = SL_VALUE_TEMPORARY}};
    sl_op ops[] = {{.kind = SL_OP_CLAMP, .n_inputs = 1, .n_outputs = 1}};
    const sl_graph in_place = {.values = values, .n_values = 1, .ops = ops, .n_ops = 1};
    sl_interval intervals[1];
    assert_int_equal(sl_graph_lifetimes(&in_place, intervals), 1);
    assert_interval(intervals[0], 0, 0, 0);
}

static void in_place_operations_extend_the_life_of_their_value(void **state)
{
    (void)state;
    add_inputs(1);
    uint32_t value = add(0, 0);
    const sl_op_attributes limit = {.limit = 1.0f};
    add(0, 0);
    assert_int_equal(sl_graph_op(&graph, SL_OP_CLAMP, &(sl_value){value}, 1, &limit, NULL).index, value);
    sl_interval intervals[MAX_VALUES];
    sl_graph_lifetimes(&graph, intervals);
    assert_interval(intervals[0], value, 0, 2);
}

static void outputs_live_to_the_last_operation(void **state)
{
    (void)state;
    add_inputs(1);
    uint32_t output = add(0, 0);
    sl_graph_mark_output(&graph, (sl_value){output});
    add(0, 0);
    add(0, 0);
    sl_interval intervals[MAX_VALUES];
    assert_int_equal(sl_graph_lifetimes(&graph, intervals), 3);
    assert_interval(intervals[0], output, 0, 2);
}

static void states_have_no_interval(void **state)
{
    (void)state;
    sl_value k = sl_graph_input(&graph, "k", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 8));
    sl_value positions = sl_graph_input(&graph, "positions", SL_TYPE_I32, sl_shape_of_1(SL_DIM_ROWS));
    sl_value keys = sl_graph_state(&graph, "keys", SL_TYPE_F16, sl_shape_of_3(2, SL_DIM_POSITIONS, 4));
    sl_value values = sl_graph_state(&graph, "values", SL_TYPE_F16, sl_shape_of_3(2, SL_DIM_POSITIONS, 4));
    const sl_op_attributes heads = {.n_kv_heads = 2, .head_dim = 4, .value_dim = 4};
    sl_graph_op(&graph, SL_OP_KV_STORE, (const sl_value[]){k, k, positions, keys, values}, 5, &heads, NULL);
    assert_int_equal(graph.n_ops, 1);
    sl_interval intervals[MAX_VALUES];
    assert_int_equal(sl_graph_lifetimes(&graph, intervals), 0);
}

static void disjoint_intervals_share_a_colour(void **state)
{
    (void)state;
    const sl_interval intervals[] = {{10, 0, 1}, {11, 2, 3}};
    uint32_t colours[2];
    assert_int_equal(count_colours(intervals, 2, colours), 1);
    assert_int_equal(colours[0], 0);
    assert_int_equal(colours[1], 0);
}

static void overlapping_intervals_do_not(void **state)
{
    (void)state;
    const sl_interval intervals[] = {{10, 0, 2}, {11, 1, 3}};
    uint32_t colours[2];
    assert_int_equal(count_colours(intervals, 2, colours), 2);
    assert_int_not_equal(colours[0], colours[1]);
}

static void a_reader_and_a_writer_at_one_operation_do_not_share(void **state)
{
    (void)state;
    const sl_interval intervals[] = {{10, 0, 1}, {11, 1, 2}};
    uint32_t colours[2];
    assert_int_equal(count_colours(intervals, 2, colours), 2);
}

/* Numbers from a fixed seed. */
static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

enum { N_RANDOM = 60, N_OPS = 40 };

static void draw_intervals(uint64_t *seed, sl_interval *intervals)
{
    for (uint32_t i = 0; i < N_RANDOM; i++) {
        uint32_t first = next_random(seed) % N_OPS;
        intervals[i] = (sl_interval){i, first, first + next_random(seed) % (N_OPS - first)};
    }
}

static void colours_are_valid_and_as_few_as_the_deepest_overlap(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 200; round++) {
        sl_interval intervals[N_RANDOM];
        uint32_t colours[N_RANDOM];
        draw_intervals(&seed, intervals);
        uint32_t n_colours = count_colours(intervals, N_RANDOM, colours);
        uint32_t deepest = 0;
        for (uint32_t op = 0; op < N_OPS; op++) {
            uint32_t depth = 0;
            for (uint32_t i = 0; i < N_RANDOM; i++) {
                depth += intervals[i].first_write <= op && op <= intervals[i].last_read;
            }
            deepest = depth > deepest ? depth : deepest;
        }
        assert_int_equal(n_colours, deepest);
        for (uint32_t i = 0; i < N_RANDOM; i++) {
            assert_true(colours[i] < n_colours);
            for (uint32_t j = 0; j < i; j++) {
                bool together = intervals[i].first_write <= intervals[j].last_read &&
                                intervals[j].first_write <= intervals[i].last_read;
                assert_false(together && colours[i] == colours[j]);
            }
        }
    }
}

static void the_order_of_the_list_does_not_change_the_colours(void **state)
{
    (void)state;
    uint64_t seed = 2;
    sl_interval intervals[N_RANDOM];
    sl_interval shuffled[N_RANDOM];
    uint32_t colours[N_RANDOM];
    uint32_t shuffled_colours[N_RANDOM];
    draw_intervals(&seed, intervals);
    for (uint32_t i = 0; i < N_RANDOM; i++) {
        shuffled[i] = intervals[i];
    }
    for (uint32_t i = N_RANDOM - 1; i > 0; i--) {
        uint32_t j = next_random(&seed) % (i + 1);
        sl_interval swapped = shuffled[i];
        shuffled[i] = shuffled[j];
        shuffled[j] = swapped;
    }
    assert_int_equal(count_colours(intervals, N_RANDOM, colours), count_colours(shuffled, N_RANDOM, shuffled_colours));
    for (uint32_t i = 0; i < N_RANDOM; i++) {
        /* Drawn so that value i stands at position i. */
        assert_int_equal(shuffled_colours[i], colours[shuffled[i].value]);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, nothing_leaked)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_graph_has_no_intervals_and_no_colours),
        TEST(values_from_outside_have_no_interval),
        TEST(a_chain_needs_two_colours),
        TEST(a_long_ping_pong_needs_two_colours),
        TEST(an_in_place_operation_on_an_unwritten_buffer_is_a_point),
        TEST(in_place_operations_extend_the_life_of_their_value),
        TEST(outputs_live_to_the_last_operation),
        TEST(states_have_no_interval),
        TEST(disjoint_intervals_share_a_colour),
        TEST(overlapping_intervals_do_not),
        TEST(a_reader_and_a_writer_at_one_operation_do_not_share),
        TEST(colours_are_valid_and_as_few_as_the_deepest_overlap),
        TEST(the_order_of_the_list_does_not_change_the_colours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
