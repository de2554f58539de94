/* The scale of a block of activations from the bits of its largest magnitude. */
#ifndef SL_KERNELS_GENERIC_QUANTIZE_H
#define SL_KERNELS_GENERIC_QUANTIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/half.h"

typedef struct sl_activation_scale {
    float d;
    float inverse; /* q = x * inverse */
    bool is_zero;  /* every q is 0 */
} sl_activation_scale;

static inline sl_activation_scale sl_activation_scale_of(uint32_t largest_magnitude_bits)
{
    const uint32_t infinity = UINT32_C(0x7f800000);
    const uint32_t smallest = UINT32_C(0x0d800000); /* 2^-100 */
    if (largest_magnitude_bits >= infinity) {
        return (sl_activation_scale){sl_float_from_bits(UINT32_C(0x7fc00000)), 0.0f, true};
    }
    if (largest_magnitude_bits < smallest) {
        return (sl_activation_scale){0.0f, 0.0f, true};
    }
    float largest = sl_float_from_bits(largest_magnitude_bits);
    return (sl_activation_scale){largest / 127.0f, 127.0f / largest, false};
}

#endif
