/* Matrix products with blocks whose weights come from a grid: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S.
 *
 * A block of sixteen rows is turned so that rows are lanes (avx512_tile.h): an index of each row stands in each lane, and one
 * gather fetches four elements for all rows. What was unpacked serves up to SL_TILE_PASS tokens, eight at a time in
 * registers. One token goes to avx512_one_grids.c, which takes one row after the other.
 *
 * Owns: nothing; equals generic/matmul_quantized.c bit for bit.
 * Invariants:
 *   1. Codes are unsigned: elements of IQ2 and IQ3 plus 64, so at most 126; of IQ1 at most 18. What they are too high by
 *      comes off in integers, through the activation's group sums, of which `offsets` holds scale times excess: at most
 *      31 * 64, which fits int16.
 *   2. All sums are exact in int32: 256 * 31 * 126 * 127 and 16 * 1984 * 16 * 127, which comes off, together are below
 *      2^31.
 *   3. Indices are cut to the bits they have, so a gather stays in its grid whatever the bytes are.
 *   4. Rows missing from a last tile are stood in for by the last row; their lanes are not stored.
 *   5. No byte outside the rows is read.
 * Threads: pure functions; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/avx512_tile.h"
#include "quant/blocks.h"
#include "quant/grids.h"

_Static_assert(256LL * 31 * 126 * 127 + 16LL * 1984 * 16 * 127 <= INT32_MAX, "sums fit int32");

#include "kernels/x86/avx512_tile256.inc"

enum { EXCESS = 64 }; /* of the codes of IQ2 and IQ3 */

/* `count` bits of every lane, from bit `first` on. */
SL_ALWAYS_INLINE __m512i bits_of(__m512i lanes, int first, int count)
{
    return _mm512_and_si512(_mm512_srli_epi32(lanes, (unsigned)first), _mm512_set1_epi32((1 << count) - 1));
}

SL_ALWAYS_INLINE __m512i odd_scale(__m512i stored)
{
    return _mm512_add_epi32(_mm512_add_epi32(stored, stored), _mm512_set1_epi32(1));
}

/* The scale of 32 codes that are `excess` too high. */
SL_ALWAYS_INLINE void set_scale32(unpacked_tile *tile, int group, __m512i scale, __m512i excess)
{
    __m512i offset = _mm512_mullo_epi32(scale, excess);
    tile->scales[group] = scale;
    tile->side[group] = pair_of(offset, offset);
}

/* The scales of 16 codes each. */
SL_ALWAYS_INLINE void set_scales16(unpacked_tile *tile, int group, __m512i first, __m512i second, __m512i excess)
{
    tile->scales[2 * group] = first;
    tile->scales[2 * group + 1] = second;
    tile->side[group] = pair_of(_mm512_mullo_epi32(first, excess), _mm512_mullo_epi32(second, excess));
}

/* The scales of a group are the nibbles of byte `group`, eight bytes in two words. */
SL_ALWAYS_INLINE void set_scale_nibbles(unpacked_tile *tile, int group, const __m512i words[2])
{
    int at = 8 * (group % 4);
    set_scales16(tile, group, odd_scale(bits_of(words[group / 4], at, 4)),
                 odd_scale(bits_of(words[group / 4], at + 4, 4)), _mm512_set1_epi32(EXCESS));
}

SL_ALWAYS_INLINE void set_d(const uint8_t *const row[SL_TILE_ROWS], float factor, unpacked_tile *tile)
{
    uint16_t halves[SL_TILE_ROWS];
    for (int i = 0; i < SL_TILE_ROWS; i++) {
        memcpy(&halves[i], row[i], sizeof halves[i]);
    }
    __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)halves));
    tile->d = _mm512_mul_ps(d, _mm512_set1_ps(factor));
}

/* Every byte has seven signs; its highest bit becomes the one that makes their number even. */
SL_ALWAYS_INLINE __m512i complete_signs(__m512i seven)
{
    const __m512i odd =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
    __m512i folded = _mm512_xor_si512(seven, _mm512_srli_epi16(seven, 4));
    __m512i eighth = _mm512_shuffle_epi8(odd, _mm512_and_si512(folded, _mm512_set1_epi8(0x0f)));
    return _mm512_or_si512(seven, eighth);
}

/* A word with four times seven signs in its lowest bits. */
SL_ALWAYS_INLINE __m512i signs_of_word(__m512i word)
{
    __m512i low = _mm512_or_si512(_mm512_and_si512(word, _mm512_set1_epi32(0x7f)),
                                  _mm512_and_si512(_mm512_slli_epi32(word, 1), _mm512_set1_epi32(0x7f00)));
    __m512i high = _mm512_or_si512(_mm512_and_si512(_mm512_slli_epi32(word, 2), _mm512_set1_epi32(0x7f0000)),
                                   _mm512_and_si512(_mm512_slli_epi32(word, 3), _mm512_set1_epi32(0x7f000000)));
    return complete_signs(_mm512_or_si512(low, high));
}

/* Four entries in two words; seven signs are the upper bits of each. */
SL_ALWAYS_INLINE __m512i signs_of_entries(__m512i first, __m512i second)
{
    const __m512i low_bytes =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, -1, -1, 4, 6, -1, -1, 8, 10, -1, -1, 12, 14, -1, -1));
    const __m512i high_bytes =
        _mm512_broadcast_i32x4(_mm_setr_epi8(-1, -1, 0, 2, -1, -1, 4, 6, -1, -1, 8, 10, -1, -1, 12, 14));
    return complete_signs(_mm512_or_si512(_mm512_shuffle_epi8(_mm512_srli_epi16(first, 9), low_bytes),
                                          _mm512_shuffle_epi8(_mm512_srli_epi16(second, 9), high_bytes)));
}

/* Four magnitudes with the four signs from bit 4 step of every lane on, shifted to be unsigned. */
SL_ALWAYS_INLINE __m512i signed_codes(__m512i magnitudes, __m512i signs, int step)
{
    const __m512i excess = _mm512_set1_epi8(EXCESS);
    const int byte = step / 2;
    __m512i pattern = _mm512_add_epi8(_mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c)),
                                      _mm512_set1_epi8((char)byte));
    __m512i spread = _mm512_shuffle_epi8(signs, pattern);
    __mmask64 is_negative =
        _mm512_test_epi8_mask(spread, _mm512_set1_epi32(step % 2 == 0 ? 0x08040201 : (int)0x80402010));
    return _mm512_mask_sub_epi8(_mm512_add_epi8(magnitudes, excess), is_negative, excess, magnitudes);
}

/* The first or the second four elements of an entry of eight. */
SL_ALWAYS_INLINE __m512i look_up_half(const uint64_t *grid, __m512i indices, int half)
{
    return _mm512_i32gather_epi32(indices, (const uint8_t *)grid + 4 * half, 8);
}

/* Eight codes of group `group` from one index. */
SL_ALWAYS_INLINE void set_eight(unpacked_tile *tile, int group, int i, const uint64_t *grid, __m512i indices,
                                __m512i signs)
{
    tile->codes[group][2 * i] = signed_codes(look_up_half(grid, indices, 0), signs, 2 * i);
    tile->codes[group][2 * i + 1] = signed_codes(look_up_half(grid, indices, 1), signs, 2 * i + 1);
}

SL_ALWAYS_INLINE void set_four(unpacked_tile *tile, int group, int i, const uint32_t *grid, __m512i indices,
                               __m512i signs)
{
    tile->codes[group][i] = signed_codes(_mm512_i32gather_epi32(indices, grid, 4), signs, i);
}

SL_ALWAYS_INLINE void unpack_iq2_xxs(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    set_d(row, 0.125f, tile);
    for (int pair = 0; pair < GROUPS / 2; pair++) {
        __m512i words[4];
        sl_tile_words(row, offsetof(sl_block_iq2_xxs, groups) + 16 * (size_t)pair, words);
        for (int j = 0; j < 2; j++) {
            int g = 2 * pair + j;
            set_scale32(tile, g, odd_scale(_mm512_srli_epi32(words[2 * j + 1], 28)), _mm512_set1_epi32(EXCESS));
            __m512i signs = signs_of_word(words[2 * j + 1]);
            for (int i = 0; i < 4; i++) {
                set_eight(tile, g, i, sl_iq2_xxs_grid, bits_of(words[2 * j], 8 * i, 8), signs);
            }
        }
    }
}

SL_ALWAYS_INLINE void unpack_iq2_xs(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    set_d(row, 0.125f, tile);
    __m512i last[4];
    sl_tile_words(row, sizeof(sl_block_iq2_xs) - 16, last);
    for (int pair = 0; pair < GROUPS / 2; pair++) {
        __m512i words[4];
        sl_tile_words(row, offsetof(sl_block_iq2_xs, entries) + 16 * (size_t)pair, words);
        for (int j = 0; j < 2; j++) {
            int g = 2 * pair + j;
            set_scale_nibbles(tile, g, last + 2);
            __m512i signs = signs_of_entries(words[2 * j], words[2 * j + 1]);
            for (int i = 0; i < 4; i++) {
                set_eight(tile, g, i, sl_iq2_xs_grid, bits_of(words[2 * j + i / 2], 16 * (i % 2), 9), signs);
            }
        }
    }
}

SL_ALWAYS_INLINE void unpack_iq2_s(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    set_d(row, 0.125f, tile);
    __m512i last[4]; /* high bits, then scales */
    sl_tile_words(row, offsetof(sl_block_iq2_s, high_bits), last);
    for (int half = 0; half < 2; half++) {
        __m512i indices[4];
        __m512i signs[4];
        sl_tile_words(row, offsetof(sl_block_iq2_s, indices) + 16 * (size_t)half, indices);
        sl_tile_words(row, offsetof(sl_block_iq2_s, signs) + 16 * (size_t)half, signs);
        for (int j = 0; j < 4; j++) {
            int g = 4 * half + j;
            set_scale_nibbles(tile, g, last + 2);
            for (int i = 0; i < 4; i++) {
                __m512i high = _mm512_slli_epi32(bits_of(last[half], 8 * j + 2 * i, 2), 8);
                set_eight(tile, g, i, sl_iq2_s_grid, _mm512_or_si512(bits_of(indices[j], 8 * i, 8), high), signs[j]);
            }
        }
    }
}

SL_ALWAYS_INLINE void unpack_iq3_xxs(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    set_d(row, 0.25f, tile);
    for (int half = 0; half < 2; half++) {
        __m512i words[4];
        sl_tile_words(row, offsetof(sl_block_iq3_xxs, signs_and_scales) + 16 * (size_t)half, words);
        for (int pair = 0; pair < 2; pair++) {
            __m512i indices[4];
            sl_tile_words(row, offsetof(sl_block_iq3_xxs, indices) + 32 * (size_t)half + 16 * (size_t)pair, indices);
            for (int j = 0; j < 2; j++) {
                int g = 4 * half + 2 * pair + j;
                __m512i word = words[2 * pair + j];
                set_scale32(tile, g, odd_scale(_mm512_srli_epi32(word, 28)), _mm512_set1_epi32(EXCESS));
                __m512i signs = signs_of_word(word);
                for (int i = 0; i < STEPS; i++) {
                    set_four(tile, g, i, sl_iq3_xxs_grid, bits_of(indices[2 * j + i / 4], 8 * (i % 4), 8), signs);
                }
            }
        }
    }
}

SL_ALWAYS_INLINE void unpack_iq3_s(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    set_d(row, 1.0f, tile);
    __m512i scales = sl_tile_word(row, offsetof(sl_block_iq3_s, scales));
    __m512i high[4]; /* two words of it */
    sl_tile_words(row, offsetof(sl_block_iq3_s, high_bits), high);
    for (int half = 0; half < 2; half++) {
        __m512i signs[4];
        sl_tile_words(row, offsetof(sl_block_iq3_s, signs) + 16 * (size_t)half, signs);
        for (int pair = 0; pair < 2; pair++) {
            __m512i indices[4];
            sl_tile_words(row, offsetof(sl_block_iq3_s, indices) + 32 * (size_t)half + 16 * (size_t)pair, indices);
            for (int j = 0; j < 2; j++) {
                int g = 4 * half + 2 * pair + j;
                set_scale32(tile, g, odd_scale(bits_of(scales, 4 * g, 4)), _mm512_set1_epi32(EXCESS));
                for (int i = 0; i < STEPS; i++) {
                    __m512i ninth = _mm512_slli_epi32(bits_of(high[half], 8 * (g % 4) + i, 1), 8);
                    __m512i low = bits_of(indices[2 * j + i / 4], 8 * (i % 4), 8);
                    set_four(tile, g, i, sl_iq3_s_grid, _mm512_or_si512(low, ninth), signs[2 * pair + j]);
                }
            }
        }
    }
}

/* Codes are 8 too high for grid values in eighths, less the shift of the group: 7 or 9. */
SL_ALWAYS_INLINE void unpack_iq1_s(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    set_d(row, 0.125f, tile);
    __m512i high[4];
    sl_tile_words(row, offsetof(sl_block_iq1_s, high_bits), high);
    for (int half = 0; half < 2; half++) {
        __m512i indices[4];
        sl_tile_words(row, offsetof(sl_block_iq1_s, indices) + 16 * (size_t)half, indices);
        for (int j = 0; j < 4; j++) {
            int g = 4 * half + j;
            int at = 16 * (g % 2);
            __m512i is_negative = bits_of(high[g / 2], at + 15, 1);
            __m512i excess = _mm512_add_epi32(_mm512_set1_epi32(7), _mm512_add_epi32(is_negative, is_negative));
            set_scale32(tile, g, odd_scale(bits_of(high[g / 2], at + 12, 3)), excess);
            for (int i = 0; i < 4; i++) {
                __m512i index = _mm512_or_si512(bits_of(indices[j], 8 * i, 8),
                                                _mm512_slli_epi32(bits_of(high[g / 2], at + 3 * i, 3), 8));
                tile->codes[g][2 * i] = look_up_half(sl_iq1_grid, index, 0);
                tile->codes[g][2 * i + 1] = look_up_half(sl_iq1_grid, index, 1);
            }
        }
    }
}

/* Codes are 9 too high: 8 for grid values in eighths, and a shift of -1 or 1 is 0 or 2 in the code. */
SL_ALWAYS_INLINE void unpack_iq1_m(const uint8_t *const row[SL_TILE_ROWS], unpacked_tile *tile)
{
    __m512i last[4]; /* the last two are the scales */
    sl_tile_words(row, sizeof(sl_block_iq1_m) - 16, last);
    __m512i low = _mm512_or_si512(bits_of(last[2], 12, 4), _mm512_slli_epi32(bits_of(last[2], 28, 4), 4));
    __m512i high =
        _mm512_or_si512(_mm512_slli_epi32(bits_of(last[3], 12, 4), 8), _mm512_slli_epi32(bits_of(last[3], 28, 4), 12));
    tile->d = _mm512_mul_ps(sl_tile_halves(_mm512_or_si512(low, high)), _mm512_set1_ps(0.125f));
    __m512i nibbles[4];
    sl_tile_words(row, offsetof(sl_block_iq1_m, high_bits), nibbles);
    for (int half = 0; half < 2; half++) {
        __m512i indices[4];
        sl_tile_words(row, offsetof(sl_block_iq1_m, indices) + 16 * (size_t)half, indices);
        for (int j = 0; j < 4; j++) {
            int g = 4 * half + j;
            int at = 16 * (g / 2 % 2) + 6 * (g % 2);
            set_scales16(tile, g, odd_scale(bits_of(last[2 + g / 4], at, 3)),
                         odd_scale(bits_of(last[2 + g / 4], at + 3, 3)), _mm512_set1_epi32(9));
            for (int i = 0; i < 4; i++) {
                int nibble = 16 * (g % 2) + 4 * i;
                __m512i index = _mm512_or_si512(bits_of(indices[j], 8 * i, 8),
                                                _mm512_slli_epi32(bits_of(nibbles[g / 2], nibble, 3), 8));
                __mmask16 is_positive =
                    _mm512_testn_epi32_mask(nibbles[g / 2], _mm512_set1_epi32((int)(UINT32_C(8) << nibble)));
                __m512i up = _mm512_maskz_mov_epi32(is_positive, _mm512_set1_epi8(2));
                tile->codes[g][2 * i] = _mm512_or_si512(look_up_half(sl_iq1_grid, index, 0), up);
                tile->codes[g][2 * i + 1] = _mm512_or_si512(look_up_half(sl_iq1_grid, index, 1), up);
            }
        }
    }
}

static const block_format format_iq1_s = {unpack_iq1_s, sizeof(sl_block_iq1_s), 32, false, true};
static const block_format format_iq1_m = {unpack_iq1_m, sizeof(sl_block_iq1_m), 16, false, true};
static const block_format format_iq2_xxs = {unpack_iq2_xxs, sizeof(sl_block_iq2_xxs), 32, false, true};
static const block_format format_iq2_xs = {unpack_iq2_xs, sizeof(sl_block_iq2_xs), 16, false, true};
static const block_format format_iq2_s = {unpack_iq2_s, sizeof(sl_block_iq2_s), 16, false, true};
static const block_format format_iq3_xxs = {unpack_iq3_xxs, sizeof(sl_block_iq3_xxs), 32, false, true};
static const block_format format_iq3_s = {unpack_iq3_s, sizeof(sl_block_iq3_s), 32, false, true};

#include "kernels/x86/avx512_matmul.inc"

DEFINE_MATMUL(iq1_s)
DEFINE_MATMUL(iq1_m)
DEFINE_MATMUL(iq2_xxs)
DEFINE_MATMUL(iq2_xs)
DEFINE_MATMUL(iq2_s)
DEFINE_MATMUL(iq3_xxs)
DEFINE_MATMUL(iq3_s)
