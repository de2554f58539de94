/* Blocks whose codes index a table of unevenly spaced values: IQ4_NL, IQ4_XS, MXFP4.
 *
 * Owns: their decoders, which define what a block means, and the tables.
 * Invariants:
 *   1. Rows may start at any address.
 *   2. Every operation is a single rounded F32 operation in this order: scale = d * s, where there are group scales;
 *      value = scale * table[code]. MXFP4 scales are powers of two, so its values are exact.
 *   3. Within 32 elements, element j and element j + 16 share byte j: the low nibble is j's.
 * Threads: pure functions; any thread. */
#include "quant/blocks.h"
#include "quant/half.h"
#include "quant/rows.h"
#include "quant/unpack.h"

const int8_t sl_iq4_nl_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int8_t sl_mxfp4_doubled_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static void decode_group(const uint8_t nibbles[SL_QK / 2], const int8_t table[16], float scale, float *destination)
{
    for (unsigned j = 0; j < SL_QK / 2; j++) {
        destination[j] = scale * (float)table[nibbles[j] & 0x0f];
        destination[j + SL_QK / 2] = scale * (float)table[nibbles[j] >> 4];
    }
}

void sl_decode_row_iq4_nl(const void *source, float *destination, size_t n_elements)
{
    const sl_block_iq4_nl *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        decode_group(blocks[i].nibbles, sl_iq4_nl_values, sl_f16_to_f32(blocks[i].d), destination + i * SL_QK);
    }
}

void sl_decode_row_iq4_xs(const void *source, float *destination, size_t n_elements)
{
    const sl_block_iq4_xs *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK_K; i++) {
        float d = sl_f16_to_f32(blocks[i].d);
        for (unsigned group = 0; group < SL_QK_K / SL_QK; group++) {
            float scale = d * (float)sl_iq4_xs_scale(&blocks[i], group);
            decode_group(blocks[i].nibbles + group * (SL_QK / 2), sl_iq4_nl_values, scale,
                         destination + i * SL_QK_K + group * SL_QK);
        }
    }
}

void sl_decode_row_mxfp4(const void *source, float *destination, size_t n_elements)
{
    const sl_block_mxfp4 *blocks = source;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        decode_group(blocks[i].nibbles, sl_mxfp4_doubled_values, sl_e8m0_half(blocks[i].exponent),
                     destination + i * SL_QK);
    }
}
