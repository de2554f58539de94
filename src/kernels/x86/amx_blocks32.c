/* Matrix products of many tokens with 32-element blocks: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4. Few tokens go to
 * avx512_blocks32.c.
 *
 * Each block has its own sums, so little is multiplied at a time; TILE_BLOCKS blocks together keep the tiles busy, and a token's
 * floats in a register.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. What tile_unpack32.inc says of codes; here they become signed, so that sums need no correction.
 *   2. Rows missing from a last tile are stood in for by the last row; their lanes are not stored.
 *   3. No byte outside the rows and the activations is read; prefetches may lie anywhere.
 *   4. Tiles have a shape only while a product runs.
 * Threads: pure functions; any thread. */
#include "kernels/x86/amx.h"
#include "kernels/x86/amx_tile.h"
#include "kernels/x86/avx512.h"
#include "quant/unpack.h"

#include "kernels/x86/tile_unpack32.inc"

enum { TILE_BLOCKS = 4, TILE_CODE_BYTES = 32, TILE_SUM_BYTES = TILE_CODE_BYTES };

/* Blocks of all rows that follow one another. */
typedef struct tile_block {
    sl_lanes codes[TILE_BLOCKS][STEPS];
} tile_block;

typedef struct tile_scales {
    sl_float_lanes d[TILE_BLOCKS];
    sl_float_lanes m[TILE_BLOCKS];
} tile_scales;

typedef struct tile_products {
    __m512i blocks[TILE_BLOCKS][SL_AMX_TOKENS];
} tile_products;

SL_ALWAYS_INLINE void take_blocks(const block_format format, const uint8_t *const row[SL_TILE_ROWS], uint32_t n_blocks,
                                  tile_block *tile, tile_scales *scales)
{
    const uint8_t *at[SL_TILE_ROWS];
    memcpy(at, row, sizeof at);
    const sl_lanes offset = sl_tile_all(sl_tile_all_bytes(256 - format.offset));
    for (uint32_t b = 0; b < n_blocks; b++) {
        unpacked_tile unpacked;
        format.unpack(at, &unpacked);
        for (int s = 0; s < STEPS; s++) {
            sl_lanes codes = unpacked.codes[s];
            tile->codes[b][s] = format.offset == 0 ? codes : sl_tile_add_bytes(codes, offset);
        }
        scales->d[b] = unpacked.d;
        if (format.has_minimum) {
            scales->m[b] = unpacked.m;
        }
        for (int i = 0; i < SL_TILE_ROWS; i++) {
            at[i] += format.block_bytes;
        }
    }
}

#define MULTIPLY_BLOCK(b, x_tile, code_tile)                                                                           \
    _tile_zero(b);                                                                                                     \
    _tile_loadd(x_tile, activations + (b) * sizeof(activation_block) + offsetof(activation_block, q), stride);         \
    _tile_loadd(code_tile, tile->codes[b], 64);                                                                        \
    _tile_dpbssd(b, x_tile, code_tile);                                                                                \
    _tile_stored(b, products->blocks[b], 64)

/* One block at a time. */
SL_ALWAYS_INLINE void multiply_quarter(const block_format format, const tile_block *tile, const uint8_t *activations,
                                       size_t stride, uint32_t n_blocks, const int quarter, tile_products *products)
{
    (void)format;
    if (quarter == 0) {
        MULTIPLY_BLOCK(0, 4, 6);
    } else if (quarter == 1 && n_blocks > 1) {
        MULTIPLY_BLOCK(1, 5, 7);
    } else if (quarter == 2 && n_blocks > 2) {
        MULTIPLY_BLOCK(2, 4, 6);
    } else if (quarter == 3 && n_blocks > 3) {
        MULTIPLY_BLOCK(3, 5, 7);
    }
}

SL_ALWAYS_INLINE sl_tile_sums add_products(const block_format format, const tile_scales *scales,
                                           const activation_block *x, const tile_products *products, uint32_t n_blocks,
                                           uint32_t t, sl_tile_sums sum)
{
    for (uint32_t b = 0; b < n_blocks; b++) {
        __m512 d_x = _mm512_set1_ps(x[b].d);
        __m512 integers = _mm512_cvtepi32_ps(products->blocks[b][t]);
        sum = _mm512_fmadd_ps(_mm512_mul_ps((__m512)scales->d[b], d_x), integers, sum);
        if (format.has_minimum) {
            sum = _mm512_fmadd_ps(_mm512_mul_ps((__m512)scales->m[b], d_x), _mm512_set1_ps((float)x[b].sum), sum);
        }
    }
    return sum;
}

#include "kernels/x86/amx_pass.inc"

#include "kernels/x86/tile_matmul.inc"

DEFINE_AMX_MATMUL(q4_0, amx)
DEFINE_AMX_MATMUL(q4_1, amx)
DEFINE_AMX_MATMUL(q5_0, amx)
DEFINE_AMX_MATMUL(q5_1, amx)
DEFINE_AMX_MATMUL(q8_0, avx512)
DEFINE_AMX_MATMUL(iq4_nl, amx)
DEFINE_AMX_MATMUL(mxfp4, amx)
