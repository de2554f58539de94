/* The expert store by itself: contents, waves, the order of eviction, counters, sizes, refusals. */
#include "manual_store.h"

static const expert_shape small = {.n_layers = 3, .n_experts = 8, .n_ranges = 3, .matrix_bytes = 5000, .n_files = 1};

static uint64_t residency(sl_store *store, uint32_t layer)
{
    uint64_t mask = 0;
    sl_store_residency(store, layer, &mask, 1);
    return mask;
}

static sl_store_counters counters_of(sl_store *store)
{
    sl_store_counters counters;
    sl_store_counters_get(store, &counters);
    return counters;
}

static void fetch(const expert_files *set, sl_store *store, uint32_t layer, const uint32_t *experts, uint32_t n_experts)
{
    sluice_error error = {0};
    if (expert_fetch(set, store, layer, experts, n_experts, 4, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
}

/* Every expert of every layer, in lists of every length, at one number of slots. */
static void check_contents(const expert_shape *shape, uint64_t n_slots)
{
    expert_files *set = expert_files_open(shape);
    sl_store *store = expert_store_open(set, n_slots);
    uint32_t experts[64];
    for (uint32_t n_wanted = 1; n_wanted <= shape->n_experts; n_wanted++) {
        for (uint32_t layer = 0; layer < shape->n_layers; layer++) {
            for (uint32_t i_entry = 0; i_entry < n_wanted; i_entry++) {
                experts[i_entry] = (i_entry * 5 + n_wanted) % shape->n_experts;
            }
            fetch(set, store, layer, experts, n_wanted);
        }
    }
    sl_store_counters counters = counters_of(store);
    assert_int_equal(counters.requests, counters.hits + counters.misses);
    assert_int_equal(counters.failed_reads, 0);
    sl_store_close(&store);
    expert_files_close(set);
}

static void every_byte_is_true_at_every_number_of_slots(void **state)
{
    (void)state;
    for (uint64_t n_slots = 1; n_slots <= 5; n_slots++) {
        check_contents(&small, n_slots);
    }
    check_contents(&small, 24);
    check_contents(&small, 1000);
}

static void a_model_in_two_files_is_read_from_both(void **state)
{
    (void)state;
    expert_shape shape = small;
    shape.n_files = 2;
    check_contents(&shape, 5);
}

/* Parts of a model may lie on several disks, of which one allows direct reads and another does not. */
static void files_on_two_devices_give_the_same_bytes(void **state)
{
    (void)state;
    expert_shape shape = small;
    shape.n_files = 2;
    shape.second = "/dev/shm";
    if (access(shape.second, W_OK) != 0) {
        print_message("no /dev/shm to write to\n");
        skip();
    }
    for (int buffered = -1; buffered < 2; buffered++) {
        expert_files *set = expert_files_open(&shape);
        if (set->files[0].identity.device == set->files[1].identity.device) {
            expert_files_close(set);
            print_message("/dev/shm and the directory for temporary files are one device\n");
            skip();
        }
        if (buffered >= 0 && set->files[buffered].direct_descriptor >= 0) {
            close(set->files[buffered].direct_descriptor);
            set->files[buffered].direct_descriptor = -1;
        }
        for (uint64_t n_slots = 1; n_slots <= 9; n_slots += 4) {
            sl_store *store = expert_store_open(set, n_slots);
            for (uint32_t layer = 0; layer < 2 * shape.n_layers; layer++) {
                fetch(set, store, layer % shape.n_layers, (const uint32_t[]){6, 1, 4, 7, 0}, 5);
            }
            sl_store_close(&store);
        }
        expert_files_close(set);
    }
}

/* Whether a read in flight is of this expert (layer 0) and file; `*i_read` is its place. */
static bool find_flying(const sl_store *store, const manual_reads *reads, uint32_t expert, uint32_t file,
                        uint32_t *i_read)
{
    for (*i_read = 0; *i_read < reads->n_flying; (*i_read)++) {
        const sl_read *read = reads->flying[*i_read];
        if (manual_name(store, read) / 1000 == expert && read->file == store->files[file].file) {
            return true;
        }
    }
    return false;
}

static void finish_file_of(const sl_store *store, manual_reads *reads, uint32_t expert, uint32_t file)
{
    uint32_t i_read;
    assert_true(find_flying(store, reads, expert, file, &i_read));
    do {
        manual_finish(reads, i_read, true);
    } while (find_flying(store, reads, expert, file, &i_read));
}

static void expect_delivery(const expert_files *set, sl_store *store, sl_store_request *request, uint32_t expert)
{
    sl_expert_view view;
    uint32_t n_ready = 0;
    assert_true(manual_would_deliver(store, request));
    assert_int_equal(sl_store_wait(store, request, &view, 1, &n_ready, NULL), SLUICE_OK);
    assert_int_equal(n_ready, 1);
    assert_int_equal(view.expert, expert);
    assert_true(expert_is_true(set, 0, &view));
    sl_store_release(store, request, &view);
}

static void files_are_read_at_once_and_experts_finish_by_themselves(void **state)
{
    (void)state;
    expert_shape shape = small;
    shape.n_files = 2;
    expert_files *set = expert_files_open(&shape);
    manual_reads reads;
    sl_store *store = manual_store_open(set, 8, 0, &reads);
    sl_store_request request;
    uint64_t progress[3];
    const uint32_t experts[3] = {2, 5, 7};
    assert_int_equal(sl_store_begin(store, &request, 0, experts, 3, progress, NULL), SLUICE_OK);
    uint32_t unused;
    for (uint32_t i_expert = 0; i_expert < 3; i_expert++) {
        assert_true(find_flying(store, &reads, experts[i_expert], 0, &unused));
        assert_true(find_flying(store, &reads, experts[i_expert], 1, &unused));
    }
    /* The second file's disk is slow for expert 2, the first one's for expert 7: 5 needs neither of these reads. */
    finish_file_of(store, &reads, 2, 0);
    finish_file_of(store, &reads, 7, 1);
    assert_false(manual_would_deliver(store, &request));
    finish_file_of(store, &reads, 5, 1);
    finish_file_of(store, &reads, 5, 0);
    expect_delivery(set, store, &request, 5);
    assert_false(manual_would_deliver(store, &request));
    finish_file_of(store, &reads, 7, 0);
    expect_delivery(set, store, &request, 7);
    finish_file_of(store, &reads, 2, 1);
    expect_delivery(set, store, &request, 2);
    sl_store_end(store, &request);
    sl_store_close(&store);
    expert_files_close(set);
}

static void matrices_of_different_sizes_and_missing_ones_are_placed(void **state)
{
    (void)state;
    expert_shape shape = small;
    shape.uneven = true;
    check_contents(&shape, 3);
    shape.n_ranges = SL_EXPERT_MAX_RANGES;
    check_contents(&shape, 3);
    shape.n_ranges = 2; /* expert 1 keeps one of its two */
    check_contents(&shape, 3);
}

static void buffered_files_give_the_same_bytes(void **state)
{
    (void)state;
    expert_shape shape = small;
    shape.buffered = true;
    check_contents(&shape, 3);
    shape.directory = "/dev/shm";
    shape.buffered = false;
    if (access(shape.directory, W_OK) != 0) {
        print_message("no /dev/shm to write to\n");
        skip();
    }
    check_contents(&shape, 3);
}

static void expect_backend(const sl_store *store, const char *directness)
{
    char expected[32];
    snprintf(expected, sizeof expected, "%s, %s", tested_kind == SL_READS_PREAD ? "pread" : "uring", directness);
    assert_string_equal(sl_store_backend(store), expected);
}

static void the_backend_is_named_after_what_the_files_allow(void **state)
{
    (void)state;
    expert_shape shape = small;
    shape.buffered = true;
    expert_files *set = expert_files_open(&shape);
    sl_store *store = expert_store_open(set, 2);
    expect_backend(store, "buffered");
    sl_store_close(&store);
    expert_files_close(set);

    shape.buffered = false;
    shape.n_files = 2;
    set = expert_files_open(&shape);
    if (set->files[0].direct_descriptor < 0) {
        expert_files_close(set);
        print_message("the directory for temporary files allows no direct reads\n");
        skip();
    }
    store = expert_store_open(set, 2);
    expect_backend(store, "direct");
    sl_store_close(&store);
    close(set->files[1].direct_descriptor);
    set->files[1].direct_descriptor = -1;
    store = expert_store_open(set, 2);
    expect_backend(store, "partly direct");
    fetch(set, store, 1, (const uint32_t[]){3, 1}, 2);
    sl_store_close(&store);
    expert_files_close(set);
}

static void an_expert_of_no_bytes_is_ready_at_once(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    for (uint32_t matrix = 0; matrix < 3; matrix++) {
        expert_range(set, 2, 4, matrix)->bytes = 0;
    }
    sl_store *store = expert_store_open(set, 2);
    fetch(set, store, 2, (const uint32_t[]){4}, 1);
    sl_store_counters counters = counters_of(store);
    assert_int_equal(counters.misses, 1);
    assert_int_equal(counters.bytes_read, 0);
    fetch(set, store, 2, (const uint32_t[]){1, 4, 0, 2}, 4);
    sl_store_close(&store);
    expert_files_close(set);
}

static void hits_come_first_in_the_order_of_the_list(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    sl_store *store = expert_store_open(set, 8);
    fetch(set, store, 0, (const uint32_t[]){6, 2, 4}, 3);
    sl_store_request request;
    uint64_t progress[5];
    sl_expert_view views[5];
    uint32_t n_ready = 0;
    const uint32_t experts[5] = {1, 4, 0, 2, 6};
    assert_int_equal(sl_store_begin(store, &request, 0, experts, 5, progress, NULL), SLUICE_OK);
    assert_int_equal(sl_store_wait(store, &request, views, 2, &n_ready, NULL), SLUICE_OK);
    assert_int_equal(n_ready, 2);
    assert_int_equal(views[0].index, 1);
    assert_int_equal(views[1].index, 3);
    assert_int_equal(sl_store_wait(store, &request, views + 2, 3, &n_ready, NULL), SLUICE_OK);
    assert_int_equal(views[2].index, 4);
    uint32_t n_delivered = 2 + n_ready;
    while (n_delivered < 5) {
        assert_int_equal(sl_store_wait(store, &request, views + n_delivered, 5 - n_delivered, &n_ready, NULL),
                         SLUICE_OK);
        n_delivered += n_ready;
    }
    for (uint32_t i_view = 0; i_view < 5; i_view++) {
        assert_true(expert_is_true(set, 0, &views[i_view]));
        sl_store_release(store, &request, &views[i_view]);
    }
    assert_int_equal(sl_store_wait(store, &request, views, 5, &n_ready, NULL), SLUICE_OK);
    assert_int_equal(n_ready, 0);
    sl_store_end(store, &request);
    sl_store_close(&store);
    expert_files_close(set);
}

static void misses_come_in_the_order_they_arrive(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    sl_store_config config = expert_config(set, 8);
    config.reads.n_threads = 1; /* arrival in the order of the list */
    config.reads.depth = 1;
    sl_store *store = NULL;
    assert_int_equal(sl_store_open(&store, &config, NULL), SLUICE_OK);
    sl_store_request request;
    uint64_t progress[6];
    const uint32_t experts[6] = {7, 0, 3, 5, 1, 2};
    assert_int_equal(sl_store_begin(store, &request, 1, experts, 6, progress, NULL), SLUICE_OK);
    for (uint32_t n_delivered = 0; n_delivered < 6;) {
        sl_expert_view views[6];
        uint32_t n_ready = 0;
        assert_int_equal(sl_store_wait(store, &request, views, 2, &n_ready, NULL), SLUICE_OK);
        for (uint32_t i_view = 0; i_view < n_ready; i_view++) {
            assert_int_equal(views[i_view].index, n_delivered++);
        }
    }
    sl_store_end(store, &request);
    sl_store_close(&store);
    expert_files_close(set);
}

static void the_least_recently_asked_for_gives_way(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    sl_store *store = expert_store_open(set, 4);
    fetch(set, store, 0, (const uint32_t[]){0, 1, 2, 3}, 4);
    fetch(set, store, 0, (const uint32_t[]){0}, 1);
    fetch(set, store, 1, (const uint32_t[]){5}, 1); /* 1 goes */
    assert_int_equal(residency(store, 0), 0xd);
    /* 2 is the oldest, but wanted: 3 and then 0 go. */
    fetch(set, store, 0, (const uint32_t[]){6, 7, 2}, 3);
    assert_int_equal(residency(store, 0), 0xc4);
    assert_int_equal(residency(store, 1), 0x20);
    sl_store_counters counters = counters_of(store);
    assert_int_equal(counters.hits, 2);
    assert_int_equal(counters.misses, 7);
    assert_int_equal(counters.evictions, 3);
    sl_store_close(&store);
    expert_files_close(set);
}

static void a_request_larger_than_the_store_leaves_its_last_experts(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    sl_store *store = expert_store_open(set, 3);
    for (int i_round = 0; i_round < 20; i_round++) {
        sluice_error error;
        const uint32_t experts[7] = {4, 6, 0, 2, 1, 7, 5};
        assert_int_equal(expert_fetch(set, store, 1, experts, 7, 3, &error), SLUICE_OK);
        assert_int_equal(residency(store, 1), 0xa2);
        assert_int_equal(expert_fetch(set, store, 2, experts, 7, 1, &error), SLUICE_OK);
        assert_int_equal(residency(store, 2), 0xa2);
    }
    sl_store_close(&store);
    expert_files_close(set);
}

static void waiting_for_oneself_is_refused(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    sl_store *store = expert_store_open(set, 2);
    sl_store_request request;
    uint64_t progress[3];
    sl_expert_view views[3];
    uint32_t n_ready = 0;
    uint32_t n_held = 0;
    sluice_error error = {0};
    const uint32_t experts[3] = {0, 1, 2};
    assert_int_equal(sl_store_begin(store, &request, 0, experts, 3, progress, &error), SLUICE_OK);
    while (n_held < 2) {
        assert_int_equal(sl_store_wait(store, &request, views + n_held, 3 - n_held, &n_ready, &error), SLUICE_OK);
        n_held += n_ready;
    }
    assert_int_equal(sl_store_wait(store, &request, views + 2, 1, &n_ready, &error), SLUICE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "release before waiting again"));
    sl_store_release(store, &request, &views[0]);
    sl_store_release(store, &request, &views[0]); /* a second time changes nothing */
    sl_store_release(store, &request, &views[1]);
    assert_int_equal(sl_store_wait(store, &request, views, 3, &n_ready, &error), SLUICE_OK);
    assert_int_equal(n_ready, 1);
    assert_int_equal(views[0].expert, 2);
    assert_int_equal(sl_store_wait(store, &request, views, 0, &n_ready, &error), SLUICE_ERROR_ARGUMENT);
    sl_store_end(store, &request);
    sl_store_end(store, &request);
    fetch(set, store, 1, experts, 3);
    sl_store_close(&store);
    expert_files_close(set);
}

static void ending_early_gives_every_slot_back(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    sl_store *store = expert_store_open(set, 3);
    const uint32_t experts[5] = {0, 1, 2, 3, 4};
    for (uint32_t i_round = 0; i_round < 50; i_round++) {
        sl_store_request request;
        uint64_t progress[5];
        assert_int_equal(sl_store_begin(store, &request, i_round % 3, experts, 5, progress, NULL), SLUICE_OK);
        if (i_round % 2 == 1) {
            sl_expert_view view;
            uint32_t n_ready = 0;
            assert_int_equal(sl_store_wait(store, &request, &view, 1, &n_ready, NULL), SLUICE_OK);
        }
        sl_store_end(store, &request);
    }
    fetch(set, store, 0, experts, 5);
    sl_store_close(&store);
    expert_files_close(set);
}

static void a_layer_or_expert_out_of_range_is_refused(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    sl_store *store = expert_store_open(set, 3);
    sl_store_request request;
    uint64_t progress[2];
    sluice_error error = {0};
    const uint32_t experts[2] = {7, 8};
    assert_int_equal(sl_store_begin(store, &request, 3, experts, 1, progress, &error), SLUICE_ERROR_ARGUMENT);
    sl_store_end(store, &request);
    assert_int_equal(sl_store_begin(store, &request, 2, experts, 2, progress, &error), SLUICE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "expert 8 of MoE layer 2"));
    sl_store_end(store, &request);
    assert_int_equal(counters_of(store).requests, 0);
    uint32_t n_ready = 1;
    sl_expert_view view;
    assert_int_equal(sl_store_begin(store, &request, 2, experts, 0, progress, &error), SLUICE_OK);
    assert_int_equal(sl_store_wait(store, &request, &view, 1, &n_ready, &error), SLUICE_OK);
    assert_int_equal(n_ready, 0);
    sl_store_end(store, &request);
    sl_store_close(&store);
    expert_files_close(set);
}

static void expect_exact_estimate(expert_files *set, const sl_store_config *config)
{
    sl_store_plan plan;
    sluice_error error = {0};
    sl_store *store = NULL;
    assert_int_equal(sl_store_estimate(config, &plan, &error), SLUICE_OK);
    assert_int_equal(sl_store_open(&store, config, &error), SLUICE_OK);
    assert_int_equal(set->memory.bytes[SL_MEMORY_EXPERTS], plan.slots_bytes);
    assert_int_equal(set->memory.bytes[SL_MEMORY_IO], plan.io_bytes);
    assert_int_equal(set->memory.bytes[SL_MEMORY_OTHER], plan.other_bytes);
    assert_int_equal(set->memory.total_bytes, plan.slots_bytes + plan.io_bytes + plan.other_bytes);
    assert_int_equal(plan.slots_bytes, plan.slot_bytes * config->n_slots);
    uint64_t n_allocations = set->memory.n_allocations;
    fetch(set, store, 0, (const uint32_t[]){0}, 1);
    assert_int_equal(set->memory.n_allocations, n_allocations);
    sl_store_close(&store);
}

static void the_estimate_is_what_is_charged(void **state)
{
    (void)state;
    for (uint32_t i_case = 0; i_case < 8; i_case++) {
        expert_shape shape = small;
        shape.uneven = i_case % 2 == 1;
        shape.n_files = 1 + i_case / 2 % 2;
        shape.buffered = i_case / 4 == 1;
        expert_files *set = expert_files_open(&shape);
        sl_read_fault_plan faults = {0};
        sl_store_config config = expert_config(set, 1 + i_case * 3);
        config.reads.n_threads = 1 + i_case;
        config.faults = i_case % 3 == 0 ? &faults : NULL;
        expect_exact_estimate(set, &config);
        expert_files_close(set);
    }
}

/* An arena that is aligned to huge pages. */
static void the_estimate_of_a_large_arena_is_what_is_charged(void **state)
{
    (void)state;
    sl_expert_range ranges[40];
    expert_files *set = expert_files_open_repeated(ranges, 40);
    sl_store_config config = expert_config(set, 40);
    config.n_layers = 40;
    config.ranges = ranges;
    expect_exact_estimate(set, &config);
    expert_files_close(set);
}

static void more_slots_than_experts_are_lowered(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    sl_store *store = expert_store_open(set, UINT64_MAX);
    assert_int_equal(sl_store_n_slots(store), 24);
    sl_store_close(&store);
    expert_files_close(set);
}

static void matrices_that_share_blocks_are_read_once(void **state)
{
    (void)state;
    expert_shape shape = small;
    shape.one_block = true;
    expert_files *set = expert_files_open(&shape);
    sl_store *store = expert_store_open(set, 8);
    sl_read_fault_plan counting = {0};
    sl_store_close(&store);
    sl_store_config config = expert_config(set, 8);
    config.faults = &counting;
    assert_int_equal(sl_store_open(&store, &config, NULL), SLUICE_OK);
    fetch(set, store, 0, (const uint32_t[]){0, 1, 2, 3}, 4);
    assert_int_equal(counting.n_seen, 4);
    sl_store_counters counters = counters_of(store);
    uint64_t expert_bytes = 4 * (3 * small.matrix_bytes + 777 + 2 * 777);
    assert_int_equal(counters.expert_bytes, expert_bytes);
    uint64_t alignment = set->files[0].direct_descriptor < 0 ? 1 : set->files[0].direct_alignment;
    assert_true(counters.bytes_read >= expert_bytes);
    assert_true(counters.bytes_read <= expert_bytes + 4 * 2 * (alignment - 1));
    sl_store_close(&store);
    expert_files_close(set);
}

static void buffered_reads_bring_in_the_ranges_and_nothing_else(void **state)
{
    (void)state;
    expert_shape shape = small;
    shape.buffered = true;
    expert_files *set = expert_files_open(&shape);
    sl_store *store = expert_store_open(set, 8);
    fetch(set, store, 0, (const uint32_t[]){5, 6}, 2);
    fetch(set, store, 2, (const uint32_t[]){5}, 1);
    sl_store_counters counters = counters_of(store);
    assert_int_equal(counters.expert_bytes, 3 * (3 * small.matrix_bytes + 3 * 777));
    assert_int_equal(counters.bytes_read, counters.expert_bytes);
    sl_store_close(&store);
    expert_files_close(set);
}

static void counters_are_kept_per_layer(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    sl_store *store = expert_store_open(set, 4);
    fetch(set, store, 0, (const uint32_t[]){0, 1, 2}, 3);
    fetch(set, store, 0, (const uint32_t[]){2, 1}, 2);
    fetch(set, store, 2, (const uint32_t[]){2, 1}, 2); /* one slot is free, 0 of layer 0 goes */
    sl_store_counters layer;
    assert_true(sl_store_layer_counters_get(store, 0, &layer));
    assert_int_equal(layer.requests, 5);
    assert_int_equal(layer.hits, 2);
    assert_int_equal(layer.misses, 3);
    assert_int_equal(layer.evictions, 1);
    assert_int_equal(layer.expert_bytes, 3 * (3 * small.matrix_bytes + 3 * 777));
    assert_true(layer.busy_ns > 0);
    uint64_t busy_ns = layer.busy_ns;
    assert_true(sl_store_layer_counters_get(store, 1, &layer));
    assert_int_equal(layer.requests, 0);
    assert_int_equal(layer.busy_ns, 0);
    assert_true(sl_store_layer_counters_get(store, 2, &layer));
    assert_int_equal(layer.requests, 2);
    assert_false(sl_store_layer_counters_get(store, 3, &layer));
    assert_true(counters_of(store).busy_ns >= busy_ns);
    sl_store_counters_reset(store);
    sl_store_counters total = counters_of(store);
    assert_int_equal(total.requests + total.hits + total.misses + total.evictions + total.bytes_read + total.busy_ns,
                     0);
    sl_store_close(&store);
    expert_files_close(set);
}

/* Expert 0 off at layer 0 only, expert 1 off at layer 1 only. */
static void residency_masks_are_local_to_a_layer(void **state)
{
    (void)state;
    expert_shape shape = small;
    shape.n_layers = 2;
    shape.n_experts = 4;
    expert_files *set = expert_files_open(&shape);
    sl_store *store = expert_store_open(set, 8);
    fetch(set, store, 0, (const uint32_t[]){1, 2, 3}, 3);
    fetch(set, store, 1, (const uint32_t[]){0, 2, 3}, 3);
    uint64_t mask[3] = {UINT64_MAX, UINT64_MAX, UINT64_MAX};
    sl_store_residency(store, 0, mask, 2);
    assert_int_equal(mask[0], 0xe);
    assert_int_equal(mask[1], 0);
    assert_true(mask[2] == UINT64_MAX);
    sl_store_residency(store, 1, mask, 1);
    assert_int_equal(mask[0], 0xd);
    sl_store_residency(store, 2, mask, 1);
    assert_int_equal(mask[0], 0);
    sl_store_close(&store);
    expert_files_close(set);
}

static void experts_above_64_have_their_bits_in_further_words(void **state)
{
    (void)state;
    expert_shape shape = {.n_layers = 1, .n_experts = 130, .n_ranges = 1, .matrix_bytes = 100, .n_files = 1};
    expert_files *set = expert_files_open(&shape);
    sl_store *store = expert_store_open(set, 130);
    fetch(set, store, 0, (const uint32_t[]){0, 63, 64, 129}, 4);
    uint64_t mask[3] = {0};
    sl_store_residency(store, 0, mask, 3);
    assert_true(mask[0] == (1 | (uint64_t)1 << 63) && mask[1] == 1 && mask[2] == 2);
    sl_store_close(&store);
    expert_files_close(set);
}

static void expect_refusal(const sl_store_config *config, sluice_status status, const char *part_of_sentence)
{
    sluice_error error = {0};
    sl_store *store = NULL;
    sl_store_plan plan;
    assert_int_equal(sl_store_open(&store, config, &error), status);
    assert_null(store);
    if (strstr(error.message, part_of_sentence) == NULL) {
        fail_msg("expected \"%s\" in \"%s\"", part_of_sentence, error.message);
    }
    if (config->reads.n_threads >= 1 && config->reads.n_threads <= SL_READS_MAX_THREADS) {
        assert_int_equal(sl_store_estimate(config, &plan, &error), status);
    }
    assert_int_equal(config->memory->total_bytes, 0);
}

static void ranges_outside_their_file_are_refused(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    sl_store_config config = expert_config(set, 3);
    sl_expert_range *range = expert_range(set, 2, 5, 1);
    sl_expert_range good = *range;
    range->offset = set->file_bytes[0] - range->bytes + 1;
    expect_refusal(&config, SLUICE_ERROR_FORMAT, "expert 5 of MoE layer 2: matrix 1");
    range->offset = UINT64_MAX - 10;
    expect_refusal(&config, SLUICE_ERROR_FORMAT, "expert 5 of MoE layer 2: matrix 1");
    *range = good;
    range->bytes = UINT64_MAX - 10;
    expect_refusal(&config, SLUICE_ERROR_FORMAT, "expert 5 of MoE layer 2: matrix 1");
    *range = good;
    range->file = 1;
    expect_refusal(&config, SLUICE_ERROR_ARGUMENT, "names file 1");
    *range = good;
    range->offset = set->file_bytes[0] - range->bytes; /* the very end is inside */
    sl_store *store = NULL;
    assert_int_equal(sl_store_open(&store, &config, NULL), SLUICE_OK);
    sl_store_close(&store);
    expert_files_close(set);
}

static void impossible_configurations_are_refused(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&small);
    sl_store_config config = expert_config(set, 0);
    expect_refusal(&config, SLUICE_ERROR_ARGUMENT, "slots");
    config = expert_config(set, 3);
    config.n_layers = 0;
    expect_refusal(&config, SLUICE_ERROR_ARGUMENT, "layers");
    config.n_layers = UINT32_MAX;
    config.n_experts = UINT32_MAX;
    expect_refusal(&config, SLUICE_ERROR_ARGUMENT, "layers");
    config = expert_config(set, 3);
    config.n_ranges = SL_EXPERT_MAX_RANGES + 1;
    expect_refusal(&config, SLUICE_ERROR_ARGUMENT, "matrices");
    config.n_ranges = 0;
    expect_refusal(&config, SLUICE_ERROR_ARGUMENT, "matrices");
    config = expert_config(set, 3);
    config.reads.n_threads = 0;
    expect_refusal(&config, SLUICE_ERROR_ARGUMENT, "read threads");
    config.reads.n_threads = SL_READS_MAX_THREADS + 1;
    expect_refusal(&config, SLUICE_ERROR_ARGUMENT, "read threads");
    sl_store_plan plan;
    config = expert_config(set, UINT64_MAX / 4096);
    assert_int_equal(sl_store_estimate(&config, &plan, NULL), SLUICE_ERROR_ARGUMENT);
    sl_file_identity honest = set->files[0].identity;
    config = expert_config(set, 3);
    set->files[0].identity.bytes = INT64_MAX;
    expect_refusal(&config, SLUICE_ERROR_ARGUMENT, "cannot be addressed");
    set->files[0].identity = honest;
    int descriptor = set->files[0].direct_descriptor;
    uint32_t alignment = set->files[0].direct_alignment;
    set->files[0].direct_descriptor = 0;
    set->files[0].direct_alignment = 3000;
    expect_refusal(&config, SLUICE_ERROR_ARGUMENT, "power of two");
    set->files[0].direct_descriptor = descriptor;
    set->files[0].direct_alignment = alignment;
    expert_files_close(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_true_at_every_number_of_slots),
        cmocka_unit_test(a_model_in_two_files_is_read_from_both),
        cmocka_unit_test(files_on_two_devices_give_the_same_bytes),
        cmocka_unit_test(files_are_read_at_once_and_experts_finish_by_themselves),
        cmocka_unit_test(matrices_of_different_sizes_and_missing_ones_are_placed),
        cmocka_unit_test(buffered_files_give_the_same_bytes),
        cmocka_unit_test(the_backend_is_named_after_what_the_files_allow),
        cmocka_unit_test(an_expert_of_no_bytes_is_ready_at_once),
        cmocka_unit_test(hits_come_first_in_the_order_of_the_list),
        cmocka_unit_test(misses_come_in_the_order_they_arrive),
        cmocka_unit_test(the_least_recently_asked_for_gives_way),
        cmocka_unit_test(a_request_larger_than_the_store_leaves_its_last_experts),
        cmocka_unit_test(waiting_for_oneself_is_refused),
        cmocka_unit_test(ending_early_gives_every_slot_back),
        cmocka_unit_test(a_layer_or_expert_out_of_range_is_refused),
        cmocka_unit_test(the_estimate_is_what_is_charged),
        cmocka_unit_test(the_estimate_of_a_large_arena_is_what_is_charged),
        cmocka_unit_test(more_slots_than_experts_are_lowered),
        cmocka_unit_test(matrices_that_share_blocks_are_read_once),
        cmocka_unit_test(buffered_reads_bring_in_the_ranges_and_nothing_else),
        cmocka_unit_test(counters_are_kept_per_layer),
        cmocka_unit_test(residency_masks_are_local_to_a_layer),
        cmocka_unit_test(experts_above_64_have_their_bits_in_further_words),
        cmocka_unit_test(ranges_outside_their_file_are_refused),
        cmocka_unit_test(impossible_configurations_are_refused),
    };
    return RUN_WITH_BOTH_KINDS(tests);
}
