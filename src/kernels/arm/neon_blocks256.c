/* Matrix products with 256-element blocks: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. Codes are signed bytes with their offset taken off, and the dot product of signed bytes adds four products into
 *      an int32 lane exactly. Every lane holds a part of the integer sum of a block, times the integer scales, that
 *      generic/unpacked.h proves to fit whatever the bytes are.
 *   2. Lanes are rows wherever floats are added, so that one fused multiply-add serves four outputs.
 *   3. No byte outside the rows is read. Weights are loaded as bytes: they may start at any address.
 * Threads: pure functions; any thread. */
#include <string.h>

#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"
#include "quant/unpack.h"

enum {
    BLOCK_ELEMENTS = SL_QK_K,
    VECTORS = SL_QK_K / 16 /* of codes in a block */
};

/* One block of one row. Scales and minima stand one per group, in the first lanes. */
typedef struct unpacked_block {
    int8x16_t codes[VECTORS]; /* in order */
    int8x16_t scales;
    int8x16_t minima; /* set by formats with minima only */
} unpacked_block;

typedef void unpack_fn(const uint8_t *source, unpacked_block *block);

/* What distinguishes the formats. Constant in every use. */
typedef struct block_format {
    unpack_fn *unpack;
    size_t block_bytes;
    size_t d_offset;
    size_t dmin_offset; /* of formats with minima */
    int n_groups;       /* of codes with a scale of their own: 8 or 16 */
    bool has_minimum;
} block_format;

/* One block of four rows, lanes are rows. */
typedef struct unpacked_tile {
    int8x16_t words[4 * VECTORS]; /* word j of each row: codes 4 j to 4 j + 3 */
    int32x4_t scales[VECTORS];    /* one per group */
    int32x4_t minima[VECTORS];
    float32x4_t d;
    float32x4_t dmin;
} unpacked_tile;

typedef sl_block_act_q8_256 activation_block;

SL_ALWAYS_INLINE int8x16_t as_signed(uint8x16_t bytes)
{
    return vreinterpretq_s8_u8(bytes);
}

SL_ALWAYS_INLINE void unpack_nibbles(const uint8_t *nibbles, uint8x16_t codes[VECTORS])
{
    for (int run = 0; run < 4; run++) {
        for (int half = 0; half < 2; half++) {
            uint8x16_t bytes = vld1q_u8(nibbles + 32 * run + 16 * half);
            codes[4 * run + half] = vandq_u8(bytes, vdupq_n_u8(0x0f));
            codes[4 * run + 2 + half] = vshrq_n_u8(bytes, 4);
        }
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
    const int8x8_t none = vdup_n_s8(0);
    block->scales = vcombine_s8(vcreate_s8(low_scales | (uint64_t)high_scales << 32), none);
    block->minima = vcombine_s8(vcreate_s8(low_minima | (uint64_t)high_minima << 32), none);
}

SL_ALWAYS_INLINE void unpack_q4_k(const uint8_t *source, unpacked_block *block)
{
    unpack_scales_and_minima(source + offsetof(sl_block_q4_k, scales), block);
    uint8x16_t codes[VECTORS];
    unpack_nibbles(source + offsetof(sl_block_q4_k, q), codes);
    for (int v = 0; v < VECTORS; v++) {
        block->codes[v] = as_signed(codes[v]);
    }
}

SL_ALWAYS_INLINE void unpack_q5_k(const uint8_t *source, unpacked_block *block)
{
    unpack_scales_and_minima(source + offsetof(sl_block_q5_k, scales), block);
    uint8x16_t codes[VECTORS];
    unpack_nibbles(source + offsetof(sl_block_q5_k, q), codes);
    for (int half = 0; half < 2; half++) {
        uint8x16_t high = vld1q_u8(source + offsetof(sl_block_q5_k, high_bits) + 16 * half);
        for (int plane = 0; plane < 8; plane++) {
            uint8x16_t is_set = vtstq_u8(high, vdupq_n_u8((uint8_t)(1 << plane)));
            int v = 2 * plane + half;
            block->codes[v] = as_signed(vorrq_u8(codes[v], vandq_u8(is_set, vdupq_n_u8(16))));
        }
    }
}

SL_ALWAYS_INLINE void unpack_q6_k(const uint8_t *source, unpacked_block *block)
{
    block->scales = as_signed(vld1q_u8(source + offsetof(sl_block_q6_k, scales)));
    const uint8x16_t nibble = vdupq_n_u8(0x0f);
    const uint8x16_t two_bits = vdupq_n_u8(0x30);
    const int8x16_t offset = vdupq_n_s8(32);
    for (int i = 0; i < 4; i++) {
        int half = i / 2;
        int side = i % 2;
        const uint8_t *low = source + offsetof(sl_block_q6_k, low) + 64 * half + 16 * side;
        uint8x16_t first = vld1q_u8(low);
        uint8x16_t second = vld1q_u8(low + 32);
        uint8x16_t high = vld1q_u8(source + offsetof(sl_block_q6_k, high) + 32 * half + 16 * side);
        int8x16_t *codes = block->codes + 8 * half + side;
        uint8x16_t bits = vandq_u8(vshlq_n_u8(high, 4), two_bits);
        codes[0] = vsubq_s8(as_signed(vorrq_u8(vandq_u8(first, nibble), bits)), offset);
        bits = vandq_u8(vshlq_n_u8(high, 2), two_bits);
        codes[2] = vsubq_s8(as_signed(vorrq_u8(vandq_u8(second, nibble), bits)), offset);
        bits = vandq_u8(high, two_bits);
        codes[4] = vsubq_s8(as_signed(vorrq_u8(vshrq_n_u8(first, 4), bits)), offset);
        bits = vandq_u8(vshrq_n_u8(high, 2), two_bits);
        codes[6] = vsubq_s8(as_signed(vorrq_u8(vshrq_n_u8(second, 4), bits)), offset);
    }
}

SL_ALWAYS_INLINE void unpack_two_bits(const uint8_t *planes, uint8x16_t codes[VECTORS])
{
    const uint8x16_t two_bits = vdupq_n_u8(3);
    for (int i = 0; i < 4; i++) {
        uint8x16_t bytes = vld1q_u8(planes + 16 * i);
        uint8x16_t *first = codes + 8 * (i / 2) + i % 2;
        first[0] = vandq_u8(bytes, two_bits);
        first[2] = vandq_u8(vshrq_n_u8(bytes, 2), two_bits);
        first[4] = vandq_u8(vshrq_n_u8(bytes, 4), two_bits);
        first[6] = vshrq_n_u8(bytes, 6);
    }
}

SL_ALWAYS_INLINE void unpack_q2_k(const uint8_t *source, unpacked_block *block)
{
    uint8x16_t packed = vld1q_u8(source + offsetof(sl_block_q2_k, scales));
    block->scales = as_signed(vandq_u8(packed, vdupq_n_u8(0x0f)));
    block->minima = as_signed(vshrq_n_u8(packed, 4));
    uint8x16_t codes[VECTORS];
    unpack_two_bits(source + offsetof(sl_block_q2_k, q), codes);
    for (int v = 0; v < VECTORS; v++) {
        block->codes[v] = as_signed(codes[v]);
    }
}

/* 16 scales, -32..31, four at a time in a word; see sl_q3_k_scale. */
SL_ALWAYS_INLINE int8x16_t q3_k_scales(const uint8_t *packed)
{
    uint32_t words[3];
    memcpy(words, packed, sizeof words);
    const uint32_t low = UINT32_C(0x0f0f0f0f);
    const uint32_t high = UINT32_C(0x30303030);
    const uint32_t scales[4] = {
        (words[0] & low) | ((words[2] << 4) & high), (words[1] & low) | ((words[2] << 2) & high),
        ((words[0] >> 4) & low) | (words[2] & high), ((words[1] >> 4) & low) | ((words[2] >> 2) & high)};
    return vsubq_s8(vreinterpretq_s8_u32(vld1q_u32(scales)), vdupq_n_s8(32));
}

SL_ALWAYS_INLINE void unpack_q3_k(const uint8_t *source, unpacked_block *block)
{
    block->scales = q3_k_scales(source + offsetof(sl_block_q3_k, scales));
    uint8x16_t codes[VECTORS];
    unpack_two_bits(source + offsetof(sl_block_q3_k, q), codes);
    for (int half = 0; half < 2; half++) {
        uint8x16_t high = vld1q_u8(source + offsetof(sl_block_q3_k, high_mask) + 16 * half);
        for (int plane = 0; plane < 8; plane++) {
            /* 4 where the bit is not set. */
            uint8x16_t missing = vbicq_u8(vdupq_n_u8(4), vtstq_u8(high, vdupq_n_u8((uint8_t)(1 << plane))));
            int v = 2 * plane + half;
            block->codes[v] = vsubq_s8(as_signed(codes[v]), as_signed(missing));
        }
    }
}

/* Eight scales, -32..31; see sl_iq4_xs_scale. */
SL_ALWAYS_INLINE int8x8_t iq4_xs_scales(const uint8_t *source)
{
    uint32_t nibbles;
    uint16_t pairs;
    memcpy(&nibbles, source + offsetof(sl_block_iq4_xs, scales_low), sizeof nibbles);
    memcpy(&pairs, source + offsetof(sl_block_iq4_xs, scales_high), sizeof pairs);
    uint8x8_t even = vcreate_u8(nibbles & UINT32_C(0x0f0f0f0f));
    uint8x8_t odd = vcreate_u8((nibbles >> 4) & UINT32_C(0x0f0f0f0f));
    /* Bits 2 g and 2 g + 1 of `pairs` move to bits 4 and 5 of lane g. */
    static const int16_t to_place[8] = {4, 2, 0, -2, -4, -6, -8, -10};
    uint8x8_t high = vand_u8(vmovn_u16(vshlq_u16(vdupq_n_u16(pairs), vld1q_s16(to_place))), vdup_n_u8(0x30));
    return vsub_s8(vreinterpret_s8_u8(vorr_u8(vzip1_u8(even, odd), high)), vdup_n_s8(32));
}

SL_ALWAYS_INLINE void unpack_iq4_xs(const uint8_t *source, unpacked_block *block)
{
    block->scales = vcombine_s8(iq4_xs_scales(source), vdup_n_s8(0));
    int8x16_t values = vld1q_s8(sl_iq4_nl_values);
    for (int v = 0; v < VECTORS; v += 2) {
        uint8x16_t bytes = vld1q_u8(source + offsetof(sl_block_iq4_xs, nibbles) + 8 * v);
        block->codes[v] = vqtbl1q_s8(values, vandq_u8(bytes, vdupq_n_u8(0x0f)));
        block->codes[v + 1] = vqtbl1q_s8(values, vshrq_n_u8(bytes, 4));
    }
}

#define SCALE_OFFSET(type) sizeof(type), offsetof(type, d)
static const block_format format_q2_k = {unpack_q2_k, SCALE_OFFSET(sl_block_q2_k), offsetof(sl_block_q2_k, dmin), 16,
                                         true};
static const block_format format_q3_k = {unpack_q3_k, SCALE_OFFSET(sl_block_q3_k), 0, 16, false};
static const block_format format_q4_k = {unpack_q4_k, SCALE_OFFSET(sl_block_q4_k), offsetof(sl_block_q4_k, dmin), 8,
                                         true};
static const block_format format_q5_k = {unpack_q5_k, SCALE_OFFSET(sl_block_q5_k), offsetof(sl_block_q5_k, dmin), 8,
                                         true};
static const block_format format_q6_k = {unpack_q6_k, SCALE_OFFSET(sl_block_q6_k), 0, 16, false};
static const block_format format_iq4_xs = {unpack_iq4_xs, SCALE_OFFSET(sl_block_iq4_xs), 0, 8, false};

/* The 16-bit scales at `offset` of one block in four rows. */
SL_ALWAYS_INLINE float32x4_t half_scales(const uint8_t *const row[4], size_t offset)
{
    uint16_t halves[4];
    for (int r = 0; r < 4; r++) {
        memcpy(&halves[r], row[r] + offset, sizeof halves[r]);
    }
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves)));
}

/* Four bytes of `bytes`, from byte 4 `quarter` on, as int32. */
SL_ALWAYS_INLINE int32x4_t widen_quarter(int8x16_t bytes, int quarter)
{
    int16x8_t half = vmovl_s8(quarter < 2 ? vget_low_s8(bytes) : vget_high_s8(bytes));
    return vmovl_s16(quarter % 2 == 0 ? vget_low_s16(half) : vget_high_s16(half));
}

/* The sums of the codes of a token, one per group: those of 32 codes fit int16 too. */
SL_ALWAYS_INLINE void group_sums(const block_format format, const activation_block *x, int16x8_t sums[2])
{
    sums[0] = vld1q_s16(x->sums);
    sums[1] = vld1q_s16(x->sums + 8);
    if (format.n_groups == 8) {
        sums[0] = vpaddq_s16(sums[0], sums[1]);
    }
}

/* The sum of the lanes is the integer sum of one row: products times scales, four groups at a time. */
SL_ALWAYS_INLINE int32x4_t integer_sum(const block_format format, const unpacked_block *block,
                                       const activation_block *x)
{
    const int per_group = VECTORS / format.n_groups;
    int32x4_t sum = vdupq_n_s32(0);
    for (int quarter = 0; quarter < format.n_groups / 4; quarter++) {
        int32x4_t products[4];
        for (int i = 0; i < 4; i++) {
            products[i] = vdupq_n_s32(0);
            for (int v = (4 * quarter + i) * per_group; v < (4 * quarter + i + 1) * per_group; v++) {
                products[i] = vdotq_s32(products[i], block->codes[v], vld1q_s8(x->q + 16 * v));
            }
        }
        sum = vmlaq_s32(sum, sl_neon_sum_four(products), widen_quarter(block->scales, quarter));
    }
    return sum;
}

/* The sum of the lanes is the sum of one row's minima times the sums of the token's codes. */
SL_ALWAYS_INLINE int32x4_t minimum_sum(const block_format format, int8x16_t minima, const int16x8_t sums[2])
{
    int16x8_t wide = vmovl_s8(vget_low_s8(minima));
    int32x4_t sum = vmull_s16(vget_low_s16(wide), vget_low_s16(sums[0]));
    sum = vmlal_high_s16(sum, wide, sums[0]);
    if (format.n_groups == 16) {
        wide = vmovl_s8(vget_high_s8(minima));
        sum = vmlal_s16(sum, vget_low_s16(wide), vget_low_s16(sums[1]));
        sum = vmlal_high_s16(sum, wide, sums[1]);
    }
    return sum;
}

SL_ALWAYS_INLINE float32x4_t multiply_one(const block_format format, const uint8_t *const row[4],
                                          const activation_block *x, float32x4_t sum)
{
    int16x8_t sums_x[2];
    group_sums(format, x, sums_x);
    int32x4_t products[4];
    int32x4_t minima[4];
    for (int r = 0; r < 4; r++) {
        unpacked_block block;
        format.unpack(row[r], &block);
        products[r] = integer_sum(format, &block, x);
        if (format.has_minimum) {
            minima[r] = minimum_sum(format, block.minima, sums_x);
        }
    }
    float32x4_t d = vmulq_n_f32(half_scales(row, format.d_offset), x->d);
    sum = vfmaq_f32(sum, d, vcvtq_f32_s32(sl_neon_sum_four(products)));
    if (format.has_minimum) {
        float32x4_t dmin = vmulq_n_f32(half_scales(row, format.dmin_offset), x->d);
        sum = vfmsq_f32(sum, dmin, vcvtq_f32_s32(sl_neon_sum_four(minima)));
    }
    return sum;
}

/* One value per group in each of four rows becomes one vector of rows per group. */
SL_ALWAYS_INLINE void transpose_groups(int n_groups, const int8x16_t rows[4], int32x4_t groups[VECTORS])
{
    for (int quarter = 0; quarter < n_groups / 4; quarter++) {
        int32x4_t wide[4];
        for (int r = 0; r < 4; r++) {
            wide[r] = widen_quarter(rows[r], quarter);
        }
        sl_neon_transpose(wide, groups + 4 * quarter);
    }
}

SL_ALWAYS_INLINE void unpack_tile(const block_format format, const uint8_t *const row[4], unpacked_tile *tile)
{
    unpacked_block blocks[4];
    int8x16_t scales[4];
    int8x16_t minima[4];
    for (int r = 0; r < 4; r++) {
        format.unpack(row[r], &blocks[r]);
        scales[r] = blocks[r].scales;
        if (format.has_minimum) {
            minima[r] = blocks[r].minima;
        }
    }
    for (int v = 0; v < VECTORS; v++) {
        int32x4_t rows[4];
        int32x4_t words[4];
        for (int r = 0; r < 4; r++) {
            rows[r] = vreinterpretq_s32_s8(blocks[r].codes[v]);
        }
        sl_neon_transpose(rows, words);
        for (int j = 0; j < 4; j++) {
            tile->words[4 * v + j] = vreinterpretq_s8_s32(words[j]);
        }
    }
    transpose_groups(format.n_groups, scales, tile->scales);
    tile->d = half_scales(row, format.d_offset);
    if (format.has_minimum) {
        transpose_groups(format.n_groups, minima, tile->minima);
        tile->dmin = half_scales(row, format.dmin_offset);
    }
}

/* Lane r: the sum of row r's minima times the sums of the token's codes. */
SL_ALWAYS_INLINE int32x4_t minimum_sums(const block_format format, const unpacked_tile *tile, const activation_block *x)
{
    int16x8_t sums_x[2];
    group_sums(format, x, sums_x);
    int32x4_t sum = vdupq_n_s32(0);
    for (int half = 0; half < format.n_groups / 8; half++) {
        const int32x4_t *minima = tile->minima + 8 * half;
        int32x4_t low = vmovl_s16(vget_low_s16(sums_x[half]));
        int32x4_t high = vmovl_s16(vget_high_s16(sums_x[half]));
        sum = vmlaq_laneq_s32(sum, minima[0], low, 0);
        sum = vmlaq_laneq_s32(sum, minima[1], low, 1);
        sum = vmlaq_laneq_s32(sum, minima[2], low, 2);
        sum = vmlaq_laneq_s32(sum, minima[3], low, 3);
        sum = vmlaq_laneq_s32(sum, minima[4], high, 0);
        sum = vmlaq_laneq_s32(sum, minima[5], high, 1);
        sum = vmlaq_laneq_s32(sum, minima[6], high, 2);
        sum = vmlaq_laneq_s32(sum, minima[7], high, 3);
    }
    return sum;
}

SL_ALWAYS_INLINE void multiply_tile(const block_format format, const unpacked_tile *tile, const uint8_t *activations,
                                    size_t stride, int n_tokens, float32x4_t *sums)
{
    enum { MOST_TOKENS = 4 };
    const int per_group = VECTORS / format.n_groups;
    const activation_block *x[MOST_TOKENS];
    int32x4_t integers[MOST_TOKENS];
    for (int t = 0; t < n_tokens; t++) {
        x[t] = (const activation_block *)(const void *)(activations + (size_t)t * stride);
        integers[t] = vdupq_n_s32(0);
    }
    for (int group = 0; group < format.n_groups; group++) {
        int32x4_t products[MOST_TOKENS];
        for (int t = 0; t < n_tokens; t++) {
            products[t] = vdupq_n_s32(0);
        }
        for (int v = group * per_group; v < (group + 1) * per_group; v++) {
            for (int t = 0; t < n_tokens; t++) {
                products[t] = sl_neon_dot_words(products[t], tile->words + 4 * v, vld1q_s8(x[t]->q + 16 * v));
            }
        }
        for (int t = 0; t < n_tokens; t++) {
            integers[t] = vmlaq_s32(integers[t], products[t], tile->scales[group]);
        }
    }
    for (int t = 0; t < n_tokens; t++) {
        sums[t] = vfmaq_f32(sums[t], vmulq_n_f32(tile->d, x[t]->d), vcvtq_f32_s32(integers[t]));
        if (format.has_minimum) {
            float32x4_t dmin = vmulq_n_f32(tile->dmin, x[t]->d);
            sums[t] = vfmsq_f32(sums[t], dmin, vcvtq_f32_s32(minimum_sums(format, tile, x[t])));
        }
    }
}

#include "kernels/arm/neon_matmul.inc"

DEFINE_MATMUL(q2_k)
DEFINE_MATMUL(q3_k)
DEFINE_MATMUL(q4_k)
DEFINE_MATMUL(q5_k)
DEFINE_MATMUL(q6_k)
DEFINE_MATMUL(iq4_xs)
