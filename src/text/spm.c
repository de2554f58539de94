/* Owns the ranks of a SentencePiece vocabulary.
 *
 * Invariants
 *  (1) ranks[i] < ranks[j] exactly when score i > score j; no rank is SL_MERGE_NONE.
 *  (2) Cutting at words changes no result: a merge never reaches across a border that no piece spans.
 * Threads: immutable after open; scratch is the caller's. */
#include "text/spm.h"

#include <string.h>

#include "text/utf8.h"

static bool starts_with_space(sl_span text)
{
    return text.length >= SL_SPM_SPACE_BYTES && memcmp(text.data, SL_SPM_SPACE, SL_SPM_SPACE_BYTES) == 0;
}

/* The length of the character at the front; a byte that starts none counts as one. */
static size_t character_length(sl_span text)
{
    size_t length = sl_utf8_decode(text.data, text.length, NULL);
    return length == 0 ? 1 : length;
}

/* The length of the word at the front: its spaces, then everything up to the next space. */
static size_t word_length(sl_span text)
{
    bool in_spaces = true;
    size_t offset = 0;
    while (offset < text.length) {
        sl_span rest = {text.data + offset, text.length - offset};
        bool is_space = starts_with_space(rest);
        if (is_space && !in_spaces) {
            break;
        }
        in_spaces = is_space;
        offset += character_length(rest);
    }
    return offset;
}

static sluice_status read_scores(sl_spm *spm, const void *scores, sluice_error *error)
{
    for (uint32_t id = 0; id < spm->vocabulary->n_tokens; id++) {
        uint32_t bits = scores == NULL ? 0 : sl_packed_u32(scores, id);
        uint32_t magnitude = bits & 0x7fffffffu;
        if (magnitude > 0x7f800000u) {
            return sl_error_set(error, SLUICE_ERROR_FORMAT,
                                "vocabulary: the score of token %u is not a number; the file is damaged", id);
        }
        /* Positive floats order as their bits, negative ones against them; both zeros are one value. */
        spm->ranks[id] = bits >> 31 == 0 || magnitude == 0 ? 0x7fffffffu - magnitude : 0x7fffffffu + magnitude;
    }
    return SLUICE_OK;
}

static void inspect_tokens(sl_spm *spm)
{
    memset(spm->byte_tokens, 0xff, sizeof spm->byte_tokens);
    spm->cuts_at_words = true;
    for (uint32_t id = 0; id < spm->vocabulary->n_tokens; id++) {
        int byte = sl_vocabulary_byte_of(spm->vocabulary, id);
        if (byte >= 0) {
            spm->byte_tokens[byte] = spm->byte_tokens[byte] < 0 ? (int32_t)id : spm->byte_tokens[byte];
        } else if (!sl_token_type_is_special(spm->vocabulary->types[id]) &&
                   word_length(spm->vocabulary->tokens[id]) != spm->vocabulary->tokens[id].length) {
            spm->cuts_at_words = false;
        }
    }
}

sluice_status sl_spm_open(sl_spm *spm, const sl_vocabulary *vocabulary, const sl_vocabulary_spec *spec,
                          int32_t unknown_id, sluice_error *error)
{
    *spm = (sl_spm){.vocabulary = vocabulary,
                    .unknown_id = unknown_id,
                    .collapses_whitespace = spec->remove_extra_whitespaces == SL_RULE_YES};
    spm->ranks = sl_alloc(vocabulary->memory, SL_MEMORY_TEXT, vocabulary->n_tokens, sizeof *spm->ranks);
    if (spm->ranks == NULL) {
        return sl_error_no_memory(error, vocabulary->n_tokens * sizeof *spm->ranks, "the scores of the tokenizer");
    }
    sluice_status status = read_scores(spm, spec->scores, error);
    if (status != SLUICE_OK) {
        sl_spm_fini(spm);
        return status;
    }
    inspect_tokens(spm);
    return SLUICE_OK;
}

void sl_spm_fini(sl_spm *spm)
{
    if (spm->vocabulary != NULL) {
        sl_free(spm->vocabulary->memory, spm->ranks);
    }
    *spm = (sl_spm){0};
}

/* What the words of one text share. */
typedef struct encoding_state {
    const sl_spm *spm; /* borrowed */
    sl_merger *merger; /* borrowed */
    sl_id_list *ids;   /* borrowed */
    sl_span word;
} encoding_state;

static uint32_t rank_of_pair(const void *context, const sl_symbol *left, const sl_symbol *right, int32_t *merged_id)
{
    const encoding_state *encoding = context;
    sl_span joined = {encoding->word.data + left->start, (size_t)left->length + right->length};
    *merged_id = sl_vocabulary_find_plain(encoding->spm->vocabulary, joined);
    return *merged_id < 0 ? SL_MERGE_NONE : encoding->spm->ranks[*merged_id];
}

static sluice_status append_id(sl_id_list *ids, int32_t id, sluice_error *error)
{
    return sl_id_list_append(ids, id) ? SLUICE_OK : sl_error_no_memory(error, ids->count * 8ull, "token ids");
}

/* A character that is no piece: its bytes, or one unknown token for a run of them. */
static sluice_status append_unknown(const encoding_state *encoding, sl_span text, bool *after_unknown,
                                    sluice_error *error)
{
    const sl_spm *spm = encoding->spm;
    if (starts_with_space(text)) {
        text = (sl_span){" ", 1};
    }
    for (size_t i = 0; i < text.length; i++) {
        unsigned char byte = (unsigned char)text.data[i];
        int32_t id = spm->byte_tokens[byte];
        if (id < 0 && spm->unknown_id < 0) {
            return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                                "tokenizer: the vocabulary has no token for byte 0x%02x and no unknown token; it "
                                "cannot express this text",
                                byte);
        }
        if (id >= 0) {
            SL_TRY(append_id(encoding->ids, id, error));
        } else if (!*after_unknown) {
            SL_TRY(append_id(encoding->ids, spm->unknown_id, error));
        }
        *after_unknown = id < 0;
    }
    return SLUICE_OK;
}

static sluice_status encode_word(const encoding_state *encoding, sluice_error *error)
{
    sl_merger *merger = encoding->merger;
    sl_span word = encoding->word;
    if (word.length >= SL_MERGE_NONE / 2) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "tokenizer: one word of the text has %zu bytes, at most %u",
                            word.length, SL_MERGE_NONE / 2);
    }
    if (!sl_merger_reserve(merger, word.length)) {
        return sl_error_no_memory(error, word.length * sizeof *merger->symbols, "merging a word of text");
    }
    size_t n_symbols = 0;
    for (size_t offset = 0; offset < word.length; n_symbols++) {
        size_t length = character_length((sl_span){word.data + offset, word.length - offset});
        sl_symbol *symbol = &merger->symbols[n_symbols];
        *symbol = (sl_symbol){.start = (uint32_t)offset, .length = (uint32_t)length};
        symbol->id = sl_vocabulary_find_plain(encoding->spm->vocabulary, (sl_span){word.data + offset, length});
        offset += length;
    }
    sl_merger_run(merger, n_symbols, rank_of_pair, encoding);
    bool after_unknown = false;
    for (uint32_t i = 0; i != SL_MERGE_NONE; i = merger->symbols[i].next) {
        const sl_symbol *symbol = &merger->symbols[i];
        if (symbol->id >= 0) {
            after_unknown = false;
            SL_TRY(append_id(encoding->ids, symbol->id, error));
            continue;
        }
        sl_span text = {word.data + symbol->start, symbol->length};
        SL_TRY(append_unknown(encoding, text, &after_unknown, error));
    }
    return SLUICE_OK;
}

/* Append `text` with its spaces as U+2581; collapsing drops those at the ends and doubled ones. */
static bool escape_spaces(sl_span text, bool collapse, sl_text *escaped)
{
    if (collapse) {
        while (text.length > 0 && text.data[0] == ' ') {
            text = (sl_span){text.data + 1, text.length - 1};
        }
        while (text.length > 0 && text.data[text.length - 1] == ' ') {
            text.length--;
        }
    }
    size_t start = 0;
    for (size_t i = 0; i <= text.length; i++) {
        if (i < text.length && text.data[i] != ' ') {
            continue;
        }
        if (!sl_text_append(escaped, text.data + start, i - start)) {
            return false;
        }
        start = i + 1;
        bool dropped = i == text.length || (collapse && text.data[i - 1] == ' ');
        if (!dropped && !sl_text_append(escaped, SL_SPM_SPACE, SL_SPM_SPACE_BYTES)) {
            return false;
        }
    }
    return true;
}

sluice_status sl_spm_encode(const sl_spm *spm, sl_span text, bool space_prefix, sl_merger *merger, sl_id_list *ids,
                            sluice_error *error)
{
    encoding_state encoding = {.spm = spm, .merger = merger, .ids = ids};
    sl_text escaped;
    sl_text_init(&escaped, spm->vocabulary->memory, SL_MEMORY_TEXT);
    sluice_status status = SLUICE_OK;
    if ((space_prefix && !sl_text_append(&escaped, SL_SPM_SPACE, SL_SPM_SPACE_BYTES)) ||
        !escape_spaces(text, spm->collapses_whitespace, &escaped)) {
        status = sl_error_no_memory(error, text.length, "the text to encode");
    }
    for (size_t offset = 0; offset < escaped.length && status == SLUICE_OK; offset += encoding.word.length) {
        encoding.word = (sl_span){escaped.data + offset, escaped.length - offset};
        if (spm->cuts_at_words) {
            encoding.word.length = word_length(encoding.word);
        }
        status = encode_word(&encoding, error);
    }
    sl_text_fini(&escaped);
    return status;
}
