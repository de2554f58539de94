/* Storing keys and values, and attention over them.
 *
 * Owns: nothing; equals generic/attention.c bit for bit.
 * Invariants:
 *   1. Up to four queries share the reading of a key or a value. Each score and each output keeps its own order of
 * terms: scores 16 partials by element and the tree, outputs one chain over positions.
 *   2. Elements after the last whole vector go through the scalar definition.
 *   3. Of the scratch, [0, 4 * SL_ATTENTION_CHUNK) holds scores (one row per query of a group), then come the group's
 *      weighted values, then per query of a token its maximum and sum so far.
 * Threads: pure functions; any thread. The scratch is private to the caller. */
#include <immintrin.h>
#include <string.h>

#include "kernels/generic/kv.h"
#include "kernels/generic/math.h"
#include "kernels/generic/quantize.h"
#include "kernels/generic/sums.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_math.h"
#include "quant/blocks.h"

enum { GROUP = 4 }; /* queries, or queries times positions, that are computed side by side */

static void store_q8_0(const float *x, uint32_t n, sl_block_q8_0 *blocks)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (uint32_t b = 0; b < n / SL_KV_BLOCK; b++, x += SL_KV_BLOCK) {
        __m256i largest = _mm256_setzero_si256();
        for (int i = 0; i < SL_KV_BLOCK; i += 8) {
            __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + i));
            largest = _mm256_max_epu32(largest, _mm256_and_si256(bits, magnitude));
        }
        __m128i four = _mm_max_epu32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
        __m128i two = _mm_max_epu32(four, _mm_srli_si128(four, 8));
        __m128i one = _mm_max_epu32(two, _mm_srli_si128(two, 4));
        sl_kv_scale scale = sl_kv_scale_of((uint32_t)_mm_cvtsi128_si32(one));
        memcpy(&blocks[b].d, &scale.d, sizeof scale.d);
        if (scale.inverse == 0.0f) {
            memset(blocks[b].q, 0, sizeof blocks[b].q);
            continue;
        }
        __m256i q[4];
        for (int i = 0; i < 4; i++) {
            __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(scale.inverse));
            scaled = _mm256_min_ps(_mm256_max_ps(scaled, _mm256_set1_ps(-127.0f)), _mm256_set1_ps(127.0f));
            q[i] = _mm256_cvtps_epi32(scaled);
        }
        __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(void *)blocks[b].q, packed);
    }
}

void sl_avx2_store_kv(const float *x, uint32_t n, sl_kv_type kv_type, void *out)
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
    for (; n - i >= 8; i += 8) {
        __m128i packed = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm_storeu_si128((__m128i *)(halves + i), packed);
    }
    for (; i < n; i++) {
        halves[i] = sl_f32_to_f16(x[i]);
    }
}

SL_ALWAYS_INLINE __m256 load8(const void *elements, size_t index, sl_kv_type kv_type)
{
    if (kv_type == SL_KV_F32) {
        return _mm256_loadu_ps((const float *)elements + index);
    }
    if (kv_type == SL_KV_Q8_0) {
        const sl_block_q8_0 *block = (const sl_block_q8_0 *)elements + index / SL_KV_BLOCK;
        __m128i codes = _mm_loadl_epi64((const __m128i *)(const void *)(block->q + index % SL_KV_BLOCK));
        return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)), _mm256_set1_ps(_cvtsh_ss(block->d)));
    }
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const uint16_t *)elements + index)));
}

/* The tree over 16 partials that continue with the elements from `first` on. */
SL_ALWAYS_INLINE float finish_dot(const sl_attention_task *task, sl_kv_type kv_type, const float *query, size_t key,
                                  uint32_t first, __m256 low, __m256 high)
{
    if (first == task->key_dim) {
        return sl_avx2_sum_tree(low, high);
    }
    float partial[SL_PARTIAL_SUMS];
    _mm256_storeu_ps(partial, low);
    _mm256_storeu_ps(partial + 8, high);
    for (uint32_t j = first; j < task->key_dim; j++) {
        partial[j - first] = fmaf(query[j], sl_kv_element(task->keys, key + j, kv_type), partial[j - first]);
    }
    return sl_sum_tree(partial);
}

/* Scores of n_queries queries at n_positions positions from `position` on; both counts are constants. */
SL_ALWAYS_INLINE void score_tile(const sl_attention_task *task, sl_kv_type kv_type, int n_queries, int n_positions,
                                 const float *queries, uint32_t position, float *scores)
{
    __m256 sums[GROUP][GROUP][2];
    for (int q = 0; q < n_queries; q++) {
        for (int p = 0; p < n_positions; p++) {
            sums[q][p][0] = _mm256_setzero_ps();
            sums[q][p][1] = _mm256_setzero_ps();
        }
    }
    size_t dim = task->key_dim;
    uint32_t whole = task->key_dim / SL_PARTIAL_SUMS * SL_PARTIAL_SUMS;
    for (uint32_t j = 0; j < whole; j += SL_PARTIAL_SUMS) {
        for (int p = 0; p < n_positions; p++) {
            size_t key = (position + (uint32_t)p) * dim + j;
            __m256 low = load8(task->keys, key, kv_type);
            __m256 high = load8(task->keys, key + 8, kv_type);
            for (int q = 0; q < n_queries; q++) {
                const float *query = queries + (size_t)q * dim + j;
                sums[q][p][0] = _mm256_fmadd_ps(_mm256_loadu_ps(query), low, sums[q][p][0]);
                sums[q][p][1] = _mm256_fmadd_ps(_mm256_loadu_ps(query + 8), high, sums[q][p][1]);
            }
        }
    }
    for (int q = 0; q < n_queries; q++) {
        for (int p = 0; p < n_positions; p++) {
            float dot = finish_dot(task, kv_type, queries + (size_t)q * dim, (position + (uint32_t)p) * dim, whole,
                                   sums[q][p][0], sums[q][p][1]);
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

/* out[q][d] for n_vectors * 8 dims from `dim` on; both counts are constants. */
SL_ALWAYS_INLINE void weigh_tile(const sl_attention_task *task, sl_kv_type kv_type, int n_queries, int n_vectors,
                                 uint32_t first, uint32_t begin, uint32_t end, uint32_t dim, const float *p, float *out)
{
    __m256 sums[GROUP][8];
    for (int q = 0; q < n_queries; q++) {
        for (int v = 0; v < n_vectors; v++) {
            sums[q][v] = _mm256_setzero_ps();
        }
    }
    for (uint32_t i = begin; i < end; i++) {
        size_t value = (size_t)(first + i) * task->value_dim + dim;
        __m256 weight[GROUP];
        for (int q = 0; q < n_queries; q++) {
            weight[q] = _mm256_set1_ps(p[q * SL_ATTENTION_CHUNK + i]);
        }
        for (int v = 0; v < n_vectors; v++) {
            __m256 values = load8(task->values, value + 8 * (size_t)v, kv_type);
            for (int q = 0; q < n_queries; q++) {
                sums[q][v] = _mm256_fmadd_ps(weight[q], values, sums[q][v]);
            }
        }
    }
    for (int q = 0; q < n_queries; q++) {
        for (int v = 0; v < n_vectors; v++) {
            _mm256_storeu_ps(out + (size_t)q * task->value_dim + dim + 8 * (size_t)v, sums[q][v]);
        }
    }
}

SL_ALWAYS_INLINE void weigh_values(const sl_attention_task *task, sl_kv_type kv_type, int n_queries, uint32_t first,
                                   uint32_t begin, uint32_t end, const float *p, float *out)
{
    const int n_vectors = 8 / n_queries;
    uint32_t dim = 0;
    for (; task->value_dim - dim >= 8 * (uint32_t)n_vectors; dim += 8 * (uint32_t)n_vectors) {
        weigh_tile(task, kv_type, n_queries, n_vectors, first, begin, end, dim, p, out);
    }
    for (; task->value_dim - dim >= 8; dim += 8) {
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

SL_ALWAYS_INLINE void exponentiate_scalar(float *scores, uint32_t begin, uint32_t end, float maximum, float *partial)
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
    uint32_t whole = (begin + SL_PARTIAL_SUMS - 1) / SL_PARTIAL_SUMS * SL_PARTIAL_SUMS;
    whole = whole < end ? whole : end;
    exponentiate_scalar(scores, begin, whole, maximum, partial);
    __m256 shift = _mm256_set1_ps(maximum);
    __m256 low = _mm256_loadu_ps(partial);
    __m256 high = _mm256_loadu_ps(partial + 8);
    uint32_t i = whole;
    for (; end - i >= SL_PARTIAL_SUMS; i += SL_PARTIAL_SUMS) {
        __m256 p_low = sl_avx2_exp(_mm256_sub_ps(_mm256_loadu_ps(scores + i), shift));
        __m256 p_high = sl_avx2_exp(_mm256_sub_ps(_mm256_loadu_ps(scores + i + 8), shift));
        low = _mm256_add_ps(low, p_low);
        high = _mm256_add_ps(high, p_high);
        _mm256_storeu_ps(scores + i, p_low);
        _mm256_storeu_ps(scores + i + 8, p_high);
    }
    _mm256_storeu_ps(partial, low);
    _mm256_storeu_ps(partial + 8, high);
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
    for (; value_dim - d >= 8; d += 8) {
        __m256 added = _mm256_mul_ps(_mm256_loadu_ps(chunk_out + d), _mm256_set1_ps(chunk_weight));
        __m256 sum = _mm256_fmadd_ps(_mm256_loadu_ps(out + d), _mm256_set1_ps(old_weight), added);
        _mm256_storeu_ps(out + d, sum);
    }
    for (; d < value_dim; d++) {
        out[d] = fmaf(out[d], old_weight, chunk_out[d] * chunk_weight);
    }
}

#include "kernels/attention_chunks.inc"

void sl_avx2_attention(const sl_attention_task *task)
{
    if (task->kv_type == SL_KV_F32) {
        attend(task, SL_KV_F32);
    } else if (task->kv_type == SL_KV_Q8_0) {
        attend(task, SL_KV_Q8_0);
    } else {
        attend(task, SL_KV_F16);
    }
}
