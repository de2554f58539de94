/* Sixteen rows side by side, in two vectors: lane r of vector v belongs to row 8 v + r, and four codes of a row lie in one
 * lane, where they are multiplied with the same four codes of a token. No sum ever crosses lanes.
 *
 * Unsigned codes of at most 129 are multiplied as bytes: pairs of products are summed in int16 while they fit, and go to
 * int32 with their scale. Larger codes are widened to int16 once, and multiplied with widened activations. */
#ifndef SL_KERNELS_X86_AVX2_TILE_H
#define SL_KERNELS_X86_AVX2_TILE_H

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

enum {
    SL_TILE_LANES = 8,
    SL_TILE_VECTORS = 2,
    SL_TILE_ROWS = SL_TILE_VECTORS * SL_TILE_LANES,
    SL_TILE_TOKENS = 3, /* that share what was loaded of the weights: their sums fill the registers; */
    SL_TILE_FEW = 2,    /* or so many */
    SL_TILE_PASS = 128  /* tokens that share one unpacking */
};

#include "kernels/x86/tile_lanes.inc"

/* Of all rows with one token. */
typedef struct sl_tile_sums {
    __m256 rows[SL_TILE_VECTORS];
} sl_tile_sums;

_Static_assert(8 * 2 * 15 * 127 <= INT16_MAX, "eight steps of codes up to 15 fit int16");
_Static_assert(4 * 2 * 31 * 127 <= INT16_MAX, "four steps of codes up to 31 fit int16");
_Static_assert(2 * 2 * 63 * 127 <= INT16_MAX, "two steps of codes up to 63 fit int16");
_Static_assert(1 * 2 * 129 * 127 <= INT16_MAX, "one step of codes up to 129 fits int16");

enum { SL_TILE_WIDE_EXCESS = 128 /* of the codes that are widened, which are signed then */ };

SL_ALWAYS_INLINE bool sl_tile_is_wide(int largest_code)
{
    return largest_code > 129;
}

/* Steps of four codes whose products are summed in int16. */
SL_ALWAYS_INLINE int sl_tile_steps(int largest_code)
{
    return largest_code <= 15 ? 8 : largest_code <= 31 ? 4 : largest_code <= 63 ? 2 : 1;
}

/* The 16 bytes at `offset` of every row, as four words: lane r of words[j] is word j of row r. */
SL_ALWAYS_INLINE void sl_tile_words(const uint8_t *const row[SL_TILE_LANES], size_t offset, sl_lanes words[4])
{
    __m256i quarter[4]; /* 128-bit lane k of quarter[i] is row 4 k + i */
    for (int i = 0; i < 4; i++) {
        quarter[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(sl_tile_load16(row[i] + offset)),
                                             sl_tile_load16(row[4 + i] + offset), 1);
    }
    __m256i low01 = _mm256_unpacklo_epi32(quarter[0], quarter[1]);
    __m256i low23 = _mm256_unpacklo_epi32(quarter[2], quarter[3]);
    __m256i high01 = _mm256_unpackhi_epi32(quarter[0], quarter[1]);
    __m256i high23 = _mm256_unpackhi_epi32(quarter[2], quarter[3]);
    words[0] = (sl_lanes)_mm256_unpacklo_epi64(low01, low23);
    words[1] = (sl_lanes)_mm256_unpackhi_epi64(low01, low23);
    words[2] = (sl_lanes)_mm256_unpacklo_epi64(high01, high23);
    words[3] = (sl_lanes)_mm256_unpackhi_epi64(high01, high23);
}

/* The low halves of the lanes as F16. */
SL_ALWAYS_INLINE sl_float_lanes sl_tile_halves(sl_lanes words)
{
    __m256i low = (__m256i)(words & UINT32_C(0xffff));
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x88);
    return (sl_float_lanes)_mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}

/* The F16 at `offset` of every row. */
SL_ALWAYS_INLINE sl_float_lanes sl_tile_half(const uint8_t *const row[SL_TILE_LANES], size_t offset)
{
    uint16_t halves[SL_TILE_LANES];
    for (int i = 0; i < SL_TILE_LANES; i++) {
        memcpy(&halves[i], row[i] + offset, sizeof halves[i]);
    }
    return (sl_float_lanes)_mm256_cvtph_ps(sl_tile_load16(halves));
}

/* Bytes of `bytes`, of 16 at a time, where the bytes of `pattern` say; 0 where they are negative. */
SL_ALWAYS_INLINE sl_lanes sl_tile_shuffle(sl_lanes bytes, sl_lanes pattern)
{
    return (sl_lanes)_mm256_shuffle_epi8((__m256i)bytes, (__m256i)pattern);
}

SL_ALWAYS_INLINE sl_lanes sl_tile_add_bytes(sl_lanes a, sl_lanes b)
{
    return (sl_lanes)_mm256_add_epi8((__m256i)a, (__m256i)b);
}

SL_ALWAYS_INLINE sl_lanes sl_tile_repeat16(__m128i bytes)
{
    return (sl_lanes)_mm256_broadcastsi128_si256(bytes);
}

/* Bytes plus `excess`, or less where the bit that `bit_of` has in a byte is set in `bits`. */
SL_ALWAYS_INLINE sl_lanes sl_tile_apply_signs(sl_lanes magnitudes, sl_lanes bits, uint32_t bit_of, int excess)
{
    const __m256i bit = _mm256_set1_epi32((int)bit_of);
    __m256i is_negative = _mm256_cmpeq_epi8(_mm256_and_si256((__m256i)bits, bit), bit);
    __m256i flipped = _mm256_xor_si256((__m256i)magnitudes, is_negative);
    return (sl_lanes)_mm256_add_epi8(_mm256_sub_epi8(flipped, is_negative), _mm256_set1_epi8((char)excess));
}

/* Four elements of a grid. */
SL_ALWAYS_INLINE sl_lanes sl_tile_look_up_four(const uint32_t *grid, sl_lanes indices)
{
    return (sl_lanes)_mm256_i32gather_epi32((const int *)grid, (__m256i)indices, 4);
}

/* The first and the second four elements of an entry of eight. */
SL_ALWAYS_INLINE void sl_tile_look_up_eight(const uint64_t *grid, sl_lanes indices, sl_lanes halves[2])
{
    const int *fours = (const int *)(const void *)grid;
    halves[0] = (sl_lanes)_mm256_i32gather_epi32(fours, (__m256i)indices, 8);
    halves[1] = (sl_lanes)_mm256_i32gather_epi32(fours + 1, (__m256i)indices, 8);
}

SL_ALWAYS_INLINE void sl_tile_store(float *out, sl_tile_sums sums, uint32_t n_rows)
{
    if (n_rows == SL_TILE_ROWS) {
        _mm256_storeu_ps(out, sums.rows[0]);
        _mm256_storeu_ps(out + SL_TILE_LANES, sums.rows[1]);
    } else {
        memcpy(out, &sums, n_rows * sizeof *out);
    }
}

/* Four bytes of a token in every lane. */
SL_ALWAYS_INLINE __m256i sl_tile_broadcast(const void *bytes)
{
    int32_t word;
    memcpy(&word, bytes, sizeof word);
    return _mm256_set1_epi32(word);
}

/* The sum goes on from here: without it the compiler turns a sum of many terms into a tree whose leaves do not fit the
 * registers. */
SL_ALWAYS_INLINE void sl_tile_keep_sum(__m256i *sum)
{
    __asm__("" : "+x"(*sum));
}

/* Codes of four to a lane become two vectors of pairs of int16, less their excess. */
SL_ALWAYS_INLINE void sl_tile_widen_codes(sl_lanes codes, __m256i pairs[2])
{
    const sl_lanes first = sl_tile_repeat16(_mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    const sl_lanes second = sl_tile_repeat16(_mm_setr_epi8(2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1));
    const __m256i excess = _mm256_set1_epi16(SL_TILE_WIDE_EXCESS);
    pairs[0] = _mm256_sub_epi16((__m256i)sl_tile_shuffle(codes, first), excess);
    pairs[1] = _mm256_sub_epi16((__m256i)sl_tile_shuffle(codes, second), excess);
}

/* 32 codes of a token as int16. */
SL_ALWAYS_INLINE void sl_tile_widen_activation(const int8_t q[32], int16_t wide[32])
{
    for (int half = 0; half < 2; half++) {
        _mm256_storeu_si256((__m256i *)(wide + 16 * half), _mm256_cvtepi8_epi16(sl_tile_load16(q + 16 * half)));
    }
    /* Read from memory pair by pair, by the load ports, not taken apart in registers. */
    __asm__("" : "+m"(*(int16_t(*)[32])wide));
}

/* The sums in int16 of products of 4 * `steps` codes of every row, codes[v] those of vector v, with those of n tokens. */
SL_ALWAYS_INLINE void sl_tile_dot_bytes(const sl_lanes *const codes[SL_TILE_VECTORS],
                                        const int8_t *const q[SL_TILE_TOKENS], const int steps, const uint32_t n,
                                        __m256i dot[SL_TILE_VECTORS][SL_TILE_TOKENS])
{
#pragma GCC unroll 8
    for (int s = 0; s < steps; s++) {
        for (uint32_t t = 0; t < n; t++) {
            __m256i word = sl_tile_broadcast(q[t] + 4 * s);
            for (int v = 0; v < SL_TILE_VECTORS; v++) {
                __m256i products = _mm256_maddubs_epi16((__m256i)codes[v][s], word);
                dot[v][t] = s == 0 ? products : _mm256_add_epi16(dot[v][t], products);
                sl_tile_keep_sum(&dot[v][t]);
            }
        }
    }
}

/* Add the products of pairs in int16. */
SL_ALWAYS_INLINE void sl_tile_add_pairs(__m256i *sum, __m256i a, __m256i b)
{
    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(a, b));
    sl_tile_keep_sum(sum);
}

/* Add the products of 16 pairs of codes of every row, codes[v] those of vector v, with 32 widened codes of n tokens. */
SL_ALWAYS_INLINE void sl_tile_add_wide(const __m256i *const codes[SL_TILE_VECTORS],
                                       const int16_t wide[SL_TILE_TOKENS][32], const uint32_t n,
                                       __m256i sums[SL_TILE_VECTORS][SL_TILE_TOKENS])
{
#pragma GCC unroll 16
    for (int s = 0; s < 16; s++) {
        for (uint32_t t = 0; t < n; t++) {
            __m256i pair = sl_tile_broadcast(wide[t] + 2 * s);
            for (int v = 0; v < SL_TILE_VECTORS; v++) {
                sl_tile_add_pairs(&sums[v][t], codes[v][s], pair);
            }
        }
    }
}

#endif
