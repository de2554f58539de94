/* An io_uring that is full: its n-th submission is refused, and some after it, for every n until the evaluation makes
 * no n-th submission. Reading goes on and nobody notices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <errno.h>
#include <liburing.h>

#include "session_faults.h"

static const engine_run with_uring = {
    .model_path = "tests/golden/models/qwen3moe.gguf", .prefetch = "none", .io = "uring"};

static uint64_t n_submissions; /* atomic access, as the others */
static uint64_t first_refused; /* counted from 1; 0: none */
static uint64_t n_refused;
static int refusal;

int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned n_wanted);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned n_wanted);

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned n_wanted)
{
    uint64_t number = __atomic_add_fetch(&n_submissions, 1, __ATOMIC_RELAXED);
    uint64_t first = __atomic_load_n(&first_refused, __ATOMIC_RELAXED);
    if (first != 0 && number >= first && number - first < __atomic_load_n(&n_refused, __ATOMIC_RELAXED)) {
        return -__atomic_load_n(&refusal, __ATOMIC_RELAXED);
    }
    return __real_io_uring_submit_and_wait(ring, n_wanted);
}

/* Refuse `count` submissions from the n-th on. */
static void plan_refusals(uint64_t n, uint64_t count, int error)
{
    __atomic_store_n(&refusal, error, __ATOMIC_RELAXED);
    __atomic_store_n(&n_refused, count, __ATOMIC_RELAXED);
    __atomic_store_n(&first_refused, n == 0 ? 0 : __atomic_load_n(&n_submissions, __ATOMIC_RELAXED) + n,
                     __ATOMIC_RELAXED);
}

static int refuse_nothing(void **state)
{
    (void)state;
    plan_refusals(0, 0, 0);
    return 0;
}

static bool has_uring(void)
{
    sluice_error error = {0};
    if (sl_reads_choose(&(sl_reads_kind){SL_READS_URING}, &error) != SLUICE_OK) {
        print_message("%s\n", error.message);
        return false;
    }
    return true;
}

static void a_full_ring_is_waited_for(void **state)
{
    (void)state;
    if (!has_uring()) {
        skip();
    }
    static const int refusals[] = {EAGAIN, EBUSY};
    subject test = {0};
    open_subject(&test, &with_uring, 0);
    uint64_t n = 1;
    for (bool reached = true; reached; n++) {
        plan_refusals(n, 2, refusals[n % 2]);
        check_recovery(&test, true);
        reached = __atomic_load_n(&n_submissions, __ATOMIC_RELAXED) >= first_refused;
    }
    assert_true(n > 20);
    close_subject(&test);
}

static void a_ring_that_stays_full_is_done_without(void **state)
{
    (void)state;
    if (!has_uring()) {
        skip();
    }
    for (uint64_t n = 1; n <= 13; n += 4) {
        subject test = {0};
        plan_refusals(0, 0, 0);
        open_subject(&test, &with_uring, 0);
        plan_refusals(n, UINT64_MAX, EBUSY);
        check_recovery(&test, true);
        assert_true(__atomic_load_n(&n_submissions, __ATOMIC_RELAXED) >= first_refused);
        check_recovery(&test, true);
        close_subject(&test);
    }
}

#define RING_TEST(name) cmocka_unit_test_setup(name, refuse_nothing)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RING_TEST(a_full_ring_is_waited_for),
        RING_TEST(a_ring_that_stays_full_is_done_without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
