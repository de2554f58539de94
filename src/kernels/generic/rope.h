/* The rotary table: one definition, compiled once per instruction set that has a fused multiply-add of its own. */
#ifndef SL_KERNELS_GENERIC_ROPE_H
#define SL_KERNELS_GENERIC_ROPE_H

#include "kernels/generic/angles.h"
#include "kernels/table.h"

static inline void sl_fill_rope_table(const sl_rope_config *config, uint32_t position, float *table)
{
    uint32_t n_pairs = config->n_rot / 2;
    if (n_pairs == 0) {
        return;
    }
    sl_double2 ratio = sl_inverse_root((double)config->base, n_pairs);
    sl_double2 frequency = {1.0, 0.0}; /* base^(-i / n_pairs) */
    for (uint32_t i = 0; i < n_pairs; i++) {
        sl_double2 angle = sl_double2_scale(frequency, (double)position);
        angle = sl_double2_scale(angle, (double)config->scale);
        if (config->factors != NULL) {
            angle = sl_double2_divide(angle, (double)config->factors[i]);
        }
        sl_cos_and_sin(angle, &table[2 * (size_t)i], &table[2 * (size_t)i + 1]);
        frequency = sl_double2_multiply(frequency, ratio);
    }
}

#endif
