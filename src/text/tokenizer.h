/* Text to token ids and back: byte-level BPE and SentencePiece, from the arrays a GGUF file carries. Knows no file. */
#ifndef SL_TEXT_TOKENIZER_H
#define SL_TEXT_TOKENIZER_H

#include <stdbool.h>

#include "base/memory.h"
#include "base/strings.h"

/* tokenizer.ggml.token_type */
typedef enum sl_token_type {
    SL_TOKEN_UNDEFINED = 0,
    SL_TOKEN_NORMAL = 1,
    SL_TOKEN_UNKNOWN = 2,
    SL_TOKEN_CONTROL = 3,
    SL_TOKEN_USER_DEFINED = 4,
    SL_TOKEN_UNUSED = 5,
    SL_TOKEN_BYTE = 6
} sl_token_type;

/* tri-state: the file may leave a rule to the family's default */
typedef enum sl_rule { SL_RULE_DEFAULT = 0, SL_RULE_NO = 1, SL_RULE_YES = 2 } sl_rule;

/* What the file says. Spans and arrays are borrowed only during sl_tokenizer_open unless stated. */
typedef struct sl_vocabulary_spec {
    sl_span model;         /* "gpt2" (BPE) or "llama" (SPM) */
    sl_span pre;           /* pre-tokenizer of BPE, such as "qwen2"; empty: default */
    const sl_span *tokens; /* [n_tokens]; borrowed: outlive the tokenizer */
    uint32_t n_tokens;
    const sl_span *merges; /* [n_merges] "left right"; BPE only; borrowed: outlive the tokenizer */
    uint32_t n_merges;
    const void *scores; /* [n_tokens] packed float; SPM; may be NULL */
    const void *types;  /* [n_tokens] packed int32; may be NULL: all NORMAL */
    int32_t bos_id, eos_id, eot_id, eom_id, unknown_id, padding_id; /* -1: not given */
    sl_rule add_bos, add_eos, add_space_prefix, remove_extra_whitespaces;
} sl_vocabulary_spec;

/* Immutable after open: any thread may use one, each with its own scratch (allocated per call, tag TEXT). */
typedef struct sl_tokenizer sl_tokenizer;

/* Errors: FORMAT for a vocabulary that contradicts itself, UNSUPPORTED for an unknown model or pre-tokenizer (the
 * sentence lists the known ones), NO_MEMORY. */
SLUICE_NODISCARD sluice_status sl_tokenizer_open(sl_tokenizer **out, const sl_vocabulary_spec *spec, sl_memory *memory,
                                                 sluice_error *error);
void sl_tokenizer_close(sl_tokenizer **tokenizer);

uint32_t sl_tokenizer_size(const sl_tokenizer *tokenizer);
int32_t sl_tokenizer_bos(const sl_tokenizer *tokenizer); /* -1: none */
int32_t sl_tokenizer_eos(const sl_tokenizer *tokenizer); /* -1: none */
/* Whether a prompt starts with BOS (ends with EOS) by the file's rule or the family's default. */
bool sl_tokenizer_adds_bos(const sl_tokenizer *tokenizer);
bool sl_tokenizer_adds_eos(const sl_tokenizer *tokenizer);
/* Whether generation stops at this token: eos, eot, eom and the known stop texts of families.md 2.9. */
bool sl_tokenizer_is_stop(const sl_tokenizer *tokenizer, int32_t token);

typedef enum sl_encode_flags {
    SL_ENCODE_PLAIN = 0,
    SL_ENCODE_ADD_SPECIAL = 1,  /* BOS and EOS by the rules */
    SL_ENCODE_PARSE_SPECIAL = 2 /* texts of control tokens in the input become those tokens */
} sl_encode_flags;

/* Encode `text` (any bytes, also invalid UTF-8). `*ids` is allocated with tag TEXT; the caller frees it with sl_free.
 * USER_DEFINED tokens are matched in the text always, CONTROL and UNKNOWN ones only with PARSE_SPECIAL. */
SLUICE_NODISCARD sluice_status sl_tokenizer_encode(const sl_tokenizer *tokenizer, sl_span text, unsigned flags,
                                                   int32_t **ids, size_t *n_ids, sluice_error *error);

/* The bytes of one token as they appear in text (a byte token gives its byte). Control tokens give nothing unless
 * `show_special`. ARGUMENT for an id outside the vocabulary. */
SLUICE_NODISCARD sluice_status sl_tokenizer_piece(const sl_tokenizer *tokenizer, int32_t token, bool show_special,
                                                  sl_text *out, sluice_error *error);

/* Decode a sequence: the inverse of encode, for SPM without the space that encoding put in front. */
SLUICE_NODISCARD sluice_status sl_tokenizer_decode(const sl_tokenizer *tokenizer, const int32_t *ids, size_t n_ids,
                                                   bool show_special, sl_text *out, sluice_error *error);

/* Streaming: holds back the bytes of an unfinished UTF-8 character. thread: owner only. */
typedef struct sl_utf8_stream {
    unsigned char pending[4];
    uint32_t n_pending;
} sl_utf8_stream;

/* Append `bytes` and move every complete character (and every byte that can no longer become one, as it is) to `out`.
 */
SLUICE_NODISCARD bool sl_utf8_stream_push(sl_utf8_stream *stream, const void *bytes, size_t length, sl_text *out);
/* Move what is left to `out`. */
SLUICE_NODISCARD bool sl_utf8_stream_flush(sl_utf8_stream *stream, sl_text *out);

#endif
