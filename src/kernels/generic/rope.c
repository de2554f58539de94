/* Rotary position embedding.
 *
 * Owns: the definition of the table's use, and the generic build of the table.
 * Invariants:
 *   1. A pair (a, b) becomes a' = fma(a, cos, -(b sin)), b' = fma(b, cos, a sin).
 *   2. Elements from n_rot on stay as they are. n_rot is even and at most head_dim.
 * Threads: pure functions; any thread. */
#include "kernels/generic/generic.h"
#include "kernels/generic/rope.h"

void sl_generic_rope_table(const sl_rope_config *config, uint32_t position, float *table)
{
    sl_fill_rope_table(config, position, table);
}

void sl_generic_rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, sl_rope_pairing pairing,
                     const float *table)
{
    uint32_t n_pairs = n_rot / 2;
    for (uint32_t head = 0; head < n_heads; head++) {
        float *row = x + (size_t)head * head_dim;
        for (uint32_t i = 0; i < n_pairs; i++) {
            float *first = pairing == SL_ROPE_NORM ? &row[2 * i] : &row[i];
            float *second = pairing == SL_ROPE_NORM ? &row[2 * i + 1] : &row[i + n_pairs];
            float cosine = table[2 * i];
            float sine = table[2 * i + 1];
            float a = *first;
            float b = *second;
            *first = fmaf(a, cosine, -(b * sine));
            *second = fmaf(b, cosine, a * sine);
        }
    }
}
