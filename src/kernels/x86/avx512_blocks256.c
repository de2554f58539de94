/* Matrix products with 256-element blocks: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS.
 *
 * A block of sixteen rows is turned so that rows are lanes (avx512_tile.h) before it is unpacked, which is then done for all
 * rows at once; what was unpacked serves up to SL_TILE_PASS tokens, eight at a time in registers. A few go to
 * avx512_one256.c, which takes fewer rows at a time.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. What tile_unpack256.inc says of codes and sums.
 *   2. Rows missing from a last tile are stood in for by the last row; their lanes are not stored.
 *   3. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_tile.h"
#include "quant/unpack.h"

#include "kernels/x86/tile_unpack256.inc"

#include "kernels/x86/avx512_tile256.inc"

#include "kernels/x86/tile_pass.inc"

#include "kernels/x86/tile_matmul.inc"

DEFINE_MATMUL(avx512, q2_k, 3)
DEFINE_MATMUL(avx512, q3_k, 5)
DEFINE_MATMUL(avx512, q4_k, 5)
DEFINE_MATMUL(avx512, q5_k, 5)
DEFINE_MATMUL(avx512, q6_k, 5)
DEFINE_MATMUL(avx512, iq4_xs, 5)
