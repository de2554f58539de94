/* Matrix products with 32-element blocks: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. Codes are signed bytes with their offset taken off, and the dot product of signed bytes adds four products into
 *      an int32 lane exactly; generic/unpacked.h proves that the sums of a block fit.
 *   2. Lanes are rows wherever floats are added, so that one fused multiply-add serves four outputs.
 *   3. No byte outside the rows is read. Weights are loaded as bytes: they may start at any address.
 * Threads: pure functions; any thread. */
#include <string.h>

#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"
#include "quant/unpack.h"

enum { BLOCK_ELEMENTS = SL_QK };

/* The 32 codes of one block, in order. */
typedef int8x16x2_t codes_fn(const uint8_t *block);

/* What distinguishes the formats. Constant in every use. */
typedef struct block_format {
    codes_fn *codes;
    size_t block_bytes;
    bool has_minimum;    /* a second scale follows the first */
    bool has_e8m0_scale; /* the scale is a power of two in one byte */
} block_format;

/* One block of four rows, lanes are rows. */
typedef struct unpacked_tile {
    int8x16_t words[8]; /* word j of each row: codes 4 j to 4 j + 3 */
    float32x4_t d;
    float32x4_t m;
} unpacked_tile;

typedef sl_block_act_q8_32 activation_block;

SL_ALWAYS_INLINE uint8x16x2_t nibbles_of(const uint8_t *nibbles)
{
    uint8x16_t bytes = vld1q_u8(nibbles);
    return (uint8x16x2_t){{vandq_u8(bytes, vdupq_n_u8(0x0f)), vshrq_n_u8(bytes, 4)}};
}

SL_ALWAYS_INLINE int8x16x2_t take_off(uint8x16x2_t codes, int8_t offset)
{
    return (int8x16x2_t){{vsubq_s8(vreinterpretq_s8_u8(codes.val[0]), vdupq_n_s8(offset)),
                          vsubq_s8(vreinterpretq_s8_u8(codes.val[1]), vdupq_n_s8(offset))}};
}

/* 0x10 in byte j where bit j of the two bytes is set. */
SL_ALWAYS_INLINE uint8x16_t spread_bits(const uint8_t bits[2])
{
    const uint8x8_t bit_of = vcreate_u8(UINT64_C(0x8040201008040201));
    uint8x16_t bytes = vcombine_u8(vdup_n_u8(bits[0]), vdup_n_u8(bits[1]));
    return vandq_u8(vtstq_u8(bytes, vcombine_u8(bit_of, bit_of)), vdupq_n_u8(0x10));
}

SL_ALWAYS_INLINE uint8x16x2_t five_bits_of(const uint8_t *nibbles, const uint8_t high_bits[4])
{
    uint8x16x2_t codes = nibbles_of(nibbles);
    codes.val[0] = vorrq_u8(codes.val[0], spread_bits(high_bits));
    codes.val[1] = vorrq_u8(codes.val[1], spread_bits(high_bits + 2));
    return codes;
}

SL_ALWAYS_INLINE int8x16x2_t codes_q4_0(const uint8_t *block)
{
    return take_off(nibbles_of(block + offsetof(sl_block_q4_0, nibbles)), 8);
}

SL_ALWAYS_INLINE int8x16x2_t codes_q4_1(const uint8_t *block)
{
    return take_off(nibbles_of(block + offsetof(sl_block_q4_1, nibbles)), 0);
}

SL_ALWAYS_INLINE int8x16x2_t codes_q5_0(const uint8_t *block)
{
    return take_off(five_bits_of(block + offsetof(sl_block_q5_0, nibbles), block + offsetof(sl_block_q5_0, high_bits)),
                    16);
}

SL_ALWAYS_INLINE int8x16x2_t codes_q5_1(const uint8_t *block)
{
    return take_off(five_bits_of(block + offsetof(sl_block_q5_1, nibbles), block + offsetof(sl_block_q5_1, high_bits)),
                    0);
}

SL_ALWAYS_INLINE int8x16x2_t codes_q8_0(const uint8_t *block)
{
    const int8_t *q = (const int8_t *)block + offsetof(sl_block_q8_0, q);
    return (int8x16x2_t){{vld1q_s8(q), vld1q_s8(q + 16)}};
}

SL_ALWAYS_INLINE int8x16x2_t look_up(const int8_t table[16], uint8x16x2_t indices)
{
    int8x16_t values = vld1q_s8(table);
    return (int8x16x2_t){{vqtbl1q_s8(values, indices.val[0]), vqtbl1q_s8(values, indices.val[1])}};
}

SL_ALWAYS_INLINE int8x16x2_t codes_iq4_nl(const uint8_t *block)
{
    return look_up(sl_iq4_nl_values, nibbles_of(block + offsetof(sl_block_iq4_nl, nibbles)));
}

SL_ALWAYS_INLINE int8x16x2_t codes_mxfp4(const uint8_t *block)
{
    return look_up(sl_mxfp4_doubled_values, nibbles_of(block + offsetof(sl_block_mxfp4, nibbles)));
}

static const block_format format_q4_0 = {codes_q4_0, sizeof(sl_block_q4_0), false, false};
static const block_format format_q4_1 = {codes_q4_1, sizeof(sl_block_q4_1), true, false};
static const block_format format_q5_0 = {codes_q5_0, sizeof(sl_block_q5_0), false, false};
static const block_format format_q5_1 = {codes_q5_1, sizeof(sl_block_q5_1), true, false};
static const block_format format_q8_0 = {codes_q8_0, sizeof(sl_block_q8_0), false, false};
static const block_format format_iq4_nl = {codes_iq4_nl, sizeof(sl_block_iq4_nl), false, false};
static const block_format format_mxfp4 = {codes_mxfp4, sizeof(sl_block_mxfp4), false, true};

SL_ALWAYS_INLINE float32x4_t scales_of(const block_format format, const uint8_t *const row[4])
{
    if (!format.has_e8m0_scale) {
        return sl_neon_half_scales(row, 0);
    }
    float scales[4];
    for (int r = 0; r < 4; r++) {
        scales[r] = sl_e8m0_half(row[r][0]);
    }
    return vld1q_f32(scales);
}

/* The terms of one block: `integers` are the sums of products of the four rows. */
SL_ALWAYS_INLINE float32x4_t add_terms(const block_format format, float32x4_t d, float32x4_t m,
                                       const activation_block *x, int32x4_t integers, float32x4_t sum)
{
    sum = vfmaq_f32(sum, vmulq_n_f32(d, x->d), vcvtq_f32_s32(integers));
    if (format.has_minimum) {
        sum = vfmaq_f32(sum, vmulq_n_f32(m, x->d), vdupq_n_f32((float)x->sum));
    }
    return sum;
}

SL_ALWAYS_INLINE float32x4_t multiply_one(const block_format format, const uint8_t *const row[4],
                                          const activation_block *x, float32x4_t sum)
{
    int8x16_t low = vld1q_s8(x->q);
    int8x16_t high = vld1q_s8(x->q + 16);
    int32x4_t products[4];
    for (int r = 0; r < 4; r++) {
        int8x16x2_t codes = format.codes(row[r]);
        products[r] = vdotq_s32(vdotq_s32(vdupq_n_s32(0), codes.val[0], low), codes.val[1], high);
    }
    float32x4_t m = format.has_minimum ? sl_neon_half_scales(row, sizeof(uint16_t)) : vdupq_n_f32(0.0f);
    return add_terms(format, scales_of(format, row), m, x, sl_neon_sum_four(products), sum);
}

SL_ALWAYS_INLINE void unpack_tile(const block_format format, const uint8_t *const row[4], unpacked_tile *tile)
{
    int32x4_t rows[2][4];
    for (int r = 0; r < 4; r++) {
        int8x16x2_t codes = format.codes(row[r]);
        rows[0][r] = vreinterpretq_s32_s8(codes.val[0]);
        rows[1][r] = vreinterpretq_s32_s8(codes.val[1]);
    }
    for (int half = 0; half < 2; half++) {
        int32x4_t words[4];
        sl_neon_transpose(rows[half], words);
        for (int j = 0; j < 4; j++) {
            tile->words[4 * half + j] = vreinterpretq_s8_s32(words[j]);
        }
    }
    tile->d = scales_of(format, row);
    tile->m = format.has_minimum ? sl_neon_half_scales(row, sizeof(uint16_t)) : vdupq_n_f32(0.0f);
}

SL_ALWAYS_INLINE void multiply_tile(const block_format format, const unpacked_tile *tile, const uint8_t *activations,
                                    size_t stride, int n_tokens, float32x4_t *sums)
{
    for (int t = 0; t < n_tokens; t++) {
        const activation_block *x = (const activation_block *)(const void *)(activations + (size_t)t * stride);
        int32x4_t integers = sl_neon_dot_words(vdupq_n_s32(0), tile->words, vld1q_s8(x->q));
        integers = sl_neon_dot_words(integers, tile->words + 4, vld1q_s8(x->q + 16));
        sums[t] = add_terms(format, tile->d, tile->m, x, integers, sums[t]);
    }
}

#include "kernels/arm/neon_matmul.inc"

DEFINE_MATMUL(q4_0)
DEFINE_MATMUL(q4_1)
DEFINE_MATMUL(q5_0)
DEFINE_MATMUL(q5_1)
DEFINE_MATMUL(q8_0)
DEFINE_MATMUL(iq4_nl)
DEFINE_MATMUL(mxfp4)
