/* Bytes as two nibbles each: themselves, and as places in a table of sixteen bytes. */
#ifndef SL_KERNELS_X86_AVX512_NIBBLES_H
#define SL_KERNELS_X86_AVX512_NIBBLES_H

#include "kernels/x86/avx512_one.h"

/* The low nibbles in codes[0], the high ones in codes[1]. */
SL_ALWAYS_INLINE void sl_take_nibbles(__m512i bytes, __m512i codes[2])
{
    codes[0] = sl_one_shift_right(bytes, 0, 0x0f);
    codes[1] = sl_one_shift_right(bytes, 4, 0x0f);
}

/* What they stand for. Every 128-bit lane of values is the table. */
SL_ALWAYS_INLINE void sl_look_up_nibbles(__m512i bytes, __m512i values, __m512i codes[2])
{
    sl_take_nibbles(bytes, codes);
    codes[0] = _mm512_shuffle_epi8(values, codes[0]);
    codes[1] = _mm512_shuffle_epi8(values, codes[1]);
}

#endif
