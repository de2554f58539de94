/* Experts that the page cache has: who copies them, which are kept, and what becomes of copies that fail. */
#include "expert_files.h"

#include <fcntl.h>
#include <pthread.h>

enum { N_EXPERTS = 24, N_THREADS = 4, LARGE_CHUNK = 129 };

static const expert_shape shape = {
    .n_layers = 2, .n_experts = N_EXPERTS, .n_ranges = 3, .matrix_bytes = 5000, .n_files = 2, .uneven = true};

typedef struct subject {
    expert_files *set;
    sl_store *store;
} subject;

static sl_store_config config_of(expert_files *set, bool cache_stays)
{
    sl_store_config config = expert_config(set, UINT64_MAX);
    config.reads.from_cache = true;
    config.cache_stays = cache_stays;
    return config;
}

static sl_store *open_store(const sl_store_config *config)
{
    sluice_error error = {0};
    sl_store *store = NULL;
    if (sl_store_open(&store, config, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    return store;
}

static bool system_tells_what_is_cached(const expert_files *set)
{
    return sl_file_is_cached(&set->files[0], 0, FILE_HEADER_BYTES);
}

/* With a slot for every expert. */
static subject open_subject(bool cache_stays)
{
    subject self = {.set = expert_files_open(&shape)};
    if (!system_tells_what_is_cached(self.set)) {
        expert_files_close(self.set);
        print_message("the system does not say what the page cache has\n");
        skip();
    }
    sl_store_config config = config_of(self.set, cache_stays);
    self.store = open_store(&config);
    return self;
}

static void close_subject(subject *self)
{
    sl_store_close(&self->store);
    expert_files_close(self->set);
}

typedef struct demand {
    sl_store_request request;
    uint32_t experts[N_EXPERTS];
    uint64_t progress[N_EXPERTS];
} demand;

/* Ask for the first `n_experts` of the first layer. */
static void begin(sl_store *store, demand *self, uint32_t n_experts, uint32_t n_tokens)
{
    for (uint32_t expert = 0; expert < n_experts; expert++) {
        self->experts[expert] = expert;
    }
    assert_int_equal(
        sl_store_begin_chunk(store, &self->request, 0, self->experts, NULL, n_experts, n_tokens, self->progress, NULL),
        SLUICE_OK);
}

static uint64_t residency(sl_store *store)
{
    uint64_t mask = 0;
    sl_store_residency(store, 0, &mask, 1);
    return mask;
}

/* Copy and release one after the other. Returns the slots that were used, as bits. */
static uint64_t copy_all(const subject *self, demand *wanted)
{
    uint64_t slots = 0;
    sl_expert_view view;
    while (sl_store_copy(self->store, &wanted->request, &view)) {
        assert_true(expert_is_true(self->set, 0, &view));
        assert_false(view.was_resident);
        assert_true(view.slot < 64);
        slots |= (uint64_t)1 << view.slot;
        sl_store_release(self->store, &wanted->request, &view);
    }
    return slots;
}

static uint64_t copy_chunk(const subject *self, uint32_t n_experts, uint32_t n_tokens)
{
    demand wanted;
    begin(self->store, &wanted, n_experts, n_tokens);
    assert_int_equal(wanted.request.n_copies, n_experts);
    uint64_t slots = copy_all(self, &wanted);
    sl_store_end(self->store, &wanted.request);
    return slots;
}

typedef struct crew {
    const subject *self;
    demand *wanted;
    uint32_t n_copied[N_EXPERTS]; /* atomic */
    bool wrong;                   /* atomic */
} crew;

static void *copy_as_one_of_many(void *argument)
{
    crew *own = argument;
    const subject *self = own->self;
    sl_expert_view view;
    while (sl_store_copy(self->store, &own->wanted->request, &view)) {
        __atomic_add_fetch(&own->n_copied[view.expert], 1, __ATOMIC_RELAXED);
        if (!expert_is_true(self->set, 0, &view)) {
            __atomic_store_n(&own->wrong, true, __ATOMIC_RELAXED);
        }
        sl_store_release(self->store, &own->wanted->request, &view);
    }
    return NULL;
}

/* The second time for two requests at once, whose threads take from each other. */
static void threads_copy_every_expert_once(void **state)
{
    (void)state;
    for (int cache_stays = 0; cache_stays < 2; cache_stays++) {
        subject self = open_subject(cache_stays == 1);
        for (uint32_t n_requests = 1; n_requests <= 2; n_requests++) {
            demand wanted[2];
            crew crews[2] = {{.self = &self, .wanted = &wanted[0]}, {.self = &self, .wanted = &wanted[1]}};
            pthread_t threads[2 * N_THREADS];
            for (uint32_t i = 0; i < n_requests; i++) {
                begin(self.store, &wanted[i], N_EXPERTS, 5);
            }
            for (uint32_t i = 0; i < n_requests * N_THREADS; i++) {
                assert_int_equal(pthread_create(&threads[i], NULL, copy_as_one_of_many, &crews[i / N_THREADS]), 0);
            }
            for (uint32_t i = 0; i < n_requests * N_THREADS; i++) {
                assert_int_equal(pthread_join(threads[i], NULL), 0);
            }
            for (uint32_t i = 0; i < n_requests; i++) {
                sl_expert_view views[N_EXPERTS];
                uint32_t n_ready = 0;
                uint32_t n_seen = 0;
                assert_false(crews[i].wrong);
                do {
                    assert_int_equal(sl_store_wait(self.store, &wanted[i].request, views, N_EXPERTS, &n_ready, NULL),
                                     SLUICE_OK);
                    for (uint32_t i_view = 0; i_view < n_ready; i_view++) {
                        assert_true(expert_is_true(self.set, 0, &views[i_view]));
                        sl_store_release(self.store, &wanted[i].request, &views[i_view]);
                    }
                    n_seen += n_ready;
                } while (n_ready > 0);
                for (uint32_t expert = 0; expert < N_EXPERTS; expert++) {
                    assert_true(crews[i].n_copied[expert] <= 1);
                    n_seen += crews[i].n_copied[expert];
                }
                assert_int_equal(n_seen, N_EXPERTS);
            }
            for (uint32_t i = 0; i < n_requests; i++) {
                sl_store_end(self.store, &wanted[i].request);
            }
        }
        sl_store_counters counters;
        sl_store_counters_get(self.store, &counters);
        assert_int_equal(counters.requests, 3 * N_EXPERTS);
        assert_int_equal(counters.failed_reads, 0);
        assert_int_equal(counters.evictions, 0);
        assert_int_equal(residency(self.store), ((uint64_t)1 << N_EXPERTS) - 1);
        close_subject(&self);
    }
}

static void a_wait_copies_what_nobody_did(void **state)
{
    (void)state;
    subject self = open_subject(false);
    sluice_error error = {0};
    const uint32_t experts[] = {7, 1, 20, 3};
    if (expert_fetch(self.set, self.store, 1, experts, 4, 3, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    close_subject(&self);
}

static void what_is_copied_without_a_view_is_left_for_the_wait(void **state)
{
    (void)state;
    subject self = open_subject(false);
    demand wanted;
    sl_expert_view views[N_EXPERTS];
    uint32_t n_ready = 0;
    begin(self.store, &wanted, 5, 1);
    while (sl_store_copy(self.store, &wanted.request, NULL)) {
    }
    assert_int_equal(sl_store_wait(self.store, &wanted.request, views, N_EXPERTS, &n_ready, NULL), SLUICE_OK);
    assert_int_equal(n_ready, 5);
    for (uint32_t i_view = 0; i_view < n_ready; i_view++) {
        assert_true(expert_is_true(self.set, 0, &views[i_view]));
    }
    sl_store_end(self.store, &wanted.request);
    close_subject(&self);
}

static void a_small_chunk_keeps_only_what_was_asked_for_before(void **state)
{
    (void)state;
    subject self = open_subject(true);
    uint64_t slots = copy_chunk(&self, 6, 5);
    assert_int_equal(__builtin_popcountll(slots), 1);
    assert_int_equal(residency(self.store), 0);
    assert_int_equal(__builtin_popcountll(copy_chunk(&self, 4, LARGE_CHUNK - 1)), 4);
    assert_int_equal(residency(self.store), 0xf);
    demand wanted;
    begin(self.store, &wanted, 8, 5);
    assert_int_equal(wanted.request.n_copies, 4);
    assert_int_equal(__builtin_popcountll(copy_all(&self, &wanted)), 3); /* 4 and 5 stay, 6 and 7 share one */
    sl_store_end(self.store, &wanted.request);
    assert_int_equal(residency(self.store), 0x3f);
    close_subject(&self);
}

static void one_token_and_a_large_chunk_keep_everything(void **state)
{
    (void)state;
    for (uint32_t n_tokens = 1; n_tokens <= LARGE_CHUNK; n_tokens += LARGE_CHUNK - 1) {
        subject self = open_subject(true);
        (void)copy_chunk(&self, 6, n_tokens);
        assert_int_equal(residency(self.store), 0x3f);
        close_subject(&self);
    }
}

static void where_the_cache_may_not_stay_everything_is_kept(void **state)
{
    (void)state;
    subject self = open_subject(false);
    (void)copy_chunk(&self, 6, 5);
    assert_int_equal(residency(self.store), 0x3f);
    close_subject(&self);
}

/* It is pinned for the first request when the second asks. */
static void an_expert_that_somebody_else_wants_too_is_kept(void **state)
{
    (void)state;
    subject self = open_subject(true);
    demand first;
    demand second;
    sl_expert_view view;
    begin(self.store, &first, 1, 5);
    assert_true(sl_store_copy(self.store, &first.request, &view));
    begin(self.store, &second, 1, 5);
    assert_int_equal(second.request.n_copies, 0);
    sl_store_release(self.store, &first.request, &view);
    sl_store_end(self.store, &first.request);
    sl_store_end(self.store, &second.request);
    assert_int_equal(residency(self.store), 1);
    close_subject(&self);
}

static void the_last_one_that_was_missing_is_kept(void **state)
{
    (void)state;
    subject self = open_subject(true);
    uint32_t experts[N_EXPERTS];
    for (uint32_t expert = 0; expert < N_EXPERTS; expert++) {
        experts[expert] = N_EXPERTS - 1 - expert;
    }
    assert_int_equal(expert_fetch(self.set, self.store, 1, experts, N_EXPERTS, 2, NULL), SLUICE_OK);
    assert_int_equal(expert_fetch(self.set, self.store, 0, experts, N_EXPERTS - 1, 2, NULL), SLUICE_OK);
    assert_false(sl_store_is_settled(self.store));
    assert_int_equal(__builtin_popcountll(copy_chunk(&self, 1, 5)), 1);
    assert_true(sl_store_is_settled(self.store));
    assert_int_equal(residency(self.store), ((uint64_t)1 << N_EXPERTS) - 1);
    assert_int_equal(expert_fetch(self.set, self.store, 0, experts, N_EXPERTS, 2, NULL), SLUICE_OK);
    close_subject(&self);
}

static void an_end_gives_up_what_was_not_delivered(void **state)
{
    (void)state;
    subject self = open_subject(true);
    demand wanted;
    sl_expert_view view;
    begin(self.store, &wanted, 6, 5);
    assert_true(sl_store_copy(self.store, &wanted.request, NULL));
    assert_true(sl_store_copy(self.store, &wanted.request, &view));
    sl_store_end(self.store, &wanted.request);
    assert_int_equal(residency(self.store), 0);
    close_subject(&self);
}

static void with_fewer_slots_than_experts_the_engine_reads(void **state)
{
    (void)state;
    subject self = open_subject(true);
    sl_store_config config = config_of(self.set, true);
    config.n_slots = 2 * N_EXPERTS - 1;
    sl_store_close(&self.store);
    self.store = open_store(&config);
    demand wanted;
    begin(self.store, &wanted, 6, 5);
    assert_int_equal(wanted.request.n_copies, 0);
    sl_store_end(self.store, &wanted.request);
    close_subject(&self);
}

static void with_a_spare_core_the_engine_copies_what_is_kept(void **state)
{
    (void)state;
    subject self = open_subject(true);
    sl_store_config config = config_of(self.set, true);
    config.spare_core = true;
    sl_store_close(&self.store);
    self.store = open_store(&config);
    (void)copy_chunk(&self, 4, 5);
    demand wanted;
    begin(self.store, &wanted, 6, 5);
    assert_int_equal(wanted.request.n_copies, 2);
    sl_store_end(self.store, &wanted.request);
    begin(self.store, &wanted, N_EXPERTS, 1);
    assert_int_equal(wanted.request.n_copies, 0);
    sl_store_end(self.store, &wanted.request);
    close_subject(&self);
}

static void what_the_page_cache_lacks_the_engine_reads(void **state)
{
    (void)state;
    subject self = open_subject(true);
    for (int i_file = 0; i_file < 2; i_file++) {
        assert_int_equal(fsync(self.set->files[i_file].descriptor), 0);
        assert_int_equal(posix_fadvise(self.set->files[i_file].descriptor, 0, 0, POSIX_FADV_DONTNEED), 0);
    }
    if (system_tells_what_is_cached(self.set)) {
        close_subject(&self);
        print_message("the files stay in memory here\n");
        skip();
    }
    sluice_error error = {0};
    demand wanted;
    begin(self.store, &wanted, 6, 5);
    assert_int_equal(wanted.request.n_copies, 0);
    sl_store_end(self.store, &wanted.request);
    if (expert_fetch(self.set, self.store, 0, wanted.experts, 6, 2, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    close_subject(&self);
}

/* Hit the n-th read, for every n until there is none. */
static void check_every_copy(sl_read_fault fault, sluice_status expected)
{
    subject self = open_subject(true);
    bool hit = true;
    for (uint64_t at_read = 1; hit; at_read++) {
        sl_read_fault_plan plan = {.at_read = at_read, .fault = fault};
        sl_store_config config = config_of(self.set, at_read % 2 == 0);
        config.faults = &plan;
        sl_store_close(&self.store);
        self.store = open_store(&config);
        demand wanted;
        sl_expert_view views[N_EXPERTS];
        uint32_t n_ready = 0;
        sluice_error error = {0};
        begin(self.store, &wanted, 4, 5);
        (void)copy_all(&self, &wanted);
        sluice_status status = sl_store_wait(self.store, &wanted.request, views, N_EXPERTS, &n_ready, &error);
        sl_store_end(self.store, &wanted.request);
        hit = plan.n_seen >= at_read;
        assert_int_equal(status, hit ? expected : SLUICE_OK);
        if (status != SLUICE_OK) {
            assert_non_null(strstr(error.message, " of MoE layer 0: "));
            assert_non_null(strstr(error.message, self.set->directory));
        }
        plan.at_read = 0;
        assert_int_equal(expert_fetch(self.set, self.store, 0, wanted.experts, 4, 1, &error), SLUICE_OK);
    }
    close_subject(&self);
}

static void a_copy_that_fails_is_the_error_of_the_wait(void **state)
{
    (void)state;
    check_every_copy(SL_READ_FAULT_EIO, SLUICE_ERROR_IO);
    check_every_copy(SL_READ_FAULT_GONE, SLUICE_ERROR_IO);
    check_every_copy(SL_READ_FAULT_SHORT, SLUICE_ERROR_CHANGED);
    check_every_copy(SL_READ_FAULT_INTERRUPTED, SLUICE_OK);
    check_every_copy(SL_READ_FAULT_SLOW, SLUICE_OK);
}

static void a_file_that_shrank_is_an_error(void **state)
{
    (void)state;
    subject self = open_subject(true);
    demand wanted;
    sl_expert_view view;
    uint32_t n_ready = 0;
    sluice_error error = {0};
    begin(self.store, &wanted, N_EXPERTS, 5);
    assert_int_equal(truncate(self.set->paths[0], FILE_HEADER_BYTES), 0);
    assert_false(sl_store_copy(self.store, &wanted.request, &view));
    assert_int_equal(sl_store_wait(self.store, &wanted.request, &view, 1, &n_ready, &error), SLUICE_ERROR_CHANGED);
    assert_non_null(strstr(error.message, "shrank"));
    sl_store_end(self.store, &wanted.request);
    close_subject(&self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_copy_every_expert_once),
        cmocka_unit_test(a_wait_copies_what_nobody_did),
        cmocka_unit_test(what_is_copied_without_a_view_is_left_for_the_wait),
        cmocka_unit_test(a_small_chunk_keeps_only_what_was_asked_for_before),
        cmocka_unit_test(one_token_and_a_large_chunk_keep_everything),
        cmocka_unit_test(where_the_cache_may_not_stay_everything_is_kept),
        cmocka_unit_test(an_expert_that_somebody_else_wants_too_is_kept),
        cmocka_unit_test(the_last_one_that_was_missing_is_kept),
        cmocka_unit_test(an_end_gives_up_what_was_not_delivered),
        cmocka_unit_test(with_fewer_slots_than_experts_the_engine_reads),
        cmocka_unit_test(with_a_spare_core_the_engine_copies_what_is_kept),
        cmocka_unit_test(what_the_page_cache_lacks_the_engine_reads),
        cmocka_unit_test(a_copy_that_fails_is_the_error_of_the_wait),
        cmocka_unit_test(a_file_that_shrank_is_an_error),
    };
    return RUN_WITH_BOTH_KINDS(tests);
}
