/* Rows of plain floats: F32, F16, BF16.
 *
 * Owns: their decoders and encoders.
 * Invariants:
 *   1. Rows may start at any address.
 *   2. Decoding is exact; NaN stays NaN.
 *   3. Encoding rounds to nearest even, and a finite value stays finite: one beyond the format's range becomes the
 *      largest finite value of its sign.
 * Threads: pure functions; any thread. */
#include <math.h>
#include <string.h>

#include "quant/half.h"
#include "quant/rows.h"

void sl_decode_row_f32(const void *source, float *destination, size_t n_elements)
{
    if (n_elements != 0) {
        memcpy(destination, source, n_elements * sizeof *destination);
    }
}

void sl_decode_row_f16(const void *source, float *destination, size_t n_elements)
{
    const uint8_t *bytes = source;
    for (size_t i = 0; i < n_elements; i++) {
        uint16_t half;
        memcpy(&half, bytes + i * sizeof half, sizeof half);
        destination[i] = sl_f16_to_f32(half);
    }
}

void sl_decode_row_bf16(const void *source, float *destination, size_t n_elements)
{
    const uint8_t *bytes = source;
    for (size_t i = 0; i < n_elements; i++) {
        uint16_t brain;
        memcpy(&brain, bytes + i * sizeof brain, sizeof brain);
        destination[i] = sl_bf16_to_f32(brain);
    }
}

void sl_encode_row_f32(const float *source, void *destination, size_t n_elements)
{
    if (n_elements != 0) {
        memcpy(destination, source, n_elements * sizeof *source);
    }
}

void sl_encode_row_f16(const float *source, void *destination, size_t n_elements)
{
    uint8_t *bytes = destination;
    for (size_t i = 0; i < n_elements; i++) {
        uint16_t half = sl_f32_to_f16(source[i]);
        if ((half & 0x7fffu) == 0x7c00u && isfinite(source[i])) {
            half = (uint16_t)(half - 1u);
        }
        memcpy(bytes + i * sizeof half, &half, sizeof half);
    }
}

void sl_encode_row_bf16(const float *source, void *destination, size_t n_elements)
{
    uint8_t *bytes = destination;
    for (size_t i = 0; i < n_elements; i++) {
        uint16_t brain = sl_f32_to_bf16(source[i]);
        if ((brain & 0x7fffu) == 0x7f80u && isfinite(source[i])) {
            brain = (uint16_t)(brain - 1u);
        }
        memcpy(bytes + i * sizeof brain, &brain, sizeof brain);
    }
}
