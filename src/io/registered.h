/* What the ring of one reader has registered with the kernel: memory that is read into again and again, whose pages the
 * kernel then need not pin for every read, and files. For the backend with a ring. */
#ifndef SL_IO_REGISTERED_H
#define SL_IO_REGISTERED_H

#include <liburing.h>
#include <stdatomic.h>

#include "io/reads.h"

/* Files beyond are read by their descriptors, ranges beyond as memory that was not declared. */
enum { SL_MAX_REGISTERED_FILES = 64, SL_MAX_REGISTERED_RANGES = 4096 };

enum { SL_NOT_REGISTERED = -1 };

typedef struct sl_registered {
    struct io_uring *ring; /* borrowed */
    const sl_log *log;     /* borrowed; may be NULL */
    sl_reads_memory memory;
    bool plain_files;         /* files are not to be registered */
    atomic_bool has_ranges;   /* the kernel has a table of ranges; atomic, like the next two, for who describes it */
    atomic_bool has_files;    /* and of files */
    atomic_int refused_errno; /* the kernel refused a range or their table, so there are none any more; 0: it did not */
    bool refused_file;        /* no more are tried */
    uint32_t n_files;
    sl_file files[SL_MAX_REGISTERED_FILES];             /* as they were when they were registered */
    uint64_t used[SL_MAX_REGISTERED_RANGES / 64];       /* which were read into from their start, as bits */
    uint64_t registered[SL_MAX_REGISTERED_RANGES / 64]; /* and which are registered */
} sl_registered;

void sl_registered_init(sl_registered *registered, const sl_reads_options *options, const sl_log *log);
/* Make the tables of a new ring. What the kernel refuses is done without. */
void sl_registered_open(sl_registered *registered, struct io_uring *ring);
/* Before the ring is closed: the kernel may take its time to let go of what is still registered then. */
void sl_registered_close(sl_registered *registered);

/* The place in the table of the range that holds all these bytes, or SL_NOT_REGISTERED. A range is registered when it is
 * read into from its start for the second time: its memory is there then, and will be used again. */
int sl_registered_range(sl_registered *registered, const void *destination, uint64_t bytes);
/* The same for the direct descriptor of a file. */
int sl_registered_file(sl_registered *registered, const sl_file *file);

/* Forget all ranges; no entry that is not submitted yet names one afterwards. */
void sl_registered_drop_ranges(sl_registered *registered);
/* Have a table of ranges again. */
void sl_registered_allow_ranges(sl_registered *registered);
/* The kernel has no use for ranges: forget all, and try none again. */
void sl_registered_refuse_ranges(sl_registered *registered, int system_errno);

/* Adds to the text: ", registered memory and files". */
void sl_registered_describe(const sl_registered *registered, char *text, size_t capacity);

/* What a memory cgroup is charged for the tables. */
uint64_t sl_registered_kernel_bytes(const sl_reads_options *options);

#endif
