/* Matrix products of few tokens with 32-element blocks: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit. avx512_one32.inc has the invariants.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_look_up.h"
#include "kernels/x86/avx512_one.h"
#include "quant/unpack.h"

#include "kernels/x86/avx512_one32.inc"

static const block_format format_q4_0 = {codes_q4_0, sizeof(sl_block_q4_0), 8, true, false, false};
static const block_format format_q4_1 = {codes_q4_1, sizeof(sl_block_q4_1), 0, true, true, false};
static const block_format format_q5_0 = {codes_q5_0, sizeof(sl_block_q5_0), 16, true, false, false};
static const block_format format_q5_1 = {codes_q5_1, sizeof(sl_block_q5_1), 0, true, true, false};
static const block_format format_q8_0 = {codes_q8_0, sizeof(sl_block_q8_0), 128, false, false, false};
static const block_format format_iq4_nl = {codes_iq4_nl, sizeof(sl_block_iq4_nl), 128, true, false, false};
static const block_format format_mxfp4 = {codes_mxfp4, sizeof(sl_block_mxfp4), 12, true, false, true};

DEFINE_MATMUL_ONE(avx512, q4_0)
DEFINE_MATMUL_ONE(avx512, q4_1)
DEFINE_MATMUL_ONE(avx512, q5_0)
DEFINE_MATMUL_ONE(avx512, q5_1)
DEFINE_MATMUL_ONE(avx512, q8_0)
DEFINE_MATMUL_ONE(avx512, iq4_nl)
DEFINE_MATMUL_ONE(avx512, mxfp4)
