/* Storing keys and values, and attention over them in chunks of fixed size.
 *
 * Owns: the definition of both.
 * Invariants:
 *   1. A chunk covers SL_ATTENTION_CHUNK positions that start at a multiple of it; its result depends on the query and
 * on the positions in it alone, so what was computed for a short context stays true as the context grows.
 *   2. Positions that a token does not see take no part in its result; those that no token of the task sees are not
 * read.
 *   3. A NaN score, or a chunk whose scores are all -infinity, makes the outputs of that query NaN.
 * Threads: pure functions; any thread. The scratch is private to the caller. */
#include "kernels/generic/generic.h"
#include "kernels/generic/kv.h"
#include "kernels/generic/math.h"
#include "kernels/generic/quantize.h"
#include "kernels/generic/sums.h"
#include "quant/blocks.h"
#include "quant/half.h"

_Static_assert(sizeof(sl_block_q8_0) == SL_KV_BLOCK_BYTES, "a cached block is that of files");

#include <string.h>

static void store_q8_0(const float *x, uint32_t n, sl_block_q8_0 *blocks)
{
    for (uint32_t b = 0; b < n / SL_KV_BLOCK; b++, x += SL_KV_BLOCK) {
        uint32_t largest = 0;
        for (uint32_t i = 0; i < SL_KV_BLOCK; i++) {
            uint32_t magnitude = sl_float_bits(x[i]) & UINT32_C(0x7fffffff);
            largest = magnitude > largest ? magnitude : largest;
        }
        sl_kv_scale scale = sl_kv_scale_of(largest);
        memcpy(&blocks[b].d, &scale.d, sizeof scale.d);
        for (uint32_t i = 0; i < SL_KV_BLOCK; i++) {
            float q = scale.inverse == 0.0f ? 0.0f : x[i] * scale.inverse;
            q = q < -127.0f ? -127.0f : q > 127.0f ? 127.0f : q;
            /* Adding 1.5 * 2^23 rounds to the nearest integer, ties to even. */
            blocks[b].q[i] = (int8_t)(int32_t)((q + 0x1.8p+23f) - 0x1.8p+23f);
        }
    }
}

void sl_generic_store_kv(const float *x, uint32_t n, sl_kv_type kv_type, void *out)
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
    for (uint32_t i = 0; i < n; i++) {
        halves[i] = sl_f32_to_f16(x[i]);
    }
}

enum { TILE_QUERIES = 128, SUBSET_QUERIES = 8 };

uint32_t sl_attention_tile_tokens(uint32_t n_queries)
{
    return n_queries >= TILE_QUERIES ? 1 : TILE_QUERIES / n_queries;
}

/* A chunk of keys and values as floats, some rows on their way there, the queries that are computed side by side with
 * their scores and sums, and for every query its maximum and sum so far. */
size_t sl_attention_scratch_floats(uint32_t n_queries, uint32_t key_dim, uint32_t value_dim)
{
    size_t padded_key = ((size_t)key_dim + 15) / 16 * 16;
    size_t padded_value = ((size_t)value_dim + 15) / 16 * 16;
    size_t n_states = (size_t)n_queries * sl_attention_tile_tokens(n_queries);
    return SL_ATTENTION_CHUNK * (padded_key + padded_value) + 16 * padded_key +
           SUBSET_QUERIES * (padded_key + SL_ATTENTION_CHUNK + padded_value) + (2 * n_states + 15) / 16 * 16;
}

/* Scores of one query over positions [begin, end) of the chunk at `first`; returns their maximum. */
static float score_chunk(const sl_attention_task *task, const float *query, uint32_t first, uint32_t begin,
                         uint32_t end, float *scores)
{
    float maximum = -INFINITY;
    for (uint32_t i = begin; i < end; i++) {
        size_t key = (size_t)(first + i) * task->key_dim;
        float partial[SL_PARTIAL_SUMS] = {0};
        for (uint32_t j = 0; j < task->key_dim; j++) {
            float *sum = &partial[j % SL_PARTIAL_SUMS];
            *sum = fmaf(query[j], sl_kv_element(task->keys, key + j, task->kv_type), *sum);
        }
        scores[i] = task->scale * sl_sum_tree(partial);
        maximum = scores[i] > maximum ? scores[i] : maximum;
    }
    return maximum;
}

/* Turns scores into p in place and returns their sum; chunk_out receives the weighted values. */
static float weigh_chunk(const sl_attention_task *task, uint32_t first, uint32_t begin, uint32_t end, float maximum,
                         float *scores, float *chunk_out)
{
    float partial[SL_PARTIAL_SUMS] = {0};
    for (uint32_t i = begin; i < end; i++) {
        scores[i] = sl_exp(scores[i] - maximum);
        partial[i % SL_PARTIAL_SUMS] += scores[i];
    }
    memset(chunk_out, 0, task->value_dim * sizeof *chunk_out);
    for (uint32_t i = begin; i < end; i++) {
        size_t value = (size_t)(first + i) * task->value_dim;
        for (uint32_t d = 0; d < task->value_dim; d++) {
            chunk_out[d] = fmaf(scores[i], sl_kv_element(task->values, value + d, task->kv_type), chunk_out[d]);
        }
    }
    return sl_sum_tree(partial);
}

/* One query over the positions [begin, end). */
static void attend(const sl_attention_task *task, uint32_t begin, uint32_t end, const float *query, float *out)
{
    float *scores = task->scratch;
    float *chunk_out = task->scratch + SL_ATTENTION_CHUNK;
    float maximum = 0.0f;
    float sum = 0.0f;
    uint32_t start = begin / SL_ATTENTION_CHUNK * SL_ATTENTION_CHUNK;
    for (uint32_t first = start; first < end; first += SL_ATTENTION_CHUNK) {
        uint32_t from = begin > first ? begin - first : 0;
        uint32_t to = end - first < SL_ATTENTION_CHUNK ? end - first : SL_ATTENTION_CHUNK;
        float chunk_maximum = score_chunk(task, query, first, from, to, scores);
        float chunk_sum = weigh_chunk(task, first, from, to, chunk_maximum, scores, chunk_out);
        if (first == start) {
            maximum = chunk_maximum;
            sum = chunk_sum;
            memcpy(out, chunk_out, task->value_dim * sizeof *out);
            continue;
        }
        float merged = chunk_maximum > maximum ? chunk_maximum : maximum;
        float old_weight = sl_exp(maximum - merged);
        float chunk_weight = sl_exp(chunk_maximum - merged);
        sum = fmaf(sum, old_weight, chunk_sum * chunk_weight);
        for (uint32_t d = 0; d < task->value_dim; d++) {
            out[d] = fmaf(out[d], old_weight, chunk_out[d] * chunk_weight);
        }
        maximum = merged;
    }
    for (uint32_t d = 0; d < task->value_dim; d++) {
        out[d] /= sum;
    }
}

void sl_generic_attention(const sl_attention_task *task)
{
    for (uint32_t t = 0; t < task->n_tokens; t++) {
        uint32_t end = task->n_positions + t;
        uint32_t begin = sl_attention_first_position(task, end);
        for (uint32_t q = 0; q < task->n_queries; q++) {
            attend(task, begin, end, task->queries + t * task->query_stride + (size_t)q * task->key_dim,
                   task->out + t * task->out_stride + (size_t)q * task->value_dim);
        }
    }
}
