/* Memory and files that are registered with the io_uring: when, how often, and that a read brings the same bytes whether
 * they are, are no longer, or cannot be. */
#include "reads_fixture.h"

#include <liburing.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { RANGE_BYTES = 16 * BLOCK_BYTES, PIECES_OF_RANGE = 4, N_RANGES = 8, MANY_FILES = 70 };

/* How the kernel behaves, and what it was asked for. thread: any; changed while no read is in flight. */
static struct {
    int table_errno, range_errno, file_errno; /* 0: does as it is told */
    bool forgets;                             /* says yes to a range and does not have it */
    atomic_int submit_errno;                  /* with which every submission fails; 0: none does */
    atomic_uint n_tables, n_ranges, n_drops, n_files;
    atomic_uint n_range_reads, n_file_reads; /* submitted, by their places in the tables */
    atomic_uint n_waiting;                   /* the same, each time a submission was refused */
} kernel;

int __real_io_uring_register_buffers_sparse(struct io_uring *ring, unsigned n_places);
int __wrap_io_uring_register_buffers_sparse(struct io_uring *ring, unsigned n_places);
int __real_io_uring_register_buffers_update_tag(struct io_uring *ring, unsigned place, const struct iovec *range,
                                                const __u64 *tags, unsigned n_ranges);
int __wrap_io_uring_register_buffers_update_tag(struct io_uring *ring, unsigned place, const struct iovec *range,
                                                const __u64 *tags, unsigned n_ranges);
int __real_io_uring_unregister_buffers(struct io_uring *ring);
int __wrap_io_uring_unregister_buffers(struct io_uring *ring);
int __real_io_uring_register_files_update(struct io_uring *ring, unsigned place, const int *descriptors,
                                          unsigned n_files);
int __wrap_io_uring_register_files_update(struct io_uring *ring, unsigned place, const int *descriptors,
                                          unsigned n_files);
int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned n_wanted);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned n_wanted);

int __wrap_io_uring_register_buffers_sparse(struct io_uring *ring, unsigned n_places)
{
    kernel.n_tables++;
    return kernel.table_errno != 0 ? -kernel.table_errno : __real_io_uring_register_buffers_sparse(ring, n_places);
}

int __wrap_io_uring_register_buffers_update_tag(struct io_uring *ring, unsigned place, const struct iovec *range,
                                                const __u64 *tags, unsigned n_ranges)
{
    kernel.n_ranges += n_ranges;
    if (kernel.range_errno != 0 || kernel.forgets) {
        return kernel.forgets ? (int)n_ranges : -kernel.range_errno;
    }
    return __real_io_uring_register_buffers_update_tag(ring, place, range, tags, n_ranges);
}

int __wrap_io_uring_unregister_buffers(struct io_uring *ring)
{
    kernel.n_drops++;
    return __real_io_uring_unregister_buffers(ring);
}

int __wrap_io_uring_register_files_update(struct io_uring *ring, unsigned place, const int *descriptors,
                                          unsigned n_files)
{
    kernel.n_files += n_files;
    return kernel.file_errno != 0 ? -kernel.file_errno
                                  : __real_io_uring_register_files_update(ring, place, descriptors, n_files);
}

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned n_wanted)
{
    unsigned n_range_reads = 0;
    for (unsigned place = ring->sq.sqe_head; place != ring->sq.sqe_tail; place++) {
        const struct io_uring_sqe *entry = &ring->sq.sqes[place & ring->sq.ring_mask];
        n_range_reads += entry->opcode == IORING_OP_READ_FIXED ? 1 : 0;
        kernel.n_file_reads += (entry->flags & IOSQE_FIXED_FILE) != 0 ? 1 : 0;
    }
    int refused = kernel.submit_errno;
    if (refused != 0) {
        kernel.n_waiting += n_range_reads;
        return -refused;
    }
    kernel.n_range_reads += n_range_reads;
    return __real_io_uring_submit_and_wait(ring, n_wanted);
}

static int set_up(void **state)
{
    memset(&kernel, 0, sizeof kernel);
    return open_fixture(state);
}

static const char *description(const fixture *test)
{
    static char text[300];
    sl_reads_describe_backend(&test->reads, text, sizeof text);
    return text;
}

static void open_registering(fixture *test)
{
    sl_reads_options options = {.kind = SL_READS_URING,
                                .n_threads = 1,
                                .depth = 6,
                                .piece_bytes = RANGE_BYTES / PIECES_OF_RANGE,
                                .memory = {.start = test->buffer, .range_bytes = RANGE_BYTES, .n_ranges = N_RANGES}};
    open_reads(test, options);
}

/* What the tests need, tried once. */
static void skip_without_registered_memory(fixture *test)
{
    sluice_error error = {0};
    if (sl_reads_choose(&(sl_reads_kind){SL_READS_URING}, &error) != SLUICE_OK) {
        print_message("%s\n", error.message);
        skip();
    }
    if (test->file.direct_descriptor < 0) {
        print_message("the directory for temporary files allows no direct reads\n");
        skip();
    }
    open_registering(test);
    sl_read read = make_read(test, 0, true);
    for (uint32_t n_done = 1; n_done <= 2; n_done++) {
        sl_reads_submit(&test->reads, &read);
        wait_for(test, n_done);
    }
    bool registers = strstr(description(test), "registered memory and files") != NULL;
    if (!registers) {
        print_message("%s\n", description(test));
    }
    sl_reads_close(&test->reads);
    memset(&kernel, 0, sizeof kernel);
    test->n_log_lines = 0;
    if (!registers) {
        skip();
    }
}

/* Read some of the file into a place of the buffer, one read alone. */
static void check_read_at(fixture *test, unsigned char *destination, uint32_t i_read)
{
    sl_read read = make_read(test, i_read % 12, true);
    read.destination = destination;
    memset(destination, 0, read.length);
    test->n_done = 0;
    sl_reads_submit(&test->reads, &read);
    wait_for(test, 1);
    expect_true_bytes(test, &read);
}

static void check_read(fixture *test, uint32_t i_range, uint32_t i_read)
{
    check_read_at(test, test->buffer + (size_t)i_range * RANGE_BYTES, i_read);
}

static void a_range_is_registered_when_it_is_read_into_again(void **state)
{
    fixture *test = *state;
    skip_without_registered_memory(test);
    open_registering(test);
    for (uint32_t i_range = 0; i_range < N_RANGES; i_range++) {
        check_read(test, i_range, i_range);
    }
    assert_int_equal(kernel.n_ranges, 0);
    for (uint32_t n_again = 1; n_again <= 3; n_again++) {
        check_read(test, 2, n_again);
        assert_int_equal(kernel.n_ranges, 1);
        assert_int_equal(kernel.n_range_reads, n_again * PIECES_OF_RANGE);
    }
    check_read(test, 5, 3);
    assert_int_equal(kernel.n_ranges, 2);
    assert_int_equal(test->n_log_lines, 0);
    sl_reads_close(&test->reads);
    assert_int_equal(kernel.n_drops, 1);
}

static void only_reads_within_one_range_are_reads_into_registered_memory(void **state)
{
    fixture *test = *state;
    skip_without_registered_memory(test);
    open_registering(test);
    unsigned char *end = test->buffer + (size_t)N_RANGES * RANGE_BYTES;
    for (uint32_t i_round = 0; i_round < 3; i_round++) {
        check_read_at(test, end, i_round);
        check_read_at(test, end - 15 * BLOCK_BYTES, i_round); /* its first pieces lie in the last range */
    }
    assert_int_equal(kernel.n_ranges, 0);
    check_read(test, N_RANGES - 1, 0);
    check_read(test, N_RANGES - 1, 1);
    assert_int_equal(kernel.n_range_reads, PIECES_OF_RANGE);
    check_read_at(test, end - 10 * BLOCK_BYTES, 4); /* 4, 4 and 2 of 8 blocks more, which cross the end */
    assert_int_equal(kernel.n_range_reads, PIECES_OF_RANGE + 2);
    sl_read buffered = make_read(test, 1, false);
    buffered.destination = end - RANGE_BYTES;
    test->n_done = 0;
    sl_reads_submit(&test->reads, &buffered);
    wait_for(test, 1);
    expect_true_bytes(test, &buffered);
    assert_int_equal(kernel.n_range_reads, PIECES_OF_RANGE + 2);
}

/* The pages of the buffer are replaced by others, and nobody may read into the former ones. */
static void reads_after_memory_was_given_back_land_in_the_new_pages(void **state)
{
    fixture *test = *state;
    skip_without_registered_memory(test);
    open_registering(test);
    for (uint32_t i_round = 0; i_round < 5; i_round++) {
        for (uint32_t i_read = 0; i_read < 3 * N_RANGES; i_read++) {
            check_read(test, i_read % N_RANGES, i_read + i_round);
        }
        assert_int_equal(kernel.n_ranges, (i_round + 1) * N_RANGES);
        sl_reads_register_memory(&test->reads, false);
        check_read(test, 1, i_round); /* also in between */
        check_read(test, 1, i_round + 1);
        assert_int_equal(madvise(test->buffer, (size_t)N_RANGES * RANGE_BYTES, MADV_DONTNEED), 0);
        assert_int_equal(kernel.n_ranges, (i_round + 1) * N_RANGES);
        sl_reads_register_memory(&test->reads, true);
    }
    assert_non_null(strstr(description(test), "registered memory and files"));
    assert_int_equal(test->n_log_lines, 0);
}

/* One half of the memory is given back again and again while the other is read into. */
typedef struct giver {
    fixture *test;
    atomic_bool ending;
} giver;

static void *give_back(void *argument)
{
    giver *self = argument;
    unsigned char *half = self->test->buffer + (size_t)(N_RANGES / 2) * RANGE_BYTES;
    while (!self->ending) {
        sl_reads_register_memory(&self->test->reads, false);
        (void)madvise(half, (size_t)(N_RANGES / 2) * RANGE_BYTES, MADV_DONTNEED);
        sl_reads_register_memory(&self->test->reads, true);
        sched_yield();
    }
    return NULL;
}

static void memory_is_given_back_while_other_memory_is_read_into(void **state)
{
    fixture *test = *state;
    skip_without_registered_memory(test);
    open_registering(test);
    giver self = {.test = test};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, give_back, &self), 0);
    for (uint32_t i_round = 0; i_round < 200; i_round++) {
        sl_read reads[N_RANGES / 2];
        test->n_done = 0;
        memset(test->buffer, 0, (size_t)(N_RANGES / 2) * RANGE_BYTES);
        for (uint32_t i_read = 0; i_read < N_RANGES / 2; i_read++) {
            reads[i_read] = make_read(test, (i_round + i_read) % 12, true);
            reads[i_read].destination = test->buffer + (size_t)i_read * RANGE_BYTES;
            sl_reads_submit(&test->reads, &reads[i_read]);
        }
        wait_for(test, N_RANGES / 2);
        for (uint32_t i_read = 0; i_read < N_RANGES / 2; i_read++) {
            expect_true_bytes(test, &reads[i_read]);
        }
    }
    self.ending = true;
    pthread_join(thread, NULL);
    assert_int_equal(test->n_log_lines, 0); /* no read failed for want of its range */
}

/* Prepared for the kernel, which does not take them for a while. */
static void reads_that_are_not_submitted_yet_do_without_what_is_given_back(void **state)
{
    fixture *test = *state;
    skip_without_registered_memory(test);
    open_registering(test);
    check_read(test, 0, 0);
    check_read(test, 0, 1);
    assert_int_equal(kernel.n_range_reads, PIECES_OF_RANGE);
    kernel.submit_errno = EAGAIN;
    sl_read read = make_read(test, 2, true);
    read.destination = test->buffer;
    memset(test->buffer, 0, RANGE_BYTES);
    test->n_done = 0;
    sl_reads_submit(&test->reads, &read);
    while (kernel.n_waiting == 0 && test->n_log_lines == 0) {
        sched_yield();
    }
    sl_reads_register_memory(&test->reads, false);
    kernel.submit_errno = 0;
    wait_for(test, 1);
    expect_true_bytes(test, &read);
    assert_int_equal(kernel.n_range_reads, PIECES_OF_RANGE);
}

static void a_ring_that_was_given_up_has_nothing_registered(void **state)
{
    fixture *test = *state;
    skip_without_registered_memory(test);
    open_registering(test);
    check_read(test, 0, 0);
    check_read(test, 0, 1);
    kernel.submit_errno = EAGAIN;
    check_read(test, 0, 2); /* in the end with pread */
    assert_non_null(strstr(test->log_line, "reading goes on with pread"));
    assert_null(strstr(description(test), "registered"));
    assert_int_equal(kernel.n_drops, 1);
    for (uint32_t i_read = 0; i_read < 3; i_read++) {
        sl_reads_register_memory(&test->reads, false);
        assert_int_equal(madvise(test->buffer, RANGE_BYTES, MADV_DONTNEED), 0);
        check_read(test, 0, i_read);
        sl_reads_register_memory(&test->reads, true);
    }
}

/* Twice into each range, three times over. */
static void check_reads_without_memory(fixture *test, int system_errno)
{
    open_registering(test);
    for (uint32_t i_read = 0; i_read < 6 * N_RANGES; i_read++) {
        check_read(test, i_read / 2 % N_RANGES, i_read);
    }
    assert_non_null(strstr(description(test), ", registered files; memory is not registered"));
    assert_non_null(strstr(description(test), strerror(system_errno)));
    assert_int_equal(test->n_log_lines, 1);
    assert_non_null(strstr(test->log_line, strerror(system_errno)));
    sl_reads_register_memory(&test->reads, false);
    sl_reads_register_memory(&test->reads, true);
    check_read(test, 0, 1);
    check_read(test, 0, 2);
}

static void a_refusal_is_silent_and_is_not_asked_for_again(void **state)
{
    fixture *test = *state;
    static const int refusals[] = {EPERM, ENOMEM, EINVAL, EOPNOTSUPP};
    skip_without_registered_memory(test);
    for (size_t i_case = 0; i_case < sizeof refusals / sizeof refusals[0]; i_case++) {
        memset(&kernel, 0, sizeof kernel);
        kernel.table_errno = refusals[i_case];
        test->n_log_lines = 0;
        check_reads_without_memory(test, refusals[i_case]);
        assert_int_equal(kernel.n_tables, 1);
        assert_int_equal(kernel.n_ranges, 0);

        memset(&kernel, 0, sizeof kernel);
        kernel.range_errno = refusals[i_case];
        test->n_log_lines = 0;
        check_reads_without_memory(test, refusals[i_case]);
        assert_int_equal(kernel.n_tables, 1);
        assert_int_equal(kernel.n_ranges, 1);
        assert_int_equal(kernel.n_range_reads, 0);
    }
}

static void a_read_that_fails_for_its_range_is_done_by_its_address(void **state)
{
    fixture *test = *state;
    skip_without_registered_memory(test);
    kernel.forgets = true;
    check_reads_without_memory(test, EFAULT);
    assert_true(kernel.n_range_reads > 0 && kernel.n_range_reads <= PIECES_OF_RANGE);
}

/* Without the privilege to lock any amount of memory, and with a limit that is enough for the ring, which counts as
 * locked memory with some kernels, and less than the ranges. */
static void a_limit_of_locked_memory_is_such_a_refusal(void **state)
{
    fixture *test = *state;
    skip_without_registered_memory(test);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &before), 0);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct had[2];
    assert_int_equal(syscall(SYS_capget, &header, had), 0);
    struct __user_cap_data_struct has[2];
    memcpy(has, had, sizeof has);
    has[CAP_TO_INDEX(CAP_IPC_LOCK)].effective &= ~CAP_TO_MASK(CAP_IPC_LOCK);
    assert_int_equal(syscall(SYS_capset, &header, has), 0);
    struct rlimit small = {.rlim_cur = 4 * RANGE_BYTES < before.rlim_max ? 4 * RANGE_BYTES : before.rlim_max,
                           .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &small), 0);
    sluice_error error = {0};
    bool has_ring = sl_reads_choose(&(sl_reads_kind){SL_READS_URING}, &error) == SLUICE_OK;
    bool is_refused = false;
    if (has_ring) {
        open_registering(test);
        for (uint32_t i_read = 0; i_read < 3 * N_RANGES; i_read++) {
            check_read(test, i_read % N_RANGES, i_read);
        }
        is_refused = strstr(description(test), "memory is not registered") != NULL;
    }
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &before), 0);
    assert_int_equal(syscall(SYS_capset, &header, had), 0);
    if (!has_ring) {
        print_message("%s\n", error.message);
        skip();
    }
    assert_true(is_refused);
    assert_true(kernel.n_ranges <= N_RANGES);
}

static void a_file_is_registered_once_and_read_also_where_it_cannot_be(void **state)
{
    fixture *test = *state;
    skip_without_registered_memory(test);
    open_registering(test);
    for (uint32_t i_read = 0; i_read < 20; i_read++) {
        check_read(test, i_read % N_RANGES, i_read);
    }
    assert_int_equal(kernel.n_files, 1);
    assert_true(kernel.n_file_reads >= 20 * PIECES_OF_RANGE);
    sl_reads_close(&test->reads);
    memset(&kernel, 0, sizeof kernel);
    kernel.file_errno = EMFILE;
    open_registering(test);
    for (uint32_t i_read = 0; i_read < 20; i_read++) {
        check_read(test, i_read % N_RANGES, i_read);
    }
    assert_int_equal(kernel.n_files, 1);
    assert_int_equal(kernel.n_file_reads, 0);
    assert_int_equal(test->n_log_lines, 0);
}

/* Each has the same place in memory and the same descriptors as the one before. */
static void a_file_in_the_place_of_another_is_another(void **state)
{
    fixture *test = *state;
    skip_without_registered_memory(test);
    open_registering(test);
    check_read(test, 0, 0);
    int descriptors[2] = {test->file.descriptor, test->file.direct_descriptor};
    for (uint32_t i_file = 1; i_file < MANY_FILES; i_file++) {
        sl_file_close(&test->file);
        assert_int_equal(unlink(test->path), 0);
        for (size_t place = 0; place < FILE_BYTES; place += 1000) {
            test->bytes[place] = (unsigned char)(test->bytes[place] + i_file);
        }
        FILE *stream = fopen(test->path, "wb");
        assert_non_null(stream);
        assert_int_equal(fwrite(test->bytes, 1, FILE_BYTES, stream), FILE_BYTES);
        assert_int_equal(fclose(stream), 0);
        assert_int_equal(sl_file_open(&test->file, test->path, true, NULL), SLUICE_OK);
        assert_int_equal(test->file.descriptor, descriptors[0]);
        assert_int_equal(test->file.direct_descriptor, descriptors[1]);
        check_read(test, i_file % N_RANGES, i_file);
        check_read(test, i_file % N_RANGES, i_file + 3);
    }
    assert_int_equal(kernel.n_files, 64); /* and the others without */
}

static void the_cost_counts_the_tables(void **state)
{
    (void)state;
    sl_reads_options options = {.kind = SL_READS_URING, .n_threads = 1, .memory = {.range_bytes = RANGE_BYTES}};
    uint64_t without = sl_reads_cost_of(&options).kernel_bytes;
    options.memory.n_ranges = 1000;
    assert_true(sl_reads_cost_of(&options).kernel_bytes >= without + 1000 * sizeof(void *));
    options.memory.n_ranges = UINT32_MAX;
    assert_true(sl_reads_cost_of(&options).kernel_bytes < without + (1 << 20));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_range_is_registered_when_it_is_read_into_again),
        TEST(only_reads_within_one_range_are_reads_into_registered_memory),
        TEST(reads_after_memory_was_given_back_land_in_the_new_pages),
        TEST(memory_is_given_back_while_other_memory_is_read_into),
        TEST(reads_that_are_not_submitted_yet_do_without_what_is_given_back),
        TEST(a_ring_that_was_given_up_has_nothing_registered),
        TEST(a_refusal_is_silent_and_is_not_asked_for_again),
        TEST(a_read_that_fails_for_its_range_is_done_by_its_address),
        TEST(a_limit_of_locked_memory_is_such_a_refusal),
        TEST(a_file_is_registered_once_and_read_also_where_it_cannot_be),
        TEST(a_file_in_the_place_of_another_is_another),
        cmocka_unit_test(the_cost_counts_the_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
