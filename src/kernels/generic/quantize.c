/* Turning activations into int8 blocks.
 *
 * Owns: the definition of both activation forms.
 * Invariants:
 *   1. d = max|x| / 127 and q = x (127 / max|x|) rounded to nearest even; |q| <= 127, because max|x| (127 / max|x|) is
 * off 127 by less than a half.
 *   2. A block whose max|x| is below 2^-100 counts as zero: d = 0, q = 0. So 127 / max|x| is finite.
 *   3. A block with a NaN or an infinity has d = NaN, q = 0: every product with it is NaN, and nothing is out of range.
 *   4. The maximum is taken over the bits of |x| as integers, whose order is that of the values with infinity and NaN
 * on top: it does not depend on the order of comparison. Threads: pure functions; any thread. */
#include <math.h>

#include "kernels/generic/generic.h"
#include "kernels/generic/quantize.h"
#include "quant/blocks.h"
#include "quant/half.h"

static uint32_t largest_magnitude_bits(const float *x, uint32_t n)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t magnitude = sl_float_bits(x[i]) & UINT32_C(0x7fffffff);
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

/* Adding 1.5 * 2^23 rounds |value| < 2^22 to the nearest integer, ties to even. */
static int8_t round_to_int8(float value)
{
    return (int8_t)(int32_t)((value + 0x1.8p+23f) - 0x1.8p+23f);
}

/* Codes of one block of n elements; returns d. */
static float quantize_block(const float *x, uint32_t n, int8_t *q)
{
    sl_activation_scale scale = sl_activation_scale_of(largest_magnitude_bits(x, n));
    for (uint32_t i = 0; i < n; i++) {
        q[i] = scale.is_zero ? 0 : round_to_int8(x[i] * scale.inverse);
    }
    return scale.d;
}

void sl_generic_quantize_row_q8_32(const float *x, uint32_t n, void *out)
{
    sl_block_act_q8_32 *blocks = out;
    for (uint32_t b = 0; b < n / SL_QK; b++) {
        blocks[b].d = quantize_block(x + (size_t)b * SL_QK, SL_QK, blocks[b].q);
        int32_t sum = 0;
        for (unsigned j = 0; j < SL_QK; j++) {
            sum += blocks[b].q[j];
        }
        blocks[b].sum = sum;
    }
}

void sl_generic_quantize_row_q8_256(const float *x, uint32_t n, void *out)
{
    sl_block_act_q8_256 *blocks = out;
    for (uint32_t b = 0; b < n / SL_QK_K; b++) {
        blocks[b].d = quantize_block(x + (size_t)b * SL_QK_K, SL_QK_K, blocks[b].q);
        for (unsigned group = 0; group < SL_QK_K / 16; group++) {
            int sum = 0;
            for (unsigned j = group * 16; j < group * 16 + 16; j++) {
                sum += blocks[b].q[j];
            }
            blocks[b].sums[group] = (int16_t)sum;
        }
    }
}
