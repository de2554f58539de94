/* What the backends of the read engine share among each other. */
#ifndef SL_IO_BACKENDS_H
#define SL_IO_BACKENDS_H

#include <stdatomic.h>

#include "io/reads.h"

enum { SL_MAX_REFUSALS = 16 };

/* Files whose direct reads were refused though they were promised at open. A file beyond the table's size is tried
 * directly each time. thread: any. */
typedef struct sl_refusals {
    const sl_log *log;                               /* borrowed; may be NULL */
    bool from_cache;                                 /* never changes */
    _Atomic(const sl_file *) files[SL_MAX_REFUSALS]; /* borrowed; filled from the front */
} sl_refusals;

/* Whether to try a direct read. */
bool sl_refusals_allow(sl_refusals *refusals, const sl_read *read);
/* A direct read of this file was refused. */
void sl_refusals_add(sl_refusals *refusals, const sl_read *read);

/* Reset the results of a read that is being submitted. */
void sl_read_begin(sl_read *read);
/* Fill in status and time from what arrived and the errno that stopped it, or 0. */
void sl_read_conclude(sl_read *read, int system_errno);

/* A stretch of a read. */
typedef struct sl_stretch {
    uint64_t start;    /* in the read */
    uint64_t length;   /* may be asked for */
    uint64_t required; /* must arrive */
    uint64_t arrived;
} sl_stretch;

/* Whether to leave the disk alone, because the page cache has the whole stretch. */
bool sl_stretch_is_cached(const sl_stretch *stretch, const sl_read *read, const sl_refusals *refusals);

/* Read what of a stretch has not arrived with pread on this thread, directly where that is allowed. Returns the errno
 * that stopped it, or 0, also at the end of the file. */
int sl_stretch_perform(sl_stretch *stretch, const sl_read *read, sl_refusals *refusals);

/* Read a whole read with pread on this thread, and fill in its results. */
void sl_read_perform(sl_read *read, sl_refusals *refusals);

/* The backends. Options were checked. */
SLUICE_NODISCARD sluice_status sl_reads_open_pread(sl_reads *reads, const sl_reads_options *options, sl_memory *memory,
                                                   const sl_log *log, void (*on_done)(void *user, sl_read *read),
                                                   void *user, sluice_error *error);
sl_reads_cost sl_reads_pread_cost(const sl_reads_options *options);

/* UNSUPPORTED, with the errno, where the system has no io_uring to give or the build has no use for one. */
SLUICE_NODISCARD sluice_status sl_reads_open_uring(sl_reads *reads, const sl_reads_options *options, sl_memory *memory,
                                                   const sl_log *log, void (*on_done)(void *user, sl_read *read),
                                                   void *user, sluice_error *error);
SLUICE_NODISCARD sluice_status sl_reads_check_uring(sluice_error *error);
sl_reads_cost sl_reads_uring_cost(const sl_reads_options *options);

#endif
