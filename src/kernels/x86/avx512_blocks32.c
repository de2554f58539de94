/* Matrix products with 32-element blocks: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.
 *
 * A block of sixteen rows is turned so that rows are lanes (avx512_tile.h) and unpacked for all of them at once; it serves
 * up to SL_TILE_PASS tokens, eight at a time in registers. One token goes to avx512_one32.c, which takes fewer
 * rows at a time.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. Codes are unsigned; what they are too high by comes off in integers, through the activation's sum.
 *   2. Rows missing from a last tile are stood in for by the last row; their lanes are not stored.
 *   3. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_tile.h"
#include "quant/unpack.h"

enum {
    BLOCK_ELEMENTS = SL_QK,
    STEPS = 8 /* of 4 codes in a block */
};

/* One block of sixteen rows. */
typedef struct unpacked_tile {
    __m512i codes[STEPS];
    __m512 d;
    __m512 m;
} unpacked_tile;

typedef sl_block_act_q8_32 activation_block;

typedef void unpack_fn(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile);

/* What distinguishes the formats. Constant in every use. */
typedef struct block_format {
    unpack_fn *unpack;
    size_t block_bytes;
    int offset; /* of the codes */
    bool has_minimum;
} block_format;

SL_ALWAYS_INLINE void unpack_nibbles(const uint8_t *const row[SL_TILE_ROWS], size_t offset, __m512i codes[STEPS])
{
    __m512i words[4];
    sl_tile_words(row, offset, words);
    for (int i = 0; i < 4; i++) {
        codes[i] = sl_tile_shift_right(words[i], 0, 0x0f);
        codes[4 + i] = sl_tile_shift_right(words[i], 4, 0x0f);
    }
}

SL_ALWAYS_INLINE void unpack_d_and_m(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    __m512i halves = sl_tile_word(row, 0);
    tile->d = sl_tile_halves(halves);
    tile->m = sl_tile_halves(_mm512_srli_epi32(halves, 16));
}

/* Bit j of the four bytes at `offset` becomes the fifth bit of code j. */
SL_ALWAYS_INLINE void add_fifth_bits(const uint8_t *const row[SL_TILE_ROWS], size_t offset, __m512i codes[STEPS])
{
    __m512i bits = sl_tile_word(row, offset);
    for (int s = 0; s < STEPS; s++) {
        /* A multiplication puts bit i of a nibble at bit 8 i. */
        __m512i nibble = _mm512_and_si512(_mm512_srli_epi32(bits, (unsigned)(4 * s)), _mm512_set1_epi32(0x0f));
        __m512i spread = _mm512_mullo_epi32(nibble, _mm512_set1_epi32(0x00204081));
        codes[s] = _mm512_or_si512(codes[s], sl_tile_shift_left(spread, 4, 0x10));
    }
}

SL_ALWAYS_INLINE void look_up(const int8_t table[16], int shift, __m512i codes[STEPS])
{
    __m512i values = _mm512_broadcast_i32x4(sl_tile_load16((const uint8_t *)table));
    values = _mm512_add_epi8(values, _mm512_set1_epi8((char)shift));
    for (int s = 0; s < STEPS; s++) {
        codes[s] = _mm512_shuffle_epi8(values, codes[s]);
    }
}

SL_ALWAYS_INLINE void unpack_q4_0(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    unpack_d_and_m(row, tile);
    unpack_nibbles(row, offsetof(sl_block_q4_0, nibbles), tile->codes);
}

SL_ALWAYS_INLINE void unpack_q4_1(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    unpack_d_and_m(row, tile);
    unpack_nibbles(row, offsetof(sl_block_q4_1, nibbles), tile->codes);
}

SL_ALWAYS_INLINE void unpack_q5_0(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    unpack_d_and_m(row, tile);
    unpack_nibbles(row, offsetof(sl_block_q5_0, nibbles), tile->codes);
    add_fifth_bits(row, offsetof(sl_block_q5_0, high_bits), tile->codes);
}

SL_ALWAYS_INLINE void unpack_q5_1(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    unpack_d_and_m(row, tile);
    unpack_nibbles(row, offsetof(sl_block_q5_1, nibbles), tile->codes);
    add_fifth_bits(row, offsetof(sl_block_q5_1, high_bits), tile->codes);
}

/* Shifted by 128 to be unsigned, as are the two that follow. */
SL_ALWAYS_INLINE void unpack_q8_0(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    unpack_d_and_m(row, tile);
    sl_tile_words(row, offsetof(sl_block_q8_0, q), tile->codes);
    sl_tile_words(row, offsetof(sl_block_q8_0, q) + 16, tile->codes + 4);
    for (int s = 0; s < STEPS; s++) {
        tile->codes[s] = _mm512_xor_si512(tile->codes[s], _mm512_set1_epi8((char)0x80));
    }
}

SL_ALWAYS_INLINE void unpack_iq4_nl(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    unpack_d_and_m(row, tile);
    unpack_nibbles(row, offsetof(sl_block_iq4_nl, nibbles), tile->codes);
    look_up(sl_iq4_nl_values, 128, tile->codes);
}

/* The scale is a power of two in one byte; see sl_e8m0_half. Values are shifted by 12. */
SL_ALWAYS_INLINE void unpack_mxfp4(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    __m512i exponents =
        _mm512_and_si512(sl_tile_word(row, offsetof(sl_block_mxfp4, exponent)), _mm512_set1_epi32(0xff));
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(exponents, _mm512_set1_epi32(1)), 23);
    __m512i denormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x200000), exponents);
    __mmask16 is_denormal = _mm512_cmplt_epi32_mask(exponents, _mm512_set1_epi32(2));
    tile->d = _mm512_castsi512_ps(_mm512_mask_blend_epi32(is_denormal, normal, denormal));
    unpack_nibbles(row, offsetof(sl_block_mxfp4, nibbles), tile->codes);
    look_up(sl_mxfp4_doubled_values, 12, tile->codes);
}

static const block_format format_q4_0 = {unpack_q4_0, sizeof(sl_block_q4_0), 8, false};
static const block_format format_q4_1 = {unpack_q4_1, sizeof(sl_block_q4_1), 0, true};
static const block_format format_q5_0 = {unpack_q5_0, sizeof(sl_block_q5_0), 16, false};
static const block_format format_q5_1 = {unpack_q5_1, sizeof(sl_block_q5_1), 0, true};
static const block_format format_q8_0 = {unpack_q8_0, sizeof(sl_block_q8_0), 128, false};
static const block_format format_iq4_nl = {unpack_iq4_nl, sizeof(sl_block_iq4_nl), 128, false};
static const block_format format_mxfp4 = {unpack_mxfp4, sizeof(sl_block_mxfp4), 12, false};

/* One block with n tokens, whose blocks lie `stride` bytes apart; n is constant in every use. */
SL_ALWAYS_INLINE void multiply(const block_format format, const unpacked_tile *tile, const uint8_t *activations,
                               size_t stride, const uint32_t n, __m512 *sums)
{
    const activation_block *x[SL_TILE_TOKENS];
    __m512i dot[SL_TILE_TOKENS];
    for (uint32_t t = 0; t < n; t++) {
        x[t] = (const activation_block *)(const void *)(activations + t * stride);
        dot[t] = _mm512_set1_epi32(-format.offset * x[t]->sum);
    }
    for (int s = 0; s < STEPS; s++) {
        for (uint32_t t = 0; t < n; t++) {
            dot[t] = _mm512_dpbusd_epi32(dot[t], tile->codes[s], sl_tile_broadcast(x[t]->q + 4 * s));
        }
    }
    for (uint32_t t = 0; t < n; t++) {
        __m512 d_x = _mm512_set1_ps(x[t]->d);
        sums[t] = _mm512_fmadd_ps(_mm512_mul_ps(tile->d, d_x), _mm512_cvtepi32_ps(dot[t]), sums[t]);
        if (format.has_minimum) {
            sums[t] = _mm512_fmadd_ps(_mm512_mul_ps(tile->m, d_x), _mm512_set1_ps((float)x[t]->sum), sums[t]);
        }
    }
}

#include "kernels/x86/avx512_matmul.inc"

DEFINE_MATMUL(q4_0)
DEFINE_MATMUL(q4_1)
DEFINE_MATMUL(q5_0)
DEFINE_MATMUL(q5_1)
DEFINE_MATMUL(q8_0)
DEFINE_MATMUL(iq4_nl)
DEFINE_MATMUL(mxfp4)
