/* The AMX part of the kernel table.
 *
 * Owns: which entries AMX replaces; the others stay those of AVX-512.
 * Invariants:
 *   1. Every function equals its generic counterpart bit for bit.
 *   2. Called only after the processor and the kernel were asked.
 * Threads: any. */
#include "kernels/x86/amx.h"

void sl_amx_fill(sl_kernel_table *table)
{
    table->matmul[SL_TYPE_Q4_0] = sl_amx_matmul_q4_0;
    table->matmul[SL_TYPE_Q4_1] = sl_amx_matmul_q4_1;
    table->matmul[SL_TYPE_Q5_0] = sl_amx_matmul_q5_0;
    table->matmul[SL_TYPE_Q5_1] = sl_amx_matmul_q5_1;
    table->matmul[SL_TYPE_Q8_0] = sl_amx_matmul_q8_0;
    table->matmul[SL_TYPE_IQ4_NL] = sl_amx_matmul_iq4_nl;
    table->matmul[SL_TYPE_MXFP4] = sl_amx_matmul_mxfp4;
    table->matmul[SL_TYPE_Q2_K] = sl_amx_matmul_q2_k;
    table->matmul[SL_TYPE_Q3_K] = sl_amx_matmul_q3_k;
    table->matmul[SL_TYPE_Q4_K] = sl_amx_matmul_q4_k;
    table->matmul[SL_TYPE_Q5_K] = sl_amx_matmul_q5_k;
    table->matmul[SL_TYPE_Q6_K] = sl_amx_matmul_q6_k;
    table->matmul[SL_TYPE_IQ4_XS] = sl_amx_matmul_iq4_xs;
    table->matmul[SL_TYPE_IQ1_S] = sl_amx_matmul_iq1_s;
    table->matmul[SL_TYPE_IQ1_M] = sl_amx_matmul_iq1_m;
    table->matmul[SL_TYPE_IQ2_XXS] = sl_amx_matmul_iq2_xxs;
    table->matmul[SL_TYPE_IQ2_XS] = sl_amx_matmul_iq2_xs;
    table->matmul[SL_TYPE_IQ2_S] = sl_amx_matmul_iq2_s;
    table->matmul[SL_TYPE_IQ3_XXS] = sl_amx_matmul_iq3_xxs;
    table->matmul[SL_TYPE_IQ3_S] = sl_amx_matmul_iq3_s;
}
