/* Rows of plain floats: F32, F16, BF16.
 *
 * Owns: their decoders and encoders.
 * Invariants:
 *   1. Rows may start at any address.
 *   2. Decoding is exact; NaN stays NaN.
 *   3. Encoding rounds to nearest even, and a finite value stays finite: one beyond the format's range becomes the
 *      largest finite value of its sign.
 * Threads: pure functions; any thread. */
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
