/* The read engine: many reads in flight, each finishing on its own. Backends: a pool of threads with pread, and a wrapper
 * that injects faults for tests. All backends deliver identical bytes. */
#ifndef SL_IO_READS_H
#define SL_IO_READS_H

#include <stdbool.h>

#include "base/log.h"
#include "base/memory.h"
#include "os/file.h"

/* One contiguous range of a file. The caller owns the struct and its destination until it is reported done. */
typedef struct sl_read {
    const sl_file *file; /* borrowed: open until the read is done */
    const char *path;    /* borrowed: for the error sentence */
    uint64_t offset;     /* direct reads: a multiple of the file's direct_alignment, like length and destination */
    uint64_t length;     /* may reach past the end of the file by less than one alignment unit: see `required` */
    uint64_t required;   /* bytes that must arrive, <= length; fewer is an error */
    void *destination;   /* borrowed: `length` bytes */
    bool direct;         /* use the direct descriptor */
    void *user;          /* untouched */

    /* Result, valid once reported done. */
    sluice_status status;
    sluice_error error;   /* filled when status is not OK: path, offset, cause */
    uint64_t bytes_read;  /* what came from the file */
    uint64_t submit_ns, done_ns;
    struct sl_read *next; /* private to the engine while in flight */
} sl_read;

typedef struct sl_reads sl_reads;

/* The operations of a backend. Any thread may submit; `on_done` is called from a backend thread, once per read, and must
 * not block for long. Reads are started in the order submitted. */
typedef struct sl_reads_backend {
    const char *name; /* "pread" */
    void (*submit)(void *self, sl_read *read);
    void (*close)(void *self); /* waits for reads in flight, then frees; on_done is not called afterwards */
} sl_reads_backend;

struct sl_reads {
    const sl_reads_backend *backend;
    void *self; /* owned by the backend */
    void (*on_done)(void *user, sl_read *read);
    void *user; /* borrowed */
};

/* Start `n_threads` reading threads (1 to 64). `*reads` is filled; on failure nothing stays. */
SLUICE_NODISCARD sluice_status sl_reads_open_pread(sl_reads *reads, uint32_t n_threads, sl_memory *memory,
                                                   void (*on_done)(void *user, sl_read *read), void *user,
                                                   sluice_error *error);

/* What the n-th read (counted from 1) does instead of succeeding. */
typedef enum sl_read_fault {
    SL_READ_FAULT_NONE,
    SL_READ_FAULT_EIO,        /* fails */
    SL_READ_FAULT_SHORT,      /* delivers half of it and claims the end of the file */
    SL_READ_FAULT_INTERRUPTED /* is interrupted and resumed: must succeed */
} sl_read_fault;

typedef struct sl_read_fault_plan {
    uint64_t at_read; /* which read; 0: none */
    sl_read_fault fault;
    uint64_t n_after; /* how many reads from at_read on are hit; 0 means 1 */
    uint64_t n_seen;  /* out: reads so far (atomic access) */
} sl_read_fault_plan;

/* Put the fault-injecting backend round an open engine, which it then owns. `plan` is borrowed until close. */
SLUICE_NODISCARD sluice_status sl_reads_wrap_faults(sl_reads *reads, sl_read_fault_plan *plan, sl_memory *memory,
                                                    sluice_error *error);

static inline void sl_reads_submit(sl_reads *reads, sl_read *read)
{
    reads->backend->submit(reads->self, read);
}

void sl_reads_close(sl_reads *reads);

#endif
