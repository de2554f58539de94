/* Fusion: what is fused, what must not be, and dropping dead operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <string.h>

#include "../support/failing_memory.h"
#include "graph_fixture.h"

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

static sl_value input(const char *name)
{
    return sl_graph_input(&graph, name, SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 8));
}

static sl_value matrix(const char *name)
{
    return fixture_matrix(&graph, name, SL_TYPE_F32, 8, 8).value;
}

static sl_value vector(const char *name)
{
    return fixture_vector(&graph, name, 8).value;
}

static sl_value op1(sl_op_kind kind, sl_value a)
{
    return sl_graph_op(&graph, kind, &a, 1, NULL, NULL);
}

static sl_value op2(sl_op_kind kind, sl_value a, sl_value b)
{
    const sl_op_attributes attributes = {.epsilon = 0.5f};
    return sl_graph_op(&graph, kind, (const sl_value[]){a, b}, 2, &attributes, NULL);
}

static void clamp(sl_value a)
{
    const sl_op_attributes limit = {.limit = 1.0f};
    sl_graph_op(&graph, SL_OP_CLAMP, &a, 1, &limit, NULL);
}

/* Fuse, verify, and compare the kinds that are left. */
static void expect_kinds(const sl_op_kind *kinds, uint32_t n_kinds)
{
    sluice_error error = {0};
    if (sl_graph_fuse(&graph, &error) != SLUICE_OK || sl_graph_verify(&graph, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    for (uint32_t i = 0; i < graph.n_ops && i < n_kinds; i++) {
        assert_string_equal(sl_op_name(graph.ops[i].kind), sl_op_name(kinds[i]));
    }
    assert_int_equal(graph.n_ops, n_kinds);
}

#define EXPECT_KINDS(...)                                                                                              \
    expect_kinds((const sl_op_kind[]){__VA_ARGS__}, sizeof((const sl_op_kind[]){__VA_ARGS__}) / sizeof(sl_op_kind))

static void silu_times_up_becomes_swiglu(void **state)
{
    (void)state;
    sl_value gate = input("gate");
    sl_value up = input("up");
    sl_value product = op2(SL_OP_MULTIPLY, op1(SL_OP_SILU, gate), up);
    sl_graph_mark_output(&graph, product);
    EXPECT_KINDS(SL_OP_SWIGLU);
    assert_int_equal(graph.ops[0].inputs[0].index, gate.index);
    assert_int_equal(graph.ops[0].inputs[1].index, up.index);
    assert_int_equal(graph.ops[0].outputs[0].index, product.index);
}

static void up_times_silu_becomes_swiglu_with_the_gate_first(void **state)
{
    (void)state;
    sl_value gate = input("gate");
    sl_value up = input("up");
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, up, op1(SL_OP_SILU, gate)));
    EXPECT_KINDS(SL_OP_SWIGLU);
    assert_int_equal(graph.ops[0].inputs[0].index, gate.index);
    assert_int_equal(graph.ops[0].inputs[1].index, up.index);
}

static void a_silu_that_is_used_elsewhere_stays(void **state)
{
    (void)state;
    sl_value silu = op1(SL_OP_SILU, input("gate"));
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, silu, input("up")));
    sl_graph_mark_output(&graph, op1(SL_OP_GELU, silu));
    EXPECT_KINDS(SL_OP_SILU, SL_OP_MULTIPLY, SL_OP_GELU);
}

static void the_square_of_a_silu_stays(void **state)
{
    (void)state;
    sl_value silu = op1(SL_OP_SILU, input("gate"));
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, silu, silu));
    EXPECT_KINDS(SL_OP_SILU, SL_OP_MULTIPLY);
}

static void a_silu_that_is_an_output_stays(void **state)
{
    (void)state;
    sl_value silu = op1(SL_OP_SILU, input("gate"));
    sl_graph_mark_output(&graph, silu);
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, silu, input("up")));
    EXPECT_KINDS(SL_OP_SILU, SL_OP_MULTIPLY);
}

static void a_silu_that_is_rewritten_stays(void **state)
{
    (void)state;
    sl_value silu = op1(SL_OP_SILU, input("gate"));
    clamp(silu);
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, silu, input("up")));
    EXPECT_KINDS(SL_OP_SILU, SL_OP_CLAMP, SL_OP_MULTIPLY);
}

static void a_silu_whose_input_is_rewritten_before_the_product_stays(void **state)
{
    (void)state;
    sl_value gate = op1(SL_OP_GELU, input("x"));
    sl_value silu = op1(SL_OP_SILU, gate);
    clamp(gate);
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, silu, gate));
    EXPECT_KINDS(SL_OP_GELU, SL_OP_SILU, SL_OP_CLAMP, SL_OP_MULTIPLY);
}

static void two_products_of_one_input_under_swiglu_become_one_operation(void **state)
{
    (void)state;
    sl_value x = input("x");
    sl_value gate = matrix("gate");
    sl_value up = matrix("up");
    sl_value a = op2(SL_OP_MATMUL, x, gate);
    sl_value b = op2(SL_OP_MATMUL, x, up);
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, op1(SL_OP_SILU, a), b));
    EXPECT_KINDS(SL_OP_MATMUL_SWIGLU);
    assert_int_equal(graph.ops[0].n_inputs, 3);
    assert_int_equal(graph.ops[0].inputs[0].index, x.index);
    assert_int_equal(graph.ops[0].inputs[1].index, gate.index);
    assert_int_equal(graph.ops[0].inputs[2].index, up.index);
}

static void products_of_different_inputs_stay_apart(void **state)
{
    (void)state;
    sl_value a = op2(SL_OP_MATMUL, input("x"), matrix("gate"));
    sl_value b = op2(SL_OP_MATMUL, input("y"), matrix("up"));
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, op1(SL_OP_SILU, a), b));
    EXPECT_KINDS(SL_OP_MATMUL, SL_OP_MATMUL, SL_OP_SWIGLU);
}

static void a_product_that_is_used_elsewhere_is_not_fused_into_swiglu(void **state)
{
    (void)state;
    sl_value x = input("x");
    sl_value a = op2(SL_OP_MATMUL, x, matrix("gate"));
    sl_value b = op2(SL_OP_MATMUL, x, matrix("up"));
    sl_graph_mark_output(&graph, b);
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, op1(SL_OP_SILU, a), b));
    EXPECT_KINDS(SL_OP_MATMUL, SL_OP_MATMUL, SL_OP_SWIGLU);
}

static void products_with_bias_are_not_fused_into_swiglu(void **state)
{
    (void)state;
    sl_value x = input("x");
    sl_value a = op2(SL_OP_MATMUL, x, matrix("gate"));
    sl_value b = sl_graph_op(&graph, SL_OP_MATMUL, (const sl_value[]){x, matrix("up"), vector("bias")}, 3, NULL, NULL);
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, op1(SL_OP_SILU, a), b));
    EXPECT_KINDS(SL_OP_MATMUL, SL_OP_MATMUL, SL_OP_SWIGLU);
}

static void products_in_different_activation_forms_are_not_fused_into_swiglu(void **state)
{
    (void)state;
    sl_value x = sl_graph_input(&graph, "x", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 256));
    sl_value a = op2(SL_OP_MATMUL, x, fixture_matrix(&graph, "gate", SL_TYPE_Q4_K, 8, 256).value);
    sl_value b = op2(SL_OP_MATMUL, x, fixture_matrix(&graph, "up", SL_TYPE_Q8_0, 8, 256).value);
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, op1(SL_OP_SILU, a), b));
    EXPECT_KINDS(SL_OP_MATMUL, SL_OP_MATMUL, SL_OP_SWIGLU);
}

static void products_whose_input_is_rewritten_in_between_are_not_fused_into_swiglu(void **state)
{
    (void)state;
    sl_value x = op1(SL_OP_GELU, input("x"));
    sl_value a = op2(SL_OP_MATMUL, x, matrix("gate"));
    clamp(x);
    sl_value b = op2(SL_OP_MATMUL, x, matrix("up"));
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, op1(SL_OP_SILU, a), b));
    EXPECT_KINDS(SL_OP_GELU, SL_OP_MATMUL, SL_OP_CLAMP, SL_OP_MATMUL, SL_OP_SWIGLU);
}

static void product_plus_vector_becomes_a_product_with_bias(void **state)
{
    (void)state;
    sl_value bias = vector("bias");
    sl_value sum = op2(SL_OP_ADD, op2(SL_OP_MATMUL, input("x"), matrix("w")), bias);
    sl_graph_mark_output(&graph, sum);
    EXPECT_KINDS(SL_OP_MATMUL);
    assert_int_equal(graph.ops[0].inputs[2].index, bias.index);
    assert_int_equal(graph.ops[0].outputs[0].index, sum.index);
}

static void a_second_vector_is_still_added(void **state)
{
    (void)state;
    sl_value product = op2(SL_OP_MATMUL, input("x"), matrix("w"));
    sl_graph_mark_output(&graph, op2(SL_OP_ADD, op2(SL_OP_ADD, product, vector("a")), vector("b")));
    EXPECT_KINDS(SL_OP_MATMUL, SL_OP_ADD);
}

static void a_product_that_is_an_output_takes_no_bias(void **state)
{
    (void)state;
    sl_value product = op2(SL_OP_MATMUL, input("x"), matrix("w"));
    sl_graph_mark_output(&graph, product);
    sl_graph_mark_output(&graph, op2(SL_OP_ADD, product, vector("bias")));
    EXPECT_KINDS(SL_OP_MATMUL, SL_OP_ADD);
}

static void a_product_that_is_used_elsewhere_takes_no_bias(void **state)
{
    (void)state;
    sl_value product = op2(SL_OP_MATMUL, input("x"), matrix("w"));
    sl_graph_mark_output(&graph, op2(SL_OP_ADD, product, vector("bias")));
    sl_graph_mark_output(&graph, op1(SL_OP_SILU, product));
    EXPECT_KINDS(SL_OP_MATMUL, SL_OP_ADD, SL_OP_SILU);
}

static void add_then_norm_becomes_one_operation_and_the_sum_stays_readable(void **state)
{
    (void)state;
    sl_value sum = op2(SL_OP_ADD, input("x"), input("y"));
    sl_value normed = op2(SL_OP_RMS_NORM, sum, vector("w"));
    sl_graph_mark_output(&graph, op2(SL_OP_MULTIPLY, sum, normed));
    EXPECT_KINDS(SL_OP_ADD_RMS_NORM, SL_OP_MULTIPLY);
    assert_int_equal(graph.ops[0].n_outputs, 2);
    assert_int_equal(graph.ops[0].outputs[0].index, sum.index);
    assert_int_equal(graph.ops[0].outputs[1].index, normed.index);
    assert_true(graph.ops[0].attributes.epsilon == 0.5f);
}

static void only_the_first_norm_of_a_sum_is_fused(void **state)
{
    (void)state;
    sl_value sum = op2(SL_OP_ADD, input("x"), input("y"));
    sl_graph_mark_output(&graph, op2(SL_OP_RMS_NORM, sum, vector("w")));
    sl_graph_mark_output(&graph, op2(SL_OP_RMS_NORM, sum, vector("v")));
    EXPECT_KINDS(SL_OP_ADD_RMS_NORM, SL_OP_RMS_NORM);
}

static void a_sum_that_is_rewritten_before_its_norm_stays_apart(void **state)
{
    (void)state;
    sl_value sum = op2(SL_OP_ADD, input("x"), input("y"));
    clamp(sum);
    sl_graph_mark_output(&graph, op2(SL_OP_RMS_NORM, sum, vector("w")));
    EXPECT_KINDS(SL_OP_ADD, SL_OP_CLAMP, SL_OP_RMS_NORM);
}

static void a_sum_with_a_vector_is_not_fused_with_its_norm(void **state)
{
    (void)state;
    sl_value sum = op2(SL_OP_ADD, input("x"), vector("bias"));
    sl_graph_mark_output(&graph, op2(SL_OP_RMS_NORM, sum, vector("w")));
    EXPECT_KINDS(SL_OP_ADD, SL_OP_RMS_NORM);
}

static uint32_t count_kind(sl_op_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < graph.n_ops; i++) {
        count += graph.ops[i].kind == kind;
    }
    return count;
}

static void a_layer_is_fused_where_it_can_be(void **state)
{
    (void)state;
    fixture_build_body(&graph, SL_TYPE_Q4_K);
    uint32_t n_before = graph.n_ops;
    assert_int_equal(sl_graph_fuse(&graph, NULL), SLUICE_OK);
    assert_int_equal(sl_graph_verify(&graph, NULL), SLUICE_OK);
    assert_int_equal(count_kind(SL_OP_MATMUL_SWIGLU), 1);
    /* The sum after attention and ffn_norm. */
    assert_int_equal(count_kind(SL_OP_ADD_RMS_NORM), 1);
    assert_int_equal(n_before - graph.n_ops, 4);
    uint32_t n_fused = graph.n_ops;
    assert_int_equal(sl_graph_fuse(&graph, NULL), SLUICE_OK);
    assert_int_equal(graph.n_ops, n_fused);
}

static void a_graph_that_does_not_verify_is_not_fused(void **state)
{
    (void)state;
    sl_value x = input("x");
    clamp(x);
    sluice_error error = {0};
    assert_int_equal(sl_graph_fuse(&graph, &error), SLUICE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "comes from outside"));
    assert_int_equal(graph.n_ops, 1);
}

static void operations_that_nobody_reads_are_dropped(void **state)
{
    (void)state;
    sl_value x = input("x");
    sl_value kept = op1(SL_OP_SILU, x);
    sl_value dead = op1(SL_OP_GELU, x);
    op1(SL_OP_SOFTMAX, dead);
    sl_graph_mark_output(&graph, op1(SL_OP_SOFTMAX, kept));
    clamp(dead);
    assert_int_equal(sl_graph_drop_dead(&graph, NULL), SLUICE_OK);
    EXPECT_KINDS(SL_OP_SILU, SL_OP_SOFTMAX);
}

static void a_hint_is_kept_with_what_it_needs(void **state)
{
    (void)state;
    const sl_op_attributes predict = {.n_experts = 8, .n_used = 2};
    sl_value x = input("x");
    sl_value logits = op1(SL_OP_SILU, x);
    sl_graph_op(&graph, SL_OP_PREDICT, &logits, 1, &predict, NULL);
    op1(SL_OP_GELU, logits);
    assert_int_equal(sl_graph_drop_dead(&graph, NULL), SLUICE_OK);
    EXPECT_KINDS(SL_OP_SILU, SL_OP_PREDICT);
    assert_true(sl_op_is_hint(SL_OP_PREDICT) && !sl_op_is_hint(SL_OP_SILU));
}

static void what_a_state_needs_is_kept(void **state)
{
    (void)state;
    sl_value x = input("x");
    sl_value positions = sl_graph_input(&graph, "positions", SL_TYPE_I32, sl_shape_of_1(SL_DIM_ROWS));
    sl_value keys = sl_graph_state(&graph, "keys", SL_TYPE_F32, sl_shape_of_3(2, SL_DIM_POSITIONS, 4));
    sl_value values = sl_graph_state(&graph, "values", SL_TYPE_F32, sl_shape_of_3(2, SL_DIM_POSITIONS, 4));
    const sl_op_attributes heads = {.n_kv_heads = 2, .head_dim = 4, .value_dim = 4};
    sl_graph_op(&graph, SL_OP_KV_STORE, (const sl_value[]){op1(SL_OP_SILU, x), x, positions, keys, values}, 5, &heads,
                NULL);
    assert_int_equal(sl_graph_drop_dead(&graph, NULL), SLUICE_OK);
    EXPECT_KINDS(SL_OP_SILU, SL_OP_KV_STORE);
}

static void an_operation_of_which_one_output_is_read_is_kept(void **state)
{
    (void)state;
    const sl_op_attributes route = {.n_experts = 8, .n_used = 2};
    sl_value outputs[SL_OP_MAX_OUTPUTS];
    sl_value x = input("x");
    sl_graph_op(&graph, SL_OP_ROUTE, &x, 1, &route, outputs);
    sl_graph_mark_output(&graph, outputs[1]);
    assert_int_equal(sl_graph_drop_dead(&graph, NULL), SLUICE_OK);
    assert_int_equal(graph.n_ops, 1);
}

static void every_failed_allocation_leaves_the_graph_as_it_was(void **state)
{
    (void)state;
    fixture_build_body(&graph, SL_TYPE_F32);
    const uint32_t n_ops = graph.n_ops;
    for (int pass = 0; pass < 2; pass++) {
        for (uint64_t n = 0;; n++) {
            sl_memory scarce;
            failing_source source;
            failing_memory_init(&scarce, &source, n);
            graph.memory = &scarce;
            sluice_status status = pass == 0 ? sl_graph_drop_dead(&graph, NULL) : sl_graph_fuse(&graph, NULL);
            graph.memory = &memory;
            assert_int_equal(scarce.n_live, 0);
            if (status == SLUICE_OK) {
                assert_true(n >= 2);
                break;
            }
            assert_int_equal(status, SLUICE_ERROR_NO_MEMORY);
            assert_int_equal(graph.n_ops, n_ops);
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, nothing_leaked)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(silu_times_up_becomes_swiglu),
        TEST(up_times_silu_becomes_swiglu_with_the_gate_first),
        TEST(a_silu_that_is_used_elsewhere_stays),
        TEST(the_square_of_a_silu_stays),
        TEST(a_silu_that_is_an_output_stays),
        TEST(a_silu_that_is_rewritten_stays),
        TEST(a_silu_whose_input_is_rewritten_before_the_product_stays),
        TEST(two_products_of_one_input_under_swiglu_become_one_operation),
        TEST(products_of_different_inputs_stay_apart),
        TEST(a_product_that_is_used_elsewhere_is_not_fused_into_swiglu),
        TEST(products_with_bias_are_not_fused_into_swiglu),
        TEST(products_in_different_activation_forms_are_not_fused_into_swiglu),
        TEST(products_whose_input_is_rewritten_in_between_are_not_fused_into_swiglu),
        TEST(product_plus_vector_becomes_a_product_with_bias),
        TEST(a_second_vector_is_still_added),
        TEST(a_product_that_is_an_output_takes_no_bias),
        TEST(a_product_that_is_used_elsewhere_takes_no_bias),
        TEST(add_then_norm_becomes_one_operation_and_the_sum_stays_readable),
        TEST(only_the_first_norm_of_a_sum_is_fused),
        TEST(a_sum_that_is_rewritten_before_its_norm_stays_apart),
        TEST(a_sum_with_a_vector_is_not_fused_with_its_norm),
        TEST(a_layer_is_fused_where_it_can_be),
        TEST(a_graph_that_does_not_verify_is_not_fused),
        TEST(operations_that_nobody_reads_are_dropped),
        TEST(a_hint_is_kept_with_what_it_needs),
        TEST(what_a_state_needs_is_kept),
        TEST(an_operation_of_which_one_output_is_read_is_kept),
        TEST(every_failed_allocation_leaves_the_graph_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
