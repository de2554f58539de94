/* Attention for several queries at once.
 *
 * Owns: nothing; equals generic/attention.c bit for bit.
 *
 * Keys are turned, so that a vector holds one element of sixteen positions. A lane then is a position: its sixteen partial
 * sums are computed one after the other, in the order in which the tree wants them, and nothing crosses lanes. If more than
 * one subset of queries reads a chunk, its keys are turned and its values made floats once for all; for one subset a few
 * keys at a time are turned, which stay in the first-level cache.
 *
 * Invariants:
 *   1. Up to SUBSET queries, of one token or several, share each key and value. Each keeps its own order of terms.
 *   2. A position that a query does not see is masked: it is not computed with zero, it is not computed.
 *   3. The scratch holds, in this order: turned keys, values, rows on their way, the queries of a subset, scores, and per
 *      query its maximum and sum so far.
 * Threads: pure functions; any thread. The scratch is private to the caller. */
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_tile.h"
#include "quant/blocks.h"

enum {
    LANES = 16,
    SUBSET = 8,      /* queries computed side by side */
    TREE_LEVELS = 4, /* of 16 partial sums */
    AHEAD_GROUPS = 4 /* of LANES keys: how far keys are prefetched */
};

/* What a query has gathered from the chunks so far. */
typedef struct query_state {
    float maximum;
    float sum;
} query_state;

/* A task, where its scratch is, and the chunk at hand. */
typedef struct attention_pass {
    const sl_attention_task *task;
    size_t padded_key, padded_value; /* floats of a row, in whole vectors */
    uint32_t n_queries;              /* of all tokens */
    bool is_prepared;                /* keys and values hold the chunk; else keys hold what is scored next */
    uint32_t first;                  /* position at which the chunk begins */
    uint32_t begin, end;             /* positions of the chunk that some token sees */
    float *keys;                     /* [chunk / LANES][slot of element][LANES] */
    float *values;                   /* [chunk][padded_value] */
    float *rows;                     /* [LANES][padded_key] */
    float *queries;                  /* [slot of element][queries of the subset] */
    float *scores;                   /* [SUBSET][chunk] */
    query_state *states;
} attention_pass;

/* A query of the subset and what it sees of the chunk. */
typedef struct query_view {
    const float *query;
    float *out;
    uint32_t begin, end; /* equal: nothing */
    bool is_first;       /* its first chunk */
    float old_weight, chunk_weight;
} query_view;

/* Partial i is computed as number reversed[i]: so the tree always adds the two that were completed last. */
static const uint8_t reversed[LANES] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};

/* Where element j of a key or query lies, so that partial sums read one after the other. */
SL_ALWAYS_INLINE size_t slot_of(size_t j, size_t padded_key)
{
    return reversed[j % LANES] * (padded_key / LANES) + j / LANES;
}

SL_ALWAYS_INLINE __mmask16 lanes_below(uint32_t n)
{
    return n >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1);
}

/* LANES elements from `index` on of a row, those outside the mask 0. Rows of blocks have no use for a mask. */
SL_ALWAYS_INLINE __m512 load_masked(const void *row, size_t index, sl_kv_type kv_type, __mmask16 mask)
{
    if (kv_type == SL_KV_F32) {
        return _mm512_maskz_loadu_ps(mask, (const float *)row + index);
    }
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)row + index));
}

SL_ALWAYS_INLINE __m512 load_whole(const void *row, size_t index, sl_kv_type kv_type)
{
    if (kv_type == SL_KV_F32) {
        return _mm512_loadu_ps((const float *)row + index);
    }
    if (kv_type == SL_KV_Q8_0) {
        const sl_block_q8_0 *block = (const sl_block_q8_0 *)row + index / SL_KV_BLOCK;
        __m512i q = _mm512_cvtepi8_epi32(sl_tile_load16((const uint8_t *)block->q + index % SL_KV_BLOCK));
        return _mm512_mul_ps(_mm512_cvtepi32_ps(q), _mm512_set1_ps(_cvtsh_ss(block->d)));
    }
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)row + index)));
}

SL_ALWAYS_INLINE void row_to_floats(const void *row, uint32_t dim, sl_kv_type kv_type, float *out)
{
    uint32_t j = 0;
    for (; dim - j >= LANES; j += LANES) {
        _mm512_storeu_ps(out + j, load_whole(row, j, kv_type));
    }
    if (j < dim) {
        _mm512_storeu_ps(out + j, load_masked(row, j, kv_type, lanes_below(dim - j)));
    }
}

SL_ALWAYS_INLINE const void *row_at(const void *rows, size_t position, uint32_t dim, sl_kv_type kv_type)
{
    return (const char *)rows + position * sl_kv_row_bytes(kv_type, dim);
}

/* The lines of a row of the chunk, unless no token sees it. */
SL_ALWAYS_INLINE void prefetch_row(const attention_pass *pass, const void *rows, uint32_t position, uint32_t dim,
                                   sl_kv_type kv_type)
{
    const char *row = row_at(rows, pass->first + position, dim, kv_type);
    const size_t row_bytes = sl_kv_row_bytes(kv_type, dim);
    for (size_t offset = 0; position < pass->end && offset < row_bytes; offset += 64) {
        _mm_prefetch(row + offset, _MM_HINT_T1);
    }
}

/* The LANES keys from `position` of the chunk on; those that no token sees become 0. Unless the whole
 * chunk is prepared at once, keys that come later are asked for, and values, which are weighed after all scores. */
SL_ALWAYS_INLINE void turn_group(const attention_pass *pass, sl_kv_type kv_type, uint32_t position, float *out)
{
    const sl_attention_task *task = pass->task;
    const uint8_t *rows[LANES];
    for (uint32_t r = 0; r < LANES; r++) {
        float *floats = pass->rows + r * pass->padded_key;
        rows[r] = (const uint8_t *)floats;
        if (!pass->is_prepared) {
            prefetch_row(pass, task->keys, position + AHEAD_GROUPS * LANES + r, task->key_dim, kv_type);
            prefetch_row(pass, task->values, position + r, task->value_dim, kv_type);
        }
        if (position + r < pass->begin || position + r >= pass->end) {
            memset(floats, 0, pass->padded_key * sizeof *floats);
        } else {
            row_to_floats(row_at(task->keys, pass->first + position + r, task->key_dim, kv_type), task->key_dim,
                          kv_type, floats);
        }
    }
    for (size_t j = 0; j < pass->padded_key; j += 4) {
        sl_lanes words[4];
        sl_tile_words(rows, j * sizeof(float), words);
        for (size_t k = 0; k < 4; k++) {
            _mm512_storeu_si512(out + slot_of(j + k, pass->padded_key) * LANES, (__m512i)words[k]);
        }
    }
}

SL_ALWAYS_INLINE void turn_keys(const attention_pass *pass, sl_kv_type kv_type)
{
    for (uint32_t position = pass->begin / LANES * LANES; position < pass->end; position += LANES) {
        turn_group(pass, kv_type, position, pass->keys + position * pass->padded_key);
    }
}

SL_ALWAYS_INLINE void turn_values(const attention_pass *pass, sl_kv_type kv_type)
{
    const sl_attention_task *task = pass->task;
    for (uint32_t i = pass->begin; i < pass->end; i++) {
        row_to_floats(row_at(task->values, pass->first + i, task->value_dim, kv_type), task->value_dim, kv_type,
                      pass->values + i * pass->padded_value);
    }
}

/* Scores of n_queries queries at n_groups groups of LANES positions; both counts are constants. */
SL_ALWAYS_INLINE void score_tile(const attention_pass *pass, int n_queries, int n_groups, const float *turned,
                                 uint32_t position)
{
    __m512 pending[TREE_LEVELS + 1][SUBSET][2];
    const size_t group_floats = LANES * pass->padded_key;
    const size_t partial_slots = pass->padded_key / LANES;
    for (uint32_t n = 0; n < LANES; n++) {
        const float *keys = turned + n * partial_slots * LANES;
        const float *queries = pass->queries + n * partial_slots * (size_t)n_queries;
        uint32_t n_terms = (pass->task->key_dim + LANES - 1 - reversed[n]) / LANES;
        __m512 sums[SUBSET][2];
        for (int q = 0; q < n_queries; q++) {
            for (int g = 0; g < n_groups; g++) {
                sums[q][g] = _mm512_setzero_ps();
            }
        }
        for (uint32_t term = 0; term < n_terms; term++) {
            __m512 key[2];
            for (int g = 0; g < n_groups; g++) {
                key[g] = _mm512_loadu_ps(keys + (size_t)g * group_floats + term * LANES);
            }
            for (int q = 0; q < n_queries; q++) {
                __m512 query = _mm512_set1_ps(queries[term * (size_t)n_queries + (size_t)q]);
                for (int g = 0; g < n_groups; g++) {
                    sums[q][g] = _mm512_fmadd_ps(query, key[g], sums[q][g]);
                }
            }
        }
        uint32_t level = 0;
        for (; ((n >> level) & 1) != 0; level++) {
            for (int q = 0; q < n_queries; q++) {
                for (int g = 0; g < n_groups; g++) {
                    sums[q][g] = _mm512_add_ps(pending[level][q][g], sums[q][g]);
                }
            }
        }
        for (int q = 0; q < n_queries; q++) {
            for (int g = 0; g < n_groups; g++) {
                pending[level][q][g] = sums[q][g];
            }
        }
    }
    const __m512 scale = _mm512_set1_ps(pass->task->scale);
    for (int q = 0; q < n_queries; q++) {
        for (int g = 0; g < n_groups; g++) {
            _mm512_storeu_ps(pass->scores + q * SL_ATTENTION_CHUNK + position + g * LANES,
                             _mm512_mul_ps(scale, pending[TREE_LEVELS][q][g]));
        }
    }
}

/* Scores become p = exp(score - maximum); returns their sum. */
static float exponentiate(float *scores, uint32_t begin, uint32_t end, float *maximum_out)
{
    uint32_t start = begin / LANES * LANES;
    __m512 largest = _mm512_set1_ps(-INFINITY);
    for (uint32_t i = start; i < end; i += LANES) {
        __mmask16 seen = lanes_below(end - i) & (i < begin ? (__mmask16)~lanes_below(begin - i) : (__mmask16)0xffff);
        __m512 score = _mm512_loadu_ps(scores + i);
        largest = _mm512_mask_max_ps(largest, seen, score, largest); /* a NaN score leaves it */
    }
    float maximum = _mm512_reduce_max_ps(largest);
    __m512 shift = _mm512_set1_ps(maximum);
    __m512 sum = _mm512_setzero_ps();
    for (uint32_t i = start; i < end; i += LANES) {
        __mmask16 seen = lanes_below(end - i) & (i < begin ? (__mmask16)~lanes_below(begin - i) : (__mmask16)0xffff);
        __m512 p = sl_avx512_exp(_mm512_sub_ps(_mm512_loadu_ps(scores + i), shift));
        sum = _mm512_mask_add_ps(sum, seen, sum, p);
        _mm512_storeu_ps(scores + i, p);
    }
    *maximum_out = maximum;
    return sl_avx2_sum_tree(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
}

/* Adds positions [from, to) to the sums; both counts and whether positions are masked are constants. */
SL_ALWAYS_INLINE void weigh_span(const attention_pass *pass, sl_kv_type kv_type, const char *values, size_t row_bytes,
                                 int n_queries, int n_vectors, bool is_masked, uint32_t from, uint32_t to, uint32_t dim,
                                 const query_view *views, __m512 sums[SUBSET][8])
{
    for (uint32_t i = from; i < to; i++) {
        __m512 value[8];
        for (int v = 0; v < n_vectors; v++) {
            value[v] = load_whole(values + i * row_bytes, dim + LANES * (size_t)v, kv_type);
        }
        for (int q = 0; q < n_queries; q++) {
            __m512 weight = _mm512_set1_ps(pass->scores[q * SL_ATTENTION_CHUNK + (int)i]);
            __mmask16 seen = i >= views[q].begin && i < views[q].end ? (__mmask16)0xffff : (__mmask16)0;
            for (int v = 0; v < n_vectors; v++) {
                sums[q][v] = is_masked ? _mm512_mask3_fmadd_ps(weight, value[v], sums[q][v], seen)
                                       : _mm512_fmadd_ps(weight, value[v], sums[q][v]);
            }
        }
    }
}

/* The chunk's part of n_vectors vectors of the outputs from `dim` on, merged into them. */
SL_ALWAYS_INLINE void weigh_tile(const attention_pass *pass, sl_kv_type kv_type, const char *values, size_t row_bytes,
                                 int n_queries, int n_vectors, uint32_t dim, const query_view *views)
{
    uint32_t low = SL_ATTENTION_CHUNK;
    uint32_t high = 0;
    uint32_t common_begin = 0;
    uint32_t common_end = SL_ATTENTION_CHUNK;
    __m512 sums[SUBSET][8];
    for (int q = 0; q < n_queries; q++) {
        low = views[q].begin < low ? views[q].begin : low;
        high = views[q].end > high ? views[q].end : high;
        common_begin = views[q].begin > common_begin ? views[q].begin : common_begin;
        common_end = views[q].end < common_end ? views[q].end : common_end;
        for (int v = 0; v < n_vectors; v++) {
            sums[q][v] = _mm512_setzero_ps();
        }
    }
    if (common_begin >= common_end) {
        common_begin = high;
        common_end = high;
    }
    weigh_span(pass, kv_type, values, row_bytes, n_queries, n_vectors, true, low, common_begin, dim, views, sums);
    weigh_span(pass, kv_type, values, row_bytes, n_queries, n_vectors, false, common_begin, common_end, dim, views,
               sums);
    weigh_span(pass, kv_type, values, row_bytes, n_queries, n_vectors, true, common_end, high, dim, views, sums);
    for (int q = 0; q < n_queries; q++) {
        for (int v = 0; v < n_vectors && views[q].begin < views[q].end; v++) {
            float *out = views[q].out + dim + LANES * (size_t)v;
            __mmask16 mask = lanes_below(pass->task->value_dim - dim - LANES * (uint32_t)v);
            __m512 merged = sums[q][v];
            if (!views[q].is_first) {
                merged = _mm512_mul_ps(merged, _mm512_set1_ps(views[q].chunk_weight));
                merged = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, out), _mm512_set1_ps(views[q].old_weight), merged);
            }
            _mm512_mask_storeu_ps(out, mask, merged);
        }
    }
}

SL_ALWAYS_INLINE void weigh_values(const attention_pass *pass, sl_kv_type kv_type, const char *values, size_t row_bytes,
                                   int n_queries, const query_view *views)
{
    const int n_vectors = n_queries == SUBSET ? 2 : 4;
    uint32_t dim = 0;
    for (; dim + LANES * (uint32_t)n_vectors <= pass->padded_value; dim += LANES * (uint32_t)n_vectors) {
        weigh_tile(pass, kv_type, values, row_bytes, n_queries, n_vectors, dim, views);
    }
    for (; dim < pass->padded_value; dim += LANES) {
        weigh_tile(pass, kv_type, values, row_bytes, n_queries, 1, dim, views);
    }
}

/* Query number `query` of the task, its tokens one after the other. */
static query_view view_of(const attention_pass *pass, uint32_t query)
{
    const sl_attention_task *task = pass->task;
    uint32_t token = query / task->n_queries;
    size_t head = query % task->n_queries;
    uint32_t end = task->n_positions + token;
    uint32_t begin = sl_attention_first_position(task, end);
    query_view view = {.query = task->queries + token * task->query_stride + head * task->key_dim,
                       .out = task->out + token * task->out_stride + head * task->value_dim,
                       .is_first = begin / SL_ATTENTION_CHUNK * SL_ATTENTION_CHUNK == pass->first};
    if (end > pass->first && begin < pass->first + SL_ATTENTION_CHUNK) {
        view.begin = begin > pass->first ? begin - pass->first : 0;
        view.end = end - pass->first < SL_ATTENTION_CHUNK ? end - pass->first : SL_ATTENTION_CHUNK;
    }
    return view;
}

/* Turns a query's scores into weights and takes their sum into its state. */
static void weigh_scores(float *scores, query_state *state, query_view *view)
{
    if (view->begin == view->end) {
        return;
    }
    float maximum = 0.0f;
    float sum = exponentiate(scores, view->begin, view->end, &maximum);
    if (view->is_first) {
        *state = (query_state){maximum, sum};
        return;
    }
    float merged = maximum > state->maximum ? maximum : state->maximum;
    view->old_weight = sl_exp(state->maximum - merged);
    view->chunk_weight = sl_exp(maximum - merged);
    *state = (query_state){merged, fmaf(state->sum, view->old_weight, sum * view->chunk_weight)};
}

/* The elements of the subset's queries in the order of slots. */
SL_ALWAYS_INLINE void gather_queries(const attention_pass *pass, int n_queries, const query_view views[SUBSET])
{
    for (uint32_t i = 0; i < LANES; i++) {
        float *slot = pass->queries + slot_of(i, pass->padded_key) * (size_t)n_queries;
        for (uint32_t j = i; j < pass->task->key_dim; j += LANES, slot += n_queries) {
            for (int q = 0; q < n_queries; q++) {
                slot[q] = views[q].query[j];
            }
        }
    }
}

/* The chunk for n_queries queries (1, 2, 4 or SUBSET) from `query` on. */
SL_ALWAYS_INLINE void attend_subset(const attention_pass *pass, sl_kv_type kv_type, int n_queries, uint32_t query)
{
    query_view views[SUBSET];
    uint32_t low = SL_ATTENTION_CHUNK;
    uint32_t high = 0;
    for (int q = 0; q < n_queries; q++) {
        views[q] = view_of(pass, query + (uint32_t)q);
        if (views[q].begin < views[q].end) {
            low = views[q].begin < low ? views[q].begin : low;
            high = views[q].end > high ? views[q].end : high;
        }
    }
    if (low >= high) {
        return;
    }
    gather_queries(pass, n_queries, views);
    for (uint32_t position = low / LANES * LANES; position < high; position += 2 * LANES) {
        bool is_last = position + LANES >= high;
        const float *turned = pass->keys;
        if (pass->is_prepared) {
            turned += position * pass->padded_key;
        } else {
            turn_group(pass, kv_type, position, pass->keys);
            if (!is_last) {
                turn_group(pass, kv_type, position + LANES, pass->keys + LANES * pass->padded_key);
            }
        }
        if (is_last) {
            score_tile(pass, n_queries, 1, turned, position);
        } else {
            score_tile(pass, n_queries, 2, turned, position);
        }
    }
    for (int q = 0; q < n_queries; q++) {
        weigh_scores(pass->scores + q * SL_ATTENTION_CHUNK, &pass->states[query + (uint32_t)q], &views[q]);
    }
    const sl_attention_task *task = pass->task;
    if (pass->is_prepared) {
        weigh_values(pass, SL_KV_F32, (const char *)pass->values, pass->padded_value * sizeof(float), n_queries, views);
    } else {
        weigh_values(pass, kv_type, row_at(task->values, pass->first, task->value_dim, kv_type),
                     sl_kv_row_bytes(kv_type, task->value_dim), n_queries, views);
    }
}

SL_ALWAYS_INLINE void attend_chunk(const attention_pass *pass, sl_kv_type kv_type)
{
    if (pass->is_prepared) {
        turn_keys(pass, kv_type);
        turn_values(pass, kv_type);
    }
    uint32_t query = 0;
    for (; pass->n_queries - query >= SUBSET; query += SUBSET) {
        attend_subset(pass, kv_type, SUBSET, query);
    }
    for (; pass->n_queries - query >= 4; query += 4) {
        attend_subset(pass, kv_type, 4, query);
    }
    for (; pass->n_queries - query >= 1; query += 1) {
        attend_subset(pass, kv_type, 1, query);
    }
}

static void divide_by_sums(const attention_pass *pass)
{
    const sl_attention_task *task = pass->task;
    for (uint32_t query = 0; query < pass->n_queries; query++) {
        float *out = task->out + query / task->n_queries * task->out_stride +
                     (size_t)(query % task->n_queries) * task->value_dim;
        __m512 sum = _mm512_set1_ps(pass->states[query].sum);
        for (uint32_t d = 0; d < task->value_dim; d += LANES) {
            __mmask16 mask = lanes_below(task->value_dim - d);
            _mm512_mask_storeu_ps(out + d, mask, _mm512_div_ps(_mm512_maskz_loadu_ps(mask, out + d), sum));
        }
    }
}

SL_ALWAYS_INLINE void attend(const sl_attention_task *task, sl_kv_type kv_type)
{
    attention_pass pass = {.task = task,
                           .padded_key = ((size_t)task->key_dim + LANES - 1) / LANES * LANES,
                           .padded_value = ((size_t)task->value_dim + LANES - 1) / LANES * LANES,
                           .n_queries = task->n_tokens * task->n_queries};
    bool is_one_subset = pass.n_queries == SUBSET || pass.n_queries == 4 || pass.n_queries == 1;
    pass.is_prepared = !is_one_subset || pass.padded_value != task->value_dim;
    pass.keys = task->scratch;
    pass.values = pass.keys + SL_ATTENTION_CHUNK * pass.padded_key;
    pass.rows = pass.values + SL_ATTENTION_CHUNK * pass.padded_value;
    pass.queries = pass.rows + LANES * pass.padded_key;
    pass.scores = pass.queries + SUBSET * pass.padded_key;
    pass.states = (query_state *)(void *)(pass.scores + SUBSET * SL_ATTENTION_CHUNK);
    uint32_t begin = sl_attention_first_position(task, task->n_positions);
    uint32_t end = task->n_positions + task->n_tokens - 1;
    pass.first = begin / SL_ATTENTION_CHUNK * SL_ATTENTION_CHUNK;
    for (; pass.first < end; pass.first += SL_ATTENTION_CHUNK) {
        pass.begin = begin > pass.first ? begin - pass.first : 0;
        pass.end = end - pass.first < SL_ATTENTION_CHUNK ? end - pass.first : SL_ATTENTION_CHUNK;
        attend_chunk(&pass, kv_type);
    }
    divide_by_sums(&pass);
}

void sl_avx512_attention(const sl_attention_task *task)
{
    if (task->n_tokens * task->n_queries < SL_AVX512_ATTENTION_QUERIES) {
        sl_avx2_attention(task);
    } else if (task->kv_type == SL_KV_F32) {
        attend(task, SL_KV_F32);
    } else if (task->kv_type == SL_KV_Q8_0) {
        attend(task, SL_KV_Q8_0);
    } else {
        attend(task, SL_KV_F16);
    }
}
