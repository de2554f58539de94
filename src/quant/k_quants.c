/* Blocks of 256 with quantised group scales: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.
 *
 * Owns: their decoders, which define what a block means.
 * Invariants:
 *   1. Rows may start at any address.
 *   2. Every operation is a single rounded F32 operation in this order: scale = d * s; minimum = dmin * m, if there is
 *      one; value = scale * q; value - minimum. s, m and q are exact small integers.
 *   3. Codes lie in planes: a byte holds the codes of elements that are 32 apart (64 apart for the low bits of Q6_K),
 *      the earliest element in its lowest bits.
 * Threads: pure functions; any thread. */
#include "quant/blocks.h"
#include "quant/half.h"
#include "quant/rows.h"
#include "quant/unpack.h"

/* Element e of a block: 128-element half e / 128, plane (e / 32) mod 4 within it, byte e mod 32. */
static unsigned two_bits(const uint8_t planes[SL_QK_K / 4], unsigned element)
{
    unsigned byte = element / 128 * 32 + element % 32;
    return ((unsigned)planes[byte] >> (2 * (element / 32 % 4))) & 3u;
}

/* Bit e / 32 of byte e mod 32. */
static unsigned one_bit(const uint8_t planes[SL_QK_K / 8], unsigned element)
{
    return ((unsigned)planes[element % 32] >> (element / 32)) & 1u;
}

/* Nibble (e / stride) mod 2 of byte e mod stride in run e / (2 stride). */
static unsigned four_bits(const uint8_t planes[SL_QK_K / 2], unsigned element, unsigned stride)
{
    unsigned byte = element / (2 * stride) * stride + element % stride;
    return ((unsigned)planes[byte] >> (4 * (element / stride % 2))) & 0x0fu;
}

static void decode_q2_k(const sl_block_q2_k *block, float *destination)
{
    float d = sl_f16_to_f32(block->d);
    float dmin = sl_f16_to_f32(block->dmin);
    for (unsigned e = 0; e < SL_QK_K; e++) {
        unsigned packed = block->scales[e / 16];
        float scale = d * (float)(packed & 0x0fu);
        float minimum = dmin * (float)(packed >> 4);
        float scaled = scale * (float)two_bits(block->q, e);
        destination[e] = scaled - minimum;
    }
}

void sl_decode_row_q2_k(const void *source, float *destination, size_t n_elements)
{
    const sl_block_q2_k *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK_K; i++) {
        decode_q2_k(&blocks[i], destination + i * SL_QK_K);
    }
}

static void decode_q3_k(const sl_block_q3_k *block, float *destination)
{
    float d = sl_f16_to_f32(block->d);
    for (unsigned group = 0; group < SL_QK_K / 16; group++) {
        float scale = d * (float)sl_q3_k_scale(block->scales, group);
        for (unsigned e = group * 16; e < group * 16 + 16; e++) {
            /* A clear mask bit takes four away: codes are -4..3. */
            int code = (int)(two_bits(block->q, e) | (one_bit(block->high_mask, e) << 2)) - 4;
            destination[e] = scale * (float)code;
        }
    }
}

void sl_decode_row_q3_k(const void *source, float *destination, size_t n_elements)
{
    const sl_block_q3_k *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK_K; i++) {
        decode_q3_k(&blocks[i], destination + i * SL_QK_K);
    }
}

static void decode_q4_k(const sl_block_q4_k *block, float *destination)
{
    float d = sl_f16_to_f32(block->d);
    float dmin = sl_f16_to_f32(block->dmin);
    for (unsigned group = 0; group < SL_QK_K / 32; group++) {
        uint8_t s;
        uint8_t m;
        sl_k_scale_and_minimum(block->scales, group, &s, &m);
        float scale = d * (float)s;
        float minimum = dmin * (float)m;
        for (unsigned e = group * 32; e < group * 32 + 32; e++) {
            float scaled = scale * (float)four_bits(block->q, e, 32);
            destination[e] = scaled - minimum;
        }
    }
}

void sl_decode_row_q4_k(const void *source, float *destination, size_t n_elements)
{
    const sl_block_q4_k *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK_K; i++) {
        decode_q4_k(&blocks[i], destination + i * SL_QK_K);
    }
}

static void decode_q5_k(const sl_block_q5_k *block, float *destination)
{
    float d = sl_f16_to_f32(block->d);
    float dmin = sl_f16_to_f32(block->dmin);
    for (unsigned group = 0; group < SL_QK_K / 32; group++) {
        uint8_t s;
        uint8_t m;
        sl_k_scale_and_minimum(block->scales, group, &s, &m);
        float scale = d * (float)s;
        float minimum = dmin * (float)m;
        for (unsigned e = group * 32; e < group * 32 + 32; e++) {
            unsigned code = four_bits(block->q, e, 32) | (one_bit(block->high_bits, e) << 4);
            float scaled = scale * (float)code;
            destination[e] = scaled - minimum;
        }
    }
}

void sl_decode_row_q5_k(const void *source, float *destination, size_t n_elements)
{
    const sl_block_q5_k *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK_K; i++) {
        decode_q5_k(&blocks[i], destination + i * SL_QK_K);
    }
}

static void decode_q6_k(const sl_block_q6_k *block, float *destination)
{
    float d = sl_f16_to_f32(block->d);
    for (unsigned group = 0; group < SL_QK_K / 16; group++) {
        float scale = d * (float)block->scales[group];
        for (unsigned e = group * 16; e < group * 16 + 16; e++) {
            int code = (int)(four_bits(block->low, e, 64) | (two_bits(block->high, e) << 4)) - 32;
            destination[e] = scale * (float)code;
        }
    }
}

void sl_decode_row_q6_k(const void *source, float *destination, size_t n_elements)
{
    const sl_block_q6_k *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK_K; i++) {
        decode_q6_k(&blocks[i], destination + i * SL_QK_K);
    }
}
