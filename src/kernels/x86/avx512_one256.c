/* Matrix products of few tokens with 256-element blocks: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit. avx512_one256.inc has the invariants.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_look_up.h"
#include "kernels/x86/avx512_one.h"
#include "quant/unpack.h"

#include "kernels/x86/avx512_one256.inc"

/* Where unpacking leaves the 16 groups of 16 codes. */
static const uint8_t planes_order[GROUPS] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};
static const uint8_t runs_order[GROUPS] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
static const uint8_t halves_order[GROUPS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const uint8_t pairs_order[GROUPS] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};

static const block_format format_q2_k = {header_q2_k, codes_q2_k, planes_order, sizeof(sl_block_q2_k),
                                         16,          true,       false,        false};
static const block_format format_q3_k = {header_q3_k, codes_q3_k, planes_order, sizeof(sl_block_q3_k),
                                         16,          false,      true,         false};
static const block_format format_q4_k = {header_k, codes_q4_k, runs_order, sizeof(sl_block_q4_k),
                                         32,       true,       false,      false};
static const block_format format_q5_k = {header_k, codes_q5_k, runs_order, sizeof(sl_block_q5_k),
                                         32,       true,       false,      false};
static const block_format format_q6_k = {header_q6_k, codes_q6_k, halves_order, sizeof(sl_block_q6_k),
                                         16,          false,      true,         false};
static const block_format format_iq4_xs = {header_iq4_xs, codes_iq4_xs, pairs_order, sizeof(sl_block_iq4_xs), 32,
                                           false,         true,         true};

DEFINE_MATMUL_ONE(avx512, q2_k)
DEFINE_MATMUL_ONE(avx512, q3_k)
DEFINE_MATMUL_ONE(avx512, q4_k)
DEFINE_MATMUL_ONE(avx512, q5_k)
DEFINE_MATMUL_ONE(avx512, q6_k)
DEFINE_MATMUL_ONE(avx512, iq4_xs)
