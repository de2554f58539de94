/* Nibbles as places in a table of sixteen bytes: VPERMB, which takes six bits of a place. */
#ifndef SL_KERNELS_X86_AMX_LOOK_UP_H
#define SL_KERNELS_X86_AMX_LOOK_UP_H

#include "kernels/x86/avx512_one.h"

/* What the low nibbles stand for in codes[0], the high ones in codes[1]. Every 128-bit lane of values is the table, so the upper
 * two bits of a place choose between equals. */
SL_ALWAYS_INLINE void sl_look_up_nibbles(__m512i bytes, __m512i values, __m512i codes[2])
{
    codes[0] = _mm512_permutexvar_epi8(bytes, values);
    codes[1] = _mm512_permutexvar_epi8(_mm512_srli_epi16(bytes, 4), values);
}

#endif
