/* Owns the worker threads.
 *
 * Invariants
 *  (1) `generation` changes only in sl_workers_run and close, by the caller, after task and argument were written;
 *      a worker reads them only after it saw the new generation (release and acquire on `generation`).
 *  (2) `n_running` is set to the number of threads before the generation changes and reaches 0 exactly once per
 *      generation; the caller returns only then, so no thread still uses the old task (release and acquire on
 *      `n_running`).
 *  (3) A thread that sleeps did announce itself in `n_sleeping` before it looked at the generation for the last
 *      time, so the caller, which changes the generation before it looks at `n_sleeping`, cannot miss it (both
 *      sequentially consistent). The same holds the other way round for `caller_sleeps` and `n_running`.
 *  (4) `n_taken` of every worker is 0 when a generation begins; whoever adds to it owns the units that it counted.
 *
 * States of a thread: SPINNING -> RUNNING (new generation) -> SPINNING; SPINNING -> SLEEPING (spun for a while) ->
 * RUNNING. Threads spin for some tens of microseconds first: a token needs hundreds of meetings, and waking a thread
 * through the kernel costs more than most of the work between two of them. */
#include "exec/workers.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/thread.h"

enum { SPINS = 2000, MAXIMUM_WORKERS = 256 };

typedef struct worker {
    sl_thread thread;
    struct sl_workers *workers; /* borrowed: the pool joins the thread */
    uint32_t index;
} worker;

/* On a line of its own: mostly its worker alone counts. */
typedef struct share {
    _Alignas(64) _Atomic uint32_t n_taken; /* units that were given out of this worker's share */
} share;

struct sl_workers {
    sl_memory *memory; /* borrowed: outlives the pool */
    worker *threads;   /* owned; [n_workers - 1] */
    share *shares;     /* owned; [n_workers] */
    uint32_t n_workers;
    uint32_t n_started;
    sl_worker_task *task; /* guarded by: invariant 1 */
    void *argument;       /* guarded by: invariant 1 */
    bool stop;            /* guarded by: invariant 1 */
    _Alignas(64) _Atomic uint32_t generation;
    _Alignas(64) _Atomic uint32_t n_running;
    _Alignas(64) _Atomic uint32_t n_sleeping;
    _Atomic uint32_t caller_sleeps;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void wait_for_generation_after(sl_workers *workers, uint32_t seen)
{
    for (uint32_t i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&workers->generation, memory_order_acquire) != seen) {
            return;
        }
        sl_thread_relax();
    }
    atomic_fetch_add(&workers->n_sleeping, 1);
    while (atomic_load(&workers->generation) == seen) {
        futex_wait(&workers->generation, seen);
    }
    atomic_fetch_sub(&workers->n_sleeping, 1);
}

static void *worker_main(void *argument)
{
    worker *self = argument;
    sl_workers *workers = self->workers;
    uint32_t seen = 0;
    for (;;) {
        wait_for_generation_after(workers, seen);
        seen++;
        if (workers->stop) {
            return NULL;
        }
        workers->task(workers->argument, self->index, workers->n_workers);
        if (atomic_fetch_sub(&workers->n_running, 1) == 1 && atomic_load(&workers->caller_sleeps) != 0) {
            futex_wake_all(&workers->n_running);
        }
    }
}

static void begin_shares(sl_workers *workers)
{
    for (uint32_t i = 0; i < workers->n_workers; i++) {
        atomic_store_explicit(&workers->shares[i].n_taken, 0, memory_order_relaxed);
    }
}

static void publish(sl_workers *workers)
{
    begin_shares(workers);
    atomic_store_explicit(&workers->n_running, workers->n_started, memory_order_relaxed);
    atomic_fetch_add(&workers->generation, 1);
    if (atomic_load(&workers->n_sleeping) > 0) {
        futex_wake_all(&workers->generation);
    }
}

static void wait_for_workers(sl_workers *workers)
{
    for (uint32_t i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&workers->n_running, memory_order_acquire) == 0) {
            return;
        }
        sl_thread_relax();
    }
    atomic_store(&workers->caller_sleeps, 1);
    for (uint32_t n_running = atomic_load(&workers->n_running); n_running != 0;
         n_running = atomic_load(&workers->n_running)) {
        futex_wait(&workers->n_running, n_running);
    }
    atomic_store(&workers->caller_sleeps, 0);
}

void sl_workers_run(sl_workers *workers, sl_worker_task *task, void *argument)
{
    if (workers->n_workers == 1) {
        begin_shares(workers);
        task(argument, 0, 1);
        return;
    }
    workers->task = task;
    workers->argument = argument;
    publish(workers);
    task(argument, 0, workers->n_workers);
    wait_for_workers(workers);
}

/* How many of the units from `first` to `last`, all that is left of a share, are taken at once. */
static uint32_t count_taken(const sl_workers *workers, const sl_units *units, uint32_t first, uint32_t last)
{
    uint32_t half = workers->n_workers == 1 ? last - first : (last - first + 1) / 2;
    uint32_t to_span = units->span - first % units->span;
    uint32_t count = half < to_span ? half : to_span;
    return count < units->most ? count : units->most;
}

bool sl_workers_next(sl_workers *workers, const sl_units *units, uint32_t caller, uint32_t *begin, uint32_t *end)
{
    for (uint32_t i = 0; i < workers->n_workers; i++) {
        uint32_t owner = (caller + i) % workers->n_workers;
        uint32_t first = 0;
        uint32_t last = 0;
        sl_workers_share(units->count, 1, owner, workers->n_workers, &first, &last);
        _Atomic uint32_t *n_taken = &workers->shares[owner].n_taken;
        uint32_t taken = atomic_load_explicit(n_taken, memory_order_relaxed);
        while (taken < last - first) {
            uint32_t count = count_taken(workers, units, first + taken, last);
            if (atomic_compare_exchange_weak_explicit(n_taken, &taken, taken + count, memory_order_relaxed,
                                                      memory_order_relaxed)) {
                *begin = first + taken;
                *end = *begin + count;
                return true;
            }
        }
    }
    return false;
}

sluice_status sl_workers_open(sl_workers **out, uint32_t n_workers, sl_memory *memory, sluice_error *error)
{
    *out = NULL;
    if (n_workers == 0 || n_workers > MAXIMUM_WORKERS) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%u threads: expected 1 to %d", n_workers, MAXIMUM_WORKERS);
    }
    sl_workers *workers = sl_alloc_aligned(memory, SL_MEMORY_OTHER, sizeof *workers, 64);
    worker *threads = sl_alloc(memory, SL_MEMORY_OTHER, n_workers, sizeof *threads);
    share *shares = sl_alloc_aligned(memory, SL_MEMORY_OTHER, n_workers * sizeof *shares, 64);
    if (workers == NULL || threads == NULL || shares == NULL) {
        sl_free(memory, shares);
        sl_free(memory, threads);
        sl_free(memory, workers);
        return sl_error_no_memory(error, sizeof *workers + n_workers * (sizeof *threads + sizeof *shares),
                                  "the worker threads");
    }
    *workers = (sl_workers){.memory = memory, .threads = threads, .shares = shares, .n_workers = n_workers};
    sluice_status status = SLUICE_OK;
    for (uint32_t i = 0; i + 1 < n_workers && status == SLUICE_OK; i++) {
        threads[i] = (worker){.workers = workers, .index = i + 1};
        status = sl_thread_start(&threads[i].thread, "sluice-compute", worker_main, &threads[i], error);
        workers->n_started += status == SLUICE_OK;
    }
    if (status != SLUICE_OK) {
        sl_workers_close(&workers);
        return status;
    }
    *out = workers;
    return SLUICE_OK;
}

void sl_workers_close(sl_workers **workers)
{
    sl_workers *closing = *workers;
    if (closing == NULL) {
        return;
    }
    closing->stop = true;
    publish(closing);
    for (uint32_t i = 0; i < closing->n_started; i++) {
        sl_thread_join(&closing->threads[i].thread);
    }
    sl_free(closing->memory, closing->shares);
    sl_free(closing->memory, closing->threads);
    sl_free(closing->memory, closing);
    *workers = NULL;
}

uint32_t sl_workers_count(const sl_workers *workers)
{
    return workers->n_workers;
}

uint64_t sl_workers_cost(uint32_t n_workers)
{
    return sl_memory_cost(sizeof(sl_workers), 64) + sl_memory_cost(n_workers * sizeof(worker), 16) +
           sl_memory_cost(n_workers * sizeof(share), 64);
}
