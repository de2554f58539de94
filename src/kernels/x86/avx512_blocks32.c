/* Matrix products with 32-element blocks: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.
 *
 * A block of sixteen rows is turned so that rows are lanes (avx512_tile.h) before it is unpacked, which is then done for all
 * rows at once; what was unpacked serves up to SL_TILE_PASS tokens, eight at a time in registers. A few go to
 * avx512_one32.c, which takes fewer rows at a time.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. What tile_unpack32.inc says of codes and sums.
 *   2. Rows missing from a last tile are stood in for by the last row; their lanes are not stored.
 *   3. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_tile.h"
#include "quant/unpack.h"

#include "kernels/x86/tile_unpack32.inc"

typedef unpacked_tile tile_block;

SL_ALWAYS_INLINE void take_block(const block_format format, const uint8_t *const row[SL_TILE_ROWS], tile_block *tile)
{
    format.unpack(row, tile);
}

/* One block with n tokens, whose blocks lie `stride` bytes apart; n is constant in every use. */
SL_ALWAYS_INLINE void multiply(const block_format format, const tile_block *tile, const uint8_t *activations,
                               size_t stride, const uint32_t n, sl_tile_sums *sums)
{
    const activation_block *x[SL_TILE_TOKENS];
    __m512i dot[SL_TILE_TOKENS];
    for (uint32_t t = 0; t < n; t++) {
        x[t] = (const activation_block *)(const void *)(activations + t * stride);
        dot[t] = _mm512_set1_epi32(-format.offset * x[t]->sum);
    }
    for (int s = 0; s < STEPS; s++) {
        for (uint32_t t = 0; t < n; t++) {
            dot[t] = _mm512_dpbusd_epi32(dot[t], (__m512i)tile->codes[s], sl_tile_broadcast(x[t]->q + 4 * s));
        }
    }
    for (uint32_t t = 0; t < n; t++) {
        __m512 d_x = _mm512_set1_ps(x[t]->d);
        sums[t] = _mm512_fmadd_ps(_mm512_mul_ps((__m512)tile->d, d_x), _mm512_cvtepi32_ps(dot[t]), sums[t]);
        if (format.has_minimum) {
            sums[t] = _mm512_fmadd_ps(_mm512_mul_ps((__m512)tile->m, d_x), _mm512_set1_ps((float)x[t]->sum), sums[t]);
        }
    }
}

#include "kernels/x86/tile_pass.inc"

#include "kernels/x86/tile_matmul.inc"

DEFINE_MATMUL(avx512, q4_0, 3)
DEFINE_MATMUL(avx512, q4_1, 3)
DEFINE_MATMUL(avx512, q5_0, 3)
DEFINE_MATMUL(avx512, q5_1, 3)
DEFINE_MATMUL(avx512, q8_0, 3)
DEFINE_MATMUL(avx512, iq4_nl, 3)
DEFINE_MATMUL(avx512, mxfp4, 3)
