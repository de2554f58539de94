/* Matrix products with 256-element blocks: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS.
 *
 * A block of eight rows is turned so that rows are lanes (avx2_tile.h) before it is unpacked, which is then done for all of them
 * at once; what was unpacked of two times eight rows serves up to SL_TILE_PASS tokens, three at a time in registers. A few go to
 * avx2_one256.c, which takes fewer rows at a time.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. What tile_unpack256.inc says of codes and sums.
 *   2. Rows missing from a last tile are stood in for by the last row; their lanes are not stored.
 *   3. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_tile.h"
#include "quant/unpack.h"

#include "kernels/x86/tile_unpack256.inc"

#include "kernels/x86/avx2_tile256.inc"

#include "kernels/x86/tile_pass.inc"

#include "kernels/x86/tile_matmul.inc"

DEFINE_MATMUL(avx2, q2_k, 2)
DEFINE_MATMUL(avx2, q3_k, 2)
DEFINE_MATMUL(avx2, q4_k, 2)
DEFINE_MATMUL(avx2, q5_k, 2)
DEFINE_MATMUL(avx2, q6_k, 3)
DEFINE_MATMUL(avx2, iq4_xs, 3)
