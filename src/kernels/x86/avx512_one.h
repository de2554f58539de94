/* A few tokens: four rows side by side, so that four outputs share each load of the activation and lie in one vector, and the
 * stream of weights is prefetched in the order in which it lies in memory. */
#ifndef SL_KERNELS_X86_AVX512_ONE_H
#define SL_KERNELS_X86_AVX512_ONE_H

#include "kernels/x86/avx2_ahead.h"
#include "kernels/x86/avx512_tile.h"

enum { SL_ONE_ROWS = 4 };

/* 16 bytes of each row, in the 128-bit lanes of one vector. */
SL_ALWAYS_INLINE __m512i sl_one_load(const uint8_t *const row[SL_ONE_ROWS], size_t offset)
{
    __m512i rows = _mm512_castsi128_si512(sl_tile_load16(row[0] + offset));
    rows = _mm512_inserti32x4(rows, sl_tile_load16(row[1] + offset), 1);
    rows = _mm512_inserti32x4(rows, sl_tile_load16(row[2] + offset), 2);
    return _mm512_inserti32x4(rows, sl_tile_load16(row[3] + offset), 3);
}

SL_ALWAYS_INLINE __m512i sl_one_shift_right(__m512i bytes, int count, int mask)
{
    return (__m512i)sl_tile_shift_right((sl_lanes)bytes, count, mask);
}

/* In every 128-bit lane, the sum of that lane of rows[r] in word r. */
SL_ALWAYS_INLINE __m512i sl_one_sum_lanes(const __m512i rows[SL_ONE_ROWS])
{
    __m512i first = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1]));
    __m512i second = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[2], rows[3]), _mm512_unpackhi_epi32(rows[2], rows[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
}

#endif
