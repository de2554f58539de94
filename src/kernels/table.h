/* The kernel table: one function pointer per operation and element type, filled once per engine. `generic/` is the
 * definition; every other set equals it bit for bit.
 *
 * Numerics (docs/numerics.md is the long form). All arithmetic is IEEE single precision, round to nearest even,
 * denormals kept; fma means one fused multiply-add.
 *   dot of float weights (F32, F16, BF16): 16 partial sums by index modulo 16, each fma(w, x, sum) in index order, then
 * the tree s[i] += s[i + 8] (i < 8), += 4, += 2, += 1. dot of quantised weights: per weight block the products are
 * summed in integers; across blocks, in block order, sum = fma(d_w * d_x, (float)integer_sum, sum); formats with minima
 * add, right after each block's term, sum = fma(-(dmin_w * d_x), (float)integer_minimum_sum, sum) (K-quants) or sum =
 * fma(m_w * d_x, (float)sum_of_q_x, sum) (Q4_1, Q5_1). For formats with several scales per block the integer sum
 *     already holds the products with the integer scales.
 *   sum of squares: 16 partials and tree as above with fma(x, x, sum).
 *   exp, sigmoid, silu, gelu: the functions of generic/math.h; cos and sin of rotary angles: generic/angles.h.
 *   NaN and infinity are no errors here: they spread into every result that depends on them. Which NaN is not defined.
 */
#ifndef SL_KERNELS_TABLE_H
#define SL_KERNELS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/cpu.h"
#include "quant/traits.h"

/* out[t * out_stride + r] = dot(weight row r, activation row t) for rows first_row <= r < end_row and tokens t <
 * n_tokens. Rows are row_bytes apart, any alignment; activations are in the weight type's activation form, one row
 * every activation_stride bytes. Bits do not depend on how rows or tokens are split over calls. */
typedef void sl_matmul_fn(const void *weights, size_t row_bytes, uint32_t n_columns, uint32_t first_row,
                          uint32_t end_row, const void *activations, size_t activation_stride, uint32_t n_tokens,
                          float *out, size_t out_stride);

/* Turn one float row into its activation form. n is a multiple of the block. d = max|x| / 127; q = x * (127 / max|x|)
 * rounded to nearest even, in [-127, 127]. A block whose max|x| is below 2^-100 has d = 0, q = 0; one with a NaN or an
 * infinity has d = NaN, q = 0, so that every product with it is NaN. */
typedef void sl_quantize_row_fn(const float *x, uint32_t n, void *out);

/* Which pairs rotary embedding turns: (2i, 2i + 1) or (i, i + n_rot / 2). */
typedef enum sl_rope_pairing { SL_ROPE_NORM, SL_ROPE_NEOX } sl_rope_pairing;

/* Rotary frequencies: angle of pair i at position p is p * base^(-2 i / n_rot) * scale / factors[i]. base > 0. */
typedef struct sl_rope_config {
    uint32_t n_rot; /* even */
    float base;
    float scale;          /* 1 / linear scaling factor; 1 without scaling */
    const float *factors; /* borrowed: [n_rot / 2], or NULL for all ones */
} sl_rope_config;

/* Element type of a KV cache. Q8_0: blocks of SL_KV_BLOCK elements as in files, an F16 scale d and int8 q; an element is
 * d * q, which a float holds exactly. */
typedef enum sl_kv_type { SL_KV_F32, SL_KV_F16, SL_KV_Q8_0 } sl_kv_type;

enum { SL_KV_BLOCK = 32, SL_KV_BLOCK_BYTES = 34 };

/* Bytes of the n elements of one head's key or value at one position; for Q8_0 n is a multiple of SL_KV_BLOCK. */
static inline size_t sl_kv_row_bytes(sl_kv_type kv_type, uint32_t n)
{
    if (kv_type == SL_KV_Q8_0) {
        return (size_t)n / SL_KV_BLOCK * SL_KV_BLOCK_BYTES;
    }
    return n * (kv_type == SL_KV_F32 ? sizeof(float) : sizeof(uint16_t));
}

/* One attention task: the query heads of one group (all share one KV head) of n_tokens tokens that follow one another.
 * Chunks of SL_ATTENTION_CHUNK positions, each computed on its own: m = max score; p = exp(score - m); l = sum of p (16
 * partials by position in the chunk modulo 16, then the tree); o[d] = fma over positions in order. Chunks are merged in
 * order: m' = max(m, m_c), a = exp(m - m'), b = exp(m_c - m'), l = fma(l, a, l_c * b), o[d] = fma(o[d], a, o_c[d] * b).
 * The first chunk is taken as it is. out = o / l. score = scale * dot(q, k). A token sees the positions up to its own,
 * of which a window keeps the last; others take no part. Bits do not depend on how tokens or heads are split over
 * tasks. */
typedef struct sl_attention_task {
    const float *queries; /* [n_tokens][n_queries][key_dim], tokens query_stride floats apart */
    size_t query_stride;
    uint32_t n_tokens;  /* at most sl_attention_tile_tokens(n_queries) */
    uint32_t n_queries; /* query heads in the group */
    uint32_t key_dim;   /* elements of a query and a key */
    uint32_t value_dim; /* elements of a value */
    const void *keys;   /* [positions][key_dim] of the KV head, kv_type */
    const void *values; /* [positions][value_dim] of the KV head, kv_type */
    sl_kv_type kv_type;
    uint32_t n_positions; /* of the first token: its position + 1; token t has n_positions + t */
    uint32_t window;      /* a token sees so many positions, its own the last; 0: all */
    float scale;
    float *out; /* [n_tokens][n_queries][value_dim], tokens out_stride floats apart */
    size_t out_stride;
    float *scratch; /* sl_attention_scratch_floats floats, 64-byte aligned, private to the thread */
} sl_attention_task;

enum { SL_ATTENTION_CHUNK = 256 };
/* The tokens that one task may have, so that what is prepared once per chunk serves many queries. */
uint32_t sl_attention_tile_tokens(uint32_t n_queries);
/* Of a task with at most n_queries queries per token and dims up to these. */
size_t sl_attention_scratch_floats(uint32_t n_queries, uint32_t key_dim, uint32_t value_dim);

/* The first position that a token with n_positions sees. */
static inline uint32_t sl_attention_first_position(const sl_attention_task *task, uint32_t n_positions)
{
    return task->window == 0 || task->window >= n_positions ? 0 : n_positions - task->window;
}

typedef struct sl_kernel_table {
    sl_isa isa; /* the best set that was allowed, that the processor has and that this build has kernels for */

    sl_matmul_fn *matmul[SL_TYPE_COUNT];             /* NULL: the type cannot be a weight */
    sl_quantize_row_fn *quantize_row[SL_TYPE_COUNT]; /* for ACT_Q8_32 and ACT_Q8_256 */
    sl_decode_row_fn *decode_row[SL_TYPE_COUNT];     /* embedding rows; equals quant's reference */

    /* out[i] = (x[i] * (1 / sqrt(sum_of_squares / n + epsilon))) * weight[i]; out may be x. weight NULL: all ones. */
    void (*rms_norm)(const float *x, const float *weight, uint32_t n, float epsilon, float *out);
    /* out[i] = a[i] + b[i]; out may be a or b. */
    void (*add)(const float *a, const float *b, uint32_t n, float *out);
    /* out[i] = a[i] * b[i] */
    void (*multiply)(const float *a, const float *b, uint32_t n, float *out);
    /* out[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)); out may be gate or up. */
    void (*swiglu)(const float *gate, const float *up, uint32_t n, float *out);
    /* out[i] = silu(x[i]); gelu with the tanh approximation; out may be x. */
    void (*silu)(const float *x, uint32_t n, float *out);
    void (*gelu)(const float *x, uint32_t n, float *out);
    /* out[i] = min(max(x[i], -limit), limit) */
    void (*clamp)(const float *x, uint32_t n, float limit, float *out);
    /* out[i] = sigmoid(gate) * x[i] */
    void (*sigmoid_scale)(const float *x, float gate, uint32_t n, float *out);
    /* out[i] = fma(weight, x[i], out[i]): one term of combining experts in routed order; first: out[i] = weight * x[i].
     */
    void (*accumulate)(const float *x, float weight, bool first, uint32_t n, float *out);
    /* softmax in place: m = max; p = exp(x - m); each p / sum, the sum by 16 partials and tree. */
    void (*softmax)(float *x, uint32_t n);

    /* cos and sin of every pair at one position: table[2 i] = cos, table[2 i + 1] = sin, i < n_rot / 2. Computed in
     * double by the project's own functions and rounded once. */
    void (*rope_table)(const sl_rope_config *config, uint32_t position, float *table);
    /* Rotate n_heads heads of head_dim in place: a' = fma(a, cos, -(b * sin)), b' = fma(b, cos, a * sin). */
    void (*rope)(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, sl_rope_pairing pairing,
                 const float *table);

    /* Store one KV row of n floats as kv_type. F16: round to nearest even. Q8_0: d = max|x| / 127 as F16; q = x * (1 /
     * d), held within -127 and 127, rounded to nearest even. A d of 0 makes all q 0; a block with a NaN or an infinity,
     * or whose d is none in F16, has d = NaN, q = 0, so that every product with it is NaN. */
    void (*store_kv)(const float *x, uint32_t n, sl_kv_type kv_type, void *out);
    void (*attention)(const sl_attention_task *task);
} sl_kernel_table;

/* Fill the table for `isa`: generic first, then every better set up to `isa` over it. An `isa` above what the processor
 * has, or this build has kernels for, is lowered to it. */
void sl_kernel_table_init(sl_kernel_table *table, sl_isa isa);

/* Whether matmul for `type` is the generic one although the table's isa is above generic: worth a warning. */
bool sl_kernel_table_falls_back(const sl_kernel_table *table, sl_type type);

/* Choosing experts: ids receives the top k of p [n_experts] by descending p, ties to the lower index; NaN ranks below
 * every number. For k <= n_experts the ids are distinct and in range, whatever p holds. */
void sl_kernel_top_k(const float *p, uint32_t n_experts, uint32_t k, uint32_t *ids);

#endif
