/* Sixteen rows side by side: lane r of every vector belongs to row r, and four codes of a row lie in one lane, where one
 * instruction multiplies them with the same four codes of a token and adds them up. No sum ever crosses lanes. */
#ifndef SL_KERNELS_X86_AVX512_TILE_H
#define SL_KERNELS_X86_AVX512_TILE_H

#include <immintrin.h>
#include <string.h>

#include "kernels/x86/avx2_math.h"

enum {
    SL_TILE_ROWS = 16,
    SL_TILE_TOKENS = 8, /* that share what was loaded of the weights; */
    SL_TILE_FEW = 3,    /* or so many */
    SL_TILE_PASS = 128, /* tokens that share one unpacking */
    SL_TILE_FEWEST = 2  /* tokens below which rows are read faster by other loops, fewer at a time */
};

SL_ALWAYS_INLINE __m128i sl_tile_load16(const uint8_t *bytes)
{
    return _mm_loadu_si128((const __m128i *)bytes);
}

/* The 16 bytes at `offset` of every row, as four words: lane r of words[j] is word j of row r. */
SL_ALWAYS_INLINE void sl_tile_words(const uint8_t *const row[SL_TILE_ROWS], size_t offset, __m512i words[4])
{
    __m512i quarter[4]; /* 128-bit lane k of quarter[i] is row 4 k + i */
    for (int i = 0; i < 4; i++) {
        __m512i rows = _mm512_castsi128_si512(sl_tile_load16(row[i] + offset));
        rows = _mm512_inserti32x4(rows, sl_tile_load16(row[4 + i] + offset), 1);
        rows = _mm512_inserti32x4(rows, sl_tile_load16(row[8 + i] + offset), 2);
        quarter[i] = _mm512_inserti32x4(rows, sl_tile_load16(row[12 + i] + offset), 3);
    }
    __m512i low01 = _mm512_unpacklo_epi32(quarter[0], quarter[1]);
    __m512i low23 = _mm512_unpacklo_epi32(quarter[2], quarter[3]);
    __m512i high01 = _mm512_unpackhi_epi32(quarter[0], quarter[1]);
    __m512i high23 = _mm512_unpackhi_epi32(quarter[2], quarter[3]);
    words[0] = _mm512_unpacklo_epi64(low01, low23);
    words[1] = _mm512_unpackhi_epi64(low01, low23);
    words[2] = _mm512_unpacklo_epi64(high01, high23);
    words[3] = _mm512_unpackhi_epi64(high01, high23);
}

/* The four bytes at `offset` of every row. */
SL_ALWAYS_INLINE __m512i sl_tile_word(const uint8_t *const row[SL_TILE_ROWS], size_t offset)
{
    uint32_t words[SL_TILE_ROWS];
    for (int i = 0; i < SL_TILE_ROWS; i++) {
        memcpy(&words[i], row[i] + offset, sizeof words[i]);
    }
    return _mm512_loadu_si512(words);
}

/* The low halves of the lanes as F16. */
SL_ALWAYS_INLINE __m512 sl_tile_halves(__m512i words)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
}

/* Bits `mask` of every byte after a shift; what crosses a byte's border is masked away. */
SL_ALWAYS_INLINE __m512i sl_tile_shift_right(__m512i bytes, int count, int mask)
{
    return _mm512_and_si512(_mm512_srli_epi32(bytes, (unsigned)count), _mm512_set1_epi8((char)mask));
}

SL_ALWAYS_INLINE __m512i sl_tile_shift_left(__m512i bytes, int count, int mask)
{
    return _mm512_and_si512(_mm512_slli_epi32(bytes, (unsigned)count), _mm512_set1_epi8((char)mask));
}

/* Four bytes of a token in every lane. */
SL_ALWAYS_INLINE __m512i sl_tile_broadcast(const void *bytes)
{
    int32_t word;
    memcpy(&word, bytes, sizeof word);
    return _mm512_set1_epi32(word);
}

/* Sixteen lanes of sl_exp. */
SL_ALWAYS_INLINE __m512 sl_avx512_exp(__m512 x)
{
    const __m512 rounding = _mm512_set1_ps(SL_EXP_ROUNDING);
    __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(SL_EXP_LOG2E), rounding);
    __m512 n = _mm512_sub_ps(shifted, rounding);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-SL_EXP_LN2_HIGH), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-SL_EXP_LN2_LOW), r);
    __m512 q = _mm512_fmadd_ps(_mm512_set1_ps(SL_EXP_Q4), r, _mm512_set1_ps(SL_EXP_Q3));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(SL_EXP_Q2));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(SL_EXP_Q1));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(SL_EXP_Q0));
    __m512 power = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(r, r), q, r), _mm512_set1_ps(1.0f));
    __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    __m512 result = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(power), exponent));
    __mmask16 is_above = _mm512_cmp_ps_mask(x, _mm512_set1_ps(SL_EXP_MAX), _CMP_GT_OQ);
    __mmask16 is_below = _mm512_cmp_ps_mask(x, _mm512_set1_ps(SL_EXP_MIN), _CMP_LT_OQ);
    __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    result = _mm512_mask_mov_ps(result, is_above, _mm512_set1_ps(INFINITY));
    result = _mm512_mask_mov_ps(result, is_below, _mm512_setzero_ps());
    return _mm512_mask_mov_ps(result, is_nan, x);
}

#endif
