/* The packed fields inside blocks, and the code books: what the reference decoders and every matrix kernel agree on. */
#ifndef SL_QUANT_UNPACK_H
#define SL_QUANT_UNPACK_H

#include <stdint.h>

#include "quant/blocks.h"
#include "quant/half.h"

/* The code book of IQ4_NL and IQ4_XS, ascending. */
extern const int8_t sl_iq4_nl_values[16];

/* Twice the E2M1 values 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives; multiply by sl_e8m0_half. Code 8 is plain 0. */
extern const int8_t sl_mxfp4_doubled_values[16];

/* Half of the E8M0 scale, 2^(exponent - 128), for doubled values. Exponents 0 and 1 give denormal floats; 255, which
 * E8M0 calls NaN, is read as the power of two, as GGUF readers do. */
static inline float sl_e8m0_half(uint8_t exponent)
{
    uint32_t bits = exponent < 2 ? UINT32_C(0x200000) << exponent : (uint32_t)(exponent - 1) << 23;
    return sl_float_from_bits(bits);
}

/* Scale and minimum, 0..63, of 32-element group `group` (0..7) of a Q4_K or Q5_K block. Groups 0..3 lie in the low six
 * bits of bytes 0..3 (scales) and 4..7 (minima); groups 4..7 have their low four bits in bytes 8..11 and their high two
 * bits on top of bytes 0..3 and 4..7. */
static inline void sl_k_scale_and_minimum(const uint8_t scales[SL_K_SCALES_BYTES], unsigned group, uint8_t *scale,
                                          uint8_t *minimum)
{
    if (group < 4) {
        *scale = scales[group] & 0x3f;
        *minimum = scales[group + 4] & 0x3f;
    } else {
        uint8_t low = scales[group + 4];
        *scale = (uint8_t)((low & 0x0f) | ((scales[group - 4] >> 6) << 4));
        *minimum = (uint8_t)((low >> 4) | ((scales[group] >> 6) << 4));
    }
}

/* Scale, -32..31, of 16-element group `group` (0..15) of a Q3_K block: low four bits in the nibbles of bytes 0..7
 * (groups 8..15 in the high nibbles), high two bits in byte 8 + group mod 4 at bit 2 (group / 4). */
static inline int sl_q3_k_scale(const uint8_t scales[SL_K_SCALES_BYTES], unsigned group)
{
    unsigned low = ((unsigned)scales[group & 7] >> (group < 8 ? 0 : 4)) & 0x0fu;
    unsigned high = ((unsigned)scales[8 + (group & 3)] >> (2 * (group >> 2))) & 3u;
    return (int)(low | (high << 4)) - 32;
}

/* Scale, -32..31, of 32-element group `group` (0..7) of an IQ4_XS block. */
static inline int sl_iq4_xs_scale(const sl_block_iq4_xs *block, unsigned group)
{
    unsigned low = ((unsigned)block->scales_low[group >> 1] >> (4 * (group & 1))) & 0x0fu;
    unsigned high = ((unsigned)block->scales_high >> (2 * group)) & 3u;
    return (int)(low | (high << 4)) - 32;
}

#endif
