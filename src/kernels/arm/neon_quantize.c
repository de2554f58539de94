/* Turning activations into int8 blocks, four elements at a time.
 *
 * Owns: nothing; equals generic/quantize.c bit for bit.
 * Invariants:
 *   1. The largest magnitude is found on the bits as integers, so NaN and infinity come out on top.
 *   2. Codes lie in [-127, 127] before they are narrowed, so holding them in int8 changes none.
 * Threads: pure functions; any thread. */
#include <string.h>

#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"
#include "kernels/generic/quantize.h"
#include "quant/blocks.h"

void sl_neon_quantize_row_q8_32(const float *x, uint32_t n, void *out)
{
    sl_block_act_q8_32 *blocks = out;
    for (uint32_t b = 0; b < n / SL_QK; b++, x += SL_QK) {
        sl_activation_scale scale = sl_activation_scale_of(sl_neon_largest_bits(x, SL_QK));
        blocks[b].d = scale.d;
        if (scale.is_zero) {
            blocks[b].sum = 0;
            memset(blocks[b].q, 0, sizeof blocks[b].q);
            continue;
        }
        int8x16_t low = sl_neon_codes(x, scale.inverse);
        int8x16_t high = sl_neon_codes(x + 16, scale.inverse);
        blocks[b].sum = vaddlvq_s8(low) + vaddlvq_s8(high);
        vst1q_s8(blocks[b].q, low);
        vst1q_s8(blocks[b].q + 16, high);
    }
}

void sl_neon_quantize_row_q8_256(const float *x, uint32_t n, void *out)
{
    sl_block_act_q8_256 *blocks = out;
    for (uint32_t b = 0; b < n / SL_QK_K; b++, x += SL_QK_K) {
        sl_activation_scale scale = sl_activation_scale_of(sl_neon_largest_bits(x, SL_QK_K));
        blocks[b].d = scale.d;
        if (scale.is_zero) {
            memset(blocks[b].sums, 0, sizeof blocks[b].sums);
            memset(blocks[b].q, 0, sizeof blocks[b].q);
            continue;
        }
        for (int group = 0; group < SL_QK_K / 16; group++) {
            int8x16_t codes = sl_neon_codes(x + 16 * group, scale.inverse);
            blocks[b].sums[group] = vaddlvq_s8(codes);
            vst1q_s8(blocks[b].q + 16 * group, codes);
        }
    }
}
