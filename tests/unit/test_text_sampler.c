/* The sampler: each filter alone, their order, and that a draw depends on nothing but what the header says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <math.h>

#include "../support/failing_memory.h"
#include "text/sampler.h"

static const sl_sampler_options plain = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 1};

/* Probabilities 0.5, 0.3, 0.15, 0.05 of ids 2, 0, 3, 1. */
enum { N_SMALL = 4 };
static const float small[N_SMALL] = {-1.2039728f, -2.9957323f, -0.6931472f, -1.8971200f};

static sl_sampler *open_sampler(sl_memory *memory, const sl_sampler_options *options, uint32_t n_vocab)
{
    sl_memory_init(memory, NULL);
    sl_sampler *sampler = NULL;
    sluice_error error;
    if (sl_sampler_open(&sampler, options, n_vocab, memory, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    return sampler;
}

static void close_sampler(sl_memory *memory, sl_sampler *sampler)
{
    sl_sampler_close(&sampler);
    assert_null(sampler);
    assert_int_equal(memory->n_live, 0);
}

/* Bit i is set when id i is ever drawn in many draws from `small`. */
static unsigned drawn_ids(const sl_sampler_options *options)
{
    sl_memory memory;
    sl_sampler *sampler = open_sampler(&memory, options, N_SMALL);
    unsigned drawn = 0;
    for (int i = 0; i < 2000; i++) {
        int32_t id = sl_sampler_draw(sampler, small);
        assert_in_range(id, 0, N_SMALL - 1);
        drawn |= 1u << id;
    }
    close_sampler(&memory, sampler);
    return drawn;
}

static int32_t draw_once(const sl_sampler_options *options, const float *logits, uint32_t n_vocab)
{
    sl_memory memory;
    sl_sampler *sampler = open_sampler(&memory, options, n_vocab);
    int32_t id = sl_sampler_draw(sampler, logits);
    close_sampler(&memory, sampler);
    return id;
}

static void temperature_zero_takes_the_highest_and_of_equals_the_first(void **state)
{
    (void)state;
    sl_sampler_options options = plain;
    options.temperature = 0;
    assert_int_equal(draw_once(&options, small, N_SMALL), 2);
    const float tied[] = {1, 3, 2, 3, 3};
    assert_int_equal(draw_once(&options, tied, 5), 1);
    const float infinite[] = {1, INFINITY, 3};
    assert_int_equal(draw_once(&options, infinite, 3), 1);
}

static void temperature_zero_takes_the_highest_wherever_it_is(void **state)
{
    (void)state;
    enum { N_MANY = 2500 };
    static float logits[N_MANY];
    sl_sampler_options options = plain;
    options.temperature = 0;
    for (uint32_t i = 0; i < N_MANY; i++) {
        logits[i] = i % 7 == 3 ? NAN : -1.0f - (float)(i % 50);
    }
    for (uint32_t best = 0; best < N_MANY; best++) {
        const float before = logits[best];
        logits[best] = 2;
        assert_int_equal(draw_once(&options, logits, N_MANY), best);
        const float equal = logits[N_MANY - 1];
        logits[N_MANY - 1] = 2;
        assert_int_equal(draw_once(&options, logits, N_MANY), best);
        logits[N_MANY - 1] = equal;
        logits[best] = before;
    }
}

static void a_logit_that_is_no_number_is_never_drawn(void **state)
{
    (void)state;
    const float logits[] = {NAN, 1, NAN, -INFINITY};
    sl_sampler_options options = plain;
    for (options.seed = 0; options.seed < 50; options.seed++) {
        options.top_k = (uint32_t)options.seed % 3;
        assert_int_equal(draw_once(&options, logits, 4), 1);
    }
    options.temperature = 0;
    assert_int_equal(draw_once(&options, logits, 4), 1);
}

static void without_any_finite_logit_the_first_id_is_drawn(void **state)
{
    (void)state;
    const float logits[] = {-INFINITY, NAN, -INFINITY};
    assert_int_equal(draw_once(&plain, logits, 3), 0);
}

static void infinite_logits_share_the_draw(void **state)
{
    (void)state;
    const float logits[] = {0, INFINITY, 100, INFINITY};
    unsigned drawn = 0;
    sl_sampler_options options = plain;
    for (options.seed = 0; options.seed < 50; options.seed++) {
        drawn |= 1u << draw_once(&options, logits, 4);
    }
    assert_int_equal(drawn, 1u << 1 | 1u << 3);
}

static void without_filters_every_id_is_drawn(void **state)
{
    (void)state;
    assert_int_equal(drawn_ids(&plain), 0xf);
}

static void top_k_keeps_the_k_highest(void **state)
{
    (void)state;
    sl_sampler_options options = plain;
    options.top_k = 1;
    assert_int_equal(drawn_ids(&options), 1u << 2);
    options.top_k = 2;
    assert_int_equal(drawn_ids(&options), 1u << 2 | 1u << 0);
    options.top_k = 100;
    assert_int_equal(drawn_ids(&options), 0xf);
}

static void top_k_cuts_equals_after_the_lower_id(void **state)
{
    (void)state;
    const float tied[] = {5, 1, 5, 5, 5};
    sl_sampler_options options = plain;
    options.top_k = 2;
    unsigned drawn = 0;
    for (options.seed = 0; options.seed < 50; options.seed++) {
        drawn |= 1u << draw_once(&options, tied, 5);
    }
    assert_int_equal(drawn, 1u << 0 | 1u << 2);
}

static void top_p_keeps_the_fewest_that_reach_it(void **state)
{
    (void)state;
    sl_sampler_options options = plain;
    options.top_p = 0.49f;
    assert_int_equal(drawn_ids(&options), 1u << 2);
    options.top_p = 0.79f;
    assert_int_equal(drawn_ids(&options), 1u << 2 | 1u << 0);
    options.top_p = 0.81f;
    assert_int_equal(drawn_ids(&options), 1u << 2 | 1u << 0 | 1u << 3);
    options.top_p = 0.001f;
    assert_int_equal(drawn_ids(&options), 1u << 2);
}

static void min_p_keeps_what_is_near_the_best(void **state)
{
    (void)state;
    sl_sampler_options options = plain;
    options.min_p = 0.2f; /* 0.1 and more */
    assert_int_equal(drawn_ids(&options), 1u << 2 | 1u << 0 | 1u << 3);
    options.min_p = 0.61f;
    assert_int_equal(drawn_ids(&options), 1u << 2);
    options.min_p = 1;
    assert_int_equal(drawn_ids(&options), 1u << 2);
}

static void temperature_comes_before_top_p_and_min_p(void **state)
{
    (void)state;
    sl_sampler_options options = plain;
    options.temperature = 100; /* nearly equal parts */
    options.top_p = 0.7f;
    assert_int_equal(drawn_ids(&options), 1u << 2 | 1u << 0 | 1u << 3);
    options.top_p = 1;
    options.min_p = 0.9f;
    assert_int_equal(drawn_ids(&options), 0xf);
}

static void top_k_comes_before_top_p(void **state)
{
    (void)state;
    sl_sampler_options options = plain;
    options.top_p = 0.6f;
    assert_int_equal(drawn_ids(&options), 1u << 2 | 1u << 0);
    options.top_k = 2; /* the best now has 0.625 of what is left */
    assert_int_equal(drawn_ids(&options), 1u << 2);
}

static void min_p_cuts_what_top_p_left(void **state)
{
    (void)state;
    sl_sampler_options options = plain;
    options.top_p = 0.99f;
    options.min_p = 0.4f;
    assert_int_equal(drawn_ids(&options), 1u << 2 | 1u << 0);
}

/* Greedy, so the draw shows where the penalised logits stand. */
static int32_t draw_after(const sl_sampler_options *options, const float *logits, const int32_t *accepted,
                          size_t n_accepted)
{
    sl_memory memory;
    sl_sampler *sampler = open_sampler(&memory, options, 3);
    for (size_t i = 0; i < n_accepted; i++) {
        sl_sampler_accept(sampler, accepted[i]);
    }
    int32_t id = sl_sampler_draw(sampler, logits);
    close_sampler(&memory, sampler);
    return id;
}

static void the_penalty_divides_positive_and_multiplies_negative_logits(void **state)
{
    (void)state;
    const sl_sampler_options options = {.top_p = 1, .repetition_penalty = 2, .penalty_window = 4};
    const int32_t zero = 0;
    const float positive[] = {4, 2.1f, 0};
    const float positive_still[] = {4, 1.9f, 0};
    const float negative[] = {-1, -1.9f, -9};
    const float negative_still[] = {-1, -2.1f, -9};
    assert_int_equal(draw_after(&options, positive, &zero, 0), 0);
    assert_int_equal(draw_after(&options, positive, &zero, 1), 1);
    assert_int_equal(draw_after(&options, positive_still, &zero, 1), 0);
    assert_int_equal(draw_after(&options, negative, &zero, 1), 1);
    assert_int_equal(draw_after(&options, negative_still, &zero, 1), 0);
}

static void the_penalty_counts_a_token_once_and_forgets_what_leaves_the_window(void **state)
{
    (void)state;
    const sl_sampler_options options = {.top_p = 1, .repetition_penalty = 2, .penalty_window = 3};
    const float logits[] = {4, 1.9f, 0};
    const int32_t repeated[] = {0, 0, 0};
    assert_int_equal(draw_after(&options, logits, repeated, 3), 0);
    const float close[] = {4, 3, 0};
    const int32_t leaving[] = {0, 2, 2, 2};
    assert_int_equal(draw_after(&options, close, leaving, 3), 1);
    assert_int_equal(draw_after(&options, close, leaving, 4), 0);
}

static void a_drawn_token_is_penalised_too(void **state)
{
    (void)state;
    const sl_sampler_options options = {.top_p = 1, .repetition_penalty = 2, .penalty_window = 1};
    const float logits[] = {4, 3, 0};
    sl_memory memory;
    sl_sampler *sampler = open_sampler(&memory, &options, 3);
    assert_int_equal(sl_sampler_draw(sampler, logits), 0);
    assert_int_equal(sl_sampler_draw(sampler, logits), 1);
    assert_int_equal(sl_sampler_draw(sampler, logits), 0);
    close_sampler(&memory, sampler);
}

static void the_penalty_comes_before_top_k(void **state)
{
    (void)state;
    const sl_sampler_options options = {
        .temperature = 1, .top_k = 1, .top_p = 1, .repetition_penalty = 2, .penalty_window = 4};
    const float logits[] = {4, 3, 0};
    const int32_t zero = 0;
    assert_int_equal(draw_after(&options, logits, &zero, 1), 1);
}

static void accepting_a_token_outside_the_vocabulary_changes_nothing(void **state)
{
    (void)state;
    const sl_sampler_options options = {.top_p = 1, .repetition_penalty = 2, .penalty_window = 2};
    const float logits[] = {4, 3, 0};
    const int32_t outside[] = {0, -1, 3, INT32_MAX};
    assert_int_equal(draw_after(&options, logits, outside, 4), 1);
}

/* The expected ids come from a calculation of their own, in Python, of the generator, the weights and the draw. */
static void a_seed_gives_its_published_sequence(void **state)
{
    (void)state;
    static const int32_t unfiltered[] = {2,  6, 9, 13, 15, 11, 10, 11, 11, 9, 9, 4,
                                         11, 4, 9, 12, 9,  11, 9,  9,  2,  2, 9, 9};
    static const int32_t filtered[] = {11, 9, 11, 4, 4, 4, 9, 9, 2, 9, 2, 11, 4, 4, 2, 2, 9, 2, 9, 9, 9, 2, 11, 9};
    float logits[16];
    for (int i = 0; i < 16; i++) {
        logits[i] = 0.5f * (float)(i * 7 % 16);
    }
    sl_memory memory;
    sl_sampler_options options = {.temperature = 1.5f, .top_p = 1, .repetition_penalty = 1, .seed = 42};
    sl_sampler *sampler = open_sampler(&memory, &options, 16);
    for (size_t i = 0; i < sizeof unfiltered / sizeof unfiltered[0]; i++) {
        assert_int_equal(sl_sampler_draw(sampler, logits), unfiltered[i]);
    }
    close_sampler(&memory, sampler);
    options.top_k = 5;
    options.top_p = 0.9f;
    options.seed = 7;
    sampler = open_sampler(&memory, &options, 16);
    for (size_t i = 0; i < sizeof filtered / sizeof filtered[0]; i++) {
        assert_int_equal(sl_sampler_draw(sampler, logits), filtered[i]);
    }
    close_sampler(&memory, sampler);
}

static void seeds_differ(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory other_memory;
    sl_sampler_options options = plain;
    sl_sampler *sampler = open_sampler(&memory, &options, N_SMALL);
    options.seed = 2;
    sl_sampler *other = open_sampler(&other_memory, &options, N_SMALL);
    int n_different = 0;
    for (int i = 0; i < 100; i++) {
        n_different += sl_sampler_draw(sampler, small) != sl_sampler_draw(other, small);
    }
    assert_true(n_different > 20);
    close_sampler(&memory, sampler);
    close_sampler(&other_memory, other);
}

static void draws_follow_the_probabilities(void **state)
{
    (void)state;
    static const double expected[N_SMALL] = {0.3, 0.05, 0.5, 0.15};
    enum { N_DRAWS = 100000 };
    for (int ranked = 0; ranked < 2; ranked++) {
        sl_sampler_options options = plain;
        options.top_p = ranked ? 0.99999f : 1;
        sl_memory memory;
        sl_sampler *sampler = open_sampler(&memory, &options, N_SMALL);
        int counts[N_SMALL] = {0};
        for (int i = 0; i < N_DRAWS; i++) {
            counts[sl_sampler_draw(sampler, small)]++;
        }
        for (int id = 0; id < N_SMALL; id++) {
            /* Four standard deviations. */
            double deviation = sqrt(expected[id] * (1 - expected[id]) / N_DRAWS);
            assert_true(fabs((double)counts[id] / N_DRAWS - expected[id]) < 4 * deviation);
        }
        close_sampler(&memory, sampler);
    }
}

static void drawing_allocates_nothing(void **state)
{
    (void)state;
    sl_memory memory;
    const sl_sampler_options options = {
        .temperature = 1, .top_k = 3, .top_p = 0.9f, .repetition_penalty = 1.5f, .penalty_window = 2};
    sl_sampler *sampler = open_sampler(&memory, &options, N_SMALL);
    uint64_t before = memory.n_allocations;
    for (int i = 0; i < 10; i++) {
        (void)sl_sampler_draw(sampler, small);
    }
    assert_int_equal(memory.n_allocations, before);
    close_sampler(&memory, sampler);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sluice_error error;
    sl_sampler *sampler = NULL;
    for (int which = 0; which < 9; which++) {
        sl_sampler_options options = plain;
        uint32_t n_vocab = 4;
        switch (which) {
        case 0: options.temperature = -1; break;
        case 1: options.temperature = NAN; break;
        case 2: options.top_p = 0; break;
        case 3: options.top_p = 1.5f; break;
        case 4: options.min_p = -0.1f; break;
        case 5: options.min_p = NAN; break;
        case 6: options.repetition_penalty = 0; break;
        case 7: n_vocab = 0; break;
        default: options.temperature = INFINITY; break;
        }
        assert_int_equal(sl_sampler_open(&sampler, &options, n_vocab, &memory, &error), SLUICE_ERROR_ARGUMENT);
        assert_null(sampler);
    }
    assert_int_equal(memory.n_live, 0);
}

static void a_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    sl_sampler_options options = plain;
    options.repetition_penalty = 2;
    options.penalty_window = 8;
    sluice_status status = SLUICE_ERROR_NO_MEMORY;
    for (uint64_t n = 0; status != SLUICE_OK; n++) {
        sl_memory memory;
        failing_source source;
        failing_memory_init(&memory, &source, n);
        sl_sampler *sampler = NULL;
        sluice_error error;
        status = sl_sampler_open(&sampler, &options, 100, &memory, &error);
        if (source.n_calls > n) {
            assert_int_equal(status, SLUICE_ERROR_NO_MEMORY);
            assert_null(sampler);
        }
        sl_sampler_close(&sampler);
        assert_int_equal(memory.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(temperature_zero_takes_the_highest_and_of_equals_the_first),
        cmocka_unit_test(temperature_zero_takes_the_highest_wherever_it_is),
        cmocka_unit_test(a_logit_that_is_no_number_is_never_drawn),
        cmocka_unit_test(without_any_finite_logit_the_first_id_is_drawn),
        cmocka_unit_test(infinite_logits_share_the_draw),
        cmocka_unit_test(without_filters_every_id_is_drawn),
        cmocka_unit_test(top_k_keeps_the_k_highest),
        cmocka_unit_test(top_k_cuts_equals_after_the_lower_id),
        cmocka_unit_test(top_p_keeps_the_fewest_that_reach_it),
        cmocka_unit_test(min_p_keeps_what_is_near_the_best),
        cmocka_unit_test(temperature_comes_before_top_p_and_min_p),
        cmocka_unit_test(top_k_comes_before_top_p),
        cmocka_unit_test(min_p_cuts_what_top_p_left),
        cmocka_unit_test(the_penalty_divides_positive_and_multiplies_negative_logits),
        cmocka_unit_test(the_penalty_counts_a_token_once_and_forgets_what_leaves_the_window),
        cmocka_unit_test(a_drawn_token_is_penalised_too),
        cmocka_unit_test(the_penalty_comes_before_top_k),
        cmocka_unit_test(accepting_a_token_outside_the_vocabulary_changes_nothing),
        cmocka_unit_test(a_seed_gives_its_published_sequence),
        cmocka_unit_test(seeds_differ),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(drawing_allocates_nothing),
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(a_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
