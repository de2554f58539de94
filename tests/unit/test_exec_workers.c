/* The worker pool: every worker runs every task once, and what tasks write is visible afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
/* cmocka.h needs setjmp, stdarg, stddef and stdint. */
#include <cmocka.h>

#include "exec/workers.h"

#include <stdbool.h>

enum { MAXIMUM_WORKERS = 8, N_UNITS = 1000 };

typedef struct shared {
    uint32_t runs[MAXIMUM_WORKERS]; /* written by its worker alone */
    uint32_t units[N_UNITS];        /* each written by the worker that owns it */
} shared;

static void count_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    shared *work = argument;
    uint32_t begin = 0;
    uint32_t end = 0;
    work->runs[worker]++;
    sl_workers_share(N_UNITS, 16, worker, n_workers, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        work->units[i]++;
    }
}

static void run_many(uint32_t n_workers, uint32_t n_runs, bool let_them_sleep)
{
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_workers *workers = NULL;
    assert_int_equal(sl_workers_open(&workers, n_workers, &memory, NULL), SLUICE_OK);
    assert_int_equal(memory.total_bytes, sl_workers_cost(n_workers));
    shared work = {0};
    for (uint32_t run = 0; run < n_runs; run++) {
        if (let_them_sleep) {
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        }
        sl_workers_run(workers, count_task, &work);
    }
    for (uint32_t i = 0; i < n_workers; i++) {
        assert_int_equal(work.runs[i], n_runs);
    }
    for (uint32_t i = 0; i < N_UNITS; i++) {
        assert_int_equal(work.units[i], n_runs);
    }
    sl_workers_close(&workers);
    assert_null(workers);
    assert_int_equal(memory.total_bytes, 0);
}

static void one_worker_is_the_caller(void **state)
{
    (void)state;
    run_many(1, 100, false);
}

static void every_unit_is_done_once_per_run(void **state)
{
    (void)state;
    run_many(2, 5000, false);
    run_many(3, 2000, false);
}

static void more_workers_than_cores_make_progress(void **state)
{
    (void)state;
    run_many(MAXIMUM_WORKERS, 300, false);
}

static void workers_that_fell_asleep_wake_up(void **state)
{
    (void)state;
    run_many(3, 30, true);
}

static void shares_cover_everything_once(void **state)
{
    (void)state;
    for (uint32_t count = 0; count < 70; count++) {
        for (uint32_t n_workers = 1; n_workers <= 9; n_workers++) {
            uint32_t next = 0;
            for (uint32_t worker = 0; worker < n_workers; worker++) {
                uint32_t begin = 0;
                uint32_t end = 0;
                sl_workers_share(count, 16, worker, n_workers, &begin, &end);
                assert_int_equal(begin, next < count ? next : count);
                assert_true(end >= begin && (begin % 16 == 0 || begin == count));
                next = end;
            }
            assert_int_equal(next, count);
        }
    }
}

typedef struct uneven_work {
    sl_workers *workers;
    sl_units units;
    uint32_t idle_worker; /* takes none */
    uint32_t runs[N_UNITS];
} uneven_work;

static void take_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    uneven_work *work = argument;
    uint32_t begin = 0;
    uint32_t end = 0;
    if (n_workers > 1 && worker == work->idle_worker) {
        return;
    }
    while (sl_workers_next(work->workers, &work->units, worker, &begin, &end)) {
        assert_true(begin < end && end <= work->units.count && end - begin <= work->units.most);
        assert_int_equal(begin / work->units.span, (end - 1) / work->units.span);
        for (uint32_t unit = begin; unit < end; unit++) {
            work->runs[unit]++;
        }
    }
}

static void units_are_given_out_once_even_when_a_worker_takes_none(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    for (uint32_t n_workers = 1; n_workers <= 4; n_workers++) {
        uneven_work work = {.idle_worker = n_workers};
        assert_int_equal(sl_workers_open(&work.workers, n_workers, &memory, NULL), SLUICE_OK);
        static const uint32_t counts[] = {0, 1, 3, 17, N_UNITS};
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            for (uint32_t run = 1; run <= 50; run++) {
                work.units = (sl_units){.count = counts[c], .span = run % 2 == 0 ? UINT32_MAX : 5, .most = 1 + run % 7};
                work.idle_worker = run % (n_workers + 1);
                sl_workers_run(work.workers, take_task, &work);
            }
            for (uint32_t i = 0; i < N_UNITS; i++) {
                assert_int_equal(work.runs[i], i < counts[c] ? 50 : 0);
                work.runs[i] = 0;
            }
        }
        sl_workers_close(&work.workers);
    }
}

typedef struct halving_work {
    sl_workers *workers;
    uint32_t n_runs;
    uint32_t lengths[16];
} halving_work;

static void take_alone_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    halving_work *work = argument;
    const sl_units units = {.count = 16, .span = 16, .most = UINT32_MAX};
    uint32_t begin = 0;
    uint32_t end = 0;
    (void)n_workers;
    while (worker == 0 && sl_workers_next(work->workers, &units, worker, &begin, &end)) {
        work->lengths[work->n_runs++] = end - begin;
    }
}

static void a_worker_takes_half_of_what_is_left_of_a_share(void **state)
{
    (void)state;
    static const uint32_t expected[] = {4, 2, 1, 1, 4, 2, 1, 1}; /* its own eight, then the other worker's */
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    halving_work work = {0};
    assert_int_equal(sl_workers_open(&work.workers, 2, &memory, NULL), SLUICE_OK);
    sl_workers_run(work.workers, take_alone_task, &work);
    assert_int_equal(work.n_runs, sizeof expected / sizeof expected[0]);
    assert_memory_equal(work.lengths, expected, sizeof expected);
    sl_workers_close(&work.workers);
}

static void an_impossible_number_of_workers_is_refused(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_workers *workers = NULL;
    sluice_error error;
    assert_int_equal(sl_workers_open(&workers, 0, &memory, &error), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sl_workers_open(&workers, 100000, &memory, &error), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(memory.total_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_worker_is_the_caller),
        cmocka_unit_test(every_unit_is_done_once_per_run),
        cmocka_unit_test(more_workers_than_cores_make_progress),
        cmocka_unit_test(workers_that_fell_asleep_wake_up),
        cmocka_unit_test(shares_cover_everything_once),
        cmocka_unit_test(units_are_given_out_once_even_when_a_worker_takes_none),
        cmocka_unit_test(a_worker_takes_half_of_what_is_left_of_a_share),
        cmocka_unit_test(an_impossible_number_of_workers_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
