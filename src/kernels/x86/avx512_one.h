/* One token: four rows side by side, so that four outputs share each load of the activation and lie in one vector, and the
 * stream of weights is prefetched in the order in which it lies in memory. */
#ifndef SL_KERNELS_X86_AVX512_ONE_H
#define SL_KERNELS_X86_AVX512_ONE_H

#include "kernels/x86/avx512_tile.h"

enum {
    SL_ONE_ROWS = 4,
    /* The last of four rows begins three rows into the stream, so what is asked for must be further ahead than that: far
     * into the second-level cache, which can wait for more lines at once than the first; from there, near, into the
     * first. */
    SL_ONE_NEAR_BYTES = 512,
    SL_ONE_FAR_BYTES = 4096,
    SL_ONE_HELD_BYTES = 16384 /* of the first-level cache, at most, wait to be used */
};

/* Where lines are asked for while a step is computed. */
typedef struct sl_one_ahead {
    uintptr_t near;
    uintptr_t far;
} sl_one_ahead;

SL_ALWAYS_INLINE sl_one_ahead sl_one_ahead_of(const uint8_t *stream, size_t row_bytes)
{
    size_t rows = (SL_ONE_ROWS - 1) * row_bytes;
    return (sl_one_ahead){.near = (uintptr_t)stream + (rows < SL_ONE_HELD_BYTES ? rows : SL_ONE_HELD_BYTES) +
                                  SL_ONE_NEAR_BYTES,
                          .far = (uintptr_t)stream + rows + SL_ONE_FAR_BYTES};
}

/* Part `part` of `n_parts` of the lines of a step. Asked for one by one between what is computed they keep the memory
 * busier than at once, when they wait for each other and the loads for them: so the compiler may not gather them. */
SL_ALWAYS_INLINE void sl_one_prefetch(const sl_one_ahead *ahead, size_t step_bytes, uint32_t part, uint32_t n_parts)
{
    const size_t n_lines = (step_bytes + 63) / 64;
    for (size_t line = n_lines * part / n_parts; line < n_lines * (part + 1) / n_parts; line++) {
        _mm_prefetch((const void *)(ahead->near + 64 * line), _MM_HINT_T0);
        _mm_prefetch((const void *)(ahead->far + 64 * line), _MM_HINT_T2);
    }
    __asm__ volatile("" ::: "memory");
}

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
