/* Graphs, programs and plans as text: byte for byte what tests/golden/graph holds. After a change that is meant, copy
 * the text that the failed test prints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

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

static void expect_golden(const sl_text *text, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "tests/golden/graph/%s.txt", name);
    char golden[16384] = "";
    FILE *file = fopen(path, "rb");
    size_t length = 0;
    if (file != NULL) {
        length = fread(golden, 1, sizeof golden, file);
        fclose(file);
    }
    if (length != text->length || memcmp(golden, text->data, length) != 0) {
        fputs(text->data, stderr);
        fail_msg("the text above is not that of %s", path);
    }
}

static void fixture_init(sl_graph *graph)
{
    sl_graph_init(graph, &memory);
    fixture_build_body(graph, SL_TYPE_Q4_K);
    assert_int_equal(graph->error.status, SLUICE_OK);
}

static void a_graph_as_built(void **state)
{
    (void)state;
    sl_graph graph;
    fixture_init(&graph);
    sl_text text;
    sl_text_init(&text, &memory, SL_MEMORY_OTHER);
    assert_true(sl_graph_dump(&graph, &text));
    expect_golden(&text, "built");
    sl_text_fini(&text);
    sl_graph_fini(&graph);
}

static void a_fused_program_and_its_plan(void **state)
{
    (void)state;
    sl_graph graph;
    fixture_init(&graph);
    assert_int_equal(sl_graph_fuse(&graph, NULL), SLUICE_OK);
    sl_program *program = NULL;
    assert_int_equal(sl_program_compile(&program, &graph, 8, &memory, NULL), SLUICE_OK);
    sl_text text;
    sl_text_init(&text, &memory, SL_MEMORY_OTHER);
    assert_true(sl_program_dump(program, &text));
    assert_true(sl_program_dump_plan(program, &text));
    expect_golden(&text, "program");
    sl_text_fini(&text);
    sl_program_free(&program);
    sl_graph_fini(&graph);
}

static void attributes_that_the_layer_lacks(void **state)
{
    (void)state;
    sl_graph graph;
    sl_graph_init(&graph, &memory);
    sl_value x = sl_graph_input(&graph, "x", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, 4));
    sl_value y = sl_graph_op(&graph, SL_OP_GELU, &x, 1, NULL, NULL);
    const sl_op_attributes limit = {.limit = 0.1f};
    sl_graph_op(&graph, SL_OP_CLAMP, &y, 1, &limit, NULL);
    const sl_op_attributes route = {.n_experts = 4, .n_used = 1, .weights_scale = 2.5f};
    sl_value routing[SL_OP_MAX_OUTPUTS];
    sl_graph_op(&graph, SL_OP_ROUTE, &y, 1, &route, routing);
    sl_graph_mark_output(&graph, routing[1]);
    sl_text text;
    sl_text_init(&text, &memory, SL_MEMORY_OTHER);
    assert_true(sl_graph_dump(&graph, &text));
    assert_string_equal(
        text.data, "value 0 input x F32 [rows][4]\n"
                   "value 1 temporary gelu.0 F32 [rows][4]\n"
                   "value 2 temporary route.2.0 I32 [rows][1]\n"
                   "value 3 temporary route.2.1 F32 [rows][1] output\n"
                   "op 0: gelu.0 = gelu x\n"
                   "op 1: gelu.0 = clamp gelu.0 limit=0.100000001\n"
                   "op 2: route.2.0, route.2.1 = route gelu.0 n_experts=4 n_used=1 gating=softmax weights_scale=2.5\n");
    sl_text_fini(&text);
    sl_graph_fini(&graph);
}

static void refused_memory_is_reported(void **state)
{
    (void)state;
    sl_graph graph;
    fixture_init(&graph);
    sl_program *program = NULL;
    assert_int_equal(sl_program_compile(&program, &graph, 8, &memory, NULL), SLUICE_OK);
    for (int what = 0; what < 3; what++) {
        for (uint64_t n = 0;; n++) {
            sl_memory scarce;
            failing_source source;
            failing_memory_init(&scarce, &source, n);
            sl_text text;
            sl_text_init(&text, &scarce, SL_MEMORY_OTHER);
            bool written = what == 0   ? sl_graph_dump(&graph, &text)
                           : what == 1 ? sl_program_dump(program, &text)
                                       : sl_program_dump_plan(program, &text);
            sl_text_fini(&text);
            assert_int_equal(scarce.n_live, 0);
            assert_true(written == (source.n_calls <= n));
            if (written) {
                assert_true(n > 1);
                break;
            }
        }
    }
    sl_program_free(&program);
    sl_graph_fini(&graph);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, nothing_leaked)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_graph_as_built),
        TEST(a_fused_program_and_its_plan),
        TEST(attributes_that_the_layer_lacks),
        TEST(refused_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
