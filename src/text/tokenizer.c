/* Owns one tokenizer: its vocabulary's indexes, the encoder of its model, the rules of the file.
 *
 * Invariants
 *  (1) Exactly one of the two encoders is open, by `is_spm`.
 *  (2) decode(encode(x)) == x for a vocabulary that can express every byte of x. For SPM also: U+2581 reads back as a
 *      space, and remove_extra_whitespaces loses what it removes.
 * Threads: immutable after open; every encoding has its own scratch. */
#include "text/tokenizer.h"

#include <string.h>

#include "text/bpe.h"
#include "text/byte_map.h"
#include "text/specials.h"
#include "text/spm.h"
#include "text/stop_tokens.h"

struct sl_tokenizer {
    sl_memory *memory; /* borrowed: outlives the tokenizer */
    sl_vocabulary vocabulary;
    sl_specials specials;
    sl_bpe bpe;
    sl_spm spm;
    sl_stop_tokens stops;
    bool is_spm;
    int32_t bos_id; /* -1: none */
    int32_t eos_id; /* -1: none */
    bool adds_bos;
    bool adds_eos;
    bool adds_space_prefix; /* SPM only */
};

static bool resolve_rule(sl_rule rule, bool family_default)
{
    return rule == SL_RULE_DEFAULT ? family_default : rule == SL_RULE_YES;
}

static sluice_status check_ids(const sl_vocabulary_spec *spec, sluice_error *error)
{
    const struct {
        const char *name;
        int32_t id;
    } named[] = {{"BOS", spec->bos_id},
                 {"EOS", spec->eos_id},
                 {"EOT", spec->eot_id},
                 {"EOM", spec->eom_id},
                 {"unknown", spec->unknown_id}};
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        if (named[i].id < -1 || (named[i].id >= 0 && (uint32_t)named[i].id >= spec->n_tokens)) {
            return sl_error_set(error, SLUICE_ERROR_FORMAT,
                                "vocabulary: the %s token is %d, expected an id below %u; the file contradicts itself",
                                named[i].name, named[i].id, spec->n_tokens);
        }
    }
    return SLUICE_OK;
}

/* The id the file gives, or the SentencePiece token of that text. */
static int32_t spm_id(const sl_tokenizer *tokenizer, int32_t given, const char *text)
{
    return given >= 0 ? given : sl_vocabulary_find_special(&tokenizer->vocabulary, sl_span_of(text));
}

static sluice_status open_model(sl_tokenizer *tokenizer, const sl_vocabulary_spec *spec, sluice_error *error)
{
    bool adds_bos_by_default;
    tokenizer->bos_id = spec->bos_id;
    tokenizer->eos_id = spec->eos_id;
    if (sl_span_equal_text(spec->model, "gpt2")) {
        SL_TRY(sl_bpe_open(&tokenizer->bpe, &tokenizer->vocabulary, spec, error));
        adds_bos_by_default = tokenizer->bpe.pretokenizer.rule->adds_bos;
    } else if (sl_span_equal_text(spec->model, "llama")) {
        int32_t unknown_id = spm_id(tokenizer, spec->unknown_id, "<unk>");
        SL_TRY(sl_spm_open(&tokenizer->spm, &tokenizer->vocabulary, spec, unknown_id, error));
        tokenizer->is_spm = true;
        tokenizer->bos_id = spm_id(tokenizer, spec->bos_id, "<s>");
        tokenizer->eos_id = spm_id(tokenizer, spec->eos_id, "</s>");
        tokenizer->adds_space_prefix = resolve_rule(spec->add_space_prefix, true);
        adds_bos_by_default = true;
    } else {
        return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                            "tokenizer: the model \"%.*s\" is not supported; known: gpt2 (byte-level BPE), llama "
                            "(SentencePiece)",
                            SL_SPAN_ARGUMENTS(spec->model));
    }
    tokenizer->adds_bos = tokenizer->bos_id >= 0 && resolve_rule(spec->add_bos, adds_bos_by_default);
    tokenizer->adds_eos = tokenizer->eos_id >= 0 && resolve_rule(spec->add_eos, false);
    return SLUICE_OK;
}

static sluice_status open_parts(sl_tokenizer *tokenizer, const sl_vocabulary_spec *spec, sluice_error *error)
{
    SL_TRY(check_ids(spec, error));
    SL_TRY(sl_vocabulary_open(&tokenizer->vocabulary, spec, tokenizer->memory, error));
    SL_TRY(sl_specials_open(&tokenizer->specials, &tokenizer->vocabulary, error));
    SL_TRY(open_model(tokenizer, spec, error));
    const int32_t named[] = {tokenizer->eos_id, spec->eot_id, spec->eom_id};
    sl_stop_tokens_collect(&tokenizer->stops, &tokenizer->vocabulary, named, sizeof named / sizeof named[0]);
    return SLUICE_OK;
}

sluice_status sl_tokenizer_open(sl_tokenizer **out, const sl_vocabulary_spec *spec, sl_memory *memory,
                                sluice_error *error)
{
    *out = NULL;
    sl_tokenizer *tokenizer = sl_alloc(memory, SL_MEMORY_TEXT, 1, sizeof *tokenizer);
    if (tokenizer == NULL) {
        return sl_error_no_memory(error, sizeof *tokenizer, "a tokenizer");
    }
    tokenizer->memory = memory;
    tokenizer->vocabulary.memory = memory;
    sluice_status status = open_parts(tokenizer, spec, error);
    if (status != SLUICE_OK) {
        sl_tokenizer_close(&tokenizer);
        return status;
    }
    *out = tokenizer;
    return SLUICE_OK;
}

void sl_tokenizer_close(sl_tokenizer **tokenizer)
{
    sl_tokenizer *closing = *tokenizer;
    *tokenizer = NULL;
    if (closing == NULL) {
        return;
    }
    sl_spm_fini(&closing->spm);
    sl_bpe_fini(&closing->bpe);
    sl_specials_fini(&closing->specials);
    sl_vocabulary_fini(&closing->vocabulary);
    sl_free(closing->memory, closing);
}

uint32_t sl_tokenizer_size(const sl_tokenizer *tokenizer)
{
    return tokenizer->vocabulary.n_tokens;
}

int32_t sl_tokenizer_bos(const sl_tokenizer *tokenizer)
{
    return tokenizer->bos_id;
}

int32_t sl_tokenizer_eos(const sl_tokenizer *tokenizer)
{
    return tokenizer->eos_id;
}

bool sl_tokenizer_adds_bos(const sl_tokenizer *tokenizer)
{
    return tokenizer->adds_bos;
}

bool sl_tokenizer_adds_eos(const sl_tokenizer *tokenizer)
{
    return tokenizer->adds_eos;
}

bool sl_tokenizer_is_stop(const sl_tokenizer *tokenizer, int32_t token)
{
    return sl_stop_tokens_contain(&tokenizer->stops, token);
}

static sluice_status append_id(sl_id_list *ids, int32_t id, sluice_error *error)
{
    return sl_id_list_append(ids, id) ? SLUICE_OK : sl_error_no_memory(error, ids->count * 8ull, "token ids");
}

/* Text without special tokens. SPM puts its space before the first such text and before one after a special token. */
static sluice_status encode_plain(const sl_tokenizer *tokenizer, sl_span text, bool after_special, sl_merger *merger,
                                  sl_id_list *ids, sluice_error *error)
{
    if (text.length == 0) {
        return SLUICE_OK;
    }
    if (tokenizer->is_spm) {
        return sl_spm_encode(&tokenizer->spm, text, tokenizer->adds_space_prefix && after_special, merger, ids, error);
    }
    return sl_bpe_encode(&tokenizer->bpe, text, merger, ids, error);
}

static sluice_status encode_text(const sl_tokenizer *tokenizer, sl_span text, unsigned flags, sl_merger *merger,
                                 sl_id_list *ids, sluice_error *error)
{
    bool parse_special = (flags & SL_ENCODE_PARSE_SPECIAL) != 0;
    size_t offset = 0;
    while (offset < text.length) {
        sl_span found;
        int32_t special = sl_specials_find(&tokenizer->specials, text, offset, parse_special, &found);
        size_t end = special < 0 ? text.length : (size_t)(found.data - text.data);
        SL_TRY(encode_plain(tokenizer, (sl_span){text.data + offset, end - offset}, true, merger, ids, error));
        if (special < 0) {
            break;
        }
        SL_TRY(append_id(ids, special, error));
        offset = end + found.length;
    }
    return SLUICE_OK;
}

static sluice_status encode_all(const sl_tokenizer *tokenizer, sl_span text, unsigned flags, sl_merger *merger,
                                sl_id_list *ids, sluice_error *error)
{
    if (!sl_id_list_reserve(ids, text.length / 4 + 8)) {
        return sl_error_no_memory(error, text.length, "token ids");
    }
    bool add_special = (flags & SL_ENCODE_ADD_SPECIAL) != 0;
    if (add_special && tokenizer->adds_bos) {
        SL_TRY(append_id(ids, tokenizer->bos_id, error));
    }
    SL_TRY(encode_text(tokenizer, text, flags, merger, ids, error));
    if (add_special && tokenizer->adds_eos) {
        SL_TRY(append_id(ids, tokenizer->eos_id, error));
    }
    return SLUICE_OK;
}

sluice_status sl_tokenizer_encode(const sl_tokenizer *tokenizer, sl_span text, unsigned flags, int32_t **ids,
                                  size_t *n_ids, sluice_error *error)
{
    *ids = NULL;
    *n_ids = 0;
    sl_id_list list = {.memory = tokenizer->memory};
    sl_merger merger;
    sl_merger_init(&merger, tokenizer->memory);
    sluice_status status = encode_all(tokenizer, text, flags, &merger, &list, error);
    sl_merger_fini(&merger);
    if (status != SLUICE_OK) {
        sl_free(tokenizer->memory, list.ids);
        return status;
    }
    *ids = list.ids;
    *n_ids = list.count;
    return SLUICE_OK;
}

/* SPM: U+2581 becomes a space. */
static bool append_unescaped(sl_span text, sl_text *out)
{
    size_t start = 0;
    for (size_t i = 0; i < text.length;) {
        bool is_space =
            text.length - i >= SL_SPM_SPACE_BYTES && memcmp(text.data + i, SL_SPM_SPACE, SL_SPM_SPACE_BYTES) == 0;
        if (!is_space) {
            i++;
            continue;
        }
        if (!sl_text_append(out, text.data + start, i - start) || !sl_text_append(out, " ", 1)) {
            return false;
        }
        i += SL_SPM_SPACE_BYTES;
        start = i;
    }
    return sl_text_append(out, text.data + start, text.length - start);
}

static bool append_piece(const sl_tokenizer *tokenizer, uint32_t token, bool show_special, sl_text *out)
{
    const sl_vocabulary *vocabulary = &tokenizer->vocabulary;
    sl_span text = vocabulary->tokens[token];
    uint8_t type = vocabulary->types[token];
    int byte = sl_vocabulary_byte_of(vocabulary, token);
    if (byte >= 0) {
        unsigned char value = (unsigned char)byte;
        return sl_text_append(out, &value, 1);
    }
    if (sl_token_type_is_special(type)) {
        bool is_shown = show_special || type == SL_TOKEN_USER_DEFINED;
        return sl_text_append(out, text.data, is_shown ? text.length : 0);
    }
    return tokenizer->is_spm ? append_unescaped(text, out) : sl_byte_map_decode(text, out);
}

sluice_status sl_tokenizer_piece(const sl_tokenizer *tokenizer, int32_t token, bool show_special, sl_text *out,
                                 sluice_error *error)
{
    if (token < 0 || (uint32_t)token >= tokenizer->vocabulary.n_tokens) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "token id %d is outside the vocabulary of %u tokens", token,
                            tokenizer->vocabulary.n_tokens);
    }
    size_t before = out->length;
    if (!append_piece(tokenizer, (uint32_t)token, show_special, out)) {
        out->length = before;
        return sl_error_no_memory(error, tokenizer->vocabulary.tokens[token].length, "the text of a token");
    }
    return SLUICE_OK;
}

/* Take back the space that encoding put in front of the text that starts with `token`. */
static void drop_space_prefix(const sl_tokenizer *tokenizer, uint32_t token, sl_text *out, size_t before)
{
    sl_span text = tokenizer->vocabulary.tokens[token];
    bool from_byte = sl_vocabulary_byte_of(&tokenizer->vocabulary, token) == ' ';
    bool from_text = text.length >= SL_SPM_SPACE_BYTES && memcmp(text.data, SL_SPM_SPACE, SL_SPM_SPACE_BYTES) == 0;
    if (from_byte || from_text) {
        memmove(out->data + before, out->data + before + 1, out->length - before);
        out->length--;
    }
}

sluice_status sl_tokenizer_decode(const sl_tokenizer *tokenizer, const int32_t *ids, size_t n_ids, bool show_special,
                                  sl_text *out, sluice_error *error)
{
    bool after_special = true;
    for (size_t i = 0; i < n_ids; i++) {
        size_t before = out->length;
        SL_TRY(sl_tokenizer_piece(tokenizer, ids[i], show_special, out, error));
        bool is_special = sl_token_type_is_special(tokenizer->vocabulary.types[ids[i]]);
        if (tokenizer->adds_space_prefix && after_special && !is_special) {
            drop_space_prefix(tokenizer, (uint32_t)ids[i], out, before);
        }
        after_special = is_special;
    }
    return SLUICE_OK;
}
