/* The tokens of one model: texts, types, and the way from a text to its id. Shared by BPE, SPM and the specials. */
#ifndef SL_TEXT_VOCABULARY_H
#define SL_TEXT_VOCABULARY_H

#include "text/tokenizer.h"

/* From texts to ids of a subset of the tokens. Four bytes a cell: the texts themselves are the vocabulary's. */
typedef struct sl_token_index {
    uint32_t *cells; /* owned; [mask + 1], id + 1 or 0 */
    uint32_t mask;
} sl_token_index;

/* Immutable after open: any thread may read it. */
typedef struct sl_vocabulary {
    sl_memory *memory;     /* borrowed: outlives the vocabulary */
    const sl_span *tokens; /* borrowed; [n_tokens] */
    uint32_t n_tokens;
    uint8_t *types;         /* owned; [n_tokens], sl_token_type */
    sl_token_index plain;   /* tokens that ordinary text is made of: all but special ones and bytes */
    sl_token_index special; /* CONTROL, UNKNOWN and USER_DEFINED */
} sl_vocabulary;

/* On failure the vocabulary is empty; fini is then allowed and does nothing. */
SLUICE_NODISCARD sluice_status sl_vocabulary_open(sl_vocabulary *vocabulary, const sl_vocabulary_spec *spec,
                                                  sl_memory *memory, sluice_error *error);
void sl_vocabulary_fini(sl_vocabulary *vocabulary);

/* The lowest id with this text among plain (special) tokens, or -1. */
int32_t sl_vocabulary_find_plain(const sl_vocabulary *vocabulary, sl_span text);
int32_t sl_vocabulary_find_special(const sl_vocabulary *vocabulary, sl_span text);

/* CONTROL, UNKNOWN and USER_DEFINED tokens are matched whole and never come out of merging. */
static inline bool sl_token_type_is_special(uint8_t type)
{
    return type == SL_TOKEN_CONTROL || type == SL_TOKEN_UNKNOWN || type == SL_TOKEN_USER_DEFINED;
}

/* The byte that a token of type BYTE and text "<0xNN>" stands for; -1 for every other token. */
int sl_vocabulary_byte_of(const sl_vocabulary *vocabulary, uint32_t id);

/* Read element `index` of an array of packed little-endian 32-bit numbers of any alignment. */
uint32_t sl_packed_u32(const void *numbers, size_t index);

#endif
