/* Matrix products with float weights: F32, F16, BF16.
 *
 * Owns: nothing; equals generic/matmul_float.c bit for bit.
 * Invariants:
 *   1. The 16 partial sums of one output are two vectors; column i goes to lane i mod 16, in column order.
 *   2. Columns after the last multiple of 16 change only their own lanes; the others keep their bits.
 *   3. No byte outside the rows is read: the last columns go through a buffer on the stack.
 * Threads: pure functions; any thread. */
#include <immintrin.h>
#include <string.h>

#include "kernels/generic/sums.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_math.h"

enum {
    DECODE_ROWS = 4, /* one token: eight independent chains of additions */
    TILE_ROWS = 2,   /* several tokens: twelve chains, ten loads for twelve multiply-adds */
    TILE_TOKENS = 3,
    WEIGHT_BYTES = 32 << 10 /* rows that stay in the first-level cache while all tokens pass */
};

typedef __m256 load8_fn(const uint8_t *weights);

SL_ALWAYS_INLINE __m256 load8_f32(const uint8_t *weights)
{
    return _mm256_loadu_ps((const float *)(const void *)weights);
}

SL_ALWAYS_INLINE __m256 load8_f16(const uint8_t *weights)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)weights));
}

SL_ALWAYS_INLINE __m256 load8_bf16(const uint8_t *weights)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)weights));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

/* What a tile reads and writes; row r and token t of the tile are row + r * row_bytes and x + t * x_stride. */
typedef struct matmul_tile {
    const uint8_t *row; /* borrowed */
    size_t row_bytes;
    const uint8_t *x; /* borrowed: float rows */
    size_t x_stride;
    uint32_t n_columns;
    float *out; /* borrowed */
    size_t out_stride;
} matmul_tile;

/* Lanes below n are all ones. */
SL_ALWAYS_INLINE __m256 first_lanes(int n)
{
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
}

SL_ALWAYS_INLINE void add_last_columns(load8_fn *load8, size_t element_bytes, const uint8_t *row, const float *x,
                                       uint32_t first, uint32_t n_left, __m256 sums[2])
{
    uint8_t last_weights[SL_PARTIAL_SUMS * sizeof(float)] = {0};
    float last_x[SL_PARTIAL_SUMS] = {0};
    memcpy(last_weights, row + first * element_bytes, n_left * element_bytes);
    memcpy(last_x, x + first, n_left * sizeof *x);
    for (int half = 0; half < 2; half++) {
        __m256 added = _mm256_fmadd_ps(load8(last_weights + (size_t)half * 8 * element_bytes),
                                       _mm256_loadu_ps(last_x + half * 8), sums[half]);
        sums[half] = _mm256_blendv_ps(sums[half], added, first_lanes((int)n_left - half * 8));
    }
}

SL_ALWAYS_INLINE void multiply_tile(load8_fn *load8, size_t element_bytes, int n_rows, int n_tokens,
                                    const matmul_tile *tile)
{
    __m256 sums[DECODE_ROWS][TILE_TOKENS][2];
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < n_tokens; t++) {
            sums[r][t][0] = _mm256_setzero_ps();
            sums[r][t][1] = _mm256_setzero_ps();
        }
    }
    uint32_t whole = tile->n_columns / SL_PARTIAL_SUMS * SL_PARTIAL_SUMS;
    for (uint32_t column = 0; column < whole; column += SL_PARTIAL_SUMS) {
        __m256 x[TILE_TOKENS][2];
        for (int t = 0; t < n_tokens; t++) {
            const float *token = (const float *)(const void *)(tile->x + t * tile->x_stride);
            x[t][0] = _mm256_loadu_ps(token + column);
            x[t][1] = _mm256_loadu_ps(token + column + 8);
        }
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *weights = tile->row + r * tile->row_bytes + column * element_bytes;
            __m256 low = load8(weights);
            __m256 high = load8(weights + 8 * element_bytes);
            for (int t = 0; t < n_tokens; t++) {
                sums[r][t][0] = _mm256_fmadd_ps(low, x[t][0], sums[r][t][0]);
                sums[r][t][1] = _mm256_fmadd_ps(high, x[t][1], sums[r][t][1]);
            }
        }
    }
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < n_tokens; t++) {
            if (whole != tile->n_columns) {
                add_last_columns(load8, element_bytes, tile->row + r * tile->row_bytes,
                                 (const float *)(const void *)(tile->x + t * tile->x_stride), whole,
                                 tile->n_columns - whole, sums[r][t]);
            }
            tile->out[t * tile->out_stride + (size_t)r] = sl_avx2_sum_tree(sums[r][t][0], sums[r][t][1]);
        }
    }
}

/* Rows [0, n_rows) of the tile with n_tokens of its tokens, at most TILE_TOKENS. */
SL_ALWAYS_INLINE void multiply_rows(load8_fn *load8, size_t element_bytes, uint32_t n_rows, int n_tokens, int step,
                                    matmul_tile tile)
{
    uint32_t r = 0;
    for (; n_rows - r >= (uint32_t)step; r += (uint32_t)step) {
        multiply_tile(load8, element_bytes, step, n_tokens, &tile);
        tile.row += (size_t)step * tile.row_bytes;
        tile.out += step;
    }
    for (; r < n_rows; r++) {
        multiply_tile(load8, element_bytes, 1, n_tokens, &tile);
        tile.row += tile.row_bytes;
        tile.out++;
    }
}

SL_ALWAYS_INLINE void multiply_matrix(load8_fn *load8, size_t element_bytes, matmul_tile all, uint32_t n_rows,
                                      uint32_t n_tokens)
{
    uint32_t group = all.row_bytes >= WEIGHT_BYTES / 8 ? 8 : (uint32_t)(WEIGHT_BYTES / (all.row_bytes + 1));
    for (uint32_t first = 0; first < n_rows; first += group) {
        uint32_t n = n_rows - first < group ? n_rows - first : group;
        for (uint32_t t = 0; t < n_tokens; t += TILE_TOKENS) {
            matmul_tile tile = all;
            tile.row += first * all.row_bytes;
            tile.x += t * all.x_stride;
            tile.out += t * all.out_stride + first;
            switch (n_tokens - t) {
            case 1: multiply_rows(load8, element_bytes, n, 1, DECODE_ROWS, tile); break;
            case 2: multiply_rows(load8, element_bytes, n, 2, TILE_ROWS, tile); break;
            default: multiply_rows(load8, element_bytes, n, TILE_TOKENS, TILE_ROWS, tile); break;
            }
        }
    }
}

#define DEFINE_MATMUL(type, element_bytes)                                                                             \
    void sl_avx2_matmul_##type(const void *weights, size_t row_bytes, uint32_t n_columns, uint32_t first_row,          \
                               uint32_t end_row, const void *activations, size_t activation_stride, uint32_t n_tokens, \
                               float *out, size_t out_stride)                                                          \
    {                                                                                                                  \
        if (first_row >= end_row) {                                                                                    \
            return;                                                                                                    \
        }                                                                                                              \
        matmul_tile all = {(const uint8_t *)weights + first_row * row_bytes,                                           \
                           row_bytes,                                                                                  \
                           activations,                                                                                \
                           activation_stride,                                                                          \
                           n_columns,                                                                                  \
                           out + first_row,                                                                            \
                           out_stride};                                                                                \
        multiply_matrix(load8_##type, element_bytes, all, end_row - first_row, n_tokens);                              \
    }

DEFINE_MATMUL(f32, 4)
DEFINE_MATMUL(f16, 2)
DEFINE_MATMUL(bf16, 2)
