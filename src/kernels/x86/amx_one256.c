/* Matrix products of few tokens with 256-element blocks whose codes are looked up: IQ4_XS. Processors with AMX look up bytes by six
 * bits of each, so nibbles need no mask; the others of these formats gain nothing from that.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit. avx512_one256.inc has the invariants.
 * Threads: pure functions; any thread. */
#include "kernels/x86/amx.h"
#include "kernels/x86/amx_look_up.h"
#include "kernels/x86/avx512_one.h"
#include "quant/unpack.h"

#include "kernels/x86/avx512_one256.inc"

/* Where unpacking leaves the 16 groups of 16 codes. */
static const uint8_t pairs_order[GROUPS] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};

static const block_format format_iq4_xs = {header_iq4_xs, codes_iq4_xs, pairs_order, sizeof(sl_block_iq4_xs), 32,
                                           false,         true,         true};

DEFINE_MATMUL_ONE(amx, iq4_xs)
