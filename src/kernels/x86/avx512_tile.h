/* Sixteen rows side by side: lane r of every vector belongs to row r, and four codes of a row lie in one lane, where one
 * instruction multiplies them with the same four codes of a token and adds them up. No sum ever crosses lanes. */
#ifndef SL_KERNELS_X86_AVX512_TILE_H
#define SL_KERNELS_X86_AVX512_TILE_H

#include <immintrin.h>
#include <string.h>

enum {
    SL_TILE_LANES = 16,
    SL_TILE_ROWS = 16,
    SL_TILE_TOKENS = 8, /* that share what was loaded of the weights; */
    SL_TILE_FEW = 3,    /* or so many */
    SL_TILE_PASS = 128  /* tokens that share one unpacking */
};

#include "kernels/x86/tile_lanes.inc"

typedef __m512 sl_tile_sums; /* of all rows with one token */

/* The 16 bytes at `offset` of every row, as four words: lane r of words[j] is word j of row r. */
SL_ALWAYS_INLINE void sl_tile_words(const uint8_t *const row[SL_TILE_LANES], size_t offset, sl_lanes words[4])
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
    words[0] = (sl_lanes)_mm512_unpacklo_epi64(low01, low23);
    words[1] = (sl_lanes)_mm512_unpackhi_epi64(low01, low23);
    words[2] = (sl_lanes)_mm512_unpacklo_epi64(high01, high23);
    words[3] = (sl_lanes)_mm512_unpackhi_epi64(high01, high23);
}

/* The low halves of the lanes as F16. */
SL_ALWAYS_INLINE sl_float_lanes sl_tile_halves(sl_lanes words)
{
    return (sl_float_lanes)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)words));
}

/* The F16 at `offset` of every row. */
SL_ALWAYS_INLINE sl_float_lanes sl_tile_half(const uint8_t *const row[SL_TILE_LANES], size_t offset)
{
    uint16_t halves[SL_TILE_LANES];
    for (int i = 0; i < SL_TILE_LANES; i++) {
        memcpy(&halves[i], row[i] + offset, sizeof halves[i]);
    }
    return (sl_float_lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)halves));
}

/* Bytes of `bytes`, of 16 at a time, where the bytes of `pattern` say; 0 where they are negative. */
SL_ALWAYS_INLINE sl_lanes sl_tile_shuffle(sl_lanes bytes, sl_lanes pattern)
{
    return (sl_lanes)_mm512_shuffle_epi8((__m512i)bytes, (__m512i)pattern);
}

SL_ALWAYS_INLINE sl_lanes sl_tile_add_bytes(sl_lanes a, sl_lanes b)
{
    return (sl_lanes)_mm512_add_epi8((__m512i)a, (__m512i)b);
}

SL_ALWAYS_INLINE sl_lanes sl_tile_repeat16(__m128i bytes)
{
    return (sl_lanes)_mm512_broadcast_i32x4(bytes);
}

/* Bytes plus `excess`, or less where all bits that `bit_of` has in a byte are set in `bits`. */
SL_ALWAYS_INLINE sl_lanes sl_tile_apply_signs(sl_lanes magnitudes, sl_lanes bits, uint32_t bit_of, int excess)
{
    const __m512i middle = _mm512_set1_epi8((char)excess);
    __mmask64 is_negative = _mm512_test_epi8_mask((__m512i)bits, _mm512_set1_epi32((int)bit_of));
    __m512i sums = _mm512_add_epi8((__m512i)magnitudes, middle);
    return (sl_lanes)_mm512_mask_sub_epi8(sums, is_negative, middle, (__m512i)magnitudes);
}

/* Four elements of a grid. */
SL_ALWAYS_INLINE sl_lanes sl_tile_look_up_four(const uint32_t *grid, sl_lanes indices)
{
    return (sl_lanes)_mm512_i32gather_epi32((__m512i)indices, grid, 4);
}

/* The first and the second four elements of an entry of eight, fetched together. */
SL_ALWAYS_INLINE void sl_tile_look_up_eight(const uint64_t *grid, sl_lanes indices, sl_lanes halves[2])
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    __m512i low = _mm512_i32gather_epi64(_mm512_castsi512_si256((__m512i)indices), grid, 8);
    __m512i high = _mm512_i32gather_epi64(_mm512_extracti64x4_epi64((__m512i)indices, 1), grid, 8);
    halves[0] = (sl_lanes)_mm512_permutex2var_epi32(low, even, high);
    halves[1] = (sl_lanes)_mm512_permutex2var_epi32(low, _mm512_add_epi32(even, _mm512_set1_epi32(1)), high);
}

SL_ALWAYS_INLINE void sl_tile_store(float *out, sl_tile_sums sums, uint32_t n_rows)
{
    _mm512_mask_storeu_ps(out, (__mmask16)((1u << n_rows) - 1), sums);
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
