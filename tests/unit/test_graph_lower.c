/* From graph to program: places, quantised activations, scratch of experts, failures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka.h needs the first four. */
#include <cmocka.h>

#include "../support/failing_memory.h"
#include "graph/program.h"
#include "graph_fixture.h"

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

static sl_program *compiled(const sl_graph *graph, uint64_t rows)
{
    sluice_error error = {0};
    sl_program *program = NULL;
    sluice_status status = sl_program_compile(&program, graph, rows, &memory, &error);
    if (status != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    return program;
}

static uint32_t count_steps(const sl_program *program, sl_op_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < program->n_steps; i++) {
        count += program->steps[i].kind == kind;
    }
    return count;
}

static const sl_step *find_step(const sl_program *program, sl_op_kind kind, uint32_t nth)
{
    for (uint32_t i = 0; i < program->n_steps; i++) {
        if (program->steps[i].kind == kind && nth-- == 0) {
            return &program->steps[i];
        }
    }
    fail_msg("no step %s", sl_op_name(kind));
    return NULL;
}

static void a_value_is_quantised_once_for_all_its_readers(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    fixture_build_body(&graph, SL_TYPE_Q4_K);
    sl_program *program = compiled(&graph, 8);
    /* attn_norm, attended, ffn_norm (experts and shared expert), the shared expert's hidden values */
    assert_int_equal(count_steps(program, SL_OP_QUANTIZE), 4);
    const sl_step *query = find_step(program, SL_OP_MATMUL, 0);
    const sl_step *key = find_step(program, SL_OP_MATMUL, 1);
    assert_int_equal(query->inputs[0].type, SL_TYPE_ACT_Q8_256);
    assert_int_equal(query->inputs[0].offset, key->inputs[0].offset);
    assert_int_equal(query->inputs[0].row_bytes, sl_type_row_bytes(SL_TYPE_ACT_Q8_256, FIXTURE_EMBD));
    sl_program_free(&program);
    sl_graph_fini(&graph);
}

static void float_weights_need_no_quantised_activations(void **state)
{
    (void)state;
    const sl_type types[] = {SL_TYPE_F32, SL_TYPE_F16, SL_TYPE_BF16};
    for (size_t i = 0; i < 3; i++) {
        sl_graph graph;
        sl_graph_init(&graph, &memory);
        fixture_build_body(&graph, types[i]);
        sl_program *program = compiled(&graph, 8);
        assert_int_equal(count_steps(program, SL_OP_QUANTIZE), 0);
        assert_int_equal(find_step(program, SL_OP_EXPERTS, 0)->outputs[SL_EXPERTS_HIDDEN].kind, SL_PLACE_NONE);
        assert_int_equal(find_step(program, SL_OP_EXPERTS, 0)->outputs[SL_EXPERTS_GATHERED].type, SL_TYPE_F32);
        sl_program_free(&program);
        sl_graph_fini(&graph);
    }
}

static void each_activation_form_of_a_value_is_made_once(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    sl_value x = sl_graph_input(&graph, "x", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 256));
    const sl_type types[] = {SL_TYPE_Q8_0, SL_TYPE_Q6_K, SL_TYPE_F16, SL_TYPE_Q4_0, SL_TYPE_Q4_K};
    for (size_t i = 0; i < 5; i++) {
        const char *const names[] = {"a", "b", "c", "d", "e"};
        sl_value inputs[] = {x, fixture_matrix(&graph, names[i], types[i], 32, 256).value};
        sl_graph_mark_output(&graph, sl_graph_op(&graph, SL_OP_MATMUL, inputs, 2, NULL, NULL));
    }
    sl_program *program = compiled(&graph, 1);
    assert_int_equal(count_steps(program, SL_OP_QUANTIZE), 2);
    assert_int_equal(program->n_steps, 7);
    assert_int_equal(program->steps[0].kind, SL_OP_QUANTIZE);
    assert_int_equal(program->steps[0].outputs[0].type, SL_TYPE_ACT_Q8_32);
    assert_int_equal(program->steps[2].kind, SL_OP_QUANTIZE);
    assert_int_equal(program->steps[2].outputs[0].type, SL_TYPE_ACT_Q8_256);
    assert_int_equal(program->steps[2].op, 1);
    assert_int_equal(program->steps[4].inputs[0].kind, SL_PLACE_BINDING);
    sl_program_free(&program);
    sl_graph_fini(&graph);
}

static void a_value_rewritten_in_place_is_quantised_again(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    sl_value x = sl_graph_input(&graph, "x", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 256));
    sl_value a = sl_graph_op(&graph, SL_OP_SILU, &x, 1, NULL, NULL);
    sl_value weight = fixture_matrix(&graph, "w", SL_TYPE_Q8_0, 32, 256).value;
    sl_value first = sl_graph_op(&graph, SL_OP_MATMUL, (const sl_value[]){a, weight}, 2, NULL, NULL);
    const sl_op_attributes limit = {.limit = 1.0f};
    sl_value clamped = sl_graph_op(&graph, SL_OP_CLAMP, &a, 1, &limit, NULL);
    assert_int_equal(clamped.index, a.index);
    sl_value second = sl_graph_op(&graph, SL_OP_MATMUL, (const sl_value[]){clamped, weight}, 2, NULL, NULL);
    sl_graph_mark_output(&graph, first);
    sl_graph_mark_output(&graph, second);
    sl_program *program = compiled(&graph, 4);
    assert_int_equal(count_steps(program, SL_OP_QUANTIZE), 2);
    sl_program_free(&program);
    sl_graph_fini(&graph);
}

static void the_activation_form_of_an_output_lives_no_longer_than_its_readers(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    sl_value x = sl_graph_input(&graph, "x", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 32));
    sl_value output = sl_graph_op(&graph, SL_OP_SILU, &x, 1, NULL, NULL);
    sl_value weight = fixture_matrix(&graph, "w", SL_TYPE_Q8_0, 32, 32).value;
    sl_value product = sl_graph_op(&graph, SL_OP_MATMUL, (const sl_value[]){output, weight}, 2, NULL, NULL);
    sl_graph_mark_output(&graph, output);
    sl_graph_mark_output(&graph, sl_graph_op(&graph, SL_OP_SILU, &product, 1, NULL, NULL));
    sl_program *program = compiled(&graph, 4);
    /* silu, quantize, matmul, silu */
    assert_int_equal(program->n_steps, 4);
    assert_int_equal(program->n_outputs, 2);
    assert_int_equal(program->buffers[0].lifetime.last_read, 3);
    assert_int_equal(program->buffers[1].lifetime.first_write, 1);
    assert_int_equal(program->buffers[1].lifetime.last_read, 2);
    sl_program_free(&program);
    sl_graph_fini(&graph);
}

static void the_scratch_of_experts_holds_all_pairs(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    fixture_build_body(&graph, SL_TYPE_Q4_K);
    sl_program *program = compiled(&graph, 8);
    const sl_step *experts = find_step(program, SL_OP_EXPERTS, 0);
    const sl_place *out = experts->outputs;
    const uint64_t n_pairs = 8 * FIXTURE_USED;
    assert_int_equal(experts->inputs[0].type, SL_TYPE_ACT_Q8_256);
    assert_int_equal(experts->inputs[1].type, SL_TYPE_I32);
    assert_int_equal(out[SL_EXPERTS_OUT].rows, 8);
    assert_int_equal(out[SL_EXPERTS_OUT].width, FIXTURE_EMBD);
    assert_int_equal(out[SL_EXPERTS_GATHERED].rows, n_pairs);
    assert_int_equal(out[SL_EXPERTS_GATHERED].type, SL_TYPE_ACT_Q8_256);
    assert_int_equal(out[SL_EXPERTS_GATE].rows, n_pairs);
    assert_int_equal(out[SL_EXPERTS_GATE].width, FIXTURE_FF);
    assert_int_equal(out[SL_EXPERTS_UP].width, FIXTURE_FF);
    assert_int_equal(out[SL_EXPERTS_HIDDEN].type, SL_TYPE_ACT_Q8_256);
    assert_int_equal(out[SL_EXPERTS_HIDDEN].rows, n_pairs);
    assert_int_equal(out[SL_EXPERTS_PAIR_OUT].rows, n_pairs);
    assert_int_equal(out[SL_EXPERTS_PAIR_OUT].width, FIXTURE_EMBD);
    sl_program_free(&program);
    sl_graph_fini(&graph);
}

static void places_of_bindings_say_how_rows_lie(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    fixture_build_body(&graph, SL_TYPE_Q8_0);
    sl_program *program = compiled(&graph, 8);
    const sl_place *tokens = &program->bindings[sl_program_find_binding(program, "tokens")].place;
    assert_int_equal(tokens->rows, 8);
    assert_int_equal(tokens->width, 1);
    assert_int_equal(tokens->row_bytes, 4);
    const sl_place *matrix = &program->bindings[sl_program_find_binding(program, "attn_k")].place;
    assert_int_equal(matrix->rows, FIXTURE_KV_HEADS * FIXTURE_HEAD_DIM);
    assert_int_equal(matrix->width, FIXTURE_EMBD);
    assert_int_equal(matrix->row_bytes, FIXTURE_EMBD / 32 * 34);
    const sl_place *vector = &program->bindings[sl_program_find_binding(program, "ffn_norm")].place;
    assert_int_equal(vector->rows, 1);
    assert_int_equal(vector->width, FIXTURE_EMBD);
    const sl_place *keys = &program->bindings[sl_program_find_binding(program, "kv.0.key")].place;
    assert_int_equal(keys->type, SL_TYPE_F16);
    assert_int_equal(keys->rows, FIXTURE_KV_HEADS);
    assert_int_equal(keys->width, FIXTURE_HEAD_DIM);
    assert_int_equal(keys->row_bytes, FIXTURE_HEAD_DIM * 2);
    assert_int_equal(sl_program_find_binding(program, "nowhere"), UINT32_MAX);
    for (uint32_t i = 1; i < program->n_bindings; i++) {
        assert_true(program->bindings[i - 1].value.index < program->bindings[i].value.index);
    }
    sl_program_free(&program);
    sl_graph_fini(&graph);
}

static void in_place_operations_keep_their_place_and_absent_inputs_have_none(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    fixture_build_body(&graph, SL_TYPE_F32);
    sl_program *program = compiled(&graph, 8);
    const sl_step *rope = find_step(program, SL_OP_ROPE, 0);
    assert_int_equal(rope->inputs[0].offset, rope->outputs[0].offset);
    const sl_step *store = find_step(program, SL_OP_KV_STORE, 0);
    assert_int_equal(store->outputs[0].kind, SL_PLACE_BINDING);
    assert_int_equal(store->outputs[0].binding, store->inputs[3].binding);
    assert_int_equal(store->outputs[1].binding, store->inputs[4].binding);
    assert_int_equal(find_step(program, SL_OP_MATMUL, 0)->inputs[2].kind, SL_PLACE_BINDING);
    assert_int_equal(find_step(program, SL_OP_MATMUL, 1)->inputs[2].kind, SL_PLACE_NONE);
    assert_int_equal(find_step(program, SL_OP_ROPE_TABLE, 0)->inputs[1].kind, SL_PLACE_NONE);
    sl_program_free(&program);
    sl_graph_fini(&graph);
}

static void the_plan_of_a_program_is_sound_and_the_same_every_time(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    fixture_build_body(&graph, SL_TYPE_Q4_K);
    sl_program *first = compiled(&graph, 256);
    sl_program *second = compiled(&graph, 256);
    sluice_error error;
    assert_int_equal(sl_plan_check(first->buffers, first->n_buffers, first->arena_bytes, &error), SLUICE_OK);
    assert_true(first->arena_bytes < first->unshared_bytes);
    assert_int_equal(first->arena_bytes, second->arena_bytes);
    assert_int_equal(first->n_steps, second->n_steps);
    assert_memory_equal(first->buffers, second->buffers, first->n_buffers * sizeof *first->buffers);
    assert_int_equal(first->n_outputs, 1);
    assert_int_equal(first->outputs[0].kind, SL_PLACE_ARENA);
    assert_int_equal(first->outputs[0].width, FIXTURE_EMBD);
    sl_program_free(&first);
    sl_program_free(&second);
    sl_graph_fini(&graph);
}

static void expect_refusal(const sl_graph *graph, uint64_t rows, sluice_status expected, const char *part)
{
    sluice_error error = {0};
    sl_program *program = NULL;
    assert_int_equal(sl_program_compile(&program, graph, rows, &memory, &error), expected);
    assert_null(program);
    assert_non_null(strstr(error.message, part));
}

static void impossible_row_counts_are_refused(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    fixture_build_body(&graph, SL_TYPE_F32);
    expect_refusal(&graph, 0, SLUICE_ERROR_ARGUMENT, "0 rows");
    expect_refusal(&graph, UINT64_MAX, SLUICE_ERROR_ARGUMENT, "rows");
    sl_graph_fini(&graph);
}

static void widths_that_do_not_fit_the_activation_form_are_refused(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    sl_value x = sl_graph_input(&graph, "x", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 96));
    sl_value inputs[] = {x, fixture_matrix(&graph, "w", SL_TYPE_Q4_K, 32, 96).value};
    sl_graph_mark_output(&graph, sl_graph_op(&graph, SL_OP_MATMUL, inputs, 2, NULL, NULL));
    expect_refusal(&graph, 4, SLUICE_ERROR_UNSUPPORTED, "256");
    sl_graph_fini(&graph);
}

static sl_graph graph_of_experts(sl_type gate, sl_type up, sl_type down, uint32_t n_ff)
{
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    sl_ffn_input x = {
        sl_graph_op(&graph, SL_OP_SILU, (const sl_value[]){sl_build_residual_input(&graph, 256).value}, 1, NULL, NULL)};
    const sl_route_rule rule = {.n_experts = 4, .n_used = 2};
    sl_routing routing = sl_build_route(
        &graph,
        sl_build_router(&graph, x, fixture_matrix(&graph, "router", SL_TYPE_F32, 4, 256), (sl_vector){SL_NO_VALUE}),
        &rule);
    const sl_expert_shape shape = {
        .n_experts = 4, .n_used = 2, .n_ff = n_ff, .gate_type = gate, .up_type = up, .down_type = down};
    sl_graph_mark_output(&graph, sl_build_experts(&graph, x, routing, &shape).value);
    return graph;
}

static void experts_whose_gate_and_up_differ_in_form_are_refused(void **state)
{
    (void)state;
    sl_graph graph = graph_of_experts(SL_TYPE_Q4_K, SL_TYPE_Q8_0, SL_TYPE_Q8_0, 256);
    expect_refusal(&graph, 4, SLUICE_ERROR_UNSUPPORTED, "gate is Q4_K and up is Q8_0");
    sl_graph_fini(&graph);
}

static void experts_may_mix_types_of_one_form(void **state)
{
    (void)state;
    sl_graph graph = graph_of_experts(SL_TYPE_Q4_K, SL_TYPE_Q6_K, SL_TYPE_Q8_0, 96);
    sl_program *program = compiled(&graph, 4);
    const sl_step *experts = find_step(program, SL_OP_EXPERTS, 0);
    assert_int_equal(experts->outputs[SL_EXPERTS_GATHERED].type, SL_TYPE_ACT_Q8_256);
    assert_int_equal(experts->outputs[SL_EXPERTS_HIDDEN].type, SL_TYPE_ACT_Q8_32);
    sl_program_free(&program);
    sl_graph_fini(&graph);
}

static void experts_whose_hidden_width_does_not_fit_are_refused(void **state)
{
    (void)state;
    sl_graph graph = graph_of_experts(SL_TYPE_Q4_K, SL_TYPE_Q4_K, SL_TYPE_Q4_K, 1408);
    expect_refusal(&graph, 4, SLUICE_ERROR_UNSUPPORTED, "down");
    sl_graph_fini(&graph);
}

static void a_fused_product_has_a_place_for_the_rows_of_up(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    fixture_build_body(&graph, SL_TYPE_Q4_K);
    assert_int_equal(sl_graph_fuse(&graph, NULL), SLUICE_OK);
    sl_program *program = compiled(&graph, 8);
    const sl_step *step = find_step(program, SL_OP_MATMUL_SWIGLU, 0);
    assert_int_equal(step->inputs[0].type, SL_TYPE_ACT_Q8_256);
    assert_int_equal(step->outputs[SL_SWIGLU_UP].kind, SL_PLACE_ARENA);
    assert_int_equal(step->outputs[SL_SWIGLU_UP].rows, 8);
    assert_int_equal(step->outputs[SL_SWIGLU_UP].width, FIXTURE_FF);
    assert_int_not_equal(step->outputs[SL_SWIGLU_UP].offset, step->outputs[0].offset);
    sl_program_free(&program);
    sl_graph_fini(&graph);
}

static void a_copy_compiles_to_the_same_program_and_is_its_own(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph copy;
    sl_graph_init(&graph, &memory);
    sl_graph_init(&copy, &memory);
    fixture_build_body(&graph, SL_TYPE_Q8_0);
    assert_int_equal(sl_graph_copy(&copy, &graph, NULL), SLUICE_OK);
    sl_program *first = compiled(&graph, 8);
    sl_graph_fini(&graph);
    sl_program *second = compiled(&copy, 8);
    assert_int_equal(first->n_steps, second->n_steps);
    assert_memory_equal(first->steps, second->steps, first->n_steps * sizeof *first->steps);
    sl_value last = {copy.n_values - 1};
    assert_true(sl_value_exists(sl_graph_op(&copy, SL_OP_SILU, &last, 1, NULL, NULL)));
    sl_program_free(&first);
    sl_program_free(&second);
    sl_graph_fini(&copy);
}

/* A program without the steps for hints has the steps that it would have had without the hint. */
static void steps_that_only_hints_need_are_marked(void **state)
{
    (void)state;
    sl_graph plain;
    sl_graph hinted;
    sl_graph_init(&plain, &memory);
    sl_graph_init(&hinted, &memory);
    fixture_build_body(&plain, SL_TYPE_Q4_K);
    fixture_build_body(&hinted, SL_TYPE_Q4_K);
    const sl_predict_rule rule = {.expert_layer = 3, .n_experts = FIXTURE_EXPERTS, .n_used = FIXTURE_USED};
    sl_residual state_of_layer = {hinted.ops[hinted.n_ops - 1].outputs[0]};
    sl_matrix router = fixture_matrix(&hinted, "next_router", SL_TYPE_Q4_K, FIXTURE_EXPERTS, FIXTURE_EMBD);
    sl_build_predict(&hinted, state_of_layer, fixture_vector(&hinted, "next_norm", FIXTURE_EMBD), 1e-6f, router, &rule);
    sl_program *without = compiled(&plain, 8);
    sl_program *with = compiled(&hinted, 8);
    uint32_t n_hint_steps = 0;
    for (uint32_t i = 0; i < with->n_steps; i++) {
        const sl_step *step = &with->steps[i];
        if (step->for_hint) {
            n_hint_steps++;
            continue;
        }
        assert_true(i - n_hint_steps < without->n_steps);
        assert_int_equal(step->kind, without->steps[i - n_hint_steps].kind);
        assert_false(without->steps[i - n_hint_steps].for_hint);
    }
    assert_int_equal(n_hint_steps, 4); /* norm, activation form, product, top k */
    assert_int_equal(with->n_steps, without->n_steps + n_hint_steps);
    const sl_step *predict = find_step(with, SL_OP_PREDICT, 0);
    assert_true(predict->for_hint);
    assert_int_equal(predict->attributes.expert_layer, 3);
    assert_int_equal(predict->outputs[0].type, SL_TYPE_I32);
    assert_int_equal(predict->outputs[0].width, FIXTURE_USED);
    sl_program_free(&with);
    sl_program_free(&without);
    sl_graph_fini(&hinted);
    sl_graph_fini(&plain);
}

static void more_pairs_than_can_be_counted_are_refused(void **state)
{
    (void)state;
    sl_graph graph = graph_of_experts(SL_TYPE_F32, SL_TYPE_F32, SL_TYPE_F32, 64);
    expect_refusal(&graph, INT32_MAX, SLUICE_ERROR_ARGUMENT, "2 experts each");
    sl_graph_fini(&graph);
}

static void every_failed_allocation_is_reported_and_leaks_nothing(void **state)
{
    (void)state;
    for (uint64_t n = 0;; n++) {
        sl_memory scarce;
        failing_source source;
        failing_memory_init(&scarce, &source, n);
        sl_graph graph;
        sl_graph_init(&graph, &scarce);
        fixture_build_body(&graph, SL_TYPE_Q4_K);
        sluice_error error = {0};
        sl_program *program = NULL;
        sluice_status status = sl_program_compile(&program, &graph, 8, &scarce, &error);
        sl_graph_fini(&graph);
        if (status == SLUICE_OK) {
            assert_non_null(program);
            assert_true(n > 10);
            sl_program_free(&program);
            assert_int_equal(scarce.n_live, 0);
            return;
        }
        assert_int_equal(status, SLUICE_ERROR_NO_MEMORY);
        assert_int_equal(error.status, SLUICE_ERROR_NO_MEMORY);
        assert_null(program);
        assert_int_equal(scarce.n_live, 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, nothing_leaked)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_value_is_quantised_once_for_all_its_readers),
        TEST(float_weights_need_no_quantised_activations),
        TEST(each_activation_form_of_a_value_is_made_once),
        TEST(a_value_rewritten_in_place_is_quantised_again),
        TEST(the_activation_form_of_an_output_lives_no_longer_than_its_readers),
        TEST(the_scratch_of_experts_holds_all_pairs),
        TEST(places_of_bindings_say_how_rows_lie),
        TEST(in_place_operations_keep_their_place_and_absent_inputs_have_none),
        TEST(the_plan_of_a_program_is_sound_and_the_same_every_time),
        TEST(impossible_row_counts_are_refused),
        TEST(widths_that_do_not_fit_the_activation_form_are_refused),
        TEST(experts_whose_gate_and_up_differ_in_form_are_refused),
        TEST(experts_may_mix_types_of_one_form),
        TEST(experts_whose_hidden_width_does_not_fit_are_refused),
        TEST(a_fused_product_has_a_place_for_the_rows_of_up),
        TEST(a_copy_compiles_to_the_same_program_and_is_its_own),
        TEST(steps_that_only_hints_need_are_marked),
        TEST(more_pairs_than_can_be_counted_are_refused),
        TEST(every_failed_allocation_is_reported_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
