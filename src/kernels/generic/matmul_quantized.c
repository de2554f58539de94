/* Matrix products with block-quantised weights.
 *
 * Owns: their definition. Inside a block the products are summed in integers, exactly. Across blocks, in block order,
 * one fused multiply-add per term: sum = fma(d_w d_x, (float)integer_sum, sum), and for formats with minima right after
 * it sum = fma(-(dmin_w d_x), (float)minimum_sum, sum) (256-blocks) or sum = fma(m_w d_x, (float)activation_sum, sum)
 * (32-blocks).
 * Invariants:
 *   1. Weights may start at any address and hold any bytes; unpacked.h proves that no integer overflows. A scale that
 * is NaN or infinite spreads into the outputs of its row.
 *   2. The bits of an output depend on its row and its token alone: unpacking a block once for several tokens changes
 *      nothing.
 * Threads: pure functions; any thread. */
#include <math.h>

#include "kernels/generic/generic.h"
#include "kernels/generic/unpacked.h"

enum { TOKEN_TILE = 4 };

typedef void unpack_32_fn(const void *source, sl_unpacked_32 *block);
typedef void unpack_256_fn(const void *source, sl_unpacked_256 *block);

/* One row with up to TOKEN_TILE tokens; x[t] points at the activation blocks of token t. */
static inline __attribute__((always_inline)) void dot_32(unpack_32_fn *unpack, size_t block_bytes, bool has_minimum,
                                                         const uint8_t *row, uint32_t n_blocks,
                                                         const sl_block_act_q8_32 *const x[TOKEN_TILE],
                                                         uint32_t n_tokens, float sums[TOKEN_TILE])
{
    for (uint32_t b = 0; b < n_blocks; b++) {
        sl_unpacked_32 weight;
        unpack(row + b * block_bytes, &weight);
        for (uint32_t t = 0; t < n_tokens; t++) {
            const sl_block_act_q8_32 *activation = &x[t][b];
            int32_t integer_sum = 0;
            for (unsigned j = 0; j < SL_QK; j++) {
                integer_sum += weight.q[j] * activation->q[j];
            }
            sums[t] = fmaf(weight.d * activation->d, (float)integer_sum, sums[t]);
            if (has_minimum) {
                sums[t] = fmaf(weight.m * activation->d, (float)activation->sum, sums[t]);
            }
        }
    }
}

static inline __attribute__((always_inline)) void dot_256(unpack_256_fn *unpack, size_t block_bytes, bool has_minimum,
                                                          const uint8_t *row, uint32_t n_blocks,
                                                          const sl_block_act_q8_256 *const x[TOKEN_TILE],
                                                          uint32_t n_tokens, float sums[TOKEN_TILE])
{
    for (uint32_t b = 0; b < n_blocks; b++) {
        sl_unpacked_256 weight;
        unpack(row + b * block_bytes, &weight);
        for (uint32_t t = 0; t < n_tokens; t++) {
            const sl_block_act_q8_256 *activation = &x[t][b];
            int32_t integer_sum = 0;
            int32_t minimum_sum = 0;
            for (unsigned group = 0; group < SL_QK_K / 16; group++) {
                int32_t group_sum = 0;
                for (unsigned j = group * 16; j < group * 16 + 16; j++) {
                    group_sum += weight.q[j] * activation->q[j];
                }
                integer_sum += weight.scales[group] * group_sum;
                if (has_minimum) {
                    minimum_sum += weight.minima[group] * activation->sums[group];
                }
            }
            sums[t] = fmaf(weight.d * activation->d, (float)integer_sum, sums[t]);
            if (has_minimum) {
                sums[t] = fmaf(-(weight.dmin * activation->d), (float)minimum_sum, sums[t]);
            }
        }
    }
}

#define DEFINE_MATMUL(elements, type, has_minimum)                                                                     \
    void sl_generic_matmul_##type(const void *weights, size_t row_bytes, uint32_t n_columns, uint32_t first_row,       \
                                  uint32_t end_row, const void *activations, size_t activation_stride,                 \
                                  uint32_t n_tokens, float *out, size_t out_stride)                                    \
    {                                                                                                                  \
        for (uint32_t r = first_row; r < end_row; r++) {                                                               \
            const uint8_t *row = (const uint8_t *)weights + r * row_bytes;                                             \
            for (uint32_t first = 0; first < n_tokens; first += TOKEN_TILE) {                                          \
                uint32_t n = n_tokens - first < TOKEN_TILE ? n_tokens - first : TOKEN_TILE;                            \
                const sl_block_act_q8_##elements *x[TOKEN_TILE] = {NULL};                                              \
                for (uint32_t t = 0; t < n; t++) {                                                                     \
                    x[t] = (const void *)((const uint8_t *)activations + (first + t) * activation_stride);             \
                }                                                                                                      \
                float sums[TOKEN_TILE] = {0};                                                                          \
                dot_##elements(sl_unpack_##type, sizeof(sl_block_##type), has_minimum, row, n_columns / (elements), x, \
                               n, sums);                                                                               \
                for (uint32_t t = 0; t < n; t++) {                                                                     \
                    out[(first + t) * out_stride + r] = sums[t];                                                       \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_MATMUL(32, q4_0, false)
DEFINE_MATMUL(32, q4_1, true)
DEFINE_MATMUL(32, q5_0, false)
DEFINE_MATMUL(32, q5_1, true)
DEFINE_MATMUL(32, q8_0, false)
DEFINE_MATMUL(32, iq4_nl, false)
DEFINE_MATMUL(32, mxfp4, false)
DEFINE_MATMUL(256, q2_k, true)
DEFINE_MATMUL(256, q3_k, false)
DEFINE_MATMUL(256, q4_k, true)
DEFINE_MATMUL(256, q5_k, true)
DEFINE_MATMUL(256, q6_k, false)
DEFINE_MATMUL(256, iq4_xs, false)
DEFINE_MATMUL(256, iq1_s, false)
DEFINE_MATMUL(256, iq1_m, false)
DEFINE_MATMUL(256, iq2_xxs, false)
DEFINE_MATMUL(256, iq2_xs, false)
DEFINE_MATMUL(256, iq2_s, false)
DEFINE_MATMUL(256, iq3_xxs, false)
DEFINE_MATMUL(256, iq3_s, false)
