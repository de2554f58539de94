/* How products of one token ask for the weights that come next.
 *
 * A core waits for 16 lines in its first-level cache and for three times as many in the second. So a line is asked for twice:
 * far ahead into the second, from there, near, into the first. It is done line by line between what is computed: asked for
 * many at once they wait for each other, and loads wait for them.
 *
 * The core's own prefetchers follow the stream too, until something else misses the caches: they begin anew, and some
 * hundreds of kilobytes are slow. So the lines of outputs are asked for many at once, before the weights that lead to them. */
#ifndef SL_KERNELS_X86_AVX2_AHEAD_H
#define SL_KERNELS_X86_AVX2_AHEAD_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/x86/avx2_math.h"

enum {
    SL_AHEAD_NEAR_BYTES = 512,
    SL_AHEAD_FAR_BYTES = 4096,
    SL_AHEAD_HELD_BYTES = 16384, /* of the first-level cache, at most, wait to be used */
    SL_AHEAD_OUTPUTS = 1024      /* of one token, asked for at once */
};

/* Where lines are asked for while the next step of the stream of weights is computed. */
typedef struct sl_ahead {
    uintptr_t near;
    uintptr_t far;
} sl_ahead;

/* `lead_bytes`: how far from the beginning of the stream the last of the rows lies that are read side by side. */
SL_ALWAYS_INLINE sl_ahead sl_ahead_of(const uint8_t *stream, size_t lead_bytes)
{
    size_t held = lead_bytes < SL_AHEAD_HELD_BYTES ? lead_bytes : SL_AHEAD_HELD_BYTES;
    return (sl_ahead){.near = (uintptr_t)stream + held + SL_AHEAD_NEAR_BYTES,
                      .far = (uintptr_t)stream + lead_bytes + SL_AHEAD_FAR_BYTES};
}

/* Part `part` of `n_parts` of the lines of a step. The compiler may not gather parts. */
SL_ALWAYS_INLINE void sl_ahead_prefetch(const sl_ahead *ahead, size_t step_bytes, uint32_t part, uint32_t n_parts)
{
    const size_t n_lines = (step_bytes + 63) / 64;
    for (size_t line = n_lines * part / n_parts; line < n_lines * (part + 1) / n_parts; line++) {
        _mm_prefetch((const void *)(ahead->near + 64 * line), _MM_HINT_T0);
        _mm_prefetch((const void *)(ahead->far + 64 * line), _MM_HINT_T2);
    }
    __asm__ volatile("" ::: "memory");
}

/* The same, but no line twice where steps are no whole lines: the last one is due in some steps, in the others a line at hand is
 * asked for instead. That is done without a branch, which would cut the compiler's view of the step in two. It takes a few
 * instructions, so it pays where they are not what binds. */
SL_ALWAYS_INLINE void sl_ahead_prefetch_once(const sl_ahead *ahead, size_t step_bytes, uint32_t part, uint32_t n_parts)
{
    const size_t n_every = step_bytes / 64;
    const size_t n_lines = (step_bytes + 63) / 64;
    const uintptr_t first = ahead->near / 64 * 64;
    for (size_t line = n_lines * part / n_parts; line < n_lines * (part + 1) / n_parts; line++) {
        uintptr_t near = 64 * line;
        uintptr_t far = ahead->far / 64 * 64 - first + 64 * line;
        if (line == n_every) {
            uintptr_t is_due = 0 - (ahead->near % 64 + step_bytes % 64) / 64; /* all bits, or none */
            near &= is_due;
            far &= is_due;
        }
        _mm_prefetch((const void *)(first + near), _MM_HINT_T0);
        _mm_prefetch((const void *)(first + far), _MM_HINT_T2);
    }
    __asm__ volatile("" ::: "memory");
}

SL_ALWAYS_INLINE void sl_ahead_move(sl_ahead *ahead, size_t step_bytes)
{
    ahead->near += step_bytes;
    ahead->far += step_bytes;
}

/* The lines of `count` outputs, to be written; at least one. */
SL_ALWAYS_INLINE void sl_ahead_outputs(float *out, uint32_t count)
{
    for (uint32_t i = 0; i < count; i += 64 / sizeof *out) {
        __builtin_prefetch(out + i, 1, 3);
    }
    __builtin_prefetch(out + count - 1, 1, 3);
}

#endif
