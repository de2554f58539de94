/* Tokens that are matched whole in a text, before anything is merged. */
#ifndef SL_TEXT_SPECIALS_H
#define SL_TEXT_SPECIALS_H

#include "text/vocabulary.h"

/* Immutable after open: any thread may use it. */
typedef struct sl_specials {
    const sl_vocabulary *vocabulary; /* borrowed: outlives it */
    uint32_t *lengths;               /* owned; the distinct lengths of special texts by first byte, longest first */
    uint32_t first_of_byte[257];     /* where a first byte's lengths begin */
} sl_specials;

/* On failure the specials are empty; fini then does nothing. */
SLUICE_NODISCARD sluice_status sl_specials_open(sl_specials *specials, const sl_vocabulary *vocabulary,
                                                sluice_error *error);
void sl_specials_fini(sl_specials *specials);

/* Find the first special token at or after `from`, of several at one place the longest: its id, and where it stands.
 * -1 when there is none. USER_DEFINED tokens always count, the others only with `parse_special`. */
int32_t sl_specials_find(const sl_specials *specials, sl_span text, size_t from, bool parse_special, sl_span *found);

#endif
