/* From one row of logits to one token. The order is fixed: repetition penalty, temperature, top-k, top-p, min-p, draw.
 */
#ifndef SL_TEXT_SAMPLER_H
#define SL_TEXT_SAMPLER_H

#include "base/memory.h"
#include "base/error.h"

typedef struct sl_sampler_options {
    float temperature;        /* 0: greedy (the other fields but the penalty are then unused) */
    uint32_t top_k;           /* 0: off */
    float top_p;              /* in (0, 1]; 1: off */
    float min_p;              /* in [0, 1]; 0: off */
    float repetition_penalty; /* > 0; 1: off; logit / penalty when positive, * penalty when negative (CTRL, 2019) */
    uint32_t penalty_window;  /* how many last tokens it looks at; 0: off */
    uint64_t seed;
} sl_sampler_options;

/* thread: owner only. The draw depends on the logits, the options and the number of earlier draws, on nothing else: no
 * libm function whose last bit differs between systems takes part. */
typedef struct sl_sampler sl_sampler;

SLUICE_NODISCARD sluice_status sl_sampler_open(sl_sampler **out, const sl_sampler_options *options, uint32_t n_vocab,
                                               sl_memory *memory, sluice_error *error);
void sl_sampler_close(sl_sampler **sampler);

/* Tell the sampler of a token it did not draw (the prompt), for the penalty. */
void sl_sampler_accept(sl_sampler *sampler, int32_t token);

/* Draw from `logits` [n_vocab] and accept the result. Ties go to the lower id. Allocates nothing. */
int32_t sl_sampler_draw(sl_sampler *sampler, const float *logits);

#endif
