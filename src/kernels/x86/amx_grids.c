/* Matrix products of many tokens with blocks whose weights come from a grid: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS,
 * IQ3_S. Few tokens go to avx512_grids.c.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. What tile_unpack_grids.inc says of codes and sums.
 *   2. Rows missing from a last tile are stood in for by the last row; their lanes are not stored.
 *   3. No byte outside the rows and the activations is read; prefetches may lie anywhere.
 *   4. Tiles have a shape only while a product runs.
 * Threads: pure functions; any thread. */
#include "kernels/x86/amx.h"
#include "kernels/x86/amx_tile.h"
#include "kernels/x86/avx512.h"
#include "quant/blocks.h"
#include "quant/grids.h"

#include "kernels/x86/tile_unpack_grids.inc"

#include "kernels/x86/amx_tile256.inc"

#include "kernels/x86/amx_pass.inc"

#include "kernels/x86/tile_matmul.inc"

DEFINE_AMX_MATMUL(iq1_s, avx512)
DEFINE_AMX_MATMUL(iq1_m, avx512)
DEFINE_AMX_MATMUL(iq2_xxs, avx512)
DEFINE_AMX_MATMUL(iq2_xs, avx512)
DEFINE_AMX_MATMUL(iq2_s, avx512)
DEFINE_AMX_MATMUL(iq3_xxs, avx512)
DEFINE_AMX_MATMUL(iq3_s, avx512)
