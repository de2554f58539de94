/* Products of one token with blocks whose weights come from a grid, one row after the other: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS,
 * IQ2_S, IQ3_XXS, IQ3_S.
 *
 * A block's indices, signs and scales are unpacked first, all at once; then one gather fetches 64 elements and one
 * instruction turns the signs of the activation under a mask that is the block's own sign bits.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. Codes are unsigned. Those of IQ2 and IQ3 are magnitudes, at most 62, and their sign moves to the activation, whose
 *      codes are never -128. Those of IQ1 are at most 18; what they are too high by is taken off in integers, through
 *      the activation's group sums.
 *   2. Four products fit int16 for all byte values, 4 * 62 * 127 < 2^15, so that their sum is the low half of a lane and can
 *      be multiplied with its scale as such. generic/unpacked.h proves the sums of a block fit int32.
 *   3. Indices are cut to the bits they have, so a gather stays in its grid whatever the bytes are.
 *   4. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx2_ahead.h"
#include "kernels/x86/avx2_grids.h"
#include "kernels/x86/avx512.h"

_Static_assert(4 * 62 * 127 <= INT16_MAX, "four products fit int16");

enum { PAIRS = SL_GRID_GROUPS / 2 /* vectors of 64 codes in a block */ };

typedef __m512i codes_fn(const uint8_t *source, const sl_grid_header *header, int pair);

SL_ALWAYS_INLINE __m128i load16(const void *bytes)
{
    return _mm_loadu_si128((const __m128i *)bytes);
}

/* Eight entries of eight elements; indices are words. */
SL_ALWAYS_INLINE __m512i look_up_eight(const uint64_t *grid, __m128i indices)
{
    return _mm512_i32gather_epi64(_mm256_cvtepu16_epi32(indices), grid, 8);
}

SL_ALWAYS_INLINE __m512i codes_iq2_xxs(const uint8_t *source, const sl_grid_header *header, int pair)
{
    (void)header;
    const __m128i spread = _mm_setr_epi8(0, -1, 1, -1, 2, -1, 3, -1, 8, -1, 9, -1, 10, -1, 11, -1);
    __m128i indices = load16(source + offsetof(sl_block_iq2_xxs, groups) + 16 * pair);
    return look_up_eight(sl_iq2_xxs_grid, _mm_shuffle_epi8(indices, spread));
}

SL_ALWAYS_INLINE __m512i codes_iq2_xs(const uint8_t *source, const sl_grid_header *header, int pair)
{
    (void)source;
    return look_up_eight(sl_iq2_xs_grid, load16(header->indices + 8 * pair));
}

SL_ALWAYS_INLINE __m512i codes_iq2_s(const uint8_t *source, const sl_grid_header *header, int pair)
{
    (void)source;
    return look_up_eight(sl_iq2_s_grid, load16(header->indices + 8 * pair));
}

SL_ALWAYS_INLINE __m512i codes_iq3_xxs(const uint8_t *source, const sl_grid_header *header, int pair)
{
    (void)header;
    __m128i indices = load16(source + offsetof(sl_block_iq3_xxs, indices) + 16 * pair);
    return _mm512_i32gather_epi32(_mm512_cvtepu8_epi32(indices), sl_iq3_xxs_grid, 4);
}

SL_ALWAYS_INLINE __m512i codes_iq3_s(const uint8_t *source, const sl_grid_header *header, int pair)
{
    (void)source;
    __m256i indices = _mm256_loadu_si256((const __m256i *)(header->indices + 16 * pair));
    return _mm512_i32gather_epi32(_mm512_cvtepu16_epi32(indices), sl_iq3_s_grid, 4);
}

SL_ALWAYS_INLINE __m512i codes_iq1_s(const uint8_t *source, const sl_grid_header *header, int pair)
{
    (void)source;
    return look_up_eight(sl_iq1_grid, load16(header->indices + 8 * pair));
}

/* The highest bit of a nibble is set where the shift of its eight codes is negative. */
SL_ALWAYS_INLINE __m512i codes_iq1_m(const uint8_t *source, const sl_grid_header *header, int pair)
{
    uint64_t nibbles;
    memcpy(&nibbles, source + offsetof(sl_block_iq1_m, high_bits) + 4 * pair, sizeof nibbles);
    __m512i at_top =
        _mm512_sllv_epi64(_mm512_set1_epi64((long long)nibbles), _mm512_setr_epi64(60, 56, 52, 48, 44, 40, 36, 32));
    __m512i codes = look_up_eight(sl_iq1_grid, load16(header->indices + 8 * pair));
    __mmask8 is_positive = _knot_mask8(_mm512_movepi64_mask(at_top));
    return _mm512_mask_or_epi64(codes, is_positive, codes, _mm512_set1_epi8(2));
}

#include "kernels/x86/one_grids.inc"

/* Lane i of eight: the scale of the codes 4 i to 4 i + 3 of vector `pair`, from the layout of the header in int32. */
SL_ALWAYS_INLINE __m512i scales_of(__m512i scales, int pair)
{
    const __m512i first = _mm512_setr_epi32(0, 0, 0, 0, 8, 8, 8, 8, 1, 1, 1, 1, 9, 9, 9, 9);
    return _mm512_permutexvar_epi32(_mm512_add_epi32(first, _mm512_set1_epi32(2 * pair)), scales);
}

SL_ALWAYS_INLINE int32_t multiply_block(const block_format format, const uint8_t *source, const sl_grid_header *header,
                                        const sl_block_act_q8_256 *x)
{
    __m512i scales = _mm512_cvtepi16_epi32(header->scales);
    __m512i sums = _mm512_setzero_si512();
    for (int pair = 0; pair < PAIRS; pair++) {
        __m512i y = _mm512_loadu_si512(x->q + 64 * pair);
        if (format.has_signs) {
            __mmask64 is_negative;
            memcpy(&is_negative, header->signs + 2 * pair, sizeof is_negative);
            y = _mm512_mask_sub_epi8(y, is_negative, _mm512_setzero_si512(), y);
        }
        __m512i fours = _mm512_dpbusd_epi32(_mm512_setzero_si512(), format.codes(source, header, pair), y);
        sums = _mm512_dpwssd_epi32(sums, fours, scales_of(scales, pair));
    }
    __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64(sums, 1));
    if (!format.has_signs) {
        __m256i group_sums = _mm256_loadu_si256((const __m256i *)x->sums);
        eight = _mm256_sub_epi32(eight, _mm256_madd_epi16(header->offsets, group_sums));
    }
    return sum_lanes(eight);
}

DEFINE_MATMUL_ONE(avx512, iq1_s)
DEFINE_MATMUL_ONE(avx512, iq1_m)
DEFINE_MATMUL_ONE(avx512, iq2_xxs)
DEFINE_MATMUL_ONE(avx512, iq2_xs)
DEFINE_MATMUL_ONE(avx512, iq2_s)
DEFINE_MATMUL_ONE(avx512, iq3_xxs)
DEFINE_MATMUL_ONE(avx512, iq3_s)
