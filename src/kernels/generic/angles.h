/* cos and sin of rotary angles, right to the last bit of a float for any position a context can have.
 *
 * The angle p base^(-2 i / n_rot) scale / factor reaches a million radians, and near a zero of sin the float result
 * shows errors of 1e-15 in it. So angles are carried as the sum of two doubles (relative error below 2^-95) until a
 * multiple of pi / 2 has been taken off; only then one double is enough. Only +, -, *, / and fma are used: the same
 * bits everywhere. */
#ifndef SL_KERNELS_GENERIC_ANGLES_H
#define SL_KERNELS_GENERIC_ANGLES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* The value high + low, |low| at most half a unit in the last place of high. */
typedef struct sl_double2 {
    double high;
    double low;
} sl_double2;

/* |b| <= |a| or a == 0. */
static inline sl_double2 sl_double2_renormalize(double a, double b)
{
    double high = a + b;
    return (sl_double2){high, b - (high - a)};
}

static inline sl_double2 sl_double2_multiply(sl_double2 a, sl_double2 b)
{
    double high = a.high * b.high;
    double low = fma(a.high, b.high, -high);
    low = fma(a.high, b.low, low);
    low = fma(a.low, b.high, low);
    return sl_double2_renormalize(high, low);
}

static inline sl_double2 sl_double2_scale(sl_double2 a, double factor)
{
    double high = a.high * factor;
    double low = fma(a.high, factor, -high);
    return sl_double2_renormalize(high, fma(a.low, factor, low));
}

static inline sl_double2 sl_double2_divide(sl_double2 a, double divisor)
{
    double high = a.high / divisor;
    double remainder = fma(-high, divisor, a.high) + a.low;
    return sl_double2_renormalize(high, remainder / divisor);
}

static inline sl_double2 sl_double2_power(sl_double2 x, uint32_t exponent)
{
    sl_double2 power = {1.0, 0.0};
    for (; exponent != 0; exponent >>= 1) {
        if (exponent & 1) {
            power = sl_double2_multiply(power, x);
        }
        x = sl_double2_multiply(x, x);
    }
    return power;
}

static inline double sl_double_power(double x, uint32_t exponent)
{
    double power = 1.0;
    for (; exponent != 0; exponent >>= 1) {
        power *= exponent & 1 ? x : 1.0;
        x *= x;
    }
    return power;
}

/* base^(-1 / degree) for a finite base > 0: bisection in double, then one Newton step in two doubles, which squares the
 * relative error. For any other base some value or NaN. */
static inline sl_double2 sl_inverse_root(double base, uint32_t degree)
{
    double low = base > 1.0 ? 1.0 / base : 1.0;
    double high = base > 1.0 ? 1.0 : 1.0 / base;
    for (int step = 0; step < 80; step++) {
        double middle = low + (high - low) * 0.5;
        if (base * sl_double_power(middle, degree) < 1.0) {
            low = middle;
        } else {
            high = middle;
        }
    }
    sl_double2 seed = {high, 0.0};
    sl_double2 product = sl_double2_scale(sl_double2_power(seed, degree), base);
    double excess = (product.high - 1.0) + product.low;
    return sl_double2_renormalize(high, -high * excess / degree);
}

/* sin and cos on [-pi / 4, pi / 4] (a little beyond does no harm): the Taylor series as far as doubles can tell. */
static inline double sl_sin_reduced(double x)
{
    double z = x * x;
    double series = 1.0 / 355687428096000.0;
    series = fma(series, z, -1.0 / 1307674368000.0);
    series = fma(series, z, 1.0 / 6227020800.0);
    series = fma(series, z, -1.0 / 39916800.0);
    series = fma(series, z, 1.0 / 362880.0);
    series = fma(series, z, -1.0 / 5040.0);
    series = fma(series, z, 1.0 / 120.0);
    series = fma(series, z, -1.0 / 6.0);
    return fma(x * z, series, x);
}

static inline double sl_cos_reduced(double x)
{
    double z = x * x;
    double series = 1.0 / 20922789888000.0;
    series = fma(series, z, -1.0 / 87178291200.0);
    series = fma(series, z, 1.0 / 479001600.0);
    series = fma(series, z, -1.0 / 3628800.0);
    series = fma(series, z, 1.0 / 40320.0);
    series = fma(series, z, -1.0 / 720.0);
    series = fma(series, z, 1.0 / 24.0);
    series = fma(series, z, -0.5);
    return fma(series, z, 1.0);
}

/* cos and sin of an angle below 2^40, each rounded to float once. Beyond that, some value in [-1, 1] or NaN. */
static inline void sl_cos_and_sin(sl_double2 angle, float *cosine, float *sine)
{
    const double half_pi_high = 0x1.921fb54442d18p+0;
    const double half_pi_low = 0x1.1a62633145c07p-54;
    /* Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits of the fraction. */
    const double rounding = 0x1.8p+52;
    double shifted = fma(angle.high, 0x1.45f306dc9c883p-1, rounding);
    double n = shifted - rounding;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);

    double product = n * half_pi_high;
    double product_low = fma(n, half_pi_high, -product);
    double difference = angle.high - product; /* exact: the two are within a factor of two, or n is 0 */
    double x = difference + ((angle.low - product_low) - n * half_pi_low);

    double s = sl_sin_reduced(x);
    double c = sl_cos_reduced(x);
    switch (bits & 3) {
    case 0:
        *cosine = (float)c;
        *sine = (float)s;
        break;
    case 1:
        *cosine = (float)-s;
        *sine = (float)c;
        break;
    case 2:
        *cosine = (float)-c;
        *sine = (float)-s;
        break;
    default:
        *cosine = (float)s;
        *sine = (float)-c;
        break;
    }
}

#endif
