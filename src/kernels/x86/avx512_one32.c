/* Matrix products of few tokens with 32-element blocks: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit. avx512_one32.inc has the invariants.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_nibbles.h"
#include "kernels/x86/avx512_one.h"
#include "quant/unpack.h"

#include "kernels/x86/avx512_one32.inc"

DEFINE_MATMUL_ONE(avx512, q4_0)
DEFINE_MATMUL_ONE(avx512, q4_1)
DEFINE_MATMUL_ONE(avx512, q5_0)
DEFINE_MATMUL_ONE(avx512, q5_1)
DEFINE_MATMUL_ONE(avx512, q8_0)
DEFINE_MATMUL_ONE(avx512, iq4_nl)
DEFINE_MATMUL_ONE(avx512, mxfp4)
