/* Owns the reading threads and the queue they take reads from.
 *
 * Invariants
 *  (1) A read is in exactly one place: in the queue, with one thread, or with its owner; `next` links the queue only.
 *  (2) Reads leave the queue in the order they entered it. The queue has no bound and needs no memory: its links are in
 *      the reads.
 *  (3) on_done is called without the lock, exactly once per read, after the thread's last access to the read.
 *  (4) A read is reported OK only when `required` bytes came from the file, and the file still had the size and the
 *      modification time of its opening after they came.
 *  (5) A thread ends only when the pool is closing and the queue is empty, so a read that is submitted from on_done
 *      while the pool closes is still done.
 *  (6) Buffered reads leave nothing in the page cache.
 *
 * Life of a read:  QUEUED [pool_submit] -> TAKEN [take_read] -> reading [perform] -> reported [run].
 * Threads: everything below "guarded" belongs to whoever holds the lock; the rest never changes after open. No lock of
 * a caller is needed; a caller may hold its own while it submits. */
#include "io/reads.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/clock.h"
#include "os/thread.h"

/* One system call moves at most this much; a multiple of every alignment. */
static const uint64_t max_transfer_bytes = (uint64_t)1 << 30;

typedef struct pread_pool {
    sl_memory *memory; /* borrowed */
    void (*on_done)(void *user, sl_read *read);
    void *user; /* borrowed */
    pthread_mutex_t lock;
    pthread_cond_t work_arrived;

    /* Guarded by `lock`. */
    sl_read *first; /* borrowed; oldest of the queue */
    sl_read *last;  /* borrowed */
    bool closing;

    uint32_t n_threads; /* running */
    sl_thread threads[];
} pread_pool;

/* Read on from `read->bytes_read` until `required` bytes are there or the file ends. Returns the errno that stopped it,
 * or 0. A direct read that stopped at an odd place, as at the end of a file, cannot go on directly: EINVAL. */
static int read_on(sl_read *read, int descriptor)
{
    while (read->bytes_read < read->required) {
        uint64_t wanted = read->length - read->bytes_read;
        if (wanted > max_transfer_bytes) {
            wanted = max_transfer_bytes;
        }
        ssize_t got = pread(descriptor, (char *)read->destination + read->bytes_read, (size_t)wanted,
                            (off_t)(read->offset + read->bytes_read));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return errno;
        }
        read->bytes_read += (uint64_t)got;
        if (got == 0) {
            return 0;
        }
    }
    return 0;
}

static bool unchanged_since_open(const sl_file *file)
{
    struct stat now;
    if (fstat(file->descriptor, &now) != 0) {
        return false;
    }
    int64_t modified_ns = (int64_t)now.st_mtim.tv_sec * 1000000000 + (int64_t)now.st_mtim.tv_nsec;
    return (uint64_t)now.st_size == file->identity.bytes && modified_ns == file->identity.modified_ns;
}

static void perform(sl_read *read)
{
    int failed = 0;
    if (read->direct && read->file->direct_descriptor >= 0) {
        failed = read_on(read, read->file->direct_descriptor);
        if (failed == EINVAL) {
            failed = 0;
        }
    }
    if (failed == 0 && read->bytes_read < read->required) {
        uint64_t start = read->bytes_read;
        failed = read_on(read, read->file->descriptor);
        if (read->bytes_read > start) {
            sl_file_forget(read->file, read->offset + start, read->bytes_read - start);
        }
    }
    read->system_errno = failed;
    if (failed != 0) {
        read->status = SLUICE_ERROR_IO;
    } else if (read->bytes_read < read->required || !unchanged_since_open(read->file)) {
        read->status = SLUICE_ERROR_CHANGED;
    } else {
        read->status = SLUICE_OK;
    }
}

/* Sleep until there is a read; NULL when the thread should end. */
static sl_read *take_read(pread_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (pool->first == NULL && !pool->closing) {
        pthread_cond_wait(&pool->work_arrived, &pool->lock);
    }
    sl_read *read = pool->first;
    if (read != NULL) {
        pool->first = read->next;
        if (pool->first == NULL) {
            pool->last = NULL;
        }
        read->next = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
    return read;
}

static void *run(void *argument)
{
    pread_pool *pool = argument;
    for (sl_read *read = take_read(pool); read != NULL; read = take_read(pool)) {
        perform(read);
        read->done_ns = sl_clock_ns();
        pool->on_done(pool->user, read);
    }
    return NULL;
}

static void pool_submit(void *self, sl_read *read)
{
    pread_pool *pool = self;
    read->status = SLUICE_OK;
    read->system_errno = 0;
    read->bytes_read = 0;
    read->done_ns = 0;
    read->next = NULL;
    read->submit_ns = sl_clock_ns();
    pthread_mutex_lock(&pool->lock);
    if (pool->last == NULL) {
        pool->first = read;
    } else {
        pool->last->next = read;
    }
    pool->last = read;
    pthread_cond_signal(&pool->work_arrived);
    pthread_mutex_unlock(&pool->lock);
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

static const sl_reads_backend pread_backend = {
    .name = "pread", .submit = pool_submit, .redirect = pool_redirect, .close = pool_close};

static size_t pool_bytes(uint32_t n_threads)
{
    return sizeof(pread_pool) + (size_t)n_threads * sizeof(sl_thread);
}

uint64_t sl_reads_pread_cost(uint32_t n_threads)
{
    return sl_memory_cost(pool_bytes(n_threads), 16);
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

sluice_status sl_reads_open_pread(sl_reads *reads, uint32_t n_threads, sl_memory *memory,
                                  void (*on_done)(void *user, sl_read *read), void *user, sluice_error *error)
{
    *reads = (sl_reads){0};
    if (n_threads < 1 || n_threads > SL_READS_MAX_THREADS) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "expected 1 to %d read threads, found %u",
                            SL_READS_MAX_THREADS, n_threads);
    }
    pread_pool *pool = sl_alloc(memory, SL_MEMORY_IO, 1, pool_bytes(n_threads));
    if (pool == NULL) {
        return sl_error_no_memory(error, pool_bytes(n_threads), "the read threads");
    }
    pool->memory = memory;
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
