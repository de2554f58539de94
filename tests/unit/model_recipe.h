/* Small model files that tests bend: keys and tensors as lists, written with the project's writer. Tensor data is zero.
 * Include after cmocka.h. */
#ifndef SL_TESTS_MODEL_RECIPE_H
#define SL_TESTS_MODEL_RECIPE_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gguf/writer.h"
#include "models/model.h"

enum {
    RECIPE_LAYERS = 2,
    RECIPE_EMBD = 64,
    RECIPE_HEADS = 4,
    RECIPE_KV_HEADS = 2,
    RECIPE_EXPERTS = 4,
    RECIPE_USED = 2,
    RECIPE_FF = 32,
    RECIPE_VOCAB = 40,
    RECIPE_MAX_KEYS = 48,
    RECIPE_MAX_TENSORS = 160
};

typedef struct recipe_key {
    char key[96];
    sl_gguf_type type;   /* U32, F32, BOOL, STRING, or ARRAY of U32 */
    uint32_t numbers[8]; /* [count]; F32 as its bits */
    uint64_t count;
    char text[48];
} recipe_key;

typedef struct recipe_tensor {
    char name[96];
    sl_type type;
    uint64_t dims[SL_GGUF_MAX_DIMS];
} recipe_tensor;

typedef struct recipe {
    char architecture[24];
    recipe_key keys[RECIPE_MAX_KEYS];
    uint32_t n_keys;
    recipe_tensor tensors[RECIPE_MAX_TENSORS];
    uint32_t n_tensors;
} recipe;

/* The key "<architecture>.<name>", made when it is missing. */
static inline recipe_key *recipe_key_of(recipe *r, const char *name)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", r->architecture, name);
    for (uint32_t i = 0; i < r->n_keys; i++) {
        if (strcmp(r->keys[i].key, key) == 0) {
            return &r->keys[i];
        }
    }
    assert_true(r->n_keys < RECIPE_MAX_KEYS);
    recipe_key *made = &r->keys[r->n_keys++];
    memset(made, 0, sizeof *made);
    memcpy(made->key, key, sizeof key);
    made->count = 1;
    return made;
}

static inline void recipe_set_u32(recipe *r, const char *name, uint32_t number)
{
    recipe_key *key = recipe_key_of(r, name);
    key->type = SL_GGUF_U32;
    key->count = 1;
    key->numbers[0] = number;
}

static inline void recipe_set_f32(recipe *r, const char *name, float number)
{
    recipe_key *key = recipe_key_of(r, name);
    key->type = SL_GGUF_F32;
    memcpy(key->numbers, &number, sizeof number);
}

static inline void recipe_set_bool(recipe *r, const char *name, bool truth)
{
    recipe_key *key = recipe_key_of(r, name);
    key->type = SL_GGUF_BOOL;
    key->numbers[0] = truth;
}

static inline void recipe_set_text(recipe *r, const char *name, const char *text)
{
    recipe_key *key = recipe_key_of(r, name);
    key->type = SL_GGUF_STRING;
    snprintf(key->text, sizeof key->text, "%s", text);
}

static inline void recipe_set_array(recipe *r, const char *name, const uint32_t *numbers, uint64_t count)
{
    recipe_key *key = recipe_key_of(r, name);
    key->type = SL_GGUF_ARRAY;
    key->count = count;
    memcpy(key->numbers, numbers, count * sizeof *numbers);
}

static inline void recipe_drop_key(recipe *r, const char *name)
{
    recipe_key *key = recipe_key_of(r, name);
    *key = r->keys[--r->n_keys];
}

static inline recipe_tensor *recipe_tensor_of(recipe *r, const char *name)
{
    for (uint32_t i = 0; i < r->n_tensors; i++) {
        if (strcmp(r->tensors[i].name, name) == 0) {
            return &r->tensors[i];
        }
    }
    fail_msg("the recipe has no tensor %s", name);
    return NULL;
}

static inline void recipe_drop_tensor(recipe *r, const char *name)
{
    recipe_tensor *tensor = recipe_tensor_of(r, name);
    *tensor = r->tensors[--r->n_tensors];
}

static inline void recipe_add_tensor(recipe *r, const char *name, uint64_t columns, uint64_t rows, uint64_t layers)
{
    assert_true(r->n_tensors < RECIPE_MAX_TENSORS);
    recipe_tensor *tensor = &r->tensors[r->n_tensors++];
    *tensor = (recipe_tensor){.type = SL_TYPE_F32, .dims = {columns, rows, layers, 1}};
    snprintf(tensor->name, sizeof tensor->name, "%.95s", name);
}

static inline void recipe_add_in_layer(recipe *r, uint32_t layer, const char *name, uint64_t columns, uint64_t rows,
                                       uint64_t experts)
{
    char full_name[128];
    snprintf(full_name, sizeof full_name, "blk.%u.%s", layer, name);
    recipe_add_tensor(r, full_name, columns, rows, experts);
}

static inline void recipe_add_layer(recipe *r, uint32_t layer, uint64_t head)
{
    const uint64_t q = RECIPE_HEADS * head;
    const uint64_t kv = RECIPE_KV_HEADS * head;
    recipe_add_in_layer(r, layer, "attn_norm.weight", RECIPE_EMBD, 1, 1);
    recipe_add_in_layer(r, layer, "attn_q.weight", RECIPE_EMBD, q, 1);
    recipe_add_in_layer(r, layer, "attn_k.weight", RECIPE_EMBD, kv, 1);
    recipe_add_in_layer(r, layer, "attn_v.weight", RECIPE_EMBD, kv, 1);
    recipe_add_in_layer(r, layer, "attn_output.weight", q, RECIPE_EMBD, 1);
    recipe_add_in_layer(r, layer, "ffn_norm.weight", RECIPE_EMBD, 1, 1);
    recipe_add_in_layer(r, layer, "ffn_gate_inp.weight", RECIPE_EMBD, RECIPE_EXPERTS, 1);
    recipe_add_in_layer(r, layer, "ffn_gate_exps.weight", RECIPE_EMBD, RECIPE_FF, RECIPE_EXPERTS);
    recipe_add_in_layer(r, layer, "ffn_up_exps.weight", RECIPE_EMBD, RECIPE_FF, RECIPE_EXPERTS);
    recipe_add_in_layer(r, layer, "ffn_down_exps.weight", RECIPE_FF, RECIPE_EMBD, RECIPE_EXPERTS);
    if (strcmp(r->architecture, "qwen3moe") == 0) {
        recipe_add_in_layer(r, layer, "attn_q_norm.weight", head, 1, 1);
        recipe_add_in_layer(r, layer, "attn_k_norm.weight", head, 1, 1);
    } else if (strcmp(r->architecture, "olmoe") == 0) {
        recipe_add_in_layer(r, layer, "attn_q_norm.weight", q, 1, 1);
        recipe_add_in_layer(r, layer, "attn_k_norm.weight", kv, 1, 1);
    } else if (strcmp(r->architecture, "qwen2moe") == 0) {
        recipe_add_in_layer(r, layer, "attn_q.bias", q, 1, 1);
        recipe_add_in_layer(r, layer, "attn_k.bias", kv, 1, 1);
        recipe_add_in_layer(r, layer, "attn_v.bias", kv, 1, 1);
        recipe_add_in_layer(r, layer, "ffn_gate_inp_shexp.weight", RECIPE_EMBD, 1, 1);
        recipe_add_in_layer(r, layer, "ffn_gate_shexp.weight", RECIPE_EMBD, RECIPE_FF, 1);
        recipe_add_in_layer(r, layer, "ffn_up_shexp.weight", RECIPE_EMBD, RECIPE_FF, 1);
        recipe_add_in_layer(r, layer, "ffn_down_shexp.weight", RECIPE_FF, RECIPE_EMBD, 1);
    }
}

/* Only the keys that the family requires, and no output.weight. Released with free. */
static inline recipe *recipe_for(const char *architecture)
{
    recipe *r = calloc(1, sizeof *r);
    assert_non_null(r);
    snprintf(r->architecture, sizeof r->architecture, "%s", architecture);
    recipe_set_u32(r, "block_count", RECIPE_LAYERS);
    recipe_set_u32(r, "embedding_length", RECIPE_EMBD);
    recipe_set_u32(r, "context_length", 128);
    recipe_set_u32(r, "attention.head_count", RECIPE_HEADS);
    recipe_set_u32(r, "attention.head_count_kv", RECIPE_KV_HEADS);
    recipe_set_f32(r, "attention.layer_norm_rms_epsilon", 1e-6f);
    recipe_set_u32(r, "expert_count", RECIPE_EXPERTS);
    recipe_set_u32(r, "expert_used_count", RECIPE_USED);
    const bool named_width = strncmp(architecture, "qwen", 4) == 0;
    recipe_set_u32(r, named_width ? "expert_feed_forward_length" : "feed_forward_length", RECIPE_FF);
    if (strcmp(architecture, "qwen2moe") == 0) {
        recipe_set_u32(r, "expert_shared_feed_forward_length", RECIPE_FF);
    }
    recipe_add_tensor(r, "token_embd.weight", RECIPE_EMBD, RECIPE_VOCAB, 1);
    recipe_add_tensor(r, "output_norm.weight", RECIPE_EMBD, 1, 1);
    for (uint32_t layer = 0; layer < RECIPE_LAYERS; layer++) {
        recipe_add_layer(r, layer, RECIPE_EMBD / RECIPE_HEADS);
    }
    return r;
}

/* Replace the stacks of a layer by one tensor for each expert. */
static inline void recipe_split_experts(recipe *r, uint32_t layer)
{
    static const char *const names[] = {"ffn_gate", "ffn_up", "ffn_down"};
    for (uint32_t i = 0; i < 3; i++) {
        char name[96];
        snprintf(name, sizeof name, "blk.%u.%s_exps.weight", layer, names[i]);
        const recipe_tensor stack = *recipe_tensor_of(r, name);
        recipe_drop_tensor(r, name);
        for (uint32_t expert = 0; expert < RECIPE_EXPERTS; expert++) {
            snprintf(name, sizeof name, "%s.%u.weight", names[i], expert);
            recipe_add_in_layer(r, layer, name, stack.dims[0], stack.dims[1], 1);
        }
    }
}

static inline void recipe_write_key(sl_gguf_writer *writer, const recipe_key *key)
{
    sl_span text = sl_span_of(key->text);
    unsigned char truth = key->numbers[0] != 0;
    sl_gguf_value value = {
        .key = sl_span_of(key->key), .type = key->type, .element_type = key->type, .count = key->count};
    value.numbers = key->type == SL_GGUF_BOOL ? (const void *)&truth : key->numbers;
    if (key->type == SL_GGUF_STRING) {
        value.numbers = NULL;
        value.strings = &text;
    } else if (key->type == SL_GGUF_ARRAY) {
        value.element_type = SL_GGUF_U32;
    }
    assert_int_equal(sl_gguf_writer_add_value(writer, &value, NULL), SLUICE_OK);
}

static inline void recipe_write(const recipe *r, const char *path, sl_memory *memory)
{
    static const unsigned char zeros[65536];
    sl_gguf_writer *writer = NULL;
    assert_int_equal(sl_gguf_writer_open(&writer, path, memory, NULL), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_add_string(writer, "general.architecture", r->architecture, NULL), SLUICE_OK);
    for (uint32_t i = 0; i < r->n_keys; i++) {
        recipe_write_key(writer, &r->keys[i]);
    }
    uint64_t n_bytes = 0;
    for (uint32_t i = 0; i < r->n_tensors; i++) {
        const recipe_tensor *t = &r->tensors[i];
        sl_gguf_tensor tensor = {.name = sl_span_of(t->name), .type = t->type, .n_dims = SL_GGUF_MAX_DIMS};
        memcpy(tensor.dims, t->dims, sizeof tensor.dims);
        while (tensor.n_dims > 1 && tensor.dims[tensor.n_dims - 1] == 1) {
            tensor.n_dims--;
        }
        assert_int_equal(sl_gguf_writer_add_tensor(writer, &tensor, NULL), SLUICE_OK);
        n_bytes += sl_type_row_bytes(t->type, t->dims[0]) * t->dims[1] * t->dims[2] * t->dims[3];
    }
    while (n_bytes > 0) {
        uint64_t piece = n_bytes < sizeof zeros ? n_bytes : sizeof zeros;
        assert_int_equal(sl_gguf_writer_write(writer, zeros, piece, NULL), SLUICE_OK);
        n_bytes -= piece;
    }
    assert_int_equal(sl_gguf_writer_commit(writer, NULL), SLUICE_OK);
    sl_gguf_writer_close(&writer);
}

#endif
