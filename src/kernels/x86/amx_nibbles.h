/* Bytes as two nibbles each: themselves, and as places in a table of sixteen bytes. With GFNI, which takes any bits of a byte in one
 * instruction, and VBMI, whose look-up takes six bits of a place. */
#ifndef SL_KERNELS_X86_AMX_NIBBLES_H
#define SL_KERNELS_X86_AMX_NIBBLES_H

#include "kernels/x86/avx512_one.h"

/* The low nibbles in codes[0], the high ones in codes[1]. */
SL_ALWAYS_INLINE void sl_take_nibbles(__m512i bytes, __m512i codes[2])
{
    const __m512i high = _mm512_set1_epi64(0x1020408000000000); /* bit i is bit i + 4, of eight rows of bits */
    codes[0] = sl_one_shift_right(bytes, 0, 0x0f);
    codes[1] = _mm512_gf2p8affine_epi64_epi8(bytes, high, 0);
}

/* What they stand for. Every 128-bit lane of values is the table, so the upper two bits of a place choose between equals. */
SL_ALWAYS_INLINE void sl_look_up_nibbles(__m512i bytes, __m512i values, __m512i codes[2])
{
    codes[0] = _mm512_permutexvar_epi8(bytes, values);
    codes[1] = _mm512_permutexvar_epi8(_mm512_srli_epi16(bytes, 4), values);
}

#endif
