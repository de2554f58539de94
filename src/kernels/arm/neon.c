/* The NEON part of the kernel table.
 *
 * Owns: which entries NEON replaces.
 * Invariants:
 *   1. Every function equals its generic counterpart bit for bit.
 *   2. Called only after the processor was asked; this file too is compiled for NEON with dot products.
 *   3. The rotary table stays generic: its doubles use fused multiply-adds that every AArch64 processor has.
 * Threads: any. */
#include "kernels/arm/neon.h"

void sl_neon_fill(sl_kernel_table *table)
{
    table->matmul[SL_TYPE_F32] = sl_neon_matmul_f32;
    table->matmul[SL_TYPE_F16] = sl_neon_matmul_f16;
    table->matmul[SL_TYPE_BF16] = sl_neon_matmul_bf16;
    table->matmul[SL_TYPE_Q4_0] = sl_neon_matmul_q4_0;
    table->matmul[SL_TYPE_Q4_1] = sl_neon_matmul_q4_1;
    table->matmul[SL_TYPE_Q5_0] = sl_neon_matmul_q5_0;
    table->matmul[SL_TYPE_Q5_1] = sl_neon_matmul_q5_1;
    table->matmul[SL_TYPE_Q8_0] = sl_neon_matmul_q8_0;
    table->matmul[SL_TYPE_IQ4_NL] = sl_neon_matmul_iq4_nl;
    table->matmul[SL_TYPE_MXFP4] = sl_neon_matmul_mxfp4;
    table->matmul[SL_TYPE_Q2_K] = sl_neon_matmul_q2_k;
    table->matmul[SL_TYPE_Q3_K] = sl_neon_matmul_q3_k;
    table->matmul[SL_TYPE_Q4_K] = sl_neon_matmul_q4_k;
    table->matmul[SL_TYPE_Q5_K] = sl_neon_matmul_q5_k;
    table->matmul[SL_TYPE_Q6_K] = sl_neon_matmul_q6_k;
    table->matmul[SL_TYPE_IQ4_XS] = sl_neon_matmul_iq4_xs;
    table->matmul[SL_TYPE_IQ1_S] = sl_neon_matmul_iq1_s;
    table->matmul[SL_TYPE_IQ1_M] = sl_neon_matmul_iq1_m;
    table->matmul[SL_TYPE_IQ2_XXS] = sl_neon_matmul_iq2_xxs;
    table->matmul[SL_TYPE_IQ2_XS] = sl_neon_matmul_iq2_xs;
    table->matmul[SL_TYPE_IQ2_S] = sl_neon_matmul_iq2_s;
    table->matmul[SL_TYPE_IQ3_XXS] = sl_neon_matmul_iq3_xxs;
    table->matmul[SL_TYPE_IQ3_S] = sl_neon_matmul_iq3_s;
    table->quantize_row[SL_TYPE_ACT_Q8_32] = sl_neon_quantize_row_q8_32;
    table->quantize_row[SL_TYPE_ACT_Q8_256] = sl_neon_quantize_row_q8_256;
    table->rms_norm = sl_neon_rms_norm;
    table->add = sl_neon_add;
    table->multiply = sl_neon_multiply;
    table->swiglu = sl_neon_swiglu;
    table->silu = sl_neon_silu;
    table->gelu = sl_neon_gelu;
    table->clamp = sl_neon_clamp;
    table->sigmoid_scale = sl_neon_sigmoid_scale;
    table->accumulate = sl_neon_accumulate;
    table->softmax = sl_neon_softmax;
    table->rope = sl_neon_rope;
    table->store_kv = sl_neon_store_kv;
    table->attention = sl_neon_attention;
}
