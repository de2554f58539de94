/* Writing blocks of 256 with quantised group scales: Q4_K, Q5_K, Q6_K.
 *
 * Owns: their encoders.
 * Method, for the weighted squared error with weights rms + |x| of the group:
 *   1. Each group is fitted alone (encode_search.h): a scale, and for Q4_K and Q5_K a minimum.
 *   2. The block scales d and dmin put the largest group scale and minimum on the largest stored integer.
 *   3. Each group takes, among the integers nearest to its fit and their neighbours, those whose error is smallest,
 *      measured on what a decoder will see.
 *   4. d and dmin are solved anew in closed form for the integers chosen, and step 3 is repeated; the better of the two
 *      rounds is written.
 * Invariants:
 *   1. Rows may be written at any address.
 *   2. Finite input gives finite scales, and decodes to finite values.
 *   3. Deterministic: the earlier of equal candidates wins.
 * Threads: pure functions; any thread. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "quant/blocks.h"
#include "quant/encode_search.h"
#include "quant/half.h"
#include "quant/rows.h"

enum { N_GROUPS_32 = SL_QK_K / 32, N_GROUPS_16 = SL_QK_K / 16, LANES = 4, N_ROUNDS = 2 };

/* ---- Q4_K, Q5_K ---- */

typedef struct affine_group {
    double error;
    uint8_t scale;   /* 0..63 */
    uint8_t minimum; /* 0..63 */
    uint8_t codes[32];
} affine_group;

typedef struct affine_block {
    double error;
    uint16_t d;
    uint16_t dmin;
    affine_group groups[N_GROUPS_32];
} affine_block;

static affine_group code_affine_group(const float *x, const double *weights, int highest, float d, float dmin,
                                      int stored_scale, int stored_minimum)
{
    affine_group group = {.scale = (uint8_t)stored_scale, .minimum = (uint8_t)stored_minimum};
    float scale = d * (float)stored_scale;
    float minimum = dmin * (float)stored_minimum;
    double inverse = sl_reciprocal_or_zero((double)scale);
    double errors[LANES] = {0.0};
    for (unsigned i = 0; i < 32; i += LANES) {
        for (unsigned lane = 0; lane < LANES; lane++) {
            double value = (double)x[i + lane];
            int q = sl_nearest_code((value + (double)minimum) * inverse, 0, highest);
            group.codes[i + lane] = (uint8_t)q;
            float scaled = scale * (float)q;
            double residual = value - (double)(scaled - minimum);
            errors[lane] += weights[i + lane] * residual * residual;
        }
    }
    group.error = (errors[0] + errors[1]) + (errors[2] + errors[3]);
    return group;
}

/* Step 3 for one group. */
static affine_group choose_affine_group(const float *x, const double *weights, int highest, float d, float dmin,
                                        sl_affine fit)
{
    int scale = sl_nearest_code(fit.scale * sl_reciprocal_or_zero((double)d), 0, 63);
    int minimum = sl_nearest_code(-fit.offset * sl_reciprocal_or_zero((double)dmin), 0, 63);
    affine_group best = code_affine_group(x, weights, highest, d, dmin, scale, minimum);
    for (int s = scale - 1; s <= scale + 1; s++) {
        for (int m = minimum - 1; m <= minimum + 1; m++) {
            if (s < 0 || s > 63 || m < 0 || m > 63 || (s == scale && m == minimum)) {
                continue;
            }
            affine_group candidate = code_affine_group(x, weights, highest, d, dmin, s, m);
            if (candidate.error < best.error) {
                best = candidate;
            }
        }
    }
    return best;
}

/* Step 4: d and dmin in x ~ d a - dmin b, with a = scale q and b = minimum fixed. Neither may be negative. */
static void solve_affine_block(const float *x, const double *weights, const affine_block *block, double *d,
                               double *dmin)
{
    double aa = 0.0;
    double ab = 0.0;
    double bb = 0.0;
    double xa = 0.0;
    double xb = 0.0;
    for (unsigned g = 0; g < N_GROUPS_32; g++) {
        const affine_group *group = &block->groups[g];
        double b = (double)group->minimum;
        for (unsigned i = 0; i < 32; i++) {
            double weight = weights[g * 32 + i];
            double value = (double)x[g * 32 + i];
            double a = (double)group->scale * (double)group->codes[i];
            aa += weight * a * a;
            ab += weight * a * b;
            bb += weight * b * b;
            xa += weight * value * a;
            xb += weight * value * b;
        }
    }
    double determinant = aa * bb - ab * ab;
    if (determinant > 0.0) {
        *d = (xa * bb - xb * ab) / determinant;
        *dmin = (xa * ab - xb * aa) / determinant;
    } else if (aa > 0.0) {
        *d = xa / aa;
    } else if (bb > 0.0) {
        *dmin = -xb / bb;
    }
    *d = *d > 0.0 ? *d : 0.0;
    *dmin = *dmin > 0.0 ? *dmin : 0.0;
}

static void choose_affine_block(const float *x, int highest, affine_block *best)
{
    double weights[SL_QK_K];
    sl_affine fits[N_GROUPS_32];
    double largest_scale = 0.0;
    double largest_minimum = 0.0;
    for (unsigned g = 0; g < N_GROUPS_32; g++) {
        sl_magnitude_weights(x + g * 32, weights + g * 32, 32);
        fits[g] = sl_fit_affine(x + g * 32, weights + g * 32, 32, highest, SL_OFFSET_NOT_POSITIVE);
        largest_scale = fmax(largest_scale, fits[g].scale);
        largest_minimum = fmax(largest_minimum, -fits[g].offset);
    }
    double d = largest_scale / 63.0;
    double dmin = largest_minimum / 63.0;
    for (int round = 0; round < N_ROUNDS; round++) {
        affine_block block = {.error = 0.0, .d = sl_finite_f16_scale(d), .dmin = sl_finite_f16_scale(dmin)};
        for (unsigned g = 0; g < N_GROUPS_32; g++) {
            block.groups[g] = choose_affine_group(x + g * 32, weights + g * 32, highest, sl_f16_to_f32(block.d),
                                                  sl_f16_to_f32(block.dmin), fits[g]);
            block.error += block.groups[g].error;
        }
        if (round > 0 && !(block.error < best->error)) {
            break;
        }
        *best = block;
        solve_affine_block(x, weights, best, &d, &dmin);
    }
}

static void pack_scales_and_minima(const affine_group groups[N_GROUPS_32], uint8_t packed[SL_K_SCALES_BYTES])
{
    for (unsigned g = 0; g < 4; g++) {
        packed[g] = (uint8_t)(groups[g].scale | ((groups[g + 4].scale >> 4) << 6));
        packed[g + 4] = (uint8_t)(groups[g].minimum | ((groups[g + 4].minimum >> 4) << 6));
        packed[g + 8] = (uint8_t)((groups[g + 4].scale & 0x0f) | ((groups[g + 4].minimum & 0x0f) << 4));
    }
}

/* Groups 2p and 2p + 1 share the 32 bytes from 32 p. */
static void pack_group_nibbles(const affine_group groups[N_GROUPS_32], uint8_t packed[SL_QK_K / 2])
{
    for (unsigned pair = 0; pair < N_GROUPS_32 / 2; pair++) {
        const uint8_t *low = groups[2 * pair].codes;
        const uint8_t *high = groups[2 * pair + 1].codes;
        for (unsigned i = 0; i < 32; i++) {
            packed[pair * 32 + i] = (uint8_t)((low[i] & 0x0f) | (high[i] << 4));
        }
    }
}

void sl_encode_row_q4_k(const float *source, void *destination, size_t n_elements)
{
    sl_block_q4_k *blocks = destination;
    for (size_t b = 0; b < n_elements / SL_QK_K; b++) {
        affine_block best;
        choose_affine_block(source + b * SL_QK_K, 15, &best);
        blocks[b].d = best.d;
        blocks[b].dmin = best.dmin;
        pack_scales_and_minima(best.groups, blocks[b].scales);
        pack_group_nibbles(best.groups, blocks[b].q);
    }
}

void sl_encode_row_q5_k(const float *source, void *destination, size_t n_elements)
{
    sl_block_q5_k *blocks = destination;
    for (size_t b = 0; b < n_elements / SL_QK_K; b++) {
        affine_block best;
        choose_affine_block(source + b * SL_QK_K, 31, &best);
        blocks[b].d = best.d;
        blocks[b].dmin = best.dmin;
        pack_scales_and_minima(best.groups, blocks[b].scales);
        pack_group_nibbles(best.groups, blocks[b].q);
        for (unsigned i = 0; i < 32; i++) {
            unsigned bits = 0;
            for (unsigned g = 0; g < N_GROUPS_32; g++) {
                bits |= (unsigned)(best.groups[g].codes[i] >> 4) << g;
            }
            blocks[b].high_bits[i] = (uint8_t)bits;
        }
    }
}

/* ---- Q6_K ---- */

typedef struct centred_group {
    double error;
    int8_t scale;
    int8_t codes[16]; /* -32..31 */
} centred_group;

typedef struct centred_block {
    double error;
    uint16_t d;
    centred_group groups[N_GROUPS_16];
} centred_block;

static centred_group code_centred_group(const float *x, const double *weights, float d, int stored_scale)
{
    centred_group group = {.scale = (int8_t)stored_scale};
    float scale = d * (float)stored_scale;
    double inverse = sl_reciprocal_or_zero((double)scale);
    double errors[LANES] = {0.0};
    for (unsigned i = 0; i < 16; i += LANES) {
        for (unsigned lane = 0; lane < LANES; lane++) {
            double value = (double)x[i + lane];
            int q = sl_nearest_code(value * inverse, -32, 31);
            group.codes[i + lane] = (int8_t)q;
            double residual = value - (double)(scale * (float)q);
            errors[lane] += weights[i + lane] * residual * residual;
        }
    }
    group.error = (errors[0] + errors[1]) + (errors[2] + errors[3]);
    return group;
}

/* Step 3 for one group. */
static centred_group choose_centred_group(const float *x, const double *weights, float d, double fit)
{
    int scale = sl_nearest_code(fit * sl_reciprocal_or_zero((double)d), -128, 127);
    centred_group best = code_centred_group(x, weights, d, scale);
    for (int s = scale - 1; s <= scale + 1; s += 2) {
        if (s < -128 || s > 127) {
            continue;
        }
        centred_group candidate = code_centred_group(x, weights, d, s);
        if (candidate.error < best.error) {
            best = candidate;
        }
    }
    return best;
}

/* Step 4: d in x ~ d scale q. */
static double solve_centred_block(const float *x, const double *weights, const centred_block *block)
{
    double xa = 0.0;
    double aa = 0.0;
    for (unsigned e = 0; e < SL_QK_K; e++) {
        const centred_group *group = &block->groups[e / 16];
        double a = (double)group->scale * (double)group->codes[e % 16];
        xa += weights[e] * (double)x[e] * a;
        aa += weights[e] * a * a;
    }
    return aa > 0.0 ? xa / aa : 0.0;
}

static void choose_centred_block(const float *x, centred_block *best)
{
    double weights[SL_QK_K];
    double fits[N_GROUPS_16];
    double extreme = 0.0;
    for (unsigned g = 0; g < N_GROUPS_16; g++) {
        sl_magnitude_weights(x + g * 16, weights + g * 16, 16);
        fits[g] = sl_fit_scale(x + g * 16, weights + g * 16, 16, -32, 31);
        if (fabs(fits[g]) > fabs(extreme)) {
            extreme = fits[g];
        }
    }
    /* The largest group scale becomes -128, whichever its sign. */
    double d = extreme / -128.0;
    for (int round = 0; round < N_ROUNDS; round++) {
        centred_block block = {.error = 0.0, .d = sl_finite_f16_scale(d)};
        for (unsigned g = 0; g < N_GROUPS_16; g++) {
            block.groups[g] = choose_centred_group(x + g * 16, weights + g * 16, sl_f16_to_f32(block.d), fits[g]);
            block.error += block.groups[g].error;
        }
        if (round > 0 && !(block.error < best->error)) {
            break;
        }
        *best = block;
        d = solve_centred_block(x, weights, best);
    }
}

void sl_encode_row_q6_k(const float *source, void *destination, size_t n_elements)
{
    sl_block_q6_k *blocks = destination;
    for (size_t b = 0; b < n_elements / SL_QK_K; b++) {
        centred_block best;
        choose_centred_block(source + b * SL_QK_K, &best);
        blocks[b].d = best.d;
        memset(blocks[b].low, 0, sizeof blocks[b].low);
        memset(blocks[b].high, 0, sizeof blocks[b].high);
        for (unsigned g = 0; g < N_GROUPS_16; g++) {
            blocks[b].scales[g] = best.groups[g].scale;
        }
        for (unsigned e = 0; e < SL_QK_K; e++) {
            unsigned code = (unsigned)(best.groups[e / 16].codes[e % 16] + 32);
            uint8_t *low = &blocks[b].low[e / 128 * 64 + e % 64];
            uint8_t *high = &blocks[b].high[e / 128 * 32 + e % 32];
            *low = (uint8_t)(*low | ((code & 0x0fu) << (4 * (e / 64 % 2))));
            *high = (uint8_t)(*high | ((code >> 4) << (2 * (e / 32 % 4))));
        }
    }
}
