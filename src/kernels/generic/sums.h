/* The one shape of every float sum: 16 partial sums by index modulo 16, then a fixed tree. */
#ifndef SL_KERNELS_GENERIC_SUMS_H
#define SL_KERNELS_GENERIC_SUMS_H

enum { SL_PARTIAL_SUMS = 16 };

/* s[i] += s[i + 8], then + 4, + 2, + 1. Clobbers `partial`. */
static inline float sl_sum_tree(float partial[SL_PARTIAL_SUMS])
{
    for (int width = SL_PARTIAL_SUMS / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; i++) {
            partial[i] += partial[i + width];
        }
    }
    return partial[0];
}

#endif
