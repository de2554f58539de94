/* SentencePiece ("llama"): characters merge in the order of their scores, what is in no piece falls back to bytes. */
#ifndef SL_TEXT_SPM_H
#define SL_TEXT_SPM_H

#include "text/id_list.h"
#include "text/merge.h"
#include "text/vocabulary.h"

/* Immutable after open: any thread may use it. */
typedef struct sl_spm {
    const sl_vocabulary *vocabulary; /* borrowed: outlives it */
    uint32_t *ranks;                 /* owned; [n_tokens], the higher the score the lower the rank */
    int32_t byte_tokens[256];        /* -1: none */
    int32_t unknown_id;              /* -1: none */
    bool cuts_at_words;              /* no piece has a space after something else, so words are encoded one by one */
    bool collapses_whitespace;       /* remove_extra_whitespaces */
} sl_spm;

/* U+2581, which stands for a space inside pieces. */
#define SL_SPM_SPACE "\xe2\x96\x81"
enum { SL_SPM_SPACE_BYTES = 3 };

/* On failure the encoder is empty; fini then does nothing. */
SLUICE_NODISCARD sluice_status sl_spm_open(sl_spm *spm, const sl_vocabulary *vocabulary, const sl_vocabulary_spec *spec,
                                           int32_t unknown_id, sluice_error *error);
void sl_spm_fini(sl_spm *spm);

/* Append the tokens of `text`, which holds no special token; `space_prefix` puts a space in front of it. */
SLUICE_NODISCARD sluice_status sl_spm_encode(const sl_spm *spm, sl_span text, bool space_prefix, sl_merger *merger,
                                             sl_id_list *ids, sluice_error *error);

#endif
