/* Building and checking graphs: what fits, and one refusal for each rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <math.h>
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

static void expect_refusal(const char *part)
{
    sluice_error error = {0};
    assert_int_equal(sl_graph_verify(&graph, &error), SLUICE_ERROR_ARGUMENT);
    if (strstr(error.message, part) == NULL) {
        fail_msg("expected \"%s\" in: %s", part, error.message);
    }
}

static void expect_success(void)
{
    sluice_error error = {0};
    if (sl_graph_verify(&graph, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
}

/* Values that the tests below share. */
typedef struct shelf {
    sl_value x8, x4, x1, x6;   /* F32 [R][n] */
    sl_value rows, pairs;      /* I32 [R], [R][2] */
    sl_value m48, m88, v8, v4; /* weights [4][8], [8][8] and vectors */
    sl_value keys, values;     /* states [2][P][4] */
    sl_value wide_keys;        /* state [2][P][8] */
    sl_value half_values;      /* state [2][P][4], F16 */
} shelf;

static shelf fill_shelf(void)
{
    const sl_shape cache = sl_shape_of_3(2, SL_DIM_POSITIONS, 4);
    return (shelf){
        .x8 = sl_graph_input(&graph, "x8", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 8)),
        .x4 = sl_graph_input(&graph, "x4", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 4)),
        .x1 = sl_graph_input(&graph, "x1", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 1)),
        .x6 = sl_graph_input(&graph, "x6", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 6)),
        .rows = sl_graph_input(&graph, "rows", SL_TYPE_I32, sl_shape_of_1(SL_DIM_ROWS)),
        .pairs = sl_graph_input(&graph, "pairs", SL_TYPE_I32, sl_shape_of_2(SL_DIM_ROWS, 2)),
        .m48 = sl_graph_weight(&graph, "m48", SL_TYPE_F16, sl_shape_of_2(4, 8)),
        .m88 = sl_graph_weight(&graph, "m88", SL_TYPE_F16, sl_shape_of_2(8, 8)),
        .v8 = sl_graph_weight(&graph, "v8", SL_TYPE_F32, sl_shape_of_1(8)),
        .v4 = sl_graph_weight(&graph, "v4", SL_TYPE_F32, sl_shape_of_1(4)),
        .keys = sl_graph_state(&graph, "keys", SL_TYPE_F32, cache),
        .values = sl_graph_state(&graph, "values", SL_TYPE_F32, cache),
        .wide_keys = sl_graph_state(&graph, "wide_keys", SL_TYPE_F32, sl_shape_of_3(2, SL_DIM_POSITIONS, 8)),
        .half_values = sl_graph_state(&graph, "half_values", SL_TYPE_F16, cache),
    };
}

static void the_fixture_verifies(void **state)
{
    (void)state;
    fixture_build_body(&graph, SL_TYPE_Q4_K);
    expect_success();
}

static void an_empty_graph_verifies(void **state)
{
    (void)state;
    expect_success();
}

static void shapes_are_inferred(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    sl_value product = sl_graph_op(&graph, SL_OP_MATMUL, (const sl_value[]){s.x8, s.m48}, 2, NULL, NULL);
    assert_int_equal(graph.values[product.index].shape.dims[0], SL_DIM_ROWS);
    assert_int_equal(graph.values[product.index].shape.dims[1], 4);
    assert_int_equal(graph.ops[0].n_inputs, 3);
    assert_false(sl_value_exists(graph.ops[0].inputs[2]));
    const sl_op_attributes route = {.n_experts = 8, .n_used = 2};
    sl_value outputs[SL_OP_MAX_OUTPUTS];
    sl_graph_op(&graph, SL_OP_ROUTE, &s.x8, 1, &route, outputs);
    assert_int_equal(graph.values[outputs[0].index].type, SL_TYPE_I32);
    assert_int_equal(graph.values[outputs[0].index].shape.dims[1], 2);
    assert_int_equal(graph.values[outputs[1].index].type, SL_TYPE_F32);
    const sl_op_attributes heads = {.n_heads = 4, .n_kv_heads = 2, .head_dim = 4, .value_dim = 4, .scale = 0.5f};
    sl_value q = sl_graph_input(&graph, "q", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 16));
    sl_value attended =
        sl_graph_op(&graph, SL_OP_ATTENTION, (const sl_value[]){q, s.rows, s.keys, s.values}, 4, &heads, NULL);
    assert_int_equal(graph.values[attended.index].shape.dims[1], 16);
    expect_success();
}

static void in_place_kinds_return_their_input(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    sl_value x = sl_graph_op(&graph, SL_OP_SILU, &s.x8, 1, NULL, NULL);
    const sl_op_attributes heads = {.n_kv_heads = 2, .head_dim = 4, .value_dim = 4};
    sl_value outputs[SL_OP_MAX_OUTPUTS];
    sl_value y = sl_graph_op(&graph, SL_OP_NORM_HEADS, (const sl_value[]){x, s.v4}, 2, &heads, NULL);
    sl_graph_op(&graph, SL_OP_KV_STORE, (const sl_value[]){x, x, s.rows, s.keys, s.values}, 5, &heads, outputs);
    assert_int_equal(y.index, x.index);
    assert_int_equal(outputs[0].index, s.keys.index);
    assert_int_equal(outputs[1].index, s.values.index);
    expect_success();
}

/* One operation that does not fit, and what the sentence must name. */
typedef struct misfit {
    sl_op_kind kind;
    uint32_t n_inputs;
    sl_value inputs[SL_OP_MAX_INPUTS];
    sl_op_attributes attributes;
    const char *part;
} misfit;

static void expect_misfits(const misfit *misfits, size_t n_misfits)
{
    for (size_t i = 0; i < n_misfits; i++) {
        const misfit *m = &misfits[i];
        sl_value result = sl_graph_op(&graph, m->kind, m->inputs, m->n_inputs, &m->attributes, NULL);
        assert_false(sl_value_exists(result));
        expect_refusal(m->part);
        assert_int_equal(graph.n_ops, 0);
        graph.error = (sluice_error){0};
    }
}

static void sums_products_and_norms_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    const sl_value no = SL_NO_VALUE;
    const sl_value beyond = {9999};
    const sl_op_attributes plain = {.limit = 0.0f};
    const misfit misfits[] = {
        {SL_OP_EMBED, 2, {s.x8, s.m48}, plain, "expected I32 [rows]"},
        {SL_OP_EMBED, 2, {s.rows, s.v8}, plain, "expected a weight [out][in]"},
        {SL_OP_MATMUL, 2, {s.x4, s.m48}, plain, "expected a weight [out][4]"},
        {SL_OP_MATMUL, 2, {s.x8, s.x8}, plain, "expected a weight [out][8]"},
        {SL_OP_MATMUL, 2, {s.rows, s.m48}, plain, "expected F32 [rows][n]"},
        {SL_OP_MATMUL, 3, {s.x8, s.m48, s.v8}, plain, "expected a weight F32 [4]"},
        {SL_OP_MATMUL, 1, {s.x8}, plain, "input 1 is missing"},
        {SL_OP_MATMUL, 4, {s.x8, s.m48, s.v4, s.v4}, plain, "4 inputs: expected 3"},
        {SL_OP_MATMUL, 2, {s.x8, beyond}, plain, "names value 9999"},
        {SL_OP_RMS_NORM, 2, {s.x8, s.v4}, plain, "expected a weight F32 [8]"},
        {SL_OP_RMS_NORM, 2, {s.x8, s.m48}, plain, "expected a weight F32 [8]"},
        {SL_OP_NORM_HEADS, 2, {s.x8, s.v4}, {.head_dim = 3}, "whole number of groups"},
        {SL_OP_NORM_HEADS, 2, {s.x8, s.v4}, {.head_dim = 0}, "whole number of groups"},
        {SL_OP_NORM_HEADS, 2, {s.x8, s.v8}, {.head_dim = 4}, "expected a weight F32 [4]"},
        {SL_OP_ADD, 2, {s.x8, s.x4}, plain, "expected F32 [rows][8]"},
        {SL_OP_ADD, 2, {s.x8, s.v4}, plain, "expected a weight F32 [8]"},
        {SL_OP_ADD, 2, {s.v8, s.x8}, plain, "expected F32 [rows][n]"},
        {SL_OP_MULTIPLY, 2, {s.x8, s.x4}, plain, "expected F32 [rows][8]"},
        {SL_OP_MULTIPLY, 2, {s.x8, s.v8}, plain, "expected F32 [rows][8]"},
        {SL_OP_CLAMP, 1, {s.x8}, {.limit = 0.0f}, "limit must be above 0"},
        {SL_OP_CLAMP, 1, {s.x8}, {.limit = NAN}, "limit must be above 0"},
        {SL_OP_SILU, 1, {s.rows}, plain, "expected F32 [rows][n]"},
        {SL_OP_GELU, 1, {s.v8}, plain, "expected F32 [rows][n]"},
        {SL_OP_SOFTMAX, 1, {s.m88}, plain, "expected F32 [rows][n]"},
        {SL_OP_SIGMOID_SCALE, 2, {s.x8, s.x4}, plain, "expected F32 [rows][1]"},
        {SL_OP_SWIGLU, 2, {s.x8, s.x4}, plain, "expected F32 [rows][8]"},
        {SL_OP_ADD_RMS_NORM, 3, {s.x8, s.x8, s.v4}, plain, "expected a weight F32 [8]"},
        {SL_OP_MATMUL_SWIGLU, 3, {s.x8, s.m48, s.m88}, plain, "same number of rows"},
        {SL_OP_QUANTIZE, 1, {s.x8}, plain, "made by lowering only"},
        {(sl_op_kind)99, 1, {s.x8}, plain, "kind 99 is unknown"},
        {SL_OP_ADD, 2, {s.x8, no}, plain, "input 1 is missing"},
    };
    expect_misfits(misfits, sizeof misfits / sizeof misfits[0]);
}

static void attention_and_routing_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    const sl_op_attributes plain = {.limit = 0.0f};
    const sl_op_attributes kv = {.n_heads = 2, .n_kv_heads = 2, .head_dim = 4, .value_dim = 4};
    const sl_op_attributes odd_heads = {.n_heads = 3, .n_kv_heads = 2, .head_dim = 4, .value_dim = 4};
    const sl_op_attributes route = {.n_experts = 8, .n_used = 2};
    const sl_op_attributes experts = {.n_experts = 8, .n_used = 2, .n_ff = 4};
    const sl_op_attributes rope = {.n_heads = 2, .head_dim = 4, .n_rot = 4, .rope_base = 1e4f, .rope_scale = 1.0f};
    const misfit misfits[] = {
        {SL_OP_ROPE_TABLE, 1, {s.x8}, rope, "expected I32 [rows]"},
        {SL_OP_ROPE_TABLE, 1, {s.rows}, {.n_rot = 3, .rope_base = 1.0f, .rope_scale = 1.0f}, "n_rot must be even"},
        {SL_OP_ROPE_TABLE, 1, {s.rows}, {.n_rot = 4, .rope_scale = 1.0f}, "rope_base and rope_scale"},
        {SL_OP_ROPE_TABLE, 2, {s.rows, s.v4}, rope, "expected a weight F32 [2]"},
        {SL_OP_ROPE, 2, {s.x4, s.x4}, rope, "expected F32 [rows][8]"},
        {SL_OP_ROPE, 2, {s.x8, s.x8}, rope, "expected F32 [rows][4]"},
        {SL_OP_ROPE, 2, {s.x8, s.x6}, {.n_heads = 2, .head_dim = 4, .n_rot = 6}, "at most head_dim"},
        {SL_OP_KV_STORE, 5, {s.x4, s.x8, s.rows, s.keys, s.values}, kv, "expected F32 [rows][8]"},
        {SL_OP_KV_STORE, 5, {s.x8, s.x8, s.pairs, s.keys, s.values}, kv, "expected I32 [rows]"},
        {SL_OP_KV_STORE, 5, {s.x8, s.x8, s.rows, s.wide_keys, s.values}, kv, "a state [2][positions][4]"},
        {SL_OP_KV_STORE, 5, {s.x8, s.x8, s.rows, s.x8, s.values}, kv, "a state [2][positions][4]"},
        {SL_OP_KV_STORE, 5, {s.x8, s.x8, s.rows, s.keys, s.keys}, kv, "two states of one type"},
        {SL_OP_KV_STORE, 5, {s.x8, s.x8, s.rows, s.keys, s.half_values}, kv, "two states of one type"},
        {SL_OP_KV_STORE, 5, {s.x8, s.x8, s.rows, s.keys, s.values}, plain, "must be above 0"},
        {SL_OP_ATTENTION, 4, {s.x4, s.rows, s.keys, s.values}, kv, "expected F32 [rows][8]"},
        {SL_OP_ATTENTION, 4, {s.x8, s.rows, s.keys, s.values}, odd_heads, "multiple of n_kv_heads"},
        {SL_OP_ATTENTION, 4, {s.x8, s.rows, s.keys, s.half_values}, kv, "must have one type"},
        {SL_OP_ROUTE, 1, {s.x4}, route, "expected F32 [rows][8]"},
        {SL_OP_ROUTE, 1, {s.x8}, {.n_experts = 8, .n_used = 9}, "between 1 and n_experts"},
        {SL_OP_ROUTE, 1, {s.x8}, {.n_experts = 8, .n_used = 0}, "between 1 and n_experts"},
        {SL_OP_ROUTE, 1, {s.x8}, {.n_experts = 8, .n_used = 2, .gating = (sl_gating)77}, "gating function"},
        {SL_OP_PREDICT, 1, {s.x4}, route, "expected F32 [rows][8]"},
        {SL_OP_PREDICT, 1, {s.x8}, {.n_experts = 8, .n_used = 9}, "between 1 and n_experts"},
        {SL_OP_EXPERTS, 3, {s.x8, s.rows, s.x4}, experts, "expected I32 [rows][2]"},
        {SL_OP_EXPERTS, 3, {s.x8, s.pairs, s.x4}, experts, "expected F32 [rows][2]"},
    };
    expect_misfits(misfits, sizeof misfits / sizeof misfits[0]);
}

static void experts_need_readable_types_and_a_width(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    sl_value weights = sl_graph_input(&graph, "w", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 2));
    const sl_value inputs[] = {s.x8, s.pairs, weights};
    sl_op_attributes experts = {.n_experts = 8, .n_used = 2, .n_ff = 0};
    sl_graph_op(&graph, SL_OP_EXPERTS, inputs, 3, &experts, NULL);
    expect_refusal("n_ff must be above 0");
    graph.error = (sluice_error){0};
    experts.n_ff = 4;
    experts.up_type = SL_TYPE_Q8_1;
    sl_graph_op(&graph, SL_OP_EXPERTS, inputs, 3, &experts, NULL);
    expect_refusal("cannot decode");
    graph.error = (sluice_error){0};
    experts.up_type = SL_TYPE_F32;
    sl_graph_op(&graph, SL_OP_EXPERTS, inputs, 3, &experts, NULL);
    expect_success();
}

static void the_two_matrices_of_a_fused_product_share_an_activation_form(void **state)
{
    (void)state;
    sl_value x = sl_graph_input(&graph, "x", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 256));
    sl_value gate = fixture_matrix(&graph, "gate", SL_TYPE_Q4_K, 8, 256).value;
    sl_value up = fixture_matrix(&graph, "up", SL_TYPE_Q8_0, 8, 256).value;
    sl_graph_op(&graph, SL_OP_MATMUL_SWIGLU, (const sl_value[]){x, gate, up}, 3, NULL, NULL);
    expect_refusal("different activation forms");
}

static void values_from_outside_need_possible_shapes(void **state)
{
    (void)state;
    const struct {
        sl_value (*declare)(sl_graph *, const char *, sl_type, sl_shape);
        sl_type type;
        sl_shape shape;
    } impossible[] = {
        {sl_graph_input, SL_TYPE_F32, {.n_dims = 0}},
        {sl_graph_input, SL_TYPE_F32, {.n_dims = 5, .dims = {SL_DIM_ROWS, 1, 1, 1}}},
        {sl_graph_input, SL_TYPE_F32, sl_shape_of_2(4, 8)},
        {sl_graph_input, SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 0)},
        {sl_graph_input, SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, SL_DIM_ROWS)},
        {sl_graph_input, SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, SL_DIM_POSITIONS)},
        {sl_graph_input, SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, SL_DIM_MAX + 1)},
        {sl_graph_input, SL_TYPE_F16, sl_shape_of_2(SL_DIM_ROWS, 8)},
        {sl_graph_weight, SL_TYPE_F32, sl_shape_of_1(SL_DIM_ROWS)},
        {sl_graph_weight, SL_TYPE_F32, sl_shape_of_2(4, SL_DIM_POSITIONS)},
        {sl_graph_weight, SL_TYPE_Q8_1, sl_shape_of_2(4, 256)},
        {sl_graph_weight, (sl_type)-1, sl_shape_of_2(4, 256)},
        {sl_graph_state, SL_TYPE_F32, sl_shape_of_3(SL_DIM_POSITIONS, 2, 4)},
        {sl_graph_state, SL_TYPE_F32, sl_shape_of_3(2, SL_DIM_POSITIONS, SL_DIM_POSITIONS)},
        {sl_graph_state, SL_TYPE_Q4_0, sl_shape_of_3(2, SL_DIM_POSITIONS, 32)},
    };
    for (size_t i = 0; i < sizeof impossible / sizeof impossible[0]; i++) {
        assert_false(sl_value_exists(impossible[i].declare(&graph, "it", impossible[i].type, impossible[i].shape)));
        expect_refusal("'it'");
        graph.error = (sluice_error){0};
    }
}

static void names_must_be_there_and_fit(void **state)
{
    (void)state;
    char name[SL_GRAPH_NAME_BYTES + 1];
    memset(name, 'n', sizeof name);
    name[SL_GRAPH_NAME_BYTES] = '\0';
    sl_graph_weight(&graph, name, SL_TYPE_F32, sl_shape_of_1(4));
    expect_refusal("1 to 63");
    graph.error = (sluice_error){0};
    sl_graph_weight(&graph, "", SL_TYPE_F32, sl_shape_of_1(4));
    expect_refusal("1 to 63");
    graph.error = (sluice_error){0};
    name[SL_GRAPH_NAME_BYTES - 1] = '\0';
    sl_graph_weight(&graph, name, SL_TYPE_F32, sl_shape_of_1(4));
    expect_success();
}

static void two_values_from_outside_cannot_have_one_name(void **state)
{
    (void)state;
    sl_graph_weight(&graph, "twice", SL_TYPE_F32, sl_shape_of_1(4));
    sl_graph_input(&graph, "twice", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 4));
    expect_refusal("two values named 'twice'");
}

static void the_first_error_of_building_is_kept(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    sl_value broken = sl_graph_op(&graph, SL_OP_ADD, (const sl_value[]){s.x8, s.x4}, 2, NULL, NULL);
    sl_value outputs[SL_OP_MAX_OUTPUTS];
    sl_graph_op(&graph, SL_OP_RMS_NORM, (const sl_value[]){broken, s.v4}, 2, NULL, outputs);
    assert_false(sl_value_exists(outputs[0]));
    assert_false(sl_value_exists(sl_graph_weight(&graph, "", SL_TYPE_F32, sl_shape_of_1(4))));
    sl_graph_mark_output(&graph, s.x8);
    expect_refusal("add: input 1 'x4'");
}

static void only_temporaries_can_be_outputs(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    sl_graph_mark_output(&graph, s.keys);
    expect_refusal("'keys' comes from outside");
    graph.error = (sluice_error){0};
    sl_graph_mark_output(&graph, SL_NO_VALUE);
    expect_refusal("an output names value");
}

/* Below, a graph that was built well is bent by hand, as a faulty pass would. */

static void a_value_read_before_it_is_written_is_refused(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    sl_value a = sl_graph_op(&graph, SL_OP_SILU, &s.x8, 1, NULL, NULL);
    sl_graph_op(&graph, SL_OP_SILU, &a, 1, NULL, NULL);
    sl_op swapped = graph.ops[0];
    graph.ops[0] = graph.ops[1];
    graph.ops[1] = swapped;
    expect_refusal("reads 'silu.0', which nothing before it writes");
}

static void writing_an_input_or_a_weight_is_refused(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    const sl_op_attributes limit = {.limit = 1.0f};
    sl_graph_op(&graph, SL_OP_CLAMP, &s.x8, 1, &limit, NULL);
    expect_refusal("writes 'x8', which comes from outside");
    graph.n_ops = 0;
    sl_graph_op(&graph, SL_OP_SILU, &s.x8, 1, NULL, NULL);
    graph.ops[0].outputs[0] = s.m88;
    expect_refusal("writes 'm88', which comes from outside");
}

static void a_state_written_by_a_kind_that_is_not_in_place_is_refused(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    sl_graph_op(&graph, SL_OP_SILU, &s.x8, 1, NULL, NULL);
    graph.ops[0].outputs[0] = s.keys;
    expect_refusal("writes state 'keys'");
}

static void a_second_write_is_refused(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    sl_graph_op(&graph, SL_OP_SILU, &s.x8, 1, NULL, NULL);
    sl_graph_op(&graph, SL_OP_GELU, &s.x8, 1, NULL, NULL);
    graph.ops[1].outputs[0] = graph.ops[0].outputs[0];
    expect_refusal("writes 'silu.0' again");
}

static void an_in_place_kind_whose_output_is_not_its_input_is_refused(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    const sl_op_attributes limit = {.limit = 1.0f};
    sl_value a = sl_graph_op(&graph, SL_OP_SILU, &s.x8, 1, NULL, NULL);
    sl_value b = sl_graph_op(&graph, SL_OP_SILU, &s.x8, 1, NULL, NULL);
    sl_graph_op(&graph, SL_OP_CLAMP, &a, 1, &limit, NULL);
    graph.ops[2].outputs[0] = b;
    expect_refusal("its output must be its input");
}

static void an_output_that_nothing_writes_is_refused(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    sl_graph_mark_output(&graph, sl_graph_op(&graph, SL_OP_SILU, &s.x8, 1, NULL, NULL));
    graph.n_ops = 0;
    expect_refusal("output 'silu.0' is written by no operation");
}

static void an_output_of_another_shape_is_refused(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    sl_value a = sl_graph_op(&graph, SL_OP_SILU, &s.x8, 1, NULL, NULL);
    graph.values[a.index].shape.dims[1] = 4;
    expect_refusal("has type 0 and shape [rows][4]: expected 0 and [rows][8]");
}

static void a_missing_output_is_refused(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    sl_graph_op(&graph, SL_OP_SILU, &s.x8, 1, NULL, NULL);
    graph.ops[0].outputs[0] = SL_NO_VALUE;
    expect_refusal("output 0 is missing");
    graph.ops[0].n_outputs = 0;
    expect_refusal("has 0 outputs: expected 1");
}

static void inputs_that_no_longer_fit_are_refused(void **state)
{
    (void)state;
    shelf s = fill_shelf();
    sl_graph_op(&graph, SL_OP_RMS_NORM, (const sl_value[]){s.x8, s.v8}, 2, NULL, NULL);
    graph.ops[0].inputs[1] = s.v4;
    expect_refusal("expected a weight F32 [8]");
}

static void every_failed_allocation_of_verifying_is_reported(void **state)
{
    (void)state;
    for (uint64_t n = 0;; n++) {
        sl_memory scarce;
        failing_source source;
        failing_memory_init(&scarce, &source, n);
        sl_graph built;
        sl_graph_init(&built, &scarce);
        fixture_build_body(&built, SL_TYPE_F32);
        sluice_error error = {0};
        sluice_status status = sl_graph_verify(&built, &error);
        sl_graph_fini(&built);
        assert_int_equal(scarce.n_live, 0);
        if (status == SLUICE_OK) {
            assert_true(n > 3);
            return;
        }
        assert_int_equal(status, SLUICE_ERROR_NO_MEMORY);
        assert_int_equal(error.status, SLUICE_ERROR_NO_MEMORY);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, nothing_leaked)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_fixture_verifies),
        TEST(an_empty_graph_verifies),
        TEST(shapes_are_inferred),
        TEST(in_place_kinds_return_their_input),
        TEST(sums_products_and_norms_that_do_not_fit_are_refused),
        TEST(attention_and_routing_that_do_not_fit_are_refused),
        TEST(experts_need_readable_types_and_a_width),
        TEST(the_two_matrices_of_a_fused_product_share_an_activation_form),
        TEST(values_from_outside_need_possible_shapes),
        TEST(names_must_be_there_and_fit),
        TEST(two_values_from_outside_cannot_have_one_name),
        TEST(the_first_error_of_building_is_kept),
        TEST(only_temporaries_can_be_outputs),
        TEST(a_value_read_before_it_is_written_is_refused),
        TEST(writing_an_input_or_a_weight_is_refused),
        TEST(a_state_written_by_a_kind_that_is_not_in_place_is_refused),
        TEST(a_second_write_is_refused),
        TEST(an_in_place_kind_whose_output_is_not_its_input_is_refused),
        TEST(an_output_that_nothing_writes_is_refused),
        TEST(an_output_of_another_shape_is_refused),
        TEST(a_missing_output_is_refused),
        TEST(inputs_that_no_longer_fit_are_refused),
        TEST(every_failed_allocation_of_verifying_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
