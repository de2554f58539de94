/* Kernels for AArch64 with Advanced SIMD (NEON) and the dot product of bytes. Everything declared here is compiled for
 * them: nothing may be called on a processor that sl_cpu_best_isa does not credit with NEON. */
#ifndef SL_KERNELS_ARM_NEON_H
#define SL_KERNELS_ARM_NEON_H

#include "kernels/table.h"

/* Replace every entry that has a NEON kernel. */
void sl_neon_fill(sl_kernel_table *table);

sl_matmul_fn sl_neon_matmul_f32, sl_neon_matmul_f16, sl_neon_matmul_bf16;
sl_matmul_fn sl_neon_matmul_q4_0, sl_neon_matmul_q4_1, sl_neon_matmul_q5_0, sl_neon_matmul_q5_1;
sl_matmul_fn sl_neon_matmul_q8_0, sl_neon_matmul_iq4_nl, sl_neon_matmul_mxfp4;
sl_matmul_fn sl_neon_matmul_q2_k, sl_neon_matmul_q3_k, sl_neon_matmul_q4_k, sl_neon_matmul_q5_k;
sl_matmul_fn sl_neon_matmul_q6_k, sl_neon_matmul_iq4_xs;
sl_matmul_fn sl_neon_matmul_iq1_s, sl_neon_matmul_iq1_m, sl_neon_matmul_iq2_xxs, sl_neon_matmul_iq2_xs;
sl_matmul_fn sl_neon_matmul_iq2_s, sl_neon_matmul_iq3_xxs, sl_neon_matmul_iq3_s;

sl_quantize_row_fn sl_neon_quantize_row_q8_32, sl_neon_quantize_row_q8_256;

void sl_neon_rms_norm(const float *x, const float *weight, uint32_t n, float epsilon, float *out);
void sl_neon_add(const float *a, const float *b, uint32_t n, float *out);
void sl_neon_multiply(const float *a, const float *b, uint32_t n, float *out);
void sl_neon_swiglu(const float *gate, const float *up, uint32_t n, float *out);
void sl_neon_silu(const float *x, uint32_t n, float *out);
void sl_neon_gelu(const float *x, uint32_t n, float *out);
void sl_neon_clamp(const float *x, uint32_t n, float limit, float *out);
void sl_neon_sigmoid_scale(const float *x, float gate, uint32_t n, float *out);
void sl_neon_accumulate(const float *x, float weight, bool first, uint32_t n, float *out);
void sl_neon_softmax(float *x, uint32_t n);

void sl_neon_rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, sl_rope_pairing pairing,
                  const float *table);

void sl_neon_store_kv(const float *x, uint32_t n, sl_kv_type kv_type, void *out);
void sl_neon_attention(const sl_attention_task *task);

#endif
