/* F16 and BF16 against their definitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <float.h>
#include <math.h>

#include "quant/half.h"

/* The value of a pattern with a sign bit, `exponent_bits` and `fraction_bits`, from the definition of binary floats. */
static double value_of(unsigned bits, int exponent_bits, int fraction_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = (int)(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
    int fraction = (int)bits & ((1 << fraction_bits) - 1);
    double sign = (bits >> (exponent_bits + fraction_bits)) != 0 ? -1.0 : 1.0;
    if (exponent == (1 << exponent_bits) - 1) {
        return fraction != 0 ? NAN : sign * INFINITY;
    }
    if (exponent == 0) {
        return sign * ldexp((double)fraction, 1 - bias - fraction_bits);
    }
    return sign * ldexp((double)((1 << fraction_bits) + fraction), exponent - bias - fraction_bits);
}

static void assert_same_float(unsigned pattern, float actual, double expected)
{
    int same = isnan(expected) ? isnan(actual) : sl_float_bits(actual) == sl_float_bits((float)expected);
    if (!same) {
        fail_msg("pattern 0x%04x: %a where %a is right", pattern, (double)actual, expected);
    }
}

static void every_f16_decodes_to_its_definition(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 65536; bits++) {
        assert_same_float(bits, sl_f16_to_f32((uint16_t)bits), value_of(bits, 5, 10));
    }
}

static void every_bf16_decodes_to_its_definition(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 65536; bits++) {
        assert_same_float(bits, sl_bf16_to_f32((uint16_t)bits), value_of(bits, 8, 7));
    }
}

static void every_f16_survives_the_round_trip(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 65536; bits++) {
        unsigned nan_is_quiet = isnan(value_of(bits, 5, 10)) ? 0x200u : 0u;
        assert_int_equal(sl_f32_to_f16(sl_f16_to_f32((uint16_t)bits)), bits | nan_is_quiet);
    }
}

static void every_bf16_survives_the_round_trip(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 65536; bits++) {
        unsigned nan_is_quiet = isnan(value_of(bits, 8, 7)) ? 0x40u : 0u;
        assert_int_equal(sl_f32_to_bf16(sl_bf16_to_f32((uint16_t)bits)), bits | nan_is_quiet);
    }
}

/* Between each pair of neighbours: the midpoint goes to the even one, a hair to either side to the nearer one. */
static void check_rounding(uint16_t encode(float), int exponent_bits, int fraction_bits)
{
    unsigned infinity = ((1u << exponent_bits) - 1u) << fraction_bits;
    for (unsigned lower = 0; lower + 1 < infinity; lower++) {
        double midpoint =
            0.5 * (value_of(lower, exponent_bits, fraction_bits) + value_of(lower + 1, exponent_bits, fraction_bits));
        float exact = (float)midpoint;
        assert_true((double)exact == midpoint);
        for (unsigned sign = 0; sign <= 0x8000u; sign += 0x8000u) {
            float direction = sign != 0 ? -1.0f : 1.0f;
            assert_int_equal(encode(direction * exact), sign | ((lower & 1u) != 0 ? lower + 1 : lower));
            assert_int_equal(encode(direction * nextafterf(exact, 0.0f)), sign | lower);
            assert_int_equal(encode(direction * nextafterf(exact, INFINITY)), sign | (lower + 1));
        }
    }
}

static void f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    check_rounding(sl_f32_to_f16, 5, 10);
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    check_rounding(sl_f32_to_bf16, 8, 7);
}

static void values_beyond_the_range_become_infinite(void **state)
{
    (void)state;
    assert_int_equal(sl_f32_to_f16(nextafterf(65520.0f, 0.0f)), 0x7bff);
    assert_int_equal(sl_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(sl_f32_to_f16(-FLT_MAX), 0xfc00);
    assert_int_equal(sl_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(sl_f32_to_bf16(FLT_MAX), 0x7f80);
    assert_int_equal(sl_f32_to_bf16(-INFINITY), 0xff80);
}

static void tiny_values_become_signed_zero(void **state)
{
    (void)state;
    assert_int_equal(sl_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(sl_f32_to_f16(-0x1p-26f), 0x8000);
    assert_int_equal(sl_f32_to_f16(-FLT_TRUE_MIN), 0x8000);
    assert_int_equal(sl_f32_to_bf16(-FLT_TRUE_MIN), 0x8000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_decodes_to_its_definition),
        cmocka_unit_test(every_bf16_decodes_to_its_definition),
        cmocka_unit_test(every_f16_survives_the_round_trip),
        cmocka_unit_test(every_bf16_survives_the_round_trip),
        cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(values_beyond_the_range_become_infinite),
        cmocka_unit_test(tiny_values_become_signed_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
