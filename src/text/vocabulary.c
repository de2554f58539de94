/* Owns the type array and the two indexes of a vocabulary; the token texts belong to the caller.
 *
 * Invariants
 *  (1) A token is in at most one index, by its type; of several with one text the lowest id is.
 *  (2) Every index is at most half full, so probing ends at an empty cell.
 *  (3) Tokens without a text and tokens that stand for a byte are in no index: no text matches them.
 * Threads: immutable after open. */
#include "text/vocabulary.h"

#include "base/hash.h"

enum { MAX_TOKENS = 1 << 28 };

uint32_t sl_packed_u32(const void *numbers, size_t index)
{
    const unsigned char *bytes = (const unsigned char *)numbers + index * 4;
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static int hexadecimal_digit(char character)
{
    if (character >= '0' && character <= '9') {
        return character - '0';
    }
    if (character >= 'A' && character <= 'F') {
        return character - 'A' + 10;
    }
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

int sl_vocabulary_byte_of(const sl_vocabulary *vocabulary, uint32_t id)
{
    sl_span text = vocabulary->tokens[id];
    if (vocabulary->types[id] != SL_TOKEN_BYTE) {
        return -1;
    }
    if (text.length != 6 || text.data[0] != '<' || text.data[1] != '0' || text.data[2] != 'x' || text.data[5] != '>') {
        return -1;
    }
    int high = hexadecimal_digit(text.data[3]);
    int low = hexadecimal_digit(text.data[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static uint32_t *cell_of(const sl_token_index *index, const sl_span *tokens, sl_span text)
{
    uint32_t position = (uint32_t)sl_hash64(text.data, text.length, 0) & index->mask;
    while (index->cells[position] != 0 && !sl_span_equal(tokens[index->cells[position] - 1], text)) {
        position = (position + 1) & index->mask;
    }
    return &index->cells[position];
}

static bool is_indexed(const sl_vocabulary *vocabulary, uint32_t id, bool special)
{
    return vocabulary->tokens[id].length > 0 && sl_token_type_is_special(vocabulary->types[id]) == special &&
           sl_vocabulary_byte_of(vocabulary, id) < 0;
}

static bool open_index(sl_vocabulary *vocabulary, sl_token_index *index, bool special)
{
    uint32_t count = 0;
    for (uint32_t id = 0; id < vocabulary->n_tokens; id++) {
        count += is_indexed(vocabulary, id, special);
    }
    uint32_t capacity = 16;
    while (capacity < count * 2) {
        capacity *= 2;
    }
    index->cells = sl_alloc(vocabulary->memory, SL_MEMORY_TEXT, capacity, sizeof *index->cells);
    if (index->cells == NULL) {
        return false;
    }
    index->mask = capacity - 1;
    for (uint32_t id = 0; id < vocabulary->n_tokens; id++) {
        if (!is_indexed(vocabulary, id, special)) {
            continue;
        }
        uint32_t *cell = cell_of(index, vocabulary->tokens, vocabulary->tokens[id]);
        if (*cell == 0) {
            *cell = id + 1;
        }
    }
    return true;
}

static sluice_status read_types(sl_vocabulary *vocabulary, const void *types, sluice_error *error)
{
    for (uint32_t id = 0; id < vocabulary->n_tokens; id++) {
        uint32_t type = types == NULL ? SL_TOKEN_NORMAL : sl_packed_u32(types, id);
        if (type > SL_TOKEN_BYTE) {
            return sl_error_set(error, SLUICE_ERROR_FORMAT,
                                "vocabulary: token %u has type %u, expected 0 to %d; the file is damaged", id, type,
                                SL_TOKEN_BYTE);
        }
        vocabulary->types[id] = (uint8_t)type;
    }
    return SLUICE_OK;
}

sluice_status sl_vocabulary_open(sl_vocabulary *vocabulary, const sl_vocabulary_spec *spec, sl_memory *memory,
                                 sluice_error *error)
{
    *vocabulary = (sl_vocabulary){.memory = memory, .tokens = spec->tokens, .n_tokens = spec->n_tokens};
    if (spec->n_tokens == 0 || spec->n_tokens > MAX_TOKENS || spec->tokens == NULL) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT, "vocabulary: %u tokens, expected 1 to %d", spec->n_tokens,
                            MAX_TOKENS);
    }
    vocabulary->types = sl_alloc(memory, SL_MEMORY_TEXT, spec->n_tokens, 1);
    if (vocabulary->types == NULL) {
        return sl_error_no_memory(error, spec->n_tokens, "token types");
    }
    sluice_status status = read_types(vocabulary, spec->types, error);
    if (status == SLUICE_OK &&
        (!open_index(vocabulary, &vocabulary->plain, false) || !open_index(vocabulary, &vocabulary->special, true))) {
        status = sl_error_no_memory(error, spec->n_tokens * 8ull, "the index of the vocabulary");
    }
    if (status != SLUICE_OK) {
        sl_vocabulary_fini(vocabulary);
    }
    return status;
}

void sl_vocabulary_fini(sl_vocabulary *vocabulary)
{
    sl_free(vocabulary->memory, vocabulary->special.cells);
    sl_free(vocabulary->memory, vocabulary->plain.cells);
    sl_free(vocabulary->memory, vocabulary->types);
    *vocabulary = (sl_vocabulary){.memory = vocabulary->memory};
}

int32_t sl_vocabulary_find_plain(const sl_vocabulary *vocabulary, sl_span text)
{
    return (int32_t)*cell_of(&vocabulary->plain, vocabulary->tokens, text) - 1;
}

int32_t sl_vocabulary_find_special(const sl_vocabulary *vocabulary, sl_span text)
{
    return (int32_t)*cell_of(&vocabulary->special, vocabulary->tokens, text) - 1;
}
