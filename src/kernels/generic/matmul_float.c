/* Matrix products with float weights: F32, F16, BF16.
 *
 * Owns: their definition. A dot product is 16 partial sums by index modulo 16, each a chain of fused multiply-adds in
 * index order, then the tree of sums.h. Columns beyond the last multiple of 16 add to their partials only; absent ones
 * add nothing. Invariants:
 *   1. Weights may start at any address and hold any bits; NaN and infinity spread into the outputs of their row.
 *   2. The bits of an output depend on its row and its token alone.
 * Threads: pure functions; any thread. */
#include <math.h>
#include <string.h>

#include "kernels/generic/generic.h"
#include "kernels/generic/sums.h"
#include "quant/half.h"

typedef float load_weight_fn(const uint8_t *row, uint32_t column);

static inline float load_f32(const uint8_t *row, uint32_t column)
{
    float weight;
    memcpy(&weight, row + (size_t)column * sizeof weight, sizeof weight);
    return weight;
}

static inline float load_f16(const uint8_t *row, uint32_t column)
{
    uint16_t half;
    memcpy(&half, row + (size_t)column * sizeof half, sizeof half);
    return sl_f16_to_f32(half);
}

static inline float load_bf16(const uint8_t *row, uint32_t column)
{
    uint16_t brain;
    memcpy(&brain, row + (size_t)column * sizeof brain, sizeof brain);
    return sl_bf16_to_f32(brain);
}

static inline __attribute__((always_inline)) float dot(load_weight_fn *load, const uint8_t *row, const float *x,
                                                       uint32_t n_columns)
{
    float partial[SL_PARTIAL_SUMS] = {0};
    for (uint32_t column = 0; column < n_columns; column++) {
        float *sum = &partial[column % SL_PARTIAL_SUMS];
        *sum = fmaf(load(row, column), x[column], *sum);
    }
    return sl_sum_tree(partial);
}

#define DEFINE_MATMUL(type)                                                                                            \
    void sl_generic_matmul_##type(const void *weights, size_t row_bytes, uint32_t n_columns, uint32_t first_row,       \
                                  uint32_t end_row, const void *activations, size_t activation_stride,                 \
                                  uint32_t n_tokens, float *out, size_t out_stride)                                    \
    {                                                                                                                  \
        for (uint32_t r = first_row; r < end_row; r++) {                                                               \
            const uint8_t *row = (const uint8_t *)weights + r * row_bytes;                                             \
            for (uint32_t t = 0; t < n_tokens; t++) {                                                                  \
                const void *x = (const uint8_t *)activations + t * activation_stride;                                  \
                out[t * out_stride + r] = dot(load_##type, row, x, n_columns);                                         \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_MATMUL(f32)
DEFINE_MATMUL(f16)
DEFINE_MATMUL(bf16)
