/* Vector twins of generic/math.h and generic/sums.h: the same operations in the same order, eight lanes at a time. */
#ifndef SL_KERNELS_X86_AVX2_MATH_H
#define SL_KERNELS_X86_AVX2_MATH_H

#include <immintrin.h>

#include "kernels/generic/math.h"

#define SL_ALWAYS_INLINE static inline __attribute__((always_inline))

SL_ALWAYS_INLINE __m256 sl_avx2_negate(__m256 x)
{
    return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f));
}

SL_ALWAYS_INLINE __m256 sl_avx2_exp(__m256 x)
{
    const __m256 rounding = _mm256_set1_ps(SL_EXP_ROUNDING);
    __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(SL_EXP_LOG2E), rounding);
    __m256 n = _mm256_sub_ps(shifted, rounding);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-SL_EXP_LN2_HIGH), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-SL_EXP_LN2_LOW), r);
    __m256 q = _mm256_fmadd_ps(_mm256_set1_ps(SL_EXP_Q4), r, _mm256_set1_ps(SL_EXP_Q3));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(SL_EXP_Q2));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(SL_EXP_Q1));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(SL_EXP_Q0));
    __m256 power = _mm256_add_ps(_mm256_fmadd_ps(_mm256_mul_ps(r, r), q, r), _mm256_set1_ps(1.0f));
    __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    __m256 result = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(power), exponent));
    __m256 is_above = _mm256_cmp_ps(x, _mm256_set1_ps(SL_EXP_MAX), _CMP_GT_OQ);
    __m256 is_below = _mm256_cmp_ps(x, _mm256_set1_ps(SL_EXP_MIN), _CMP_LT_OQ);
    __m256 is_nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    result = _mm256_blendv_ps(result, _mm256_set1_ps(INFINITY), is_above);
    result = _mm256_andnot_ps(is_below, result);
    return _mm256_blendv_ps(result, x, is_nan);
}

SL_ALWAYS_INLINE __m256 sl_avx2_silu8(__m256 x)
{
    __m256 divisor = _mm256_add_ps(_mm256_set1_ps(1.0f), sl_avx2_exp(sl_avx2_negate(x)));
    return _mm256_div_ps(x, divisor);
}

SL_ALWAYS_INLINE __m256 sl_avx2_gelu8(__m256 x)
{
    __m256 inner = _mm256_fmadd_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(SL_GELU_CUBIC), _mm256_set1_ps(SL_GELU_LINEAR));
    __m256 divisor = _mm256_add_ps(_mm256_set1_ps(1.0f), sl_avx2_exp(_mm256_mul_ps(x, inner)));
    return _mm256_div_ps(x, divisor);
}

/* The tree over 16 partial sums, first eight in `low`. */
SL_ALWAYS_INLINE float sl_avx2_sum_tree(__m256 low, __m256 high)
{
    __m256 by8 = _mm256_add_ps(low, high);
    __m128 by4 = _mm_add_ps(_mm256_castps256_ps128(by8), _mm256_extractf128_ps(by8, 1));
    __m128 by2 = _mm_add_ps(by4, _mm_movehl_ps(by4, by4));
    return _mm_cvtss_f32(_mm_add_ss(by2, _mm_movehdup_ps(by2)));
}

/* Lane i: the sum of the eight lanes of v[i]. Integers: the order does not matter. */
SL_ALWAYS_INLINE __m256i sl_avx2_sum_eight(const __m256i v[8])
{
    __m256i pairs[4];
    for (int i = 0; i < 4; i++) {
        pairs[i] = _mm256_add_epi32(_mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                                    _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    }
    __m256i low =
        _mm256_add_epi32(_mm256_unpacklo_epi64(pairs[0], pairs[1]), _mm256_unpackhi_epi64(pairs[0], pairs[1]));
    __m256i high =
        _mm256_add_epi32(_mm256_unpacklo_epi64(pairs[2], pairs[3]), _mm256_unpackhi_epi64(pairs[2], pairs[3]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
}

#endif
