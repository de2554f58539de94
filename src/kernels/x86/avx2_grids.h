/* What the kernels for grid formats know of a block before its elements are looked up: indices, signs and scales, unpacked all
 * at once. Shared by the sets that have AVX2. */
#ifndef SL_KERNELS_X86_AVX2_GRIDS_H
#define SL_KERNELS_X86_AVX2_GRIDS_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/x86/avx2_math.h"
#include "quant/blocks.h"
#include "quant/grids.h"

enum { SL_GRID_GROUPS = 8 /* of 32 codes in a block */ };

/* What is known of a block before its elements are looked up. */
typedef struct sl_grid_header {
    __m256i scales;  /* int16: lane g of the low half for codes 0..15 of group g, of the high half for 16..31 */
    __m256i offsets; /* IQ1: int16, one per 16 codes: scale times what the codes are too high by */
    uint32_t signs[SL_GRID_GROUPS];       /* IQ2 and IQ3: bit j is set where code j is negative */
    uint16_t indices[SL_GRID_GROUPS * 8]; /* where they are not whole bytes */
    float d;
} sl_grid_header;

SL_ALWAYS_INLINE float sl_grid_half_of(uint16_t half)
{
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
}

SL_ALWAYS_INLINE float sl_grid_half_at(const uint8_t *bytes)
{
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    return sl_grid_half_of(half);
}

SL_ALWAYS_INLINE int32_t sl_grid_word_at(const uint8_t *bytes)
{
    int32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

SL_ALWAYS_INLINE __m256i sl_grid_load32(const uint8_t *bytes)
{
    return _mm256_loadu_si256((const __m256i *)bytes);
}

SL_ALWAYS_INLINE __m256i sl_grid_load16_as_words(const uint8_t *bytes)
{
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)bytes));
}

/* Sixteen words, four with each of the bytes first to first + 3 of both halves of `bytes`. */
SL_ALWAYS_INLINE __m256i sl_grid_four_words_of_each(__m256i bytes, int first)
{
    const __m256i pattern = _mm256_setr_epi8(0, -1, 0, -1, 0, -1, 0, -1, 1, -1, 1, -1, 1, -1, 1, -1, 2, -1, 2, -1, 2,
                                             -1, 2, -1, 3, -1, 3, -1, 3, -1, 3, -1);
    return _mm256_shuffle_epi8(bytes, _mm256_add_epi8(pattern, _mm256_set1_epi16((short)first)));
}

/* Odd scales from stored ones. */
SL_ALWAYS_INLINE __m256i sl_grid_odd_scales(__m256i stored)
{
    return _mm256_add_epi16(_mm256_add_epi16(stored, stored), _mm256_set1_epi16(1));
}

/* Eight stored scales, one per vector of codes. */
SL_ALWAYS_INLINE __m256i sl_grid_repeat_scales(__m128i stored)
{
    return sl_grid_odd_scales(_mm256_broadcastsi128_si256(stored));
}

/* 16 stored scales in nibbles, the low one of a byte first. */
SL_ALWAYS_INLINE __m256i sl_grid_scales_of_nibbles(const uint8_t nibbles[SL_GRID_GROUPS])
{
    __m128i bytes = _mm_loadl_epi64((const __m128i *)nibbles);
    __m128i even_then_odd = _mm_unpacklo_epi64(bytes, _mm_srli_epi16(bytes, 4));
    return sl_grid_odd_scales(_mm256_cvtepu8_epi16(_mm_and_si128(even_then_odd, _mm_set1_epi8(0x0f))));
}

/* Every byte has seven signs; its highest bit becomes the one that makes their number even. */
SL_ALWAYS_INLINE __m256i sl_grid_complete_signs(__m256i seven)
{
    const __m256i odd = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
    __m256i folded = _mm256_xor_si256(seven, _mm256_srli_epi16(seven, 4));
    __m256i eighth = _mm256_shuffle_epi8(odd, _mm256_and_si256(folded, _mm256_set1_epi8(0x0f)));
    return _mm256_or_si256(seven, eighth);
}

SL_ALWAYS_INLINE void sl_grid_store_signs(sl_grid_header *header, __m256i signs)
{
    _mm256_storeu_si256((__m256i *)header->signs, signs);
}

SL_ALWAYS_INLINE void sl_grid_store_indices(sl_grid_header *header, int first, __m256i indices)
{
    _mm256_storeu_si256((__m256i *)(header->indices + first), indices);
}

/* Words with a scale in the highest four bits and four times seven signs below: one per group. */
SL_ALWAYS_INLINE void sl_grid_unpack_signs_and_scales(sl_grid_header *header, __m256i words)
{
    __m256i scales = _mm256_srli_epi32(words, 28);
    scales = _mm256_permute4x64_epi64(_mm256_packs_epi32(scales, scales), 0x88);
    header->scales = sl_grid_odd_scales(scales);
    __m256i low = _mm256_or_si256(_mm256_and_si256(words, _mm256_set1_epi32(0x7f)),
                                  _mm256_and_si256(_mm256_slli_epi32(words, 1), _mm256_set1_epi32(0x7f00)));
    __m256i high = _mm256_or_si256(_mm256_and_si256(_mm256_slli_epi32(words, 2), _mm256_set1_epi32(0x7f0000)),
                                   _mm256_and_si256(_mm256_slli_epi32(words, 3), _mm256_set1_epi32(0x7f000000)));
    sl_grid_store_signs(header, sl_grid_complete_signs(_mm256_or_si256(low, high)));
}

SL_ALWAYS_INLINE void sl_grid_header_iq2_xxs(const uint8_t *source, sl_grid_header *header)
{
    header->d = 0.125f * sl_grid_half_at(source + offsetof(sl_block_iq2_xxs, d));
    __m256 first = _mm256_castsi256_ps(sl_grid_load32(source + offsetof(sl_block_iq2_xxs, groups)));
    __m256 second = _mm256_castsi256_ps(sl_grid_load32(source + offsetof(sl_block_iq2_xxs, groups) + 32));
    __m256i words = _mm256_castps_si256(_mm256_shuffle_ps(first, second, 0xdd));
    sl_grid_unpack_signs_and_scales(header, _mm256_permute4x64_epi64(words, 0xd8));
}

SL_ALWAYS_INLINE void sl_grid_header_iq2_xs(const uint8_t *source, sl_grid_header *header)
{
    header->d = 0.125f * sl_grid_half_at(source + offsetof(sl_block_iq2_xs, d));
    header->scales = sl_grid_scales_of_nibbles(source + offsetof(sl_block_iq2_xs, scales));
    __m256i first = sl_grid_load32(source + offsetof(sl_block_iq2_xs, entries));
    __m256i second = sl_grid_load32(source + offsetof(sl_block_iq2_xs, entries) + 32);
    const __m256i index = _mm256_set1_epi16(0x1ff);
    sl_grid_store_indices(header, 0, _mm256_and_si256(first, index));
    sl_grid_store_indices(header, 16, _mm256_and_si256(second, index));
    __m256i seven = _mm256_packus_epi16(_mm256_srli_epi16(first, 9), _mm256_srli_epi16(second, 9));
    sl_grid_store_signs(header, sl_grid_complete_signs(_mm256_permute4x64_epi64(seven, 0xd8)));
}

SL_ALWAYS_INLINE void sl_grid_header_iq2_s(const uint8_t *source, sl_grid_header *header)
{
    header->d = 0.125f * sl_grid_half_at(source + offsetof(sl_block_iq2_s, d));
    header->scales = sl_grid_scales_of_nibbles(source + offsetof(sl_block_iq2_s, scales));
    sl_grid_store_signs(header, sl_grid_load32(source + offsetof(sl_block_iq2_s, signs)));
    /* A product with a power of two brings bits 2 i and 2 i + 1 to bits 8 and 9 of word i. */
    const __m256i to_8 = _mm256_set1_epi64x((long long)UINT64_C(0x0004001000400100));
    __m256i high =
        _mm256_broadcastsi128_si256(_mm_loadl_epi64((const __m128i *)(source + offsetof(sl_block_iq2_s, high_bits))));
    for (int i = 0; i < 2; i++) {
        __m256i low = sl_grid_load16_as_words(source + offsetof(sl_block_iq2_s, indices) + 16 * i);
        __m256i moved = _mm256_mullo_epi16(sl_grid_four_words_of_each(high, 4 * i), to_8);
        sl_grid_store_indices(header, 16 * i, _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi16(0x300))));
    }
}

SL_ALWAYS_INLINE void sl_grid_header_iq3_xxs(const uint8_t *source, sl_grid_header *header)
{
    header->d = 0.25f * sl_grid_half_at(source + offsetof(sl_block_iq3_xxs, d));
    sl_grid_unpack_signs_and_scales(header, sl_grid_load32(source + offsetof(sl_block_iq3_xxs, signs_and_scales)));
}

SL_ALWAYS_INLINE void sl_grid_header_iq3_s(const uint8_t *source, sl_grid_header *header)
{
    header->d = sl_grid_half_at(source + offsetof(sl_block_iq3_s, d));
    __m128i nibbles = _mm_cvtsi32_si128(sl_grid_word_at(source + offsetof(sl_block_iq3_s, scales)));
    __m128i scales = _mm_unpacklo_epi8(nibbles, _mm_srli_epi16(nibbles, 4));
    header->scales = sl_grid_repeat_scales(_mm_cvtepu8_epi16(_mm_and_si128(scales, _mm_set1_epi8(0x0f))));
    sl_grid_store_signs(header, sl_grid_load32(source + offsetof(sl_block_iq3_s, signs)));
    const __m256i bit_of =
        _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768);
    for (int i = 0; i < 4; i++) {
        uint16_t bits;
        memcpy(&bits, source + offsetof(sl_block_iq3_s, high_bits) + 2 * i, sizeof bits);
        __m256i low = sl_grid_load16_as_words(source + offsetof(sl_block_iq3_s, indices) + 16 * i);
        __m256i set = _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16((short)bits), bit_of), bit_of);
        sl_grid_store_indices(header, 16 * i, _mm256_or_si256(low, _mm256_and_si256(set, _mm256_set1_epi16(0x100))));
    }
}

/* Codes are 8 too high for grid values in eighths, less the shift of the group: 7 or 9. */
SL_ALWAYS_INLINE void sl_grid_header_iq1_s(const uint8_t *source, sl_grid_header *header)
{
    header->d = 0.125f * sl_grid_half_at(source + offsetof(sl_block_iq1_s, d));
    __m128i words = _mm_loadu_si128((const __m128i *)(source + offsetof(sl_block_iq1_s, high_bits)));
    header->scales = sl_grid_repeat_scales(_mm_and_si128(_mm_srli_epi16(words, 12), _mm_set1_epi16(7)));
    __m128i excess = _mm_sub_epi16(_mm_set1_epi16(7), _mm_slli_epi16(_mm_srai_epi16(words, 15), 1));
    __m128i offsets = _mm_mullo_epi16(_mm256_castsi256_si128(header->scales), excess);
    header->offsets = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi16(offsets, offsets)),
                                              _mm_unpackhi_epi16(offsets, offsets), 1);
    /* Bits 3 i to 3 i + 2 go to the top of word i, and down to bits 8 to 10. */
    const __m256i to_top = _mm256_set1_epi64x((long long)UINT64_C(0x0010008004002000));
    const __m256i pattern = _mm256_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 4, 5, 4, 5, 4, 5, 4, 5, 6,
                                             7, 6, 7, 6, 7, 6, 7);
    for (int i = 0; i < 2; i++) {
        __m256i low = sl_grid_load16_as_words(source + offsetof(sl_block_iq1_s, indices) + 16 * i);
        __m256i high = _mm256_broadcastsi128_si256(i == 0 ? words : _mm_unpackhi_epi64(words, words));
        __m256i moved = _mm256_srli_epi16(_mm256_mullo_epi16(_mm256_shuffle_epi8(high, pattern), to_top), 5);
        sl_grid_store_indices(header, 16 * i, _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi16(0x700))));
    }
}

/* Codes are 9 too high: 8 for grid values in eighths, and a shift of -1 or 1 is 0 or 2 in the code. */
SL_ALWAYS_INLINE void sl_grid_header_iq1_m(const uint8_t *source, sl_grid_header *header)
{
    uint64_t scales;
    memcpy(&scales, source + offsetof(sl_block_iq1_m, scales), sizeof scales);
    header->d = 0.125f * sl_grid_half_of((uint16_t)(((scales >> 12) & 0x000f) | ((scales >> 24) & 0x00f0) |
                                                    ((scales >> 36) & 0x0f00) | ((scales >> 48) & 0xf000)));
    /* Three bits go to the top: 0 and 6 for the low half, 3 and 9 for the high half. */
    const __m256i to_top = _mm256_setr_epi32(0x00802000, 0x00802000, 0x00802000, 0x00802000, 0x00100400, 0x00100400,
                                             0x00100400, 0x00100400);
    __m128i doubled = _mm_cvtsi64_si128((long long)scales);
    __m256i words = _mm256_broadcastsi128_si256(_mm_unpacklo_epi16(doubled, doubled));
    header->scales = sl_grid_odd_scales(_mm256_srli_epi16(_mm256_mullo_epi16(words, to_top), 13));
    __m256i offsets = _mm256_mullo_epi16(header->scales, _mm256_set1_epi16(9));
    __m128i even = _mm256_castsi256_si128(offsets);
    __m128i odd = _mm256_extracti128_si256(offsets, 1);
    header->offsets = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi16(even, odd)),
                                              _mm_unpackhi_epi16(even, odd), 1);
    const __m256i to_8 = _mm256_set1_epi32(0x00100100);
    __m128i nibbles = _mm_loadu_si128((const __m128i *)(source + offsetof(sl_block_iq1_m, high_bits)));
    for (int i = 0; i < 2; i++) {
        __m256i low = sl_grid_load16_as_words(source + offsetof(sl_block_iq1_m, indices) + 16 * i);
        __m128i pairs = i == 0 ? _mm_unpacklo_epi8(nibbles, nibbles) : _mm_unpackhi_epi8(nibbles, nibbles);
        __m256i moved = _mm256_mullo_epi16(_mm256_cvtepu8_epi16(pairs), to_8);
        sl_grid_store_indices(header, 16 * i, _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi16(0x700))));
    }
}

#endif
