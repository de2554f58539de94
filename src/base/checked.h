/* Arithmetic on sizes that came from outside: every helper returns false instead of wrapping. */
#ifndef SL_BASE_CHECKED_H
#define SL_BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool sl_checked_add(uint64_t a, uint64_t b, uint64_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

static inline bool sl_checked_multiply(uint64_t a, uint64_t b, uint64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

/* Round `value` up to a multiple of `alignment`, a power of two. */
static inline bool sl_checked_align(uint64_t value, uint64_t alignment, uint64_t *aligned)
{
    if (!sl_checked_add(value, alignment - 1, aligned)) {
        return false;
    }
    *aligned &= ~(alignment - 1);
    return true;
}

#endif
