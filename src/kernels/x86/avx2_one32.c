/* Matrix products of few tokens with 32-element blocks: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.
 *
 * Eight rows go side by side: their codes of one block are unpacked once, and for each token eight integer sums come
 * out of one tree into the lanes of one vector, where one fused multiply-add serves eight outputs.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. Codes are either unsigned, at most 31, with an offset that the activation's sum takes off in integers; or
 * signed, and then their sign moves to the activation, whose codes are never -128. Pairs of products fit int16 for all
 * byte values: 2 * 31 * 127 and 2 * 128 * 127 (|-128| is 128 as an unsigned byte) are below 2^15.
 *   2. Rows missing from a last group of eight are stood in for by the last row; their lanes are not stored.
 *   3. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/avx2_ahead.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_math.h"
#include "quant/unpack.h"

_Static_assert(2 * 128 * 127 <= INT16_MAX, "a pair of signed products fits int16");
_Static_assert(2 * 31 * 127 <= INT16_MAX, "a pair of unsigned products fits int16");

enum {
    ROWS = 8,
    TOKENS = 8,             /* tokens that share one unpacking */
    WEIGHT_BYTES = 64 << 10 /* rows that stay in the second-level cache while all tokens pass */
};

/* 32 codes of one block. */
typedef __m256i codes_fn(const uint8_t *block);

/* What distinguishes the formats. Constant in every use. */
typedef struct block_format {
    codes_fn *codes;
    size_t block_bytes;
    int offset;          /* of unsigned codes */
    bool is_signed;      /* codes are signed: no offset */
    bool has_minimum;    /* a second scale follows the first */
    bool has_e8m0_scale; /* the scale is a power of two in one byte */
} block_format;

SL_ALWAYS_INLINE __m256i nibbles_of(const uint8_t *nibbles)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)nibbles);
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(0x0f));
}

/* 0x10 in byte j where bit j is set. */
SL_ALWAYS_INLINE __m256i fifth_bits_of(const uint8_t high_bits[4])
{
    int32_t bits;
    memcpy(&bits, high_bits, sizeof bits);
    const __m256i byte_of = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3,
                                             3, 3, 3, 3, 3, 3, 3);
    const __m256i bit_of = _mm256_set1_epi64x((long long)UINT64_C(0x8040201008040201));
    __m256i spread = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), byte_of), bit_of);
    return _mm256_and_si256(_mm256_cmpeq_epi8(spread, bit_of), _mm256_set1_epi8(0x10));
}

SL_ALWAYS_INLINE __m256i codes_q4_0(const uint8_t *block)
{
    return nibbles_of(block + offsetof(sl_block_q4_0, nibbles));
}

SL_ALWAYS_INLINE __m256i codes_q4_1(const uint8_t *block)
{
    return nibbles_of(block + offsetof(sl_block_q4_1, nibbles));
}

SL_ALWAYS_INLINE __m256i codes_q5_0(const uint8_t *block)
{
    return _mm256_or_si256(nibbles_of(block + offsetof(sl_block_q5_0, nibbles)),
                           fifth_bits_of(block + offsetof(sl_block_q5_0, high_bits)));
}

SL_ALWAYS_INLINE __m256i codes_q5_1(const uint8_t *block)
{
    return _mm256_or_si256(nibbles_of(block + offsetof(sl_block_q5_1, nibbles)),
                           fifth_bits_of(block + offsetof(sl_block_q5_1, high_bits)));
}

SL_ALWAYS_INLINE __m256i codes_q8_0(const uint8_t *block)
{
    return _mm256_loadu_si256((const __m256i *)(block + offsetof(sl_block_q8_0, q)));
}

SL_ALWAYS_INLINE __m256i look_up(const int8_t table[16], __m256i indices)
{
    __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    return _mm256_shuffle_epi8(values, indices);
}

SL_ALWAYS_INLINE __m256i codes_iq4_nl(const uint8_t *block)
{
    return look_up(sl_iq4_nl_values, nibbles_of(block + offsetof(sl_block_iq4_nl, nibbles)));
}

/* Shifted by 12 to be unsigned. */
SL_ALWAYS_INLINE __m256i codes_mxfp4(const uint8_t *block)
{
    __m256i values = look_up(sl_mxfp4_doubled_values, nibbles_of(block + offsetof(sl_block_mxfp4, nibbles)));
    return _mm256_add_epi8(values, _mm256_set1_epi8(12));
}

static const block_format format_q4_0 = {codes_q4_0, sizeof(sl_block_q4_0), 8, false, false, false};
static const block_format format_q4_1 = {codes_q4_1, sizeof(sl_block_q4_1), 0, false, true, false};
static const block_format format_q5_0 = {codes_q5_0, sizeof(sl_block_q5_0), 16, false, false, false};
static const block_format format_q5_1 = {codes_q5_1, sizeof(sl_block_q5_1), 0, false, true, false};
static const block_format format_q8_0 = {codes_q8_0, sizeof(sl_block_q8_0), 0, true, false, false};
static const block_format format_iq4_nl = {codes_iq4_nl, sizeof(sl_block_iq4_nl), 0, true, false, false};
static const block_format format_mxfp4 = {codes_mxfp4, sizeof(sl_block_mxfp4), 12, false, false, true};

/* The 16-bit scales at `offset` of one block in eight rows. */
SL_ALWAYS_INLINE __m256 half_scales(const uint8_t *const row[ROWS], size_t offset)
{
    uint16_t halves[ROWS];
    for (int r = 0; r < ROWS; r++) {
        memcpy(&halves[r], row[r] + offset, sizeof halves[r]);
    }
    return _mm256_cvtph_ps(_mm_setr_epi16((short)halves[0], (short)halves[1], (short)halves[2], (short)halves[3],
                                          (short)halves[4], (short)halves[5], (short)halves[6], (short)halves[7]));
}

/* See sl_e8m0_half. */
SL_ALWAYS_INLINE __m256 e8m0_scales(const uint8_t *const row[ROWS], size_t offset)
{
    int32_t bytes[ROWS];
    for (int r = 0; r < ROWS; r++) {
        bytes[r] = row[r][offset];
    }
    __m256i exponents = _mm256_loadu_si256((const __m256i *)bytes);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(exponents, _mm256_set1_epi32(1)), 23);
    __m256i denormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), exponents);
    __m256i is_denormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), exponents);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, denormal, is_denormal));
}

/* Lane r: the products of row r's codes with the activation's, offset and all. */
SL_ALWAYS_INLINE __m256i integer_sums(const block_format format, const __m256i codes[ROWS],
                                      const sl_block_act_q8_32 *activation)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i y = _mm256_loadu_si256((const __m256i *)activation->q);
    __m256i products[ROWS];
    for (int r = 0; r < ROWS; r++) {
        __m256i pairs = format.is_signed
                            ? _mm256_maddubs_epi16(_mm256_abs_epi8(codes[r]), _mm256_sign_epi8(y, codes[r]))
                            : _mm256_maddubs_epi16(codes[r], y);
        products[r] = _mm256_madd_epi16(pairs, ones);
    }
    __m256i sums = sl_avx2_sum_eight(products);
    if (format.offset != 0) {
        sums = _mm256_sub_epi32(sums, _mm256_set1_epi32(format.offset * activation->sum));
    }
    return sums;
}

/* Eight rows with n_tokens tokens, at most TOKENS; lanes of sums[t] are rows. */
SL_ALWAYS_INLINE void multiply_eight_rows(const block_format format, const uint8_t *const row[ROWS], uint32_t n_blocks,
                                          const uint8_t *activations, size_t activation_stride, uint32_t n_tokens,
                                          sl_ahead ahead, __m256 sums[TOKENS])
{
    for (uint32_t t = 0; t < n_tokens; t++) {
        sums[t] = _mm256_setzero_ps();
    }
    for (uint32_t b = 0; b < n_blocks; b++) {
        size_t at = b * format.block_bytes;
        __m256i codes[ROWS];
#pragma GCC unroll 8
        for (uint32_t r = 0; r < ROWS; r++) {
            sl_ahead_prefetch(&ahead, ROWS * format.block_bytes, r, ROWS);
            codes[r] = format.codes(row[r] + at);
        }
        __m256 d = format.has_e8m0_scale ? e8m0_scales(row, at) : half_scales(row, at);
        __m256 m = format.has_minimum ? half_scales(row, at + sizeof(uint16_t)) : _mm256_setzero_ps();
        for (uint32_t t = 0; t < n_tokens; t++) {
            const sl_block_act_q8_32 *activation =
                (const sl_block_act_q8_32 *)(const void *)(activations + t * activation_stride) + b;
            __m256 d_x = _mm256_set1_ps(activation->d);
            __m256 integers = _mm256_cvtepi32_ps(integer_sums(format, codes, activation));
            sums[t] = _mm256_fmadd_ps(_mm256_mul_ps(d, d_x), integers, sums[t]);
            if (format.has_minimum) {
                __m256 sum_x = _mm256_set1_ps((float)activation->sum);
                sums[t] = _mm256_fmadd_ps(_mm256_mul_ps(m, d_x), sum_x, sums[t]);
            }
        }
        sl_ahead_move(&ahead, ROWS * format.block_bytes);
    }
}

SL_ALWAYS_INLINE void store_rows(__m256 sums, uint32_t n_rows, float *out)
{
    if (n_rows >= ROWS) {
        _mm256_storeu_ps(out, sums);
        return;
    }
    float lanes[ROWS];
    _mm256_storeu_ps(lanes, sums);
    memcpy(out, lanes, n_rows * sizeof *out);
}

/* The rows from `first` to `end` with all tokens. */
SL_ALWAYS_INLINE void multiply_group(const block_format format, const uint8_t *weights, size_t row_bytes,
                                     uint32_t n_blocks, uint32_t first, uint32_t end, const uint8_t *activations,
                                     size_t activation_stride, uint32_t n_tokens, float *out, size_t out_stride)
{
    for (uint32_t t = 0; t < n_tokens; t += TOKENS) {
        uint32_t n = n_tokens - t < TOKENS ? n_tokens - t : TOKENS;
        const uint8_t *x = activations + t * activation_stride;
        for (uint32_t i = 0; i < n; i++) {
            sl_ahead_outputs(out + (t + i) * out_stride + first, end - first);
        }
        for (uint32_t r = first; r < end; r += ROWS) {
            uint32_t n_rows = end - r < ROWS ? end - r : ROWS;
            const uint8_t *row[ROWS];
            for (uint32_t i = 0; i < ROWS; i++) {
                row[i] = weights + (r + (i < n_rows ? i : n_rows - 1)) * row_bytes;
            }
            const sl_ahead ahead = sl_ahead_of(row[0], (ROWS - 1) * row_bytes);
            __m256 sums[TOKENS];
            if (n == 1) {
                multiply_eight_rows(format, row, n_blocks, x, activation_stride, 1, ahead, sums);
            } else {
                multiply_eight_rows(format, row, n_blocks, x, activation_stride, n, ahead, sums);
            }
            for (uint32_t i = 0; i < n; i++) {
                store_rows(sums[i], n_rows, out + (t + i) * out_stride + r);
            }
        }
    }
}

#define DEFINE_MATMUL_ONE(type)                                                                                        \
    void sl_avx2_matmul_one_##type(const void *weights, size_t row_bytes, uint32_t n_columns, uint32_t first_row,      \
                                   uint32_t end_row, const void *activations, size_t activation_stride,                \
                                   uint32_t n_tokens, float *out, size_t out_stride)                                   \
    {                                                                                                                  \
        uint32_t group = (uint32_t)(WEIGHT_BYTES / (row_bytes + 1)) / ROWS * ROWS + ROWS;                              \
        for (uint32_t first = first_row; first < end_row;) {                                                           \
            uint32_t end = end_row - first < group ? end_row : first + group;                                          \
            multiply_group(format_##type, weights, row_bytes, n_columns / SL_QK, first, end, activations,              \
                           activation_stride, n_tokens, out, out_stride);                                              \
            first = end;                                                                                               \
        }                                                                                                              \
    }

DEFINE_MATMUL_ONE(q4_0)
DEFINE_MATMUL_ONE(q4_1)
DEFINE_MATMUL_ONE(q5_0)
DEFINE_MATMUL_ONE(q5_1)
DEFINE_MATMUL_ONE(q8_0)
DEFINE_MATMUL_ONE(iq4_nl)
DEFINE_MATMUL_ONE(mxfp4)
