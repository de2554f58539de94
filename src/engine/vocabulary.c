/* Owns nothing. Invariant: every array in the spec has as many elements as the file has tokens (merges aside), and
 * every span points into the reader. Threads: pure functions of an immutable reader. */
#include "engine/vocabulary.h"

/* A missing key leaves the empty span. */
static sluice_status read_string(const sl_gguf *reader, const char *key, sl_span *out, sluice_error *error)
{
    if (sl_gguf_find_value(reader, key) == NULL) {
        *out = (sl_span){"", 0};
        return SLUICE_OK;
    }
    return sl_gguf_get_string(reader, key, out, error);
}

/* A missing key leaves -1. */
static sluice_status read_id(const sl_gguf *reader, const char *key, int32_t *out, sluice_error *error)
{
    *out = -1;
    if (sl_gguf_find_value(reader, key) == NULL) {
        return SLUICE_OK;
    }
    uint32_t id = 0;
    SL_TRY(sl_gguf_get_u32(reader, key, &id, error));
    if (id == UINT32_MAX) {
        return SLUICE_OK; /* how some writers say that there is none */
    }
    if (id > INT32_MAX) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT, "%s: %s is %u, expected a token id", reader->files[0].path, key,
                            id);
    }
    *out = (int32_t)id;
    return SLUICE_OK;
}

/* A missing key leaves the rule to the family. */
static sluice_status read_rule(const sl_gguf *reader, const char *key, sl_rule *out, sluice_error *error)
{
    *out = SL_RULE_DEFAULT;
    if (sl_gguf_find_value(reader, key) == NULL) {
        return SLUICE_OK;
    }
    bool value = false;
    SL_TRY(sl_gguf_get_bool(reader, key, &value, error));
    *out = value ? SL_RULE_YES : SL_RULE_NO;
    return SLUICE_OK;
}

/* A missing key leaves no strings. */
static sluice_status read_strings(const sl_gguf *reader, const char *key, const sl_span **out, uint32_t *count,
                                  sluice_error *error)
{
    *out = NULL;
    *count = 0;
    const sl_gguf_value *value = sl_gguf_find_value(reader, key);
    if (value == NULL) {
        return SLUICE_OK;
    }
    if (value->type != SL_GGUF_ARRAY || value->element_type != SL_GGUF_STRING || value->count > INT32_MAX) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: %s is %s of %llu %s, expected an array of at most %d strings", reader->files[0].path,
                            key, sl_gguf_type_name(value->type), (unsigned long long)value->count,
                            sl_gguf_type_name(value->element_type), INT32_MAX);
    }
    *out = value->strings;
    *count = (uint32_t)value->count;
    return SLUICE_OK;
}

/* A missing key leaves NULL. `also` is a second type of the same width that files use. */
static sluice_status read_numbers(const sl_gguf *reader, const char *key, sl_gguf_type type, sl_gguf_type also,
                                  uint32_t n_tokens, const void **out, sluice_error *error)
{
    *out = NULL;
    const sl_gguf_value *value = sl_gguf_find_value(reader, key);
    if (value == NULL) {
        return SLUICE_OK;
    }
    bool is_known = value->element_type == type || value->element_type == also;
    if (value->type != SL_GGUF_ARRAY || !is_known || value->count != n_tokens) {
        return sl_error_set(
            error, SLUICE_ERROR_FORMAT, "%s: %s is %s of %llu %s, expected an array of %u %s, one for each token",
            reader->files[0].path, key, sl_gguf_type_name(value->type), (unsigned long long)value->count,
            sl_gguf_type_name(value->element_type), n_tokens, sl_gguf_type_name(type));
    }
    *out = value->numbers;
    return SLUICE_OK;
}

static sluice_status read_arrays(const sl_gguf *reader, sl_vocabulary_spec *spec, sluice_error *error)
{
    SL_TRY(read_strings(reader, "tokenizer.ggml.tokens", &spec->tokens, &spec->n_tokens, error));
    if (spec->n_tokens == 0) {
        return sl_error_set(error, SLUICE_ERROR_NOT_FOUND,
                            "%s: no tokens under tokenizer.ggml.tokens; the file has no vocabulary to read text with",
                            reader->files[0].path);
    }
    SL_TRY(read_strings(reader, "tokenizer.ggml.merges", &spec->merges, &spec->n_merges, error));
    SL_TRY(
        read_numbers(reader, "tokenizer.ggml.scores", SL_GGUF_F32, SL_GGUF_F32, spec->n_tokens, &spec->scores, error));
    return read_numbers(reader, "tokenizer.ggml.token_type", SL_GGUF_I32, SL_GGUF_U32, spec->n_tokens, &spec->types,
                        error);
}

static sluice_status read_ids(const sl_gguf *reader, sl_vocabulary_spec *spec, sluice_error *error)
{
    SL_TRY(read_id(reader, "tokenizer.ggml.bos_token_id", &spec->bos_id, error));
    SL_TRY(read_id(reader, "tokenizer.ggml.eos_token_id", &spec->eos_id, error));
    SL_TRY(read_id(reader, "tokenizer.ggml.eot_token_id", &spec->eot_id, error));
    SL_TRY(read_id(reader, "tokenizer.ggml.eom_token_id", &spec->eom_id, error));
    SL_TRY(read_id(reader, "tokenizer.ggml.unknown_token_id", &spec->unknown_id, error));
    return read_id(reader, "tokenizer.ggml.padding_token_id", &spec->padding_id, error);
}

sluice_status sl_vocabulary_spec_from_gguf(const sl_gguf *reader, sl_vocabulary_spec *spec, sluice_error *error)
{
    *spec = (sl_vocabulary_spec){0};
    SL_TRY(sl_gguf_get_string(reader, "tokenizer.ggml.model", &spec->model, error));
    SL_TRY(read_string(reader, "tokenizer.ggml.pre", &spec->pre, error));
    SL_TRY(read_arrays(reader, spec, error));
    SL_TRY(read_ids(reader, spec, error));
    SL_TRY(read_rule(reader, "tokenizer.ggml.add_bos_token", &spec->add_bos, error));
    SL_TRY(read_rule(reader, "tokenizer.ggml.add_eos_token", &spec->add_eos, error));
    SL_TRY(read_rule(reader, "tokenizer.ggml.add_space_prefix", &spec->add_space_prefix, error));
    return read_rule(reader, "tokenizer.ggml.remove_extra_whitespaces", &spec->remove_extra_whitespaces, error);
}
