/* The definitions of exp and of the activation functions built on it. Every instruction set performs these operations
 * in this order, element by element, so all of them give the same bits.
 *
 * sl_exp: n = x log2(e) rounded to nearest even; r = x - n ln 2 in two steps; e^r = 1 + (r + r^2 q(r)) with a
 * polynomial q of degree 4 whose relative error in e^r is below 2^-27; times 2^n by adding n to the exponent. Within 2
 * units in the last place where the result is a normal number. Results that would be denormal are 0; NaN stays NaN. */
#ifndef SL_KERNELS_GENERIC_MATH_H
#define SL_KERNELS_GENERIC_MATH_H

#include <math.h>

#include "quant/half.h"

#define SL_EXP_MAX 0x1.62e42ep+6f /* 88.72283: the largest float whose exponential is finite */
#define SL_EXP_MIN (-87.3f)       /* e^-87.3 is still a normal number, just above 2^-126 */
#define SL_EXP_LOG2E 0x1.715476p+0f
#define SL_EXP_LN2_HIGH 0x1.62e430p-1f
#define SL_EXP_LN2_LOW (-0x1.05c610p-29f)
/* Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the fraction. */
#define SL_EXP_ROUNDING 0x1.8p+23f
#define SL_EXP_Q0 0.5f
#define SL_EXP_Q1 0x1.5554a4p-3f
#define SL_EXP_Q2 0x1.555688p-5f
#define SL_EXP_Q3 0x1.122fc2p-7f
#define SL_EXP_Q4 0x1.6b6e1ap-10f

static inline float sl_exp(float x)
{
    if (x > SL_EXP_MAX) {
        return INFINITY;
    }
    if (x < SL_EXP_MIN) {
        return 0.0f;
    }
    if (x != x) {
        return x;
    }
    float shifted = fmaf(x, SL_EXP_LOG2E, SL_EXP_ROUNDING);
    float n = shifted - SL_EXP_ROUNDING;
    float r = fmaf(n, -SL_EXP_LN2_HIGH, x);
    r = fmaf(n, -SL_EXP_LN2_LOW, r);
    float q = fmaf(SL_EXP_Q4, r, SL_EXP_Q3);
    q = fmaf(q, r, SL_EXP_Q2);
    q = fmaf(q, r, SL_EXP_Q1);
    q = fmaf(q, r, SL_EXP_Q0);
    float power = fmaf(r * r, q, r) + 1.0f;
    /* power is in [0.7, 1.42] and n in [-126, 128]; inside the clamp the sum of the exponents is that of a normal
     * number. Of the bits of `shifted` only n survives the shift. */
    return sl_float_from_bits(sl_float_bits(power) + (sl_float_bits(shifted) << 23));
}

static inline float sl_sigmoid(float x)
{
    return 1.0f / (1.0f + sl_exp(-x));
}

/* NaN at -infinity: an infinite activation is an error that must stay visible. */
static inline float sl_silu(float x)
{
    return x / (1.0f + sl_exp(-x));
}

/* x (1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), written as x / (1 + exp(-2 u)). */
#define SL_GELU_LINEAR (-0x1.988454p+0f) /* -2 sqrt(2 / pi) */
#define SL_GELU_CUBIC (-0x1.2444f2p-4f)  /* -2 sqrt(2 / pi) 0.044715 */

static inline float sl_gelu(float x)
{
    float exponent = x * fmaf(x * x, SL_GELU_CUBIC, SL_GELU_LINEAR);
    return x / (1.0f + sl_exp(exponent));
}

#endif
