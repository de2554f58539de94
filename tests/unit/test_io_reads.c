/* The read engine: what arrives, in which order reads start, and what the system may do to a read. */
#include "reads_fixture.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "reads_kinds.h"
#include "ring_disturbance.h"

/* What happens to reads. thread: set while no read is in flight; the counts are atomic. */
typedef enum disturbance {
    UNDISTURBED,
    ALWAYS_INTERRUPTED_ONCE, /* every other call is interrupted */
    SHORT_COUNTS,            /* at most one block per call */
    ODD_COUNTS,              /* at most 1000 bytes per call */
    DIRECT_REFUSED,          /* EINVAL on the direct descriptor */
    DIRECT_REFUSED_LATER,    /* one block, then EINVAL on the direct descriptor */
    DISK_ERROR               /* EIO from byte 50000 on */
} disturbance;

static disturbance disturbed;
static int direct_descriptor = -1;
static atomic_uint_fast64_t n_calls;
static uint64_t failing_create;
static uint64_t n_creates;

ssize_t __real_pread(int descriptor, void *destination, size_t length, off_t offset);
ssize_t __wrap_pread(int descriptor, void *destination, size_t length, off_t offset);
ssize_t __wrap_pread64(int descriptor, void *destination, size_t length, off_t offset);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);

ssize_t disturbed_read(int descriptor, void *destination, size_t length, off_t offset)
{
    uint64_t call = atomic_fetch_add(&n_calls, 1);
    bool direct = descriptor == direct_descriptor;
    bool refused = false;
    switch (disturbed) {
    case UNDISTURBED: break;
    case ALWAYS_INTERRUPTED_ONCE:
        if (call % 2 == 0) {
            return -EINTR;
        }
        break;
    case SHORT_COUNTS: length = length < BLOCK_BYTES ? length : BLOCK_BYTES; break;
    case ODD_COUNTS: refused = direct && offset % 512 != 0; break;
    case DIRECT_REFUSED: refused = direct; break;
    case DIRECT_REFUSED_LATER:
        refused = direct && offset % (4 * BLOCK_BYTES) != 0;
        length = direct && length > BLOCK_BYTES ? BLOCK_BYTES : length;
        break;
    case DISK_ERROR:
        if ((uint64_t)offset + length > 50000) {
            return -EIO;
        }
        break;
    }
    ssize_t got = refused ? -EINVAL : __real_pread(descriptor, destination, length, offset);
    /* A direct read cannot be asked for an odd count, but the kernel may return one. */
    return disturbed == ODD_COUNTS && got > 1000 ? 1000 : got == -1 ? -errno : got;
}

bool answers_reads(void)
{
    return disturbed != UNDISTURBED;
}

int registered_descriptor(void)
{
    return direct_descriptor;
}

ssize_t __wrap_pread(int descriptor, void *destination, size_t length, off_t offset)
{
    ssize_t got = disturbed_read(descriptor, destination, length, offset);
    if (got < 0) {
        errno = (int)-got;
        return -1;
    }
    return got;
}

ssize_t __wrap_pread64(int descriptor, void *destination, size_t length, off_t offset)
{
    return __wrap_pread(descriptor, destination, length, offset);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    n_creates++;
    return n_creates == failing_create ? EAGAIN : __real_pthread_create(thread, attributes, run, argument);
}

static int set_up(void **state)
{
    disturbed = UNDISTURBED;
    int failed = open_fixture(state);
    direct_descriptor = ((fixture *)*state)->file.direct_descriptor;
    return failed;
}

static int tear_down(void **state)
{
    disturbed = UNDISTURBED;
    failing_create = 0;
    return close_fixture(state);
}

/* An engine of the tested kind; its pieces are a quarter of a read. */
static sl_reads_options options_of(uint32_t n_threads)
{
    return (sl_reads_options){
        .kind = tested_kind, .n_threads = n_threads, .depth = n_threads, .piece_bytes = 4 * BLOCK_BYTES};
}

static void open_threads(fixture *test, uint32_t n_threads)
{
    open_reads(test, options_of(n_threads));
}

/* Many reads at once, all of which must succeed. */
static void check_open_reads(fixture *test, bool direct)
{
    sl_read reads[N_READS];
    memset(test->buffer, 0, (size_t)N_READS * 16 * BLOCK_BYTES);
    test->n_done = 0;
    for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
        reads[i_read] = make_read(test, i_read, direct);
        sl_reads_submit(&test->reads, &reads[i_read]);
    }
    wait_for(test, N_READS);
    for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
        expect_true_bytes(test, &reads[i_read]);
    }
}

static void check_reads(fixture *test, uint32_t n_threads, bool direct)
{
    open_threads(test, n_threads);
    check_open_reads(test, direct);
}

static void every_read_brings_the_bytes_of_its_range(void **state)
{
    check_reads(*state, 1, true);
    check_reads(*state, 4, true);
    check_reads(*state, SL_READS_MAX_THREADS, true);
    check_reads(*state, 4, false);
}

static void interruptions_and_partial_reads_are_continued(void **state)
{
    static const disturbance harmless[] = {ALWAYS_INTERRUPTED_ONCE, SHORT_COUNTS, ODD_COUNTS};
    for (size_t i_case = 0; i_case < sizeof harmless / sizeof harmless[0]; i_case++) {
        disturbed = harmless[i_case];
        uint64_t n_before = n_calls;
        check_reads(*state, 3, true);
        assert_true(n_calls >= n_before + 2 * N_READS);
        check_reads(*state, 3, false);
    }
}

/* With the second round the memory is registered, where the system does that. */
static void check_repeated_reads(fixture *test, bool direct)
{
    sl_reads_options options = options_of(3);
    options.memory = (sl_reads_memory){.start = test->buffer, .range_bytes = 16 * BLOCK_BYTES, .n_ranges = N_READS};
    open_reads(test, options);
    for (int i_round = 0; i_round < 3; i_round++) {
        check_open_reads(test, direct);
    }
}

static void memory_that_is_used_again_gets_the_bytes_of_each_read(void **state)
{
    static const disturbance harmless[] = {UNDISTURBED, ALWAYS_INTERRUPTED_ONCE, SHORT_COUNTS, ODD_COUNTS,
                                           DIRECT_REFUSED_LATER};
    for (size_t i_case = 0; i_case < sizeof harmless / sizeof harmless[0]; i_case++) {
        disturbed = harmless[i_case];
        check_repeated_reads(*state, true);
        check_repeated_reads(*state, false);
    }
}

static void refused_direct_reads_are_done_buffered_and_logged_once(void **state)
{
    fixture *test = *state;
    if (test->file.direct_descriptor < 0) {
        print_message("the directory for temporary files allows no direct reads\n");
        skip();
    }
    disturbed = DIRECT_REFUSED;
    check_reads(test, 3, true);
    assert_int_equal(test->n_log_lines, 1);
    assert_non_null(strstr(test->log_line, test->path));
    assert_non_null(strstr(test->log_line, "refuses direct reads"));
    disturbed = DIRECT_REFUSED_LATER;
    check_reads(test, 3, true);
    assert_int_equal(test->n_log_lines, 2);
}

static void reads_start_in_the_order_they_were_submitted(void **state)
{
    fixture *test = *state;
    check_reads(test, 1, true);
    for (uint32_t i_read = 1; i_read < N_READS; i_read++) {
        assert_ptr_equal(test->order[i_read], test->order[0] + i_read);
    }
}

static void a_disk_error_names_path_place_and_cause(void **state)
{
    fixture *test = *state;
    open_threads(test, 2);
    disturbed = DISK_ERROR;
    sl_read read = make_read(test, 3, true);
    sl_reads_submit(&test->reads, &read);
    wait_for(test, 1);
    sluice_error error = {0};
    assert_int_equal(read.status, SLUICE_ERROR_IO);
    assert_int_equal(sl_read_describe(&read, &error), SLUICE_ERROR_IO);
    assert_int_equal(error.system_errno, EIO);
    assert_non_null(strstr(error.message, test->path));
    assert_non_null(strstr(error.message, "65536 bytes at byte 196608"));
    assert_non_null(strstr(error.message, strerror(EIO)));
    disturbed = UNDISTURBED;
    sl_reads_submit(&test->reads, &read);
    wait_for(test, 2);
    expect_true_bytes(test, &read);
    assert_int_equal(sl_read_describe(&read, NULL), SLUICE_OK);
}

static void a_file_that_ends_early_names_what_was_expected_and_found(void **state)
{
    fixture *test = *state;
    open_threads(test, 2);
    assert_int_equal(truncate(test->path, 200000), 0);
    for (int direct = 0; direct < 2; direct++) {
        sl_read read = make_read(test, 3, direct != 0);
        sl_reads_submit(&test->reads, &read);
        wait_for(test, (uint32_t)direct + 1);
        sluice_error error = {0};
        assert_int_equal(sl_read_describe(&read, &error), SLUICE_ERROR_CHANGED);
        assert_non_null(strstr(error.message, test->path));
        assert_non_null(strstr(error.message, "shrank"));
        assert_non_null(strstr(error.message, "expected 65536 bytes at byte 196608, found 3392"));
        assert_non_null(strstr(error.message, "when opened 1000003, now 200000"));
    }
}

static void closing_waits_for_what_was_submitted(void **state)
{
    fixture *test = *state;
    sl_read reads[N_READS];
    for (int i_round = 0; i_round < 20; i_round++) {
        open_threads(test, 4);
        test->resubmit = i_round % 2 == 1;
        for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
            reads[i_read] = make_read(test, i_read, true);
            sl_reads_submit(&test->reads, &reads[i_read]);
        }
        /* on_done may still submit while the threads end, so the struct it uses stays until they have. */
        sl_reads closing = test->reads;
        sl_reads_close(&closing);
        test->reads = (sl_reads){0};
        assert_int_equal(test->n_done, N_READS);
        for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
            expect_true_bytes(test, &reads[i_read]);
        }
    }
}

static void planned_faults_hit_the_planned_reads(void **state)
{
    fixture *test = *state;
    static const sl_read_fault faults[] = {SL_READ_FAULT_EIO, SL_READ_FAULT_SHORT, SL_READ_FAULT_INTERRUPTED,
                                           SL_READ_FAULT_GONE};
    for (uint64_t at_read = 1; at_read <= N_READS; at_read += 3) {
        sl_read_fault fault = faults[at_read % 4];
        open_threads(test, 3);
        test->plan = (sl_read_fault_plan){.at_read = at_read, .fault = fault, .n_after = 2};
        assert_int_equal(sl_reads_wrap_faults(&test->reads, &test->plan, &test->memory, NULL), SLUICE_OK);
        sl_read reads[N_READS];
        for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
            reads[i_read] = make_read(test, i_read, true);
            sl_reads_submit(&test->reads, &reads[i_read]);
        }
        wait_for(test, N_READS);
        assert_int_equal(test->plan.n_seen, N_READS);
        for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
            sl_read untouched = make_read(test, i_read, true);
            assert_int_equal(reads[i_read].offset, untouched.offset);
            assert_int_equal(reads[i_read].length, untouched.length);
            assert_int_equal(reads[i_read].required, untouched.required);
            assert_ptr_equal(reads[i_read].destination, untouched.destination);
            bool hit = i_read + 1 >= at_read && i_read + 1 < at_read + 2;
            if (!hit || fault == SL_READ_FAULT_INTERRUPTED) {
                expect_true_bytes(test, &reads[i_read]);
            } else if (fault == SL_READ_FAULT_EIO || fault == SL_READ_FAULT_GONE) {
                assert_int_equal(reads[i_read].status, SLUICE_ERROR_IO);
                assert_int_equal(reads[i_read].system_errno, fault == SL_READ_FAULT_EIO ? EIO : ENODEV);
            } else {
                assert_int_equal(reads[i_read].status, SLUICE_ERROR_CHANGED);
                assert_int_equal(reads[i_read].bytes_read, reads[i_read].required / 2);
            }
        }
    }
}

/* Slow reads arrive last, whatever else is in flight, and bring their bytes all the same. */
static void slow_reads_arrive_after_the_others(void **state)
{
    fixture *test = *state;
    for (uint64_t at_read = 1; at_read <= N_READS; at_read += 3) {
        open_threads(test, 3);
        test->plan = (sl_read_fault_plan){.at_read = at_read, .fault = SL_READ_FAULT_SLOW, .n_after = 1 + at_read % 4};
        assert_int_equal(sl_reads_wrap_faults(&test->reads, &test->plan, &test->memory, NULL), SLUICE_OK);
        sl_read reads[N_READS];
        for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
            reads[i_read] = make_read(test, i_read, true);
        }
        /* Once around with everything in flight together, once one by one: alone, a slow read is not held for ever. */
        for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
            sl_reads_submit(&test->reads, &reads[i_read]);
            if (at_read % 2 == 0) {
                wait_for(test, i_read + 1);
            }
        }
        wait_for(test, N_READS);
        for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
            expect_true_bytes(test, &reads[i_read]);
        }
        sl_reads_close(&test->reads);
    }
}

/* The first read cannot be reported before all are submitted, so the slow ones, which come next, find it in flight
 * however soon they arrive. */
static void reads_in_flight_with_a_slow_one_overtake_it(void **state)
{
    fixture *test = *state;
    enum { N_SLOW = 5 };
    open_threads(test, 2);
    test->plan = (sl_read_fault_plan){.at_read = 2, .fault = SL_READ_FAULT_SLOW, .n_after = N_SLOW};
    assert_int_equal(sl_reads_wrap_faults(&test->reads, &test->plan, &test->memory, NULL), SLUICE_OK);
    sl_read reads[N_READS];
    pthread_mutex_lock(&test->lock); /* nothing can be reported */
    for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
        reads[i_read] = make_read(test, i_read, false);
        sl_reads_submit(&test->reads, &reads[i_read]);
    }
    pthread_mutex_unlock(&test->lock);
    wait_for(test, N_READS);
    for (uint32_t i_place = 0; i_place < N_READS; i_place++) {
        bool is_slow = test->order[i_place] > reads && test->order[i_place] <= reads + N_SLOW;
        assert_int_equal(is_slow, i_place >= N_READS - N_SLOW);
    }
}

static void count_event(void *user)
{
    uint64_t *n_events = user;
    (*n_events)++;
}

static void an_event_comes_with_the_planned_read(void **state)
{
    fixture *test = *state;
    uint64_t n_events = 0;
    open_threads(test, 3);
    test->plan =
        (sl_read_fault_plan){.at_read = 7, .fault = SL_READ_FAULT_EVENT, .event = count_event, .user = &n_events};
    assert_int_equal(sl_reads_wrap_faults(&test->reads, &test->plan, &test->memory, NULL), SLUICE_OK);
    sl_read reads[N_READS];
    for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
        reads[i_read] = make_read(test, i_read, true);
        sl_reads_submit(&test->reads, &reads[i_read]);
        assert_int_equal(n_events, i_read < 6 ? 0 : 1);
    }
    wait_for(test, N_READS);
    for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
        expect_true_bytes(test, &reads[i_read]);
    }
}

static void what_open_charges_is_what_the_cost_says(void **state)
{
    fixture *test = *state;
    for (uint32_t n_threads = 1; n_threads <= SL_READS_MAX_THREADS; n_threads *= 4) {
        sl_reads_options options = options_of(n_threads);
        open_reads(test, options);
        uint64_t cost = sl_reads_cost_of(&options).account_bytes;
        assert_int_equal(test->memory.bytes[SL_MEMORY_IO], cost);
        assert_int_equal(sl_reads_wrap_faults(&test->reads, &test->plan, &test->memory, NULL), SLUICE_OK);
        assert_int_equal(test->memory.bytes[SL_MEMORY_IO], cost + sl_reads_faults_cost());
        assert_int_equal(test->memory.total_bytes, test->memory.bytes[SL_MEMORY_IO]);
    }
}

static void a_refused_thread_fails_open_and_leaves_nothing(void **state)
{
    fixture *test = *state;
    sl_reads_options options = options_of(5);
    for (failing_create = 1; failing_create <= (tested_kind == SL_READS_PREAD ? 5 : 1); failing_create++) {
        sluice_error error = {0};
        n_creates = 0;
        assert_int_equal(sl_reads_open(&test->reads, &options, &test->memory, NULL, on_done, test, &error),
                         SLUICE_ERROR_SYSTEM);
        assert_int_equal(error.system_errno, EAGAIN);
        assert_int_equal(n_creates, failing_create);
        assert_int_equal(test->memory.total_bytes, 0);
        sl_reads_close(&test->reads);
    }
    failing_create = 0;
}

static void options_out_of_range_are_refused(void **state)
{
    fixture *test = *state;
    for (int i_case = 0; i_case < 6; i_case++) {
        sl_reads_options options = options_of(4);
        options.n_threads = i_case == 0 ? 0 : i_case == 1 ? SL_READS_MAX_THREADS + 1 : 4;
        options.depth = i_case == 2 ? SL_READS_MAX_DEPTH + 1 : 4;
        static const uint32_t pieces[] = {SL_READS_MIN_PIECE_BYTES / 2, 3 * BLOCK_BYTES, 1u << 31};
        options.piece_bytes = i_case < 3 ? 0 : pieces[i_case - 3];
        sluice_error error = {0};
        assert_int_equal(sl_reads_open(&test->reads, &options, &test->memory, NULL, on_done, test, &error),
                         SLUICE_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "expected"));
        assert_int_equal(test->memory.total_bytes, 0);
    }
}

static void hundreds_of_reads_go_through_few_places(void **state)
{
    enum { N_SMALL = 600 };
    fixture *test = *state;
    sl_read *reads = calloc(N_SMALL, sizeof *reads);
    assert_non_null(reads);
    for (uint32_t n_threads = 1; n_threads <= 4; n_threads++) {
        open_threads(test, n_threads);
        memset(test->buffer, 0, (size_t)N_READS * 16 * BLOCK_BYTES);
        for (uint32_t i_read = 0; i_read < N_SMALL; i_read++) {
            reads[i_read] = make_read(test, 0, i_read % 3 != 0);
            reads[i_read].offset = (uint64_t)(i_read * 7 % 240) * BLOCK_BYTES;
            reads[i_read].length = BLOCK_BYTES;
            reads[i_read].required = i_read % 5 == 0 ? 0 : BLOCK_BYTES; /* some ask for nothing */
            reads[i_read].destination = test->buffer + (size_t)i_read * BLOCK_BYTES;
            sl_reads_submit(&test->reads, &reads[i_read]);
        }
        wait_for(test, N_SMALL);
        for (uint32_t i_read = 0; i_read < N_SMALL; i_read++) {
            expect_true_bytes(test, &reads[i_read]);
        }
    }
    free(reads);
}

typedef struct submitter {
    fixture *test;
    sl_read reads[N_READS / 4];
    pthread_t thread;
} submitter;

static void *submit_all(void *argument)
{
    submitter *self = argument;
    for (uint32_t i_read = 0; i_read < N_READS / 4; i_read++) {
        sl_reads_submit(&self->test->reads, &self->reads[i_read]);
        if (i_read % 4 == 3) {
            usleep(200); /* lets the engine fall asleep now and then */
        }
    }
    return NULL;
}

static void several_threads_submit_at_once(void **state)
{
    fixture *test = *state;
    for (int i_round = 0; i_round < 10; i_round++) {
        open_threads(test, 3);
        submitter submitters[4];
        for (uint32_t i_thread = 0; i_thread < 4; i_thread++) {
            submitters[i_thread].test = test;
            for (uint32_t i_read = 0; i_read < N_READS / 4; i_read++) {
                submitters[i_thread].reads[i_read] = make_read(test, i_thread * (N_READS / 4) + i_read, true);
            }
            assert_int_equal(pthread_create(&submitters[i_thread].thread, NULL, submit_all, &submitters[i_thread]), 0);
        }
        for (uint32_t i_thread = 0; i_thread < 4; i_thread++) {
            pthread_join(submitters[i_thread].thread, NULL);
        }
        wait_for(test, N_READS);
        for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
            expect_true_bytes(test, &submitters[i_read / (N_READS / 4)].reads[i_read % (N_READS / 4)]);
        }
    }
}

static void two_engines_share_a_file(void **state)
{
    fixture *first = *state;
    void *opened = NULL;
    assert_int_equal(open_fixture(&opened), 0);
    fixture *second = opened;
    open_threads(first, 2);
    open_threads(second, 2);
    sl_read reads[2 * N_READS];
    for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
        reads[i_read] = make_read(first, i_read, true);
        reads[N_READS + i_read] = make_read(first, i_read, true);
        reads[N_READS + i_read].destination = second->buffer + (size_t)i_read * 16 * BLOCK_BYTES;
        sl_reads_submit(&first->reads, &reads[i_read]);
        sl_reads_submit(&second->reads, &reads[N_READS + i_read]);
    }
    wait_for(first, N_READS);
    sl_reads_close(&first->reads);
    wait_for(second, N_READS);
    for (uint32_t i_read = 0; i_read < 2 * N_READS; i_read++) {
        expect_true_bytes(first, &reads[i_read]);
    }
    close_fixture(&opened);
}

static void the_description_says_what_is_read_with(void **state)
{
    fixture *test = *state;
    char text[200];
    open_threads(test, 3);
    assert_int_equal(sl_reads_wrap_faults(&test->reads, &test->plan, &test->memory, NULL), SLUICE_OK);
    sl_reads_describe_backend(&test->reads, text, sizeof text);
    static const char uring[] = "uring, 3 pieces of up to 16 KiB in flight";
    if (tested_kind == SL_READS_PREAD) {
        assert_string_equal(text, "pread, 3 threads");
    } else {
        assert_memory_equal(text, uring, sizeof uring - 1); /* and what is registered */
    }
}

/* Pages of the file's range that are in the page cache. */
static size_t count_cached(const fixture *test, uint64_t offset, uint64_t length)
{
    unsigned char cached[FILE_BYTES / BLOCK_BYTES + 1] = {0};
    int descriptor = open(test->path, O_RDONLY);
    assert_true(descriptor >= 0);
    void *mapping = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, descriptor, 0);
    assert_true(mapping != MAP_FAILED);
    assert_int_equal(mincore((char *)mapping + offset, length, cached), 0);
    munmap(mapping, FILE_BYTES);
    close(descriptor);
    size_t n_cached = 0;
    for (size_t page = 0; page < (length + BLOCK_BYTES - 1) / BLOCK_BYTES; page++) {
        n_cached += cached[page] & 1;
    }
    return n_cached;
}

static void nothing_of_what_was_read_stays_in_the_page_cache(void **state)
{
    fixture *test = *state;
    if (test->file.direct_descriptor < 0) {
        print_message("the directory for temporary files has no disk under it\n");
        skip();
    }
    (void)posix_fadvise(test->file.descriptor, 0, 0, POSIX_FADV_DONTNEED);
    if (count_cached(test, 0, FILE_BYTES) != 0) {
        print_message("this system does not drop pages when asked\n");
        skip();
    }
    unsigned char byte = 0;
    assert_int_equal(sl_file_read(&test->file, test->path, &byte, 1, 0, NULL), SLUICE_OK);
    assert_true(count_cached(test, 0, FILE_BYTES) > 0); /* the measurement sees pages */
    check_reads(test, 3, false);
    assert_int_equal(count_cached(test, 0, FILE_BYTES), 0);
    disturbed = DIRECT_REFUSED;
    check_reads(test, 3, true);
    assert_int_equal(count_cached(test, 0, FILE_BYTES), 0);
    disturbed = UNDISTURBED;
    check_reads(test, 3, true);
    assert_int_equal(count_cached(test, 0, FILE_BYTES), 0);
}

static void what_the_page_cache_has_is_copied_from_there_and_stays(void **state)
{
    fixture *test = *state;
    unsigned char *bytes = malloc(FILE_BYTES);
    assert_non_null(bytes);
    assert_int_equal(sl_file_read(&test->file, test->path, bytes, FILE_BYTES, 0, NULL), SLUICE_OK);
    free(bytes);
    if (!sl_file_is_cached(&test->file, 0, FILE_BYTES)) {
        print_message("this system does not say what is cached\n");
        skip();
    }
    sl_reads_options options = options_of(3);
    options.from_cache = true;
    disturbed = DIRECT_REFUSED; /* a direct read would be noticed */
    open_reads(test, options);
    check_open_reads(test, true);
    assert_int_equal(test->n_log_lines, 0);
    assert_true(sl_file_is_cached(&test->file, 0, FILE_BYTES));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_read_brings_the_bytes_of_its_range),
        TEST(interruptions_and_partial_reads_are_continued),
        TEST(memory_that_is_used_again_gets_the_bytes_of_each_read),
        TEST(refused_direct_reads_are_done_buffered_and_logged_once),
        TEST(reads_start_in_the_order_they_were_submitted),
        TEST(a_disk_error_names_path_place_and_cause),
        TEST(a_file_that_ends_early_names_what_was_expected_and_found),
        TEST(closing_waits_for_what_was_submitted),
        TEST(planned_faults_hit_the_planned_reads),
        TEST(slow_reads_arrive_after_the_others),
        TEST(reads_in_flight_with_a_slow_one_overtake_it),
        TEST(an_event_comes_with_the_planned_read),
        TEST(what_open_charges_is_what_the_cost_says),
        TEST(a_refused_thread_fails_open_and_leaves_nothing),
        TEST(options_out_of_range_are_refused),
        TEST(hundreds_of_reads_go_through_few_places),
        TEST(several_threads_submit_at_once),
        TEST(two_engines_share_a_file),
        TEST(the_description_says_what_is_read_with),
        TEST(nothing_of_what_was_read_stays_in_the_page_cache),
        TEST(what_the_page_cache_has_is_copied_from_there_and_stays),
    };
    return RUN_WITH_BOTH_KINDS(tests);
}
