/* Matrix products with blocks whose weights come from a grid: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S.
 *
 * Indices, signs and scales of a block are unpacked in vectors; then each index is one load of eight or four elements.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. What neon_products256.inc says of codes and sums. Codes are signed: magnitudes of IQ2 and IQ3 are at most 62,
 *      codes of IQ1 at most 9, and no scale is above 31.
 *   2. Indices are cut to the bits they have, so a look-up stays in its grid whatever the bytes are.
 *   3. Lanes are rows wherever floats are added, so that one fused multiply-add serves four outputs.
 *   4. No byte outside the rows is read. Weights are loaded as bytes: they may start at any address.
 * Threads: pure functions; any thread. */
#include <string.h>

#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"
#include "quant/blocks.h"
#include "quant/grids.h"

#include "kernels/arm/neon_products256.inc"

enum {
    EIGHTS = SL_QK_K / 8, /* runs of eight codes in a block: each has a byte of signs */
    FOURS = SL_QK_K / 4
};

/* Where a table look-up finds byte 2 v for the first eight lanes and byte 2 v + 1 for the others. */
SL_ALWAYS_INLINE uint8x16_t bytes_of_eights(int v)
{
    return vcombine_u8(vdup_n_u8((uint8_t)(2 * v)), vdup_n_u8((uint8_t)(2 * v + 1)));
}

/* Where it finds word 2 v for the first four words and word 2 v + 1 for the others. */
SL_ALWAYS_INLINE uint8x16_t words_of_fours(int v)
{
    const uint8x16_t pattern =
        vcombine_u8(vcreate_u8(UINT64_C(0x0100010001000100)), vcreate_u8(UINT64_C(0x0302030203020302)));
    return vaddq_u8(pattern, vdupq_n_u8((uint8_t)(4 * v)));
}

/* All ones in lane j where bit j % 8 of byte 2 v + j / 8 is set. */
SL_ALWAYS_INLINE uint8x16_t spread_bits(uint8x16_t bytes, int v)
{
    const uint8x16_t bit_of = vreinterpretq_u8_u64(vdupq_n_u64(UINT64_C(0x8040201008040201)));
    return vtstq_u8(vqtbl1q_u8(bytes, bytes_of_eights(v)), bit_of);
}

SL_ALWAYS_INLINE int8x16_t two_entries(const uint64_t *grid, unsigned first, unsigned second)
{
    return vreinterpretq_s8_u64(vcombine_u64(vld1_u64(grid + first), vld1_u64(grid + second)));
}

SL_ALWAYS_INLINE int8x16_t four_entries(const uint32_t *grid, unsigned a, unsigned b, unsigned c, unsigned d)
{
    uint32x4_t entries = {grid[a], grid[b], grid[c], grid[d]};
    return vreinterpretq_s8_u32(entries);
}

/* Vector v of a block's codes, its signs in 2 bytes of 32. */
SL_ALWAYS_INLINE int8x16_t with_signs(int8x16_t magnitudes, const uint8x16_t signs[2], int v)
{
    int8x16_t is_negative = as_signed(spread_bits(signs[v / 8], v % 8));
    return vsubq_s8(veorq_s8(magnitudes, is_negative), is_negative);
}

/* Every byte has seven signs; its highest bit becomes the one that makes their number even. */
SL_ALWAYS_INLINE uint8x16_t complete_signs(uint8x16_t seven)
{
    return vsliq_n_u8(seven, vcntq_u8(seven), 7);
}

/* Words with four times seven signs in their lowest bits: a byte for each seven. */
SL_ALWAYS_INLINE uint8x16_t signs_of_words(uint32x4_t words)
{
    uint32x4_t low = vbslq_u32(vdupq_n_u32(0x7f), words, vshlq_n_u32(words, 1));
    uint32x4_t high = vbslq_u32(vdupq_n_u32(0x7fffff), vshlq_n_u32(words, 2), vshlq_n_u32(words, 3));
    uint8x16_t bytes = vreinterpretq_u8_u32(vbslq_u32(vdupq_n_u32(0x7fff), low, high));
    return complete_signs(vandq_u8(bytes, vdupq_n_u8(0x7f)));
}

SL_ALWAYS_INLINE int8x16_t odd_scales(uint8x16_t stored)
{
    return as_signed(vsliq_n_u8(vdupq_n_u8(1), stored, 1));
}

/* Eight words whose highest four bits are a scale, four times seven signs below. */
SL_ALWAYS_INLINE void unpack_signs_and_scales(uint32x4_t first, uint32x4_t second, uint8x16_t signs[2],
                                              unpacked_block *block)
{
    uint16x8_t high = vuzp2q_u16(vreinterpretq_u16_u32(first), vreinterpretq_u16_u32(second));
    uint8x8_t scales = vmovn_u16(vshrq_n_u16(high, 12));
    block->scales = odd_scales(vcombine_u8(scales, scales));
    signs[0] = signs_of_words(first);
    signs[1] = signs_of_words(second);
}

/* Nibbles, the low one of a byte first. */
SL_ALWAYS_INLINE int8x16_t scales_of_nibbles(uint8x8_t bytes)
{
    uint8x16_t both = vcombine_u8(bytes, bytes);
    return odd_scales(vzip1q_u8(vandq_u8(both, vdupq_n_u8(0x0f)), vshrq_n_u8(both, 4)));
}

/* 16 indices from their bits 0 to 7 and the ones above. */
SL_ALWAYS_INLINE void store_indices(uint16_t indices[16], uint8x16_t low, uint8x16_t high)
{
    vst1q_u16(indices, vreinterpretq_u16_u8(vzip1q_u8(low, high)));
    vst1q_u16(indices + 8, vreinterpretq_u16_u8(vzip2q_u8(low, high)));
}

/* The codes of IQ2 where indices are not whole bytes. */
SL_ALWAYS_INLINE void look_up_eights(const uint64_t *grid, const uint16_t indices[EIGHTS], const uint8x16_t signs[2],
                                     unpacked_block *block)
{
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; v++) {
        block->codes[v] = with_signs(two_entries(grid, indices[2 * v], indices[2 * v + 1]), signs, v);
    }
}

SL_ALWAYS_INLINE void unpack_iq2_xxs(const uint8_t *source, unpacked_block *block)
{
    const uint8_t *groups = source + offsetof(sl_block_iq2_xxs, groups);
    uint32x4_t words[2];
    for (int half = 0; half < 2; half++) {
        words[half] = vuzp2q_u32(vreinterpretq_u32_u8(vld1q_u8(groups + 32 * half)),
                                 vreinterpretq_u32_u8(vld1q_u8(groups + 32 * half + 16)));
    }
    uint8x16_t signs[2];
    unpack_signs_and_scales(words[0], words[1], signs, block);
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; v++) {
        const uint8_t *indices = groups + 8 * (v / 2) + 2 * (v % 2);
        block->codes[v] = with_signs(two_entries(sl_iq2_xxs_grid, indices[0], indices[1]), signs, v);
    }
}

SL_ALWAYS_INLINE void unpack_iq2_xs(const uint8_t *source, unpacked_block *block)
{
    block->scales = scales_of_nibbles(vld1_u8(source + offsetof(sl_block_iq2_xs, scales)));
    uint16_t indices[EIGHTS];
    uint8x16_t signs[2];
    for (int half = 0; half < 2; half++) {
        uint8x16_t first = vld1q_u8(source + offsetof(sl_block_iq2_xs, entries) + 32 * half);
        uint8x16_t second = vld1q_u8(source + offsetof(sl_block_iq2_xs, entries) + 32 * half + 16);
        const uint16x8_t nine_bits = vdupq_n_u16(0x1ff);
        vst1q_u16(indices + 16 * half, vandq_u16(vreinterpretq_u16_u8(first), nine_bits));
        vst1q_u16(indices + 16 * half + 8, vandq_u16(vreinterpretq_u16_u8(second), nine_bits));
        signs[half] = complete_signs(vshrq_n_u8(vuzp2q_u8(first, second), 1));
    }
    look_up_eights(sl_iq2_xs_grid, indices, signs, block);
}

SL_ALWAYS_INLINE void unpack_iq2_s(const uint8_t *source, unpacked_block *block)
{
    block->scales = scales_of_nibbles(vld1_u8(source + offsetof(sl_block_iq2_s, scales)));
    uint8x8_t two_bits = vld1_u8(source + offsetof(sl_block_iq2_s, high_bits));
    uint8x16_t pairs = vcombine_u8(two_bits, two_bits);
    pairs = vzip1q_u8(pairs, pairs); /* every byte twice */
    const int8x16_t to_bottom = vreinterpretq_s8_u32(vdupq_n_u32(UINT32_C(0xfafcfe00)));
    uint16_t indices[EIGHTS];
    uint8x16_t signs[2];
    for (int half = 0; half < 2; half++) {
        uint8x16_t four_times = half == 0 ? vzip1q_u8(pairs, pairs) : vzip2q_u8(pairs, pairs);
        uint8x16_t high = vandq_u8(vshlq_u8(four_times, to_bottom), vdupq_n_u8(3));
        store_indices(indices + 16 * half, vld1q_u8(source + offsetof(sl_block_iq2_s, indices) + 16 * half), high);
        signs[half] = vld1q_u8(source + offsetof(sl_block_iq2_s, signs) + 16 * half);
    }
    look_up_eights(sl_iq2_s_grid, indices, signs, block);
}

SL_ALWAYS_INLINE void unpack_iq3_xxs(const uint8_t *source, unpacked_block *block)
{
    const uint8_t *words = source + offsetof(sl_block_iq3_xxs, signs_and_scales);
    uint8x16_t signs[2];
    unpack_signs_and_scales(vreinterpretq_u32_u8(vld1q_u8(words)), vreinterpretq_u32_u8(vld1q_u8(words + 16)), signs,
                            block);
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; v++) {
        const uint8_t *i = source + offsetof(sl_block_iq3_xxs, indices) + 4 * v;
        block->codes[v] = with_signs(four_entries(sl_iq3_xxs_grid, i[0], i[1], i[2], i[3]), signs, v);
    }
}

SL_ALWAYS_INLINE void unpack_iq3_s(const uint8_t *source, unpacked_block *block)
{
    uint32_t nibbles;
    memcpy(&nibbles, source + offsetof(sl_block_iq3_s, scales), sizeof nibbles);
    block->scales = scales_of_nibbles(vcreate_u8(nibbles));
    uint8x8_t ninth_bits = vld1_u8(source + offsetof(sl_block_iq3_s, high_bits));
    uint16_t indices[FOURS];
    for (int i = 0; i < 4; i++) {
        uint8x16_t high = vshrq_n_u8(spread_bits(vcombine_u8(ninth_bits, ninth_bits), i), 7);
        store_indices(indices + 16 * i, vld1q_u8(source + offsetof(sl_block_iq3_s, indices) + 16 * i), high);
    }
    uint8x16_t signs[2];
    signs[0] = vld1q_u8(source + offsetof(sl_block_iq3_s, signs));
    signs[1] = vld1q_u8(source + offsetof(sl_block_iq3_s, signs) + 16);
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; v++) {
        const uint16_t *i = indices + 4 * v;
        block->codes[v] = with_signs(four_entries(sl_iq3_s_grid, i[0], i[1], i[2], i[3]), signs, v);
    }
}

/* Entries of the grid of IQ1 are 8 too high; with the shift of -1 or 1, what comes on top is -9 or -7. */
SL_ALWAYS_INLINE void unpack_iq1_s(const uint8_t *source, unpacked_block *block)
{
    uint8x16_t words = vld1q_u8(source + offsetof(sl_block_iq1_s, high_bits));
    uint8x8_t top = vmovn_u16(vshrq_n_u16(vreinterpretq_u16_u8(words), 12)); /* three bits of scale, one of shift */
    uint8x8_t scales = vand_u8(top, vdup_n_u8(7));
    block->scales = odd_scales(vcombine_u8(scales, scales));
    int8_t shifts[SL_QK_K / 32];
    vst1_s8(shifts, vsub_s8(vdup_n_s8(-7), vreinterpret_s8_u8(vand_u8(vshr_n_u8(top, 2), vdup_n_u8(2)))));
    const int16x8_t to_8 = vreinterpretq_s16_u64(vdupq_n_u64(UINT64_C(0xffff000200050008)));
    uint16_t indices[EIGHTS];
    for (int i = 0; i < 4; i++) {
        uint16x8_t high = vshlq_u16(vreinterpretq_u16_u8(vqtbl1q_u8(words, words_of_fours(i))), to_8);
        uint8x8_t low = vld1_u8(source + offsetof(sl_block_iq1_s, indices) + 8 * i);
        vst1q_u16(indices + 8 * i, vaddw_u8(vandq_u16(high, vdupq_n_u16(0x700)), low));
    }
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; v++) {
        int8x16_t shift = vdupq_n_s8(shifts[v / 2]);
        block->codes[v] = vaddq_s8(two_entries(sl_iq1_grid, indices[2 * v], indices[2 * v + 1]), shift);
    }
}

/* 16 scales of three bits, four in the low bits of each of four words. */
SL_ALWAYS_INLINE int8x16_t iq1_m_scales(const uint8_t *words)
{
    uint8x8_t bytes = vld1_u8(words);
    const int16x8_t to_bottom = vreinterpretq_s16_u64(vdupq_n_u64(UINT64_C(0xfff7fffafffd0000)));
    uint8x16_t stored[2];
    for (int half = 0; half < 2; half++) {
        uint8x16_t four_times = vqtbl1q_u8(vcombine_u8(bytes, bytes), words_of_fours(half));
        stored[half] = vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(four_times), to_bottom));
    }
    return odd_scales(vandq_u8(vuzp1q_u8(stored[0], stored[1]), vdupq_n_u8(7)));
}

SL_ALWAYS_INLINE void unpack_iq1_m(const uint8_t *source, unpacked_block *block)
{
    block->scales = iq1_m_scales(source + offsetof(sl_block_iq1_m, scales));
    uint8x16_t pairs = vld1q_u8(source + offsetof(sl_block_iq1_m, high_bits));
    uint8x16_t even = vandq_u8(pairs, vdupq_n_u8(0x0f));
    uint8x16_t odd = vshrq_n_u8(pairs, 4);
    uint16_t indices[EIGHTS];
    uint8x16_t shifts[2];
    for (int half = 0; half < 2; half++) {
        uint8x16_t nibbles = half == 0 ? vzip1q_u8(even, odd) : vzip2q_u8(even, odd);
        uint8x16_t low = vld1q_u8(source + offsetof(sl_block_iq1_m, indices) + 16 * half);
        store_indices(indices + 16 * half, low, vandq_u8(nibbles, vdupq_n_u8(7)));
        shifts[half] = vsubq_u8(vdupq_n_u8((uint8_t)-7), vandq_u8(vshrq_n_u8(nibbles, 2), vdupq_n_u8(2)));
    }
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; v++) {
        int8x16_t shift = as_signed(vqtbl1q_u8(shifts[v / 8], bytes_of_eights(v % 8)));
        block->codes[v] = vaddq_s8(two_entries(sl_iq1_grid, indices[2 * v], indices[2 * v + 1]), shift);
    }
}

SL_ALWAYS_INLINE float32x4_t eighths(const uint8_t *const row[4], size_t offset)
{
    return vmulq_n_f32(sl_neon_half_scales(row, offset), 0.125f);
}

SL_ALWAYS_INLINE float32x4_t quarters(const uint8_t *const row[4], size_t offset)
{
    return vmulq_n_f32(sl_neon_half_scales(row, offset), 0.25f);
}

/* The highest four bits of each of four words at `offset`, the lowest first; in eighths. */
SL_ALWAYS_INLINE float32x4_t spread_eighths(const uint8_t *const row[4], size_t offset)
{
    uint16_t halves[4];
    for (int r = 0; r < 4; r++) {
        uint64_t words;
        memcpy(&words, row[r] + offset, sizeof words);
        halves[r] = (uint16_t)(((words >> 12) & 0x000f) | ((words >> 24) & 0x00f0) | ((words >> 36) & 0x0f00) |
                               ((words >> 48) & 0xf000));
    }
    return vmulq_n_f32(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves))), 0.125f);
}

#define FORMAT(type, scales, field, n_groups)                                                                          \
    static const block_format format_##type = {                                                                        \
        unpack_##type, sizeof(sl_block_##type), scales, offsetof(sl_block_##type, field), 0, n_groups, false};
FORMAT(iq1_s, eighths, d, 8)
FORMAT(iq1_m, spread_eighths, scales, 16)
FORMAT(iq2_xxs, eighths, d, 8)
FORMAT(iq2_xs, eighths, d, 16)
FORMAT(iq2_s, eighths, d, 16)
FORMAT(iq3_xxs, quarters, d, 8)
FORMAT(iq3_s, sl_neon_half_scales, d, 8)

DEFINE_MATMUL(iq1_s)
DEFINE_MATMUL(iq1_m)
DEFINE_MATMUL(iq2_xxs)
DEFINE_MATMUL(iq2_xs)
DEFINE_MATMUL(iq2_s)
DEFINE_MATMUL(iq3_xxs)
DEFINE_MATMUL(iq3_s)
