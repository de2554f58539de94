/* One unpacked form for all block formats: small signed codes with their scales. The integer part of a matrix product
 * is defined on it, so a format is no more than its unpacking.
 *
 * Every code and every integer scale comes from a hostile file, so the bounds below hold for all byte values:
 *   codes        |q| <= 128 (Q8_0 may hold -128; IQ4 tables reach -127)
 *   activations  |y| <= 127 (the quantisers of this folder never write -128)
 *   32-blocks    |sum of q y| <= 32 * 128 * 127, below 2^20
 *   256-blocks   |sum of s q y| <= 256 * max|s q| * 127, with max|s q| from the assertions below
 *   minima       |sum of m y| <= 256 * 63 * 127, below 2^21 */
#ifndef SL_KERNELS_GENERIC_UNPACKED_H
#define SL_KERNELS_GENERIC_UNPACKED_H

#include <string.h>

#include "quant/unpack.h"
#include "quant/unpack_grids.h"

#define SL_FITS_INT32(largest_scale, largest_code)                                                                     \
    _Static_assert((largest_scale) * (largest_code) <= INT32_MAX / (SL_QK_K * 127), "integer sum of a block fits "     \
                                                                                    "int32")
SL_FITS_INT32(1, 128);  /* Q8_0 and the other 32-blocks */
SL_FITS_INT32(15, 3);   /* Q2_K */
SL_FITS_INT32(32, 4);   /* Q3_K */
SL_FITS_INT32(63, 15);  /* Q4_K */
SL_FITS_INT32(63, 31);  /* Q5_K */
SL_FITS_INT32(128, 32); /* Q6_K */
SL_FITS_INT32(32, 127); /* IQ4_XS */
SL_FITS_INT32(31, 43);  /* IQ2 */
SL_FITS_INT32(31, 62);  /* IQ3 */
SL_FITS_INT32(15, 9);   /* IQ1 */
SL_FITS_INT32(1, 63);   /* minima */

/* value = d q + m, or d q. */
typedef struct sl_unpacked_32 {
    float d;
    float m; /* set by formats with a minimum only */
    int8_t q[SL_QK];
} sl_unpacked_32;

/* value = d s q - dmin minimum, or d s q; s and minimum per 16 elements. */
typedef struct sl_unpacked_256 {
    float d;
    float dmin;                   /* set by formats with minima only */
    int16_t scales[SL_QK_K / 16]; /* -128..127 */
    int16_t minima[SL_QK_K / 16]; /* 0..63; set by formats with minima only */
    int8_t q[SL_QK_K];
} sl_unpacked_256;

static inline void sl_unpack_nibbles_32(const uint8_t nibbles[SL_QK / 2], int8_t q[SL_QK])
{
    for (unsigned j = 0; j < SL_QK / 2; j++) {
        q[j] = (int8_t)(nibbles[j] & 0x0f);
        q[j + SL_QK / 2] = (int8_t)(nibbles[j] >> 4);
    }
}

static inline void sl_unpack_fifth_bits_32(const uint8_t high_bits[SL_QK / 8], int8_t q[SL_QK])
{
    for (unsigned j = 0; j < SL_QK; j++) {
        q[j] = (int8_t)(q[j] | (((high_bits[j / 8] >> (j % 8)) & 1) << 4));
    }
}

static inline void sl_unpack_q4_0(const void *source, sl_unpacked_32 *block)
{
    const sl_block_q4_0 *packed = source;
    block->d = sl_f16_to_f32(packed->d);
    sl_unpack_nibbles_32(packed->nibbles, block->q);
    for (unsigned j = 0; j < SL_QK; j++) {
        block->q[j] = (int8_t)(block->q[j] - 8);
    }
}

static inline void sl_unpack_q4_1(const void *source, sl_unpacked_32 *block)
{
    const sl_block_q4_1 *packed = source;
    block->d = sl_f16_to_f32(packed->d);
    block->m = sl_f16_to_f32(packed->m);
    sl_unpack_nibbles_32(packed->nibbles, block->q);
}

static inline void sl_unpack_q5_0(const void *source, sl_unpacked_32 *block)
{
    const sl_block_q5_0 *packed = source;
    block->d = sl_f16_to_f32(packed->d);
    sl_unpack_nibbles_32(packed->nibbles, block->q);
    sl_unpack_fifth_bits_32(packed->high_bits, block->q);
    for (unsigned j = 0; j < SL_QK; j++) {
        block->q[j] = (int8_t)(block->q[j] - 16);
    }
}

static inline void sl_unpack_q5_1(const void *source, sl_unpacked_32 *block)
{
    const sl_block_q5_1 *packed = source;
    block->d = sl_f16_to_f32(packed->d);
    block->m = sl_f16_to_f32(packed->m);
    sl_unpack_nibbles_32(packed->nibbles, block->q);
    sl_unpack_fifth_bits_32(packed->high_bits, block->q);
}

static inline void sl_unpack_q8_0(const void *source, sl_unpacked_32 *block)
{
    const sl_block_q8_0 *packed = source;
    block->d = sl_f16_to_f32(packed->d);
    memcpy(block->q, packed->q, sizeof block->q);
}

static inline void sl_unpack_indices_32(const uint8_t nibbles[SL_QK / 2], const int8_t values[16], int8_t q[SL_QK])
{
    for (unsigned j = 0; j < SL_QK / 2; j++) {
        q[j] = values[nibbles[j] & 0x0f];
        q[j + SL_QK / 2] = values[nibbles[j] >> 4];
    }
}

static inline void sl_unpack_iq4_nl(const void *source, sl_unpacked_32 *block)
{
    const sl_block_iq4_nl *packed = source;
    block->d = sl_f16_to_f32(packed->d);
    sl_unpack_indices_32(packed->nibbles, sl_iq4_nl_values, block->q);
}

static inline void sl_unpack_mxfp4(const void *source, sl_unpacked_32 *block)
{
    const sl_block_mxfp4 *packed = source;
    block->d = sl_e8m0_half(packed->exponent);
    sl_unpack_indices_32(packed->nibbles, sl_mxfp4_doubled_values, block->q);
}

/* 128 elements per 32 bytes of two-bit planes. */
static inline void sl_unpack_two_bits_256(const uint8_t planes[SL_QK_K / 4], int8_t q[SL_QK_K])
{
    for (unsigned half = 0; half < 2; half++) {
        for (unsigned plane = 0; plane < 4; plane++) {
            for (unsigned j = 0; j < 32; j++) {
                q[half * 128 + plane * 32 + j] = (int8_t)((planes[half * 32 + j] >> (2 * plane)) & 3);
            }
        }
    }
}

/* 64 elements per 32 bytes. */
static inline void sl_unpack_nibbles_256(const uint8_t nibbles[SL_QK_K / 2], int8_t q[SL_QK_K])
{
    for (unsigned run = 0; run < SL_QK_K / 64; run++) {
        for (unsigned j = 0; j < 32; j++) {
            q[run * 64 + j] = (int8_t)(nibbles[run * 32 + j] & 0x0f);
            q[run * 64 + 32 + j] = (int8_t)(nibbles[run * 32 + j] >> 4);
        }
    }
}

static inline void sl_unpack_q2_k(const void *source, sl_unpacked_256 *block)
{
    const sl_block_q2_k *packed = source;
    block->d = sl_f16_to_f32(packed->d);
    block->dmin = sl_f16_to_f32(packed->dmin);
    for (unsigned group = 0; group < SL_QK_K / 16; group++) {
        block->scales[group] = packed->scales[group] & 0x0f;
        block->minima[group] = packed->scales[group] >> 4;
    }
    sl_unpack_two_bits_256(packed->q, block->q);
}

static inline void sl_unpack_q3_k(const void *source, sl_unpacked_256 *block)
{
    const sl_block_q3_k *packed = source;
    block->d = sl_f16_to_f32(packed->d);
    for (unsigned group = 0; group < SL_QK_K / 16; group++) {
        block->scales[group] = (int16_t)sl_q3_k_scale(packed->scales, group);
    }
    sl_unpack_two_bits_256(packed->q, block->q);
    for (unsigned plane = 0; plane < 8; plane++) {
        for (unsigned j = 0; j < 32; j++) {
            int high = (packed->high_mask[j] >> plane) & 1;
            block->q[plane * 32 + j] = (int8_t)(block->q[plane * 32 + j] + 4 * high - 4);
        }
    }
}

static inline void sl_unpack_scales_and_minima(const uint8_t scales[SL_K_SCALES_BYTES], sl_unpacked_256 *block)
{
    for (unsigned group = 0; group < SL_QK_K / 32; group++) {
        uint8_t scale;
        uint8_t minimum;
        sl_k_scale_and_minimum(scales, group, &scale, &minimum);
        block->scales[2 * group] = scale;
        block->scales[2 * group + 1] = scale;
        block->minima[2 * group] = minimum;
        block->minima[2 * group + 1] = minimum;
    }
}

static inline void sl_unpack_q4_k(const void *source, sl_unpacked_256 *block)
{
    const sl_block_q4_k *packed = source;
    block->d = sl_f16_to_f32(packed->d);
    block->dmin = sl_f16_to_f32(packed->dmin);
    sl_unpack_scales_and_minima(packed->scales, block);
    sl_unpack_nibbles_256(packed->q, block->q);
}

static inline void sl_unpack_q5_k(const void *source, sl_unpacked_256 *block)
{
    const sl_block_q5_k *packed = source;
    block->d = sl_f16_to_f32(packed->d);
    block->dmin = sl_f16_to_f32(packed->dmin);
    sl_unpack_scales_and_minima(packed->scales, block);
    sl_unpack_nibbles_256(packed->q, block->q);
    for (unsigned plane = 0; plane < 8; plane++) {
        for (unsigned j = 0; j < 32; j++) {
            int high = (packed->high_bits[j] >> plane) & 1;
            block->q[plane * 32 + j] = (int8_t)(block->q[plane * 32 + j] + 16 * high);
        }
    }
}

static inline void sl_unpack_q6_k(const void *source, sl_unpacked_256 *block)
{
    const sl_block_q6_k *packed = source;
    block->d = sl_f16_to_f32(packed->d);
    for (unsigned group = 0; group < SL_QK_K / 16; group++) {
        block->scales[group] = packed->scales[group];
    }
    sl_unpack_two_bits_256(packed->high, block->q);
    for (unsigned half = 0; half < 2; half++) {
        for (unsigned j = 0; j < 64; j++) {
            int8_t *low = &block->q[half * 128 + j];
            int8_t *high = &block->q[half * 128 + 64 + j];
            uint8_t nibbles = packed->low[half * 64 + j];
            *low = (int8_t)((*low << 4 | (nibbles & 0x0f)) - 32);
            *high = (int8_t)((*high << 4 | nibbles >> 4) - 32);
        }
    }
}

static inline void sl_unpack_iq4_xs(const void *source, sl_unpacked_256 *block)
{
    const sl_block_iq4_xs *packed = source;
    block->d = sl_f16_to_f32(packed->d);
    for (unsigned group = 0; group < SL_QK_K / 32; group++) {
        int scale = sl_iq4_xs_scale(packed, group);
        block->scales[2 * group] = (int16_t)scale;
        block->scales[2 * group + 1] = (int16_t)scale;
        sl_unpack_indices_32(packed->nibbles + group * 16, sl_iq4_nl_values, block->q + group * 32);
    }
}

#define SL_DEFINE_UNPACK_GRID(type)                                                                                    \
    static inline void sl_unpack_##type(const void *source, sl_unpacked_256 *block)                                    \
    {                                                                                                                  \
        sl_grid_block grid_block;                                                                                      \
        sl_grid_unpack_##type(source, &grid_block);                                                                    \
        block->d = grid_block.d;                                                                                       \
        for (unsigned group = 0; group < SL_QK_K / 16; group++) {                                                      \
            block->scales[group] = grid_block.scales[group];                                                           \
        }                                                                                                              \
        memcpy(block->q, grid_block.q, sizeof block->q);                                                               \
    }

SL_DEFINE_UNPACK_GRID(iq1_s)
SL_DEFINE_UNPACK_GRID(iq1_m)
SL_DEFINE_UNPACK_GRID(iq2_xxs)
SL_DEFINE_UNPACK_GRID(iq2_xs)
SL_DEFINE_UNPACK_GRID(iq2_s)
SL_DEFINE_UNPACK_GRID(iq3_xxs)
SL_DEFINE_UNPACK_GRID(iq3_s)

#endif
