/* Matrix products with 256-element blocks: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. What neon_products256.inc says of codes and sums.
 *   2. Lanes are rows wherever floats are added, so that one fused multiply-add serves four outputs.
 *   3. No byte outside the rows is read. Weights are loaded as bytes: they may start at any address.
 * Threads: pure functions; any thread. */
#include <string.h>

#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"
#include "quant/unpack.h"

#include "kernels/arm/neon_products256.inc"

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

#define SCALE_OFFSET(type) sizeof(type), sl_neon_half_scales, offsetof(type, d)
static const block_format format_q2_k = {unpack_q2_k, SCALE_OFFSET(sl_block_q2_k), offsetof(sl_block_q2_k, dmin), 16,
                                         true};
static const block_format format_q3_k = {unpack_q3_k, SCALE_OFFSET(sl_block_q3_k), 0, 16, false};
static const block_format format_q4_k = {unpack_q4_k, SCALE_OFFSET(sl_block_q4_k), offsetof(sl_block_q4_k, dmin), 8,
                                         true};
static const block_format format_q5_k = {unpack_q5_k, SCALE_OFFSET(sl_block_q5_k), offsetof(sl_block_q5_k, dmin), 8,
                                         true};
static const block_format format_q6_k = {unpack_q6_k, SCALE_OFFSET(sl_block_q6_k), 0, 16, false};
static const block_format format_iq4_xs = {unpack_iq4_xs, SCALE_OFFSET(sl_block_iq4_xs), 0, 8, false};

DEFINE_MATMUL(q2_k)
DEFINE_MATMUL(q3_k)
DEFINE_MATMUL(q4_k)
DEFINE_MATMUL(q5_k)
DEFINE_MATMUL(q6_k)
DEFINE_MATMUL(iq4_xs)
