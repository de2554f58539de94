/* Owns the merge table and the compiled pre-tokenizer of a byte-level vocabulary.
 *
 * Invariants
 *  (1) merges[first_of_left[l] .. first_of_left[l + 1]) are the merges of left part l, by right part, then rank.
 *  (2) Only plain tokens merge and come out of merging; a merge that names anything else can never apply and is left
 *      out.
 *  (3) Every byte of a text becomes a token; a byte the vocabulary cannot express becomes U+FFFD. Only bytes that no
 *      well-formed UTF-8 contains are missing from published vocabularies.
 * Threads: immutable after open; scratch is the caller's. */
#include "text/bpe.h"

#include <string.h>

#include "text/byte_map.h"
#include "text/utf8.h"

/* A merge before it is filed under its left part. */
typedef struct parsed_merge {
    uint32_t left;
    sl_bpe_merge merge;
} parsed_merge;

static sluice_status parse_merge(const sl_vocabulary *vocabulary, sl_span text, uint32_t rank, sl_text *joined,
                                 parsed_merge *parsed, bool *usable, sluice_error *error)
{
    const char *space = text.length < 3 ? NULL : memchr(text.data + 1, ' ', text.length - 2);
    if (space == NULL) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "tokenizer: merge %u is \"%.*s\", expected two parts with a space between; the file is "
                            "damaged",
                            rank, SL_SPAN_ARGUMENTS(text));
    }
    sl_span left = {text.data, (size_t)(space - text.data)};
    sl_span right = {space + 1, text.length - left.length - 1};
    joined->length = 0;
    if (!sl_text_append(joined, left.data, left.length) || !sl_text_append(joined, right.data, right.length)) {
        return sl_error_no_memory(error, text.length, "a merge");
    }
    int32_t left_id = sl_vocabulary_find_plain(vocabulary, left);
    int32_t right_id = sl_vocabulary_find_plain(vocabulary, right);
    int32_t merged_id = sl_vocabulary_find_plain(vocabulary, (sl_span){joined->data, joined->length});
    *usable = left_id >= 0 && right_id >= 0 && merged_id >= 0;
    if (*usable) {
        *parsed = (parsed_merge){(uint32_t)left_id, {(uint32_t)right_id, rank, merged_id}};
    }
    return SLUICE_OK;
}

static sluice_status parse_merges(const sl_vocabulary *vocabulary, const sl_vocabulary_spec *spec, parsed_merge *parsed,
                                  uint32_t *n_parsed, sluice_error *error)
{
    sl_text joined;
    sl_text_init(&joined, vocabulary->memory, SL_MEMORY_TEXT);
    sluice_status status = SLUICE_OK;
    *n_parsed = 0;
    for (uint32_t rank = 0; rank < spec->n_merges && status == SLUICE_OK; rank++) {
        bool usable = false;
        status = parse_merge(vocabulary, spec->merges[rank], rank, &joined, &parsed[*n_parsed], &usable, error);
        *n_parsed += usable;
    }
    sl_text_fini(&joined);
    return status;
}

/* Turn counts in [1..n] into where each group begins. */
static void sum_up(uint32_t *first, uint32_t n)
{
    for (uint32_t i = 1; i <= n; i++) {
        first[i] += first[i - 1];
    }
}

/* Two stable counting sorts, by right part and then by left part; `order` and `place` are scratch. */
static void sort_merges(sl_bpe *bpe, const parsed_merge *parsed, uint32_t n_parsed, uint32_t *order, uint32_t *place)
{
    uint32_t n_tokens = bpe->vocabulary->n_tokens;
    for (uint32_t i = 0; i < n_parsed; i++) {
        place[parsed[i].merge.right + 1]++;
        bpe->first_of_left[parsed[i].left + 1]++;
    }
    sum_up(place, n_tokens);
    sum_up(bpe->first_of_left, n_tokens);
    for (uint32_t i = 0; i < n_parsed; i++) {
        order[place[parsed[i].merge.right]++] = i;
    }
    memcpy(place, bpe->first_of_left, n_tokens * sizeof *place);
    for (uint32_t i = 0; i < n_parsed; i++) {
        const parsed_merge *next = &parsed[order[i]];
        bpe->merges[place[next->left]++] = next->merge;
    }
}

static sluice_status open_merges(sl_bpe *bpe, const sl_vocabulary_spec *spec, sluice_error *error)
{
    sl_memory *memory = bpe->vocabulary->memory;
    uint32_t n_tokens = bpe->vocabulary->n_tokens;
    uint32_t n_parsed = 0;
    parsed_merge *parsed = sl_alloc(memory, SL_MEMORY_TEXT, spec->n_merges, sizeof *parsed);
    uint32_t *order = sl_alloc(memory, SL_MEMORY_TEXT, spec->n_merges, sizeof *order);
    uint32_t *place = sl_alloc(memory, SL_MEMORY_TEXT, (size_t)n_tokens + 1, sizeof *place);
    bpe->first_of_left = sl_alloc(memory, SL_MEMORY_TEXT, (size_t)n_tokens + 1, sizeof *bpe->first_of_left);
    sluice_status status;
    if (parsed == NULL || order == NULL || place == NULL || bpe->first_of_left == NULL) {
        status = sl_error_no_memory(error, spec->n_merges * sizeof *parsed, "the merges of the tokenizer");
    } else {
        status = parse_merges(bpe->vocabulary, spec, parsed, &n_parsed, error);
    }
    if (status == SLUICE_OK) {
        bpe->merges = sl_alloc(memory, SL_MEMORY_TEXT, n_parsed, sizeof *bpe->merges);
        if (bpe->merges == NULL) {
            status = sl_error_no_memory(error, n_parsed * sizeof *bpe->merges, "the merges of the tokenizer");
        } else {
            sort_merges(bpe, parsed, n_parsed, order, place);
        }
    }
    sl_free(memory, place);
    sl_free(memory, order);
    sl_free(memory, parsed);
    return status;
}

static void find_byte_tokens(sl_bpe *bpe)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        char text[4];
        size_t length = sl_utf8_encode(sl_byte_map_character((unsigned char)byte), text);
        bpe->byte_tokens[byte] = sl_vocabulary_find_plain(bpe->vocabulary, (sl_span){text, length});
    }
    bpe->replacement[0] = bpe->byte_tokens[0xef];
    bpe->replacement[1] = bpe->byte_tokens[0xbf];
    bpe->replacement[2] = bpe->byte_tokens[0xbd];
    if (bpe->replacement[1] < 0 || bpe->replacement[2] < 0) {
        bpe->replacement[0] = -1;
    }
}

sluice_status sl_bpe_open(sl_bpe *bpe, const sl_vocabulary *vocabulary, const sl_vocabulary_spec *spec,
                          sluice_error *error)
{
    *bpe = (sl_bpe){.vocabulary = vocabulary};
    SL_TRY(sl_pretokenizer_open(&bpe->pretokenizer, spec->pre, vocabulary->memory, error));
    find_byte_tokens(bpe);
    sluice_status status = open_merges(bpe, spec, error);
    if (status != SLUICE_OK) {
        sl_bpe_fini(bpe);
    }
    return status;
}

void sl_bpe_fini(sl_bpe *bpe)
{
    if (bpe->vocabulary == NULL) {
        return;
    }
    sl_free(bpe->vocabulary->memory, bpe->first_of_left);
    sl_free(bpe->vocabulary->memory, bpe->merges);
    sl_pretokenizer_fini(&bpe->pretokenizer);
    *bpe = (sl_bpe){0};
}

static uint32_t rank_of_pair(const void *context, const sl_symbol *left, const sl_symbol *right, int32_t *merged_id)
{
    const sl_bpe *bpe = context;
    if (left->id < 0 || right->id < 0) {
        return SL_MERGE_NONE;
    }
    uint32_t low = bpe->first_of_left[left->id];
    uint32_t end = bpe->first_of_left[left->id + 1];
    uint32_t high = end;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (bpe->merges[middle].right < (uint32_t)right->id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == end || bpe->merges[low].right != (uint32_t)right->id) {
        return SL_MERGE_NONE;
    }
    *merged_id = bpe->merges[low].merged;
    return bpe->merges[low].rank;
}

/* What the pieces of one text share. */
typedef struct encoding_state {
    const sl_bpe *bpe;  /* borrowed */
    sl_merger *merger;  /* borrowed */
    sl_id_list *ids;    /* borrowed */
    sl_text characters; /* owned by sl_bpe_encode: a piece in the byte alphabet */
} encoding_state;

static sluice_status append_id(sl_id_list *ids, int32_t id, sluice_error *error)
{
    return sl_id_list_append(ids, id) ? SLUICE_OK : sl_error_no_memory(error, ids->count * 8ull, "token ids");
}

static sluice_status append_missing_byte(const sl_bpe *bpe, unsigned char byte, sl_id_list *ids, sluice_error *error)
{
    if (bpe->replacement[0] < 0) {
        return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                            "tokenizer: the vocabulary has no token for byte 0x%02x and none for U+FFFD either; it "
                            "cannot express this text",
                            byte);
    }
    for (size_t i = 0; i < 3; i++) {
        SL_TRY(append_id(ids, bpe->replacement[i], error));
    }
    return SLUICE_OK;
}

/* The token that the whole piece is, or -1; `error` is set when memory is refused. */
static sluice_status find_whole_piece(encoding_state *encoding, sl_span piece, int32_t *id, sluice_error *error)
{
    encoding->characters.length = 0;
    for (size_t i = 0; i < piece.length; i++) {
        char character[4];
        size_t length = sl_utf8_encode(sl_byte_map_character((unsigned char)piece.data[i]), character);
        if (!sl_text_append(&encoding->characters, character, length)) {
            return sl_error_no_memory(error, piece.length * 2ull, "a piece of text");
        }
    }
    *id = sl_vocabulary_find_plain(encoding->bpe->vocabulary,
                                   (sl_span){encoding->characters.data, encoding->characters.length});
    return SLUICE_OK;
}

static sluice_status merge_piece(const encoding_state *encoding, sl_span piece, sluice_error *error)
{
    const sl_bpe *bpe = encoding->bpe;
    sl_merger *merger = encoding->merger;
    if (piece.length >= SL_MERGE_NONE / 2) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "tokenizer: one piece of the text has %zu bytes, at most %u",
                            piece.length, SL_MERGE_NONE / 2);
    }
    if (!sl_merger_reserve(merger, piece.length)) {
        return sl_error_no_memory(error, piece.length * sizeof *merger->symbols, "merging a piece of text");
    }
    for (size_t i = 0; i < piece.length; i++) {
        merger->symbols[i] =
            (sl_symbol){.start = (uint32_t)i, .length = 1, .id = bpe->byte_tokens[(unsigned char)piece.data[i]]};
    }
    sl_merger_run(merger, piece.length, rank_of_pair, bpe);
    for (uint32_t i = 0; i != SL_MERGE_NONE; i = merger->symbols[i].next) {
        const sl_symbol *symbol = &merger->symbols[i];
        SL_TRY(symbol->id >= 0 ? append_id(encoding->ids, symbol->id, error)
                               : append_missing_byte(bpe, (unsigned char)piece.data[i], encoding->ids, error));
    }
    return SLUICE_OK;
}

static sluice_status encode_piece(void *user, sl_span piece, sluice_error *error)
{
    encoding_state *encoding = user;
    if (encoding->bpe->pretokenizer.rule->ignore_merges) {
        int32_t id = -1;
        SL_TRY(find_whole_piece(encoding, piece, &id, error));
        if (id >= 0) {
            return append_id(encoding->ids, id, error);
        }
    }
    return merge_piece(encoding, piece, error);
}

sluice_status sl_bpe_encode(const sl_bpe *bpe, sl_span text, sl_merger *merger, sl_id_list *ids, sluice_error *error)
{
    encoding_state encoding = {.bpe = bpe, .merger = merger, .ids = ids};
    sl_text_init(&encoding.characters, bpe->vocabulary->memory, SL_MEMORY_TEXT);
    sluice_status status = sl_pretokenizer_split(&bpe->pretokenizer, text, encode_piece, &encoding, error);
    sl_text_fini(&encoding.characters);
    return status;
}
