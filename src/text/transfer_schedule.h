/* How many masked tokens of a block each step of block diffusion settles, where confidence alone settles fewer. */
#ifndef SL_TEXT_TRANSFER_SCHEDULE_H
#define SL_TEXT_TRANSFER_SCHEDULE_H

#include <stdint.h>

/* Spread `n_tokens` over `n_steps` steps as evenly as whole tokens allow, the larger shares first. Fills `n_settled`
 * [n_steps]. */
void sl_transfer_schedule(uint32_t n_tokens, uint32_t n_steps, uint32_t *n_settled);

#endif
