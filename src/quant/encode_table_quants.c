/* Writing blocks whose codes index a table of unevenly spaced values: IQ4_NL, MXFP4.
 *
 * Owns: their encoders.
 * Method: candidate scales, each element the nearest table value, the smallest squared error measured on what a decoder
 * will see.
 *   1. IQ4_NL: the block's extreme element is aimed at either end of the table, from a seventh beyond it to a seventh
 *      inside it; the best start is refined by solving the scale for its codes.
 *   2. MXFP4: the exponent that puts the extreme element between 4 and 8 (the largest value is 6), and its neighbours.
 *
 * Invariants:
 *   1. Rows may be written at any address.
 *   2. Finite input gives finite scales, and decodes to finite values.
 *   3. Deterministic: the earlier of equal candidates wins.
 *   4. Halfway between two table values, IQ4_NL takes the upper, MXFP4 the one nearer to zero. Zero is code 0 in MXFP4.
 *
 * Threads: pure functions; any thread. */
#include <math.h>

#include "quant/blocks.h"
#include "quant/encode_search.h"
#include "quant/half.h"
#include "quant/rows.h"
#include "quant/unpack.h"

enum { MAX_REFINEMENTS = 8 };

static void pack_codes(const uint8_t codes[SL_QK], uint8_t nibbles[SL_QK / 2])
{
    for (unsigned j = 0; j < SL_QK / 2; j++) {
        nibbles[j] = (uint8_t)(codes[j] | (codes[j + SL_QK / 2] << 4));
    }
}

/* ---- IQ4_NL ---- */

typedef struct nl_choice {
    double error;
    double refined_scale; /* best for these codes; 0 when they say nothing */
    uint16_t d;
    uint8_t codes[SL_QK];
} nl_choice;

/* The nearest code for every half step from the table's lowest value to its highest: midpoints of neighbours are whole
 * half steps. */
enum { NL_HALF_STEPS = 2 * (113 + 127) + 1 };

typedef struct nl_lookup {
    uint8_t codes[NL_HALF_STEPS];
} nl_lookup;

static void fill_nl_lookup(nl_lookup *lookup)
{
    unsigned half_step = 0;
    for (unsigned code = 0; code < 16; code++) {
        /* Up to the midpoint with the next value; the last value ends the table. */
        int doubled_end =
            code < 15 ? sl_iq4_nl_values[code] + sl_iq4_nl_values[code + 1] : 2 * sl_iq4_nl_values[15] + 1;
        unsigned end = (unsigned)(doubled_end - 2 * sl_iq4_nl_values[0]);
        while (half_step < end && half_step < NL_HALF_STEPS) {
            lookup->codes[half_step++] = (uint8_t)code;
        }
    }
}

static nl_choice code_nl(const nl_lookup *lookup, const float *x, double scale)
{
    nl_choice result = {.error = 0.0, .d = sl_finite_f16_scale(scale)};
    float d = sl_f16_to_f32(result.d);
    double inverse = sl_reciprocal_or_zero((double)d);
    double xv = 0.0;
    double vv = 0.0;
    for (unsigned j = 0; j < SL_QK; j++) {
        double value = (double)x[j];
        double half_steps = 2.0 * (value * inverse - (double)sl_iq4_nl_values[0]);
        half_steps = half_steps > 0.0 ? half_steps : 0.0;
        half_steps = half_steps < (double)(NL_HALF_STEPS - 1) ? half_steps : (double)(NL_HALF_STEPS - 1);
        uint8_t code = lookup->codes[(int)half_steps];
        result.codes[j] = code;
        float table_value = (float)sl_iq4_nl_values[code];
        double residual = value - (double)(d * table_value);
        result.error += residual * residual;
        xv += value * (double)table_value;
        vv += (double)table_value * (double)table_value;
    }
    result.refined_scale = xv / vv;
    return result;
}

static nl_choice choose_nl(const nl_lookup *lookup, const float *x)
{
    double extreme = (double)sl_extreme(x, SL_QK);
    if (extreme == 0.0) {
        return code_nl(lookup, x, 0.0);
    }
    nl_choice best = code_nl(lookup, x, extreme / (double)sl_iq4_nl_values[0]);
    /* No table value is 0: for tiny elements the zero scale can be better than the smallest step. */
    nl_choice zero = code_nl(lookup, x, 0.0);
    if (zero.error < best.error) {
        best = zero;
    }
    for (int end = 0; end < 2; end++) {
        double reach = (double)sl_iq4_nl_values[end == 0 ? 0 : 15];
        for (int step = -3; step <= 3; step++) {
            nl_choice candidate = code_nl(lookup, x, extreme / (reach * (1.0 + 0.05 * (double)step)));
            if (candidate.error < best.error) {
                best = candidate;
            }
        }
    }
    for (int round = 0; round < MAX_REFINEMENTS; round++) {
        nl_choice candidate = code_nl(lookup, x, best.refined_scale);
        if (!(candidate.error < best.error)) {
            break;
        }
        best = candidate;
    }
    return best;
}

void sl_encode_row_iq4_nl(const float *source, void *destination, size_t n_elements)
{
    sl_block_iq4_nl *blocks = destination;
    nl_lookup lookup;
    fill_nl_lookup(&lookup);
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        nl_choice best = choose_nl(&lookup, source + i * SL_QK);
        blocks[i].d = best.d;
        pack_codes(best.codes, blocks[i].nibbles);
    }
}

/* ---- MXFP4 ---- */

typedef struct mx_choice {
    double error;
    uint8_t exponent;
    uint8_t codes[SL_QK];
} mx_choice;

/* The code of the doubled value nearest to `doubled`. */
static unsigned nearest_mx_code(double doubled)
{
    double magnitude = fabs(doubled);
    unsigned code = 0;
    for (unsigned next = 1; next < 8; next++) {
        double midpoint = 0.5 * (double)(sl_mxfp4_doubled_values[next - 1] + sl_mxfp4_doubled_values[next]);
        code += magnitude > midpoint ? 1 : 0;
    }
    return code != 0 && doubled < 0.0 ? code + 8 : code;
}

static mx_choice code_mx(const float *x, int exponent)
{
    int bounded = exponent < 0 ? 0 : exponent > 254 ? 254 : exponent;
    mx_choice result = {.error = 0.0, .exponent = (uint8_t)bounded};
    float half_scale = sl_e8m0_half(result.exponent);
    double inverse = 1.0 / (double)half_scale;
    for (unsigned j = 0; j < SL_QK; j++) {
        unsigned code = nearest_mx_code((double)x[j] * inverse);
        result.codes[j] = (uint8_t)code;
        double residual = (double)x[j] - (double)(half_scale * (float)sl_mxfp4_doubled_values[code]);
        result.error += residual * residual;
    }
    return result;
}

static mx_choice choose_mx(const float *x)
{
    float extreme = sl_extreme(x, SL_QK);
    if (extreme == 0.0f) {
        return code_mx(x, 0);
    }
    int exponent = ilogb((double)extreme) - 2 + 127;
    mx_choice best = code_mx(x, exponent);
    for (int neighbour = exponent + 1; neighbour >= exponent - 1; neighbour -= 2) {
        mx_choice candidate = code_mx(x, neighbour);
        if (candidate.error < best.error) {
            best = candidate;
        }
    }
    return best;
}

void sl_encode_row_mxfp4(const float *source, void *destination, size_t n_elements)
{
    sl_block_mxfp4 *blocks = destination;
    for (size_t i = 0; i < n_elements / SL_QK; i++) {
        mx_choice best = choose_mx(source + i * SL_QK);
        blocks[i].exponent = best.exponent;
        pack_codes(best.codes, blocks[i].nibbles);
    }
}
