/* A store with a slot for every expert, once all are read: what it does without its lock, and how it takes that back. */
#include "manual_store.h"

#include <sched.h>

#include "../support/counting_locks.h"

static const expert_shape small = {
    .n_layers = 2, .n_experts = 4, .n_ranges = 3, .matrix_bytes = 5000, .n_files = 1, .buffered = true};
enum { N_ALL = 8, N_EXPERTS = 4 };
static const uint32_t numbers[N_EXPERTS] = {0, 1, 2, 3};

typedef struct fixture {
    expert_files *set; /* owned */
    manual_reads reads;
    sl_store *store; /* owned */
    sl_store_request request;
    uint64_t progress[N_EXPERTS];
    sl_expert_view views[N_EXPERTS];
} fixture;

static void begin(fixture *test, uint32_t layer, const uint32_t *experts, uint32_t n_experts)
{
    assert_int_equal(sl_store_begin(test->store, &test->request, layer, experts, n_experts, test->progress, NULL),
                     SLUICE_OK);
}

static uint32_t take(fixture *test)
{
    uint32_t n_ready = 0;
    assert_int_equal(sl_store_wait(test->store, &test->request, test->views, N_EXPERTS, &n_ready, NULL), SLUICE_OK);
    for (uint32_t i_view = 0; i_view < n_ready; i_view++) {
        assert_true(expert_is_true(test->set, test->request.layer, &test->views[i_view]));
    }
    return n_ready;
}

static void fetch(fixture *test, uint32_t layer, const uint32_t *experts, uint32_t n_experts)
{
    begin(test, layer, experts, n_experts);
    manual_finish_all(&test->reads);
    uint32_t n_ready = take(test);
    assert_int_equal(n_ready, n_experts);
    for (uint32_t i_view = 0; i_view < n_ready; i_view++) {
        sl_store_release(test->store, &test->request, &test->views[i_view]);
    }
    assert_int_equal(take(test), 0);
    sl_store_end(test->store, &test->request);
}

static sl_store_counters counters_of(const fixture *test)
{
    sl_store_counters counters;
    sl_store_counters_get(test->store, &counters);
    return counters;
}

static fixture *open_fixture(void)
{
    fixture *test = test_calloc(1, sizeof *test);
    test->set = expert_files_open(&small);
    test->store = manual_store_open(test->set, N_ALL, 1 << 20, &test->reads);
    return test;
}

/* A store that has read everything. */
static int set_up(void **state)
{
    fixture *test = open_fixture();
    fetch(test, 0, numbers, N_EXPERTS);
    assert_false(sl_store_is_settled(test->store));
    fetch(test, 1, numbers, N_EXPERTS);
    assert_true(sl_store_is_settled(test->store));
    *state = test;
    return 0;
}

static void close_fixture(fixture *test)
{
    sl_store_close(&test->store);
    expert_files_close(test->set);
    test_free(test);
}

static int tear_down(void **state)
{
    close_fixture(*state);
    return 0;
}

static void requests_and_hints_take_no_lock(void **state)
{
    fixture *test = *state;
    unsigned long n_before = atomic_load(&n_locks);
    fetch(test, 0, (const uint32_t[]){3, 1}, 2);
    sl_store_prefetch(test->store, 1, numbers, N_EXPERTS);
    fetch(test, 1, numbers, N_EXPERTS);
    begin(test, 0, numbers, 2);
    sl_store_end(test->store, &test->request);
    assert_int_equal(atomic_load(&n_locks), n_before);
}

static void every_expert_is_a_hit_and_counted(void **state)
{
    fixture *test = *state;
    sl_store_counters before = counters_of(test);
    fetch(test, 0, (const uint32_t[]){3, 1}, 2);
    assert_true(test->views[0].was_resident);
    assert_int_equal(test->views[0].expert, 3);
    assert_int_equal(test->views[1].expert, 1);
    sl_store_counters after = counters_of(test);
    assert_int_equal(after.requests, before.requests + 2);
    assert_int_equal(after.hits, before.hits + 2);
    assert_int_equal(after.misses, before.misses);
    sl_store_counters layer;
    assert_true(sl_store_layer_counters_get(test->store, 0, &layer));
    assert_int_equal(layer.hits, 2);
    sl_store_counters_reset(test->store);
    assert_int_equal(counters_of(test).requests, 0);
}

static void the_first_request_for_a_hinted_expert_is_counted_as_the_hint_s(void **state)
{
    (void)state;
    fixture *test = open_fixture();
    fetch(test, 0, numbers, N_EXPERTS);
    sl_store_prefetch(test->store, 1, numbers, N_EXPERTS);
    manual_finish_all(&test->reads);
    assert_true(sl_store_is_settled(test->store));
    fetch(test, 1, numbers, 3);
    assert_int_equal(counters_of(test).prefetch_used, 3);
    unsigned long n_before = atomic_load(&n_locks);
    fetch(test, 1, numbers, 3);
    assert_int_equal(atomic_load(&n_locks), n_before);
    fetch(test, 1, numbers, N_EXPERTS);
    assert_int_equal(counters_of(test).prefetch_used, 4);
    assert_int_equal(counters_of(test).hits, 3 + 3 + 4);
    close_fixture(test);
}

/* Another thread gives slots up. */
typedef struct lowering {
    sl_store *store;
    atomic_bool is_done;
} lowering;

static void *lower(void *argument)
{
    lowering *self = argument;
    sluice_status status = sl_store_set_slots(self->store, 2, NULL);
    atomic_store(&self->is_done, true);
    return status == SLUICE_OK ? NULL : self;
}

static void giving_slots_up_waits_for_who_holds_experts(void **state)
{
    fixture *test = *state;
    lowering other = {.store = test->store};
    pthread_t thread;
    begin(test, 1, numbers, N_EXPERTS);
    assert_int_equal(take(test), N_EXPERTS);
    assert_int_equal(pthread_create(&thread, NULL, lower, &other), 0);
    while (sl_store_is_settled(test->store)) {
        sched_yield();
    }
    for (int i_view = 0; i_view < N_EXPERTS; i_view++) {
        assert_true(expert_is_true(test->set, 1, &test->views[i_view]));
        sl_store_release(test->store, &test->request, &test->views[i_view]);
    }
    assert_false(atomic_load(&other.is_done));
    assert_int_equal(sl_store_n_slots(test->store), N_ALL);
    sl_store_end(test->store, &test->request);
    void *failed = NULL;
    pthread_join(thread, &failed);
    assert_null(failed);
    assert_int_equal(sl_store_n_slots(test->store), 2);
}

static void slots_that_were_given_up_and_come_back_are_read_again(void **state)
{
    fixture *test = *state;
    assert_int_equal(sl_store_set_slots(test->store, 5, NULL), SLUICE_OK);
    assert_false(sl_store_is_settled(test->store));
    uint64_t n_before = counters_of(test).misses;
    fetch(test, 1, numbers, N_EXPERTS);
    assert_int_equal(counters_of(test).misses, n_before + 3);
    assert_int_equal(sl_store_set_slots(test->store, N_ALL, NULL), SLUICE_OK);
    assert_false(sl_store_is_settled(test->store));
    fetch(test, 0, numbers, N_EXPERTS);
    assert_true(sl_store_is_settled(test->store));
    /* The number it has: nothing is lost. */
    assert_int_equal(sl_store_set_slots(test->store, N_ALL, NULL), SLUICE_OK);
    assert_true(sl_store_is_settled(test->store));
}

/* ---- Several threads ---- */

enum { N_CALLERS = 3, N_REQUESTS = 3000 };

typedef struct crowd {
    expert_files *set;
    sl_store *store;
    atomic_int n_running;
    atomic_int n_failed;
} crowd;

static void *ask_again_and_again(void *argument)
{
    crowd *self = argument;
    for (uint32_t i_request = 0; i_request < N_REQUESTS; i_request++) {
        sluice_status status = expert_fetch(self->set, self->store, i_request % 2, numbers, N_EXPERTS, N_EXPERTS, NULL);
        atomic_fetch_add(&self->n_failed, status == SLUICE_OK ? 0 : 1);
    }
    atomic_fetch_sub(&self->n_running, 1);
    return NULL;
}

static void bytes_are_true_while_the_store_is_settled_and_unsettled(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    crowd self = {.set = set, .store = expert_store_open(set, N_ALL), .n_running = N_CALLERS};
    pthread_t threads[N_CALLERS];
    for (int i_thread = 0; i_thread < N_CALLERS; i_thread++) {
        assert_int_equal(pthread_create(&threads[i_thread], NULL, ask_again_and_again, &self), 0);
    }
    uint32_t n_settled = 0;
    for (uint32_t i_change = 0; atomic_load(&self.n_running) > 0; i_change++) {
        assert_int_equal(sl_store_set_slots(self.store, N_ALL - 1 - i_change % 3, NULL), SLUICE_OK);
        assert_int_equal(sl_store_set_slots(self.store, N_ALL, NULL), SLUICE_OK);
        while (atomic_load(&self.n_running) > 0 && !sl_store_is_settled(self.store)) {
            sched_yield();
        }
        n_settled += sl_store_is_settled(self.store) ? 1 : 0;
    }
    for (int i_thread = 0; i_thread < N_CALLERS; i_thread++) {
        pthread_join(threads[i_thread], NULL);
    }
    assert_true(n_settled > 0);
    assert_int_equal(self.n_failed, 0);
    sl_store_counters counters;
    sl_store_counters_get(self.store, &counters);
    assert_int_equal(counters.requests, (uint64_t)N_CALLERS * N_REQUESTS * N_EXPERTS);
    assert_int_equal(counters.hits + counters.misses, counters.requests);
    sl_store_close(&self.store);
    expert_files_close(set);
}

#define SETTLED_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SETTLED_TEST(requests_and_hints_take_no_lock),
        SETTLED_TEST(every_expert_is_a_hit_and_counted),
        cmocka_unit_test(the_first_request_for_a_hinted_expert_is_counted_as_the_hint_s),
        SETTLED_TEST(giving_slots_up_waits_for_who_holds_experts),
        SETTLED_TEST(slots_that_were_given_up_and_come_back_are_read_again),
        cmocka_unit_test(bytes_are_true_while_the_store_is_settled_and_unsettled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
