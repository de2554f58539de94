/* Matrix products of few tokens with 256-element blocks: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS.
 *
 * A block of four rows is a step (avx512_one.h). A row's 256 codes are four vectors, in whatever order unpacking leaves
 * them: the activation is put into that order once for all rows.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. Codes are unsigned; what they are too high by comes off in integers, through the activation's sums, of which `side`
 *      holds scale times offset: at most 128 * 32 in magnitude, which fits int16.
 *   2. Codes of up to 63 are multiplied in pairs, which fit int16: 2 * 63 * 127 < 2^15; then with their scale into int32.
 *      Those of IQ4_XS, up to 255, are summed by four in int32 first.
 *   3. All sums are exact in int32: avx512_blocks256.c has the proof.
 *   4. Rows missing from a last step are stood in for by the last row; their lanes are not stored.
 *   5. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_one.h"
#include "quant/unpack.h"

_Static_assert(2 * 63 * 127 <= INT16_MAX, "a pair of products fits int16");

enum {
    BLOCK_ELEMENTS = SL_QK_K,
    STEP_BLOCKS = 1,
    PASS_STEPS = 64,
    FEW_TOKENS = 4,
    VECTORS = 4, /* of 64 codes in a block */
    GROUPS = 16  /* of 16 codes in a block, one in every 128-bit lane of its vectors */
};

typedef sl_block_act_q8_256 activation_block;

/* What a block has beside its codes, for four rows. With a scale for 32 codes a row has eight int16 in 128-bit lane r of
 * the first vector, else sixteen in half r % 2 of vector r / 2. */
typedef struct unpacked_header {
    __m512i scales[2];
    __m512i side[2]; /* like the scales: minima, or scales times offset */
    __m128 d;
    __m128 dmin;
} unpacked_header;

typedef void header_fn(const uint8_t *const row[SL_ONE_ROWS], unpacked_header *header);
typedef void codes_fn(const uint8_t *block, __m512i codes[VECTORS]);

/* What distinguishes the formats. Constant in every use. */
typedef struct block_format {
    header_fn *header;
    codes_fn *codes;
    const uint8_t *order; // [GROUPS]: which 16 codes each lane of the vectors holds
    size_t block_bytes;
    int codes_per_scale; /* 16 or 32 */
    bool has_minimum;    /* side holds minima */
    bool has_offset;     /* side holds scales times offset */
    bool is_wide;        /* codes up to 255; lane l of vectors 2 i and 2 i + 1 has scale 4 i + l */
} block_format;

/* One block of the activation. */
typedef struct prepared_step {
    _Alignas(64) int8_t q[BLOCK_ELEMENTS]; /* in the order of the codes */
    _Alignas(32) int16_t sums[GROUPS];     /* one for each scale */
    float d;
} prepared_step;

SL_ALWAYS_INLINE void prepare(const block_format format, const activation_block *x, uint32_t n_blocks,
                              prepared_step *steps)
{
    for (uint32_t b = 0; b < n_blocks; b++) {
        for (int g = 0; g < GROUPS; g++) {
            memcpy(steps[b].q + 16 * g, x[b].q + 16 * format.order[g], 16);
        }
        if (format.codes_per_scale == 16) {
            memcpy(steps[b].sums, x[b].sums, sizeof steps[b].sums);
        } else {
            for (int g = 0; g < GROUPS / 2; g++) {
                steps[b].sums[g] = (int16_t)(x[b].sums[2 * g] + x[b].sums[2 * g + 1]);
            }
        }
        steps[b].d = x[b].d;
    }
}

SL_ALWAYS_INLINE __m512i load64(const uint8_t *bytes)
{
    return _mm512_loadu_si512(bytes);
}

/* 32 bytes, twice. */
SL_ALWAYS_INLINE __m512i load32_twice(const uint8_t *bytes)
{
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)bytes));
}

SL_ALWAYS_INLINE __m512i two_halves(__m256i low, __m256i high)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* The first word of every row's lane. */
SL_ALWAYS_INLINE __m128i first_words(__m512i lanes)
{
    const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    return _mm512_castsi512_si128(_mm512_permutexvar_epi32(first, lanes));
}

/* The low halves of four words as F16. */
SL_ALWAYS_INLINE __m128 low_halves(__m128i words)
{
    return _mm_cvtph_ps(
        _mm_shuffle_epi8(words, _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1)));
}

SL_ALWAYS_INLINE __m128i words_at(const uint8_t *const row[SL_ONE_ROWS], size_t offset)
{
    int32_t words[SL_ONE_ROWS];
    for (int r = 0; r < SL_ONE_ROWS; r++) {
        memcpy(&words[r], row[r] + offset, sizeof words[r]);
    }
    return _mm_setr_epi32(words[0], words[1], words[2], words[3]);
}

/* Sixteen bytes a row become sixteen int16 a row. */
SL_ALWAYS_INLINE void widen(__m512i bytes, __m512i words[2])
{
    words[0] = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(bytes));
    words[1] = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(bytes, 1));
}

/* What scales take off for codes that are 2^shift too high. */
SL_ALWAYS_INLINE void set_offset(unpacked_header *header, int shift)
{
    header->side[0] = _mm512_slli_epi16(header->scales[0], (unsigned)shift);
    header->side[1] = _mm512_slli_epi16(header->scales[1], (unsigned)shift);
}

/* Q4_K and Q5_K; see sl_k_scale_and_minimum. */
SL_ALWAYS_INLINE void header_k(const uint8_t *const row[SL_ONE_ROWS], unpacked_header *header)
{
    const __m512i nibble = _mm512_set1_epi8(0x0f);
    __m512i packed = sl_one_load(row, offsetof(sl_block_q4_k, d));
    __m512i low = _mm512_and_si512(packed, _mm512_set1_epi8(0x3f));
    /* Words 1 and 2 of a lane: four low bits each of the last four scales and minima. */
    __m512i last = _mm512_srlv_epi32(_mm512_shuffle_epi32(packed, 0xff), _mm512_set4_epi32(0, 4, 0, 0));
    __m512i high = _mm512_or_si512(_mm512_and_si512(last, nibble), sl_one_shift_right(packed, 2, 0x30));
    header->scales[0] = _mm512_unpackhi_epi8(_mm512_unpacklo_epi32(low, high), _mm512_setzero_si512());
    header->side[0] = _mm512_unpacklo_epi8(_mm512_unpackhi_epi32(low, high), _mm512_setzero_si512());
    __m128i halves = first_words(packed);
    header->d = low_halves(halves);
    header->dmin = low_halves(_mm_srli_epi32(halves, 16));
}

SL_ALWAYS_INLINE void header_q2_k(const uint8_t *const row[SL_ONE_ROWS], unpacked_header *header)
{
    __m512i packed = sl_one_load(row, offsetof(sl_block_q2_k, scales));
    widen(sl_one_shift_right(packed, 0, 0x0f), header->scales);
    widen(sl_one_shift_right(packed, 4, 0x0f), header->side);
    __m128i halves = words_at(row, offsetof(sl_block_q2_k, d));
    header->d = low_halves(halves);
    header->dmin = low_halves(_mm_srli_epi32(halves, 16));
}

/* The last 16 bytes of a block are two of its codes, its 12 bytes of scales and d; see sl_q3_k_scale. */
SL_ALWAYS_INLINE void header_q3_k(const uint8_t *const row[SL_ONE_ROWS], unpacked_header *header)
{
    __m512i tail = sl_one_load(row, sizeof(sl_block_q3_k) - 16);
    const __m512i low_places = _mm512_broadcast_i32x4(_mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9));
    const __m512i high_places =
        _mm512_broadcast_i32x4(_mm_setr_epi8(10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13));
    __m512i low = _mm512_srlv_epi32(_mm512_shuffle_epi8(tail, low_places), _mm512_set4_epi32(4, 4, 0, 0));
    __m512i high = _mm512_rolv_epi32(_mm512_shuffle_epi8(tail, high_places), _mm512_set4_epi32(30, 0, 2, 4));
    __m512i scales =
        _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(0x0f)), _mm512_and_si512(high, _mm512_set1_epi8(0x30)));
    widen(_mm512_sub_epi8(scales, _mm512_set1_epi8(32)), header->scales);
    set_offset(header, 2);
    header->d = low_halves(first_words(_mm512_bsrli_epi128(tail, 14)));
}

SL_ALWAYS_INLINE void header_q6_k(const uint8_t *const row[SL_ONE_ROWS], unpacked_header *header)
{
    widen(sl_one_load(row, offsetof(sl_block_q6_k, scales)), header->scales);
    set_offset(header, 5);
    header->d = low_halves(_mm_srli_epi32(words_at(row, offsetof(sl_block_q6_k, d) - 2), 16));
}

/* See sl_iq4_xs_scale. */
SL_ALWAYS_INLINE void header_iq4_xs(const uint8_t *const row[SL_ONE_ROWS], unpacked_header *header)
{
    const __m512i nibble = _mm512_set1_epi8(0x0f);
    __m512i packed = sl_one_load(row, 0);
    __m512i even = _mm512_and_si512(packed, nibble);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble);
    __m512i low = _mm512_unpackhi_epi8(_mm512_unpacklo_epi8(even, odd), _mm512_setzero_si512());
    __m512i pairs = _mm512_shuffle_epi8(packed, _mm512_set1_epi16(0x0302));
    const __m512i to_top = _mm512_broadcast_i32x4(_mm_setr_epi16(14, 12, 10, 8, 6, 4, 2, 0));
    __m512i high = _mm512_srli_epi16(_mm512_sllv_epi16(pairs, to_top), 14);
    header->scales[0] = _mm512_sub_epi16(_mm512_or_si512(low, _mm512_slli_epi16(high, 4)), _mm512_set1_epi16(32));
    header->side[0] = _mm512_slli_epi16(header->scales[0], 7);
    header->d = low_halves(first_words(packed));
}

/* 64 bytes are the low and the high nibbles of 128 codes. */
SL_ALWAYS_INLINE void take_nibbles(const uint8_t *nibbles, __m512i codes[VECTORS])
{
    for (int half = 0; half < 2; half++) {
        __m512i bytes = load64(nibbles + 64 * half);
        codes[2 * half] = sl_one_shift_right(bytes, 0, 0x0f);
        codes[2 * half + 1] = sl_one_shift_right(bytes, 4, 0x0f);
    }
}

SL_ALWAYS_INLINE void take_two_bits(const uint8_t *planes, __m512i codes[VECTORS])
{
    __m512i bytes = load64(planes);
    for (int plane = 0; plane < VECTORS; plane++) {
        codes[plane] = sl_one_shift_right(bytes, 2 * plane, 0x03);
    }
}

/* Bit `to` of the codes, set where bit `low` of 32 bytes is, in the lower half, or bit `high`, in the upper half. */
SL_ALWAYS_INLINE __m512i add_bit(__m512i codes, __m512i bytes, int low, int high, int to)
{
    __m512i bits = two_halves(_mm256_set1_epi8((char)(1 << low)), _mm256_set1_epi8((char)(1 << high)));
    __mmask64 set = _mm512_test_epi8_mask(bytes, bits);
    return _mm512_mask_add_epi8(codes, set, codes, _mm512_set1_epi8((char)(1 << to)));
}

SL_ALWAYS_INLINE void codes_q2_k(const uint8_t *block, __m512i codes[VECTORS])
{
    take_two_bits(block + offsetof(sl_block_q2_k, q), codes);
}

SL_ALWAYS_INLINE void codes_q3_k(const uint8_t *block, __m512i codes[VECTORS])
{
    take_two_bits(block + offsetof(sl_block_q3_k, q), codes);
    __m512i high = load32_twice(block + offsetof(sl_block_q3_k, high_mask));
    for (int plane = 0; plane < VECTORS; plane++) {
        codes[plane] = add_bit(codes[plane], high, plane, plane + 4, 2);
    }
}

SL_ALWAYS_INLINE void codes_q4_k(const uint8_t *block, __m512i codes[VECTORS])
{
    take_nibbles(block + offsetof(sl_block_q4_k, q), codes);
}

SL_ALWAYS_INLINE void codes_q5_k(const uint8_t *block, __m512i codes[VECTORS])
{
    take_nibbles(block + offsetof(sl_block_q5_k, q), codes);
    __m512i high = load32_twice(block + offsetof(sl_block_q5_k, high_bits));
    for (int half = 0; half < 2; half++) {
        codes[2 * half] = add_bit(codes[2 * half], high, 4 * half, 4 * half + 2, 4);
        codes[2 * half + 1] = add_bit(codes[2 * half + 1], high, 4 * half + 1, 4 * half + 3, 4);
    }
}

SL_ALWAYS_INLINE void codes_q6_k(const uint8_t *block, __m512i codes[VECTORS])
{
    const __m512i top = _mm512_set1_epi8(0x30);
    const __m512i left = two_halves(_mm256_set1_epi16(4), _mm256_set1_epi16(2));
    const __m512i right = two_halves(_mm256_setzero_si256(), _mm256_set1_epi16(2));
    take_nibbles(block + offsetof(sl_block_q6_k, low), codes);
    for (int half = 0; half < 2; half++) {
        __m512i high = load32_twice(block + offsetof(sl_block_q6_k, high) + 32 * half);
        codes[2 * half] = _mm512_or_si512(codes[2 * half], _mm512_and_si512(_mm512_sllv_epi16(high, left), top));
        codes[2 * half + 1] =
            _mm512_or_si512(codes[2 * half + 1], _mm512_and_si512(_mm512_srlv_epi16(high, right), top));
    }
}

/* The values are shifted by 128 to be unsigned. */
SL_ALWAYS_INLINE void codes_iq4_xs(const uint8_t *block, __m512i codes[VECTORS])
{
    __m512i values = _mm512_xor_si512(_mm512_broadcast_i32x4(sl_tile_load16((const uint8_t *)sl_iq4_nl_values)),
                                      _mm512_set1_epi8((char)0x80));
    take_nibbles(block + offsetof(sl_block_iq4_xs, nibbles), codes);
    for (int v = 0; v < VECTORS; v++) {
        codes[v] = _mm512_shuffle_epi8(values, codes[v]);
    }
}

/* Where unpacking leaves the 16 groups of 16 codes. */
static const uint8_t planes_order[GROUPS] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};
static const uint8_t runs_order[GROUPS] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
static const uint8_t halves_order[GROUPS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const uint8_t pairs_order[GROUPS] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};

static const block_format format_q2_k = {header_q2_k, codes_q2_k, planes_order, sizeof(sl_block_q2_k),
                                         16,          true,       false,        false};
static const block_format format_q3_k = {header_q3_k, codes_q3_k, planes_order, sizeof(sl_block_q3_k),
                                         16,          false,      true,         false};
static const block_format format_q4_k = {header_k, codes_q4_k, runs_order, sizeof(sl_block_q4_k),
                                         32,       true,       false,      false};
static const block_format format_q5_k = {header_k, codes_q5_k, runs_order, sizeof(sl_block_q5_k),
                                         32,       true,       false,      false};
static const block_format format_q6_k = {header_q6_k, codes_q6_k, halves_order, sizeof(sl_block_q6_k),
                                         16,          false,      true,         false};
static const block_format format_iq4_xs = {header_iq4_xs, codes_iq4_xs, pairs_order, sizeof(sl_block_iq4_xs), 32,
                                           false,         true,         true};

/* The scales of row r, in all lanes or both halves. */
SL_ALWAYS_INLINE __m512i scales_of(const block_format format, const unpacked_header *header, int r)
{
    if (format.codes_per_scale == 16) {
        __m512i two = header->scales[r / 2];
        return r % 2 == 0 ? _mm512_shuffle_i64x2(two, two, 0x44) : _mm512_shuffle_i64x2(two, two, 0xee);
    }
    __m512i rows = header->scales[0];
    return r == 0   ? _mm512_shuffle_i32x4(rows, rows, 0x00)
           : r == 1 ? _mm512_shuffle_i32x4(rows, rows, 0x55)
           : r == 2 ? _mm512_shuffle_i32x4(rows, rows, 0xaa)
                    : _mm512_shuffle_i32x4(rows, rows, 0xff);
}

/* The scale of each int16 of vector v, of what scales_of gave. */
SL_ALWAYS_INLINE __m512i scales_of_vector(const block_format format, __m512i scales, int v)
{
    int place[4];
    for (int lane = 0; lane < 4; lane++) {
        place[lane] = format.order[4 * v + lane] / (format.codes_per_scale / 16);
        if (format.codes_per_scale == 32) {
            place[lane] = 0x0100 + 0x0202 * place[lane]; /* as bytes: every lane holds all eight */
        }
    }
    __m512i places = two_halves(_mm256_set_m128i(_mm_set1_epi16((short)place[1]), _mm_set1_epi16((short)place[0])),
                                _mm256_set_m128i(_mm_set1_epi16((short)place[3]), _mm_set1_epi16((short)place[2])));
    return format.codes_per_scale == 32 ? _mm512_shuffle_epi8(scales, places)
                                        : _mm512_permutexvar_epi16(places, scales);
}

/* The products of row r's block with token t, with their scales, in sixteen lanes of products[t][r]. */
SL_ALWAYS_INLINE void multiply_row(const block_format format, const uint8_t *block, __m512i scales,
                                   const prepared_step *const x[FEW_TOKENS], const uint32_t n_tokens,
                                   const sl_ahead *ahead, uint32_t r, __m512i products[FEW_TOKENS][SL_ONE_ROWS])
{
    __m512i codes[VECTORS];
    format.codes(block, codes);
    const size_t step_bytes = SL_ONE_ROWS * format.block_bytes;
    for (uint32_t t = 0; t < n_tokens; t++) {
        products[t][r] = _mm512_setzero_si512();
    }
    if (format.is_wide) {
        __m512i wide = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(scales));
#pragma GCC unroll 2
        for (uint32_t i = 0; i < VECTORS / 2; i++) {
            sl_ahead_prefetch_once(ahead, step_bytes, VECTORS / 2 * r + i, VECTORS / 2 * SL_ONE_ROWS);
            const int f = 4 * (int)i;
            __m512i place = _mm512_setr_epi32(f, f, f, f, f + 1, f + 1, f + 1, f + 1, f + 2, f + 2, f + 2, f + 2, f + 3,
                                              f + 3, f + 3, f + 3);
            __m512i scale = _mm512_permutexvar_epi32(place, wide);
            for (uint32_t t = 0; t < n_tokens; t++) {
                const __m512i *q = (const __m512i *)x[t]->q;
                __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes[2 * i], q[2 * i]);
                dot = _mm512_dpbusd_epi32(dot, codes[2 * i + 1], q[2 * i + 1]);
                products[t][r] = _mm512_add_epi32(products[t][r], _mm512_mullo_epi32(dot, scale));
            }
        }
        return;
    }
#pragma GCC unroll 4
    for (uint32_t v = 0; v < VECTORS; v++) {
        sl_ahead_prefetch_once(ahead, step_bytes, VECTORS * r + v, VECTORS * SL_ONE_ROWS);
        __m512i scale = scales_of_vector(format, scales, (int)v);
        for (uint32_t t = 0; t < n_tokens; t++) {
            __m512i pairs = _mm512_maddubs_epi16(codes[v], ((const __m512i *)x[t]->q)[v]);
            products[t][r] = _mm512_dpwssd_epi32(products[t][r], pairs, scale);
        }
    }
}

/* The products of side and the activation's sums, one sum for each row. */
SL_ALWAYS_INLINE __m128i multiply_side(const block_format format, const unpacked_header *header, const prepared_step *x)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i lanes; /* of four partial sums a row */
    if (format.codes_per_scale == 16) {
        __m512i sums = _mm512_broadcast_i64x4(_mm256_load_si256((const __m256i *)x->sums));
        __m512i first = _mm512_dpwssd_epi32(zero, header->side[0], sums);
        __m512i second = _mm512_dpwssd_epi32(zero, header->side[1], sums);
        lanes = _mm512_add_epi32(_mm512_shuffle_i32x4(first, second, 0x88), _mm512_shuffle_i32x4(first, second, 0xdd));
    } else {
        __m512i sums = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)x->sums));
        lanes = _mm512_dpwssd_epi32(zero, header->side[0], sums);
    }
    lanes = _mm512_add_epi32(lanes, _mm512_shuffle_epi32(lanes, 0xb1));
    return first_words(_mm512_add_epi32(lanes, _mm512_shuffle_epi32(lanes, 0x4e)));
}

SL_ALWAYS_INLINE void multiply_step(const block_format format, const uint8_t *const row[SL_ONE_ROWS], uint32_t n_blocks,
                                    const prepared_step *const x[FEW_TOKENS], const uint32_t n_tokens,
                                    const sl_ahead *ahead, __m128 sums[FEW_TOKENS])
{
    (void)n_blocks;
    unpacked_header header;
    format.header(row, &header);
    __m512i products[FEW_TOKENS][SL_ONE_ROWS];
#pragma GCC unroll 4
    for (uint32_t r = 0; r < SL_ONE_ROWS; r++) {
        multiply_row(format, row[r], scales_of(format, &header, (int)r), x, n_tokens, ahead, r, products);
    }
    for (uint32_t t = 0; t < n_tokens; t++) {
        __m512i lanes = sl_one_sum_lanes(products[t]);
        __m256i halves = _mm256_add_epi32(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64(lanes, 1));
        __m128i integers = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
        __m128i side = multiply_side(format, &header, x[t]);
        if (format.has_offset) {
            integers = _mm_sub_epi32(integers, side);
        }
        __m128 d_x = _mm_set1_ps(x[t]->d);
        sums[t] = _mm_fmadd_ps(_mm_mul_ps(header.d, d_x), _mm_cvtepi32_ps(integers), sums[t]);
        if (format.has_minimum) {
            sums[t] = _mm_fnmadd_ps(_mm_mul_ps(header.dmin, d_x), _mm_cvtepi32_ps(side), sums[t]);
        }
    }
}

#include "kernels/x86/avx512_one.inc"

DEFINE_MATMUL_ONE(q2_k)
DEFINE_MATMUL_ONE(q3_k)
DEFINE_MATMUL_ONE(q4_k)
DEFINE_MATMUL_ONE(q5_k)
DEFINE_MATMUL_ONE(q6_k)
DEFINE_MATMUL_ONE(iq4_xs)
