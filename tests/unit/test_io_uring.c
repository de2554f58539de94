/* What the read engine does when the kernel refuses its io_uring, at once or later. */
#include "reads_fixture.h"

#include <limits.h>
#include <liburing.h>

/* How the kernel behaves. thread: changed while no engine is open or while its reader sleeps. */
static int set_up_errno;     /* of every set-up; 0: none */
static unsigned known_flags; /* set-up flags that this kernel knows; others are EINVAL */
static int submit_errno;     /* of the refused submissions */
static unsigned n_taken;     /* submissions before the first refused one */
static unsigned n_refused;   /* how many are refused then */
static unsigned n_submissions;

int __real_io_uring_queue_init_params(unsigned n_entries, struct io_uring *ring, struct io_uring_params *parameters);
int __wrap_io_uring_queue_init_params(unsigned n_entries, struct io_uring *ring, struct io_uring_params *parameters);
int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned n_wanted);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned n_wanted);

int __wrap_io_uring_queue_init_params(unsigned n_entries, struct io_uring *ring, struct io_uring_params *parameters)
{
    if (set_up_errno != 0) {
        return -set_up_errno;
    }
    if ((parameters->flags & ~known_flags) != 0) {
        return -EINVAL;
    }
    return __real_io_uring_queue_init_params(n_entries, ring, parameters);
}

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned n_wanted)
{
    unsigned number = __atomic_fetch_add(&n_submissions, 1, __ATOMIC_RELAXED);
    if (number >= n_taken && number - n_taken < n_refused) {
        return -submit_errno;
    }
    return __real_io_uring_submit_and_wait(ring, n_wanted);
}

static int set_up(void **state)
{
    set_up_errno = 0;
    known_flags = UINT_MAX;
    n_taken = 0;
    n_refused = 0;
    n_submissions = 0;
    return open_fixture(state);
}

static void skip_without_uring(void)
{
    sluice_error error = {0};
    if (sl_reads_choose(&(sl_reads_kind){SL_READS_URING}, &error) != SLUICE_OK) {
        print_message("%s\n", error.message);
        skip();
    }
}

static sl_reads_options options_of(sl_reads_kind kind)
{
    return (sl_reads_options){.kind = kind, .n_threads = 2, .depth = 6, .piece_bytes = 4 * BLOCK_BYTES};
}

static void check_reads(fixture *test)
{
    sl_read reads[N_READS];
    memset(test->buffer, 0, (size_t)N_READS * 16 * BLOCK_BYTES);
    test->n_done = 0;
    for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
        reads[i_read] = make_read(test, i_read, true);
        sl_reads_submit(&test->reads, &reads[i_read]);
    }
    wait_for(test, N_READS);
    for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
        expect_true_bytes(test, &reads[i_read]);
    }
}

/* Wanted: refused with the reason. Automatic: read threads, and the reason in the description. */
static void expect_fallback(fixture *test, int system_errno)
{
    sluice_error error = {0};
    sl_reads_options options = options_of(SL_READS_URING);
    for (int i_kind = SL_READS_AUTO; i_kind <= SL_READS_PREAD; i_kind++) {
        sl_reads_kind kind = (sl_reads_kind)i_kind;
        memset(&error, 0, sizeof error);
        assert_int_equal(sl_reads_choose(&kind, &error), kind == SL_READS_URING ? SLUICE_ERROR_UNSUPPORTED : SLUICE_OK);
        assert_true((kind == SL_READS_URING) == (i_kind == SL_READS_URING));
        assert_int_equal(error.system_errno, i_kind == SL_READS_PREAD ? 0 : system_errno);
    }
    memset(&error, 0, sizeof error);
    assert_int_equal(sl_reads_open(&test->reads, &options, &test->memory, NULL, on_done, test, &error),
                     SLUICE_ERROR_UNSUPPORTED);
    assert_int_equal(error.system_errno, system_errno);
    assert_non_null(strstr(error.message, strerror(system_errno)));
    assert_non_null(strstr(error.message, "use --io pread"));
    assert_int_equal(test->memory.total_bytes, 0);
    open_reads(test, options_of(SL_READS_AUTO));
    char text[300];
    sl_reads_describe_backend(&test->reads, text, sizeof text);
    assert_non_null(strstr(text, "pread, 2 threads"));
    assert_non_null(strstr(text, strerror(system_errno)));
    check_reads(test);
    sl_reads_close(&test->reads);
}

static void a_refused_set_up_is_said_and_automatic_reads_fall_back(void **state)
{
    static const int refusals[] = {EPERM, ENOSYS, ENOMEM, EMFILE};
    for (size_t i_case = 0; i_case < sizeof refusals / sizeof refusals[0]; i_case++) {
        set_up_errno = refusals[i_case];
        expect_fallback(*state, refusals[i_case]);
    }
}

static void a_ring_that_cannot_read_counts_as_none(void **state)
{
    skip_without_uring();
    submit_errno = EACCES;
    n_taken = 0;
    n_refused = UINT_MAX;
    expect_fallback(*state, EACCES);
}

static void older_kernels_get_fewer_flags(void **state)
{
    skip_without_uring();
    fixture *test = *state;
    static const unsigned flags[] = {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL, 0};
    for (size_t i_case = 0; i_case < sizeof flags / sizeof flags[0]; i_case++) {
        known_flags = flags[i_case];
        open_reads(test, options_of(SL_READS_URING));
        check_reads(test);
    }
    sl_reads_close(&test->reads);
}

static void automatic_reads_use_the_ring_where_there_is_one(void **state)
{
    skip_without_uring();
    fixture *test = *state;
    sl_reads_options options = options_of(SL_READS_AUTO);
    open_reads(test, options);
    assert_string_equal(test->reads.backend->name, "uring");
    assert_int_equal(test->memory.bytes[SL_MEMORY_IO], sl_reads_cost_of(&options).account_bytes);
    check_reads(test);
}

static void submissions_that_are_refused_for_a_while_are_repeated(void **state)
{
    skip_without_uring();
    fixture *test = *state;
    static const int refusals[] = {EAGAIN, EBUSY, EINTR, ENOMEM};
    for (unsigned i_case = 0; i_case < 8; i_case++) {
        submit_errno = refusals[i_case % 4];
        n_submissions = 0;
        n_taken = 1 + i_case; /* the first belongs to the set-up */
        n_refused = 5;
        open_reads(test, options_of(SL_READS_URING));
        check_reads(test);
        sl_reads_close(&test->reads);
    }
    assert_int_equal(test->n_log_lines, 0);
}

static void a_ring_that_stops_taking_reads_is_replaced_and_logged(void **state)
{
    skip_without_uring();
    fixture *test = *state;
    for (uint32_t i_case = 0; i_case < 5; i_case++) {
        submit_errno = EAGAIN;
        n_submissions = 0;
        n_taken = 1 + i_case * i_case;
        n_refused = UINT_MAX / 2;
        open_reads(test, options_of(SL_READS_URING));
        check_reads(test);
        check_reads(test);
        assert_int_equal(test->n_log_lines, i_case + 1);
        assert_non_null(strstr(test->log_line, "reading goes on with pread"));
        assert_non_null(strstr(test->log_line, strerror(EAGAIN)));
        sl_reads_close(&test->reads);
    }
}

static void closing_a_ring_that_was_given_up_waits_for_its_reads(void **state)
{
    skip_without_uring();
    fixture *test = *state;
    submit_errno = EAGAIN;
    n_taken = 2;
    n_refused = UINT_MAX / 2;
    open_reads(test, options_of(SL_READS_URING));
    sl_read reads[N_READS];
    for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
        reads[i_read] = make_read(test, i_read, true);
        sl_reads_submit(&test->reads, &reads[i_read]);
    }
    sl_reads_close(&test->reads);
    assert_int_equal(test->n_done, N_READS);
    for (uint32_t i_read = 0; i_read < N_READS; i_read++) {
        expect_true_bytes(test, &reads[i_read]);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_refused_set_up_is_said_and_automatic_reads_fall_back),
        TEST(a_ring_that_cannot_read_counts_as_none),
        TEST(older_kernels_get_fewer_flags),
        TEST(automatic_reads_use_the_ring_where_there_is_one),
        TEST(submissions_that_are_refused_for_a_while_are_repeated),
        TEST(a_ring_that_stops_taking_reads_is_replaced_and_logged),
        TEST(closing_a_ring_that_was_given_up_waits_for_its_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
