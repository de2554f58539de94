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

/* The scale of a block of keys or values. */
typedef struct sl_kv_scale {
    uint16_t d;    /* F16 */
    float inverse; /* q = x * inverse within [-127, 127]; 0: every q is 0 */
} sl_kv_scale;

static inline sl_kv_scale sl_kv_scale_of(uint32_t largest_magnitude_bits)
{
    const uint32_t infinity = UINT32_C(0x7f800000);
    uint16_t d = sl_f32_to_f16(sl_float_from_bits(largest_magnitude_bits) / 127.0f);
    if (largest_magnitude_bits >= infinity || d >= 0x7c00u) {
        return (sl_kv_scale){0x7e00u, 0.0f};
    }
    return (sl_kv_scale){d, d == 0 ? 0.0f : 1.0f / sl_f16_to_f32(d)};
}

#endif
