/* Matrix products with 32-element blocks: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.
 *
 * A block of eight rows is turned so that rows are lanes (avx2_tile.h) before it is unpacked, which is then done for all of them
 * at once; what was unpacked of two times eight rows serves up to SL_TILE_PASS tokens, three at a time in registers. A few go to
 * avx2_one32.c, which takes fewer rows at a time.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. What tile_unpack32.inc says of codes and sums.
 *   2. Rows missing from a last tile are stood in for by the last row; their lanes are not stored.
 *   3. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_tile.h"
#include "quant/unpack.h"

#include "kernels/x86/tile_unpack32.inc"

/* One block of all rows. */
typedef struct tile_block {
    unpacked_tile half[SL_TILE_VECTORS];
    __m256i wide[SL_TILE_VECTORS][2 * STEPS]; /* the codes, where they do not stay bytes */
} tile_block;

SL_ALWAYS_INLINE void take_block(const block_format format, const uint8_t *const row[SL_TILE_ROWS], tile_block *tile)
{
    for (int v = 0; v < SL_TILE_VECTORS; v++) {
        format.unpack(row + v * SL_TILE_LANES, &tile->half[v]);
        if (sl_tile_is_wide(format.largest_code)) {
            for (int s = 0; s < STEPS; s++) {
                sl_tile_widen_codes(tile->half[v].codes[s], &tile->wide[v][2 * s]);
            }
        }
    }
}

/* What codes that are bytes come to, with all that they are too high by. */
SL_ALWAYS_INLINE void add_bytes(const block_format format, const tile_block *tile,
                                const activation_block *const x[SL_TILE_TOKENS], const uint32_t n,
                                __m256i total[SL_TILE_VECTORS][SL_TILE_TOKENS])
{
    const int steps = sl_tile_steps(format.largest_code);
#pragma GCC unroll 8
    for (int first = 0; first < STEPS; first += steps) {
        const sl_lanes *codes[SL_TILE_VECTORS];
        const int8_t *q[SL_TILE_TOKENS];
        __m256i dot[SL_TILE_VECTORS][SL_TILE_TOKENS];
        for (int v = 0; v < SL_TILE_VECTORS; v++) {
            codes[v] = tile->half[v].codes + first;
        }
        for (uint32_t t = 0; t < n; t++) {
            q[t] = x[t]->q + 4 * first;
        }
        sl_tile_dot_bytes(codes, q, steps, n, dot);
        for (uint32_t t = 0; t < n; t++) {
            for (int v = 0; v < SL_TILE_VECTORS; v++) {
                sl_tile_add_pairs(&total[v][t], dot[v][t], _mm256_set1_epi16(1));
            }
        }
    }
}

SL_ALWAYS_INLINE void add_wide(const tile_block *tile, const activation_block *const x[SL_TILE_TOKENS],
                               const uint32_t n, __m256i total[SL_TILE_VECTORS][SL_TILE_TOKENS])
{
    int16_t wide[SL_TILE_TOKENS][32];
    for (uint32_t t = 0; t < n; t++) {
        sl_tile_widen_activation(x[t]->q, wide[t]);
    }
    const __m256i *const codes[SL_TILE_VECTORS] = {tile->wide[0], tile->wide[1]};
    sl_tile_add_wide(codes, wide, n, total);
}

/* One block with n tokens, whose blocks lie `stride` bytes apart; n is constant in every use. */
SL_ALWAYS_INLINE void multiply(const block_format format, const tile_block *tile, const uint8_t *activations,
                               size_t stride, const uint32_t n, sl_tile_sums *sums)
{
    const activation_block *x[SL_TILE_TOKENS];
    __m256i total[SL_TILE_VECTORS][SL_TILE_TOKENS];
    for (uint32_t t = 0; t < n; t++) {
        x[t] = (const activation_block *)(const void *)(activations + t * stride);
        for (int v = 0; v < SL_TILE_VECTORS; v++) {
            total[v][t] = _mm256_setzero_si256();
        }
    }
    if (sl_tile_is_wide(format.largest_code)) {
        add_wide(tile, x, n, total);
    } else {
        add_bytes(format, tile, x, n, total);
    }
    for (uint32_t t = 0; t < n; t++) {
        __m256 d_x = _mm256_set1_ps(x[t]->d);
        __m256i sum_x = _mm256_set1_epi32(x[t]->sum);
        for (int v = 0; v < SL_TILE_VECTORS; v++) {
            const unpacked_tile *half = &tile->half[v];
            __m256i integers = total[v][t];
            if (format.offset != 0 && !sl_tile_is_wide(format.largest_code)) {
                integers = _mm256_sub_epi32(integers, _mm256_mullo_epi32(sum_x, _mm256_set1_epi32(format.offset)));
            }
            __m256 *sum = &sums[t].rows[v];
            *sum = _mm256_fmadd_ps(_mm256_mul_ps((__m256)half->d, d_x), _mm256_cvtepi32_ps(integers), *sum);
            if (format.has_minimum) {
                *sum = _mm256_fmadd_ps(_mm256_mul_ps((__m256)half->m, d_x), _mm256_cvtepi32_ps(sum_x), *sum);
            }
        }
    }
}

#include "kernels/x86/tile_pass.inc"

#include "kernels/x86/tile_matmul.inc"

DEFINE_MATMUL(avx2, q4_0, 2)
DEFINE_MATMUL(avx2, q4_1, 2)
DEFINE_MATMUL(avx2, q5_0, 2)
DEFINE_MATMUL(avx2, q5_1, 2)
DEFINE_MATMUL(avx2, q8_0, 8)
DEFINE_MATMUL(avx2, iq4_nl, 8)
DEFINE_MATMUL(avx2, mxfp4, 2)
