/* Turning activations into int8 blocks, eight elements at a time.
 *
 * Owns: nothing; equals generic/quantize.c bit for bit.
 * Invariants:
 *   1. The largest magnitude is found on the bits as integers, so NaN and infinity come out on top.
 *   2. Codes lie in [-127, 127] before they are packed: the saturating packs never saturate.
 * Threads: pure functions; any thread. */
#include <immintrin.h>
#include <string.h>

#include "kernels/generic/quantize.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_math.h"
#include "quant/blocks.h"

SL_ALWAYS_INLINE __m256i magnitudes(const float *x)
{
    __m256i bits = _mm256_loadu_si256((const __m256i *)x);
    return _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
}

SL_ALWAYS_INLINE uint32_t largest_lane(__m256i v)
{
    __m128i by4 = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    __m128i by2 = _mm_max_epi32(by4, _mm_shuffle_epi32(by4, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(by2, _mm_shuffle_epi32(by2, 0xb1)));
}

/* 32 codes in order. The conversion rounds to nearest even. */
SL_ALWAYS_INLINE __m256i codes_of(const float *x, __m256 inverse)
{
    __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
    __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), inverse));
    __m256i c = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16), inverse));
    __m256i d = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 24), inverse));
    __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Sums of four neighbouring codes in each 32-bit lane. */
SL_ALWAYS_INLINE __m256i sums_of_four(__m256i codes)
{
    __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

void sl_avx2_quantize_row_q8_32(const float *x, uint32_t n, void *out)
{
    sl_block_act_q8_32 *blocks = out;
    for (uint32_t b = 0; b < n / SL_QK; b++, x += SL_QK) {
        __m256i largest = _mm256_max_epi32(_mm256_max_epi32(magnitudes(x), magnitudes(x + 8)),
                                           _mm256_max_epi32(magnitudes(x + 16), magnitudes(x + 24)));
        sl_activation_scale scale = sl_activation_scale_of(largest_lane(largest));
        __m256i codes = scale.is_zero ? _mm256_setzero_si256() : codes_of(x, _mm256_set1_ps(scale.inverse));
        __m256i fours = sums_of_four(codes);
        __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
        blocks[b].d = scale.d;
        blocks[b].sum = _mm_cvtsi128_si32(sum);
        _mm256_storeu_si256((__m256i *)blocks[b].q, codes);
    }
}

void sl_avx2_quantize_row_q8_256(const float *x, uint32_t n, void *out)
{
    sl_block_act_q8_256 *blocks = out;
    for (uint32_t b = 0; b < n / SL_QK_K; b++, x += SL_QK_K) {
        __m256i largest = _mm256_setzero_si256();
        for (int i = 0; i < SL_QK_K; i += 8) {
            largest = _mm256_max_epi32(largest, magnitudes(x + i));
        }
        sl_activation_scale scale = sl_activation_scale_of(largest_lane(largest));
        blocks[b].d = scale.d;
        if (scale.is_zero) {
            memset(blocks[b].sums, 0, sizeof blocks[b].sums);
            memset(blocks[b].q, 0, sizeof blocks[b].q);
            continue;
        }
        __m256 inverse = _mm256_set1_ps(scale.inverse);
        __m256i fours[SL_QK_K / SL_QK];
        for (int i = 0; i < SL_QK_K / SL_QK; i++) {
            __m256i codes = codes_of(x + i * SL_QK, inverse);
            fours[i] = sums_of_four(codes);
            _mm256_storeu_si256((__m256i *)(blocks[b].q + i * SL_QK), codes);
        }
        /* hadd twice sums the four lanes of each half: low halves hold the even groups of 16, high halves the odd ones.
         */
        __m256i first = _mm256_hadd_epi32(_mm256_hadd_epi32(fours[0], fours[1]), _mm256_hadd_epi32(fours[2], fours[3]));
        __m256i second =
            _mm256_hadd_epi32(_mm256_hadd_epi32(fours[4], fours[5]), _mm256_hadd_epi32(fours[6], fours[7]));
        /* Low half: even groups 0, 2, ..., 14; high half: odd groups. */
        __m256i sums = _mm256_packs_epi32(first, second);
        __m128i even = _mm256_castsi256_si128(sums);
        __m128i odd = _mm256_extracti128_si256(sums, 1);
        _mm_storeu_si128((__m128i *)blocks[b].sums, _mm_unpacklo_epi16(even, odd));
        _mm_storeu_si128((__m128i *)(blocks[b].sums + 8), _mm_unpackhi_epi16(even, odd));
    }
}
