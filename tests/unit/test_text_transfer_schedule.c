/* The transfer schedule of block diffusion: how many tokens each step settles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs setjmp, stdarg, stddef and stdint. */
#include <cmocka.h>

#include "text/transfer_schedule.h"

static void as_many_steps_as_tokens_settle_one_each(void **state)
{
    (void)state;
    uint32_t n_settled[32] = {0};
    sl_transfer_schedule(32, 32, n_settled);
    for (int step = 0; step < 32; step++) {
        assert_int_equal(n_settled[step], 1);
    }
}

static void the_remainder_goes_to_the_first_steps(void **state)
{
    (void)state;
    uint32_t n_settled[3] = {0};
    sl_transfer_schedule(10, 3, n_settled);
    const uint32_t expected[3] = {4, 3, 3};
    assert_memory_equal(n_settled, expected, sizeof expected);
}

static void no_steps_make_an_empty_schedule(void **state)
{
    (void)state;
    uint32_t untouched = 77;
    sl_transfer_schedule(10, 0, &untouched);
    assert_int_equal(untouched, 77);
}

static void steps_without_a_token_left_settle_none(void **state)
{
    (void)state;
    uint32_t n_settled[4] = {9, 9, 9, 9};
    sl_transfer_schedule(2, 4, n_settled);
    const uint32_t expected[4] = {1, 1, 0, 0};
    assert_memory_equal(n_settled, expected, sizeof expected);
}

static void shares_add_up_and_never_grow(void **state)
{
    (void)state;
    uint32_t n_settled[66];
    for (uint32_t n_tokens = 0; n_tokens <= 130; n_tokens++) {
        for (uint32_t n_steps = 1; n_steps <= 65; n_steps++) {
            n_settled[n_steps] = 77;
            sl_transfer_schedule(n_tokens, n_steps, n_settled);
            uint32_t sum = n_settled[0];
            for (uint32_t step = 1; step < n_steps; step++) {
                assert_true(n_settled[step] <= n_settled[step - 1]);
                sum += n_settled[step];
            }
            assert_int_equal(sum, n_tokens);
            assert_true(n_settled[0] - n_settled[n_steps - 1] <= 1);
            assert_int_equal(n_settled[n_steps], 77);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_many_steps_as_tokens_settle_one_each),
        cmocka_unit_test(the_remainder_goes_to_the_first_steps),
        cmocka_unit_test(no_steps_make_an_empty_schedule),
        cmocka_unit_test(steps_without_a_token_left_settle_none),
        cmocka_unit_test(shares_add_up_and_never_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
