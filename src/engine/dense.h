/* The dense weights: read once with direct I/O into memory of the process, never mapped, so nothing sits twice. */
#ifndef SL_ENGINE_DENSE_H
#define SL_ENGINE_DENSE_H

#include "io/reads.h"
#include "models/model.h"

/* A stretch of a file that is read as one: neighbouring tensors with at most a page between them. */
typedef struct sl_dense_run {
    uint32_t file;
    uint64_t begin, end; /* aligned for direct reads; may reach past the end of the file by less than one unit */
    uint64_t place;      /* in the block */
} sl_dense_run;

/* thread: immutable once loaded. */
typedef struct sl_dense {
    sl_memory *memory;  /* borrowed */
    sl_dense_run *runs; /* owned; [n_runs] */
    uint32_t n_runs;
    uint32_t *run_of;     /* owned; [n_dense]: run of each dense tensor of the model */
    uint64_t block_bytes; /* all runs, one after the other */
    size_t alignment;     /* of the block */
    unsigned char *block; /* owned; NULL until loaded */
    uint64_t cost_bytes;  /* exact WEIGHTS cost once loaded */
} sl_dense;

SLUICE_NODISCARD sluice_status sl_dense_plan(sl_dense *dense, const sl_model *model, sl_memory *memory,
                                             sluice_error *error);

/* How dense weights are loaded. */
typedef struct sl_dense_loading {
    const sl_reads_options *reads;
    sl_read_fault_plan *faults;                                              /* NULL outside tests */
    const sl_log *log;                                                       /* may be NULL */
    bool (*progress)(void *user, uint64_t done_bytes, uint64_t total_bytes); /* may be NULL; false cancels */
    void *progress_user;
    bool (*idle)(void *user); /* may be NULL; something to do while reads are waited for; false: nothing left */
    void *idle_user;
} sl_dense_loading;

/* Read everything. */
SLUICE_NODISCARD sluice_status sl_dense_load(sl_dense *dense, const sl_model *model, const sl_dense_loading *loading,
                                             sluice_error *error);

/* The first byte of the model's dense tensor `i_dense`. */
const void *sl_dense_tensor(const sl_dense *dense, const sl_model *model, uint32_t i_dense);

void sl_dense_fini(sl_dense *dense);

#endif
