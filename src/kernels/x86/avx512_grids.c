/* Matrix products with blocks whose weights come from a grid: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S.
 *
 * A block of sixteen rows is turned so that rows are lanes (avx512_tile.h) before it is unpacked, which is then done for all
 * rows at once; what was unpacked serves up to SL_TILE_PASS tokens, eight at a time in registers. One token goes to
 * avx512_one_grids.c, which takes fewer rows at a time.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. What tile_unpack_grids.inc says of codes and sums.
 *   2. Rows missing from a last tile are stood in for by the last row; their lanes are not stored.
 *   3. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_tile.h"
#include "quant/blocks.h"
#include "quant/grids.h"

#include "kernels/x86/tile_unpack_grids.inc"

#include "kernels/x86/avx512_tile256.inc"

#include "kernels/x86/tile_pass.inc"

#include "kernels/x86/tile_matmul.inc"

DEFINE_MATMUL(avx512, iq1_s, 2)
DEFINE_MATMUL(avx512, iq1_m, 2)
DEFINE_MATMUL(avx512, iq2_xxs, 2)
DEFINE_MATMUL(avx512, iq2_xs, 2)
DEFINE_MATMUL(avx512, iq2_s, 2)
DEFINE_MATMUL(avx512, iq3_xxs, 2)
DEFINE_MATMUL(avx512, iq3_s, 2)
