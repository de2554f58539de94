/* Matrix products of few tokens with 32-element blocks of nibbles: Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, MXFP4.
 * The loops are those of AVX-512; nibbles are taken and looked up with what processors with AMX have beside it.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit. avx512_one32.inc has the invariants.
 * Threads: pure functions; any thread. */
#include "kernels/x86/amx.h"
#include "kernels/x86/amx_nibbles.h"
#include "kernels/x86/avx512_one.h"
#include "quant/unpack.h"

#include "kernels/x86/avx512_one32.inc"

DEFINE_MATMUL_ONE(amx, q4_0)
DEFINE_MATMUL_ONE(amx, q4_1)
DEFINE_MATMUL_ONE(amx, q5_0)
DEFINE_MATMUL_ONE(amx, q5_1)
DEFINE_MATMUL_ONE(amx, iq4_nl)
DEFINE_MATMUL_ONE(amx, mxfp4)
