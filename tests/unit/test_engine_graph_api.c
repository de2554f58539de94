/* The public graph interface: results, rules of binding, estimates, and that a run allocates nothing. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka.h needs setjmp, stdarg, stddef and stdint. */
#include <cmocka.h>

#include "sluice/graph.h"

/* y = gelu(W x + b), x [rows][4], W the first three rows of the identity. */
static sluice_compiled *compile_gelu_layer(uint64_t rows)
{
    static const float weight[3 * 4] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
    static const float bias[3] = {0.5f, -0.5f, 0.0f};
    sluice_graph *graph = sluice_graph_create();
    sluice_tensor x = sluice_graph_input(graph, "x", 4);
    sluice_tensor w = sluice_graph_matrix(graph, "w", "F32", 3, 4);
    sluice_tensor b = sluice_graph_vector(graph, "b", 3);
    sluice_graph_output(graph, sluice_graph_gelu(graph, sluice_graph_add(graph, sluice_graph_matmul(graph, x, w), b)));
    sluice_compiled *compiled = NULL;
    sluice_error error = {0};
    sluice_compile_options options = {.rows = rows, .n_threads = 2};
    assert_int_equal(sluice_graph_compile(graph, &options, &compiled, &error), SLUICE_OK);
    sluice_graph_destroy(&graph);
    assert_int_equal(sluice_compiled_set_weight(compiled, "w", weight, sizeof weight, &error), SLUICE_OK);
    assert_int_equal(sluice_compiled_set_weight(compiled, "b", bias, sizeof bias, &error), SLUICE_OK);
    return compiled;
}

static void assert_output(const sluice_compiled *compiled, const float *expected, size_t n)
{
    uint64_t width = 0;
    const float *output = sluice_compiled_output(compiled, 0, &width);
    assert_non_null(output);
    assert_int_equal(width, 3);
    for (size_t i = 0; i < n; i++) {
        assert_true(fabsf(output[i] - expected[i]) < 0.01f);
    }
}

static void a_layer_with_bias_and_gelu_gives_the_known_result(void **state)
{
    (void)state;
    sluice_compiled *compiled = compile_gelu_layer(2);
    static const float x[8] = {1, 0, 0, 0, 0, 1, 0, 0};
    sluice_graph_binding input = {.name = "x", .data = x};
    assert_int_equal(sluice_compiled_run(compiled, 2, &input, 1, NULL), SLUICE_OK);
    static const float expected[6] = {1.399f, -0.154f, 0.0f, 0.346f, 0.346f, 0.0f};
    assert_output(compiled, expected, 6);
    sluice_compiled_destroy(&compiled);
}

static void a_zero_input_gives_gelu_of_the_bias(void **state)
{
    (void)state;
    sluice_compiled *compiled = compile_gelu_layer(2);
    static const float x[4] = {0};
    sluice_graph_binding input = {.name = "x", .data = x};
    assert_int_equal(sluice_compiled_run(compiled, 1, &input, 1, NULL), SLUICE_OK);
    static const float expected[3] = {0.346f, -0.154f, 0.0f};
    assert_output(compiled, expected, 3);
    sluice_compiled_destroy(&compiled);
}

static void a_run_allocates_nothing(void **state)
{
    (void)state;
    sluice_compiled *compiled = compile_gelu_layer(2);
    static const float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    sluice_graph_binding input = {.name = "x", .data = x};
    uint64_t n_allocations = sluice_compiled_n_allocations(compiled);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sluice_compiled_run(compiled, 2, &input, 1, NULL), SLUICE_OK);
    }
    assert_int_equal(sluice_compiled_n_allocations(compiled), n_allocations);
    sluice_compiled_destroy(&compiled);
}

static void padding_rows_never_change_real_ones(void **state)
{
    (void)state;
    static const float x[5 * 4] = {1, 2, 3, 4, -1, 0.5f, 0, 2, 9, 9, 9, 9, 0, 0, 0, 1, 2, -2, 2, -2};
    sluice_graph_binding input = {.name = "x", .data = x};
    sluice_compiled *wide = compile_gelu_layer(8);
    assert_int_equal(sluice_compiled_run(wide, 5, &input, 1, NULL), SLUICE_OK);
    uint64_t width = 0;
    const float *all = sluice_compiled_output(wide, 0, &width);
    sluice_compiled *narrow = compile_gelu_layer(1);
    for (size_t row = 0; row < 5; row++) {
        sluice_graph_binding one = {.name = "x", .data = x + row * 4};
        assert_int_equal(sluice_compiled_run(narrow, 1, &one, 1, NULL), SLUICE_OK);
        assert_memory_equal(sluice_compiled_output(narrow, 0, &width), all + row * 3, 3 * sizeof(float));
    }
    sluice_compiled_destroy(&narrow);
    sluice_compiled_destroy(&wide);
}

static void names_and_lengths_are_checked(void **state)
{
    (void)state;
    sluice_compiled *compiled = compile_gelu_layer(2);
    sluice_error error = {0};
    float data[16] = {0};
    assert_int_equal(sluice_compiled_set_weight(compiled, "nobody", data, 4, &error), SLUICE_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "nobody"));
    assert_int_equal(sluice_compiled_set_weight(compiled, "w", data, sizeof data, &error), SLUICE_ERROR_ARGUMENT);
    sluice_graph_binding wrong = {.name = "y", .data = data};
    assert_int_equal(sluice_compiled_run(compiled, 1, &wrong, 1, &error), SLUICE_ERROR_NOT_FOUND);
    assert_int_equal(sluice_compiled_run(compiled, 1, NULL, 0, &error), SLUICE_ERROR_ARGUMENT);
    sluice_graph_binding twice[2] = {{.name = "x", .data = data}, {.name = "x", .data = data}};
    assert_int_equal(sluice_compiled_run(compiled, 1, twice, 2, &error), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sluice_compiled_run(compiled, 3, twice, 1, &error), SLUICE_ERROR_ARGUMENT);
    uint64_t width = 0;
    assert_null(sluice_compiled_output(compiled, 0, &width));
    sluice_compiled_destroy(&compiled);
}

static void a_weight_that_was_never_set_stops_the_run(void **state)
{
    (void)state;
    sluice_graph *graph = sluice_graph_create();
    sluice_tensor x = sluice_graph_input(graph, "x", 4);
    sluice_graph_output(graph, sluice_graph_matmul(graph, x, sluice_graph_matrix(graph, "w", "F32", 2, 4)));
    sluice_compiled *compiled = NULL;
    sluice_error error = {0};
    sluice_compile_options options = {.rows = 1, .n_threads = 1};
    assert_int_equal(sluice_graph_compile(graph, &options, &compiled, &error), SLUICE_OK);
    sluice_graph_destroy(&graph);
    float data[4] = {0};
    sluice_graph_binding input = {.name = "x", .data = data};
    assert_int_equal(sluice_compiled_run(compiled, 1, &input, 1, &error), SLUICE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "'w'"));
    sluice_compiled_destroy(&compiled);
}

static void the_first_building_error_is_reported_by_compile(void **state)
{
    (void)state;
    sluice_graph *graph = sluice_graph_create();
    sluice_tensor x = sluice_graph_input(graph, "x", 4);
    sluice_tensor w = sluice_graph_matrix(graph, "w", "Q9_9", 2, 4);
    sluice_graph_output(graph, sluice_graph_matmul(graph, x, w));
    sluice_compiled *compiled = NULL;
    sluice_error error = {0};
    sluice_compile_options options = {.rows = 1};
    assert_int_equal(sluice_graph_compile(graph, &options, &compiled, &error), SLUICE_ERROR_ARGUMENT);
    assert_null(compiled);
    assert_non_null(strstr(error.message, "Q9_9"));
    sluice_graph_destroy(&graph);
}

static void estimates_count_every_part(void **state)
{
    (void)state;
    sluice_graph *graph = sluice_graph_create();
    sluice_tensor x = sluice_graph_input(graph, "x", 16);
    sluice_graph_output(graph, sluice_graph_matmul(graph, x, sluice_graph_matrix(graph, "w", "F32", 32, 16)));
    sluice_graph_estimate estimate;
    sluice_error error = {0};
    assert_int_equal(sluice_graph_estimate_memory(graph, 2, &estimate, &error), SLUICE_OK);
    assert_true(estimate.activation_bytes >= 256);
    assert_int_equal(estimate.weight_bytes, 2048);
    assert_int_equal(estimate.input_bytes, 128);
    assert_int_equal(estimate.peak_bytes, estimate.activation_bytes + 2048 + 128);
    assert_int_equal(sluice_graph_estimate_fits(&estimate, UINT64_C(1) << 30, &error), SLUICE_OK);
    assert_int_equal(sluice_graph_estimate_fits(&estimate, estimate.peak_bytes, &error), SLUICE_OK);
    assert_int_equal(sluice_graph_estimate_fits(&estimate, estimate.peak_bytes - 1, &error), SLUICE_ERROR_BUDGET);
    estimate.weight_bytes = 100000000;
    estimate.peak_bytes = estimate.activation_bytes + estimate.weight_bytes + estimate.input_bytes;
    assert_int_equal(sluice_graph_estimate_fits(&estimate, 1024, &error), SLUICE_ERROR_BUDGET);
    assert_non_null(strstr(error.message, "exceeds"));
    sluice_graph_destroy(&graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_layer_with_bias_and_gelu_gives_the_known_result),
        cmocka_unit_test(a_zero_input_gives_gelu_of_the_bias),
        cmocka_unit_test(a_run_allocates_nothing),
        cmocka_unit_test(padding_rows_never_change_real_ones),
        cmocka_unit_test(names_and_lengths_are_checked),
        cmocka_unit_test(a_weight_that_was_never_set_stops_the_run),
        cmocka_unit_test(the_first_building_error_is_reported_by_compile),
        cmocka_unit_test(estimates_count_every_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
