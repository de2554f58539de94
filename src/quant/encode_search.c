/* Searching scales for encoders.
 *
 * Owns: the two fits, to a grid through zero and to an affine grid.
 * Method: a spread of starting scales, each turned into nearest codes, and for those codes the scale (and offset) that
 * minimises the weighted squared error in closed form. The best start is then iterated, codes from scale and scale from
 * codes, until it no longer improves.
 * Invariants:
 *   1. Deterministic: double arithmetic, sums in LANES interleaved parts in element order, the earlier of equal
 *      candidates wins. Group sizes are multiples of LANES.
 *   2. No finite input overflows: the largest term is weight x^2, below 2^386.
 * Threads: pure functions; any thread. */
#include "quant/encode_search.h"

#include <math.h>

#include "quant/half.h"

enum { MAX_REFINEMENTS = 8, LANES = 4 };

static double sum_lanes(const double lanes[LANES])
{
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

uint16_t sl_finite_f16(double value)
{
    double limit = 65504.0;
    double bounded = value > limit ? limit : value < -limit ? -limit : value;
    return sl_f32_to_f16((float)bounded);
}

uint16_t sl_finite_f16_scale(double value)
{
    uint16_t half = sl_finite_f16(value);
    if ((half & 0x7fffu) == 0 && value != 0.0) {
        half = (uint16_t)(half | 1u);
    }
    return half;
}

float sl_extreme(const float *x, size_t n)
{
    float extreme = 0.0f;
    for (size_t i = 0; i < n; i++) {
        if (fabsf(x[i]) > fabsf(extreme)) {
            extreme = x[i];
        }
    }
    return extreme;
}

void sl_magnitude_weights(const float *x, double *weights, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    double rms = sqrt(sum / (double)n);
    for (size_t i = 0; i < n; i++) {
        weights[i] = rms + fabs((double)x[i]);
    }
}

/* The sums that decide the best scale for given codes: with xq = sum w x q and qq = sum w q^2 it is xq / qq, and it
 * takes xq^2 / qq off the error of the zero scale. */
typedef struct scale_sums {
    double xq;
    double qq;
} scale_sums;

static scale_sums sum_nearest(const float *x, const double *weights, size_t n, int lowest, int highest, double inverse)
{
    double xq[LANES] = {0.0};
    double qq[LANES] = {0.0};
    for (size_t i = 0; i < n; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            double value = (double)x[i + lane];
            double q = (double)sl_nearest_code(value * inverse, lowest, highest);
            double weighted = weights != NULL ? weights[i + lane] * q : q;
            xq[lane] += weighted * value;
            qq[lane] += weighted * q;
        }
    }
    return (scale_sums){sum_lanes(xq), sum_lanes(qq)};
}

static double gain(scale_sums sums)
{
    return sums.qq > 0.0 ? sums.xq * sums.xq / sums.qq : 0.0;
}

double sl_fit_scale(const float *x, const double *weights, size_t n, int lowest, int highest)
{
    double extreme = (double)sl_extreme(x, n);
    if (extreme == 0.0) {
        return 0.0;
    }
    /* The extreme element is aimed at either end of the range, from a sixth beyond it (clipped, for finer steps) to a
     * sixth inside it. */
    double best_gain = 0.0;
    double best_scale = 0.0;
    for (int end = 0; end < 2; end++) {
        double reach = end == 0 ? (double)lowest : (double)highest;
        for (int step = -4; step <= 4; step++) {
            double inverse = reach * (1.0 + 0.04 * (double)step) / extreme;
            scale_sums sums = sum_nearest(x, weights, n, lowest, highest, inverse);
            if (gain(sums) > best_gain) {
                best_gain = gain(sums);
                best_scale = sums.xq / sums.qq;
            }
        }
    }
    for (int round = 0; round < MAX_REFINEMENTS; round++) {
        scale_sums sums = sum_nearest(x, weights, n, lowest, highest, sl_reciprocal_or_zero(best_scale));
        if (!(gain(sums) > best_gain)) {
            break;
        }
        best_gain = gain(sums);
        best_scale = sums.xq / sums.qq;
    }
    return best_scale;
}

/* The weighted sums over v = x - base and its codes q that decide an affine grid. */
typedef struct affine_sums {
    double base;
    double one; /* of the weights alone */
    double q;
    double qq;
    double v;
    double vq;
} affine_sums;

static affine_sums sum_nearest_affine(const float *x, const double *weights, size_t n, int highest, double base,
                                      sl_affine grid)
{
    double inverse = sl_reciprocal_or_zero(grid.scale);
    double sums[5][LANES] = {{0.0}};
    for (size_t i = 0; i < n; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            double value = (double)x[i + lane];
            double weight = weights != NULL ? weights[i + lane] : 1.0;
            double q = (double)sl_nearest_code((value - grid.offset) * inverse, 0, highest);
            double weighted_q = weight * q;
            double v = value - base;
            sums[0][lane] += weight;
            sums[1][lane] += weighted_q;
            sums[2][lane] += weighted_q * q;
            sums[3][lane] += weight * v;
            sums[4][lane] += weighted_q * v;
        }
    }
    return (affine_sums){
        base, sum_lanes(sums[0]), sum_lanes(sums[1]), sum_lanes(sums[2]), sum_lanes(sums[3]), sum_lanes(sums[4])};
}

/* The grid that minimises the error for these codes. Codes that are all equal leave the scale as it was. */
static sl_affine solve_affine(const affine_sums *sums, sl_offset_rule rule, double scale_if_flat)
{
    double determinant = sums->one * sums->qq - sums->q * sums->q;
    double scale = scale_if_flat;
    if (determinant > 0.0) {
        scale = (sums->one * sums->vq - sums->q * sums->v) / determinant;
    }
    scale = scale > 0.0 ? scale : 0.0;
    double offset = sums->base + (sums->one > 0.0 ? (sums->v - scale * sums->q) / sums->one : 0.0);
    if (rule == SL_OFFSET_NOT_POSITIVE && offset > 0.0) {
        offset = 0.0;
        scale = sums->qq > 0.0 ? (sums->vq + sums->base * sums->q) / sums->qq : 0.0;
    }
    return (sl_affine){scale, offset};
}

/* How much less the error of `grid` is than that of the constant `base`. */
static double affine_gain(const affine_sums *sums, sl_affine grid)
{
    double shift = grid.offset - sums->base;
    return grid.scale * (2.0 * sums->vq - grid.scale * sums->qq) +
           shift * (2.0 * (sums->v - grid.scale * sums->q) - shift * sums->one);
}

sl_affine sl_fit_affine(const float *x, const double *weights, size_t n, int highest, sl_offset_rule rule)
{
    double low = (double)x[0];
    double high = (double)x[0];
    for (size_t i = 1; i < n; i++) {
        low = (double)x[i] < low ? (double)x[i] : low;
        high = (double)x[i] > high ? (double)x[i] : high;
    }
    if (rule == SL_OFFSET_NOT_POSITIVE && low > 0.0) {
        low = 0.0;
    }
    sl_affine best = {0.0, low};
    if (!(high > low)) {
        return best;
    }
    /* Both ends of the grid move in fractions of a step: outwards, which wastes codes but may land better, and inwards,
     * which clips for finer steps. */
    const double cut = 0.4 * (high - low) / (double)highest;
    double best_gain = 0.0;
    for (int low_cut = -2; low_cut <= 1; low_cut++) {
        for (int high_cut = -2; high_cut <= 1; high_cut++) {
            sl_affine start;
            start.offset = low + cut * (double)low_cut;
            start.scale = (high - cut * (double)high_cut - start.offset) / (double)highest;
            affine_sums sums = sum_nearest_affine(x, weights, n, highest, low, start);
            sl_affine grid = solve_affine(&sums, rule, start.scale);
            double gained = affine_gain(&sums, grid);
            if (gained > best_gain) {
                best_gain = gained;
                best = grid;
            }
        }
    }
    for (int round = 0; round < MAX_REFINEMENTS; round++) {
        affine_sums sums = sum_nearest_affine(x, weights, n, highest, low, best);
        sl_affine grid = solve_affine(&sums, rule, best.scale);
        double gained = affine_gain(&sums, grid);
        if (!(gained > best_gain)) {
            break;
        }
        best_gain = gained;
        best = grid;
    }
    return best;
}
