/* Blocks of the IQ1, IQ2 and IQ3 formats as small integers: value = d scale code. All steps are exact. */
#ifndef SL_QUANT_UNPACK_GRIDS_H
#define SL_QUANT_UNPACK_GRIDS_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/blocks.h"
#include "quant/grids.h"
#include "quant/half.h"

typedef struct sl_grid_block {
    float d;
    uint8_t scales[SL_QK_K / 16]; /* odd, at most 31; one per 16 codes */
    int8_t q[SL_QK_K];            /* IQ2: at most 43, IQ3: at most 62, IQ1: 9 in magnitude */
} sl_grid_block;

/* The d of an IQ1_M block is spread over the highest bits of its scales. */
static inline float sl_iq1_m_d(const sl_block_iq1_m *block)
{
    unsigned bits = 0;
    for (unsigned i = 0; i < SL_QK_K / 64; i++) {
        bits |= (unsigned)(block->scales[i] >> 12) << (4 * i);
    }
    return sl_f16_to_f32((uint16_t)bits);
}

/* Seven signs and the one that makes their number even. */
static inline unsigned sl_signs_of_seven(unsigned bits)
{
    unsigned folded = bits ^ (bits >> 4);
    folded ^= folded >> 2;
    folded ^= folded >> 1;
    return bits | (folded & 1) << 7;
}

/* The odd scale of a stored one. */
static inline uint8_t sl_grid_scale(unsigned stored)
{
    return (uint8_t)(2 * stored + 1);
}

/* `n` elements of a grid's entry, at most eight, with their signs. */
static inline void sl_grid_codes(uint64_t entry, unsigned signs, unsigned n, int8_t *q)
{
    for (unsigned j = 0; j < n; j++) {
        int magnitude = (int)((entry >> (8 * j)) & 0xff);
        q[j] = (int8_t)((signs >> j) & 1 ? -magnitude : magnitude);
    }
}

/* Eight elements of the grid of IQ1 in eighths, shifted up or down by one. */
static inline void sl_iq1_codes(unsigned index, bool is_negative, int8_t *q)
{
    for (unsigned j = 0; j < 8; j++) {
        int eighths = (int)((sl_iq1_grid[index] >> (8 * j)) & 0xff) - 8;
        q[j] = (int8_t)(is_negative ? eighths - 1 : eighths + 1);
    }
}

/* One scale per 16 elements from nibbles, the low one first. */
static inline void sl_grid_scale_nibbles(const uint8_t nibbles[SL_QK_K / 32], sl_grid_block *block)
{
    for (unsigned group = 0; group < SL_QK_K / 32; group++) {
        block->scales[2 * group] = sl_grid_scale(nibbles[group] & 0x0fu);
        block->scales[2 * group + 1] = sl_grid_scale((unsigned)nibbles[group] >> 4);
    }
}

static inline void sl_grid_scale_of_32(unsigned stored, unsigned group, sl_grid_block *block)
{
    block->scales[2 * group] = sl_grid_scale(stored);
    block->scales[2 * group + 1] = sl_grid_scale(stored);
}

static inline void sl_grid_unpack_iq2_xxs(const sl_block_iq2_xxs *packed, sl_grid_block *block)
{
    block->d = sl_f16_to_f32(packed->d) * 0.125f;
    for (unsigned group = 0; group < SL_QK_K / 32; group++) {
        uint32_t word = packed->groups[group].signs_and_scale;
        sl_grid_scale_of_32(word >> 28, group, block);
        for (unsigned i = 0; i < 4; i++) {
            sl_grid_codes(sl_iq2_xxs_grid[packed->groups[group].indices[i]],
                          sl_signs_of_seven((word >> (7 * i)) & 0x7f), 8, block->q + 32 * group + 8 * i);
        }
    }
}

static inline void sl_grid_unpack_iq2_xs(const sl_block_iq2_xs *packed, sl_grid_block *block)
{
    block->d = sl_f16_to_f32(packed->d) * 0.125f;
    sl_grid_scale_nibbles(packed->scales, block);
    for (unsigned i = 0; i < SL_QK_K / 8; i++) {
        unsigned entry = packed->entries[i];
        sl_grid_codes(sl_iq2_xs_grid[entry & 0x1ff], sl_signs_of_seven(entry >> 9), 8, block->q + 8 * i);
    }
}

static inline void sl_grid_unpack_iq2_s(const sl_block_iq2_s *packed, sl_grid_block *block)
{
    block->d = sl_f16_to_f32(packed->d) * 0.125f;
    sl_grid_scale_nibbles(packed->scales, block);
    for (unsigned i = 0; i < SL_QK_K / 8; i++) {
        unsigned high = ((unsigned)packed->high_bits[i / 4] >> (2 * (i % 4))) & 3;
        sl_grid_codes(sl_iq2_s_grid[packed->indices[i] | high << 8], packed->signs[i], 8, block->q + 8 * i);
    }
}

static inline void sl_grid_unpack_iq3_xxs(const sl_block_iq3_xxs *packed, sl_grid_block *block)
{
    block->d = sl_f16_to_f32(packed->d) * 0.25f;
    for (unsigned group = 0; group < SL_QK_K / 32; group++) {
        uint32_t word = packed->signs_and_scales[group];
        sl_grid_scale_of_32(word >> 28, group, block);
        for (unsigned i = 0; i < 8; i++) {
            unsigned signs = sl_signs_of_seven((word >> (7 * (i / 2))) & 0x7f) >> (4 * (i % 2));
            sl_grid_codes(sl_iq3_xxs_grid[packed->indices[8 * group + i]], signs, 4, block->q + 32 * group + 4 * i);
        }
    }
}

static inline void sl_grid_unpack_iq3_s(const sl_block_iq3_s *packed, sl_grid_block *block)
{
    block->d = sl_f16_to_f32(packed->d);
    for (unsigned group = 0; group < SL_QK_K / 32; group++) {
        sl_grid_scale_of_32(((unsigned)packed->scales[group / 2] >> (4 * (group % 2))) & 0x0f, group, block);
        for (unsigned i = 0; i < 8; i++) {
            unsigned index = packed->indices[8 * group + i] | (((unsigned)packed->high_bits[group] >> i) & 1) << 8;
            unsigned signs = (unsigned)packed->signs[4 * group + i / 2] >> (4 * (i % 2));
            sl_grid_codes(sl_iq3_s_grid[index], signs, 4, block->q + 32 * group + 4 * i);
        }
    }
}

static inline void sl_grid_unpack_iq1_s(const sl_block_iq1_s *packed, sl_grid_block *block)
{
    block->d = sl_f16_to_f32(packed->d) * 0.125f;
    for (unsigned group = 0; group < SL_QK_K / 32; group++) {
        unsigned high = packed->high_bits[group];
        sl_grid_scale_of_32((high >> 12) & 7, group, block);
        for (unsigned i = 0; i < 4; i++) {
            unsigned index = packed->indices[4 * group + i] | ((high >> (3 * i)) & 7) << 8;
            sl_iq1_codes(index, high >> 15 != 0, block->q + 32 * group + 8 * i);
        }
    }
}

static inline void sl_grid_unpack_iq1_m(const sl_block_iq1_m *packed, sl_grid_block *block)
{
    block->d = sl_iq1_m_d(packed) * 0.125f;
    for (unsigned group = 0; group < SL_QK_K / 16; group++) {
        block->scales[group] = sl_grid_scale(((unsigned)packed->scales[group / 4] >> (3 * (group % 4))) & 7);
    }
    for (unsigned i = 0; i < SL_QK_K / 8; i++) {
        unsigned high = (unsigned)packed->high_bits[i / 2] >> (4 * (i % 2));
        sl_iq1_codes(packed->indices[i] | (high & 7) << 8, (high & 8) != 0, block->q + 8 * i);
    }
}

#endif
