/* Matrix products of few tokens with 32-element blocks whose codes are looked up: IQ4_NL, MXFP4. Processors with AMX look up bytes by
 * six bits of each, so nibbles need no mask; the others of these formats gain nothing from that.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit. avx512_one32.inc has the invariants.
 * Threads: pure functions; any thread. */
#include "kernels/x86/amx.h"
#include "kernels/x86/amx_look_up.h"
#include "kernels/x86/avx512_one.h"
#include "quant/unpack.h"

#include "kernels/x86/avx512_one32.inc"

static const block_format format_iq4_nl = {codes_iq4_nl, sizeof(sl_block_iq4_nl), 128, true, false, false};
static const block_format format_mxfp4 = {codes_mxfp4, sizeof(sl_block_mxfp4), 12, true, false, true};

DEFINE_MATMUL_ONE(amx, iq4_nl)
DEFINE_MATMUL_ONE(amx, mxfp4)
