/* Buckets of row counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include "graph/buckets.h"

static void the_ladder_from_8_to_256_has_six_steps(void **state)
{
    (void)state;
    const uint64_t begins[] = {1, 9, 17, 33, 65, 129};
    const uint64_t extents[] = {8, 16, 32, 64, 128, 256};
    sl_bucket buckets[SL_MAX_BUCKETS];
    assert_int_equal(sl_bucket_ladder(8, 256, buckets), 6);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(buckets[i].begin, begins[i]);
        assert_int_equal(buckets[i].end - 1, extents[i]);
    }
    assert_int_equal(sl_buckets_check(buckets, 6, NULL), SLUICE_OK);
}

static void ends_that_are_no_powers_of_two_are_rounded_up(void **state)
{
    (void)state;
    sl_bucket buckets[SL_MAX_BUCKETS];
    assert_int_equal(sl_bucket_ladder(5, 20, buckets), 3);
    assert_int_equal(buckets[0].begin, 1);
    assert_int_equal(buckets[0].end, 9);
    assert_int_equal(buckets[2].end, 33);
    assert_int_equal(sl_bucket_ladder(1, 1, buckets), 1);
    assert_int_equal(buckets[0].begin, 1);
    assert_int_equal(buckets[0].end, 2);
}

static void an_impossible_ladder_is_empty(void **state)
{
    (void)state;
    sl_bucket buckets[SL_MAX_BUCKETS];
    assert_int_equal(sl_bucket_ladder(0, 8, buckets), 0);
    assert_int_equal(sl_bucket_ladder(9, 8, buckets), 0);
    assert_int_equal(sl_bucket_ladder(1, UINT64_MAX, buckets), 0);
}

static void the_longest_ladder_fits(void **state)
{
    (void)state;
    sl_bucket buckets[SL_MAX_BUCKETS];
    assert_int_equal(sl_bucket_ladder(1, (uint64_t)1 << 63, buckets), 64);
    assert_int_equal(buckets[63].end, ((uint64_t)1 << 63) + 1);
    assert_int_equal(sl_buckets_check(buckets, 64, NULL), SLUICE_OK);
}

static void a_count_is_found_in_the_bucket_that_holds_it(void **state)
{
    (void)state;
    sl_bucket buckets[SL_MAX_BUCKETS];
    uint32_t n_buckets = sl_bucket_ladder(8, 256, buckets);
    assert_int_equal(sl_buckets_find(buckets, n_buckets, 1), 0);
    assert_int_equal(sl_buckets_find(buckets, n_buckets, 8), 0);
    assert_int_equal(sl_buckets_find(buckets, n_buckets, 9), 1);
    /* Runs at 32. */
    assert_int_equal(sl_buckets_find(buckets, n_buckets, 17), 2);
    assert_int_equal(sl_buckets_find(buckets, n_buckets, 256), 5);
    assert_int_equal(sl_buckets_find(buckets, n_buckets, 257), UINT32_MAX);
    assert_int_equal(sl_buckets_find(buckets, n_buckets, 0), UINT32_MAX);
}

static void expect_refusal(const sl_bucket *buckets, uint32_t n_buckets)
{
    sluice_error error = {0};
    assert_int_equal(sl_buckets_check(buckets, n_buckets, &error), SLUICE_ERROR_ARGUMENT);
    assert_true(error.message[0] != '\0');
}

static void bad_lists_are_refused(void **state)
{
    (void)state;
    const sl_bucket overlapping[] = {{17, 33}, {1, 18}};
    const sl_bucket empty_range[] = {{1, 9}, {9, 9}};
    const sl_bucket reversed[] = {{9, 1}};
    const sl_bucket only_zero_rows[] = {{0, 1}};
    expect_refusal(NULL, 0);
    expect_refusal(overlapping, 2);
    expect_refusal(empty_range, 2);
    expect_refusal(reversed, 1);
    expect_refusal(only_zero_rows, 1);
}

static void lists_may_have_gaps_and_any_order(void **state)
{
    (void)state;
    const sl_bucket buckets[] = {{100, 200}, {1, 9}};
    assert_int_equal(sl_buckets_check(buckets, 2, NULL), SLUICE_OK);
    assert_int_equal(sl_buckets_find(buckets, 2, 50), UINT32_MAX);
    assert_int_equal(sl_buckets_find(buckets, 2, 5), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_ladder_from_8_to_256_has_six_steps),
        cmocka_unit_test(ends_that_are_no_powers_of_two_are_rounded_up),
        cmocka_unit_test(an_impossible_ladder_is_empty),
        cmocka_unit_test(the_longest_ladder_fits),
        cmocka_unit_test(a_count_is_found_in_the_bucket_that_holds_it),
        cmocka_unit_test(bad_lists_are_refused),
        cmocka_unit_test(lists_may_have_gaps_and_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
