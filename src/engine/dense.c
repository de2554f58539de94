/* Owns the memory of the dense weights.
 *
 * Invariants
 *  (1) Runs are in file order, aligned at both ends to DIRECT_ALIGNMENT, disjoint, and together cover every dense
 *      tensor.
 *  (2) The runs lie one after the other in one block, so that large pages can hold them.
 *  (3) cost_bytes is what loading takes from the account, to the byte, before it is taken.
 *  (4) After a failed load there is no block.
 * Threads: loading uses the reading threads of its own read engine; they only touch reads and buffers in flight, and
 * are gone when sl_dense_load returns. */
#include "engine/dense.h"

#include <pthread.h>
#include <string.h>

#include "os/pages.h"

enum { DIRECT_ALIGNMENT = 4096, READ_BYTES = 4 << 20, POPULATE_LEAD_BYTES = 2 * READ_BYTES };

/* From here on a huge page of alignment is lost in the noise. */
static const uint64_t large_block_bytes = 64 * (uint64_t)SL_HUGE_PAGE_BYTES;

static uint64_t align_down(uint64_t value)
{
    return value & ~(uint64_t)(DIRECT_ALIGNMENT - 1);
}

sluice_status sl_dense_plan(sl_dense *dense, const sl_model *model, sl_memory *memory, sluice_error *error)
{
    *dense = (sl_dense){.memory = memory};
    dense->runs = sl_alloc(memory, SL_MEMORY_OTHER, model->n_dense, sizeof *dense->runs);
    dense->run_of = sl_alloc(memory, SL_MEMORY_OTHER, model->n_dense, sizeof *dense->run_of);
    if (dense->runs == NULL || dense->run_of == NULL) {
        return sl_error_no_memory(error, model->n_dense * sizeof *dense->runs, "the list of dense weights");
    }
    for (uint32_t i = 0; i < model->n_dense; i++) {
        const sl_gguf_tensor *tensor = model->dense[i];
        uint64_t begin = align_down(tensor->offset);
        uint64_t end = align_down(tensor->offset + tensor->bytes + DIRECT_ALIGNMENT - 1);
        sl_dense_run *last = dense->n_runs > 0 ? &dense->runs[dense->n_runs - 1] : NULL;
        if (last != NULL && last->file == tensor->file && begin >= last->begin && begin <= last->end) {
            last->end = end > last->end ? end : last->end;
        } else {
            dense->runs[dense->n_runs++] = (sl_dense_run){.file = tensor->file, .begin = begin, .end = end};
        }
        dense->run_of[i] = dense->n_runs - 1;
    }
    for (uint32_t i = 0; i < dense->n_runs; i++) {
        dense->runs[i].place = dense->block_bytes;
        dense->block_bytes += dense->runs[i].end - dense->runs[i].begin;
    }
    dense->alignment = dense->block_bytes >= large_block_bytes ? SL_HUGE_PAGE_BYTES : DIRECT_ALIGNMENT;
    dense->cost_bytes = sl_memory_cost(dense->block_bytes, dense->alignment);
    return SLUICE_OK;
}

typedef struct load {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t n_done;     /* guarded by: lock */
    uint64_t done_bytes; /* guarded by: lock */
    sl_read *failed;     /* guarded by: lock; the first read that failed */
} load;

static void on_read_done(void *user, sl_read *read)
{
    load *state = user;
    pthread_mutex_lock(&state->lock);
    state->n_done++;
    state->done_bytes += read->required;
    if (read->status != SLUICE_OK && state->failed == NULL) {
        state->failed = read;
    }
    pthread_cond_signal(&state->changed);
    pthread_mutex_unlock(&state->lock);
}

static uint32_t count_reads(const sl_dense *dense)
{
    uint32_t n_reads = 0;
    for (uint32_t i = 0; i < dense->n_runs; i++) {
        n_reads += (uint32_t)((dense->runs[i].end - dense->runs[i].begin + READ_BYTES - 1) / READ_BYTES);
    }
    return n_reads;
}

static void fill_reads(sl_dense *dense, const sl_model *model, sl_read *reads)
{
    uint32_t n_reads = 0;
    for (uint32_t i = 0; i < dense->n_runs; i++) {
        sl_dense_run *run = &dense->runs[i];
        const sl_gguf_file *file = &model->file->files[run->file];
        for (uint64_t offset = run->begin; offset < run->end; offset += READ_BYTES) {
            uint64_t length = run->end - offset < READ_BYTES ? run->end - offset : READ_BYTES;
            uint64_t present = file->file.identity.bytes - offset;
            reads[n_reads++] = (sl_read){.file = &file->file,
                                         .path = file->path,
                                         .offset = offset,
                                         .length = length,
                                         .required = present < length ? present : length,
                                         .destination = dense->block + run->place + (offset - run->begin),
                                         .direct = file->file.direct_descriptor >= 0 &&
                                                   file->file.direct_alignment <= DIRECT_ALIGNMENT};
        }
    }
}

/* Memory that is touched for the first time has to be cleared, which takes the kernel as long as copying into it: do that
 * for a part of the block that is not read into yet. false when nothing is left. */
static bool populate_next(sl_dense *dense, uint64_t *populated_bytes)
{
    if (dense->alignment < SL_HUGE_PAGE_BYTES || *populated_bytes >= dense->block_bytes) {
        return false;
    }
    uint64_t left = dense->block_bytes - *populated_bytes;
    bool populated = sl_pages_populate(dense->block + *populated_bytes, left < READ_BYTES ? left : READ_BYTES);
    *populated_bytes = populated ? *populated_bytes + READ_BYTES : dense->block_bytes;
    return true;
}

/* Wait for all reads, reporting progress from this thread, preparing memory for them and then being idle. Reads in flight are
 * always waited for. */
static sluice_status await_reads(load *state, sl_dense *dense, uint32_t n_reads, uint64_t total_bytes,
                                 const sl_dense_loading *loading, sluice_error *error)
{
    bool go_on = true;
    uint64_t populated_bytes = POPULATE_LEAD_BYTES;
    pthread_mutex_lock(&state->lock);
    for (uint32_t n_seen = 0; n_seen < n_reads; n_seen = state->n_done) {
        pthread_mutex_unlock(&state->lock);
        bool busy =
            populate_next(dense, &populated_bytes) || (loading->idle != NULL && loading->idle(loading->idle_user));
        pthread_mutex_lock(&state->lock);
        while (!busy && state->n_done == n_seen) {
            pthread_cond_wait(&state->changed, &state->lock);
        }
        uint64_t done_bytes = state->done_bytes;
        pthread_mutex_unlock(&state->lock);
        if (loading->progress != NULL && go_on) {
            go_on = loading->progress(loading->progress_user, done_bytes, total_bytes);
        }
        pthread_mutex_lock(&state->lock);
    }
    sl_read *failed = state->failed;
    pthread_mutex_unlock(&state->lock);
    if (failed != NULL) {
        return sl_read_describe(failed, error);
    }
    return go_on ? SLUICE_OK : sl_error_set(error, SLUICE_ERROR_CANCELLED, "loading was cancelled by the caller");
}

static sluice_status read_all(sl_dense *dense, const sl_model *model, const sl_dense_loading *loading,
                              sluice_error *error)
{
    uint32_t n_reads = count_reads(dense);
    sl_read *reads = sl_alloc(dense->memory, SL_MEMORY_IO, n_reads, sizeof *reads);
    if (reads == NULL) {
        return sl_error_no_memory(error, n_reads * sizeof *reads, "the reads of the dense weights");
    }
    load state = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    sl_reads engine;
    sluice_status status =
        sl_reads_open(&engine, loading->reads, dense->memory, loading->log, on_read_done, &state, error);
    if (status == SLUICE_OK && loading->faults != NULL) {
        status = sl_reads_wrap_faults(&engine, loading->faults, dense->memory, error);
    }
    if (status == SLUICE_OK) {
        fill_reads(dense, model, reads);
        uint64_t total_bytes = 0;
        for (uint32_t i = 0; i < n_reads; i++) {
            total_bytes += reads[i].required;
        }
        for (uint32_t i = 0; i < n_reads; i++) {
            sl_reads_submit(&engine, &reads[i]);
        }
        status = await_reads(&state, dense, n_reads, total_bytes, loading, error);
    }
    sl_reads_close(&engine);
    pthread_cond_destroy(&state.changed);
    pthread_mutex_destroy(&state.lock);
    sl_free(dense->memory, reads);
    return status;
}

static void release_block(sl_dense *dense)
{
    sl_free(dense->memory, dense->block);
    dense->block = NULL;
}

sluice_status sl_dense_load(sl_dense *dense, const sl_model *model, const sl_dense_loading *loading,
                            sluice_error *error)
{
    dense->block = sl_alloc_aligned(dense->memory, SL_MEMORY_WEIGHTS, dense->block_bytes, dense->alignment);
    if (dense->block == NULL) {
        return sl_error_no_memory(error, dense->block_bytes, "dense weights");
    }
    if (dense->alignment >= SL_HUGE_PAGE_BYTES) {
        sl_pages_advise_huge(dense->block, dense->block_bytes);
    }
    sluice_status status = read_all(dense, model, loading, error);
    if (status != SLUICE_OK) {
        release_block(dense);
    }
    return status;
}

const void *sl_dense_tensor(const sl_dense *dense, const sl_model *model, uint32_t i_dense)
{
    const sl_dense_run *run = &dense->runs[dense->run_of[i_dense]];
    return dense->block + run->place + (model->dense[i_dense]->offset - run->begin);
}

void sl_dense_fini(sl_dense *dense)
{
    if (dense->memory == NULL) {
        return;
    }
    release_block(dense);
    sl_free(dense->memory, dense->runs);
    sl_free(dense->memory, dense->run_of);
    *dense = (sl_dense){.memory = dense->memory};
}
