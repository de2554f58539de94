/* Owns the reading threads and the lanes they take reads from.
 *
 * Invariants
 *  (1) A read is in exactly one place: in a lane, with one thread, or with its owner; `next` links the lane only.
 *  (2) Reads leave a lane in the order they entered it, and devices take turns. A lane has no bound and needs no
 *      memory: its links are in the reads.
 *  (3) on_done is called without the lock, exactly once per read, after the thread's last access to the read.
 *  (4) A read is reported OK only when `required` bytes came from the file, and the file still had the size and the
 *      modification time of its opening after they came.
 *  (5) A thread ends only when the pool is closing and the lanes are empty, so a read that is submitted from on_done
 *      while the pool closes is still done.
 *  (6) Buffered reads leave nothing in the page cache.
 *  (7) n_in_flight of a lane is the number of threads that are reading for it. A read that no idle thread may take,
 *      because these are kept for other devices, is taken by the first of its own that is done.
 *
 * Life of a read:  QUEUED [pool_submit] -> TAKEN [take_read] -> reading [perform] -> reported [run].
 * Threads: everything below "guarded" belongs to whoever holds the lock; the rest never changes after open. No lock of
 * a caller is needed; a caller may hold its own while it submits. */
#include <stdio.h>

#include "io/backends.h"
#include "io/lanes.h"
#include "os/thread.h"

typedef struct pread_pool {
    sl_memory *memory; /* borrowed */
    void (*on_done)(void *user, sl_read *read);
    void *user; /* borrowed */
    sl_refusals refusals;
    pthread_mutex_t lock;
    pthread_cond_t work_arrived;

    /* Guarded by `lock`. */
    sl_lanes lanes;
    bool closing;

    uint32_t n_threads; /* running */
    sl_thread threads[];
} pread_pool;

/* Sleep until there is a read that this thread may take; NULL when the thread should end. `*lane` is that of the read it
 * did before, or NULL, and then that of the next. */
static sl_read *take_read(pread_pool *pool, sl_lane **lane)
{
    pthread_mutex_lock(&pool->lock);
    if (*lane != NULL) {
        (*lane)->n_in_flight--;
    }
    *lane = sl_lanes_next(&pool->lanes);
    while (*lane == NULL && !(pool->closing && sl_lanes_are_empty(&pool->lanes))) {
        pthread_cond_wait(&pool->work_arrived, &pool->lock);
        *lane = sl_lanes_next(&pool->lanes);
    }
    sl_read *read = NULL;
    if (*lane != NULL) {
        read = sl_lane_take(*lane);
        (*lane)->n_in_flight++;
    } else {
        pthread_cond_broadcast(&pool->work_arrived); /* to those that wait for a full lane, which is empty now */
    }
    pthread_mutex_unlock(&pool->lock);
    return read;
}

static void *run(void *argument)
{
    pread_pool *pool = argument;
    sl_lane *lane = NULL;
    for (sl_read *read = take_read(pool, &lane); read != NULL; read = take_read(pool, &lane)) {
        sl_read_perform(read, &pool->refusals);
        pool->on_done(pool->user, read);
    }
    return NULL;
}

static void pool_submit(void *self, sl_read *read)
{
    pread_pool *pool = self;
    sl_read_begin(read);
    pthread_mutex_lock(&pool->lock);
    sl_lanes_add(&pool->lanes, read);
    pthread_cond_signal(&pool->work_arrived);
    pthread_mutex_unlock(&pool->lock);
}

static void pool_perform(void *self, sl_read *read)
{
    pread_pool *pool = self;
    sl_read_begin(read);
    sl_read_perform(read, &pool->refusals);
    pool->on_done(pool->user, read);
}

static void pool_redirect(void *self, void (*on_done)(void *user, sl_read *read), void *user)
{
    pread_pool *pool = self;
    pool->on_done = on_done;
    pool->user = user;
}

static void pool_close(void *self)
{
    pread_pool *pool = self;
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->work_arrived);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i_thread = 0; i_thread < pool->n_threads; i_thread++) {
        sl_thread_join(&pool->threads[i_thread]);
    }
    pthread_cond_destroy(&pool->work_arrived);
    pthread_mutex_destroy(&pool->lock);
    sl_free(pool->memory, pool);
}

static void pool_describe(void *self, char *text, size_t capacity)
{
    const pread_pool *pool = self;
    snprintf(text, capacity, "pread, %u threads", pool->n_threads);
}

static const sl_reads_backend pread_backend = {.name = "pread",
                                               .submit = pool_submit,
                                               .perform = pool_perform,
                                               .redirect = pool_redirect,
                                               .describe = pool_describe,
                                               .close = pool_close};

static size_t pool_bytes(uint32_t n_threads)
{
    return sizeof(pread_pool) + (size_t)n_threads * sizeof(sl_thread);
}

sl_reads_cost sl_reads_pread_cost(const sl_reads_options *options)
{
    return (sl_reads_cost){.account_bytes = sl_memory_cost(pool_bytes(options->n_threads), 16),
                           .n_threads = options->n_threads};
}

static sluice_status init_locks(pread_pool *pool, sluice_error *error)
{
    int failed = pthread_mutex_init(&pool->lock, NULL);
    if (failed == 0) {
        failed = pthread_cond_init(&pool->work_arrived, NULL);
        if (failed != 0) {
            pthread_mutex_destroy(&pool->lock);
        }
    }
    if (failed != 0) {
        return sl_error_set_system(error, SLUICE_ERROR_SYSTEM, failed, "cannot set up the lock of the read threads");
    }
    return SLUICE_OK;
}

sluice_status sl_reads_open_pread(sl_reads *reads, const sl_reads_options *options, sl_memory *memory,
                                  const sl_log *log, void (*on_done)(void *user, sl_read *read), void *user,
                                  sluice_error *error)
{
    uint32_t n_threads = options->n_threads;
    pread_pool *pool = sl_alloc(memory, SL_MEMORY_IO, 1, pool_bytes(n_threads));
    if (pool == NULL) {
        return sl_error_no_memory(error, pool_bytes(n_threads), "the read threads");
    }
    pool->memory = memory;
    sl_lanes_init(&pool->lanes, n_threads);
    pool->refusals.log = log;
    pool->refusals.from_cache = options->from_cache;
    pool->on_done = on_done;
    pool->user = user;
    sluice_status status = init_locks(pool, error);
    if (status != SLUICE_OK) {
        sl_free(memory, pool);
        return status;
    }
    while (status == SLUICE_OK && pool->n_threads < n_threads) {
        status = sl_thread_start(&pool->threads[pool->n_threads], "sluice-read", run, pool, error);
        if (status == SLUICE_OK) {
            pool->n_threads++;
        }
    }
    if (status != SLUICE_OK) {
        pool_close(pool);
        return status;
    }
    *reads = (sl_reads){.backend = &pread_backend, .self = pool, .on_done = on_done, .user = user};
    return SLUICE_OK;
}
