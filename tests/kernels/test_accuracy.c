/* The definition against mathematics: stated error bounds, held. */
#include "support.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/generic/math.h"
#include "quant/blocks.h"

/* Distance of `value` from `exact` in units of the last place of a float of that size. */
static long double ulps(float value, long double exact)
{
    int exponent;
    frexpl(exact, &exponent);
    long double unit = ldexpl(1.0L, (exponent < -125 ? -125 : exponent) - 24);
    return fabsl((long double)value - exact) / unit;
}

static void exp_is_within_two_units_in_the_last_place(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 257) {
        float x = sl_float_from_bits((uint32_t)bits);
        if (x >= SL_EXP_MIN && x <= SL_EXP_MAX && ulps(sl_exp(x), expl((long double)x)) > 2.0L) {
            fail_msg("exp(%a) = %a", (double)x, (double)sl_exp(x));
        }
    }
}

static void exp_is_defined_at_its_ends(void **state)
{
    (void)state;
    assert_true(sl_exp(0.0f) == 1.0f);
    assert_true(sl_exp(-0.0f) == 1.0f);
    assert_true(sl_exp(SL_EXP_MAX) < INFINITY && sl_exp(SL_EXP_MAX) > 3.4e38f);
    assert_true(sl_exp(nextafterf(SL_EXP_MAX, INFINITY)) == INFINITY);
    assert_true(sl_exp(INFINITY) == INFINITY);
    assert_true(sl_exp(SL_EXP_MIN) >= FLT_MIN);
    assert_true(sl_exp(nextafterf(SL_EXP_MIN, -INFINITY)) == 0.0f);
    assert_true(sl_exp(-INFINITY) == 0.0f);
    assert_true(isnan(sl_exp(NAN)));
}

static void activation_functions_are_close(void **state)
{
    (void)state;
    for (float x = -80.0f; x <= 80.0f; x += 0.00390625f) {
        long double exact = x;
        long double sigmoid = 1.0L / (1.0L + expl(-exact));
        assert_true(ulps(sl_sigmoid(x), sigmoid) <= 4.0L);
        assert_true(ulps(sl_silu(x), exact * sigmoid) <= 4.0L);
        long double inner = sqrtl(2.0L / acosl(-1.0L)) * (exact + 0.044715L * exact * exact * exact);
        long double gelu = exact / (1.0L + expl(-2.0L * inner));
        /* An error of the exponent's last place is a relative error of the result, up to 88 times as large. */
        assert_true(fabsl((long double)sl_gelu(x) - gelu) <= 2e-5L * fabsl(gelu) + 1e-36L);
    }
}

enum { COLUMNS = 512, ROWS = 3 };

/* Weights times float activations in double, from quant's decoder, and the bound on the error that follows from
 * rounding activations to int8 (half a step each) and from float rounding. */
static void check_matmul(const sl_kernel_table *table, sl_type type, const void *weights, size_t row_bytes,
                         const float *x)
{
    const sl_type_traits *traits = sl_type_traits_of((int)type);
    bool is_float = traits->activation_type == SL_TYPE_F32;
    guarded activation = guarded_allocate((size_t)sl_type_row_bytes(traits->activation_type, COLUMNS));
    if (is_float) {
        memcpy(activation.data, x, activation.bytes);
    } else {
        table->quantize_row[traits->activation_type](x, COLUMNS, activation.data);
    }
    float out[ROWS];
    table->matmul[type](weights, row_bytes, COLUMNS, 0, ROWS, activation.data, activation.bytes, 1, out, ROWS);
    uint32_t block = is_float ? COLUMNS : sl_type_traits_of((int)traits->activation_type)->block_elements;
    for (uint32_t r = 0; r < ROWS; r++) {
        float decoded[COLUMNS];
        traits->decode_row((const uint8_t *)weights + r * row_bytes, decoded, COLUMNS);
        double exact = 0;
        double magnitude = 0;
        double half_steps = 0;
        for (uint32_t first = 0; first < COLUMNS; first += block) {
            double largest = 0;
            double weight_sum = 0;
            for (uint32_t i = first; i < first + block; i++) {
                exact += (double)decoded[i] * x[i];
                magnitude += fabs((double)decoded[i] * x[i]);
                largest = fmax(largest, fabs((double)x[i]));
                weight_sum += fabs((double)decoded[i]);
            }
            half_steps += weight_sum * largest / 127 * 0.5001;
        }
        double bound = (is_float ? 0 : half_steps) + 64 * FLT_EPSILON * (magnitude + half_steps);
        if (!(fabs(out[r] - exact) <= bound)) {
            fail_msg("%s: %g, in double %g, bound %g", traits->name, (double)out[r], exact, bound);
        }
    }
    guarded_release(&activation);
}

static void matmul_is_as_close_as_int8_activations_allow(void **state)
{
    (void)state;
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    random_source random = {41};
    for (int type = 0; type < SL_TYPE_COUNT; type++) {
        for (int round = 0; generic.matmul[type] != NULL && round < 50; round++) {
            size_t row_bytes = (size_t)sl_type_row_bytes((sl_type)type, COLUMNS);
            guarded weights = guarded_allocate(row_bytes * ROWS);
            fill_weights((sl_type)type, WEIGHTS_SANE, weights.data, weights.bytes, &random);
            float x[COLUMNS];
            fill_floats(round % 2 ? FLOATS_EXTREME : FLOATS_NORMAL, x, COLUMNS, &random);
            check_matmul(&generic, (sl_type)type, weights.data, row_bytes, x);
            guarded_release(&weights);
        }
    }
}

/* With activations that int8 holds exactly, only float rounding is left: a wrong bit of unpacking cannot hide. */
static void matmul_of_exact_activations_is_close(void **state)
{
    (void)state;
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    random_source random = {43};
    for (int type = 0; type < SL_TYPE_COUNT; type++) {
        for (int round = 0; generic.matmul[type] != NULL && round < 50; round++) {
            const sl_type_traits *traits = sl_type_traits_of(type);
            size_t row_bytes = (size_t)sl_type_row_bytes((sl_type)type, COLUMNS);
            guarded weights = guarded_allocate(row_bytes);
            fill_weights((sl_type)type, WEIGHTS_SANE, weights.data, weights.bytes, &random);
            float x[COLUMNS];
            for (uint32_t i = 0; i < COLUMNS; i++) {
                x[i] = i % 32 == 0 ? 127.0f : (float)((int)random_below(&random, 255) - 127);
            }
            guarded activation = guarded_allocate((size_t)sl_type_row_bytes(traits->activation_type, COLUMNS));
            if (traits->activation_type == SL_TYPE_F32) {
                memcpy(activation.data, x, activation.bytes);
            } else {
                generic.quantize_row[traits->activation_type](x, COLUMNS, activation.data);
            }
            float out;
            float decoded[COLUMNS];
            generic.matmul[type](weights.data, row_bytes, COLUMNS, 0, 1, activation.data, activation.bytes, 1, &out, 1);
            traits->decode_row(weights.data, decoded, COLUMNS);
            double exact = 0;
            double magnitude = 0;
            for (uint32_t i = 0; i < COLUMNS; i++) {
                exact += (double)decoded[i] * x[i];
                magnitude += fabs((double)decoded[i] * x[i]);
            }
            if (!(fabs(out - exact) <= 16 * FLT_EPSILON * magnitude)) {
                fail_msg("%s: %g, in double %g", traits->name, (double)out, exact);
            }
            guarded_release(&weights);
            guarded_release(&activation);
        }
    }
}

static void quantized_activations_are_within_half_a_step(void **state)
{
    (void)state;
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    random_source random = {47};
    for (int round = 0; round < 500; round++) {
        float x[SL_QK_K];
        fill_floats(FLOATS_NORMAL, x, SL_QK_K, &random);
        sl_block_act_q8_256 block;
        generic.quantize_row[SL_TYPE_ACT_Q8_256](x, SL_QK_K, &block);
        for (int i = 0; i < SL_QK_K; i++) {
            assert_in_range(block.q[i] + 127, 0, 254);
            assert_true(fabs((double)block.q[i] * (double)block.d - (double)x[i]) <= 0.50001 * (double)block.d);
        }
        for (int group = 0; group < SL_QK_K / 16; group++) {
            int sum = 0;
            for (int i = 0; i < 16; i++) {
                sum += block.q[group * 16 + i];
            }
            assert_int_equal(block.sums[group], sum);
        }
        sl_block_act_q8_32 blocks[SL_QK_K / SL_QK];
        generic.quantize_row[SL_TYPE_ACT_Q8_32](x, SL_QK_K, blocks);
        for (int i = 0; i < SL_QK_K; i++) {
            const sl_block_act_q8_32 *small = &blocks[i / SL_QK];
            assert_true(fabs((double)small->q[i % SL_QK] * (double)small->d - (double)x[i]) <=
                        0.50001 * (double)small->d);
        }
    }
}

static void activations_that_are_not_finite_poison_their_block_only(void **state)
{
    (void)state;
    const float poisons[] = {NAN, INFINITY, -INFINITY};
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    for (int i = 0; i < 3; i++) {
        float x[2 * SL_QK];
        for (int j = 0; j < 2 * SL_QK; j++) {
            x[j] = (float)j;
        }
        x[5] = poisons[i];
        sl_block_act_q8_32 blocks[2];
        generic.quantize_row[SL_TYPE_ACT_Q8_32](x, 2 * SL_QK, blocks);
        assert_true(isnan(blocks[0].d));
        assert_int_equal(blocks[0].sum, 0);
        assert_true(blocks[1].d == 63.0f / 127.0f);
    }
}

static void rms_norm_is_right(void **state)
{
    (void)state;
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    random_source random = {53};
    for (uint32_t n = 1; n < 300; n += 7) {
        float x[300], weight[300], out[300];
        fill_floats(FLOATS_NORMAL, x, n, &random);
        fill_floats(FLOATS_NORMAL, weight, n, &random);
        generic.rms_norm(x, weight, n, 1e-6f, out);
        double squares = 0;
        for (uint32_t i = 0; i < n; i++) {
            squares += (double)x[i] * x[i];
        }
        for (uint32_t i = 0; i < n; i++) {
            double exact = x[i] / sqrt(squares / n + 1e-6) * weight[i];
            assert_true(fabs(out[i] - exact) <= 1e-6 * fabs(exact) + 1e-30);
        }
    }
}

static void softmax_sums_to_one(void **state)
{
    (void)state;
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    random_source random = {59};
    for (uint32_t n = 1; n < 400; n += 3) {
        float x[400], p[400];
        fill_floats(FLOATS_NORMAL, x, n, &random);
        memcpy(p, x, sizeof p);
        generic.softmax(p, n);
        double exact_sum = 0;
        double sum = 0;
        for (uint32_t i = 0; i < n; i++) {
            exact_sum += exp((double)x[i]);
            sum += (double)p[i];
        }
        assert_true(fabs(sum - 1.0) <= 1e-6);
        for (uint32_t i = 0; i < n; i++) {
            double exact = exp((double)x[i]) / exact_sum;
            assert_true(fabs((double)p[i] - exact) <= 1e-6 * exact);
        }
    }
}

/* Against long double: its own error, about 2^-62 of the angle, is allowed for. */
static void rotary_tables_are_right_to_the_last_bit(void **state)
{
    (void)state;
    static const uint32_t rotations[] = {2, 64, 96, 128};
    static const float bases[] = {1e4f, 5e5f, 1e6f, 1e7f};
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    for (size_t b = 0; b < 4; b++) {
        for (size_t r = 0; r < 4; r++) {
            sl_rope_config config = {rotations[r], bases[b], 1.0f, NULL};
            for (uint32_t position = 0; position <= 1000000; position += position < 64 ? 1 : 9973) {
                float table[128];
                generic.rope_table(&config, position, table);
                for (uint32_t i = 0; i < rotations[r] / 2; i++) {
                    long double angle = position * powl((long double)bases[b], -2.0L * i / rotations[r]);
                    long double error = 0x1p-61L * angle;
                    for (int part = 0; part < 2; part++) {
                        long double exact = part == 0 ? cosl(angle) : sinl(angle);
                        float value = table[2 * i + (uint32_t)part];
                        long double unit = fabsl(exact) * 0x1p-23L;
                        if (fabsl((long double)value - exact) > unit + error) {
                            fail_msg("base %g, pair %u of %u, position %u: %a, exact %La", (double)bases[b], i,
                                     rotations[r] / 2, position, (double)value, exact);
                        }
                    }
                }
            }
        }
    }
}

static void rotary_scaling_and_factors_divide_the_angle(void **state)
{
    (void)state;
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    float plain[8], scaled[8], divided[8];
    const float factors[4] = {4.0f, 4.0f, 4.0f, 4.0f};
    generic.rope_table(&(sl_rope_config){8, 1e4f, 1.0f, NULL}, 1000, plain);
    generic.rope_table(&(sl_rope_config){8, 1e4f, 0.25f, NULL}, 4000, scaled);
    generic.rope_table(&(sl_rope_config){8, 1e4f, 1.0f, factors}, 4000, divided);
    assert_memory_equal(scaled, plain, sizeof plain);
    assert_memory_equal(divided, plain, sizeof plain);
}

static void rotation_at_position_0_is_identity(void **state)
{
    (void)state;
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    random_source random = {61};
    for (int pairing = SL_ROPE_NORM; pairing <= SL_ROPE_NEOX; pairing++) {
        float table[64], x[160], before[160];
        sl_rope_config config = {64, 1e6f, 1.0f, NULL};
        fill_floats(FLOATS_NORMAL, x, 160, &random);
        memcpy(before, x, sizeof x);
        generic.rope_table(&config, 0, table);
        generic.rope(x, 2, 80, 64, (sl_rope_pairing)pairing, table);
        assert_memory_equal(x, before, sizeof x);
    }
}

static void rotation_turns_the_pairs_it_says(void **state)
{
    (void)state;
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    const float quarter_turns[] = {0.0f, 1.0f, 0.0f, 1.0f};
    float adjacent[] = {1, 2, 3, 4, 5};
    generic.rope(adjacent, 1, 5, 4, SL_ROPE_NORM, quarter_turns);
    const float expected_adjacent[] = {-2, 1, -4, 3, 5};
    assert_memory_equal(adjacent, expected_adjacent, sizeof adjacent);
    float halves[] = {1, 2, 3, 4, 5};
    generic.rope(halves, 1, 5, 4, SL_ROPE_NEOX, quarter_turns);
    const float expected_halves[] = {-3, -4, 1, 2, 5};
    assert_memory_equal(halves, expected_halves, sizeof halves);
}

int run_accuracy_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_two_units_in_the_last_place),
        cmocka_unit_test(exp_is_defined_at_its_ends),
        cmocka_unit_test(activation_functions_are_close),
        cmocka_unit_test(matmul_is_as_close_as_int8_activations_allow),
        cmocka_unit_test(matmul_of_exact_activations_is_close),
        cmocka_unit_test(quantized_activations_are_within_half_a_step),
        cmocka_unit_test(activations_that_are_not_finite_poison_their_block_only),
        cmocka_unit_test(rms_norm_is_right),
        cmocka_unit_test(softmax_sums_to_one),
        cmocka_unit_test(rotary_tables_are_right_to_the_last_bit),
        cmocka_unit_test(rotary_scaling_and_factors_divide_the_angle),
        cmocka_unit_test(rotation_at_position_0_is_identity),
        cmocka_unit_test(rotation_turns_the_pairs_it_says),
    };
    return cmocka_run_group_tests_name("accuracy", tests, NULL, NULL);
}
