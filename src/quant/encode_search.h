/* The searches that encoders share: which scale, or scale and offset, loses least over one group of elements.
 *
 * The group size `n` is a multiple of 4 and the elements are finite. All sums are in double and in a fixed order, so
 * the result is the same everywhere. */
#ifndef SL_QUANT_ENCODE_SEARCH_H
#define SL_QUANT_ENCODE_SEARCH_H

#include <stddef.h>
#include <stdint.h>

/* The integer in lowest..highest nearest to `value`, halves going up. Any value is accepted; NaN gives `lowest`. */
static inline int sl_nearest_code(double value, int lowest, int highest)
{
    double span = (double)(highest - lowest);
    double steps = value - (double)lowest;
    steps = steps > 0.0 ? steps : 0.0;
    steps = steps < span ? steps : span;
    return lowest + (int)(steps + 0.5);
}

/* 1 / value, and 0 for 0, so that a zero scale gives zero codes. */
static inline double sl_reciprocal_or_zero(double value)
{
    return value == 0.0 ? 0.0 : 1.0 / value;
}

/* The F16 nearest to `value`, always finite: beyond the range it is the largest. */
uint16_t sl_finite_f16(double value);

/* The same for a scale: one that is not zero does not become zero, so that a block of tiny elements gets the smallest
 * step there is. */
uint16_t sl_finite_f16_scale(double value);

/* The element of largest magnitude, the first of equals, with its sign. */
float sl_extreme(const float *x, size_t n);

/* weights[i] = rms(x) + |x[i]|: errors on large elements count more, as those elements move outputs most, and no
 * element is free. All zero for a zero group. */
void sl_magnitude_weights(const float *x, double *weights, size_t n);

/* The scale, of either sign, for which sum of weights (x - scale q)^2 is least when every q is the nearest integer in
 * lowest..highest (lowest < 0 < highest). `weights` may be NULL: all one. 0 for a zero group. */
double sl_fit_scale(const float *x, const double *weights, size_t n, int lowest, int highest);

/* An affine grid: value = scale q + offset, q in 0..highest. scale >= 0. */
typedef struct sl_affine {
    double scale;
    double offset;
} sl_affine;

typedef enum sl_offset_rule { SL_OFFSET_ANY, SL_OFFSET_NOT_POSITIVE } sl_offset_rule;

/* The affine grid for which the weighted squared error is least. `weights` may be NULL: all one. */
sl_affine sl_fit_affine(const float *x, const double *weights, size_t n, int highest, sl_offset_rule rule);

#endif
