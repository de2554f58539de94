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
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_grids.h"

_Static_assert(2 * 62 * 127 <= INT16_MAX, "a pair of products fits int16");
_Static_assert(256 * 15 * 18 * 127 <= INT32_MAX, "the sum before the offset is taken off fits int32");

enum {
    AHEAD_BYTES = 2048,     /* how far the stream of weights is prefetched */
    WEIGHT_BYTES = 64 << 10 /* rows that stay in the second-level cache while all tokens pass */
};

typedef void header_fn(const uint8_t *source, sl_grid_header *header);
typedef __m256i codes_fn(const uint8_t *source, const sl_grid_header *header, int group);

/* What distinguishes the formats. Constant in every use. */
typedef struct block_format {
    header_fn *unpack_header;
    codes_fn *codes;
    size_t block_bytes;
    bool has_signs; /* otherwise offsets */
} block_format;

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

static const block_format format_iq1_s = {sl_grid_header_iq1_s, codes_iq1_s, sizeof(sl_block_iq1_s), false};
static const block_format format_iq1_m = {sl_grid_header_iq1_m, codes_iq1_m, sizeof(sl_block_iq1_m), false};
static const block_format format_iq2_xxs = {sl_grid_header_iq2_xxs, codes_iq2_xxs, sizeof(sl_block_iq2_xxs), true};
static const block_format format_iq2_xs = {sl_grid_header_iq2_xs, codes_iq2_xs, sizeof(sl_block_iq2_xs), true};
static const block_format format_iq2_s = {sl_grid_header_iq2_s, codes_iq2_s, sizeof(sl_block_iq2_s), true};
static const block_format format_iq3_xxs = {sl_grid_header_iq3_xxs, codes_iq3_xxs, sizeof(sl_block_iq3_xxs), true};
static const block_format format_iq3_s = {sl_grid_header_iq3_s, codes_iq3_s, sizeof(sl_block_iq3_s), true};

/* 32 codes and what turns the activation's sign. */
typedef struct code_group {
    __m256i codes;
    __m256i signs; /* -1 or 1 */
    __m256i scale;
} code_group;

/* -1 in byte j where bit j is set, 1 elsewhere. */
SL_ALWAYS_INLINE __m256i signs_of(uint32_t bits)
{
    const __m256i byte_of = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3,
                                             3, 3, 3, 3, 3, 3, 3);
    const __m256i bit_of = _mm256_set1_epi64x((long long)UINT64_C(0x8040201008040201));
    __m256i spread = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), byte_of), bit_of);
    return _mm256_or_si256(_mm256_cmpeq_epi8(spread, bit_of), _mm256_set1_epi8(1));
}

SL_ALWAYS_INLINE code_group take_group(const block_format format, const uint8_t *source, const sl_grid_header *header,
                                       int g)
{
    return (code_group){
        .codes = format.codes(source, header, g),
        .signs = format.has_signs ? signs_of(header->signs[g]) : _mm256_setzero_si256(),
        .scale = _mm256_shuffle_epi8(header->scales, _mm256_set1_epi16((short)((2 * g + 1) << 8 | 2 * g))),
    };
}

SL_ALWAYS_INLINE __m256i add_products(const block_format format, const code_group *group, const int8_t *q, __m256i sum)
{
    __m256i y = _mm256_loadu_si256((const __m256i *)q);
    __m256i pairs = _mm256_maddubs_epi16(group->codes, format.has_signs ? _mm256_sign_epi8(y, group->signs) : y);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, group->scale));
}

SL_ALWAYS_INLINE __m256i take_offsets_off(const sl_grid_header *header, const sl_block_act_q8_256 *x, __m256i sum)
{
    return _mm256_sub_epi32(sum, _mm256_madd_epi16(header->offsets, _mm256_loadu_si256((const __m256i *)x->sums)));
}

SL_ALWAYS_INLINE int32_t sum_lanes(__m256i v)
{
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

/* One row with one token. */
SL_ALWAYS_INLINE float multiply_one(const block_format format, const uint8_t *row, uint32_t n_blocks,
                                    const sl_block_act_q8_256 *x)
{
    float sum = 0.0f;
    for (uint32_t b = 0; b < n_blocks; b++, row += format.block_bytes) {
        for (size_t line = 0; line < format.block_bytes; line += 64) {
            _mm_prefetch((const void *)((uintptr_t)row + AHEAD_BYTES + line), _MM_HINT_T0);
        }
        sl_grid_header header;
        format.unpack_header(row, &header);
        __m256i products = _mm256_setzero_si256();
        for (int g = 0; g < SL_GRID_GROUPS; g++) {
            code_group group = take_group(format, row, &header, g);
            products = add_products(format, &group, x[b].q + 32 * g, products);
        }
        if (!format.has_signs) {
            products = take_offsets_off(&header, &x[b], products);
        }
        sum = fmaf(header.d * x[b].d, (float)sum_lanes(products), sum);
    }
    return sum;
}

#include "kernels/x86/avx2_one.inc"

DEFINE_MATMUL_ONE(iq1_s)
DEFINE_MATMUL_ONE(iq1_m)
DEFINE_MATMUL_ONE(iq2_xxs)
DEFINE_MATMUL_ONE(iq2_xs)
DEFINE_MATMUL_ONE(iq2_s)
DEFINE_MATMUL_ONE(iq3_xxs)
DEFINE_MATMUL_ONE(iq3_s)
