/* Owns nothing: what is common to all backends of the read engine, and the choice among them.
 *
 * Invariants
 *  (1) A read is OK only when `required` bytes came from the file, and the file still had the size and the modification
 *      time of its opening after they came.
 *  (2) What a buffered read brought into the page cache is dropped as soon as it was copied. What was there before is
 *      copied from there and stays.
 *  (3) The entries of sl_refusals are filled from the front and never change again.
 * Threads: any; a read belongs to the thread that works on it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/backends.h"
#include "os/clock.h"
#include "os/thread.h"

/* One system call moves at most this much; a multiple of every alignment. */
static const uint64_t max_transfer_bytes = (uint64_t)1 << 30;

bool sl_refusals_allow(sl_refusals *refusals, const sl_read *read)
{
    if (!read->direct || read->file->direct_descriptor < 0) {
        return false;
    }
    for (int i_entry = 0; i_entry < SL_MAX_REFUSALS; i_entry++) {
        const sl_file *refused = atomic_load_explicit(&refusals->files[i_entry], memory_order_relaxed);
        if (refused == read->file || refused == NULL) {
            return refused == NULL;
        }
    }
    return true;
}

void sl_refusals_add(sl_refusals *refusals, const sl_read *read)
{
    for (int i_entry = 0; i_entry < SL_MAX_REFUSALS; i_entry++) {
        const sl_file *present = NULL;
        if (atomic_compare_exchange_strong(&refusals->files[i_entry], &present, read->file)) {
            sl_log_line(refusals->log, SL_LOG_WARNING,
                        "%s: the system refuses direct reads of this file; it is read through the page cache",
                        read->path);
            return;
        }
        if (present == read->file) {
            return;
        }
    }
}

void sl_read_begin(sl_read *read)
{
    read->status = SLUICE_OK;
    read->system_errno = 0;
    read->bytes_read = 0;
    read->done_ns = 0;
    read->next = NULL;
    read->n_unfinished = 0;
    read->cut = false;
    read->submit_ns = sl_clock_ns();
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

void sl_read_conclude(sl_read *read, int system_errno)
{
    read->system_errno = system_errno;
    if (system_errno != 0) {
        read->status = SLUICE_ERROR_IO;
    } else if (read->cut || read->bytes_read < read->required || !unchanged_since_open(read->file)) {
        read->status = SLUICE_ERROR_CHANGED;
    } else {
        read->status = SLUICE_OK;
    }
    read->done_ns = sl_clock_ns();
}

/* Read on until all that must arrive is there or the file ends. Returns the errno that stopped it, or 0. A direct read
 * continues only at aligned places: after an odd count, which happens at the end of a file, the function returns and
 * leaves the rest to a buffered read. */
static int read_on(sl_stretch *stretch, const sl_read *read, int descriptor, uint64_t alignment)
{
    while (stretch->arrived < stretch->required) {
        uint64_t wanted = stretch->length - stretch->arrived;
        uint64_t place = stretch->start + stretch->arrived;
        ssize_t got =
            pread(descriptor, (char *)read->destination + place,
                  (size_t)(wanted < max_transfer_bytes ? wanted : max_transfer_bytes), (off_t)(read->offset + place));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return errno;
        }
        stretch->arrived += (uint64_t)got;
        if (got == 0 || (uint64_t)got % alignment != 0) {
            return 0;
        }
    }
    return 0;
}

bool sl_stretch_is_cached(const sl_stretch *stretch, const sl_read *read, const sl_refusals *refusals)
{
    return refusals->from_cache && sl_file_is_cached(read->file, read->offset + stretch->start, stretch->length);
}

int sl_stretch_perform(sl_stretch *stretch, const sl_read *read, sl_refusals *refusals)
{
    int failed = 0;
    uint32_t alignment = read->file->direct_alignment;
    bool cached = sl_stretch_is_cached(stretch, read, refusals);
    if (!cached && sl_refusals_allow(refusals, read) && (stretch->start + stretch->arrived) % alignment == 0) {
        failed = read_on(stretch, read, read->file->direct_descriptor, alignment);
        if (failed == EINVAL) {
            sl_refusals_add(refusals, read);
            failed = 0;
        }
    }
    if (failed == 0 && stretch->arrived < stretch->required) {
        uint64_t before = stretch->arrived;
        failed = read_on(stretch, read, read->file->descriptor, 1);
        if (!cached) {
            sl_file_forget(read->file, read->offset + stretch->start + before, stretch->arrived - before);
        }
    }
    return failed;
}

void sl_read_perform(sl_read *read, sl_refusals *refusals)
{
    sl_stretch whole = {.length = read->length, .required = read->required};
    int failed = sl_stretch_perform(&whole, read, refusals);
    read->bytes_read = whole.arrived;
    sl_read_conclude(read, failed);
}

sluice_status sl_read_describe(const sl_read *read, sluice_error *error)
{
    if (read->status == SLUICE_OK) {
        return SLUICE_OK;
    }
    if (read->status != SLUICE_ERROR_CHANGED) {
        return sl_error_set_system(error, read->status, read->system_errno,
                                   "%s: cannot read %" PRIu64 " bytes at byte %" PRIu64
                                   "; check the disk and the system log",
                                   read->path, read->required, read->offset);
    }
    struct stat now;
    uint64_t bytes_now = fstat(read->file->descriptor, &now) == 0 ? (uint64_t)now.st_size : 0;
    if (read->bytes_read < read->required) {
        return sl_error_set(
            error, SLUICE_ERROR_CHANGED,
            "%s: the file shrank while it was in use: expected %" PRIu64 " bytes at byte %" PRIu64 ", found %" PRIu64
            " (file size when opened %" PRIu64 ", now %" PRIu64 "); restore the file and open it again",
            read->path, read->required, read->offset, read->bytes_read, read->file->identity.bytes, bytes_now);
    }
    return sl_error_set(error, SLUICE_ERROR_CHANGED,
                        "%s: the file was modified while it was in use, seen after reading %" PRIu64
                        " bytes at byte %" PRIu64 " (file size when opened %" PRIu64 ", now %" PRIu64
                        "); restore the file and open it again",
                        read->path, read->bytes_read, read->offset, read->file->identity.bytes, bytes_now);
}

bool sl_reads_kind_parse(const char *name, sl_reads_kind *kind)
{
    static const char *const names[] = {"auto", "uring", "pread"};
    for (size_t i_kind = 0; i_kind < sizeof names / sizeof names[0]; i_kind++) {
        if (strcmp(name, names[i_kind]) == 0) {
            *kind = (sl_reads_kind)i_kind;
            return true;
        }
    }
    return false;
}

static sluice_status check_options(const sl_reads_options *options, sluice_error *error)
{
    if (options->n_threads < 1 || options->n_threads > SL_READS_MAX_THREADS) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "expected 1 to %d read threads, found %u",
                            SL_READS_MAX_THREADS, options->n_threads);
    }
    if (options->depth > SL_READS_MAX_DEPTH) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "expected up to %d reads in flight, found %u",
                            SL_READS_MAX_DEPTH, options->depth);
    }
    uint32_t piece = options->piece_bytes;
    if (piece != 0 &&
        ((piece & (piece - 1)) != 0 || piece < SL_READS_MIN_PIECE_BYTES || piece > SL_READS_MAX_PIECE_BYTES)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "expected a power of two from %d to %d as the most bytes of one read, found %u",
                            SL_READS_MIN_PIECE_BYTES, SL_READS_MAX_PIECE_BYTES, piece);
    }
    return SLUICE_OK;
}

sluice_status sl_reads_open(sl_reads *reads, const sl_reads_options *options, sl_memory *memory, const sl_log *log,
                            void (*on_done)(void *user, sl_read *read), void *user, sluice_error *error)
{
    *reads = (sl_reads){0};
    SL_TRY(check_options(options, error));
    int uring_errno = 0;
    if (options->kind != SL_READS_PREAD) {
        sluice_error reason = {0};
        sluice_status status = sl_reads_open_uring(reads, options, memory, log, on_done, user, &reason);
        bool fall_back = status == SLUICE_ERROR_UNSUPPORTED && options->kind == SL_READS_AUTO;
        if (!fall_back) {
            if (status != SLUICE_OK && error != NULL) {
                *error = reason;
            }
            return status;
        }
        uring_errno = reason.system_errno;
    }
    SL_TRY(sl_reads_open_pread(reads, options, memory, log, on_done, user, error));
    reads->uring_errno = uring_errno;
    return SLUICE_OK;
}

sluice_status sl_reads_choose(sl_reads_kind *kind, sluice_error *reason)
{
    if (*kind == SL_READS_PREAD) {
        return SLUICE_OK;
    }
    sluice_status status = sl_reads_check_uring(reason);
    if (status == SLUICE_ERROR_UNSUPPORTED && *kind == SL_READS_AUTO) {
        *kind = SL_READS_PREAD;
        return SLUICE_OK;
    }
    return status;
}

sl_reads_cost sl_reads_cost_of(const sl_reads_options *options)
{
    sl_reads_cost cost = options->kind == SL_READS_PREAD ? sl_reads_pread_cost(options) : sl_reads_uring_cost(options);
    cost.kernel_bytes += (uint64_t)cost.n_threads * SL_THREAD_KERNEL_BYTES;
    return cost;
}

void sl_reads_describe_backend(const sl_reads *reads, char *text, size_t capacity)
{
    char backend[200];
    reads->backend->describe(reads->self, backend, sizeof backend);
    sluice_error reason = {0};
    if (reads->uring_errno != 0) {
        sl_error_set_system(&reason, SLUICE_ERROR_UNSUPPORTED, reads->uring_errno, "; io_uring cannot be had here");
    }
    snprintf(text, capacity, "%s%s", backend, reason.message);
}

void sl_reads_close(sl_reads *reads)
{
    if (reads->backend != NULL) {
        reads->backend->close(reads->self);
    }
    *reads = (sl_reads){0};
}
