/* The families: the golden files open as what they are, and their graphs bind exactly the tensors that were claimed. */
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
#include "models/model.h"

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

typedef struct opened {
    sl_gguf *file;
    sl_model *model;
} opened;

static opened open_golden(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "tests/golden/models/%s.gguf", name);
    opened result = {NULL, NULL};
    sluice_error error = {0};
    if (sl_gguf_open(&result.file, path, &memory, NULL, &error) != SLUICE_OK ||
        sl_model_open(&result.model, result.file, &memory, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    return result;
}

static void close_opened(opened *golden)
{
    sl_model_close(&golden->model);
    sl_gguf_close(&golden->file);
}

static void qwen3moe_reads_its_hyper_parameters(void **state)
{
    (void)state;
    opened golden = open_golden("qwen3moe");
    const sl_hyper *hyper = &golden.model->hyper;
    assert_string_equal(golden.model->family->architecture, "qwen3moe");
    assert_int_equal(hyper->n_layers, 3);
    assert_int_equal(hyper->n_embd, 64);
    assert_int_equal(hyper->n_vocab, 300);
    assert_int_equal(hyper->n_heads, 6);
    assert_int_equal(hyper->n_kv_heads, 2);
    /* Not n_embd / n_heads. */
    assert_int_equal(hyper->key_dim, 16);
    assert_int_equal(hyper->value_dim, 16);
    assert_int_equal(hyper->n_rot, 16);
    assert_int_equal(hyper->n_experts, 8);
    assert_int_equal(hyper->n_experts_used, 2);
    assert_int_equal(hyper->n_ff_expert, 32);
    assert_int_equal(hyper->n_ff_shared, 0);
    assert_true(hyper->rope_base == 50000.0f && hyper->rope_scale == 1.0f);
    assert_int_equal(hyper->rope_pairing, SL_ROPE_NEOX);
    assert_true(hyper->attention_scale == 0.25f);
    assert_true(hyper->renormalise && hyper->norm_heads && !hyper->norm_qk_full);
    close_opened(&golden);
}

static void qwen2moe_has_a_shared_expert_and_keeps_the_routing_weights(void **state)
{
    (void)state;
    opened golden = open_golden("qwen2moe");
    const sl_hyper *hyper = &golden.model->hyper;
    assert_int_equal(hyper->n_ff_expert, 24);
    assert_int_equal(hyper->n_ff_shared, 48);
    assert_int_equal(hyper->key_dim, 32);
    assert_int_equal(hyper->rope_pairing, SL_ROPE_NEOX);
    assert_true(!hyper->renormalise && !hyper->norm_heads && !hyper->norm_qk_full);
    close_opened(&golden);
}

static void olmoe_norms_whole_rows_and_keeps_the_routing_weights(void **state)
{
    (void)state;
    opened golden = open_golden("olmoe");
    const sl_hyper *hyper = &golden.model->hyper;
    assert_int_equal(hyper->n_ff_expert, 32);
    assert_true(!hyper->renormalise && !hyper->norm_heads && hyper->norm_qk_full);
    assert_true(hyper->clamp_qkv == 0.0f);
    close_opened(&golden);
}

static void llama_rotates_adjacent_pairs_and_renormalises(void **state)
{
    (void)state;
    opened golden = open_golden("mixtral");
    const sl_hyper *hyper = &golden.model->hyper;
    assert_string_equal(golden.model->family->architecture, "llama");
    assert_int_equal(hyper->rope_pairing, SL_ROPE_NORM);
    assert_int_equal(hyper->n_ff_expert, 32);
    assert_true(hyper->renormalise && !hyper->norm_heads && !hyper->norm_qk_full);
    close_opened(&golden);
}

static const char *const golden_names[] = {"mixtral", "olmoe", "qwen2moe", "qwen3moe"};
enum { N_GOLDEN = sizeof golden_names / sizeof golden_names[0] };

/* How often each dense tensor is bound as a weight by body and head; every weight must be one of them. */
static void count_bindings(const sl_model *model, const sl_program *program, uint32_t *bound)
{
    for (uint32_t i = 0; i < program->n_bindings; i++) {
        const sl_binding *binding = &program->bindings[i];
        if (binding->kind != SL_VALUE_WEIGHT) {
            continue;
        }
        bool found = false;
        for (uint32_t j = 0; j < model->n_dense; j++) {
            if (sl_span_equal_text(model->dense[j]->name, binding->name)) {
                bound[j]++;
                found = true;
                assert_int_equal(binding->place.rows * binding->place.row_bytes, model->dense[j]->bytes);
            }
        }
        if (!found) {
            fail_msg("%s is bound and not in the list of dense tensors", binding->name);
        }
    }
}

static sl_program *compile(const sl_model *model, bool head, bool fuse, sl_memory *account, sluice_error *error)
{
    sl_graph graph;
    sl_graph_init(&graph, account);
    if (head) {
        model->family->build_head(model, &graph);
    } else {
        model->family->build_body(model, &graph, SL_KV_F16);
    }
    sl_program *program = NULL;
    sluice_status status = sl_graph_verify(&graph, error);
    if (status == SLUICE_OK && fuse) {
        status = sl_graph_fuse(&graph, error);
    }
    if (status == SLUICE_OK) {
        status = sl_program_compile(&program, &graph, 8, account, error);
    }
    sl_graph_fini(&graph);
    assert_true((status == SLUICE_OK) == (program != NULL));
    return program;
}

static void every_dense_tensor_is_bound_and_every_weight_is_dense(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < N_GOLDEN; i++) {
        opened golden = open_golden(golden_names[i]);
        uint32_t *bound = sl_alloc(&memory, SL_MEMORY_OTHER, golden.model->n_dense, sizeof *bound);
        for (int head = 0; head < 2; head++) {
            sluice_error error = {0};
            sl_program *program = compile(golden.model, head != 0, false, &memory, &error);
            if (program == NULL) {
                fail_msg("%s: %s", golden_names[i], error.message);
            }
            count_bindings(golden.model, program, bound);
            sl_program_free(&program);
        }
        for (uint32_t j = 0; j < golden.model->n_dense; j++) {
            bool is_tied = sl_gguf_find_tensor(golden.file, "output.weight") == NULL &&
                           sl_span_equal_text(golden.model->dense[j]->name, "token_embd.weight");
            assert_int_equal(bound[j], is_tied ? 2 : 1);
        }
        sl_free(&memory, bound);
        close_opened(&golden);
    }
}

static void dense_and_expert_tensors_together_are_the_file(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < N_GOLDEN; i++) {
        opened golden = open_golden(golden_names[i]);
        const sl_model *model = golden.model;
        assert_int_equal(model->n_dense + model->n_expert_layers * SL_EXPERT_MATRICES, golden.file->n_tensors);
        assert_int_equal(model->n_expert_layers, model->hyper.n_layers);
        for (uint32_t j = 1; j < model->n_dense; j++) {
            assert_true(model->dense[j - 1] < model->dense[j]);
        }
        close_opened(&golden);
    }
}

static void ranges_of_experts_tile_their_tensor(void **state)
{
    (void)state;
    opened golden = open_golden("qwen3moe");
    const sl_model *model = golden.model;
    const sl_gguf_tensor *down = sl_gguf_find_tensor(golden.file, "blk.2.ffn_down_exps.weight");
    uint64_t expected = down->offset;
    for (uint32_t expert = 0; expert < model->hyper.n_experts; expert++) {
        uint32_t file;
        uint64_t offset;
        uint64_t bytes;
        sl_model_expert_range(model, 2, SL_EXPERT_DOWN, expert, &file, &offset, &bytes);
        assert_int_equal(file, down->file);
        assert_int_equal(offset, expected);
        expected += bytes;
    }
    assert_int_equal(expected, down->offset + down->bytes);
    close_opened(&golden);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, nothing_leaked)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(qwen3moe_reads_its_hyper_parameters),
        TEST(qwen2moe_has_a_shared_expert_and_keeps_the_routing_weights),
        TEST(olmoe_norms_whole_rows_and_keeps_the_routing_weights),
        TEST(llama_rotates_adjacent_pairs_and_renormalises),
        TEST(every_dense_tensor_is_bound_and_every_weight_is_dense),
        TEST(dense_and_expert_tensors_together_are_the_file),
        TEST(ranges_of_experts_tile_their_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
