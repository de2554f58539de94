/* Matrix products of few tokens with 256-element blocks of nibbles: Q4_K, Q5_K, Q6_K, IQ4_XS.
 * The loops are those of AVX-512; nibbles are taken and looked up with what processors with AMX have beside it.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit. avx512_one256.inc has the invariants.
 * Threads: pure functions; any thread. */
#include "kernels/x86/amx.h"
#include "kernels/x86/amx_nibbles.h"
#include "kernels/x86/avx512_one.h"
#include "quant/unpack.h"

#include "kernels/x86/avx512_one256.inc"

DEFINE_MATMUL_ONE(amx, q4_k)
DEFINE_MATMUL_ONE(amx, q5_k)
DEFINE_MATMUL_ONE(amx, q6_k)
DEFINE_MATMUL_ONE(amx, iq4_xs)
