/* Reading ahead of being asked for: what is read, when, and what becomes of it. */
#include "manual_store.h"

static const expert_shape shape = {
    .n_layers = 4, .n_experts = 8, .n_ranges = 3, .matrix_bytes = 900, .n_files = 1, .buffered = true};
enum { EVERYTHING = 1 << 30, ONE_PIECE = 1 };

typedef struct fixture {
    expert_files *set; /* owned */
    manual_reads reads;
    sl_store *store; /* owned */
    sl_store_request request;
    uint64_t progress[8];
    uint32_t experts[8];
} fixture;

static void open_store(fixture *f, uint64_t n_slots, uint64_t window_bytes)
{
    *f = (fixture){.set = expert_files_open(&shape)};
    f->store = manual_store_open(f->set, n_slots, window_bytes, &f->reads);
}

static void close_store(fixture *f)
{
    sl_store_close(&f->store);
    expert_files_close(f->set);
}

#define LIST(...) ((const uint32_t[]){__VA_ARGS__}), sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t)

static void hint(fixture *f, uint32_t layer, const uint32_t *experts, size_t n_experts)
{
    sl_store_prefetch(f->store, layer, experts, (uint32_t)n_experts);
}

static void begin(fixture *f, uint32_t layer, const uint32_t *experts, size_t n_experts)
{
    memcpy(f->experts, experts, n_experts * sizeof *experts);
    assert_int_equal(sl_store_begin(f->store, &f->request, layer, f->experts, (uint32_t)n_experts, f->progress, NULL),
                     SLUICE_OK);
}

/* Deliver, check and release all, finishing the oldest read whenever nothing is there. */
static sluice_status drain(fixture *f, sluice_error *error)
{
    for (;;) {
        sl_expert_view view;
        uint32_t n_ready = 0;
        while (!manual_would_deliver(f->store, &f->request)) {
            manual_finish(&f->reads, 0, true);
        }
        sluice_status status = sl_store_wait(f->store, &f->request, &view, 1, &n_ready, error);
        if (status != SLUICE_OK || n_ready == 0) {
            return status;
        }
        assert_true(expert_is_true(f->set, f->request.layer, &view));
        sl_store_release(f->store, &f->request, &view);
    }
}

static void end(fixture *f)
{
    sl_store_end(f->store, &f->request);
}

static void fetch(fixture *f, uint32_t layer, const uint32_t *experts, size_t n_experts)
{
    begin(f, layer, experts, n_experts);
    assert_int_equal(drain(f, NULL), SLUICE_OK);
    end(f);
}

static sl_store_counters total(const fixture *f)
{
    sl_store_counters counters;
    sl_store_counters_get(f->store, &counters);
    return counters;
}

static uint64_t residency(const fixture *f, uint32_t layer)
{
    uint64_t mask = 0;
    sl_store_residency(f->store, layer, &mask, 1);
    return mask;
}

/* The experts of the reads in flight, in the order in which they were started. */
static void expect_flying(const fixture *f, const uint32_t *names, size_t n_names)
{
    assert_int_equal(f->reads.n_flying, n_names);
    for (size_t i_read = 0; i_read < n_names; i_read++) {
        assert_int_equal(manual_name(f->store, f->reads.flying[i_read]), names[i_read]);
    }
}

static void a_hinted_expert_is_a_hit_when_it_is_asked_for(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 8, EVERYTHING);
    hint(&f, 0, LIST(5, 2));
    expect_flying(&f, LIST(5000, 5001, 5002, 2000, 2001, 2002));
    manual_finish_all(&f.reads);
    assert_int_equal(residency(&f, 0), 0x24);
    fetch(&f, 0, LIST(2, 5));
    sl_store_counters counters = total(&f);
    assert_int_equal(counters.hits, 2);
    assert_int_equal(counters.misses, 0);
    assert_int_equal(counters.prefetch_issued, 2);
    assert_int_equal(counters.prefetch_used, 2);
    assert_int_equal(counters.prefetch_late, 0);
    assert_int_equal(counters.prefetch_useless, 0);
    assert_int_equal(counters.prefetch_used_bytes, counters.bytes_read);
    fetch(&f, 0, LIST(2, 5));
    assert_int_equal(total(&f).prefetch_used, 2);
    close_store(&f);
}

static void only_the_window_is_given_to_the_disk(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 8, ONE_PIECE);
    hint(&f, 0, LIST(5, 2));
    expect_flying(&f, LIST(5000));
    manual_finish(&f.reads, 0, true);
    expect_flying(&f, LIST(5001));
    manual_finish(&f.reads, 0, true);
    manual_finish(&f.reads, 0, true);
    expect_flying(&f, LIST(2000));
    assert_int_equal(total(&f).prefetch_issued, 2);
    close_store(&f);
    open_store(&f, 8, 900 + 900 + 777 + 1); /* one byte more than two pieces */
    hint(&f, 0, LIST(5, 2));
    expect_flying(&f, LIST(5000, 5001, 5002));
    close_store(&f);
}

static void what_is_asked_for_overtakes_what_is_not_started(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 8, ONE_PIECE);
    hint(&f, 1, LIST(5, 2));
    begin(&f, 0, LIST(3));
    expect_flying(&f, LIST(1005000, 3000, 3001, 3002));
    manual_finish(&f.reads, 0, true);
    expect_flying(&f, LIST(3000, 3001, 3002)); /* the window belongs to them */
    assert_int_equal(drain(&f, NULL), SLUICE_OK);
    expect_flying(&f, LIST(1005001));
    end(&f);
    close_store(&f);
}

static void a_late_one_is_a_miss_whose_rest_is_started_at_once(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 8, ONE_PIECE);
    hint(&f, 0, LIST(5, 2));
    manual_finish(&f.reads, 0, true);
    begin(&f, 0, LIST(1, 5));
    expect_flying(&f, LIST(5001, 5002, 1000, 1001, 1002));
    assert_int_equal(drain(&f, NULL), SLUICE_OK);
    end(&f);
    sl_store_counters counters = total(&f);
    assert_int_equal(counters.hits, 0);
    assert_int_equal(counters.misses, 2);
    assert_int_equal(counters.prefetch_issued, 1);
    assert_int_equal(counters.prefetch_used, 1);
    assert_int_equal(counters.prefetch_late, 1);
    assert_int_equal(counters.prefetch_used_bytes, 900);
    assert_int_equal(counters.prefetch_ahead_bytes, 0); /* the one in flight was wanted */
    assert_int_equal(f.reads.n_submitted, 6);           /* 2 was dropped: its layer had its turn */
    close_store(&f);
}

static void a_layer_that_had_its_turn_wants_no_more(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 8, ONE_PIECE);
    hint(&f, 0, LIST(5, 2));
    manual_finish(&f.reads, 0, true);
    expect_flying(&f, LIST(5001));
    begin(&f, 0, LIST(1));
    expect_flying(&f, LIST(5001, 1000, 1001, 1002));
    assert_int_equal(total(&f).prefetch_ahead_bytes, 900 + 777);
    assert_int_equal(drain(&f, NULL), SLUICE_OK);
    end(&f);
    sl_store_counters counters = total(&f);
    assert_int_equal(counters.prefetch_issued, 1);
    assert_int_equal(counters.prefetch_useless, 1);
    assert_int_equal(counters.prefetch_useless_bytes, 900 + 900 + 777);
    assert_int_equal(residency(&f, 0), 0x2);
    assert_int_equal(f.reads.n_flying, 0);
    close_store(&f);
}

static void a_layer_that_was_passed_over_wants_no_more(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 16, ONE_PIECE);
    fetch(&f, 0, LIST(0));
    hint(&f, 2, LIST(5, 2));
    begin(&f, 1, LIST(1));
    assert_int_equal(drain(&f, NULL), SLUICE_OK); /* layer 2 is next */
    end(&f);
    expect_flying(&f, LIST(2005001));
    begin(&f, 3, LIST(1));
    assert_int_equal(drain(&f, NULL), SLUICE_OK);
    end(&f);
    assert_int_equal(f.reads.n_flying, 0);
    assert_int_equal(residency(&f, 2), 0);
    assert_int_equal(total(&f).prefetch_useless, 1);
    close_store(&f);
}

static void the_first_layer_follows_the_last(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 16, EVERYTHING);
    fetch(&f, 3, LIST(0));
    hint(&f, 0, LIST(5));
    hint(&f, 3, LIST(5)); /* three turns later */
    for (uint32_t layer = 0; layer < 4; layer++) {
        fetch(&f, layer, LIST(5));
    }
    assert_int_equal(total(&f).prefetch_used, 2);
    close_store(&f);
}

static void the_nearest_layer_is_read_first(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 16, ONE_PIECE);
    fetch(&f, 2, LIST(0));
    hint(&f, 1, LIST(1));
    hint(&f, 0, LIST(2));
    hint(&f, 3, LIST(3));
    uint32_t order[12];
    for (uint32_t i_read = 0; f.reads.n_flying > 0; i_read++) {
        order[i_read] = manual_name(f.store, f.reads.flying[0]);
        manual_finish(&f.reads, 0, true);
    }
    assert_int_equal(order[0], 1001000); /* was begun before the others were known */
    assert_int_equal(order[3], 3003000);
    assert_int_equal(order[6], 2000);
    close_store(&f);
}

static void a_newer_hint_replaces_the_one_before(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 8, ONE_PIECE);
    hint(&f, 0, LIST(5, 2));
    hint(&f, 0, LIST(2, 3));
    manual_finish(&f.reads, 0, true);
    assert_int_equal(residency(&f, 0), 0);
    manual_finish_all(&f.reads);
    assert_int_equal(residency(&f, 0), 0xc);
    assert_int_equal(total(&f).prefetch_useless, 1);
    hint(&f, 0, NULL, 0);
    hint(&f, 1, LIST(1));
    hint(&f, 1, LIST(7, 1)); /* names it still */
    manual_finish_all(&f.reads);
    assert_int_equal(residency(&f, 1), 0x82);
    assert_int_equal(total(&f).prefetch_useless, 1);
    close_store(&f);
}

static void names_out_of_range_and_twice_are_left_out(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 8, EVERYTHING);
    hint(&f, 4, LIST(1));
    hint(&f, UINT32_MAX, LIST(1));
    hint(&f, 0, LIST(8, UINT32_MAX));
    assert_int_equal(f.reads.n_submitted, 0);
    hint(&f, 0, LIST(3, 8, 3, 1, 3));
    expect_flying(&f, LIST(3000, 3001, 3002, 1000, 1001, 1002));
    close_store(&f);
}

static void evictions_spare_what_is_hinted(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 4, EVERYTHING);
    fetch(&f, 0, LIST(0, 1, 2, 3));
    hint(&f, 0, LIST(0, 1));
    begin(&f, 3, LIST(6, 7));
    assert_int_equal(residency(&f, 0), 0x3); /* the oldest, but hinted */
    assert_int_equal(drain(&f, NULL), SLUICE_OK);
    end(&f);
    /* Before it waits for what it holds itself, a request takes them too. */
    begin(&f, 3, LIST(0, 1, 2));
    assert_int_equal(drain(&f, NULL), SLUICE_OK);
    end(&f);
    assert_int_equal(residency(&f, 3), 0x7);
    assert_int_equal(residency(&f, 0), 0x2);
    close_store(&f);
}

static void what_is_not_hinted_is_displaced_and_missed_later(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 4, EVERYTHING);
    fetch(&f, 0, LIST(0, 1, 2, 3));
    hint(&f, 1, LIST(4));
    manual_finish_all(&f.reads);
    assert_int_equal(residency(&f, 0), 0xe);
    fetch(&f, 1, LIST(5)); /* takes the place of 4, which nobody asked for */
    assert_int_equal(residency(&f, 1), 0x20);
    sl_store_counters counters = total(&f);
    assert_int_equal(counters.prefetch_useless, 1);
    assert_int_equal(counters.prefetch_displaced, 0);
    fetch(&f, 0, LIST(0, 3));
    counters = total(&f);
    assert_int_equal(counters.prefetch_displaced, 1);
    fetch(&f, 0, LIST(0, 3));
    assert_int_equal(total(&f).prefetch_displaced, 1);
    sl_store_counters layer;
    assert_true(sl_store_layer_counters_get(f.store, 0, &layer));
    assert_int_equal(layer.prefetch_displaced, 1);
    assert_int_equal(layer.prefetch_useless, 0);
    assert_true(sl_store_layer_counters_get(f.store, 1, &layer));
    assert_int_equal(layer.prefetch_issued, 1);
    assert_int_equal(layer.prefetch_useless, 1);
    close_store(&f);
}

static void slots_in_use_are_not_taken_for_a_hint(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 3, EVERYTHING);
    begin(&f, 0, LIST(0, 1, 2, 3));
    hint(&f, 1, LIST(6, 7));
    expect_flying(&f, LIST(0, 1, 2, 1000, 1001, 1002, 2000, 2001, 2002));
    manual_finish_all(&f.reads);
    sl_expert_view views[3];
    uint32_t n_ready = 0;
    assert_int_equal(sl_store_wait(f.store, &f.request, views, 3, &n_ready, NULL), SLUICE_OK);
    assert_int_equal(n_ready, 3);
    sl_store_release(f.store, &f.request, &views[0]); /* expert 3 needs it more */
    expect_flying(&f, LIST(3000, 3001, 3002));
    sl_store_release(f.store, &f.request, &views[1]);
    expect_flying(&f, LIST(3000, 3001, 3002, 1006000, 1006001, 1006002));
    sl_store_release(f.store, &f.request, &views[2]);
    assert_int_equal(f.reads.n_flying, 9);
    assert_int_equal(drain(&f, NULL), SLUICE_OK);
    end(&f);
    manual_finish_all(&f.reads);
    fetch(&f, 1, LIST(6, 7));
    assert_int_equal(total(&f).hits, 2);
    close_store(&f);
}

/* One slot: what is hinted holds it when a request comes. */
static void a_request_gets_the_slot_that_a_hint_took(void **state)
{
    (void)state;
    for (uint32_t n_finished = 0; n_finished <= 3; n_finished++) {
        fixture f;
        open_store(&f, 1, ONE_PIECE);
        hint(&f, 1, LIST(6));
        for (uint32_t i_piece = 0; i_piece < n_finished; i_piece++) {
            manual_finish(&f.reads, 0, true);
        }
        fetch(&f, 0, LIST(2, 3));
        sl_store_counters counters = total(&f);
        assert_int_equal(counters.misses, 2);
        assert_int_equal(counters.prefetch_issued, counters.prefetch_used + counters.prefetch_useless);
        close_store(&f);
    }
}

static void a_failed_one_is_a_miss_and_no_error(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 8, EVERYTHING);
    hint(&f, 0, LIST(5, 2));
    manual_finish(&f.reads, 1, false);
    manual_finish_all(&f.reads);
    assert_int_equal(residency(&f, 0), 0x4);
    fetch(&f, 0, LIST(5, 2));
    sl_store_counters counters = total(&f);
    assert_int_equal(counters.hits, 1);
    assert_int_equal(counters.misses, 1);
    assert_int_equal(counters.failed_reads, 1);
    assert_int_equal(counters.prefetch_used, 1);
    assert_int_equal(counters.prefetch_useless, 1);
    close_store(&f);
}

static void a_late_one_that_fails_is_read_again(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 8, EVERYTHING);
    hint(&f, 0, LIST(5));
    begin(&f, 0, LIST(5));
    expect_flying(&f, LIST(5000, 5001, 5002));
    manual_finish(&f.reads, 2, false);
    manual_finish(&f.reads, 0, true);
    manual_finish(&f.reads, 0, true);
    expect_flying(&f, LIST(5000, 5001, 5002));
    assert_int_equal(drain(&f, NULL), SLUICE_OK);
    end(&f);
    assert_int_equal(total(&f).failed_reads, 1);
    assert_int_equal(total(&f).prefetch_late, 1);
    close_store(&f);
}

static void a_late_one_that_fails_twice_is_an_error(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 8, EVERYTHING);
    hint(&f, 0, LIST(5));
    begin(&f, 0, LIST(5));
    for (int i_read = 0; i_read < 4; i_read++) {
        manual_finish(&f.reads, 0, false);
    }
    manual_finish(&f.reads, 0, true);
    manual_finish(&f.reads, 0, true);
    sluice_error error = {0};
    assert_int_equal(drain(&f, &error), SLUICE_ERROR_IO);
    assert_non_null(strstr(error.message, "expert 5 of MoE layer 0"));
    end(&f);
    assert_int_equal(residency(&f, 0), 0);
    fetch(&f, 0, LIST(5));
    close_store(&f);
}

static void closing_starts_nothing_more(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 8, ONE_PIECE);
    hint(&f, 0, LIST(5, 2, 1));
    hint(&f, 1, LIST(5, 2, 1));
    manual_finish(&f.reads, 0, true);
    sl_store_close(&f.store);
    assert_int_equal(f.reads.n_submitted, 2);
    expert_files_close(f.set);
}

static void a_reset_keeps_the_counters_consistent(void **state)
{
    (void)state;
    fixture f;
    open_store(&f, 8, EVERYTHING);
    hint(&f, 0, LIST(5, 2));
    hint(&f, 1, LIST(3));
    manual_finish(&f.reads, 0, true);
    fetch(&f, 0, LIST(5));
    sl_store_counters_reset(f.store);
    assert_int_equal(total(&f).prefetch_issued, 2);
    assert_int_equal(total(&f).prefetch_used, 0);
    fetch(&f, 1, LIST(3));
    assert_int_equal(total(&f).prefetch_used, 1);
    close_store(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hinted_expert_is_a_hit_when_it_is_asked_for),
        cmocka_unit_test(only_the_window_is_given_to_the_disk),
        cmocka_unit_test(what_is_asked_for_overtakes_what_is_not_started),
        cmocka_unit_test(a_late_one_is_a_miss_whose_rest_is_started_at_once),
        cmocka_unit_test(a_layer_that_had_its_turn_wants_no_more),
        cmocka_unit_test(a_layer_that_was_passed_over_wants_no_more),
        cmocka_unit_test(the_first_layer_follows_the_last),
        cmocka_unit_test(the_nearest_layer_is_read_first),
        cmocka_unit_test(a_newer_hint_replaces_the_one_before),
        cmocka_unit_test(names_out_of_range_and_twice_are_left_out),
        cmocka_unit_test(evictions_spare_what_is_hinted),
        cmocka_unit_test(what_is_not_hinted_is_displaced_and_missed_later),
        cmocka_unit_test(slots_in_use_are_not_taken_for_a_hint),
        cmocka_unit_test(a_request_gets_the_slot_that_a_hint_took),
        cmocka_unit_test(a_failed_one_is_a_miss_and_no_error),
        cmocka_unit_test(a_late_one_that_fails_is_read_again),
        cmocka_unit_test(a_late_one_that_fails_twice_is_an_error),
        cmocka_unit_test(closing_starts_nothing_more),
        cmocka_unit_test(a_reset_keeps_the_counters_consistent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
