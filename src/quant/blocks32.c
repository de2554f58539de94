/* Blocks of 32 with a uniform grid of codes: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
 *
 * Owns: their decoders, which define what a block means.
 * Invariants:
 *   1. Rows may start at any address.
 *   2. Every operation is a single rounded F32 operation in this order: value = d * q, then, where there is a minimum,
 *      value + m. q is an exact small integer.
 *   3. Element j and element j + 16 share byte j: the low nibble is j's.
 * Threads: pure functions; any thread. */
#include "quant/blocks.h"
#include "quant/half.h"
#include "quant/rows.h"

enum { HALF_BLOCK = SL_QK / 2 };

/* Codes 0..15 in element order. */
static void unpack_nibbles(const uint8_t nibbles[HALF_BLOCK], uint8_t codes[SL_QK])
{
    for (unsigned j = 0; j < HALF_BLOCK; j++) {
        codes[j] = nibbles[j] & 0x0f;
        codes[j + HALF_BLOCK] = nibbles[j] >> 4;
    }
}

/* Bit j of the 32 becomes the fifth bit of code j. */
static void unpack_fifth_bits(const uint8_t high_bits[SL_QK / 8], uint8_t codes[SL_QK])
{
    for (unsigned j = 0; j < SL_QK; j++) {
        unsigned bit = ((unsigned)high_bits[j / 8] >> (j % 8)) & 1u;
        codes[j] = (uint8_t)(codes[j] | (bit << 4));
    }
}

static void decode_centred(const uint8_t codes[SL_QK], int centre, float d, float *destination)
{
    for (unsigned j = 0; j < SL_QK; j++) {
        destination[j] = d * (float)(codes[j] - centre);
    }
}

static void decode_from_minimum(const uint8_t codes[SL_QK], float d, float m, float *destination)
{
    for (unsigned j = 0; j < SL_QK; j++) {
        float scaled = d * (float)codes[j];
        destination[j] = scaled + m;
    }
}

void sl_decode_row_q4_0(const void *source, float *destination, size_t n_elements)
{
    const sl_block_q4_0 *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        uint8_t codes[SL_QK];
        unpack_nibbles(blocks[i].nibbles, codes);
        decode_centred(codes, 8, sl_f16_to_f32(blocks[i].d), destination + i * SL_QK);
    }
}

void sl_decode_row_q4_1(const void *source, float *destination, size_t n_elements)
{
    const sl_block_q4_1 *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        uint8_t codes[SL_QK];
        unpack_nibbles(blocks[i].nibbles, codes);
        decode_from_minimum(codes, sl_f16_to_f32(blocks[i].d), sl_f16_to_f32(blocks[i].m), destination + i * SL_QK);
    }
}

void sl_decode_row_q5_0(const void *source, float *destination, size_t n_elements)
{
    const sl_block_q5_0 *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        uint8_t codes[SL_QK];
        unpack_nibbles(blocks[i].nibbles, codes);
        unpack_fifth_bits(blocks[i].high_bits, codes);
        decode_centred(codes, 16, sl_f16_to_f32(blocks[i].d), destination + i * SL_QK);
    }
}

void sl_decode_row_q5_1(const void *source, float *destination, size_t n_elements)
{
    const sl_block_q5_1 *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        uint8_t codes[SL_QK];
        unpack_nibbles(blocks[i].nibbles, codes);
        unpack_fifth_bits(blocks[i].high_bits, codes);
        decode_from_minimum(codes, sl_f16_to_f32(blocks[i].d), sl_f16_to_f32(blocks[i].m), destination + i * SL_QK);
    }
}

void sl_decode_row_q8_0(const void *source, float *destination, size_t n_elements)
{
    const sl_block_q8_0 *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        float d = sl_f16_to_f32(blocks[i].d);
        for (unsigned j = 0; j < SL_QK; j++) {
            destination[i * SL_QK + j] = d * (float)blocks[i].q[j];
        }
    }
}
