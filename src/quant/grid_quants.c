/* Blocks whose indices choose short vectors of weights from a grid: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S.
 *
 * Owns: their decoders, which define what a block means.
 * Invariants:
 *   1. Rows may start at any address.
 *   2. value = d * (scale * code), with the integers of unpack_grids.h. A finite value is exact: d has 11 significant bits
 *      and the product of the integers has 11, which together fit the 24 of a float.
 * Threads: pure functions; any thread. */
#include "quant/rows.h"
#include "quant/unpack_grids.h"

_Static_assert(31 * 43 < 1 << 11, "scale times code of IQ2 has 11 bits");
_Static_assert(31 * 62 < 1 << 11, "scale times code of IQ3 has 11 bits");
_Static_assert(15 * 9 < 1 << 11, "scale times code of IQ1 has 11 bits");

static void write_values(const sl_grid_block *block, float *destination)
{
    for (unsigned j = 0; j < SL_QK_K; j++) {
        destination[j] = block->d * (float)(block->scales[j / 16] * block->q[j]);
    }
}

#define DEFINE_DECODE_ROW(type)                                                                                        \
    void sl_decode_row_##type(const void *source, float *destination, size_t n_elements)                               \
    {                                                                                                                  \
        const sl_block_##type *blocks = source;                                                                        \
        for (size_t i = 0; i < n_elements / SL_QK_K; i++) {                                                            \
            sl_grid_block block;                                                                                       \
            sl_grid_unpack_##type(&blocks[i], &block);                                                                 \
            write_values(&block, destination + i * SL_QK_K);                                                           \
        }                                                                                                              \
    }

DEFINE_DECODE_ROW(iq1_s)
DEFINE_DECODE_ROW(iq1_m)
DEFINE_DECODE_ROW(iq2_xxs)
DEFINE_DECODE_ROW(iq2_xs)
DEFINE_DECODE_ROW(iq2_s)
DEFINE_DECODE_ROW(iq3_xxs)
DEFINE_DECODE_ROW(iq3_s)
