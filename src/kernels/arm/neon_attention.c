/* Storing keys and values, and attention over them.
 *
 * Owns: nothing; equals generic/attention.c bit for bit.
 * Invariants:
 *   1. Up to four queries share the reading of a key or a value. Each score and each output keeps its own order of
 *      terms: scores 16 partials by element and the tree, outputs one chain over positions.
 *   2. Elements after the last whole vector go through the scalar definition.
 *   3. Of the scratch, [0, 4 * SL_ATTENTION_CHUNK) holds scores (one row per query of a group), then come the group's
 *      weighted values, then per query of a token its maximum and sum so far.
 *   4. Rows of a Q8_0 cache are whole blocks, so 16 elements that start at a multiple of 16 have one scale.
 * Threads: pure functions; any thread. The scratch is private to the caller. */
#include <string.h>

#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"
#include "kernels/generic/kv.h"
#include "kernels/generic/quantize.h"
#include "kernels/generic/sums.h"

enum {
    GROUP = 4,   /* queries, or queries times positions, that are computed side by side */
    CHAINS = 16, /* vectors of outputs that are summed side by side */
    LANES = 4
};

static void store_q8_0(const float *x, uint32_t n, sl_block_q8_0 *blocks)
{
    for (uint32_t b = 0; b < n / SL_KV_BLOCK; b++, x += SL_KV_BLOCK) {
        sl_kv_scale scale = sl_kv_scale_of(sl_neon_largest_bits(x, SL_KV_BLOCK));
        memcpy(&blocks[b].d, &scale.d, sizeof scale.d);
        if (scale.inverse == 0.0f) {
            memset(blocks[b].q, 0, sizeof blocks[b].q);
            continue;
        }
        for (int half = 0; half < 2; half++) {
            int8x16_t codes = sl_neon_codes(x + 16 * half, scale.inverse);
            vst1q_s8(blocks[b].q + 16 * half, vmaxq_s8(codes, vdupq_n_s8(-127)));
        }
    }
}

void sl_neon_store_kv(const float *x, uint32_t n, sl_kv_type kv_type, void *out)
{
    if (kv_type == SL_KV_F32) {
        memcpy(out, x, n * sizeof *x);
        return;
    }
    if (kv_type == SL_KV_Q8_0) {
        store_q8_0(x, n, out);
        return;
    }
    uint16_t *halves = out;
    uint32_t i = 0;
    for (; n - i >= LANES; i += LANES) {
        vst1_u16(halves + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
    }
    for (; i < n; i++) {
        halves[i] = sl_f32_to_f16(x[i]);
    }
}

/* Eight codes of a block with its scale. */
SL_ALWAYS_INLINE void scale_codes(int8x8_t codes, float32x4_t d, float32x4_t *low, float32x4_t *high)
{
    int16x8_t wide = vmovl_s8(codes);
    *low = vmulq_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), d);
    *high = vmulq_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide))), d);
}

SL_ALWAYS_INLINE float32x4_t scale_of(const sl_block_q8_0 *block)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(block->d)));
}

SL_ALWAYS_INLINE float32x4_t load4(const void *elements, size_t index, sl_kv_type kv_type)
{
    if (kv_type == SL_KV_F32) {
        return vld1q_f32((const float *)elements + index);
    }
    if (kv_type == SL_KV_Q8_0) {
        const sl_block_q8_0 *block = (const sl_block_q8_0 *)elements + index / SL_KV_BLOCK;
        uint32_t four;
        memcpy(&four, block->q + index % SL_KV_BLOCK, sizeof four);
        float32x4_t low;
        float32x4_t high;
        scale_codes(vcreate_s8(four), scale_of(block), &low, &high);
        return low;
    }
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)elements + index)));
}

/* 16 elements; those of Q8_0 start at a multiple of 16. */
SL_ALWAYS_INLINE void load16(const void *elements, size_t index, sl_kv_type kv_type, float32x4_t out[SL_NEON_VECTORS])
{
    if (kv_type == SL_KV_Q8_0) {
        const sl_block_q8_0 *block = (const sl_block_q8_0 *)elements + index / SL_KV_BLOCK;
        int8x16_t codes = vld1q_s8(block->q + index % SL_KV_BLOCK);
        float32x4_t d = scale_of(block);
        scale_codes(vget_low_s8(codes), d, &out[0], &out[1]);
        scale_codes(vget_high_s8(codes), d, &out[2], &out[3]);
        return;
    }
    for (int v = 0; v < SL_NEON_VECTORS; v++) {
        out[v] = load4(elements, index + LANES * (size_t)v, kv_type);
    }
}

static void store_partials(const float32x4_t sums[SL_NEON_VECTORS], float partial[SL_PARTIAL_SUMS])
{
    for (int v = 0; v < SL_NEON_VECTORS; v++) {
        vst1q_f32(partial + LANES * v, sums[v]);
    }
}

/* The tree over 16 partials that continue with the elements from `first` on. */
SL_ALWAYS_INLINE float finish_dot(const sl_attention_task *task, sl_kv_type kv_type, const float *query, size_t key,
                                  uint32_t first, const float32x4_t sums[SL_NEON_VECTORS])
{
    if (first == task->key_dim) {
        return sl_neon_sum_tree(sums);
    }
    float partial[SL_PARTIAL_SUMS];
    store_partials(sums, partial);
    for (uint32_t j = first; j < task->key_dim; j++) {
        partial[j - first] = fmaf(query[j], sl_kv_element(task->keys, key + j, kv_type), partial[j - first]);
    }
    return sl_sum_tree(partial);
}

/* Scores of n_queries queries at n_positions positions from `position` on; both counts are constants, their product is
 * at most GROUP. */
SL_ALWAYS_INLINE void score_tile(const sl_attention_task *task, sl_kv_type kv_type, int n_queries, int n_positions,
                                 const float *queries, uint32_t position, float *scores)
{
    float32x4_t sums[GROUP][GROUP][SL_NEON_VECTORS];
    for (int q = 0; q < n_queries; q++) {
        for (int p = 0; p < n_positions; p++) {
            for (int v = 0; v < SL_NEON_VECTORS; v++) {
                sums[q][p][v] = vdupq_n_f32(0.0f);
            }
        }
    }
    size_t dim = task->key_dim;
    uint32_t whole = task->key_dim / SL_PARTIAL_SUMS * SL_PARTIAL_SUMS;
    for (uint32_t j = 0; j < whole; j += SL_PARTIAL_SUMS) {
        for (int p = 0; p < n_positions; p++) {
            float32x4_t keys[SL_NEON_VECTORS];
            load16(task->keys, (position + (uint32_t)p) * dim + j, kv_type, keys);
            for (int q = 0; q < n_queries; q++) {
                for (uint32_t v = 0; v < SL_NEON_VECTORS; v++) {
                    float32x4_t query = vld1q_f32(queries + (size_t)q * dim + j + LANES * v);
                    sums[q][p][v] = vfmaq_f32(sums[q][p][v], query, keys[v]);
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int q = 0; q < n_queries; q++) {
#pragma GCC unroll 4
        for (int p = 0; p < n_positions; p++) {
            float dot =
                finish_dot(task, kv_type, queries + (size_t)q * dim, (position + (uint32_t)p) * dim, whole, sums[q][p]);
            scores[q * SL_ATTENTION_CHUNK + p] = task->scale * dot;
        }
    }
}

SL_ALWAYS_INLINE void score_positions(const sl_attention_task *task, sl_kv_type kv_type, int n_queries,
                                      const float *queries, uint32_t first, uint32_t begin, uint32_t end, float *scores)
{
    const uint32_t step = GROUP / (uint32_t)n_queries;
    uint32_t i = begin;
    for (; end - i >= step; i += step) {
        score_tile(task, kv_type, n_queries, (int)step, queries, first + i, scores + i);
    }
    for (; i < end; i++) {
        score_tile(task, kv_type, n_queries, 1, queries, first + i, scores + i);
    }
}

/* out[q][d] for n_vectors * LANES dims from `dim` on; both counts are constants. */
SL_ALWAYS_INLINE void weigh_tile(const sl_attention_task *task, sl_kv_type kv_type, int n_queries, int n_vectors,
                                 uint32_t first, uint32_t begin, uint32_t end, uint32_t dim, const float *p, float *out)
{
    float32x4_t sums[GROUP][CHAINS];
    for (int q = 0; q < n_queries; q++) {
        for (int v = 0; v < n_vectors; v++) {
            sums[q][v] = vdupq_n_f32(0.0f);
        }
    }
    for (uint32_t i = begin; i < end; i++) {
        size_t value = (size_t)(first + i) * task->value_dim + dim;
        float32x4_t values[CHAINS];
        if (n_vectors == 1) {
            values[0] = load4(task->values, value, kv_type);
        } else {
            for (int v = 0; v < n_vectors; v += SL_NEON_VECTORS) {
                load16(task->values, value + LANES * (size_t)v, kv_type, values + v);
            }
        }
        for (int v = 0; v < n_vectors; v++) {
            for (int q = 0; q < n_queries; q++) {
                sums[q][v] = vfmaq_n_f32(sums[q][v], values[v], p[q * SL_ATTENTION_CHUNK + i]);
            }
        }
    }
    for (int q = 0; q < n_queries; q++) {
        for (int v = 0; v < n_vectors; v++) {
            vst1q_f32(out + (size_t)q * task->value_dim + dim + LANES * (size_t)v, sums[q][v]);
        }
    }
}

SL_ALWAYS_INLINE void weigh_values(const sl_attention_task *task, sl_kv_type kv_type, int n_queries, uint32_t first,
                                   uint32_t begin, uint32_t end, const float *p, float *out)
{
    const int n_vectors = CHAINS / n_queries;
    uint32_t dim = 0;
    for (; task->value_dim - dim >= LANES * (uint32_t)n_vectors; dim += LANES * (uint32_t)n_vectors) {
        weigh_tile(task, kv_type, n_queries, n_vectors, first, begin, end, dim, p, out);
    }
    for (; task->value_dim - dim >= LANES; dim += LANES) {
        weigh_tile(task, kv_type, n_queries, 1, first, begin, end, dim, p, out);
    }
    for (; dim < task->value_dim; dim++) {
        for (int q = 0; q < n_queries; q++) {
            float sum = 0.0f;
            for (uint32_t i = begin; i < end; i++) {
                float value = sl_kv_element(task->values, (size_t)(first + i) * task->value_dim + dim, kv_type);
                sum = fmaf(p[q * SL_ATTENTION_CHUNK + i], value, sum);
            }
            out[(size_t)q * task->value_dim + dim] = sum;
        }
    }
}

static float maximum_of(const float *scores, uint32_t begin, uint32_t end)
{
    float maximum = -INFINITY;
    for (uint32_t i = begin; i < end; i++) {
        maximum = scores[i] > maximum ? scores[i] : maximum;
    }
    return maximum;
}

static void exponentiate_scalar(float *scores, uint32_t begin, uint32_t end, float maximum, float *partial)
{
    for (uint32_t i = begin; i < end; i++) {
        scores[i] = sl_exp(scores[i] - maximum);
        partial[i % SL_PARTIAL_SUMS] += scores[i];
    }
}

/* Scores become p = exp(score - maximum); returns their sum. */
static float exponentiate(float *scores, uint32_t begin, uint32_t end, float maximum)
{
    float partial[SL_PARTIAL_SUMS] = {0};
    uint32_t i = (begin + SL_PARTIAL_SUMS - 1) / SL_PARTIAL_SUMS * SL_PARTIAL_SUMS;
    i = i < end ? i : end;
    exponentiate_scalar(scores, begin, i, maximum, partial);
    float32x4_t sums[SL_NEON_VECTORS];
    for (int v = 0; v < SL_NEON_VECTORS; v++) {
        sums[v] = vld1q_f32(partial + LANES * v);
    }
    for (; end - i >= SL_PARTIAL_SUMS; i += SL_PARTIAL_SUMS) {
        for (int v = 0; v < SL_NEON_VECTORS; v++) {
            float32x4_t p = sl_neon_exp(vsubq_f32(vld1q_f32(scores + i + LANES * v), vdupq_n_f32(maximum)));
            sums[v] = vaddq_f32(sums[v], p);
            vst1q_f32(scores + i + LANES * v, p);
        }
    }
    store_partials(sums, partial);
    exponentiate_scalar(scores, i, end, maximum, partial);
    return sl_sum_tree(partial);
}

/* What a query has gathered from the chunks so far. */
typedef struct query_state {
    float maximum;
    float sum;
} query_state;

_Static_assert(sizeof(query_state) == 2 * sizeof(float), "a query's state fits its part of the scratch");

static void merge_chunk(query_state *state, float chunk_maximum, float chunk_sum, bool is_first, uint32_t value_dim,
                        const float *chunk_out, float *out)
{
    if (is_first) {
        *state = (query_state){chunk_maximum, chunk_sum};
        memcpy(out, chunk_out, value_dim * sizeof *out);
        return;
    }
    float merged = chunk_maximum > state->maximum ? chunk_maximum : state->maximum;
    float old_weight = sl_exp(state->maximum - merged);
    float chunk_weight = sl_exp(chunk_maximum - merged);
    *state = (query_state){merged, fmaf(state->sum, old_weight, chunk_sum * chunk_weight)};
    uint32_t d = 0;
    for (; value_dim - d >= LANES; d += LANES) {
        float32x4_t added = vmulq_n_f32(vld1q_f32(chunk_out + d), chunk_weight);
        vst1q_f32(out + d, vfmaq_n_f32(added, vld1q_f32(out + d), old_weight));
    }
    for (; d < value_dim; d++) {
        out[d] = fmaf(out[d], old_weight, chunk_out[d] * chunk_weight);
    }
}

#include "kernels/attention_chunks.inc"

void sl_neon_attention(const sl_attention_task *task)
{
    if (task->kv_type == SL_KV_F32) {
        attend(task, SL_KV_F32);
    } else if (task->kv_type == SL_KV_Q8_0) {
        attend(task, SL_KV_Q8_0);
    } else {
        attend(task, SL_KV_F16);
    }
}
