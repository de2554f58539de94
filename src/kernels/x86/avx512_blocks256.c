/* Matrix products with 256-element blocks: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS.
 *
 * A block of sixteen rows is turned so that rows are lanes (avx512_tile.h) before it is unpacked, which is then done for
 * all rows at once; what was unpacked serves up to SL_TILE_PASS tokens, eight at a time in registers. One token goes
 * to avx512_one256.c, which takes fewer rows at a time.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. Codes are unsigned; what they are too high by comes off in integers, through the activation's group sums, of which
 *      `side` holds scale times offset: at most 128 * 32 in magnitude, which fits int16.
 *   2. All sums are exact in int32: 256 * 128 * 63 * 127 for offsets of 32 and less, 256 * 32 * 255 * 127 for IQ4_XS, and
 *      16 * 4096 * 16 * 127 for what comes off, are below 2^31 and so are their differences.
 *   3. Rows missing from a last tile are stood in for by the last row; their lanes are not stored.
 *   4. No byte outside the rows is read; prefetches may lie anywhere.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_tile.h"
#include "quant/unpack.h"

_Static_assert(256LL * 128 * 63 * 127 + 16LL * 4096 * 16 * 127 <= INT32_MAX, "sums of offsets up to 32 fit int32");
_Static_assert(256LL * 32 * 255 * 127 + 16LL * 4096 * 16 * 127 <= INT32_MAX, "sums of IQ4_XS fit int32");

#include "kernels/x86/avx512_tile256.inc"

/* Eight words of 32 bytes. */
SL_ALWAYS_INLINE void take_group(const uint8_t *const row[SL_TILE_ROWS], size_t offset, __m512i words[STEPS])
{
    sl_tile_words(row, offset, words);
    sl_tile_words(row, offset + 16, words + 4);
}

/* Byte i of every word, as int32. */
SL_ALWAYS_INLINE __m512i byte_of(__m512i words, int i)
{
    return _mm512_and_si512(_mm512_srli_epi32(words, (unsigned)(8 * i)), _mm512_set1_epi32(0xff));
}

SL_ALWAYS_INLINE __m512i signed_byte_of(__m512i words, int i)
{
    return _mm512_srai_epi32(_mm512_slli_epi32(words, (unsigned)(24 - 8 * i)), 24);
}

/* Scales of 16 codes each, and what their offset of 2^shift takes off. */
SL_ALWAYS_INLINE void set_scales16(unpacked_tile *tile, int group, __m512i first, __m512i second, int shift)
{
    tile->scales[2 * group] = first;
    tile->scales[2 * group + 1] = second;
    tile->side[group] = pair_of(_mm512_slli_epi32(first, (unsigned)shift), _mm512_slli_epi32(second, (unsigned)shift));
}

/* What Q4_K and Q5_K begin with: d, dmin and the packed scales; see sl_k_scale_and_minimum. */
SL_ALWAYS_INLINE void unpack_header(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    __m512i words[4];
    sl_tile_words(row, offsetof(sl_block_q4_k, d), words);
    tile->d = sl_tile_halves(words[0]);
    tile->dmin = sl_tile_halves(_mm512_srli_epi32(words[0], 16));
    __m512i scales[2] = {
        sl_tile_shift_right(words[1], 0, 0x3f),
        _mm512_or_si512(sl_tile_shift_right(words[3], 0, 0x0f), sl_tile_shift_right(words[1], 2, 0x30))};
    __m512i minima[2] = {
        sl_tile_shift_right(words[2], 0, 0x3f),
        _mm512_or_si512(sl_tile_shift_right(words[3], 4, 0x0f), sl_tile_shift_right(words[2], 2, 0x30))};
    for (int g = 0; g < GROUPS; g++) {
        __m512i minimum = byte_of(minima[g / 4], g % 4);
        tile->scales[g] = byte_of(scales[g / 4], g % 4);
        tile->side[g] = pair_of(minimum, minimum);
    }
}

SL_ALWAYS_INLINE void unpack_nibbles(const uint8_t *const row[SL_TILE_ROWS], size_t offset, unpacked_tile *tile)
{
    for (int run = 0; run < GROUPS / 2; run++) {
        __m512i words[STEPS];
        take_group(row, offset + 32 * (size_t)run, words);
        for (int s = 0; s < STEPS; s++) {
            tile->codes[2 * run][s] = sl_tile_shift_right(words[s], 0, 0x0f);
            tile->codes[2 * run + 1][s] = sl_tile_shift_right(words[s], 4, 0x0f);
        }
    }
}

/* Bit g of the 32 bytes at `offset` becomes bit `to` of the codes of group g. */
SL_ALWAYS_INLINE void add_high_bits(const uint8_t *const row[SL_TILE_ROWS], size_t offset, int to, unpacked_tile *tile)
{
    __m512i words[STEPS];
    take_group(row, offset, words);
    for (int g = 0; g < GROUPS; g++) {
        for (int s = 0; s < STEPS; s++) {
            __m512i bits =
                g < to ? sl_tile_shift_left(words[s], to - g, 1 << to) : sl_tile_shift_right(words[s], g - to, 1 << to);
            tile->codes[g][s] = _mm512_or_si512(tile->codes[g][s], bits);
        }
    }
}

SL_ALWAYS_INLINE void unpack_two_bits(const uint8_t *const row[SL_TILE_ROWS], size_t offset, unpacked_tile *tile)
{
    for (int half = 0; half < 2; half++) {
        __m512i words[STEPS];
        take_group(row, offset + 32 * (size_t)half, words);
        for (int plane = 0; plane < 4; plane++) {
            for (int s = 0; s < STEPS; s++) {
                tile->codes[4 * half + plane][s] = sl_tile_shift_right(words[s], 2 * plane, 0x03);
            }
        }
    }
}

SL_ALWAYS_INLINE void unpack_q2_k(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    __m512i halves = sl_tile_word(row, offsetof(sl_block_q2_k, d));
    tile->d = sl_tile_halves(halves);
    tile->dmin = sl_tile_halves(_mm512_srli_epi32(halves, 16));
    __m512i words[4];
    sl_tile_words(row, offsetof(sl_block_q2_k, scales), words);
    for (int i = 0; i < 2 * GROUPS; i++) {
        tile->scales[i] = _mm512_and_si512(byte_of(words[i / 4], i % 4), _mm512_set1_epi32(0x0f));
    }
    for (int g = 0; g < GROUPS; g++) {
        tile->side[g] = pair_of(_mm512_srli_epi32(byte_of(words[g / 2], 2 * g % 4), 4),
                                _mm512_srli_epi32(byte_of(words[g / 2], 2 * g % 4 + 1), 4));
    }
    unpack_two_bits(row, offsetof(sl_block_q2_k, q), tile);
}

/* The last 16 bytes of a block are two of its codes, its 12 bytes of scales and d; see sl_q3_k_scale. */
SL_ALWAYS_INLINE void unpack_q3_k(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    __m512i tail[4];
    sl_tile_words(row, sizeof(sl_block_q3_k) - 16, tail);
    tile->d = sl_tile_halves(_mm512_srli_epi32(tail[3], 16));
    __m512i packed[3];
    for (int i = 0; i < 3; i++) {
        packed[i] = _mm512_or_si512(_mm512_srli_epi32(tail[i], 16), _mm512_slli_epi32(tail[i + 1], 16));
    }
    __m512i scales[4] = {
        _mm512_or_si512(sl_tile_shift_right(packed[0], 0, 0x0f), sl_tile_shift_left(packed[2], 4, 0x30)),
        _mm512_or_si512(sl_tile_shift_right(packed[1], 0, 0x0f), sl_tile_shift_left(packed[2], 2, 0x30)),
        _mm512_or_si512(sl_tile_shift_right(packed[0], 4, 0x0f), sl_tile_shift_right(packed[2], 0, 0x30)),
        _mm512_or_si512(sl_tile_shift_right(packed[1], 4, 0x0f), sl_tile_shift_right(packed[2], 2, 0x30)),
    };
    const __m512i bias = _mm512_set1_epi32(32);
    for (int g = 0; g < GROUPS; g++) {
        set_scales16(tile, g, _mm512_sub_epi32(byte_of(scales[g / 2], 2 * g % 4), bias),
                     _mm512_sub_epi32(byte_of(scales[g / 2], 2 * g % 4 + 1), bias), 2);
    }
    unpack_two_bits(row, offsetof(sl_block_q3_k, q), tile);
    add_high_bits(row, offsetof(sl_block_q3_k, high_mask), 2, tile);
}

SL_ALWAYS_INLINE void unpack_q4_k(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    unpack_header(row, tile);
    unpack_nibbles(row, offsetof(sl_block_q4_k, q), tile);
}

SL_ALWAYS_INLINE void unpack_q5_k(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    unpack_header(row, tile);
    unpack_nibbles(row, offsetof(sl_block_q5_k, q), tile);
    add_high_bits(row, offsetof(sl_block_q5_k, high_bits), 4, tile);
}

SL_ALWAYS_INLINE void unpack_q6_k(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    uint16_t halves[SL_TILE_ROWS];
    for (int i = 0; i < SL_TILE_ROWS; i++) {
        memcpy(&halves[i], row[i] + offsetof(sl_block_q6_k, d), sizeof halves[i]);
    }
    tile->d = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)halves));
    __m512i scales[4];
    sl_tile_words(row, offsetof(sl_block_q6_k, scales), scales);
    for (int g = 0; g < GROUPS; g++) {
        set_scales16(tile, g, signed_byte_of(scales[g / 2], 2 * g % 4), signed_byte_of(scales[g / 2], 2 * g % 4 + 1),
                     5);
    }
    for (int half = 0; half < 2; half++) {
        __m512i first[STEPS];
        __m512i second[STEPS];
        __m512i high[STEPS];
        take_group(row, offsetof(sl_block_q6_k, low) + 64 * (size_t)half, first);
        take_group(row, offsetof(sl_block_q6_k, low) + 64 * (size_t)half + 32, second);
        take_group(row, offsetof(sl_block_q6_k, high) + 32 * (size_t)half, high);
        for (int s = 0; s < STEPS; s++) {
            tile->codes[4 * half][s] =
                _mm512_or_si512(sl_tile_shift_right(first[s], 0, 0x0f), sl_tile_shift_left(high[s], 4, 0x30));
            tile->codes[4 * half + 1][s] =
                _mm512_or_si512(sl_tile_shift_right(second[s], 0, 0x0f), sl_tile_shift_left(high[s], 2, 0x30));
            tile->codes[4 * half + 2][s] =
                _mm512_or_si512(sl_tile_shift_right(first[s], 4, 0x0f), sl_tile_shift_right(high[s], 0, 0x30));
            tile->codes[4 * half + 3][s] =
                _mm512_or_si512(sl_tile_shift_right(second[s], 4, 0x0f), sl_tile_shift_right(high[s], 2, 0x30));
        }
    }
}

/* The values are shifted by 128 to be unsigned; see sl_iq4_xs_scale. */
SL_ALWAYS_INLINE void unpack_iq4_xs(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    __m512i header[4];
    sl_tile_words(row, 0, header);
    tile->d = sl_tile_halves(header[0]);
    __m512i high = _mm512_srli_epi32(header[0], 16);
    __m512i values = _mm512_xor_si512(_mm512_broadcast_i32x4(sl_tile_load16((const uint8_t *)sl_iq4_nl_values)),
                                      _mm512_set1_epi8((char)0x80));
    for (int g = 0; g < GROUPS; g++) {
        __m512i low_bits = _mm512_and_si512(_mm512_srli_epi32(header[1], (unsigned)(4 * g)), _mm512_set1_epi32(0x0f));
        __m512i high_bits = _mm512_and_si512(_mm512_srli_epi32(high, (unsigned)(2 * g)), _mm512_set1_epi32(0x03));
        __m512i scale =
            _mm512_sub_epi32(_mm512_or_si512(low_bits, _mm512_slli_epi32(high_bits, 4)), _mm512_set1_epi32(32));
        __m512i offset = _mm512_slli_epi32(scale, 7);
        tile->scales[g] = scale;
        tile->side[g] = pair_of(offset, offset);
        __m512i words[4];
        sl_tile_words(row, offsetof(sl_block_iq4_xs, nibbles) + 16 * (size_t)g, words);
        for (int i = 0; i < 4; i++) {
            tile->codes[g][i] = _mm512_shuffle_epi8(values, sl_tile_shift_right(words[i], 0, 0x0f));
            tile->codes[g][4 + i] = _mm512_shuffle_epi8(values, sl_tile_shift_right(words[i], 4, 0x0f));
        }
    }
}

static const block_format format_q2_k = {unpack_q2_k, sizeof(sl_block_q2_k), 16, true, false};
static const block_format format_q3_k = {unpack_q3_k, sizeof(sl_block_q3_k), 16, false, true};
static const block_format format_q4_k = {unpack_q4_k, sizeof(sl_block_q4_k), 32, true, false};
static const block_format format_q5_k = {unpack_q5_k, sizeof(sl_block_q5_k), 32, true, false};
static const block_format format_q6_k = {unpack_q6_k, sizeof(sl_block_q6_k), 16, false, true};
static const block_format format_iq4_xs = {unpack_iq4_xs, sizeof(sl_block_iq4_xs), 32, false, true};

#include "kernels/x86/avx512_matmul.inc"

DEFINE_MATMUL(q2_k)
DEFINE_MATMUL(q3_k)
DEFINE_MATMUL(q4_k)
DEFINE_MATMUL(q5_k)
DEFINE_MATMUL(q6_k)
DEFINE_MATMUL(iq4_xs)
