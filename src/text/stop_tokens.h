/* At which tokens generation stops. */
#ifndef SL_TEXT_STOP_TOKENS_H
#define SL_TEXT_STOP_TOKENS_H

#include "text/vocabulary.h"

enum { SL_STOP_TOKENS_MAX = 96 };

/* Immutable after set-up: any thread may read it. */
typedef struct sl_stop_tokens {
    int32_t ids[SL_STOP_TOKENS_MAX];
    uint32_t n_ids;
} sl_stop_tokens;

/* Collect the ids the file names and the tokens with a known stop text. `named` may hold -1. */
void sl_stop_tokens_collect(sl_stop_tokens *stops, const sl_vocabulary *vocabulary, const int32_t *named,
                            size_t n_named);

bool sl_stop_tokens_contain(const sl_stop_tokens *stops, int32_t token);

#endif
