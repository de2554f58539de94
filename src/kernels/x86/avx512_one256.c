/* Matrix products of few tokens with 256-element blocks: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit. avx512_one256.inc has the invariants.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_nibbles.h"
#include "kernels/x86/avx512_one.h"
#include "quant/unpack.h"

#include "kernels/x86/avx512_one256.inc"

DEFINE_MATMUL_ONE(avx512, q2_k)
DEFINE_MATMUL_ONE(avx512, q3_k)
DEFINE_MATMUL_ONE(avx512, q4_k)
DEFINE_MATMUL_ONE(avx512, q5_k)
DEFINE_MATMUL_ONE(avx512, q6_k)
DEFINE_MATMUL_ONE(avx512, iq4_xs)
