/* Reading hyper-parameters.
 *
 * Owns: nothing.
 * Invariants:
 *   1. Every number that leaves this file lies in the range its reader named, so later arithmetic on widths (at most
 *      SL_MODEL_MAX_WIDTH each) cannot overflow 64 bits.
 *   2. A key that would change the result and is not computed is an error, never ignored. attention.sliding_window is
 * the exception: no published model of these families slides, and the key is stale where it stands. Threads: any; the
 * reader is immutable. */
#include "models/keys.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { KEY_BYTES = 128 };

static const char *full_key(const sl_keys *keys, const char *name, char buffer[KEY_BYTES])
{
    snprintf(buffer, KEY_BYTES, "%s.%s", keys->architecture, name);
    return buffer;
}

static const char *path_of(const sl_keys *keys)
{
    return keys->file->files[0].path;
}

bool sl_keys_has(const sl_keys *keys, const char *name)
{
    char key[KEY_BYTES];
    return sl_gguf_find_value(keys->file, full_key(keys, name, key)) != NULL;
}

/* One number for all layers from an array that has one for each. */
static sluice_status read_uniform(const sl_keys *keys, const char *key, const sl_gguf_value *value, uint64_t *number,
                                  sluice_error *error)
{
    if (value->count == 0) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT, "%s: key \"%s\" is an empty array: expected a number",
                            path_of(keys), key);
    }
    SL_TRY(sl_gguf_element_u64(value, 0, number, error));
    for (uint64_t i = 1; i < value->count; i++) {
        uint64_t other = 0;
        SL_TRY(sl_gguf_element_u64(value, i, &other, error));
        if (other != *number) {
            return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                                "%s: key \"%s\" is %" PRIu64 " in layer 0 and %" PRIu64 " in layer %" PRIu64
                                ": this build runs %s models whose layers are all alike",
                                path_of(keys), key, *number, other, i, keys->architecture);
        }
    }
    return SLUICE_OK;
}

sluice_status sl_keys_u32(const sl_keys *keys, const char *name, uint32_t low, uint32_t high, uint32_t *out,
                          sluice_error *error)
{
    char key[KEY_BYTES];
    full_key(keys, name, key);
    const sl_gguf_value *value = sl_gguf_find_value(keys->file, key);
    uint64_t number = 0;
    if (value != NULL && value->type == SL_GGUF_ARRAY && value->numbers != NULL) {
        SL_TRY(read_uniform(keys, key, value, &number, error));
    } else {
        uint32_t scalar = 0;
        SL_TRY(sl_gguf_get_u32(keys->file, key, &scalar, error));
        number = scalar;
    }
    if (number < low || number > high) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: key \"%s\" is %" PRIu64 ": expected %" PRIu32 " to %" PRIu32
                            "; the file is damaged or not made for this architecture",
                            path_of(keys), key, number, low, high);
    }
    *out = (uint32_t)number;
    return SLUICE_OK;
}

sluice_status sl_keys_u32_or(const sl_keys *keys, const char *name, uint32_t fallback, uint32_t low, uint32_t high,
                             uint32_t *out, sluice_error *error)
{
    if (!sl_keys_has(keys, name)) {
        *out = fallback;
        return SLUICE_OK;
    }
    return sl_keys_u32(keys, name, low, high, out, error);
}

sluice_status sl_keys_f32(const sl_keys *keys, const char *name, float low, float high, float *out, sluice_error *error)
{
    char key[KEY_BYTES];
    float number = 0.0f;
    SL_TRY(sl_gguf_get_f32(keys->file, full_key(keys, name, key), &number, error));
    /* Written so that a NaN is outside. */
    if (!(number >= low && number <= high)) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT, "%s: key \"%s\" is %g: expected %g to %g", path_of(keys), key,
                            (double)number, (double)low, (double)high);
    }
    *out = number;
    return SLUICE_OK;
}

sluice_status sl_keys_f32_or(const sl_keys *keys, const char *name, float fallback, float low, float high, float *out,
                             sluice_error *error)
{
    if (!sl_keys_has(keys, name)) {
        *out = fallback;
        return SLUICE_OK;
    }
    return sl_keys_f32(keys, name, low, high, out, error);
}

static const float least_positive = 1e-30f;
static const float greatest = 1e30f;

/* Keys that would change the result, and the value at which each does nothing besides 0. */
static const struct neutral_key {
    const char *name;
    float neutral;
} neutral_keys[] = {
    {"logit_scale", 1.0f},
    {"residual_scale", 1.0f},
    {"embedding_scale", 1.0f},
    {"final_logit_softcapping", 0.0f},
    {"attn_logit_softcapping", 0.0f},
    {"expert_group_count", 1.0f},
};

static sluice_status refuse_uncomputed_keys(const sl_keys *keys, sluice_error *error)
{
    for (size_t i = 0; i < sizeof neutral_keys / sizeof neutral_keys[0]; i++) {
        const struct neutral_key *key = &neutral_keys[i];
        float number = 0.0f;
        SL_TRY(sl_keys_f32_or(keys, key->name, 0.0f, -greatest, greatest, &number, error));
        if (number != 0.0f && number != key->neutral) {
            return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                                "%s: key \"%s.%s\" is %g: this build does not compute it and would give wrong output",
                                path_of(keys), keys->architecture, key->name, (double)number);
        }
    }
    uint32_t gating = 0;
    SL_TRY(sl_keys_u32_or(keys, "expert_gating_func", 0, 0, UINT32_MAX, &gating, error));
    if (gating > 1) {
        return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                            "%s: key \"%s.expert_gating_func\" is %" PRIu32
                            ": this build knows softmax (1, or 0 for the family's own) with this architecture",
                            path_of(keys), keys->architecture, gating);
    }
    return SLUICE_OK;
}

static sluice_status read_attention(const sl_keys *keys, sl_hyper *hyper, sluice_error *error)
{
    SL_TRY(sl_keys_u32(keys, "attention.head_count", 1, SL_MODEL_MAX_HEADS, &hyper->n_heads, error));
    SL_TRY(sl_keys_u32_or(keys, "attention.head_count_kv", hyper->n_heads, 1, SL_MODEL_MAX_HEADS, &hyper->n_kv_heads,
                          error));
    if (hyper->n_heads % hyper->n_kv_heads != 0) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: %" PRIu32 " query heads cannot share %" PRIu32
                            " KV heads: \"%s.attention.head_count\" must be a multiple of head_count_kv",
                            path_of(keys), hyper->n_heads, hyper->n_kv_heads, keys->architecture);
    }
    bool has_length = sl_keys_has(keys, "attention.key_length") && sl_keys_has(keys, "attention.value_length");
    if (!has_length && (hyper->n_embd % hyper->n_heads != 0)) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: embedding_length %" PRIu32 " is no multiple of head_count %" PRIu32
                            " and \"%s.attention.key_length\" or value_length is missing",
                            path_of(keys), hyper->n_embd, hyper->n_heads, keys->architecture);
    }
    uint32_t even_share = hyper->n_embd / hyper->n_heads;
    uint32_t widest = SL_MODEL_MAX_WIDTH / hyper->n_heads;
    SL_TRY(sl_keys_u32_or(keys, "attention.key_length", even_share, 1, widest, &hyper->key_dim, error));
    SL_TRY(sl_keys_u32_or(keys, "attention.value_length", even_share, 1, widest, &hyper->value_dim, error));
    SL_TRY(sl_keys_f32_or(keys, "attention.scale", 0.0f, 0.0f, greatest, &hyper->attention_scale, error));
    if (hyper->attention_scale == 0.0f) {
        hyper->attention_scale = 1.0f / sqrtf((float)hyper->key_dim);
    }
    return SLUICE_OK;
}

/* The factor by which positions are stretched; 1 without scaling. */
static sluice_status read_rope_factor(const sl_keys *keys, float *factor, sluice_error *error)
{
    *factor = 1.0f;
    sl_span type = sl_span_of("linear");
    if (sl_keys_has(keys, "rope.scaling.type")) {
        char key[KEY_BYTES];
        SL_TRY(sl_gguf_get_string(keys->file, full_key(keys, "rope.scaling.type", key), &type, error));
    }
    if (sl_span_equal_text(type, "none")) {
        return SLUICE_OK;
    }
    if (!sl_span_equal_text(type, "linear")) {
        return sl_error_set(
            error, SLUICE_ERROR_UNSUPPORTED,
            "%s: key \"%s.rope.scaling.type\" is \"%.*s\": this build computes linear scaling and none; "
            "use a file of this model without context extension",
            path_of(keys), keys->architecture, SL_SPAN_ARGUMENTS(type));
    }
    const char *name = sl_keys_has(keys, "rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";
    SL_TRY(sl_keys_f32_or(keys, name, 1.0f, 0.0f, 1e6f, factor, error));
    if (*factor == 0.0f) {
        *factor = 1.0f;
    }
    return SLUICE_OK;
}

static sluice_status read_rope(const sl_keys *keys, sl_hyper *hyper, sluice_error *error)
{
    SL_TRY(sl_keys_u32_or(keys, "rope.dimension_count", hyper->key_dim, 1, hyper->key_dim, &hyper->n_rot, error));
    if (hyper->n_rot % 2 != 0) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: %" PRIu32 " rotated dimensions cannot be paired: \"%s.rope.dimension_count\" (or the "
                            "head width it defaults to) must be even",
                            path_of(keys), hyper->n_rot, keys->architecture);
    }
    SL_TRY(sl_keys_f32_or(keys, "rope.freq_base", 10000.0f, 1.0f, greatest, &hyper->rope_base, error));
    float factor = 1.0f;
    SL_TRY(read_rope_factor(keys, &factor, error));
    if (!(factor >= 1e-6f)) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT, "%s: the rope scaling factor %g is too small", path_of(keys),
                            (double)factor);
    }
    hyper->rope_scale = 1.0f / factor;
    return SLUICE_OK;
}

static sluice_status read_experts(const sl_keys *keys, sl_hyper *hyper, sluice_error *error)
{
    SL_TRY(sl_keys_u32_or(keys, "expert_count", 0, 0, SL_MODEL_MAX_EXPERTS, &hyper->n_experts, error));
    if (hyper->n_experts == 0) {
        return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                            "%s: this %s model has no experts (\"%s.expert_count\" is 0 or missing): Sluice runs "
                            "Mixture-of-Experts models",
                            path_of(keys), keys->architecture, keys->architecture);
    }
    uint32_t most = hyper->n_experts < SL_MODEL_MAX_EXPERTS_USED ? hyper->n_experts : SL_MODEL_MAX_EXPERTS_USED;
    SL_TRY(sl_keys_u32(keys, "expert_used_count", 1, most, &hyper->n_experts_used, error));
    return sl_keys_f32_or(keys, "expert_weights_scale", 0.0f, 0.0f, greatest, &hyper->expert_weights_scale, error);
}

/* Every row of the embedding can be chosen; the tokenizer may know fewer tokens where the embedding was padded. */
static sluice_status read_vocabulary(const sl_keys *keys, sl_hyper *hyper, sluice_error *error)
{
    const sl_gguf_tensor *embedding = sl_gguf_find_tensor(keys->file, "token_embd.weight");
    if (embedding == NULL) {
        return sl_error_set(error, SLUICE_ERROR_NOT_FOUND, "%s: tensor \"token_embd.weight\" is missing",
                            path_of(keys));
    }
    const sl_gguf_value *tokens = sl_gguf_find_value(keys->file, "tokenizer.ggml.tokens");
    uint64_t n_tokens = tokens != NULL && tokens->type == SL_GGUF_ARRAY ? tokens->count : 0;
    if (n_tokens > embedding->dims[1] || embedding->dims[1] > SL_DIM_MAX) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: tensor \"token_embd.weight\" has %" PRIu64
                            " rows: expected at least one for each of the "
                            "%" PRIu64 " tokens and at most %" PRIu64,
                            path_of(keys), embedding->dims[1], n_tokens, SL_DIM_MAX);
    }
    hyper->n_vocab = (uint32_t)embedding->dims[1];
    return SLUICE_OK;
}

sluice_status sl_keys_read_common(const sl_keys *keys, sl_hyper *hyper, sluice_error *error)
{
    uint32_t n_predicting = 0;
    SL_TRY(read_experts(keys, hyper, error));
    SL_TRY(sl_keys_u32(keys, "block_count", 1, SL_MODEL_MAX_LAYERS, &hyper->n_blocks, error));
    SL_TRY(sl_keys_u32_or(keys, "nextn_predict_layers", 0, 0, hyper->n_blocks - 1, &n_predicting, error));
    hyper->n_layers = hyper->n_blocks - n_predicting;
    SL_TRY(sl_keys_u32(keys, "embedding_length", 1, SL_MODEL_MAX_WIDTH, &hyper->n_embd, error));
    SL_TRY(sl_keys_u32(keys, "context_length", 1, INT32_MAX, &hyper->n_context_trained, error));
    SL_TRY(sl_keys_f32(keys, "attention.layer_norm_rms_epsilon", least_positive, 1.0f, &hyper->norm_epsilon, error));
    SL_TRY(read_attention(keys, hyper, error));
    SL_TRY(read_rope(keys, hyper, error));
    SL_TRY(read_vocabulary(keys, hyper, error));
    return refuse_uncomputed_keys(keys, error);
}

sluice_status sl_keys_read_expert_width(const sl_keys *keys, sl_hyper *hyper, sluice_error *error)
{
    if (sl_keys_has(keys, "expert_feed_forward_length")) {
        return sl_keys_u32(keys, "expert_feed_forward_length", 1, SL_MODEL_MAX_WIDTH, &hyper->n_ff_expert, error);
    }
    uint32_t n_ff = 0;
    SL_TRY(sl_keys_u32(keys, "feed_forward_length", hyper->n_experts_used, SL_MODEL_MAX_WIDTH, &n_ff, error));
    hyper->n_ff_expert = n_ff / hyper->n_experts_used;
    return SLUICE_OK;
}

sluice_status sl_keys_read_renormalise(const sl_keys *keys, bool fallback, sl_hyper *hyper, sluice_error *error)
{
    hyper->renormalise = fallback;
    if (!sl_keys_has(keys, "expert_weights_norm")) {
        return SLUICE_OK;
    }
    char key[KEY_BYTES];
    return sl_gguf_get_bool(keys->file, full_key(keys, "expert_weights_norm", key), &hyper->renormalise, error);
}
