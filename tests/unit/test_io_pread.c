/* The reading threads: what arrives, in which order they start, and what the system may do to a read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "io/reads.h"

enum { FILE_BYTES = 1000003, BLOCK_BYTES = 4096, N_READS = 40 };

/* What stands in for pread. thread: set while no read is in flight; the counts are atomic. */
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

static ssize_t fail_with(int system_errno)
{
    errno = system_errno;
    return -1;
}

ssize_t __wrap_pread(int descriptor, void *destination, size_t length, off_t offset)
{
    uint64_t call = atomic_fetch_add(&n_calls, 1);
    bool direct = descriptor == direct_descriptor;
    switch (disturbed) {
    case UNDISTURBED: break;
    case ALWAYS_INTERRUPTED_ONCE:
        if (call % 2 == 0) {
            return fail_with(EINTR);
        }
        break;
    case SHORT_COUNTS: length = length < BLOCK_BYTES ? length : BLOCK_BYTES; break;
    case ODD_COUNTS:
        if (direct && offset % 512 != 0) {
            return fail_with(EINVAL);
        }
        if (length > 1000) {
            /* A direct read cannot be asked for an odd count, but the kernel may return one. */
            ssize_t got = __real_pread(descriptor, destination, length, offset);
            return got > 1000 ? 1000 : got;
        }
        break;
    case DIRECT_REFUSED:
        if (direct) {
            return fail_with(EINVAL);
        }
        break;
    case DIRECT_REFUSED_LATER:
        if (direct && offset % (16 * BLOCK_BYTES) != 0) {
            return fail_with(EINVAL);
        }
        length = direct && length > BLOCK_BYTES ? BLOCK_BYTES : length;
        break;
    case DISK_ERROR:
        if ((uint64_t)offset + length > 50000) {
            return fail_with(EIO);
        }
        break;
    }
    return __real_pread(descriptor, destination, length, offset);
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

typedef struct fixture {
    char path[64];
    sl_file file;
    sl_memory memory;
    sl_reads reads;
    sl_read_fault_plan plan;
    unsigned char *bytes;  // [FILE_BYTES], what the file holds
    unsigned char *buffer; // [N_READS][16 * BLOCK_BYTES], aligned

    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t n_done;         /* guarded by lock */
    sl_read *order[N_READS]; /* guarded by lock; in the order they were reported */
    bool resubmit;           /* the first read that is done is submitted again */
} fixture;

static void on_done(void *user, sl_read *read)
{
    fixture *test = user;
    pthread_mutex_lock(&test->lock);
    bool again = test->resubmit;
    test->resubmit = false;
    if (!again) {
        test->order[test->n_done++] = read;
        pthread_cond_broadcast(&test->changed);
    }
    pthread_mutex_unlock(&test->lock);
    if (again) {
        sl_reads_submit(&test->reads, read);
    }
}

static void wait_for(fixture *test, uint32_t n_done)
{
    pthread_mutex_lock(&test->lock);
    while (test->n_done < n_done) {
        pthread_cond_wait(&test->changed, &test->lock);
    }
    pthread_mutex_unlock(&test->lock);
}

static int set_up(void **state)
{
    fixture *test = calloc(1, sizeof *test);
    void *buffer = NULL;
    assert_non_null(test);
    assert_int_equal(posix_memalign(&buffer, 1 << 16, (size_t)N_READS * 16 * BLOCK_BYTES), 0);
    test->buffer = buffer;
    test->bytes = malloc(FILE_BYTES);
    assert_non_null(test->bytes);
    uint32_t random = 99;
    for (size_t place = 0; place < FILE_BYTES; place++) {
        random = random * 1664525u + 1013904223u;
        test->bytes[place] = (unsigned char)(random >> 24);
    }
    snprintf(test->path, sizeof test->path, "%s/sluice-reads-XXXXXX", P_tmpdir);
    int descriptor = mkstemp(test->path);
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, test->bytes, FILE_BYTES), FILE_BYTES);
    assert_int_equal(fsync(descriptor), 0);
    close(descriptor);
    disturbed = UNDISTURBED;
    assert_int_equal(sl_file_open(&test->file, test->path, true, NULL), SLUICE_OK);
    direct_descriptor = test->file.direct_descriptor;
    sl_memory_init(&test->memory, NULL);
    pthread_mutex_init(&test->lock, NULL);
    pthread_cond_init(&test->changed, NULL);
    *state = test;
    return 0;
}

static int tear_down(void **state)
{
    fixture *test = *state;
    disturbed = UNDISTURBED;
    failing_create = 0;
    sl_reads_close(&test->reads);
    assert_int_equal(test->memory.total_bytes, 0);
    sl_file_close(&test->file);
    unlink(test->path);
    pthread_cond_destroy(&test->changed);
    pthread_mutex_destroy(&test->lock);
    free(test->bytes);
    free(test->buffer);
    free(test);
    return 0;
}

static void open_threads(fixture *test, uint32_t n_threads)
{
    sl_reads_close(&test->reads);
    test->n_done = 0;
    sluice_error error = {0};
    if (sl_reads_open_pread(&test->reads, n_threads, &test->memory, on_done, test, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
}

/* Read i of a test: 16 blocks from block 16 i on, cut where the file ends. Past the end there is nothing to ask for. */
static sl_read make_read(const fixture *test, uint32_t i_read, bool direct)
{
    sl_read read = {.file = &test->file,
                    .path = test->path,
                    .offset = (uint64_t)i_read * 16 * BLOCK_BYTES % (FILE_BYTES / BLOCK_BYTES * BLOCK_BYTES),
                    .length = 16 * BLOCK_BYTES,
                    .required = 16 * BLOCK_BYTES,
                    .destination = test->buffer + (size_t)i_read * 16 * BLOCK_BYTES,
                    .direct = direct};
    read.offset -= read.offset % (16 * BLOCK_BYTES);
    if (read.offset + read.length > FILE_BYTES) {
        read.required = FILE_BYTES - read.offset;
        read.length = (read.required + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    }
    return read;
}

static void expect_true_bytes(const fixture *test, const sl_read *read)
{
    assert_int_equal(read->status, SLUICE_OK);
    assert_true(read->bytes_read >= read->required);
    assert_true(read->done_ns >= read->submit_ns);
    assert_memory_equal(read->destination, test->bytes + read->offset, read->required);
}

/* Many reads at once, all of which must succeed. */
static void check_reads(fixture *test, uint32_t n_threads, bool direct)
{
    sl_read reads[N_READS];
    memset(test->buffer, 0, (size_t)N_READS * 16 * BLOCK_BYTES);
    open_threads(test, n_threads);
    for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
        reads[i_read] = make_read(test, i_read, direct);
        sl_reads_submit(&test->reads, &reads[i_read]);
    }
    wait_for(test, N_READS);
    for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
        expect_true_bytes(test, &reads[i_read]);
    }
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

static void refused_direct_reads_are_done_buffered(void **state)
{
    disturbed = DIRECT_REFUSED;
    check_reads(*state, 3, true);
    disturbed = DIRECT_REFUSED_LATER;
    check_reads(*state, 3, true);
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
    static const sl_read_fault faults[] = {SL_READ_FAULT_EIO, SL_READ_FAULT_SHORT, SL_READ_FAULT_INTERRUPTED};
    for (uint64_t at_read = 1; at_read <= N_READS; at_read += 3) {
        sl_read_fault fault = faults[at_read % 3];
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
            } else if (fault == SL_READ_FAULT_EIO) {
                assert_int_equal(reads[i_read].status, SLUICE_ERROR_IO);
                assert_int_equal(reads[i_read].system_errno, EIO);
            } else {
                assert_int_equal(reads[i_read].status, SLUICE_ERROR_CHANGED);
                assert_int_equal(reads[i_read].bytes_read, reads[i_read].required / 2);
            }
        }
    }
}

static void what_open_charges_is_what_the_cost_says(void **state)
{
    fixture *test = *state;
    for (uint32_t n_threads = 1; n_threads <= SL_READS_MAX_THREADS; n_threads *= 4) {
        open_threads(test, n_threads);
        assert_int_equal(test->memory.bytes[SL_MEMORY_IO], sl_reads_pread_cost(n_threads));
        assert_int_equal(sl_reads_wrap_faults(&test->reads, &test->plan, &test->memory, NULL), SLUICE_OK);
        assert_int_equal(test->memory.bytes[SL_MEMORY_IO], sl_reads_pread_cost(n_threads) + sl_reads_faults_cost());
        assert_int_equal(test->memory.total_bytes, test->memory.bytes[SL_MEMORY_IO]);
    }
}

static void a_refused_thread_fails_open_and_leaves_nothing(void **state)
{
    fixture *test = *state;
    for (failing_create = 1; failing_create <= 5; failing_create++) {
        sluice_error error = {0};
        n_creates = 0;
        assert_int_equal(sl_reads_open_pread(&test->reads, 5, &test->memory, on_done, test, &error),
                         SLUICE_ERROR_SYSTEM);
        assert_int_equal(error.system_errno, EAGAIN);
        assert_int_equal(n_creates, failing_create);
        assert_int_equal(test->memory.total_bytes, 0);
        sl_reads_close(&test->reads);
    }
    failing_create = 0;
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_read_brings_the_bytes_of_its_range),
        TEST(interruptions_and_partial_reads_are_continued),
        TEST(refused_direct_reads_are_done_buffered),
        TEST(reads_start_in_the_order_they_were_submitted),
        TEST(a_disk_error_names_path_place_and_cause),
        TEST(a_file_that_ends_early_names_what_was_expected_and_found),
        TEST(closing_waits_for_what_was_submitted),
        TEST(planned_faults_hit_the_planned_reads),
        TEST(what_open_charges_is_what_the_cost_says),
        TEST(a_refused_thread_fails_open_and_leaves_nothing),
        TEST(nothing_of_what_was_read_stays_in_the_page_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
