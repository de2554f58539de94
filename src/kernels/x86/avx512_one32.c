/* Matrix products of few tokens with 32-element blocks: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.
 *
 * Four blocks of four rows are a step (avx512_one.h), so that sixteen integer sums fill one vector: block b of row r in
 * lane 4 b + r.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. Codes are unsigned; what they are too high by comes off in integers, through the activation's sums. All sums are
 *      exact in int32: 32 * 255 * 127 and 128 * 32 * 127.
 *   2. Blocks missing from the last step of a row are stood in for by its last block, rows missing from the last four by
 *      the last row; their lanes are neither added nor stored.
 *   3. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_one.h"
#include "quant/unpack.h"

enum {
    BLOCK_ELEMENTS = SL_QK,
    STEP_BLOCKS = 4,
    PASS_STEPS = 64,
    FEW_TOKENS = 2,
    LANES = 16,
    PREFETCH_PARTS = SL_ONE_ROWS + 2 /* one for each row, two while scales are applied */
};

typedef sl_block_act_q8_32 activation_block;

/* Four blocks of one row: 128 codes. */
typedef void codes_fn(const uint8_t *const block[STEP_BLOCKS], __m512i codes[2]);

/* What distinguishes the formats. Constant in every use. */
typedef struct block_format {
    codes_fn *codes;
    size_t block_bytes;
    int offset;          /* of the codes */
    bool is_split;       /* the first vector holds the first 16 codes of each block, the second the others; else each
                            vector holds two blocks */
    bool has_minimum;    /* a second scale follows the first */
    bool has_e8m0_scale; /* the scale is a power of two in one byte */
} block_format;

/* Four blocks of the activation. */
typedef struct prepared_step {
    _Alignas(64) int8_t q[2][64]; /* in the order of the codes */
    _Alignas(64) float d[LANES];
    _Alignas(64) int32_t sums[LANES]; /* times the offset of the codes, if they have one */
} prepared_step;

SL_ALWAYS_INLINE void prepare(const block_format format, const activation_block *x, uint32_t n_blocks,
                              prepared_step *steps)
{
    for (uint32_t b = 0; b < n_blocks; b++) {
        prepared_step *step = &steps[b / STEP_BLOCKS];
        const uint32_t place = b % STEP_BLOCKS;
        for (uint32_t half = 0; half < 2; half++) {
            int8_t *q =
                format.is_split ? step->q[half] + 16 * place : step->q[place / 2] + 32 * (place % 2) + 16 * half;
            memcpy(q, x[b].q + 16 * half, 16);
        }
        for (uint32_t r = 0; r < SL_ONE_ROWS; r++) {
            step->d[SL_ONE_ROWS * place + r] = x[b].d;
            step->sums[SL_ONE_ROWS * place + r] = x[b].sum * (format.offset != 0 ? format.offset : 1);
        }
    }
}

SL_ALWAYS_INLINE void take_nibbles(const uint8_t *const block[STEP_BLOCKS], size_t offset, __m512i codes[2])
{
    __m512i bytes = sl_one_load(block, offset);
    codes[0] = sl_one_shift_right(bytes, 0, 0x0f);
    codes[1] = sl_one_shift_right(bytes, 4, 0x0f);
}

/* Bit j of the four bytes at `offset` becomes the fifth bit of code j. */
SL_ALWAYS_INLINE void add_fifth_bits(const uint8_t *const block[STEP_BLOCKS], size_t offset, __m512i codes[2])
{
    int32_t words[STEP_BLOCKS];
    for (int b = 0; b < STEP_BLOCKS; b++) {
        memcpy(&words[b], block[b] + offset, sizeof words[b]);
    }
    const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    __m512i bits =
        _mm512_permutexvar_epi32(lane, _mm512_castsi128_si512(_mm_setr_epi32(words[0], words[1], words[2], words[3])));
    const __m512i bit_of = _mm512_set1_epi64((long long)UINT64_C(0x8040201008040201));
    for (int half = 0; half < 2; half++) {
        const __m512i byte_of = _mm512_broadcast_i32x4(
            _mm_set_epi64x(INT64_C(0x0101010101010101) * (2 * half + 1), INT64_C(0x0101010101010101) * (2 * half)));
        __mmask64 set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits, byte_of), bit_of);
        codes[half] = _mm512_mask_add_epi8(codes[half], set, codes[half], _mm512_set1_epi8(0x10));
    }
}

/* Values of a table, shifted by `offset` to be unsigned. */
SL_ALWAYS_INLINE void look_up(const int8_t table[16], int offset, __m512i codes[2])
{
    __m512i values = _mm512_broadcast_i32x4(sl_tile_load16((const uint8_t *)table));
    values = _mm512_add_epi8(values, _mm512_set1_epi8((char)offset));
    codes[0] = _mm512_shuffle_epi8(values, codes[0]);
    codes[1] = _mm512_shuffle_epi8(values, codes[1]);
}

SL_ALWAYS_INLINE void codes_q4_0(const uint8_t *const block[STEP_BLOCKS], __m512i codes[2])
{
    take_nibbles(block, offsetof(sl_block_q4_0, nibbles), codes);
}

SL_ALWAYS_INLINE void codes_q4_1(const uint8_t *const block[STEP_BLOCKS], __m512i codes[2])
{
    take_nibbles(block, offsetof(sl_block_q4_1, nibbles), codes);
}

SL_ALWAYS_INLINE void codes_q5_0(const uint8_t *const block[STEP_BLOCKS], __m512i codes[2])
{
    take_nibbles(block, offsetof(sl_block_q5_0, nibbles), codes);
    add_fifth_bits(block, offsetof(sl_block_q5_0, high_bits), codes);
}

SL_ALWAYS_INLINE void codes_q5_1(const uint8_t *const block[STEP_BLOCKS], __m512i codes[2])
{
    take_nibbles(block, offsetof(sl_block_q5_1, nibbles), codes);
    add_fifth_bits(block, offsetof(sl_block_q5_1, high_bits), codes);
}

SL_ALWAYS_INLINE void codes_q8_0(const uint8_t *const block[STEP_BLOCKS], __m512i codes[2])
{
    for (int i = 0; i < 2; i++) {
        __m256i first = _mm256_loadu_si256((const __m256i *)(block[2 * i] + offsetof(sl_block_q8_0, q)));
        __m256i second = _mm256_loadu_si256((const __m256i *)(block[2 * i + 1] + offsetof(sl_block_q8_0, q)));
        codes[i] = _mm512_xor_si512(_mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1),
                                    _mm512_set1_epi8((char)0x80));
    }
}

SL_ALWAYS_INLINE void codes_iq4_nl(const uint8_t *const block[STEP_BLOCKS], __m512i codes[2])
{
    take_nibbles(block, offsetof(sl_block_iq4_nl, nibbles), codes);
    look_up(sl_iq4_nl_values, 128, codes);
}

SL_ALWAYS_INLINE void codes_mxfp4(const uint8_t *const block[STEP_BLOCKS], __m512i codes[2])
{
    take_nibbles(block, offsetof(sl_block_mxfp4, nibbles), codes);
    look_up(sl_mxfp4_doubled_values, 12, codes);
}

static const block_format format_q4_0 = {codes_q4_0, sizeof(sl_block_q4_0), 8, true, false, false};
static const block_format format_q4_1 = {codes_q4_1, sizeof(sl_block_q4_1), 0, true, true, false};
static const block_format format_q5_0 = {codes_q5_0, sizeof(sl_block_q5_0), 16, true, false, false};
static const block_format format_q5_1 = {codes_q5_1, sizeof(sl_block_q5_1), 0, true, true, false};
static const block_format format_q8_0 = {codes_q8_0, sizeof(sl_block_q8_0), 128, false, false, false};
static const block_format format_iq4_nl = {codes_iq4_nl, sizeof(sl_block_iq4_nl), 128, true, false, false};
static const block_format format_mxfp4 = {codes_mxfp4, sizeof(sl_block_mxfp4), 12, true, false, true};

SL_ALWAYS_INLINE void prefetch_part(const block_format format, const sl_ahead *ahead, uint32_t part)
{
    sl_ahead_prefetch_once(ahead, SL_ONE_ROWS * STEP_BLOCKS * format.block_bytes, part, PREFETCH_PARTS);
}

/* The sums of all products with token t in sums[t], block b of row r in lane 4 b + r. */
SL_ALWAYS_INLINE void multiply_codes(const block_format format, const uint8_t *const row[SL_ONE_ROWS],
                                     const size_t at[STEP_BLOCKS], const prepared_step *const x[FEW_TOKENS],
                                     const uint32_t n_tokens, const sl_ahead *ahead, __m512i sums[FEW_TOKENS])
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i first[FEW_TOKENS][SL_ONE_ROWS];
    __m512i second[FEW_TOKENS][SL_ONE_ROWS];
#pragma GCC unroll 4
    for (uint32_t r = 0; r < SL_ONE_ROWS; r++) {
        prefetch_part(format, ahead, r);
        const uint8_t *block[STEP_BLOCKS];
        for (int b = 0; b < STEP_BLOCKS; b++) {
            block[b] = row[r] + at[b];
        }
        __m512i codes[2];
        format.codes(block, codes);
        for (uint32_t t = 0; t < n_tokens; t++) {
            first[t][r] = _mm512_dpbusd_epi32(zero, codes[0], _mm512_load_si512(x[t]->q[0]));
            second[t][r] =
                _mm512_dpbusd_epi32(format.is_split ? first[t][r] : zero, codes[1], _mm512_load_si512(x[t]->q[1]));
        }
    }
    for (uint32_t t = 0; t < n_tokens; t++) {
        sums[t] = sl_one_sum_lanes(second[t]);
        if (!format.is_split) {
            __m512i other = sl_one_sum_lanes(first[t]);
            sums[t] = _mm512_add_epi32(_mm512_shuffle_i32x4(other, sums[t], 0x88),
                                       _mm512_shuffle_i32x4(other, sums[t], 0xdd));
        }
    }
}

/* The words that begin four blocks of at most 20 bytes, block b of row r in lane 4 b + r; of exponents, their byte alone.
 * Block b begins in 128-bit lane b of the row's first 64 bytes. */
SL_ALWAYS_INLINE __m512i first_words_of_short(const block_format format, const uint8_t *const row[SL_ONE_ROWS])
{
    const int step = 0x01010101 * (int)(format.block_bytes - 16);
    const __m512i places = _mm512_add_epi8(
        _mm512_set1_epi32(0x03020100), _mm512_setr_epi32(0, 0, 0, 0, step, step, step, step, 2 * step, 2 * step,
                                                         2 * step, 2 * step, 3 * step, 3 * step, 3 * step, 3 * step));
    const __mmask64 of_first = format.has_e8m0_scale ? UINT64_C(0x0001000100010001) : UINT64_C(0x000f000f000f000f);
    __m512i words = _mm512_setzero_si512();
    for (int r = 0; r < SL_ONE_ROWS; r++) {
        words = _mm512_mask_shuffle_epi8(words, of_first << (4 * r), _mm512_loadu_si512(row[r]), places);
    }
    return words;
}

/* The same of longer blocks, of an even number of bytes. */
SL_ALWAYS_INLINE __m512i first_words_of_long(const block_format format, const uint8_t *const row[SL_ONE_ROWS])
{
    const size_t bytes = format.block_bytes;
    const int first = 0x00010000; /* numbers of half words */
    const int second = first + 0x00010001 * (int)(bytes / 2);
    const __m512i places = _mm512_setr_epi32(first, first, first, first, second, second, second, second, first, first,
                                             first, first, second, second, second, second);
    __m512i words = _mm512_setzero_si512();
    for (int r = 0; r < SL_ONE_ROWS; r++) {
        for (int half = 0; half < 2; half++) {
            const uint8_t *source = row[r] + 2 * bytes * (size_t)half;
            __m512i loaded = bytes >= 32 ? _mm512_loadu_si512(source)
                                         : _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)source));
            words = _mm512_mask_permutexvar_epi16(words, UINT32_C(0x00000303) << (2 * r + 16 * half), places, loaded);
        }
    }
    return words;
}

/* The same, block b at at[b] in its row. */
SL_ALWAYS_INLINE __m512i first_words_at(const block_format format, const uint8_t *const row[SL_ONE_ROWS],
                                        const size_t at[STEP_BLOCKS])
{
    __m512i offsets = _mm512_setzero_si512();
    for (int b = 0; b < STEP_BLOCKS; b++) {
        __mmask16 lanes = (__mmask16)(0x000f << (SL_ONE_ROWS * b));
        offsets = _mm512_mask_set1_epi32(offsets, lanes, (int)at[b]);
    }
    for (int r = 1; r < SL_ONE_ROWS; r++) {
        __mmask16 lanes = (__mmask16)(0x1111 << r);
        offsets = _mm512_mask_add_epi32(offsets, lanes, offsets, _mm512_set1_epi32((int)(row[r] - row[0])));
    }
    __m512i words = _mm512_i32gather_epi32(offsets, row[0], 1);
    return format.has_e8m0_scale ? _mm512_and_si512(words, _mm512_set1_epi32(0xff)) : words;
}

SL_ALWAYS_INLINE __m512i first_words_of(const block_format format, const uint8_t *const row[SL_ONE_ROWS],
                                        const size_t at[STEP_BLOCKS], uint32_t n_blocks)
{
    if (n_blocks < STEP_BLOCKS) {
        return first_words_at(format, row, at);
    }
    return format.block_bytes <= 20 ? first_words_of_short(format, row) : first_words_of_long(format, row);
}

/* The scales of blocks times those of the activation. An exponent stands for what sl_e8m0_half makes of it. */
SL_ALWAYS_INLINE __m512 multiply_scales(const block_format format, __m512i words, __m512 d_x)
{
    if (format.has_e8m0_scale) {
        return _mm512_scalef_ps(d_x, _mm512_cvtepi32_ps(_mm512_sub_epi32(words, _mm512_set1_epi32(128))));
    }
    return _mm512_mul_ps((__m512)sl_tile_halves((sl_lanes)words), d_x);
}

SL_ALWAYS_INLINE void multiply_step(const block_format format, const uint8_t *const row[SL_ONE_ROWS], uint32_t n_blocks,
                                    const prepared_step *const x[FEW_TOKENS], const uint32_t n_tokens,
                                    const sl_ahead *ahead, __m128 sums[FEW_TOKENS])
{
    size_t at[STEP_BLOCKS];
    for (uint32_t b = 0; b < STEP_BLOCKS; b++) {
        at[b] = (b < n_blocks ? b : n_blocks - 1) * format.block_bytes;
    }
    __m512i integers[FEW_TOKENS];
    multiply_codes(format, row, at, x, n_tokens, ahead, integers);
    prefetch_part(format, ahead, SL_ONE_ROWS);
    __m512i words = first_words_of(format, row, at, n_blocks);
    prefetch_part(format, ahead, SL_ONE_ROWS + 1);
    for (uint32_t t = 0; t < n_tokens; t++) {
        __m512i sums_x = _mm512_load_si512(x[t]->sums);
        __m512 d_x = _mm512_load_ps(x[t]->d);
        _Alignas(64) float terms[4][LANES]; /* two factors of each, and of the minimum */
        _mm512_store_ps(terms[0], multiply_scales(format, words, d_x));
        _mm512_store_ps(terms[1],
                        _mm512_cvtepi32_ps(format.offset != 0 ? _mm512_sub_epi32(integers[t], sums_x) : integers[t]));
        if (format.has_minimum) {
            _mm512_store_ps(terms[2], _mm512_mul_ps((__m512)sl_tile_halves((sl_lanes)words >> 16), d_x));
            _mm512_store_ps(terms[3], _mm512_cvtepi32_ps(sums_x));
        }
        for (uint32_t b = 0; b < n_blocks; b++) {
            const uint32_t lane = SL_ONE_ROWS * b;
            sums[t] = _mm_fmadd_ps(_mm_load_ps(terms[0] + lane), _mm_load_ps(terms[1] + lane), sums[t]);
            if (format.has_minimum) {
                sums[t] = _mm_fmadd_ps(_mm_load_ps(terms[2] + lane), _mm_load_ps(terms[3] + lane), sums[t]);
            }
        }
    }
}

#include "kernels/x86/avx512_one.inc"

DEFINE_MATMUL_ONE(q4_0)
DEFINE_MATMUL_ONE(q4_1)
DEFINE_MATMUL_ONE(q5_0)
DEFINE_MATMUL_ONE(q5_1)
DEFINE_MATMUL_ONE(q8_0)
DEFINE_MATMUL_ONE(iq4_nl)
DEFINE_MATMUL_ONE(mxfp4)
