/* Matrix products of few tokens with 256-element blocks: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS.
 *
 * One row at a time with one token at a time, so that weights come in one sequential stream.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. Codes are either unsigned, at most 63, with an offset that the activation's group sums take off in integers; or
 *      signed, at least -127, and then their sign moves to the activation, whose codes are never -128. Pairs of
 * products fit int16 for all byte values: 2 * 63 * 127 and 2 * 127 * 127 are below 2^15.
 *   2. Pairs times an integer scale of at most 128 are summed in int32; generic/unpacked.h proves the sums fit. With
 *      unsigned codes the part before the offset is taken off fits too: 256 * 128 * 63 * 127 < 2^31.
 *   3. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/avx2_ahead.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_math.h"
#include "quant/unpack.h"

_Static_assert(2 * 127 * 127 <= INT16_MAX, "a pair of signed products fits int16");
_Static_assert(2 * 63 * 127 <= INT16_MAX, "a pair of unsigned products fits int16");
_Static_assert(256 * 128 * 63 * 127 <= INT32_MAX, "the sum before the offset is taken off fits int32");

enum {
    GROUPS = 8,             /* vectors of 32 codes in a block */
    PREFETCH_PARTS = 4,     /* of a block, one for two groups */
    WEIGHT_BYTES = 64 << 10 /* rows that stay in the second-level cache while all tokens pass */
};

/* One block, unpacked. */
typedef struct unpacked_block {
    __m256i codes[GROUPS];
    __m256i scales; /* int16: lane g of the low half for codes 0..15 of vector g, of the high half for codes 16..31 */
    __m256i side;   /* int16, one per 16 codes, to be multiplied with the activation's sums: minima, or scales where an
                       offset has to be taken off */
    float d;
    float dmin;
} unpacked_block;

typedef void unpack_fn(const uint8_t *source, unpacked_block *block);

/* What distinguishes the formats. Constant in every use. */
typedef struct block_format {
    unpack_fn *unpack;
    size_t block_bytes;
    int offset_shift; /* unsigned codes are 2^offset_shift too high; -1: no offset */
    bool is_signed;
    bool has_minimum;
} block_format;

SL_ALWAYS_INLINE float half_at(const uint8_t *bytes)
{
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
}

SL_ALWAYS_INLINE __m256i load32(const uint8_t *bytes)
{
    return _mm256_loadu_si256((const __m256i *)bytes);
}

/* Bits `mask` of every byte after a shift within 16 bits; what crosses a byte's border is masked away. */
SL_ALWAYS_INLINE __m256i shift_right(__m256i bytes, int count, int mask)
{
    return _mm256_and_si256(_mm256_srli_epi16(bytes, count), _mm256_set1_epi8((char)mask));
}

SL_ALWAYS_INLINE __m256i shift_left(__m256i bytes, int count, int mask)
{
    return _mm256_and_si256(_mm256_slli_epi16(bytes, count), _mm256_set1_epi8((char)mask));
}

/* Bit `from` of every byte, moved to bit `to`. */
SL_ALWAYS_INLINE __m256i move_bit(__m256i bytes, int from, int to)
{
    return from < to ? shift_left(bytes, to - from, 1 << to) : shift_right(bytes, from - to, 1 << to);
}

/* 16 scales in order become the layout of the scales of a block. */
SL_ALWAYS_INLINE __m256i pair_scales(__m128i scales)
{
    const __m128i even_then_odd = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    return _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, even_then_odd));
}

/* Eight scales, one per vector of codes. */
SL_ALWAYS_INLINE __m256i repeat_scales(__m128i scales)
{
    return _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(scales));
}

SL_ALWAYS_INLINE void unpack_nibbles(const uint8_t *nibbles, __m256i codes[GROUPS])
{
    for (int run = 0; run < GROUPS / 2; run++) {
        __m256i bytes = load32(nibbles + 32 * run);
        codes[2 * run] = _mm256_and_si256(bytes, _mm256_set1_epi8(0x0f));
        codes[2 * run + 1] = shift_right(bytes, 4, 0x0f);
    }
}

/* The 6-bit scales and minima of Q4_K and Q5_K, four at a time in a word; see sl_k_scale_and_minimum. */
SL_ALWAYS_INLINE void unpack_scales_and_minima(const uint8_t *packed, unpacked_block *block)
{
    uint32_t words[3];
    memcpy(words, packed, sizeof words);
    uint32_t low_scales = words[0] & UINT32_C(0x3f3f3f3f);
    uint32_t low_minima = words[1] & UINT32_C(0x3f3f3f3f);
    uint32_t high_scales = (words[2] & UINT32_C(0x0f0f0f0f)) | ((words[0] >> 2) & UINT32_C(0x30303030));
    uint32_t high_minima = ((words[2] >> 4) & UINT32_C(0x0f0f0f0f)) | ((words[1] >> 2) & UINT32_C(0x30303030));
    block->scales = repeat_scales(_mm_cvtsi64_si128((long long)(low_scales | (uint64_t)high_scales << 32)));
    __m128i minima = _mm_cvtsi64_si128((long long)(low_minima | (uint64_t)high_minima << 32));
    block->side = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(minima, minima));
}

SL_ALWAYS_INLINE void unpack_q4_k(const uint8_t *source, unpacked_block *block)
{
    block->d = half_at(source + offsetof(sl_block_q4_k, d));
    block->dmin = half_at(source + offsetof(sl_block_q4_k, dmin));
    unpack_scales_and_minima(source + offsetof(sl_block_q4_k, scales), block);
    unpack_nibbles(source + offsetof(sl_block_q4_k, q), block->codes);
}

SL_ALWAYS_INLINE void unpack_q5_k(const uint8_t *source, unpacked_block *block)
{
    block->d = half_at(source + offsetof(sl_block_q5_k, d));
    block->dmin = half_at(source + offsetof(sl_block_q5_k, dmin));
    unpack_scales_and_minima(source + offsetof(sl_block_q5_k, scales), block);
    unpack_nibbles(source + offsetof(sl_block_q5_k, q), block->codes);
    __m256i high = load32(source + offsetof(sl_block_q5_k, high_bits));
    for (int g = 0; g < GROUPS; g++) {
        block->codes[g] = _mm256_or_si256(block->codes[g], move_bit(high, g, 4));
    }
}

SL_ALWAYS_INLINE void unpack_q6_k(const uint8_t *source, unpacked_block *block)
{
    block->d = half_at(source + offsetof(sl_block_q6_k, d));
    __m128i scales = _mm_loadu_si128((const __m128i *)(source + offsetof(sl_block_q6_k, scales)));
    block->scales = pair_scales(scales);
    block->side = _mm256_cvtepi8_epi16(scales);
    for (int half = 0; half < 2; half++) {
        __m256i first = load32(source + offsetof(sl_block_q6_k, low) + 64 * half);
        __m256i second = load32(source + offsetof(sl_block_q6_k, low) + 64 * half + 32);
        __m256i high = load32(source + offsetof(sl_block_q6_k, high) + 32 * half);
        const __m256i low_nibble = _mm256_set1_epi8(0x0f);
        __m256i *codes = block->codes + 4 * half;
        codes[0] = _mm256_or_si256(_mm256_and_si256(first, low_nibble), shift_left(high, 4, 0x30));
        codes[1] = _mm256_or_si256(_mm256_and_si256(second, low_nibble), shift_left(high, 2, 0x30));
        codes[2] = _mm256_or_si256(shift_right(first, 4, 0x0f), _mm256_and_si256(high, _mm256_set1_epi8(0x30)));
        codes[3] = _mm256_or_si256(shift_right(second, 4, 0x0f), shift_right(high, 2, 0x30));
    }
}

SL_ALWAYS_INLINE void unpack_two_bits(const uint8_t *planes, __m256i codes[GROUPS])
{
    for (int half = 0; half < 2; half++) {
        __m256i bytes = load32(planes + 32 * half);
        for (int plane = 0; plane < 4; plane++) {
            codes[4 * half + plane] = shift_right(bytes, 2 * plane, 0x03);
        }
    }
}

SL_ALWAYS_INLINE void unpack_q2_k(const uint8_t *source, unpacked_block *block)
{
    block->d = half_at(source + offsetof(sl_block_q2_k, d));
    block->dmin = half_at(source + offsetof(sl_block_q2_k, dmin));
    __m128i packed = _mm_loadu_si128((const __m128i *)(source + offsetof(sl_block_q2_k, scales)));
    const __m128i nibble = _mm_set1_epi8(0x0f);
    block->scales = pair_scales(_mm_and_si128(packed, nibble));
    block->side = _mm256_cvtepi8_epi16(_mm_and_si128(_mm_srli_epi16(packed, 4), nibble));
    unpack_two_bits(source + offsetof(sl_block_q2_k, q), block->codes);
}

/* 16 scales, -32..31, four at a time in a word; see sl_q3_k_scale. */
SL_ALWAYS_INLINE __m128i q3_k_scales(const uint8_t *packed)
{
    uint32_t words[3];
    memcpy(words, packed, sizeof words);
    const uint32_t low = UINT32_C(0x0f0f0f0f);
    const uint32_t high = UINT32_C(0x30303030);
    uint32_t a = (words[0] & low) | ((words[2] << 4) & high);
    uint32_t b = (words[1] & low) | ((words[2] << 2) & high);
    uint32_t c = ((words[0] >> 4) & low) | (words[2] & high);
    uint32_t d = ((words[1] >> 4) & low) | ((words[2] >> 2) & high);
    return _mm_sub_epi8(_mm_setr_epi32((int)a, (int)b, (int)c, (int)d), _mm_set1_epi8(32));
}

SL_ALWAYS_INLINE void unpack_q3_k(const uint8_t *source, unpacked_block *block)
{
    block->d = half_at(source + offsetof(sl_block_q3_k, d));
    __m128i in_order = q3_k_scales(source + offsetof(sl_block_q3_k, scales));
    block->scales = pair_scales(in_order);
    block->side = _mm256_cvtepi8_epi16(in_order);
    unpack_two_bits(source + offsetof(sl_block_q3_k, q), block->codes);
    __m256i high = load32(source + offsetof(sl_block_q3_k, high_mask));
    for (int g = 0; g < GROUPS; g++) {
        block->codes[g] = _mm256_or_si256(block->codes[g], move_bit(high, g, 2));
    }
}

/* Eight scales, -32..31, as int16; see sl_iq4_xs_scale. */
SL_ALWAYS_INLINE __m128i iq4_xs_scales(const uint8_t *source)
{
    uint32_t nibbles;
    uint16_t pairs;
    memcpy(&nibbles, source + offsetof(sl_block_iq4_xs, scales_low), sizeof nibbles);
    memcpy(&pairs, source + offsetof(sl_block_iq4_xs, scales_high), sizeof pairs);
    __m128i even = _mm_cvtsi32_si128((int)(nibbles & UINT32_C(0x0f0f0f0f)));
    __m128i odd = _mm_cvtsi32_si128((int)((nibbles >> 4) & UINT32_C(0x0f0f0f0f)));
    __m128i low = _mm_cvtepu8_epi16(_mm_unpacklo_epi8(even, odd));
    /* A product with a power of two brings bits 2 g and 2 g + 1 to the top of word g. */
    const __m128i to_top = _mm_setr_epi16(1 << 14, 1 << 12, 1 << 10, 1 << 8, 1 << 6, 1 << 4, 1 << 2, 1);
    __m128i high = _mm_srli_epi16(_mm_mullo_epi16(_mm_set1_epi16((short)pairs), to_top), 14);
    return _mm_sub_epi16(_mm_or_si128(low, _mm_slli_epi16(high, 4)), _mm_set1_epi16(32));
}

SL_ALWAYS_INLINE void unpack_iq4_xs(const uint8_t *source, unpacked_block *block)
{
    block->d = half_at(source + offsetof(sl_block_iq4_xs, d));
    block->scales = _mm256_broadcastsi128_si256(iq4_xs_scales(source));
    __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)sl_iq4_nl_values));
    for (int g = 0; g < GROUPS; g++) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(source + offsetof(sl_block_iq4_xs, nibbles) + 16 * g));
        __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
        block->codes[g] = _mm256_shuffle_epi8(values, _mm256_and_si256(both, _mm256_set1_epi8(0x0f)));
    }
}

static const block_format format_q2_k = {unpack_q2_k, sizeof(sl_block_q2_k), -1, false, true};
static const block_format format_q3_k = {unpack_q3_k, sizeof(sl_block_q3_k), 2, false, false};
static const block_format format_q4_k = {unpack_q4_k, sizeof(sl_block_q4_k), -1, false, true};
static const block_format format_q5_k = {unpack_q5_k, sizeof(sl_block_q5_k), -1, false, true};
static const block_format format_q6_k = {unpack_q6_k, sizeof(sl_block_q6_k), 5, false, false};
static const block_format format_iq4_xs = {unpack_iq4_xs, sizeof(sl_block_iq4_xs), -1, true, false};

/* Word g of each half, in all words of that half. */
SL_ALWAYS_INLINE __m256i scale_of(__m256i scales, int g)
{
    return _mm256_shuffle_epi8(scales, _mm256_set1_epi16((short)((2 * g + 1) << 8 | 2 * g)));
}

SL_ALWAYS_INLINE __m256i pair_products(const block_format format, __m256i codes, __m256i magnitudes, const int8_t *q)
{
    __m256i y = _mm256_loadu_si256((const __m256i *)q);
    return format.is_signed ? _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(y, codes))
                            : _mm256_maddubs_epi16(codes, y);
}

SL_ALWAYS_INLINE __m256i side_products(const unpacked_block *weights, const sl_block_act_q8_256 *activation)
{
    return _mm256_madd_epi16(weights->side, _mm256_loadu_si256((const __m256i *)activation->sums));
}

/* The sums of the lanes of two vectors, in lanes 0 and 1. */
SL_ALWAYS_INLINE __m128i sum_two(__m256i a, __m256i b)
{
    __m256i halves = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    __m128i both = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    return _mm_add_epi32(both, _mm_unpackhi_epi64(both, both));
}

/* One row with one token. */
SL_ALWAYS_INLINE float multiply_one(const block_format format, const uint8_t *row, uint32_t n_blocks,
                                    const sl_block_act_q8_256 *x)
{
    float sum = 0.0f;
    for (uint32_t b = 0; b < n_blocks; b++, row += format.block_bytes) {
        const sl_ahead ahead = sl_ahead_of(row, 0);
        unpacked_block weights;
        format.unpack(row, &weights);
        __m256i products = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (uint32_t g = 0; g < GROUPS; g++) {
            if (g % 2 == 0) {
                sl_ahead_prefetch(&ahead, format.block_bytes, g / 2, PREFETCH_PARTS);
            }
            __m256i pairs = pair_products(format, weights.codes[g], _mm256_abs_epi8(weights.codes[g]), x[b].q + 32 * g);
            products = _mm256_add_epi32(products, _mm256_madd_epi16(pairs, scale_of(weights.scales, (int)g)));
        }
        __m256i side = _mm256_setzero_si256();
        if (format.has_minimum) {
            side = side_products(&weights, &x[b]);
        } else if (format.offset_shift >= 0) {
            products =
                _mm256_sub_epi32(products, _mm256_slli_epi32(side_products(&weights, &x[b]), format.offset_shift));
        }
        __m128 sums = _mm_cvtepi32_ps(sum_two(products, side));
        sum = fmaf(weights.d * x[b].d, _mm_cvtss_f32(sums), sum);
        if (format.has_minimum) {
            sum = fmaf(-(weights.dmin * x[b].d), _mm_cvtss_f32(_mm_movehdup_ps(sums)), sum);
        }
    }
    return sum;
}

#include "kernels/x86/one_row.inc"

DEFINE_MATMUL_ONE(avx2, q2_k)
DEFINE_MATMUL_ONE(avx2, q3_k)
DEFINE_MATMUL_ONE(avx2, q4_k)
DEFINE_MATMUL_ONE(avx2, q5_k)
DEFINE_MATMUL_ONE(avx2, q6_k)
DEFINE_MATMUL_ONE(avx2, iq4_xs)
