/* Matrix products of few tokens with blocks whose weights come from a grid: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S.
 *
 * A block's indices, signs and scales are unpacked first, all at once; its elements follow in vectors of 32, looked up
 * when they are multiplied. One row at a time with one token at a time, so that weights come in one sequential stream.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. Codes are unsigned. Those of IQ2 and IQ3 are magnitudes, at most 62, and their sign moves to the activation, whose
 *      codes are never -128. Those of IQ1 are at most 18; what they are too high by is taken off in integers, through
 *      the activation's group sums. Pairs of products fit int16 for all byte values: 2 * 62 * 127 is below 2^15.
 *   2. Pairs times an integer scale of at most 31 are summed in int32; generic/unpacked.h proves the sums fit. With the
 *      unsigned codes of IQ1 the part before the offset is taken off fits too: 256 * 15 * 18 * 127 < 2^31.
 *   3. Indices are cut to the bits they have, so a look-up stays in its grid whatever the bytes are.
 *   4. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx2_ahead.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_grids.h"

_Static_assert(2 * 62 * 127 <= INT16_MAX, "a pair of products fits int16");
_Static_assert(256 * 15 * 18 * 127 <= INT32_MAX, "the sum before the offset is taken off fits int32");

typedef __m256i codes_fn(const uint8_t *source, const sl_grid_header *header, int group);

SL_ALWAYS_INLINE __m256i look_up_four(const uint64_t *grid, unsigned a, unsigned b, unsigned c, unsigned d)
{
    return _mm256_setr_epi64x((long long)grid[a], (long long)grid[b], (long long)grid[c], (long long)grid[d]);
}

SL_ALWAYS_INLINE __m256i look_up_words(const uint64_t *grid, const uint16_t *indices)
{
    return look_up_four(grid, indices[0], indices[1], indices[2], indices[3]);
}

SL_ALWAYS_INLINE __m256i codes_iq2_xxs(const uint8_t *source, const sl_grid_header *header, int group)
{
    (void)header;
    const uint8_t *indices = source + offsetof(sl_block_iq2_xxs, groups) + 8 * group;
    return look_up_four(sl_iq2_xxs_grid, indices[0], indices[1], indices[2], indices[3]);
}

SL_ALWAYS_INLINE __m256i codes_iq2_xs(const uint8_t *source, const sl_grid_header *header, int group)
{
    (void)source;
    return look_up_words(sl_iq2_xs_grid, header->indices + 4 * group);
}

SL_ALWAYS_INLINE __m256i codes_iq2_s(const uint8_t *source, const sl_grid_header *header, int group)
{
    (void)source;
    return look_up_words(sl_iq2_s_grid, header->indices + 4 * group);
}

SL_ALWAYS_INLINE __m256i codes_iq3_xxs(const uint8_t *source, const sl_grid_header *header, int group)
{
    (void)header;
    const uint8_t *i = source + offsetof(sl_block_iq3_xxs, indices) + 8 * group;
    const uint32_t *grid = sl_iq3_xxs_grid;
    return _mm256_setr_epi32((int)grid[i[0]], (int)grid[i[1]], (int)grid[i[2]], (int)grid[i[3]], (int)grid[i[4]],
                             (int)grid[i[5]], (int)grid[i[6]], (int)grid[i[7]]);
}

SL_ALWAYS_INLINE __m256i codes_iq3_s(const uint8_t *source, const sl_grid_header *header, int group)
{
    (void)source;
    const uint16_t *i = header->indices + 8 * group;
    const uint32_t *grid = sl_iq3_s_grid;
    return _mm256_setr_epi32((int)grid[i[0]], (int)grid[i[1]], (int)grid[i[2]], (int)grid[i[3]], (int)grid[i[4]],
                             (int)grid[i[5]], (int)grid[i[6]], (int)grid[i[7]]);
}

SL_ALWAYS_INLINE __m256i codes_iq1_s(const uint8_t *source, const sl_grid_header *header, int group)
{
    (void)source;
    return look_up_words(sl_iq1_grid, header->indices + 4 * group);
}

/* The highest bit of a nibble is set where the shift of its eight codes is negative. */
SL_ALWAYS_INLINE __m256i codes_iq1_m(const uint8_t *source, const sl_grid_header *header, int group)
{
    uint64_t nibbles;
    memcpy(&nibbles, source + offsetof(sl_block_iq1_m, high_bits) + 2 * group, sizeof nibbles);
    __m256i at_top = _mm256_sllv_epi64(_mm256_set1_epi64x((long long)nibbles), _mm256_setr_epi64x(60, 56, 52, 48));
    __m256i is_negative = _mm256_cmpgt_epi64(_mm256_setzero_si256(), at_top);
    return _mm256_or_si256(look_up_words(sl_iq1_grid, header->indices + 4 * group),
                           _mm256_andnot_si256(is_negative, _mm256_set1_epi8(2)));
}

#include "kernels/x86/one_grids.inc"

/* -1 in byte j where bit j is set, 1 elsewhere. */
SL_ALWAYS_INLINE __m256i signs_of(uint32_t bits)
{
    const __m256i byte_of = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3,
                                             3, 3, 3, 3, 3, 3, 3);
    const __m256i bit_of = _mm256_set1_epi64x((long long)UINT64_C(0x8040201008040201));
    __m256i spread = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), byte_of), bit_of);
    return _mm256_or_si256(_mm256_cmpeq_epi8(spread, bit_of), _mm256_set1_epi8(1));
}

SL_ALWAYS_INLINE int32_t multiply_block(const block_format format, const uint8_t *source, const sl_grid_header *header,
                                        const sl_block_act_q8_256 *x)
{
    __m256i sums = _mm256_setzero_si256();
    for (int g = 0; g < SL_GRID_GROUPS; g++) {
        __m256i y = _mm256_loadu_si256((const __m256i *)(x->q + 32 * g));
        if (format.has_signs) {
            y = _mm256_sign_epi8(y, signs_of(header->signs[g]));
        }
        __m256i pairs = _mm256_maddubs_epi16(format.codes(source, header, g), y);
        __m256i scale = _mm256_shuffle_epi8(header->scales, _mm256_set1_epi16((short)((2 * g + 1) << 8 | 2 * g)));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, scale));
    }
    if (!format.has_signs) {
        __m256i group_sums = _mm256_loadu_si256((const __m256i *)x->sums);
        sums = _mm256_sub_epi32(sums, _mm256_madd_epi16(header->offsets, group_sums));
    }
    return sum_lanes(sums);
}

DEFINE_MATMUL_ONE(avx2, iq1_s)
DEFINE_MATMUL_ONE(avx2, iq1_m)
DEFINE_MATMUL_ONE(avx2, iq2_xxs)
DEFINE_MATMUL_ONE(avx2, iq2_xs)
DEFINE_MATMUL_ONE(avx2, iq2_s)
DEFINE_MATMUL_ONE(avx2, iq3_xxs)
DEFINE_MATMUL_ONE(avx2, iq3_s)
