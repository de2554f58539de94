/* Cutting text into the pieces inside which a byte-level vocabulary merges. */
#ifndef SL_TEXT_PRETOKENIZER_H
#define SL_TEXT_PRETOKENIZER_H

/* code units are bytes */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/memory.h"
#include "text/pretokenizer_rules.h"

/* Compiled. Immutable after open: any thread may use it. */
typedef struct sl_pretokenizer {
    const sl_pretokenizer_rule *rule;                /* borrowed: static */
    pcre2_general_context *general;                  /* owned; takes its memory from the account */
    pcre2_code *codes[SL_PRETOKENIZER_MAX_PATTERNS]; /* owned; [n_codes] */
    uint32_t n_codes;
} sl_pretokenizer;

/* UNSUPPORTED names the known pre-tokenizers. On failure the pre-tokenizer is empty; fini then does nothing. */
SLUICE_NODISCARD sluice_status sl_pretokenizer_open(sl_pretokenizer *pretokenizer, sl_span name, sl_memory *memory,
                                                    sluice_error *error);
void sl_pretokenizer_fini(sl_pretokenizer *pretokenizer);

/* Receives the pieces in text order. A status other than OK ends the splitting and is handed on. */
typedef sluice_status (*sl_piece_function)(void *user, sl_span piece, sluice_error *error);

/* Cut `text` (any bytes) into pieces that cover it. A run of bytes that are not UTF-8 is a piece of its own, and no
 * pattern sees across it. */
SLUICE_NODISCARD sluice_status sl_pretokenizer_split(const sl_pretokenizer *pretokenizer, sl_span text,
                                                     sl_piece_function take_piece, void *user, sluice_error *error);

#endif
