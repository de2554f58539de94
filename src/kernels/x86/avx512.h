/* Kernels for AVX-512 with VNNI. Everything declared here is compiled for them: nothing may be called on a processor that
 * sl_cpu_best_isa does not credit with AVX-512. */
#ifndef SL_KERNELS_X86_AVX512_H
#define SL_KERNELS_X86_AVX512_H

#include "kernels/table.h"

/* Replace every entry that has an AVX-512 kernel. */
void sl_avx512_fill(sl_kernel_table *table);

sl_matmul_fn sl_avx512_matmul_q4_0, sl_avx512_matmul_q4_1, sl_avx512_matmul_q5_0, sl_avx512_matmul_q5_1;
sl_matmul_fn sl_avx512_matmul_q8_0, sl_avx512_matmul_iq4_nl, sl_avx512_matmul_mxfp4;
sl_matmul_fn sl_avx512_matmul_q2_k, sl_avx512_matmul_q3_k, sl_avx512_matmul_q4_k, sl_avx512_matmul_q5_k;
sl_matmul_fn sl_avx512_matmul_q6_k, sl_avx512_matmul_iq4_xs;
sl_matmul_fn sl_avx512_matmul_iq1_s, sl_avx512_matmul_iq1_m, sl_avx512_matmul_iq2_xxs, sl_avx512_matmul_iq2_xs;
sl_matmul_fn sl_avx512_matmul_iq2_s, sl_avx512_matmul_iq3_xxs, sl_avx512_matmul_iq3_s;

/* The same for few tokens, each on its own. */
sl_matmul_fn sl_avx512_matmul_one_q4_0, sl_avx512_matmul_one_q4_1, sl_avx512_matmul_one_q5_0, sl_avx512_matmul_one_q5_1;
sl_matmul_fn sl_avx512_matmul_one_q8_0, sl_avx512_matmul_one_iq4_nl, sl_avx512_matmul_one_mxfp4;
sl_matmul_fn sl_avx512_matmul_one_q2_k, sl_avx512_matmul_one_q3_k, sl_avx512_matmul_one_q4_k, sl_avx512_matmul_one_q5_k;
sl_matmul_fn sl_avx512_matmul_one_q6_k, sl_avx512_matmul_one_iq4_xs;
sl_matmul_fn sl_avx512_matmul_one_iq1_s, sl_avx512_matmul_one_iq1_m, sl_avx512_matmul_one_iq2_xxs;
sl_matmul_fn sl_avx512_matmul_one_iq2_xs, sl_avx512_matmul_one_iq2_s, sl_avx512_matmul_one_iq3_xxs;
sl_matmul_fn sl_avx512_matmul_one_iq3_s;

/* Below so many queries in a task the AVX2 kernel is the faster one. */
enum { SL_AVX512_ATTENTION_QUERIES = 4 };

void sl_avx512_attention(const sl_attention_task *task);

#endif
