/* Turning activations into int8 blocks, four elements at a time.
 *
 * Owns: nothing; equals generic/quantize.c bit for bit.
 * Invariants:
 *   1. The largest magnitude is found on the bits as integers, so NaN and infinity come out on top.
 *   2. Codes lie in [-127, 127] before they are narrowed; the conversion rounds to nearest even whatever the mode.
 * Threads: pure functions; any thread. */
#include <string.h>

#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"
#include "kernels/generic/quantize.h"
#include "quant/blocks.h"

static sl_activation_scale scale_of(const float *x, int n)
{
    uint32x4_t largest = vdupq_n_u32(0);
    for (int i = 0; i < n; i += 4) {
        largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
    }
    return sl_activation_scale_of(vmaxvq_u32(largest));
}

/* 16 codes in order. */
SL_ALWAYS_INLINE int8x16_t codes_of(const float *x, float inverse)
{
    int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), inverse));
    int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4), inverse));
    int32x4_t c = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 8), inverse));
    int32x4_t d = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 12), inverse));
    int16x8_t low = vcombine_s16(vmovn_s32(a), vmovn_s32(b));
    int16x8_t high = vcombine_s16(vmovn_s32(c), vmovn_s32(d));
    return vcombine_s8(vmovn_s16(low), vmovn_s16(high));
}

void sl_neon_quantize_row_q8_32(const float *x, uint32_t n, void *out)
{
    sl_block_act_q8_32 *blocks = out;
    for (uint32_t b = 0; b < n / SL_QK; b++, x += SL_QK) {
        sl_activation_scale scale = scale_of(x, SL_QK);
        blocks[b].d = scale.d;
        if (scale.is_zero) {
            blocks[b].sum = 0;
            memset(blocks[b].q, 0, sizeof blocks[b].q);
            continue;
        }
        int8x16_t low = codes_of(x, scale.inverse);
        int8x16_t high = codes_of(x + 16, scale.inverse);
        blocks[b].sum = vaddlvq_s8(low) + vaddlvq_s8(high);
        vst1q_s8(blocks[b].q, low);
        vst1q_s8(blocks[b].q + 16, high);
    }
}

void sl_neon_quantize_row_q8_256(const float *x, uint32_t n, void *out)
{
    sl_block_act_q8_256 *blocks = out;
    for (uint32_t b = 0; b < n / SL_QK_K; b++, x += SL_QK_K) {
        sl_activation_scale scale = scale_of(x, SL_QK_K);
        blocks[b].d = scale.d;
        if (scale.is_zero) {
            memset(blocks[b].sums, 0, sizeof blocks[b].sums);
            memset(blocks[b].q, 0, sizeof blocks[b].q);
            continue;
        }
        for (int group = 0; group < SL_QK_K / 16; group++) {
            int8x16_t codes = codes_of(x + 16 * group, scale.inverse);
            blocks[b].sums[group] = vaddlvq_s8(codes);
            vst1q_s8(blocks[b].q + 16 * group, codes);
        }
    }
}
