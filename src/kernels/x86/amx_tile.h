/* AMX for matrix products: tiles of 1 KiB that are multiplied whole. What avx512_tile.h unpacks, rows in lanes and four codes of
 * a row in each, is the second operand as it stands; the activations of up to sixteen tokens, as they lie in memory, are the
 * first; and the sums come out as an sl_tile_sums of integers for each token. */
#ifndef SL_KERNELS_X86_AMX_TILE_H
#define SL_KERNELS_X86_AMX_TILE_H

#include "kernels/x86/avx512_tile.h"

enum {
    SL_AMX_TOKENS = 16, /* at most, in a tile */
    SL_AMX_FEWEST = 8   /* below so many tokens vectors are faster */
};

/* What the processor reads to shape its tiles. */
typedef struct sl_amx_shapes {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t n_rows[16];
} sl_amx_shapes;
_Static_assert(sizeof(sl_amx_shapes) == 64, "the shapes are 64 bytes");

/* Tokens in a tile of a pass with n_tokens. As few as so many tiles can have: a tile takes as long as it has tokens. Of
 * several passes each has more than half of the tokens that a pass may have, and all have the same tiles. */
SL_ALWAYS_INLINE uint32_t sl_amx_tile_tokens(uint32_t n_tokens)
{
    const uint32_t n_tiles = (n_tokens + SL_AMX_TOKENS - 1) / SL_AMX_TOKENS;
    return n_tokens >= SL_TILE_PASS / 2 ? SL_AMX_TOKENS : (n_tokens + n_tiles - 1) / n_tiles;
}

/* Tiles 0 to 3 hold sums; 4 and 5 `first` and `second` bytes of each token, 6 and 7 as many of sixteen rows. */
SL_ALWAYS_INLINE void sl_amx_configure(uint32_t n_tokens, int first, int second)
{
    const uint8_t n = (uint8_t)sl_amx_tile_tokens(n_tokens);
    sl_amx_shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        const int n_bytes = i % 2 == 0 ? first : second;
        shapes.row_bytes[i] = (uint16_t)(i == 4 || i == 5 ? n_bytes : 64);
        shapes.n_rows[i] = i < 6 ? n : (uint8_t)(n_bytes / 4);
    }
    __asm__ volatile("" ::"m"(shapes));
    _tile_loadconfig(&shapes);
}

/* gcc does not know that its functions for tiles read memory: everything written before is in memory after this. */
SL_ALWAYS_INLINE void sl_amx_finish_writes(void)
{
    __asm__ volatile("" ::: "memory");
}

/* `one`: whose kernel serves a single token. */
#define DEFINE_AMX_MATMUL(type, one)                                                                                   \
    void sl_amx_matmul_##type(const void *weights, size_t row_bytes, uint32_t n_columns, uint32_t first_row,           \
                              uint32_t end_row, const void *activations, size_t activation_stride, uint32_t n_tokens,  \
                              float *out, size_t out_stride)                                                           \
    {                                                                                                                  \
        if (n_tokens == 1) {                                                                                           \
            sl_##one##_matmul_one_##type(weights, row_bytes, n_columns, first_row, end_row, activations,               \
                                         activation_stride, n_tokens, out, out_stride);                                \
            return;                                                                                                    \
        }                                                                                                              \
        if (n_tokens < SL_AMX_FEWEST) {                                                                                \
            sl_avx512_matmul_##type(weights, row_bytes, n_columns, first_row, end_row, activations, activation_stride, \
                                    n_tokens, out, out_stride);                                                        \
            return;                                                                                                    \
        }                                                                                                              \
        sl_amx_configure(n_tokens, TILE_CODE_BYTES, TILE_SUM_BYTES);                                                   \
        multiply_tiles(format_##type, weights, row_bytes, n_columns / BLOCK_ELEMENTS, first_row, end_row, activations, \
                       activation_stride, n_tokens, out, out_stride);                                                  \
        _tile_release();                                                                                               \
    }

#endif
