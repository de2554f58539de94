/* Byte-level byte-pair encoding: bytes become tokens, neighbours merge in the order of the merge list. */
#ifndef SL_TEXT_BPE_H
#define SL_TEXT_BPE_H

#include "text/id_list.h"
#include "text/merge.h"
#include "text/pretokenizer.h"
#include "text/vocabulary.h"

typedef struct sl_bpe_merge {
    uint32_t right; /* id of the right part */
    uint32_t rank;  /* place in the merge list */
    int32_t merged; /* id of the result */
} sl_bpe_merge;

/* Immutable after open: any thread may use it. */
typedef struct sl_bpe {
    const sl_vocabulary *vocabulary; /* borrowed: outlives it */
    sl_pretokenizer pretokenizer;
    sl_bpe_merge *merges;     /* owned; ordered by left part, then right part, then rank */
    uint32_t *first_of_left;  /* owned; [n_tokens + 1], where the merges of a left part begin */
    int32_t byte_tokens[256]; /* -1: the vocabulary has no token for that byte */
    int32_t replacement[3];   /* the tokens of U+FFFD, for bytes without one; [0] is -1 when it has none either */
} sl_bpe;

/* On failure the encoder is empty; fini then does nothing. */
SLUICE_NODISCARD sluice_status sl_bpe_open(sl_bpe *bpe, const sl_vocabulary *vocabulary, const sl_vocabulary_spec *spec,
                                           sluice_error *error);
void sl_bpe_fini(sl_bpe *bpe);

/* Append the tokens of `text`, which holds no special token. */
SLUICE_NODISCARD sluice_status sl_bpe_encode(const sl_bpe *bpe, sl_span text, sl_merger *merger, sl_id_list *ids,
                                             sluice_error *error);

#endif
