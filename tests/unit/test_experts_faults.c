/* The expert store when things fail: reads, files that change, allocations, threads. */
#include "expert_files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

static const expert_shape shape = {.n_layers = 2, .n_experts = 6, .n_ranges = 3, .matrix_bytes = 2500, .n_files = 2};

/* Which call of pthread_create fails, counted from 1; 0: none. Used by one thread at a time. */
static uint64_t failing_create;
static uint64_t n_creates;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    n_creates++;
    return n_creates == failing_create ? EAGAIN : __real_pthread_create(thread, attributes, run, argument);
}

static sl_store *open_with_faults(expert_files *set, uint64_t n_slots, sl_read_fault_plan *plan)
{
    sl_store_config config = expert_config(set, n_slots);
    config.faults = plan;
    sluice_error error = {0};
    sl_store *store = NULL;
    if (sl_store_open(&store, &config, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    return store;
}

static const uint32_t lists[][4] = {{0, 1, 2, 3}, {3, 4, 5, 0}};
enum { N_LISTS = 2 };

/* Ask for all lists in both layers. Returns how many requests failed, all of them with `expected`. */
static uint32_t fetch_lists(const expert_files *set, sl_store *store, sluice_status expected)
{
    uint32_t n_failed = 0;
    for (uint32_t i_list = 0; i_list < 2 * N_LISTS; i_list++) {
        sluice_error error = {0};
        sluice_status status = expert_fetch(set, store, i_list % 2, lists[i_list / 2], 4, 2, &error);
        if (status != SLUICE_OK) {
            assert_int_equal(status, expected);
            assert_int_equal(error.status, expected);
            assert_non_null(strstr(error.message, "expert "));
            assert_non_null(strstr(error.message, i_list % 2 == 0 ? "of MoE layer 0: " : "of MoE layer 1: "));
            assert_non_null(strstr(error.message, set->directory));
            assert_non_null(strstr(error.message, "at byte "));
            n_failed++;
        }
    }
    return n_failed;
}

/* Wait until no read is in flight: the busy time stands still. A failed request may have left some that carry faults.
 */
static void settle(sl_store *store)
{
    sl_store_counters before;
    sl_store_counters after;
    do {
        sl_store_counters_get(store, &before);
        usleep(100);
        sl_store_counters_get(store, &after);
    } while (after.busy_ns != before.busy_ns);
}

/* Hit the n-th read, for every n until a run has no n-th read. */
static void check_every_read(sl_read_fault fault, uint64_t n_after, sluice_status expected, uint64_t n_slots,
                             bool buffered)
{
    expert_shape this_shape = shape;
    this_shape.buffered = buffered;
    expert_files *set = expert_files_open(&this_shape);
    bool hit = true;
    for (uint64_t at_read = 1; hit; at_read++) {
        sl_read_fault_plan plan = {.at_read = at_read, .fault = fault, .n_after = n_after};
        sl_store *store = open_with_faults(set, n_slots, &plan);
        uint32_t n_failed = fetch_lists(set, store, expected);
        settle(store);
        hit = plan.n_seen >= at_read;
        assert_true((n_failed > 0) == (hit && expected != SLUICE_OK));
        plan.at_read = 0;
        assert_int_equal(fetch_lists(set, store, SLUICE_OK), 0);
        sl_store_counters counters;
        sl_store_counters_get(store, &counters);
        assert_true((counters.failed_reads > 0) == (n_failed > 0));
        assert_int_equal(counters.requests, counters.hits + counters.misses);
        sl_store_close(&store);
    }
    expert_files_close(set);
}

static void a_read_error_fails_its_request_and_no_later_one(void **state)
{
    (void)state;
    check_every_read(SL_READ_FAULT_EIO, 0, SLUICE_ERROR_IO, 4, false);
    check_every_read(SL_READ_FAULT_EIO, 0, SLUICE_ERROR_IO, 1, false);
}

static void several_read_errors_fail_their_requests_and_no_later_one(void **state)
{
    (void)state;
    check_every_read(SL_READ_FAULT_EIO, 7, SLUICE_ERROR_IO, 5, false);
    check_every_read(SL_READ_FAULT_EIO, 3, SLUICE_ERROR_IO, 2, true);
}

static void a_file_that_ends_early_fails_its_request_and_no_later_one(void **state)
{
    (void)state;
    check_every_read(SL_READ_FAULT_SHORT, 0, SLUICE_ERROR_CHANGED, 4, false);
    check_every_read(SL_READ_FAULT_SHORT, 2, SLUICE_ERROR_CHANGED, 2, true);
}

/* Every read from the n-th on fails, until the disk is back. */
static void a_disk_that_disappears_fails_every_request_until_it_is_back(void **state)
{
    (void)state;
    check_every_read(SL_READ_FAULT_GONE, UINT64_MAX, SLUICE_ERROR_IO, 3, false);
}

static void slow_reads_are_waited_for(void **state)
{
    (void)state;
    check_every_read(SL_READ_FAULT_SLOW, 0, SLUICE_OK, 4, false);
    check_every_read(SL_READ_FAULT_SLOW, 5, SLUICE_OK, 2, false);
    check_every_read(SL_READ_FAULT_SLOW, UINT64_MAX, SLUICE_OK, 4, true);
}

static void interrupted_reads_go_on(void **state)
{
    (void)state;
    check_every_read(SL_READ_FAULT_INTERRUPTED, 0, SLUICE_OK, 4, false);
    check_every_read(SL_READ_FAULT_INTERRUPTED, 1000, SLUICE_OK, 3, false);
    check_every_read(SL_READ_FAULT_INTERRUPTED, 1000, SLUICE_OK, 3, true);
}

/* Three requests wait for the only slot; the expert that gets it first is wanted by two of them and cannot be read. */
static void all_requests_that_wait_for_a_failed_expert_are_told(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&shape);
    sl_read_fault_plan plan = {.fault = SL_READ_FAULT_EIO};
    sl_store *store = open_with_faults(set, 1, &plan);
    sl_store_request holder;
    sl_store_request requests[3];
    uint64_t progress[4][2];
    sl_expert_view view;
    uint32_t n_ready = 0;
    const uint32_t held[1] = {5};
    const uint32_t experts[3][2] = {{4, 0}, {1, 4}, {1, 2}};
    assert_int_equal(sl_store_begin(store, &holder, 1, held, 1, progress[3], NULL), SLUICE_OK);
    assert_int_equal(sl_store_wait(store, &holder, &view, 1, &n_ready, NULL), SLUICE_OK);
    for (uint32_t i_request = 0; i_request < 3; i_request++) {
        assert_int_equal(
            sl_store_begin(store, &requests[i_request], 1, experts[i_request], 2, progress[i_request], NULL),
            SLUICE_OK);
    }
    plan.at_read = plan.n_seen + 1;
    sl_store_end(store, &holder);
    for (uint32_t i_request = 0; i_request < 3; i_request++) {
        sluice_error error = {0};
        sluice_status status = SLUICE_OK;
        for (n_ready = 1; status == SLUICE_OK && n_ready > 0;) {
            status = sl_store_wait(store, &requests[i_request], &view, 1, &n_ready, &error);
            if (n_ready > 0) {
                assert_true(expert_is_true(set, 1, &view));
                sl_store_release(store, &requests[i_request], &view);
            }
        }
        assert_int_equal(status, i_request < 2 ? SLUICE_ERROR_IO : SLUICE_OK);
        if (i_request < 2) {
            assert_int_equal(error.system_errno, EIO);
            assert_non_null(strstr(error.message, "expert 4 of MoE layer 1: "));
            assert_int_equal(sl_store_wait(store, &requests[i_request], &view, 1, &n_ready, &error), SLUICE_ERROR_IO);
        }
        sl_store_end(store, &requests[i_request]);
    }
    settle(store);
    assert_int_equal(fetch_lists(set, store, SLUICE_OK), 0);
    sl_store_close(&store);
    expert_files_close(set);
}

static void closing_waits_for_reads_nobody_wants_any_more(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&shape);
    for (uint64_t at_read = 0; at_read < 6; at_read++) {
        sl_read_fault_plan plan = {.at_read = at_read, .fault = SL_READ_FAULT_INTERRUPTED, .n_after = 3};
        sl_store *store = open_with_faults(set, 4, &plan);
        sl_store_request request;
        uint64_t progress[4];
        assert_int_equal(sl_store_begin(store, &request, 0, lists[0], 4, progress, NULL), SLUICE_OK);
        sl_store_end(store, &request);
        sl_store_close(&store);
        assert_null(store);
    }
    expert_files_close(set);
}

static void change_file(const char *path, const char *change)
{
    int descriptor = open(path, O_WRONLY);
    struct stat information;
    assert_true(descriptor >= 0);
    assert_int_equal(fstat(descriptor, &information), 0);
    if (strcmp(change, "emptied") == 0) {
        assert_int_equal(ftruncate(descriptor, 0), 0);
    } else if (strcmp(change, "cut") == 0) {
        assert_int_equal(ftruncate(descriptor, information.st_size - 1), 0);
    } else if (strcmp(change, "grown") == 0) {
        assert_int_equal(ftruncate(descriptor, information.st_size + 1), 0);
    } else if (strcmp(change, "emptied and refilled") == 0) {
        assert_int_equal(ftruncate(descriptor, 0), 0);
        assert_int_equal(ftruncate(descriptor, information.st_size + 4096), 0);
    } else {
        /* Overwritten at its size. The clock of a filesystem may tick as slowly as every 10 ms. */
        usleep(30000);
        assert_int_equal(pwrite(descriptor, "other", 5, 2000), 5);
    }
    assert_int_equal(close(descriptor), 0);
}

static void a_file_that_changes_is_an_error_and_never_wrong_bytes(void **state)
{
    (void)state;
    static const char *const changes[] = {"emptied", "cut", "grown", "emptied and refilled", "overwritten"};
    for (size_t i_change = 0; i_change < 2 * sizeof changes / sizeof changes[0]; i_change++) {
        expert_shape this_shape = shape;
        this_shape.n_files = 1;
        this_shape.buffered = i_change % 2 == 1;
        expert_files *set = expert_files_open(&this_shape);
        sl_store *store = expert_store_open(set, 3);
        sluice_error error = {0};
        assert_int_equal(expert_fetch(set, store, 0, lists[0], 3, 3, &error), SLUICE_OK);
        change_file(set->paths[0], changes[i_change / 2]);
        for (uint32_t layer = 0; layer < 2; layer++) {
            assert_int_equal(expert_fetch(set, store, layer, lists[1], 3, 3, &error), SLUICE_ERROR_CHANGED);
            assert_non_null(strstr(error.message, set->paths[0]));
        }
        if (i_change < 2) {
            assert_non_null(strstr(error.message, "shrank"));
            assert_non_null(strstr(error.message, "found 0"));
        }
        sl_store_close(&store);
        expert_files_close(set);
    }
}

static void a_file_whose_name_is_taken_still_gives_its_own_bytes(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&shape);
    sl_store *store = expert_store_open(set, 3);
    assert_int_equal(rename(set->paths[0], set->paths[1]), 0);
    assert_int_equal(fetch_lists(set, store, SLUICE_OK), 0);
    sl_store_close(&store);
    expert_files_close(set);
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

static bool charge_or_fail(void *user, size_t bytes)
{
    (void)bytes;
    failing_source *source = user;
    return ++source->n_calls != source->failing;
}

static void a_refused_allocation_fails_open_and_leaves_nothing(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&shape);
    failing_source source = {0};
    sl_memory memory;
    sl_memory_init(&memory,
                   &(sl_memory_source){
                       .allocate = allocate_or_fail, .release = release, .charge = charge_or_fail, .user = &source});
    sl_read_fault_plan plan = {0};
    sl_store_config config = expert_config(set, 3);
    config.memory = &memory;
    config.faults = &plan;
    sluice_status status = SLUICE_ERROR_NO_MEMORY;
    for (source.failing = 1; status != SLUICE_OK; source.failing++) {
        sl_store *store = NULL;
        sluice_error error = {0};
        source.n_calls = 0;
        status = sl_store_open(&store, &config, &error);
        if (status != SLUICE_OK) {
            assert_int_equal(status, SLUICE_ERROR_NO_MEMORY);
            assert_non_null(strstr(error.message, "out of memory"));
            assert_null(store);
            assert_int_equal(memory.n_live, 0);
            assert_int_equal(memory.total_bytes, 0);
        } else {
            assert_int_equal(fetch_lists(set, store, SLUICE_OK), 0);
            sl_store_close(&store);
        }
    }
    assert_true(source.failing > 8);
    expert_files_close(set);
}

static void a_refused_thread_fails_open_and_leaves_nothing(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&shape);
    sl_store_config config = expert_config(set, 3);
    config.reads.n_threads = 6;
    uint64_t n_threads = tested_kind == SL_READS_PREAD ? 6 : 1;
    for (failing_create = 1; failing_create <= n_threads; failing_create++) {
        sl_store *store = NULL;
        sluice_error error = {0};
        n_creates = 0;
        assert_int_equal(sl_store_open(&store, &config, &error), SLUICE_ERROR_SYSTEM);
        assert_int_equal(error.system_errno, EAGAIN);
        assert_null(store);
        assert_int_equal(n_creates, failing_create);
        assert_int_equal(set->memory.total_bytes, 0);
    }
    n_creates = 0;
    sl_store *store = NULL;
    assert_int_equal(sl_store_open(&store, &config, NULL), SLUICE_OK);
    assert_int_equal(n_creates, n_threads);
    failing_create = 0;
    assert_int_equal(fetch_lists(set, store, SLUICE_OK), 0);
    sl_store_close(&store);
    expert_files_close(set);
}

typedef struct log_record {
    uint32_t n_lines;
    char line[1100];
} log_record;

static void keep_line(void *user, sl_log_level level, const char *line)
{
    log_record *record = user;
    assert_int_equal(level, SL_LOG_ERROR);
    record->n_lines++;
    snprintf(record->line, sizeof record->line, "%s", line);
}

static void a_failed_expert_is_logged_even_when_nobody_waits(void **state)
{
    (void)state;
    expert_files *set = expert_files_open(&shape);
    log_record record = {0};
    sl_log log = {.write = keep_line, .user = &record, .level = SL_LOG_ERROR};
    sl_read_fault_plan plan = {.at_read = 1, .fault = SL_READ_FAULT_EIO};
    sl_store_config config = expert_config(set, 3);
    config.faults = &plan;
    config.log = &log;
    sl_store *store = NULL;
    assert_int_equal(sl_store_open(&store, &config, NULL), SLUICE_OK);
    sl_store_request request;
    uint64_t progress[4];
    assert_int_equal(sl_store_begin(store, &request, 0, lists[1], 1, progress, NULL), SLUICE_OK);
    sl_store_end(store, &request);
    sl_store_close(&store);
    assert_int_equal(record.n_lines, 1);
    assert_non_null(strstr(record.line, "expert 3 of MoE layer 0: "));
    expert_files_close(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_error_fails_its_request_and_no_later_one),
        cmocka_unit_test(several_read_errors_fail_their_requests_and_no_later_one),
        cmocka_unit_test(a_file_that_ends_early_fails_its_request_and_no_later_one),
        cmocka_unit_test(a_disk_that_disappears_fails_every_request_until_it_is_back),
        cmocka_unit_test(slow_reads_are_waited_for),
        cmocka_unit_test(interrupted_reads_go_on),
        cmocka_unit_test(all_requests_that_wait_for_a_failed_expert_are_told),
        cmocka_unit_test(closing_waits_for_reads_nobody_wants_any_more),
        cmocka_unit_test(a_file_that_changes_is_an_error_and_never_wrong_bytes),
        cmocka_unit_test(a_file_whose_name_is_taken_still_gives_its_own_bytes),
        cmocka_unit_test(a_refused_allocation_fails_open_and_leaves_nothing),
        cmocka_unit_test(a_refused_thread_fails_open_and_leaves_nothing),
        cmocka_unit_test(a_failed_expert_is_logged_even_when_nobody_waits),
    };
    return RUN_WITH_BOTH_KINDS(tests);
}
