/* The AVX2 part of the kernel table.
 *
 * Owns: which entries AVX2 replaces.
 * Invariants:
 *   1. Every function equals its generic counterpart bit for bit.
 *   2. Called only after the processor was asked; this file too is compiled for AVX2.
 * Threads: any. */
#include "kernels/x86/avx2.h"

void sl_avx2_fill(sl_kernel_table *table)
{
    table->matmul[SL_TYPE_F32] = sl_avx2_matmul_f32;
    table->matmul[SL_TYPE_F16] = sl_avx2_matmul_f16;
    table->matmul[SL_TYPE_BF16] = sl_avx2_matmul_bf16;
    table->matmul[SL_TYPE_Q4_0] = sl_avx2_matmul_q4_0;
    table->matmul[SL_TYPE_Q4_1] = sl_avx2_matmul_q4_1;
    table->matmul[SL_TYPE_Q5_0] = sl_avx2_matmul_q5_0;
    table->matmul[SL_TYPE_Q5_1] = sl_avx2_matmul_q5_1;
    table->matmul[SL_TYPE_Q8_0] = sl_avx2_matmul_q8_0;
    table->matmul[SL_TYPE_IQ4_NL] = sl_avx2_matmul_iq4_nl;
    table->matmul[SL_TYPE_MXFP4] = sl_avx2_matmul_mxfp4;
    table->matmul[SL_TYPE_Q2_K] = sl_avx2_matmul_q2_k;
    table->matmul[SL_TYPE_Q3_K] = sl_avx2_matmul_q3_k;
    table->matmul[SL_TYPE_Q4_K] = sl_avx2_matmul_q4_k;
    table->matmul[SL_TYPE_Q5_K] = sl_avx2_matmul_q5_k;
    table->matmul[SL_TYPE_Q6_K] = sl_avx2_matmul_q6_k;
    table->matmul[SL_TYPE_IQ4_XS] = sl_avx2_matmul_iq4_xs;
    table->matmul[SL_TYPE_IQ1_S] = sl_avx2_matmul_iq1_s;
    table->matmul[SL_TYPE_IQ1_M] = sl_avx2_matmul_iq1_m;
    table->matmul[SL_TYPE_IQ2_XXS] = sl_avx2_matmul_iq2_xxs;
    table->matmul[SL_TYPE_IQ2_XS] = sl_avx2_matmul_iq2_xs;
    table->matmul[SL_TYPE_IQ2_S] = sl_avx2_matmul_iq2_s;
    table->matmul[SL_TYPE_IQ3_XXS] = sl_avx2_matmul_iq3_xxs;
    table->matmul[SL_TYPE_IQ3_S] = sl_avx2_matmul_iq3_s;
    table->quantize_row[SL_TYPE_ACT_Q8_32] = sl_avx2_quantize_row_q8_32;
    table->quantize_row[SL_TYPE_ACT_Q8_256] = sl_avx2_quantize_row_q8_256;
    table->rms_norm = sl_avx2_rms_norm;
    table->add = sl_avx2_add;
    table->multiply = sl_avx2_multiply;
    table->swiglu = sl_avx2_swiglu;
    table->silu = sl_avx2_silu;
    table->gelu = sl_avx2_gelu;
    table->clamp = sl_avx2_clamp;
    table->sigmoid_scale = sl_avx2_sigmoid_scale;
    table->accumulate = sl_avx2_accumulate;
    table->softmax = sl_avx2_softmax;
    table->rope_table = sl_avx2_rope_table;
    table->rope = sl_avx2_rope;
    table->store_kv = sl_avx2_store_kv;
    table->attention = sl_avx2_attention;
}
