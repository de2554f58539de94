/* What files the families accept and refuse: defaults, layouts, and one refusal for each rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <math.h>

#include "../support/failing_memory.h"
#include "graph/program.h"
#include "model_recipe.h"

typedef struct fixture {
    char directory[64];
    char path[96];
    sl_memory memory;
    recipe *recipe;
    sl_gguf *file;
    sl_model *model;
    sluice_error error;
} fixture;

static int start(void **state)
{
    fixture *test = calloc(1, sizeof *test);
    assert_non_null(test);
    snprintf(test->directory, sizeof test->directory, "%s/sluice-models-XXXXXX", P_tmpdir);
    assert_non_null(mkdtemp(test->directory));
    snprintf(test->path, sizeof test->path, "%s/model.gguf", test->directory);
    sl_memory_init(&test->memory, NULL);
    *state = test;
    return 0;
}

static void close_files(fixture *test)
{
    sl_model_close(&test->model);
    sl_gguf_close(&test->file);
    free(test->recipe);
    test->recipe = NULL;
}

static int nothing_leaked(void **state)
{
    fixture *test = *state;
    close_files(test);
    uint64_t n_live = test->memory.n_live;
    unlink(test->path);
    rmdir(test->directory);
    free(test);
    return n_live == 0 ? 0 : -1;
}

static recipe *begin(fixture *test, const char *architecture)
{
    close_files(test);
    test->recipe = recipe_for(architecture);
    return test->recipe;
}

static sluice_status open_model(fixture *test)
{
    recipe_write(test->recipe, test->path, &test->memory);
    assert_int_equal(sl_gguf_open(&test->file, test->path, &test->memory, NULL, &test->error), SLUICE_OK);
    sluice_status status = sl_model_open(&test->model, test->file, &test->memory, &test->error);
    assert_true((status == SLUICE_OK) == (test->model != NULL));
    return status;
}

static const sl_hyper *expect_open(fixture *test)
{
    if (open_model(test) != SLUICE_OK) {
        fail_msg("%s", test->error.message);
    }
    return &test->model->hyper;
}

static void expect_refusal(fixture *test, sluice_status expected, const char *part)
{
    sluice_status status = open_model(test);
    if (status == SLUICE_OK) {
        fail_msg("it opens; expected \"%s\"", part);
    }
    if (status != expected || test->error.status != expected || strstr(test->error.message, part) == NULL ||
        strstr(test->error.message, test->path) == NULL) {
        fail_msg("expected status %d, the path and \"%s\"; found %d: %s", (int)expected, part, (int)status,
                 test->error.message);
    }
}

static sl_program *compile(fixture *test, bool head, sl_memory *account, sluice_error *error)
{
    sl_graph graph;
    sl_graph_init(&graph, account);
    if (head) {
        test->model->family->build_head(test->model, &graph);
    } else {
        test->model->family->build_body(test->model, &graph, SL_KV_F32);
    }
    sl_program *program = NULL;
    sluice_status status = sl_graph_fuse(&graph, error);
    if (status == SLUICE_OK) {
        status = sl_program_compile(&program, &graph, 4, account, error);
    }
    sl_graph_fini(&graph);
    assert_true((status == SLUICE_OK) == (program != NULL));
    return program;
}

static void expect_compiles(fixture *test)
{
    for (int head = 0; head < 2; head++) {
        sl_program *program = compile(test, head != 0, &test->memory, &test->error);
        if (program == NULL) {
            fail_msg("%s", test->error.message);
        }
        sl_program_free(&program);
    }
}

static const char *const architectures[] = {"llama", "olmoe", "qwen2moe", "qwen3moe"};
enum { N_ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

static void the_required_keys_are_enough_for_every_family(void **state)
{
    fixture *test = *state;
    for (int i = 0; i < N_ARCHITECTURES; i++) {
        begin(test, architectures[i]);
        const sl_hyper *hyper = expect_open(test);
        assert_int_equal(hyper->n_layers, RECIPE_LAYERS);
        assert_int_equal(hyper->n_vocab, RECIPE_VOCAB);
        assert_int_equal(hyper->key_dim, RECIPE_EMBD / RECIPE_HEADS);
        assert_int_equal(hyper->value_dim, RECIPE_EMBD / RECIPE_HEADS);
        assert_int_equal(hyper->n_rot, hyper->key_dim);
        assert_true(hyper->rope_base == 10000.0f);
        assert_true(hyper->rope_scale == 1.0f);
        assert_true(hyper->attention_scale == 0.25f);
        assert_true(hyper->expert_weights_scale == 0.0f);
        expect_compiles(test);
    }
}

static void an_absent_head_count_kv_is_the_head_count(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "llama");
    recipe_drop_key(r, "attention.head_count_kv");
    const uint64_t width = RECIPE_EMBD;
    for (uint32_t layer = 0; layer < RECIPE_LAYERS; layer++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.attn_k.weight", layer);
        recipe_tensor_of(r, name)->dims[1] = width;
        snprintf(name, sizeof name, "blk.%u.attn_v.weight", layer);
        recipe_tensor_of(r, name)->dims[1] = width;
    }
    assert_int_equal(expect_open(test)->n_kv_heads, RECIPE_HEADS);
    expect_compiles(test);
}

static void head_widths_may_differ_from_an_equal_share(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "qwen3moe");
    recipe_set_u32(r, "attention.key_length", 32);
    recipe_set_u32(r, "attention.value_length", 8);
    for (uint32_t layer = 0; layer < RECIPE_LAYERS; layer++) {
        const struct {
            const char *name;
            uint64_t columns, rows;
        } shapes[] = {
            {"attn_q", RECIPE_EMBD, RECIPE_HEADS * 32},
            {"attn_k", RECIPE_EMBD, RECIPE_KV_HEADS * 32},
            {"attn_v", RECIPE_EMBD, RECIPE_KV_HEADS * 8},
            {"attn_output", RECIPE_HEADS * 8, RECIPE_EMBD},
            {"attn_q_norm", 32, 1},
            {"attn_k_norm", 32, 1},
        };
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%u.%s.weight", layer, shapes[i].name);
            recipe_tensor *tensor = recipe_tensor_of(r, name);
            tensor->dims[0] = shapes[i].columns;
            tensor->dims[1] = shapes[i].rows;
        }
    }
    const sl_hyper *hyper = expect_open(test);
    assert_int_equal(hyper->key_dim, 32);
    assert_true(hyper->attention_scale == 1.0f / sqrtf(32.0f));
    assert_int_equal(hyper->value_dim, 8);
    assert_int_equal(hyper->n_rot, 32);
    expect_compiles(test);
}

static void an_absent_expert_width_is_an_equal_share(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "qwen3moe");
    recipe_drop_key(r, "expert_feed_forward_length");
    recipe_set_u32(r, "feed_forward_length", RECIPE_FF * RECIPE_USED);
    assert_int_equal(expect_open(test)->n_ff_expert, RECIPE_FF);
}

static void an_absent_shared_width_is_the_dense_width(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "qwen2moe");
    recipe_drop_key(r, "expert_shared_feed_forward_length");
    recipe_set_u32(r, "feed_forward_length", RECIPE_FF);
    assert_int_equal(expect_open(test)->n_ff_shared, RECIPE_FF);
}

static void keys_of_the_router_are_read(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "qwen2moe");
    recipe_set_f32(r, "expert_weights_scale", 2.5f);
    recipe_set_bool(r, "expert_weights_norm", true);
    recipe_set_u32(r, "expert_gating_func", 1);
    const sl_hyper *hyper = expect_open(test);
    assert_true(hyper->expert_weights_scale == 2.5f);
    assert_true(hyper->renormalise);
}

static void linear_rope_scaling_is_read_under_both_names(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "qwen3moe");
    recipe_set_f32(r, "rope.scaling.factor", 4.0f);
    assert_true(expect_open(test)->rope_scale == 0.25f);
    r = begin(test, "qwen3moe");
    recipe_set_f32(r, "rope.scale_linear", 2.0f);
    recipe_set_text(r, "rope.scaling.type", "linear");
    assert_true(expect_open(test)->rope_scale == 0.5f);
    r = begin(test, "qwen3moe");
    recipe_set_f32(r, "rope.scaling.factor", 0.0f);
    assert_true(expect_open(test)->rope_scale == 1.0f);
    r = begin(test, "qwen3moe");
    recipe_set_f32(r, "rope.scaling.factor", 4.0f);
    recipe_set_text(r, "rope.scaling.type", "none");
    assert_true(expect_open(test)->rope_scale == 1.0f);
}

static void llama_uses_the_tensor_of_rope_factors_instead_of_the_key(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "llama");
    recipe_set_f32(r, "rope.scaling.factor", 8.0f);
    recipe_add_tensor(r, "rope_freqs.weight", RECIPE_EMBD / RECIPE_HEADS / 2, 1, 1);
    assert_true(expect_open(test)->rope_scale == 1.0f);
    sl_program *program = compile(test, false, &test->memory, &test->error);
    assert_non_null(program);
    assert_int_not_equal(sl_program_find_binding(program, "rope_freqs.weight"), UINT32_MAX);
    sl_program_free(&program);
}

static void llama_takes_biases_where_they_are(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "llama");
    recipe_add_tensor(r, "blk.1.attn_q.bias", RECIPE_EMBD, 1, 1);
    recipe_add_tensor(r, "blk.0.attn_output.bias", RECIPE_EMBD, 1, 1);
    expect_open(test);
    sl_program *program = compile(test, false, &test->memory, &test->error);
    assert_non_null(program);
    assert_int_not_equal(sl_program_find_binding(program, "blk.1.attn_q.bias"), UINT32_MAX);
    assert_int_equal(sl_program_find_binding(program, "blk.0.attn_q.bias"), UINT32_MAX);
    sl_program_free(&program);
}

static void llama_ignores_a_stale_sliding_window(void **state)
{
    fixture *test = *state;
    recipe_set_u32(begin(test, "llama"), "attention.sliding_window", 4096);
    expect_open(test);
}

static uint32_t count_steps(const sl_program *program, sl_op_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < program->n_steps; i++) {
        count += program->steps[i].kind == kind;
    }
    return count;
}

static void olmoe_clamps_after_the_norm_and_before_the_rotation(void **state)
{
    fixture *test = *state;
    recipe_set_f32(begin(test, "olmoe"), "attention.clamp_kqv", 1.5f);
    assert_true(expect_open(test)->clamp_qkv == 1.5f);
    sl_program *program = compile(test, false, &test->memory, &test->error);
    assert_non_null(program);
    assert_int_equal(count_steps(program, SL_OP_CLAMP), 3 * RECIPE_LAYERS);
    /* The query's place goes through norm, clamp and rotation in this order. */
    static const sl_op_kind order[] = {SL_OP_NORM_HEADS, SL_OP_CLAMP, SL_OP_ROPE};
    uint32_t reached = 0;
    uint64_t place = 0;
    for (uint32_t i = 0; i < program->n_steps && reached < 3; i++) {
        const sl_step *step = &program->steps[i];
        if (step->kind == order[reached] && (reached == 0 || step->inputs[0].offset == place)) {
            place = step->inputs[0].offset;
            reached++;
        } else {
            assert_false(reached < 2 && step->kind == SL_OP_ROPE);
        }
    }
    assert_int_equal(reached, 3);
    sl_program_free(&program);
}

static void a_separate_head_is_used_when_it_is_there(void **state)
{
    fixture *test = *state;
    for (int i = 0; i < 2; i++) {
        recipe *r = begin(test, "qwen3moe");
        if (i == 1) {
            recipe_add_tensor(r, "output.weight", RECIPE_EMBD, RECIPE_VOCAB, 1);
        }
        expect_open(test);
        sl_program *head = compile(test, true, &test->memory, &test->error);
        assert_non_null(head);
        assert_true((sl_program_find_binding(head, "output.weight") != UINT32_MAX) == (i == 1));
        assert_true((sl_program_find_binding(head, "token_embd.weight") != UINT32_MAX) == (i == 0));
        sl_program_free(&head);
    }
}

static void numbers_for_each_layer_may_be_an_array_of_equals(void **state)
{
    fixture *test = *state;
    const uint32_t equal[] = {RECIPE_HEADS, RECIPE_HEADS};
    const uint32_t unequal[] = {RECIPE_HEADS, RECIPE_KV_HEADS};
    recipe_set_array(begin(test, "llama"), "attention.head_count", equal, 2);
    assert_int_equal(expect_open(test)->n_heads, RECIPE_HEADS);
    recipe_set_array(begin(test, "llama"), "attention.head_count", unequal, 2);
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "\"llama.attention.head_count\" is 4 in layer 0 and 2 in layer 1");
    recipe_set_array(begin(test, "llama"), "attention.head_count", equal, 0);
    expect_refusal(test, SLUICE_ERROR_FORMAT, "empty array");
}

static void blocks_that_predict_further_tokens_are_skipped(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "qwen3moe");
    recipe_set_u32(r, "block_count", RECIPE_LAYERS + 1);
    recipe_set_u32(r, "nextn_predict_layers", 1);
    recipe_add_tensor(r, "blk.2.nextn.eh_proj.weight", 2 * RECIPE_EMBD, RECIPE_EMBD, 1);
    recipe_add_tensor(r, "blk.2.attn_norm.weight", RECIPE_EMBD, 1, 1);
    const sl_hyper *hyper = expect_open(test);
    assert_int_equal(hyper->n_layers, RECIPE_LAYERS);
    assert_int_equal(hyper->n_blocks, RECIPE_LAYERS + 1);
    expect_compiles(test);
    recipe_add_tensor(r, "blk.3.attn_norm.weight", RECIPE_EMBD, 1, 1);
    sl_model_close(&test->model);
    sl_gguf_close(&test->file);
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "blk.3.attn_norm.weight");
}

static void separate_experts_are_read_where_they_lie(void **state)
{
    fixture *test = *state;
    recipe_split_experts(begin(test, "llama"), 1);
    expect_open(test);
    const sl_expert_matrix *stacked = &test->model->expert_layers[0].matrices[SL_EXPERT_DOWN];
    const sl_expert_matrix *separate = &test->model->expert_layers[1].matrices[SL_EXPERT_DOWN];
    assert_non_null(stacked->stacked);
    assert_null(stacked->separate);
    assert_null(separate->stacked);
    assert_int_equal(stacked->bytes, separate->bytes);
    uint32_t file;
    uint64_t offset;
    uint64_t bytes;
    sl_model_expert_range(test->model, 1, SL_EXPERT_DOWN, 3, &file, &offset, &bytes);
    const sl_gguf_tensor *tensor = sl_gguf_find_tensor(test->file, "blk.1.ffn_down.3.weight");
    assert_int_equal(file, tensor->file);
    assert_int_equal(offset, tensor->offset);
    assert_int_equal(bytes, tensor->bytes);
    expect_compiles(test);
}

static void separate_experts_must_be_complete_and_alike(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "llama");
    recipe_split_experts(r, 0);
    recipe_drop_tensor(r, "blk.0.ffn_up.2.weight");
    expect_refusal(test, SLUICE_ERROR_NOT_FOUND, "\"blk.0.ffn_up.2.weight\" is missing");
    r = begin(test, "llama");
    recipe_split_experts(r, 0);
    recipe_tensor_of(r, "blk.0.ffn_up.2.weight")->type = SL_TYPE_F16;
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "\"blk.0.ffn_up.2.weight\" has type F16 and expert 0 has F32");
    r = begin(test, "llama");
    recipe_split_experts(r, 0);
    recipe_tensor_of(r, "blk.0.ffn_up.2.weight")->dims[1] = 1;
    expect_refusal(test, SLUICE_ERROR_FORMAT, "{64}: expected {64, 32}");
}

static void expert_matrices_may_have_a_type_each(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "qwen3moe");
    recipe_tensor_of(r, "blk.0.ffn_gate_exps.weight")->type = SL_TYPE_Q4_0;
    recipe_tensor_of(r, "blk.0.ffn_up_exps.weight")->type = SL_TYPE_Q8_0;
    recipe_tensor_of(r, "blk.0.ffn_down_exps.weight")->type = SL_TYPE_F16;
    expect_open(test);
    assert_int_equal(test->model->expert_layers[0].matrices[SL_EXPERT_GATE].type, SL_TYPE_Q4_0);
    assert_int_equal(test->model->expert_layers[0].matrices[SL_EXPERT_UP].bytes, RECIPE_FF * 2 * 34);
    assert_int_equal(test->model->expert_layers[1].matrices[SL_EXPERT_DOWN].type, SL_TYPE_F32);
    expect_compiles(test);
    r = begin(test, "qwen3moe");
    recipe_tensor_of(r, "blk.0.ffn_gate_exps.weight")->type = SL_TYPE_Q4_0;
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "gate matrices are Q4_0 and their up matrices F32");
}

static void an_unknown_architecture_is_refused_with_the_known_ones(void **state)
{
    fixture *test = *state;
    begin(test, "mamba");
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "llama, olmoe, qwen2moe, qwen3moe");
}

static void a_dense_llama_is_refused(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "llama");
    recipe_drop_key(r, "expert_count");
    recipe_drop_key(r, "expert_used_count");
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "Sluice runs Mixture-of-Experts models");
}

static void every_required_key_is_missed(void **state)
{
    fixture *test = *state;
    static const char *const required[] = {"block_count",
                                           "embedding_length",
                                           "context_length",
                                           "attention.head_count",
                                           "attention.layer_norm_rms_epsilon",
                                           "expert_used_count"};
    for (int i = 0; i < N_ARCHITECTURES; i++) {
        for (size_t j = 0; j < sizeof required / sizeof required[0]; j++) {
            recipe_drop_key(begin(test, architectures[i]), required[j]);
            expect_refusal(test, SLUICE_ERROR_NOT_FOUND, required[j]);
        }
    }
    recipe_drop_key(begin(test, "olmoe"), "feed_forward_length");
    expect_refusal(test, SLUICE_ERROR_NOT_FOUND, "olmoe.feed_forward_length");
    recipe_drop_key(begin(test, "qwen3moe"), "expert_feed_forward_length");
    expect_refusal(test, SLUICE_ERROR_NOT_FOUND, "qwen3moe.feed_forward_length");
}

static void every_tensor_but_the_head_is_missed(void **state)
{
    fixture *test = *state;
    for (int i = 0; i < N_ARCHITECTURES; i++) {
        uint32_t n_tensors = begin(test, architectures[i])->n_tensors;
        for (uint32_t j = 0; j < n_tensors; j++) {
            recipe *r = begin(test, architectures[i]);
            char name[96];
            memcpy(name, r->tensors[j].name, sizeof name);
            recipe_drop_tensor(r, name);
            expect_refusal(test, SLUICE_ERROR_NOT_FOUND, name);
        }
    }
}

static void every_wrong_shape_is_found(void **state)
{
    fixture *test = *state;
    for (int i = 0; i < N_ARCHITECTURES; i++) {
        begin(test, architectures[i]);
        expect_open(test);
        for (uint64_t j = 0; j < test->file->n_tensors; j++) {
            sl_gguf_tensor *tensor = &test->file->tensors[j];
            for (uint32_t dim = 0; dim < SL_GGUF_MAX_DIMS; dim++) {
                if (dim == 1 && sl_span_equal_text(tensor->name, "token_embd.weight")) {
                    continue; /* says how many tokens there are */
                }
                sl_model_close(&test->model);
                tensor->dims[dim]++;
                sluice_status status = sl_model_open(&test->model, test->file, &test->memory, &test->error);
                tensor->dims[dim]--;
                assert_int_equal(status, SLUICE_ERROR_FORMAT);
                char quoted[128];
                snprintf(quoted, sizeof quoted, "\"%.*s\" has shape", SL_SPAN_ARGUMENTS(tensor->name));
                assert_non_null(strstr(test->error.message, quoted));
            }
        }
    }
}

/* A number of a key, what comes of it, and what the sentence names. */
typedef struct bad_number {
    const char *architecture, *key;
    uint32_t number;
    sluice_status expected;
    const char *part;
} bad_number;

static void numbers_beyond_reason_are_refused(void **state)
{
    fixture *test = *state;
    static const bad_number numbers[] = {
        {"llama", "block_count", 0, SLUICE_ERROR_FORMAT, "expected 1 to 1024"},
        {"llama", "block_count", UINT32_MAX, SLUICE_ERROR_FORMAT, "expected 1 to 1024"},
        {"llama", "block_count", RECIPE_LAYERS + 1, SLUICE_ERROR_NOT_FOUND, "blk.2.attn_norm.weight"},
        {"llama", "block_count", RECIPE_LAYERS - 1, SLUICE_ERROR_UNSUPPORTED, "blk.1.attn_norm.weight"},
        {"llama", "nextn_predict_layers", RECIPE_LAYERS, SLUICE_ERROR_FORMAT, "nextn_predict_layers"},
        {"llama", "embedding_length", 0, SLUICE_ERROR_FORMAT, "embedding_length"},
        {"llama", "embedding_length", UINT32_MAX, SLUICE_ERROR_FORMAT, "embedding_length"},
        {"llama", "embedding_length", 128, SLUICE_ERROR_FORMAT, "token_embd.weight"},
        {"llama", "context_length", 0, SLUICE_ERROR_FORMAT, "context_length"},
        {"llama", "attention.head_count", 0, SLUICE_ERROR_FORMAT, "head_count"},
        {"llama", "attention.head_count", UINT32_MAX, SLUICE_ERROR_FORMAT, "head_count"},
        {"llama", "attention.head_count", 3, SLUICE_ERROR_FORMAT, "cannot share"},
        {"llama", "attention.head_count", 6, SLUICE_ERROR_FORMAT, "no multiple of head_count 6"},
        {"llama", "attention.head_count_kv", 0, SLUICE_ERROR_FORMAT, "head_count_kv"},
        {"llama", "attention.head_count_kv", 8, SLUICE_ERROR_FORMAT, "cannot share"},
        {"llama", "attention.key_length", 0, SLUICE_ERROR_FORMAT, "key_length"},
        {"llama", "attention.key_length", UINT32_MAX, SLUICE_ERROR_FORMAT, "key_length"},
        {"llama", "attention.key_length", 15, SLUICE_ERROR_FORMAT, "must be even"},
        {"llama", "attention.value_length", UINT32_MAX, SLUICE_ERROR_FORMAT, "value_length"},
        {"llama", "rope.dimension_count", 8, SLUICE_ERROR_UNSUPPORTED, "rotate whole heads"},
        {"qwen3moe", "rope.dimension_count", 7, SLUICE_ERROR_FORMAT, "must be even"},
        {"qwen3moe", "rope.dimension_count", 18, SLUICE_ERROR_FORMAT, "rope.dimension_count"},
        {"qwen3moe", "rope.dimension_count", 0, SLUICE_ERROR_FORMAT, "rope.dimension_count"},
        {"llama", "expert_count", UINT32_MAX, SLUICE_ERROR_FORMAT, "expert_count"},
        {"llama", "expert_count", 0, SLUICE_ERROR_UNSUPPORTED, "no experts"},
        {"llama", "expert_count", 8, SLUICE_ERROR_FORMAT, "ffn_gate_inp.weight"},
        {"llama", "expert_used_count", 0, SLUICE_ERROR_FORMAT, "expert_used_count"},
        {"llama", "expert_used_count", RECIPE_EXPERTS + 1, SLUICE_ERROR_FORMAT, "expert_used_count"},
        {"llama", "feed_forward_length", 0, SLUICE_ERROR_FORMAT, "feed_forward_length"},
        {"llama", "feed_forward_length", UINT32_MAX, SLUICE_ERROR_FORMAT, "feed_forward_length"},
        {"qwen3moe", "expert_feed_forward_length", 0, SLUICE_ERROR_FORMAT, "expert_feed_forward_length"},
        {"qwen2moe", "expert_shared_feed_forward_length", 0, SLUICE_ERROR_FORMAT, "expert_shared"},
        {"llama", "expert_gating_func", 2, SLUICE_ERROR_UNSUPPORTED, "expert_gating_func"},
        {"llama", "expert_group_count", 8, SLUICE_ERROR_UNSUPPORTED, "expert_group_count"},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        recipe_set_u32(begin(test, numbers[i].architecture), numbers[i].key, numbers[i].number);
        expect_refusal(test, numbers[i].expected, numbers[i].part);
    }
}

static void floats_beyond_reason_are_refused(void **state)
{
    fixture *test = *state;
    static const struct {
        const char *key;
        float number;
        sluice_status expected;
    } numbers[] = {
        {"attention.layer_norm_rms_epsilon", 0.0f, SLUICE_ERROR_FORMAT},
        {"attention.layer_norm_rms_epsilon", NAN, SLUICE_ERROR_FORMAT},
        {"attention.layer_norm_rms_epsilon", INFINITY, SLUICE_ERROR_FORMAT},
        {"attention.scale", -1.0f, SLUICE_ERROR_FORMAT},
        {"rope.freq_base", 0.0f, SLUICE_ERROR_FORMAT},
        {"rope.freq_base", NAN, SLUICE_ERROR_FORMAT},
        {"rope.scaling.factor", -4.0f, SLUICE_ERROR_FORMAT},
        {"rope.scaling.factor", INFINITY, SLUICE_ERROR_FORMAT},
        {"expert_weights_scale", NAN, SLUICE_ERROR_FORMAT},
        {"attention.clamp_kqv", -1.0f, SLUICE_ERROR_FORMAT},
        {"attention.clamp_kqv", NAN, SLUICE_ERROR_FORMAT},
        {"logit_scale", 0.5f, SLUICE_ERROR_UNSUPPORTED},
        {"residual_scale", 0.5f, SLUICE_ERROR_UNSUPPORTED},
        {"embedding_scale", 12.0f, SLUICE_ERROR_UNSUPPORTED},
        {"final_logit_softcapping", 30.0f, SLUICE_ERROR_UNSUPPORTED},
        {"attn_logit_softcapping", 50.0f, SLUICE_ERROR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        recipe_set_f32(begin(test, "olmoe"), numbers[i].key, numbers[i].number);
        expect_refusal(test, numbers[i].expected, numbers[i].key);
    }
}

static void keys_at_their_neutral_value_change_nothing(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "llama");
    recipe_set_f32(r, "logit_scale", 1.0f);
    recipe_set_f32(r, "embedding_scale", 0.0f);
    recipe_set_f32(r, "attn_logit_softcapping", 0.0f);
    recipe_set_u32(r, "expert_group_count", 1);
    recipe_set_f32(r, "attention.clamp_kqv", 0.0f);
    expect_open(test);
}

static void other_context_extensions_are_refused(void **state)
{
    fixture *test = *state;
    static const char *const types[] = {"yarn", "longrope", "dynamic", ""};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        recipe_set_text(begin(test, "qwen3moe"), "rope.scaling.type", types[i]);
        expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "linear scaling and none");
    }
}

static void other_layouts_of_tensors_are_refused(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "qwen3moe");
    recipe_drop_tensor(r, "blk.0.attn_q.weight");
    recipe_add_tensor(r, "blk.0.attn_qkv.weight", RECIPE_EMBD, 128, 1);
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "\"blk.0.attn_qkv.weight\": queries, keys and values are merged");
    r = begin(test, "qwen3moe");
    recipe_drop_tensor(r, "blk.0.ffn_gate_exps.weight");
    recipe_add_tensor(r, "blk.0.ffn_gate_up_exps.weight", RECIPE_EMBD, 2 * RECIPE_FF, RECIPE_EXPERTS);
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "gate and up of the experts are merged");
    recipe_add_tensor(begin(test, "qwen3moe"), "blk.1.ffn_down_exps.scale", RECIPE_EXPERTS, 1, 1);
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "second scale");
}

static void unknown_tensors_are_listed(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "qwen3moe");
    recipe_add_tensor(r, "blk.0.attn_sinks.weight", 4, 1, 1);
    recipe_add_tensor(r, "blk.1.ffn_gate_shexp.weight", RECIPE_EMBD, RECIPE_FF, 1);
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED,
                   "2 tensors are unknown in a qwen3moe model, and leaving them out would give wrong output: "
                   "blk.0.attn_sinks.weight, blk.1.ffn_gate_shexp.weight");
    r = begin(test, "qwen3moe");
    for (uint32_t i = 0; i < 20; i++) {
        char name[96];
        snprintf(name, sizeof name, "extra.%080u", i);
        recipe_add_tensor(r, name, 4, 1, 1);
    }
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "20 tensors are unknown");
    assert_non_null(strstr(test->error.message, ", ..."));
}

static void types_that_cannot_be_computed_with_are_refused(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "qwen3moe");
    recipe_tensor_of(r, "blk.0.attn_k.weight")->type = SL_TYPE_I8;
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "\"blk.0.attn_k.weight\" has type I8");
    r = begin(test, "qwen3moe");
    recipe_tensor_of(r, "blk.1.ffn_up_exps.weight")->type = SL_TYPE_I16;
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "\"blk.1.ffn_up_exps.weight\" has type I16");
    r = begin(test, "qwen3moe");
    recipe_tensor_of(r, "blk.1.ffn_norm.weight")->type = SL_TYPE_F16;
    expect_refusal(test, SLUICE_ERROR_UNSUPPORTED, "norms, biases and factors are expected as F32");
}

static void more_tokens_than_embeddings_are_refused(void **state)
{
    fixture *test = *state;
    recipe *r = begin(test, "llama");
    recipe_key *tokens = recipe_key_of(r, "tokens");
    tokens->type = SL_GGUF_ARRAY;
    tokens->count = 8;
    snprintf(tokens->key, sizeof tokens->key, "tokenizer.ggml.tokens");
    recipe_tensor_of(r, "token_embd.weight")->dims[1] = 7;
    expect_refusal(test, SLUICE_ERROR_FORMAT, "has 7 rows: expected at least one for each of the 8 tokens");
    recipe_tensor_of(r, "token_embd.weight")->dims[1] = 9;
    sl_gguf_close(&test->file);
    assert_int_equal(expect_open(test)->n_vocab, 9);
}

static void every_failed_allocation_is_reported_and_leaks_nothing(void **state)
{
    fixture *test = *state;
    recipe_split_experts(begin(test, "llama"), 0);
    recipe_write(test->recipe, test->path, &test->memory);
    assert_int_equal(sl_gguf_open(&test->file, test->path, &test->memory, NULL, &test->error), SLUICE_OK);
    for (uint64_t n = 0;; n++) {
        sl_memory scarce;
        failing_source source;
        failing_memory_init(&scarce, &source, n);
        sluice_error error = {0};
        sl_program *program = NULL;
        sluice_status status = sl_model_open(&test->model, test->file, &scarce, &error);
        if (status == SLUICE_OK) {
            program = compile(test, false, &scarce, &error);
            status = program != NULL ? SLUICE_OK : error.status;
        }
        sl_program_free(&program);
        sl_model_close(&test->model);
        assert_int_equal(scarce.n_live, 0);
        if (status == SLUICE_OK) {
            assert_true(n > 10);
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
        TEST(the_required_keys_are_enough_for_every_family),
        TEST(an_absent_head_count_kv_is_the_head_count),
        TEST(head_widths_may_differ_from_an_equal_share),
        TEST(an_absent_expert_width_is_an_equal_share),
        TEST(an_absent_shared_width_is_the_dense_width),
        TEST(keys_of_the_router_are_read),
        TEST(linear_rope_scaling_is_read_under_both_names),
        TEST(llama_uses_the_tensor_of_rope_factors_instead_of_the_key),
        TEST(llama_takes_biases_where_they_are),
        TEST(llama_ignores_a_stale_sliding_window),
        TEST(olmoe_clamps_after_the_norm_and_before_the_rotation),
        TEST(a_separate_head_is_used_when_it_is_there),
        TEST(numbers_for_each_layer_may_be_an_array_of_equals),
        TEST(blocks_that_predict_further_tokens_are_skipped),
        TEST(separate_experts_are_read_where_they_lie),
        TEST(separate_experts_must_be_complete_and_alike),
        TEST(expert_matrices_may_have_a_type_each),
        TEST(an_unknown_architecture_is_refused_with_the_known_ones),
        TEST(a_dense_llama_is_refused),
        TEST(every_required_key_is_missed),
        TEST(every_tensor_but_the_head_is_missed),
        TEST(every_wrong_shape_is_found),
        TEST(numbers_beyond_reason_are_refused),
        TEST(floats_beyond_reason_are_refused),
        TEST(keys_at_their_neutral_value_change_nothing),
        TEST(other_context_extensions_are_refused),
        TEST(other_layouts_of_tensors_are_refused),
        TEST(unknown_tensors_are_listed),
        TEST(types_that_cannot_be_computed_with_are_refused),
        TEST(more_tokens_than_embeddings_are_refused),
        TEST(every_failed_allocation_is_reported_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
