/* Owns nothing.
 *
 * Invariants
 *  (1) The shares of the steps add up to the tokens, and differ by at most 1.
 * Threads: any. */
#include "text/transfer_schedule.h"

void sl_transfer_schedule(uint32_t n_tokens, uint32_t n_steps, uint32_t *n_settled)
{
    for (uint32_t step = 0; step < n_steps; step++) {
        n_settled[step] = n_tokens / n_steps + (step < n_tokens % n_steps ? 1 : 0);
    }
}
