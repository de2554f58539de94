/* The definition of every operation of the table, in plain C. */
#ifndef SL_KERNELS_GENERIC_GENERIC_H
#define SL_KERNELS_GENERIC_GENERIC_H

#include "kernels/table.h"

sl_matmul_fn sl_generic_matmul_f32, sl_generic_matmul_f16, sl_generic_matmul_bf16;
sl_matmul_fn sl_generic_matmul_q4_0, sl_generic_matmul_q4_1, sl_generic_matmul_q5_0, sl_generic_matmul_q5_1;
sl_matmul_fn sl_generic_matmul_q8_0, sl_generic_matmul_iq4_nl, sl_generic_matmul_mxfp4;
sl_matmul_fn sl_generic_matmul_q2_k, sl_generic_matmul_q3_k, sl_generic_matmul_q4_k, sl_generic_matmul_q5_k;
sl_matmul_fn sl_generic_matmul_q6_k, sl_generic_matmul_iq4_xs;
sl_matmul_fn sl_generic_matmul_iq1_s, sl_generic_matmul_iq1_m, sl_generic_matmul_iq2_xxs, sl_generic_matmul_iq2_xs;
sl_matmul_fn sl_generic_matmul_iq2_s, sl_generic_matmul_iq3_xxs, sl_generic_matmul_iq3_s;

sl_quantize_row_fn sl_generic_quantize_row_q8_32, sl_generic_quantize_row_q8_256;

void sl_generic_rms_norm(const float *x, const float *weight, uint32_t n, float epsilon, float *out);
void sl_generic_add(const float *a, const float *b, uint32_t n, float *out);
void sl_generic_multiply(const float *a, const float *b, uint32_t n, float *out);
void sl_generic_swiglu(const float *gate, const float *up, uint32_t n, float *out);
void sl_generic_silu(const float *x, uint32_t n, float *out);
void sl_generic_gelu(const float *x, uint32_t n, float *out);
void sl_generic_clamp(const float *x, uint32_t n, float limit, float *out);
void sl_generic_sigmoid_scale(const float *x, float gate, uint32_t n, float *out);
void sl_generic_accumulate(const float *x, float weight, bool first, uint32_t n, float *out);
void sl_generic_softmax(float *x, uint32_t n);

void sl_generic_rope_table(const sl_rope_config *config, uint32_t position, float *table);
void sl_generic_rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, sl_rope_pairing pairing,
                     const float *table);

void sl_generic_store_kv(const float *x, uint32_t n, sl_kv_type kv_type, void *out);
void sl_generic_attention(const sl_attention_task *task);

#endif
