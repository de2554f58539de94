/* The expert store under long sequences: against a simple model of it, and with several threads at once. */
#include "expert_files.h"

#include <pthread.h>

static const expert_shape shape = {.n_layers = 4, .n_experts = 12, .n_ranges = 3, .matrix_bytes = 900, .n_files = 2};
enum { N_LAYERS = 4, N_EXPERTS = 12, N_TOTAL = N_LAYERS * N_EXPERTS, NO_EXPERT = -1 };

static uint32_t next_random(uint32_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    return *random;
}

/* Some different experts, low numbers more often. Returns how many. */
static uint32_t draw_experts(uint32_t *random, uint32_t experts[N_EXPERTS])
{
    uint32_t n_wanted = next_random(random) % 4 == 0 ? next_random(random) % (N_EXPERTS + 1) : next_random(random) % 5;
    uint32_t n_drawn = 0;
    while (n_drawn < n_wanted) {
        uint32_t expert = next_random(random) % (1 + next_random(random) % N_EXPERTS);
        bool known = false;
        for (uint32_t i_entry = 0; i_entry < n_drawn; i_entry++) {
            known = known || experts[i_entry] == expert;
        }
        if (!known) {
            experts[n_drawn++] = expert;
        }
    }
    return n_drawn;
}

/* The store without slots, threads and disks: which experts are in it, and when each was last asked for. */
typedef struct lru_model {
    uint32_t n_slots, n_resident;
    bool resident[N_TOTAL];
    uint64_t last_asked[N_TOTAL];
    uint64_t time, hits, misses, evictions;
} lru_model;

static void model_evict(lru_model *model)
{
    int oldest = NO_EXPERT;
    for (int place = 0; place < N_TOTAL; place++) {
        if (model->resident[place] && (oldest < 0 || model->last_asked[place] < model->last_asked[oldest])) {
            oldest = place;
        }
    }
    model->resident[oldest] = false;
    model->n_resident--;
    model->evictions++;
}

static void model_request(lru_model *model, uint32_t layer, const uint32_t *experts, uint32_t n_experts)
{
    bool was_resident[N_EXPERTS] = {false};
    for (uint32_t i_entry = 0; i_entry < n_experts; i_entry++) {
        uint32_t place = layer * N_EXPERTS + experts[i_entry];
        was_resident[i_entry] = model->resident[place];
        if (was_resident[i_entry]) {
            model->last_asked[place] = model->time + i_entry;
            model->hits++;
        }
    }
    for (uint32_t i_entry = 0; i_entry < n_experts; i_entry++) {
        if (!was_resident[i_entry]) {
            if (model->n_resident == model->n_slots) {
                model_evict(model);
            }
            uint32_t place = layer * N_EXPERTS + experts[i_entry];
            model->resident[place] = true;
            model->last_asked[place] = model->time + i_entry;
            model->n_resident++;
            model->misses++;
        }
    }
    model->time += n_experts;
}

static void expect_same(const lru_model *model, sl_store *store)
{
    for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
        uint64_t mask = 0;
        uint64_t expected = 0;
        sl_store_residency(store, layer, &mask, 1);
        for (uint32_t expert = 0; expert < N_EXPERTS; expert++) {
            expected |= (uint64_t)model->resident[layer * N_EXPERTS + expert] << expert;
        }
        assert_int_equal(mask, expected);
    }
    sl_store_counters counters;
    sl_store_counters_get(store, &counters);
    assert_int_equal(counters.hits, model->hits);
    assert_int_equal(counters.misses, model->misses);
    assert_int_equal(counters.evictions, model->evictions);
    assert_int_equal(counters.requests, model->hits + model->misses);
}

/* Fetch with a random number of experts held over the next wait, as a caller does that computes beside waiting. */
static void fetch_holding(const expert_files *set, sl_store *store, uint32_t *random, uint32_t layer,
                          const uint32_t *experts, uint32_t n_experts)
{
    sl_store_request request;
    uint64_t progress[N_EXPERTS];
    sl_expert_view held[N_EXPERTS];
    uint32_t n_held = 0;
    uint32_t n_seen = 0;
    sluice_error error = {0};
    assert_int_equal(sl_store_begin(store, &request, layer, experts, n_experts, progress, &error), SLUICE_OK);
    for (;;) {
        uint32_t n_ready = 0;
        uint32_t capacity = 1 + next_random(random) % (N_EXPERTS - n_held);
        capacity = capacity > N_EXPERTS - n_held ? N_EXPERTS - n_held : capacity;
        sluice_status status = sl_store_wait(store, &request, held + n_held, capacity, &n_ready, &error);
        uint32_t n_kept = 0;
        if (status == SLUICE_OK) {
            n_held += n_ready;
            n_seen += n_ready;
            n_kept = n_ready == 0 ? 0 : next_random(random) % (n_held + 1);
            n_kept = n_kept == N_EXPERTS ? 0 : n_kept;
        } else {
            assert_int_equal(status, SLUICE_ERROR_ARGUMENT);
            assert_true(n_held > 0);
        }
        while (n_held > n_kept) {
            n_held--;
            assert_true(expert_is_true(set, layer, &held[n_held]));
            sl_store_release(store, &request, &held[n_held]);
        }
        if (status == SLUICE_OK && n_ready == 0) {
            break;
        }
    }
    assert_int_equal(n_seen, n_experts);
    sl_store_end(store, &request);
}

static void random_sequences_do_what_the_model_does(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&shape);
    static const uint32_t slot_counts[] = {1, 2, 3, 5, 8, 13, 20, 33, 47, 48};
    for (size_t i_count = 0; i_count < sizeof slot_counts / sizeof slot_counts[0]; i_count++) {
        sl_store *store = expert_store_open(set, slot_counts[i_count]);
        lru_model model = {.n_slots = slot_counts[i_count]};
        uint32_t random = 12345 + slot_counts[i_count];
        for (int i_step = 0; i_step < 400; i_step++) {
            uint32_t experts[N_EXPERTS];
            uint32_t n_experts = draw_experts(&random, experts);
            uint32_t layer = next_random(&random) % N_LAYERS;
            model_request(&model, layer, experts, n_experts);
            fetch_holding(set, store, &random, layer, experts, n_experts);
            expect_same(&model, store);
        }
        sl_store_close(&store);
    }
    expert_files_close(set);
}

/* thread: each session belongs to one thread; set and store are shared. */
typedef struct session {
    const expert_files *set; /* borrowed */
    sl_store *store;         /* borrowed */
    uint32_t random;
    uint64_t n_asked;
    sluice_status status;
    sluice_error error;
    pthread_t thread;
} session;

/* Three requests in four are fetched, one is given up at a random point. */
static void *run_session(void *argument)
{
    session *self = argument;
    for (int i_step = 0; i_step < 250 && self->status == SLUICE_OK; i_step++) {
        uint32_t experts[N_EXPERTS];
        uint32_t n_experts = draw_experts(&self->random, experts);
        uint32_t layer = next_random(&self->random) % N_LAYERS;
        self->n_asked += n_experts;
        if (next_random(&self->random) % 4 != 0) {
            uint32_t capacity = 1 + next_random(&self->random) % N_EXPERTS;
            self->status = expert_fetch(self->set, self->store, layer, experts, n_experts, capacity, &self->error);
            continue;
        }
        sl_store_request request;
        uint64_t progress[N_EXPERTS];
        sl_expert_view views[2];
        uint32_t n_ready = 0;
        self->status = sl_store_begin(self->store, &request, layer, experts, n_experts, progress, &self->error);
        if (self->status == SLUICE_OK && next_random(&self->random) % 2 == 0) {
            self->status = sl_store_wait(self->store, &request, views, 2, &n_ready, &self->error);
        }
        sl_store_end(self->store, &request);
    }
    return NULL;
}

static void run_sessions(expert_files *set, uint64_t n_slots, uint32_t n_sessions)
{
    sl_store *store = expert_store_open(set, n_slots);
    session sessions[4];
    uint64_t n_asked = 0;
    for (uint32_t i_session = 0; i_session < n_sessions; i_session++) {
        session *self = &sessions[i_session];
        *self = (session){.set = set, .store = store, .random = 77 * (i_session + 1) + (uint32_t)n_slots};
        assert_int_equal(pthread_create(&self->thread, NULL, run_session, self), 0);
    }
    for (uint32_t i_session = 0; i_session < n_sessions; i_session++) {
        pthread_join(sessions[i_session].thread, NULL);
        n_asked += sessions[i_session].n_asked;
    }
    for (uint32_t i_session = 0; i_session < n_sessions; i_session++) {
        if (sessions[i_session].status != SLUICE_OK) {
            fail_msg("%s", sessions[i_session].error.message);
        }
    }
    sl_store_counters counters;
    sl_store_counters_get(store, &counters);
    assert_int_equal(counters.requests, n_asked);
    assert_int_equal(counters.hits + counters.misses, n_asked);
    assert_int_equal(counters.failed_reads, 0);
    sl_store_close(&store);
}

static void sessions_that_share_a_store_see_true_bytes(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&shape);
    static const uint64_t slot_counts[] = {1, 2, 3, 4, 7, 16, 48};
    for (size_t i_count = 0; i_count < sizeof slot_counts / sizeof slot_counts[0]; i_count++) {
        run_sessions(set, slot_counts[i_count], 4);
    }
    expert_files_close(set);
}

static void an_expert_that_is_being_read_is_not_read_twice(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&shape);
    sl_store_config config = expert_config(set, 4);
    sl_read_fault_plan counting = {0};
    config.faults = &counting;
    sl_store *store = NULL;
    assert_int_equal(sl_store_open(&store, &config, NULL), SLUICE_OK);
    sl_store_request first;
    sl_store_request second;
    uint64_t progress[2][2];
    const uint32_t experts[2] = {3, 7};
    assert_int_equal(sl_store_begin(store, &first, 1, experts, 2, progress[0], NULL), SLUICE_OK);
    uint64_t n_reads = counting.n_seen;
    assert_true(n_reads >= 2);
    assert_int_equal(sl_store_begin(store, &second, 1, experts, 2, progress[1], NULL), SLUICE_OK);
    sl_expert_view views[2];
    for (uint32_t n_delivered = 0, n_ready = 0; n_delivered < 2; n_delivered += n_ready) {
        assert_int_equal(sl_store_wait(store, &second, views + n_delivered, 2 - n_delivered, &n_ready, NULL),
                         SLUICE_OK);
    }
    sl_store_end(store, &first);
    for (uint32_t i_view = 0; i_view < 2; i_view++) {
        assert_true(expert_is_true(set, 1, &views[i_view]));
    }
    sl_store_end(store, &second);
    sl_store_counters counters;
    sl_store_counters_get(store, &counters);
    assert_int_equal(counters.requests, 4);
    assert_int_equal(counters.expert_bytes, 2 * (3 * shape.matrix_bytes + 3 * 777));
    assert_int_equal(counting.n_seen, n_reads);
    sl_store_close(&store);
    expert_files_close(set);
}

static void requests_that_wait_for_a_slot_share_the_next_read(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&shape);
    sl_store *store = expert_store_open(set, 1);
    sl_store_request requests[3];
    uint64_t progress[3];
    sl_expert_view view;
    uint32_t n_ready = 0;
    const uint32_t zero = 0;
    const uint32_t one = 1;
    assert_int_equal(sl_store_begin(store, &requests[0], 2, &zero, 1, &progress[0], NULL), SLUICE_OK);
    assert_int_equal(sl_store_begin(store, &requests[1], 2, &one, 1, &progress[1], NULL), SLUICE_OK);
    assert_int_equal(sl_store_begin(store, &requests[2], 2, &one, 1, &progress[2], NULL), SLUICE_OK);
    for (uint32_t i_request = 0; i_request < 3; i_request++) {
        assert_int_equal(sl_store_wait(store, &requests[i_request], &view, 1, &n_ready, NULL), SLUICE_OK);
        assert_int_equal(n_ready, 1);
        assert_true(expert_is_true(set, 2, &view));
        sl_store_release(store, &requests[i_request], &view);
        sl_store_end(store, &requests[i_request]);
    }
    sl_store_counters counters;
    sl_store_counters_get(store, &counters);
    assert_int_equal(counters.misses, 3);
    assert_int_equal(counters.evictions, 1);
    assert_int_equal(counters.expert_bytes, 2 * (3 * shape.matrix_bytes + 3 * 777));
    sl_store_close(&store);
    expert_files_close(set);
}

static void a_slot_that_another_request_holds_is_never_emptied(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&shape);
    sl_store *store = expert_store_open(set, 3);
    sl_store_request holder;
    uint64_t progress[2];
    sl_expert_view views[2];
    const uint32_t held[2] = {5, 6};
    assert_int_equal(sl_store_begin(store, &holder, 0, held, 2, progress, NULL), SLUICE_OK);
    for (uint32_t n_held = 0, n_ready = 0; n_held < 2; n_held += n_ready) {
        assert_int_equal(sl_store_wait(store, &holder, views + n_held, 2 - n_held, &n_ready, NULL), SLUICE_OK);
    }
    for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
        const uint32_t others[5] = {0, 1, 2, 3, 4};
        sluice_error error = {0};
        assert_int_equal(expert_fetch(set, store, layer, others, 5, 3, &error), SLUICE_OK);
        assert_true(expert_is_true(set, 0, &views[0]) && expert_is_true(set, 0, &views[1]));
    }
    sl_store_end(store, &holder);
    sl_store_close(&store);
    expert_files_close(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_sequences_do_what_the_model_does),
        cmocka_unit_test(sessions_that_share_a_store_see_true_bytes),
        cmocka_unit_test(an_expert_that_is_being_read_is_not_read_twice),
        cmocka_unit_test(requests_that_wait_for_a_slot_share_the_next_read),
        cmocka_unit_test(a_slot_that_another_request_holds_is_never_emptied),
    };
    return RUN_WITH_BOTH_KINDS(tests);
}
