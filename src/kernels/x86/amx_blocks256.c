/* Matrix products of many tokens with 256-element blocks: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS. Few tokens go to
 * avx512_blocks256.c.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. What tile_unpack256.inc says of codes and sums.
 *   2. Rows missing from a last tile are stood in for by the last row; their lanes are not stored.
 *   3. No byte outside the rows and the activations is read; prefetches may lie anywhere.
 *   4. Tiles have a shape only while a product runs.
 * Threads: pure functions; any thread. */
#include "kernels/x86/amx.h"
#include "kernels/x86/amx_tile.h"
#include "kernels/x86/avx512.h"
#include "quant/unpack.h"

#include "kernels/x86/tile_unpack256.inc"

#include "kernels/x86/amx_tile256.inc"

#include "kernels/x86/amx_pass.inc"

#include "kernels/x86/tile_matmul.inc"

DEFINE_AMX_MATMUL(q2_k, avx512)
DEFINE_AMX_MATMUL(q3_k, avx512)
DEFINE_AMX_MATMUL(q4_k, amx)
DEFINE_AMX_MATMUL(q5_k, amx)
DEFINE_AMX_MATMUL(q6_k, amx)
DEFINE_AMX_MATMUL(iq4_xs, amx)
