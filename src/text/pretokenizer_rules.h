/* The known pre-tokenizers as data: which patterns, which habits, which names. */
#ifndef SL_TEXT_PRETOKENIZER_RULES_H
#define SL_TEXT_PRETOKENIZER_RULES_H

#include "base/strings.h"

enum { SL_PRETOKENIZER_MAX_PATTERNS = 6 };

/* One row of the table. */
typedef struct sl_pretokenizer_rule {
    const char *name;
    /* Applied in turn, each to the pieces of the one before; what a pattern leaves between matches is a piece too. */
    const char *patterns[SL_PRETOKENIZER_MAX_PATTERNS];
    bool ignore_merges; /* a piece that is a token is that token, whatever its merges would give */
    bool adds_bos;      /* unless the file says otherwise */
} sl_pretokenizer_rule;

/* By canonical name or alias; NULL when unknown. An empty name is the default. */
const sl_pretokenizer_rule *sl_pretokenizer_rule_find(sl_span name);

/* The rows and the aliases in order; NULL past the end. */
const sl_pretokenizer_rule *sl_pretokenizer_rule_at(size_t index);
const char *sl_pretokenizer_alias_at(size_t index);

#endif
