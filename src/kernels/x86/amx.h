/* Kernels for AMX. Everything declared here is compiled for it: nothing may be called on a processor that sl_cpu_best_isa does
 * not credit with AMX. */
#ifndef SL_KERNELS_X86_AMX_H
#define SL_KERNELS_X86_AMX_H

#include "kernels/table.h"

/* Replace every entry that has an AMX kernel. */
void sl_amx_fill(sl_kernel_table *table);

sl_matmul_fn sl_amx_matmul_q4_0, sl_amx_matmul_q4_1, sl_amx_matmul_q5_0, sl_amx_matmul_q5_1;
sl_matmul_fn sl_amx_matmul_q8_0, sl_amx_matmul_iq4_nl, sl_amx_matmul_mxfp4;
sl_matmul_fn sl_amx_matmul_q2_k, sl_amx_matmul_q3_k, sl_amx_matmul_q4_k, sl_amx_matmul_q5_k;
sl_matmul_fn sl_amx_matmul_q6_k, sl_amx_matmul_iq4_xs;
sl_matmul_fn sl_amx_matmul_iq1_s, sl_amx_matmul_iq1_m, sl_amx_matmul_iq2_xxs, sl_amx_matmul_iq2_xs;
sl_matmul_fn sl_amx_matmul_iq2_s, sl_amx_matmul_iq3_xxs, sl_amx_matmul_iq3_s;

/* Of one token, for types with nibbles; the others gain nothing over AVX-512. */
sl_matmul_fn sl_amx_matmul_one_q4_0, sl_amx_matmul_one_q4_1, sl_amx_matmul_one_q5_0, sl_amx_matmul_one_q5_1;
sl_matmul_fn sl_amx_matmul_one_iq4_nl, sl_amx_matmul_one_mxfp4;
sl_matmul_fn sl_amx_matmul_one_q4_k, sl_amx_matmul_one_q5_k, sl_amx_matmul_one_q6_k, sl_amx_matmul_one_iq4_xs;

#endif
