/* Vector twins of generic/math.h and generic/sums.h: the same operations in the same order, four lanes at a time. */
#ifndef SL_KERNELS_ARM_NEON_MATH_H
#define SL_KERNELS_ARM_NEON_MATH_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/generic/math.h"

#define SL_ALWAYS_INLINE static inline __attribute__((always_inline))

enum { SL_NEON_VECTORS = 4 }; /* that hold the 16 partial sums */

SL_ALWAYS_INLINE float32x4_t sl_neon_exp(float32x4_t x)
{
    const float32x4_t rounding = vdupq_n_f32(SL_EXP_ROUNDING);
    float32x4_t shifted = vfmaq_f32(rounding, x, vdupq_n_f32(SL_EXP_LOG2E));
    float32x4_t n = vsubq_f32(shifted, rounding);
    float32x4_t r = vfmaq_f32(x, n, vdupq_n_f32(-SL_EXP_LN2_HIGH));
    r = vfmaq_f32(r, n, vdupq_n_f32(-SL_EXP_LN2_LOW));
    float32x4_t q = vfmaq_f32(vdupq_n_f32(SL_EXP_Q3), vdupq_n_f32(SL_EXP_Q4), r);
    q = vfmaq_f32(vdupq_n_f32(SL_EXP_Q2), q, r);
    q = vfmaq_f32(vdupq_n_f32(SL_EXP_Q1), q, r);
    q = vfmaq_f32(vdupq_n_f32(SL_EXP_Q0), q, r);
    float32x4_t power = vaddq_f32(vfmaq_f32(r, vmulq_f32(r, r), q), vdupq_n_f32(1.0f));
    uint32x4_t exponent = vshlq_n_u32(vreinterpretq_u32_f32(shifted), 23);
    float32x4_t result = vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(power), exponent));
    result = vbslq_f32(vcgtq_f32(x, vdupq_n_f32(SL_EXP_MAX)), vdupq_n_f32(INFINITY), result);
    result = vbslq_f32(vcltq_f32(x, vdupq_n_f32(SL_EXP_MIN)), vdupq_n_f32(0.0f), result);
    return vbslq_f32(vceqq_f32(x, x), result, x);
}

SL_ALWAYS_INLINE float32x4_t sl_neon_silu4(float32x4_t x)
{
    return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), sl_neon_exp(vnegq_f32(x))));
}

SL_ALWAYS_INLINE float32x4_t sl_neon_gelu4(float32x4_t x)
{
    float32x4_t inner = vfmaq_f32(vdupq_n_f32(SL_GELU_LINEAR), vmulq_f32(x, x), vdupq_n_f32(SL_GELU_CUBIC));
    return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), sl_neon_exp(vmulq_f32(x, inner))));
}

/* x where it is greater, else maximum: NaN never replaces a number. */
SL_ALWAYS_INLINE float32x4_t sl_neon_greater(float32x4_t x, float32x4_t maximum)
{
    return vbslq_f32(vcgtq_f32(x, maximum), x, maximum);
}

/* The bits of the largest magnitude among n elements, a multiple of four: NaN and infinity come out on top. */
SL_ALWAYS_INLINE uint32_t sl_neon_largest_bits(const float *x, int n)
{
    uint32x4_t largest = vdupq_n_u32(0);
    for (int i = 0; i < n; i += 4) {
        largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
    }
    return vmaxvq_u32(largest);
}

/* 16 elements times `inverse`, rounded to nearest even whatever the mode, held within -128 and 127. */
SL_ALWAYS_INLINE int8x16_t sl_neon_codes(const float *x, float inverse)
{
    int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), inverse));
    int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4), inverse));
    int32x4_t c = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 8), inverse));
    int32x4_t d = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 12), inverse));
    int16x8_t low = vcombine_s16(vqmovn_s32(a), vqmovn_s32(b));
    int16x8_t high = vcombine_s16(vqmovn_s32(c), vqmovn_s32(d));
    return vcombine_s8(vqmovn_s16(low), vqmovn_s16(high));
}

/* The tree over 16 partial sums in order. */
SL_ALWAYS_INLINE float sl_neon_sum_tree(const float32x4_t partial[SL_NEON_VECTORS])
{
    float32x4_t by4 = vaddq_f32(vaddq_f32(partial[0], partial[2]), vaddq_f32(partial[1], partial[3]));
    return vpadds_f32(vadd_f32(vget_low_f32(by4), vget_high_f32(by4)));
}

/* The 16-bit scales at `offset` of one block in four rows. */
SL_ALWAYS_INLINE float32x4_t sl_neon_half_scales(const uint8_t *const row[4], size_t offset)
{
    uint16_t halves[4];
    for (int r = 0; r < 4; r++) {
        memcpy(&halves[r], row[r] + offset, sizeof halves[r]);
    }
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves)));
}

/* Lane i: the sum of the four lanes of v[i]. Integers: the order does not matter. */
SL_ALWAYS_INLINE int32x4_t sl_neon_sum_four(const int32x4_t v[4])
{
    return vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
}

/* Adds to lane r the 16 products of row r, whose codes 4 j to 4 j + 3 lie in lane r of words[j], with 16 codes of a
 * token. */
SL_ALWAYS_INLINE int32x4_t sl_neon_dot_words(int32x4_t sum, const int8x16_t words[4], int8x16_t token)
{
    sum = vdotq_laneq_s32(sum, words[0], token, 0);
    sum = vdotq_laneq_s32(sum, words[1], token, 1);
    sum = vdotq_laneq_s32(sum, words[2], token, 2);
    return vdotq_laneq_s32(sum, words[3], token, 3);
}

/* Four rows of four words become four columns. */
SL_ALWAYS_INLINE void sl_neon_transpose(const int32x4_t rows[4], int32x4_t columns[4])
{
    int64x2_t low01 = vreinterpretq_s64_s32(vzip1q_s32(rows[0], rows[1]));
    int64x2_t low23 = vreinterpretq_s64_s32(vzip1q_s32(rows[2], rows[3]));
    int64x2_t high01 = vreinterpretq_s64_s32(vzip2q_s32(rows[0], rows[1]));
    int64x2_t high23 = vreinterpretq_s64_s32(vzip2q_s32(rows[2], rows[3]));
    columns[0] = vreinterpretq_s32_s64(vzip1q_s64(low01, low23));
    columns[1] = vreinterpretq_s32_s64(vzip2q_s64(low01, low23));
    columns[2] = vreinterpretq_s32_s64(vzip1q_s64(high01, high23));
    columns[3] = vreinterpretq_s32_s64(vzip2q_s64(high01, high23));
}

#endif
