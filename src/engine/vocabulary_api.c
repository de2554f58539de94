/* Owns a tokenizer and, when opened by itself, the file it came from. Immutable after open; any thread may use it. */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "engine/vocabulary.h"

sluice_status sl_model_vocabulary_init(sluice_vocabulary *vocabulary, const sl_gguf *file, sl_memory *memory,
                                       sluice_error *error)
{
    vocabulary->memory = memory;
    sl_vocabulary_spec spec;
    SL_TRY(sl_vocabulary_spec_from_gguf(file, &spec, error));
    return sl_tokenizer_open(&vocabulary->tokenizer, &spec, memory, error);
}

void sl_model_vocabulary_fini(sluice_vocabulary *vocabulary)
{
    sl_tokenizer_close(&vocabulary->tokenizer);
    sl_gguf_close(&vocabulary->file);
}

sluice_status sluice_vocabulary_open(sluice_vocabulary **out, const char *path, sluice_error *error)
{
    *out = NULL;
    sluice_vocabulary *vocabulary = calloc(1, sizeof *vocabulary);
    if (vocabulary == NULL) {
        return sl_error_no_memory(error, sizeof *vocabulary, "a vocabulary");
    }
    sl_memory_init(&vocabulary->own_memory, NULL);
    sluice_status status = sl_gguf_open(&vocabulary->file, path, &vocabulary->own_memory, NULL, error);
    if (status == SLUICE_OK) {
        status = sl_model_vocabulary_init(vocabulary, vocabulary->file, &vocabulary->own_memory, error);
    }
    if (status != SLUICE_OK) {
        sluice_vocabulary_close(&vocabulary);
        return status;
    }
    *out = vocabulary;
    return SLUICE_OK;
}

void sluice_vocabulary_close(sluice_vocabulary **vocabulary)
{
    if (*vocabulary == NULL) {
        return;
    }
    sl_model_vocabulary_fini(*vocabulary);
    free(*vocabulary);
    *vocabulary = NULL;
}

uint32_t sluice_vocabulary_size(const sluice_vocabulary *vocabulary)
{
    return sl_tokenizer_size(vocabulary->tokenizer);
}

bool sluice_vocabulary_is_stop(const sluice_vocabulary *vocabulary, int32_t token)
{
    return sl_tokenizer_is_stop(vocabulary->tokenizer, token);
}

sluice_status sluice_tokenize(const sluice_vocabulary *vocabulary, const char *text, size_t length, bool add_special,
                              bool parse_special, int32_t **tokens, size_t *n_tokens, sluice_error *error)
{
    *tokens = NULL;
    *n_tokens = 0;
    unsigned flags = (add_special ? SL_ENCODE_ADD_SPECIAL : 0u) | (parse_special ? SL_ENCODE_PARSE_SPECIAL : 0u);
    int32_t *ids = NULL;
    size_t n_ids = 0;
    sl_span span = {.data = text, .length = length};
    SL_TRY(sl_tokenizer_encode(vocabulary->tokenizer, span, flags, &ids, &n_ids, error));
    int32_t *copy = malloc((n_ids > 0 ? n_ids : 1) * sizeof *copy);
    if (copy != NULL && n_ids > 0) {
        memcpy(copy, ids, n_ids * sizeof *copy);
    }
    sl_free(vocabulary->memory, ids);
    if (copy == NULL) {
        return sl_error_no_memory(error, n_ids * sizeof *copy, "tokens");
    }
    *tokens = copy;
    *n_tokens = n_ids;
    return SLUICE_OK;
}

sluice_status sluice_detokenize(const sluice_vocabulary *vocabulary, const int32_t *tokens, size_t n_tokens,
                                bool show_special, char **text, size_t *length, sluice_error *error)
{
    *text = NULL;
    *length = 0;
    sl_text decoded;
    sl_text_init(&decoded, vocabulary->memory, SL_MEMORY_TEXT);
    sluice_status status = sl_tokenizer_decode(vocabulary->tokenizer, tokens, n_tokens, show_special, &decoded, error);
    if (status == SLUICE_OK) {
        *text = malloc(decoded.length + 1);
        if (*text == NULL) {
            status = sl_error_no_memory(error, decoded.length + 1, "decoded text");
        } else {
            if (decoded.length > 0) {
                memcpy(*text, decoded.data, decoded.length);
            }
            (*text)[decoded.length] = '\0';
            *length = decoded.length;
        }
    }
    sl_text_fini(&decoded);
    return status;
}

void sluice_free(void *pointer)
{
    free(pointer);
}
