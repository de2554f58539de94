/* Matrix products with float weights: F32, F16, BF16.
 *
 * Owns: nothing; equals generic/matmul_float.c bit for bit.
 * Invariants:
 *   1. The 16 partial sums of one output are four vectors; column i goes to partial i mod 16, in column order.
 *   2. Columns after the last multiple of 16 change only their own lanes; the others keep their bits.
 *   3. No byte outside the rows is read: the last columns go through a buffer on the stack.
 *   4. Weights are loaded as bytes: they may start at any address.
 * Threads: pure functions; any thread. */
#include <string.h>

#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"
#include "kernels/generic/sums.h"

enum {
    DECODE_ROWS = 4, /* one token: sixteen independent chains of additions */
    TILE_ROWS = 2,   /* several tokens: 24 chains in the 32 registers */
    TILE_TOKENS = 3,
    WEIGHT_BYTES = 32 << 10 /* rows that stay in the first-level cache while all tokens pass */
};

typedef float32x4_t load4_fn(const uint8_t *weights);

SL_ALWAYS_INLINE float32x4_t load4_f32(const uint8_t *weights)
{
    return vreinterpretq_f32_u8(vld1q_u8(weights));
}

SL_ALWAYS_INLINE float32x4_t load4_f16(const uint8_t *weights)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(weights)));
}

SL_ALWAYS_INLINE float32x4_t load4_bf16(const uint8_t *weights)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(weights)), 16));
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

SL_ALWAYS_INLINE void add_last_columns(load4_fn *load4, size_t element_bytes, const uint8_t *row, const float *x,
                                       uint32_t first, uint32_t n_left, float32x4_t sums[SL_NEON_VECTORS])
{
    static const uint32_t lane_numbers[4] = {0, 1, 2, 3};
    uint8_t last_weights[SL_PARTIAL_SUMS * sizeof(float)] = {0};
    float last_x[SL_PARTIAL_SUMS] = {0};
    memcpy(last_weights, row + first * element_bytes, n_left * element_bytes);
    memcpy(last_x, x + first, n_left * sizeof *x);
    for (uint32_t v = 0; v < SL_NEON_VECTORS; v++) {
        float32x4_t weights = load4(last_weights + 4 * v * element_bytes);
        float32x4_t added = vfmaq_f32(sums[v], weights, vld1q_f32(last_x + 4 * v));
        uint32x4_t index = vaddq_u32(vld1q_u32(lane_numbers), vdupq_n_u32(4 * v));
        sums[v] = vbslq_f32(vcltq_u32(index, vdupq_n_u32(n_left)), added, sums[v]);
    }
}

SL_ALWAYS_INLINE const float *token_of(const matmul_tile *tile, int t)
{
    return (const float *)(const void *)(tile->x + (size_t)t * tile->x_stride);
}

SL_ALWAYS_INLINE void multiply_tile(load4_fn *load4, size_t element_bytes, int n_rows, int n_tokens,
                                    const matmul_tile *tile)
{
    float32x4_t sums[DECODE_ROWS][TILE_TOKENS][SL_NEON_VECTORS];
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < n_tokens; t++) {
            for (int v = 0; v < SL_NEON_VECTORS; v++) {
                sums[r][t][v] = vdupq_n_f32(0.0f);
            }
        }
    }
    uint32_t whole = tile->n_columns / SL_PARTIAL_SUMS * SL_PARTIAL_SUMS;
    for (uint32_t column = 0; column < whole; column += SL_PARTIAL_SUMS) {
        for (uint32_t v = 0; v < SL_NEON_VECTORS; v++) {
            float32x4_t x[TILE_TOKENS];
            for (int t = 0; t < n_tokens; t++) {
                x[t] = vld1q_f32(token_of(tile, t) + column + 4 * v);
            }
            for (int r = 0; r < n_rows; r++) {
                float32x4_t weights = load4(tile->row + (size_t)r * tile->row_bytes + (column + 4 * v) * element_bytes);
                for (int t = 0; t < n_tokens; t++) {
                    sums[r][t][v] = vfmaq_f32(sums[r][t][v], weights, x[t]);
                }
            }
        }
    }
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < n_tokens; t++) {
            if (whole != tile->n_columns) {
                add_last_columns(load4, element_bytes, tile->row + (size_t)r * tile->row_bytes, token_of(tile, t),
                                 whole, tile->n_columns - whole, sums[r][t]);
            }
            tile->out[(size_t)t * tile->out_stride + (size_t)r] = sl_neon_sum_tree(sums[r][t]);
        }
    }
}

/* Rows [0, n_rows) of the tile with n_tokens of its tokens, at most TILE_TOKENS. */
SL_ALWAYS_INLINE void multiply_rows(load4_fn *load4, size_t element_bytes, uint32_t n_rows, int n_tokens, int step,
                                    matmul_tile tile)
{
    uint32_t r = 0;
    for (; n_rows - r >= (uint32_t)step; r += (uint32_t)step) {
        multiply_tile(load4, element_bytes, step, n_tokens, &tile);
        tile.row += (size_t)step * tile.row_bytes;
        tile.out += step;
    }
    for (; r < n_rows; r++) {
        multiply_tile(load4, element_bytes, 1, n_tokens, &tile);
        tile.row += tile.row_bytes;
        tile.out++;
    }
}

SL_ALWAYS_INLINE void multiply_matrix(load4_fn *load4, size_t element_bytes, matmul_tile all, uint32_t n_rows,
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
            case 1: multiply_rows(load4, element_bytes, n, 1, DECODE_ROWS, tile); break;
            case 2: multiply_rows(load4, element_bytes, n, 2, TILE_ROWS, tile); break;
            default: multiply_rows(load4, element_bytes, n, TILE_TOKENS, TILE_ROWS, tile); break;
            }
        }
    }
}

#define DEFINE_MATMUL(type, element_bytes)                                                                             \
    void sl_neon_matmul_##type(const void *weights, size_t row_bytes, uint32_t n_columns, uint32_t first_row,          \
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
        multiply_matrix(load4_##type, element_bytes, all, end_row - first_row, n_tokens);                              \
    }

DEFINE_MATMUL(f32, 4)
DEFINE_MATMUL(f16, 2)
DEFINE_MATMUL(bf16, 2)
