/* The read engine: many reads in flight, each finishing on its own. Backends: one thread with an io_uring, a pool of
 * threads with pread, and a wrapper that injects faults for tests. All backends deliver identical bytes. */
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

    /* Result, valid once reported done; sl_read_describe puts it into a sentence. */
    sluice_status status; /* OK, IO, or CHANGED: the file ended before `required` bytes or was modified since open */
    int system_errno;     /* of the failed system call, or 0 */
    uint64_t bytes_read;  /* what came from the file */
    uint64_t submit_ns, done_ns;

    /* Private to the engine while in flight. */
    struct sl_read *next;
    uint32_t n_unfinished;                 /* pieces of it that are not done */
    bool cut;                              /* a piece ended early with the file */
    uint64_t whole_length, whole_required; /* of an interrupted read */
    int fault;
} sl_read;

/* Fill `error` (may be NULL) for a read that is done: path, offset, expected, found, cause. Returns its status. */
sluice_status sl_read_describe(const sl_read *read, sluice_error *error);

typedef struct sl_reads sl_reads;

/* The operations of a backend. Any thread may submit; `on_done` is called from a backend thread, once per read, and
 * must not block for long. Reads of one device are started in the order submitted; devices take turns, and each has
 * places in flight that no other can take, so a slow one holds up its own reads alone. */
typedef struct sl_reads_backend {
    const char *name; /* "uring", "pread" */
    void (*submit)(void *self, sl_read *read);
    /* See sl_reads_perform. */
    void (*perform)(void *self, sl_read *read);
    /* Report to another function from now on; only while no read is in flight. */
    void (*redirect)(void *self, void (*on_done)(void *user, sl_read *read), void *user);
    /* See sl_reads_register_memory; NULL: never does. */
    void (*register_memory)(void *self, bool registered);
    /* See sl_reads_describe_backend. */
    void (*describe)(void *self, char *text, size_t capacity);
    void (*close)(void *self); /* waits for reads in flight, then frees; on_done is not called afterwards */
} sl_reads_backend;

struct sl_reads {
    const sl_reads_backend *backend; /* NULL: not open */
    void *self;                      /* owned by the backend */
    void (*on_done)(void *user, sl_read *read);
    void *user;      /* borrowed */
    int uring_errno; /* why SL_READS_AUTO did without io_uring; 0: it did not */
};

typedef enum sl_reads_kind {
    SL_READS_AUTO,  /* io_uring, or pread where the system refuses it */
    SL_READS_URING, /* io_uring or nothing */
    SL_READS_PREAD
} sl_reads_kind;

/* From "auto", "uring" or "pread". */
bool sl_reads_kind_parse(const char *name, sl_reads_kind *kind);

enum {
    SL_READS_MAX_THREADS = 64,
    SL_READS_MAX_DEPTH = 1024,
    SL_READS_MIN_PIECE_BYTES = 4096,
    SL_READS_MAX_PIECE_BYTES = 1 << 30
};

/* Memory that is read into again and again, in ranges side by side, each from its start. Registering it with the kernel
 * spares that to find and hold its pages for every read. Who takes pages away, or puts others in their place, has to say
 * so before: sl_reads_register_memory. */
typedef struct sl_reads_memory {
    unsigned char *start; /* borrowed until close */
    uint64_t range_bytes;
    uint32_t n_ranges; /* 0: none */
} sl_reads_memory;

/* What an engine is made of. The defaults are measured: docs/io.md. */
typedef struct sl_reads_options {
    sl_reads_kind kind;
    uint32_t n_threads;     /* pread: 1 to SL_READS_MAX_THREADS */
    uint32_t depth;         /* io_uring: pieces in flight, up to SL_READS_MAX_DEPTH; 0: the default */
    uint32_t piece_bytes;   /* io_uring: larger reads are split, a power of two within the limits; 0: the default */
    bool from_cache;        /* what the page cache has already is copied from there, and stays there */
    sl_reads_memory memory; /* io_uring: a range is registered when it is read into again, if directly */
    bool plain_files;       /* io_uring: register no files, only to measure what that brings */
} sl_reads_options;

/* Open an engine. A direct read that the system refuses as such (EINVAL) is done buffered, and so are all later ones of
 * that file, which `log` (may be NULL; borrowed until close) is told once. What buffered reads leave in the page cache
 * is dropped at once; with from_cache, what was there before stays. EINTR and partial reads are continued; other
 * failures are not tried again. Files and memory are registered with an io_uring where the system allows it, and read without that where it does not; so the kernel keeps a
 * file that was read directly open until close, also when its owner has closed it. UNSUPPORTED with the reason when
 * io_uring is wanted and cannot be had. `*reads` is filled; on failure nothing stays. */
SLUICE_NODISCARD sluice_status sl_reads_open(sl_reads *reads, const sl_reads_options *options, sl_memory *memory,
                                             const sl_log *log, void (*on_done)(void *user, sl_read *read), void *user,
                                             sluice_error *error);

/* Settle a choice by trying: AUTO becomes PREAD, with the reason, where io_uring cannot be had now, and stays AUTO
 * where it can, because opening may still have to fall back. URING that cannot be had is UNSUPPORTED with the reason.
 */
SLUICE_NODISCARD sluice_status sl_reads_choose(sl_reads_kind *kind, sluice_error *reason);

/* What an engine takes: from the account of `memory` (tag io), from the kernel beside that, as a memory cgroup is
 * charged for it, and how many threads it runs, whose stacks are in neither. Of AUTO it is what io_uring takes. */
typedef struct sl_reads_cost {
    uint64_t account_bytes;
    uint64_t kernel_bytes;
    uint32_t n_threads;
} sl_reads_cost;
sl_reads_cost sl_reads_cost_of(const sl_reads_options *options);

/* What the n-th read (counted from 1) does instead of succeeding. */
typedef enum sl_read_fault {
    SL_READ_FAULT_NONE,
    SL_READ_FAULT_EIO,         /* fails */
    SL_READ_FAULT_GONE,        /* fails with ENODEV, as when the disk was taken away */
    SL_READ_FAULT_SHORT,       /* delivers half of it and claims the end of the file */
    SL_READ_FAULT_INTERRUPTED, /* is interrupted and resumed: must succeed */
    SL_READ_FAULT_SLOW,        /* arrives after every read that was in flight with it: must succeed */
    SL_READ_FAULT_EVENT        /* calls the plan's `event` as it is submitted, and then succeeds if that lets it */
} sl_read_fault;

typedef struct sl_read_fault_plan {
    uint64_t at_read; /* which read; 0: none (atomic access while reads are in flight) */
    sl_read_fault fault;
    uint64_t n_after; /* how many reads from at_read on are hit; 0 means 1 */
    uint64_t n_seen;  /* out: reads so far (atomic access) */
    void (*event)(void *user);
    void *user; /* borrowed */
} sl_read_fault_plan;

/* Put the fault-injecting backend round an open engine, which it then owns; no read may be in flight. `plan` is
 * borrowed until close and changed only while no read is in flight. On failure the engine stays as it was. */
SLUICE_NODISCARD sluice_status sl_reads_wrap_faults(sl_reads *reads, sl_read_fault_plan *plan, sl_memory *memory,
                                                    sluice_error *error);
uint64_t sl_reads_faults_cost(void);

static inline void sl_reads_submit(sl_reads *reads, sl_read *read)
{
    reads->backend->submit(reads->self, read);
}

/* Do a read on the calling thread, which also reports it done, before this returns. For what the page cache has: that is
 * work for a core and not for the disk. */
static inline void sl_reads_perform(sl_reads *reads, sl_read *read)
{
    reads->backend->perform(reads->self, read);
}

/* Whether the memory of the options may be registered, as it may from the start. After `false` has returned none of it
 * is: the kernel holds its pages only for reads in flight, and later ones find those that are at its addresses then.
 * Waits for the backend, and with older kernels for reads in flight. One thread at a time. */
static inline void sl_reads_register_memory(sl_reads *reads, bool registered)
{
    if (reads->backend->register_memory != NULL) {
        reads->backend->register_memory(reads->self, registered);
    }
}

/* The backend, its figures, and what it had to do without, for a log: "uring, 32 pieces of up to 512 KiB in flight". */
void sl_reads_describe_backend(const sl_reads *reads, char *text, size_t capacity);

/* Also safe on one that is zeroed or was closed. */
void sl_reads_close(sl_reads *reads);

#endif
