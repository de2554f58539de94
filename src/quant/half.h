/* F16 and BF16 to and from F32, exact and round-to-nearest-even, in integer arithmetic. */
#ifndef SL_QUANT_HALF_H
#define SL_QUANT_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t sl_float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float sl_float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Exact for all 65,536 inputs, NaN payloads kept. */
static inline float sl_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1fu;
    uint32_t fraction = half & 0x3ffu;
    if (exponent == 0x1f) {
        return sl_float_from_bits(sign | 0x7f800000u | (fraction << 13) | (fraction != 0 ? 0x400000u : 0));
    }
    if (exponent != 0) {
        return sl_float_from_bits(sign | ((exponent + 112) << 23) | (fraction << 13));
    }
    /* Denormal: fraction * 2^-24 is exact in F32. */
    float magnitude = (float)fraction * 0x1p-24f;
    return sl_float_from_bits(sign | sl_float_bits(magnitude));
}

/* Round to nearest even; overflow gives infinity, NaN stays a quiet NaN. Equals vcvtps2ph with that rounding. */
static inline uint16_t sl_f32_to_f16(float value)
{
    uint32_t bits = sl_float_bits(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    }
    if (magnitude >= 0x477ff000u) {
        return (uint16_t)(sign | 0x7c00u);
    }
    if (magnitude < 0x38800000u) {
        /* Adding 0.5 puts the last kept bit at the end of the fraction, and the addition rounds to nearest even. */
        float shifted = sl_float_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (sl_float_bits(shifted) - 0x3f000000u));
    }
    uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

static inline float sl_bf16_to_f32(uint16_t brain)
{
    return sl_float_from_bits((uint32_t)brain << 16);
}

/* Round to nearest even; NaN stays a quiet NaN. */
static inline uint16_t sl_f32_to_bf16(float value)
{
    uint32_t bits = sl_float_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)((bits >> 16) | 0x40u);
    }
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#endif
