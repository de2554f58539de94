/* The compute workers: a fixed set of threads that run one task together and meet at its end. */
#ifndef SL_EXEC_WORKERS_H
#define SL_EXEC_WORKERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/memory.h"

typedef struct sl_workers sl_workers;

/* `worker` counts from 0, which is the calling thread, to n_workers - 1. */
typedef void sl_worker_task(void *argument, uint32_t worker, uint32_t n_workers);

/* Start n_workers - 1 threads (n_workers from 1 to 256). On failure nothing stays. */
SLUICE_NODISCARD sluice_status sl_workers_open(sl_workers **out, uint32_t n_workers, sl_memory *memory,
                                               sluice_error *error);
void sl_workers_close(sl_workers **workers);

/* Bytes that sl_workers_open takes from the account, under OTHER; stacks are not in it. */
uint64_t sl_workers_cost(uint32_t n_workers);

uint32_t sl_workers_count(const sl_workers *workers);

/* Run the task on every worker, the caller included, and return when all are done. thread: one caller at a time.
 * Allocates nothing and takes no lock. What the caller wrote before is visible to the task, what the task wrote is
 * visible after. */
void sl_workers_run(sl_workers *workers, sl_worker_task *task, void *argument);

/* How units are given out: at most `most` at once, and never beyond a multiple of `span`. */
typedef struct sl_units {
    uint32_t count;
    uint32_t span;
    uint32_t most;
} sl_units;

/* The next units for this worker, [begin, end), within a task: first of its own share, in order, then of what is left of
 * the others' shares; half of what is left of a share, so that few are taken one by one and all workers end together. Every
 * unit is given out once in a run; false when none is left. A task that uses it does so on every worker, with the same
 * `units`, and only once in a run. */
bool sl_workers_next(sl_workers *workers, const sl_units *units, uint32_t worker, uint32_t *begin, uint32_t *end);

/* The half-open range of `count` units that a worker owns: contiguous, in multiples of `grain` but for the last. */
static inline void sl_workers_share(uint32_t count, uint32_t grain, uint32_t worker, uint32_t n_workers,
                                    uint32_t *begin, uint32_t *end)
{
    uint64_t n_grains = ((uint64_t)count + grain - 1) / grain;
    uint64_t first = n_grains * worker / n_workers * grain;
    uint64_t last = n_grains * (worker + 1) / n_workers * grain;
    *begin = (uint32_t)(first < count ? first : count);
    *end = (uint32_t)(last < count ? last : count);
}

#endif
