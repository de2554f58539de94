/* Writing blocks of 32 with a uniform grid of codes: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
 *
 * Owns: their encoders.
 * Method: every candidate scale (and minimum) is first rounded to F16 as it will be stored, each element takes the
 * nearest code for those stored values, and the candidate with the smallest squared error, measured on what a decoder
 * will see, is written. The plain candidate, the block's extremes on the ends of the grid, is always among them, so the
 * search never loses to it. Q8_0 has the plain candidate only.
 * Invariants:
 *   1. Rows may be written at any address.
 *   2. Finite input gives finite scales, and decodes to finite values.
 *   3. Deterministic: the earlier of equal candidates wins.
 * Threads: pure functions; any thread. */
#include <math.h>
#include <string.h>

#include "quant/blocks.h"
#include "quant/encode_search.h"
#include "quant/half.h"
#include "quant/rows.h"

enum { HALF_BLOCK = SL_QK / 2 };

typedef struct choice {
    double error;
    uint16_t d;
    uint16_t m;
    uint8_t codes[SL_QK];
} choice;

static void pack_nibbles(const uint8_t codes[SL_QK], uint8_t nibbles[HALF_BLOCK])
{
    for (unsigned j = 0; j < HALF_BLOCK; j++) {
        nibbles[j] = (uint8_t)((codes[j] & 0x0f) | (codes[j + HALF_BLOCK] << 4));
    }
}

static void pack_fifth_bits(const uint8_t codes[SL_QK], uint8_t high_bits[SL_QK / 8])
{
    memset(high_bits, 0, SL_QK / 8);
    for (unsigned j = 0; j < SL_QK; j++) {
        high_bits[j / 8] = (uint8_t)(high_bits[j / 8] | ((codes[j] >> 4) << (j % 8)));
    }
}

static void keep_better(choice *best, const choice *candidate)
{
    if (candidate->error < best->error) {
        *best = *candidate;
    }
}

/* Codes are stored with `centre` added: 0..2 centre - 1. */
static choice code_centred(const float *x, int centre, double scale)
{
    choice result = {.error = 0.0, .d = sl_finite_f16_scale(scale)};
    float d = sl_f16_to_f32(result.d);
    double inverse = sl_reciprocal_or_zero((double)d);
    for (unsigned j = 0; j < SL_QK; j++) {
        int q = sl_nearest_code((double)x[j] * inverse, -centre, centre - 1);
        result.codes[j] = (uint8_t)(q + centre);
        double residual = (double)x[j] - (double)(d * (float)q);
        result.error += residual * residual;
    }
    return result;
}

static choice choose_centred(const float *x, int centre)
{
    choice best = code_centred(x, centre, (double)sl_extreme(x, SL_QK) / (double)-centre);
    choice fitted = code_centred(x, centre, sl_fit_scale(x, NULL, SL_QK, -centre, centre - 1));
    keep_better(&best, &fitted);
    return best;
}

static choice code_from_minimum(const float *x, int highest, double scale, double minimum)
{
    choice result = {.error = 0.0, .d = sl_finite_f16_scale(scale), .m = sl_finite_f16(minimum)};
    float d = sl_f16_to_f32(result.d);
    float m = sl_f16_to_f32(result.m);
    double inverse = sl_reciprocal_or_zero((double)d);
    for (unsigned j = 0; j < SL_QK; j++) {
        int q = sl_nearest_code(((double)x[j] - (double)m) * inverse, 0, highest);
        result.codes[j] = (uint8_t)q;
        float scaled = d * (float)q;
        double residual = (double)x[j] - (double)(scaled + m);
        result.error += residual * residual;
    }
    return result;
}

static choice choose_from_minimum(const float *x, int highest)
{
    float low = x[0];
    float high = x[0];
    for (unsigned j = 1; j < SL_QK; j++) {
        low = fminf(low, x[j]);
        high = fmaxf(high, x[j]);
    }
    choice best = code_from_minimum(x, highest, ((double)high - (double)low) / (double)highest, (double)low);
    sl_affine grid = sl_fit_affine(x, NULL, SL_QK, highest, SL_OFFSET_ANY);
    choice fitted = code_from_minimum(x, highest, grid.scale, grid.offset);
    keep_better(&best, &fitted);
    return best;
}

void sl_encode_row_q4_0(const float *source, void *destination, size_t n_elements)
{
    sl_block_q4_0 *blocks = destination;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        choice best = choose_centred(source + i * SL_QK, 8);
        blocks[i].d = best.d;
        pack_nibbles(best.codes, blocks[i].nibbles);
    }
}

void sl_encode_row_q4_1(const float *source, void *destination, size_t n_elements)
{
    sl_block_q4_1 *blocks = destination;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        choice best = choose_from_minimum(source + i * SL_QK, 15);
        blocks[i].d = best.d;
        blocks[i].m = best.m;
        pack_nibbles(best.codes, blocks[i].nibbles);
    }
}

void sl_encode_row_q5_0(const float *source, void *destination, size_t n_elements)
{
    sl_block_q5_0 *blocks = destination;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        choice best = choose_centred(source + i * SL_QK, 16);
        blocks[i].d = best.d;
        pack_fifth_bits(best.codes, blocks[i].high_bits);
        pack_nibbles(best.codes, blocks[i].nibbles);
    }
}

void sl_encode_row_q5_1(const float *source, void *destination, size_t n_elements)
{
    sl_block_q5_1 *blocks = destination;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        choice best = choose_from_minimum(source + i * SL_QK, 31);
        blocks[i].d = best.d;
        blocks[i].m = best.m;
        pack_fifth_bits(best.codes, blocks[i].high_bits);
        pack_nibbles(best.codes, blocks[i].nibbles);
    }
}

void sl_encode_row_q8_0(const float *source, void *destination, size_t n_elements)
{
    sl_block_q8_0 *blocks = destination;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        const float *x = source + i * SL_QK;
        blocks[i].d = sl_finite_f16_scale(fabs((double)sl_extreme(x, SL_QK)) / 127.0);
        double inverse = sl_reciprocal_or_zero((double)sl_f16_to_f32(blocks[i].d));
        for (unsigned j = 0; j < SL_QK; j++) {
            blocks[i].q[j] = (int8_t)sl_nearest_code((double)x[j] * inverse, -127, 127);
        }
    }
}
