/* Predictors: what they remember, what they say, and when they are given up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka.h needs setjmp, stdarg, stddef and stdint. */
#include <cmocka.h>

#include "experts/predict.h"

static sl_memory memory;

static sl_predictor *open_predictor(sl_prefetch_kind kind, uint32_t n_layers)
{
    sl_memory_init(&memory, NULL);
    const sl_predictor_config config = {
        .kind = kind, .n_layers = n_layers, .n_experts = 16, .n_used = 4, .memory = &memory};
    sl_predictor *predictor = NULL;
    assert_int_equal(sl_predictor_open(&predictor, &config, NULL), SLUICE_OK);
    assert_int_equal(memory.total_bytes, sl_predictor_cost(&config));
    return predictor;
}

static void close_predictor(sl_predictor *predictor)
{
    sl_predictor_close(&predictor);
    assert_null(predictor);
    assert_int_equal(memory.total_bytes, 0);
}

static void expect_prediction(sl_predictor *predictor, uint32_t layer, const uint32_t *expected, uint32_t n_expected)
{
    const uint32_t *experts = NULL;
    assert_int_equal(sl_predictor_predict(predictor, layer, &experts), n_expected);
    for (uint32_t i = 0; i < n_expected; i++) {
        assert_int_equal(experts[i], expected[i]);
    }
}

static const sl_store_counters nothing;

static void a_fresh_one_predicts_nothing(void **state)
{
    (void)state;
    sl_predictor *predictor = open_predictor(SL_PREFETCH_PREVIOUS, 8);
    for (uint32_t layer = 0; layer < 8; layer++) {
        expect_prediction(predictor, layer, NULL, 0);
    }
    close_predictor(predictor);
}

static void the_previous_token_is_predicted_until_it_is_forgotten(void **state)
{
    (void)state;
    sl_predictor *predictor = open_predictor(SL_PREFETCH_PREVIOUS, 8);
    const uint32_t ids[] = {7, 0, 15, 2};
    const uint32_t later[] = {1, 2, 3, 4};
    sl_predictor_begin_pass(predictor, 1, &nothing);
    sl_predictor_record(predictor, 3, ids, 1);
    expect_prediction(predictor, 3, ids, 4);
    expect_prediction(predictor, 2, NULL, 0);
    sl_predictor_begin_pass(predictor, 1, &nothing);
    expect_prediction(predictor, 3, ids, 4);
    sl_predictor_record(predictor, 3, later, 1);
    sl_predictor_record(predictor, 4, ids, 1);
    expect_prediction(predictor, 3, later, 4);
    sl_predictor_invalidate(predictor);
    expect_prediction(predictor, 3, NULL, 0);
    expect_prediction(predictor, 4, NULL, 0);
    close_predictor(predictor);
}

static void layers_out_of_range_are_ignored(void **state)
{
    (void)state;
    sl_predictor *predictor = open_predictor(SL_PREFETCH_PREVIOUS, 2);
    const uint32_t ids[] = {7, 0, 15, 2};
    sl_predictor_begin_pass(predictor, 1, &nothing);
    sl_predictor_record(predictor, 99, ids, 1);
    sl_predictor_record(predictor, 2, ids, 1);
    expect_prediction(predictor, 99, NULL, 0);
    expect_prediction(predictor, 2, NULL, 0);
    expect_prediction(predictor, 0, NULL, 0);
    close_predictor(predictor);
}

static void rows_are_merged_rank_by_rank(void **state)
{
    (void)state;
    sl_predictor *predictor = open_predictor(SL_PREFETCH_PREVIOUS, 2);
    const uint32_t ids[] = {7, 0, 15, 2, /* */ 0, 7, 3, 9, /* */ 16, UINT32_MAX, 3, 2};
    const uint32_t expected[] = {7, 0, 15, 3, 2, 9};
    sl_predictor_begin_pass(predictor, 3, &nothing);
    sl_predictor_record(predictor, 1, ids, 3);
    expect_prediction(predictor, 1, expected, 6);
    const uint32_t *experts = NULL;
    assert_int_equal(sl_predictor_merge(predictor, ids, 3, &experts), 6);
    assert_memory_equal(experts, expected, sizeof expected);
    assert_int_equal(sl_predictor_merge(predictor, ids, 1, &experts), 4);
    assert_memory_equal(experts, ids, 4 * sizeof ids[0]);
    close_predictor(predictor);
}

static void in_a_wide_pass_every_expert_is_predicted_in_order(void **state)
{
    (void)state;
    enum { ROWS = 16 };
    for (int kind = SL_PREFETCH_PREVIOUS; kind <= SL_PREFETCH_AUTO; kind++) {
        sl_predictor *predictor = open_predictor((sl_prefetch_kind)kind, 2);
        uint32_t ids[ROWS * 4] = {0};
        const uint32_t last_row[] = {5, 6, 8, 1};
        uint32_t all[16];
        for (uint32_t i = 0; i < 16; i++) {
            all[i] = i;
        }
        for (int i = 0; i < 4; i++) {
            ids[(ROWS - 1) * 4 + i] = last_row[i];
        }
        sl_predictor_begin_pass(predictor, ROWS, &nothing);
        assert_false(sl_predictor_wants_router(predictor));
        expect_prediction(predictor, 0, all, 16);
        sl_predictor_record(predictor, 0, ids, ROWS);
        sl_predictor_begin_pass(predictor, ROWS - 1, &nothing); /* not wide */
        bool by_previous = kind == SL_PREFETCH_PREVIOUS;
        assert_true(sl_predictor_wants_router(predictor) == !by_previous);
        expect_prediction(predictor, 0, last_row, by_previous ? 4 : 0);
        close_predictor(predictor);
    }
}

static void none_predicts_nothing_ever(void **state)
{
    (void)state;
    sl_predictor *predictor = open_predictor(SL_PREFETCH_NONE, 2);
    const uint32_t ids[] = {7, 0, 15, 2};
    sl_predictor_begin_pass(predictor, 512, &nothing);
    sl_predictor_record(predictor, 0, ids, 1);
    expect_prediction(predictor, 0, NULL, 0);
    assert_false(sl_predictor_wants_router(predictor));
    close_predictor(predictor);
}

static void the_value_is_counted_in_time_of_the_disk(void **state)
{
    (void)state;
    /* 1000 bytes in 2 ms; 4 experts used and 1 useless of 5, each 100 bytes as 10 were read. */
    const sl_store_counters before = {.bytes_read = 7000, .busy_ns = 50, .prefetch_used = 3, .misses = 100};
    const sl_store_counters after = {.bytes_read = 8000,
                                     .busy_ns = 2000050,
                                     .misses = 106,
                                     .prefetch_issued = 5,
                                     .prefetch_used = 7,
                                     .prefetch_useless = 1,
                                     .prefetch_used_bytes = 350,
                                     .prefetch_displaced = 2,
                                     .prefetch_ahead_bytes = 60};
    sl_prefetch_value value = sl_prefetch_value_of(&before, &after);
    assert_true(value.saved_ms > 0.6999 && value.saved_ms < 0.7001);
    assert_true(value.lost_ms > 0.1999 && value.lost_ms < 0.2001); /* 60 + 2 * 1/5 * 100 bytes */
    assert_true(value.read_ms > 1.9999 && value.read_ms < 2.0001);
    assert_true(sl_prefetch_pays(&value));
    value.lost_ms = 0.65;
    assert_false(sl_prefetch_pays(&value)); /* less than 3 % */
    value = sl_prefetch_value_of(&after, &after);
    assert_false(sl_prefetch_pays(&value));
}

/* Passes of one token that each read 1000 bytes, of which `used` were there ahead. */
static void run_window(sl_predictor *predictor, sl_store_counters *counters, uint64_t used)
{
    for (int i_pass = 0; i_pass < SL_PREDICT_WINDOW; i_pass++) {
        counters->requests += 10;
        counters->misses += 10;
        counters->bytes_read += 1000;
        counters->busy_ns += 1000000;
        counters->prefetch_issued += 2;
        counters->prefetch_used += 2;
        counters->prefetch_used_bytes += used;
        sl_predictor_begin_pass(predictor, 1, counters);
    }
}

static void one_that_pays_stays(void **state)
{
    (void)state;
    sl_predictor *predictor = open_predictor(SL_PREFETCH_ROUTER, 2);
    sl_store_counters counters = {0};
    sl_predictor_begin_pass(predictor, 1, &counters);
    for (int i_window = 0; i_window < 50; i_window++) {
        run_window(predictor, &counters, 31);
        assert_true(sl_predictor_wants_router(predictor));
    }
    close_predictor(predictor);
}

static void one_that_does_not_pay_rests_longer_each_time(void **state)
{
    (void)state;
    sl_predictor *predictor = open_predictor(SL_PREFETCH_ROUTER, 2);
    sl_store_counters counters = {0};
    sl_predictor_begin_pass(predictor, 1, &counters);
    for (int rest = SL_PREDICT_LEAST_REST; rest <= 16 * SL_PREDICT_LEAST_REST; rest *= 2) {
        assert_true(sl_predictor_wants_router(predictor));
        run_window(predictor, &counters, 30);
        for (int i_window = 0; i_window < rest; i_window++) {
            assert_false(sl_predictor_wants_router(predictor));
            run_window(predictor, &counters, 0);
        }
    }
    assert_true(sl_predictor_wants_router(predictor));
    run_window(predictor, &counters, 30);
    for (int i_window = 0; i_window < 16 * SL_PREDICT_LEAST_REST; i_window++) {
        assert_false(sl_predictor_wants_router(predictor));
        run_window(predictor, &counters, 0);
    }
    /* Once it pays, the next rest is short again. */
    run_window(predictor, &counters, 500);
    assert_true(sl_predictor_wants_router(predictor));
    run_window(predictor, &counters, 0);
    for (int i_window = 0; i_window < SL_PREDICT_LEAST_REST; i_window++) {
        assert_false(sl_predictor_wants_router(predictor));
        run_window(predictor, &counters, 0);
    }
    assert_true(sl_predictor_wants_router(predictor));
    close_predictor(predictor);
}

static void auto_tries_the_router_and_then_the_previous_token(void **state)
{
    (void)state;
    sl_predictor *predictor = open_predictor(SL_PREFETCH_AUTO, 2);
    const uint32_t ids[] = {7, 0, 15, 2};
    sl_store_counters counters = {0};
    sl_predictor_begin_pass(predictor, 1, &counters);
    sl_predictor_record(predictor, 1, ids, 1);
    assert_true(sl_predictor_wants_router(predictor));
    expect_prediction(predictor, 1, NULL, 0);
    run_window(predictor, &counters, 0);
    assert_false(sl_predictor_wants_router(predictor));
    expect_prediction(predictor, 1, ids, 4);
    run_window(predictor, &counters, 100);
    expect_prediction(predictor, 1, ids, 4);
    run_window(predictor, &counters, 0);
    assert_false(sl_predictor_wants_router(predictor));
    expect_prediction(predictor, 1, NULL, 0);
    for (int i_window = 0; i_window < SL_PREDICT_LEAST_REST; i_window++) {
        run_window(predictor, &counters, 0);
    }
    assert_true(sl_predictor_wants_router(predictor));
    close_predictor(predictor);
}

static void wide_passes_and_resets_are_not_judged(void **state)
{
    (void)state;
    sl_predictor *predictor = open_predictor(SL_PREFETCH_ROUTER, 2);
    sl_store_counters counters = {0};
    sl_predictor_begin_pass(predictor, 512, &counters);
    for (int i_pass = 0; i_pass < 3 * SL_PREDICT_WINDOW; i_pass++) {
        counters.requests += 10;
        counters.bytes_read += 1000;
        counters.busy_ns += 1000000;
        sl_predictor_begin_pass(predictor, 512, &counters);
    }
    sl_predictor_begin_pass(predictor, 1, &counters);
    assert_true(sl_predictor_wants_router(predictor));
    counters = (sl_store_counters){0};
    sl_predictor_begin_pass(predictor, 1, &counters);
    run_window(predictor, &counters, 500);
    assert_true(sl_predictor_wants_router(predictor));
    close_predictor(predictor);
}

static void names_of_kinds_are_known(void **state)
{
    (void)state;
    sl_prefetch_kind kind = SL_PREFETCH_NONE;
    assert_true(sl_prefetch_kind_parse("auto", &kind) && kind == SL_PREFETCH_AUTO);
    assert_true(sl_prefetch_kind_parse("previous", &kind) && kind == SL_PREFETCH_PREVIOUS);
    assert_true(sl_prefetch_kind_parse("router", &kind) && kind == SL_PREFETCH_ROUTER);
    assert_true(sl_prefetch_kind_parse("none", &kind) && kind == SL_PREFETCH_NONE);
    assert_false(sl_prefetch_kind_parse("Router", &kind));
    assert_false(sl_prefetch_kind_parse("", &kind));
}

typedef struct failing_source {
    uint64_t failing, n_calls;
} failing_source;

static void *allocate_or_fail(void *user, size_t bytes, size_t alignment)
{
    failing_source *source = user;
    void *pointer = NULL;
    source->n_calls++;
    return source->n_calls == source->failing || posix_memalign(&pointer, alignment, bytes) != 0 ? NULL : pointer;
}

static void release(void *user, void *pointer)
{
    (void)user;
    free(pointer);
}

static void a_refused_allocation_fails_open_and_leaves_nothing(void **state)
{
    (void)state;
    failing_source source = {0};
    sl_memory_init(&memory, &(sl_memory_source){.allocate = allocate_or_fail, .release = release, .user = &source});
    const sl_predictor_config config = {
        .kind = SL_PREFETCH_AUTO, .n_layers = 3, .n_experts = 16, .n_used = 4, .memory = &memory};
    sluice_status status = SLUICE_ERROR_NO_MEMORY;
    for (source.failing = 1; status != SLUICE_OK; source.failing++) {
        sl_predictor *predictor = NULL;
        source.n_calls = 0;
        status = sl_predictor_open(&predictor, &config, NULL);
        assert_true(status == SLUICE_OK || (status == SLUICE_ERROR_NO_MEMORY && predictor == NULL));
        sl_predictor_close(&predictor);
        assert_int_equal(memory.total_bytes, 0);
    }
    assert_int_equal(source.failing, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fresh_one_predicts_nothing),
        cmocka_unit_test(the_previous_token_is_predicted_until_it_is_forgotten),
        cmocka_unit_test(layers_out_of_range_are_ignored),
        cmocka_unit_test(rows_are_merged_rank_by_rank),
        cmocka_unit_test(in_a_wide_pass_every_expert_is_predicted_in_order),
        cmocka_unit_test(none_predicts_nothing_ever),
        cmocka_unit_test(the_value_is_counted_in_time_of_the_disk),
        cmocka_unit_test(one_that_pays_stays),
        cmocka_unit_test(one_that_does_not_pay_rests_longer_each_time),
        cmocka_unit_test(auto_tries_the_router_and_then_the_previous_token),
        cmocka_unit_test(wide_passes_and_resets_are_not_judged),
        cmocka_unit_test(names_of_kinds_are_known),
        cmocka_unit_test(a_refused_allocation_fails_open_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
