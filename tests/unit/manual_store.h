/* A store whose reads finish when the test says so, in the order it says: nothing depends on threads or disks. */
#ifndef TESTS_UNIT_MANUAL_STORE_H
#define TESTS_UNIT_MANUAL_STORE_H

#include "expert_files.h"

#include "experts/store_internal.h"

enum { MANUAL_MAX_FLYING = 256 };

/* The reads that the store gave to the engine and that are not done, oldest first. */
typedef struct manual_reads {
    sl_read *flying[MANUAL_MAX_FLYING];
    uint32_t n_flying;
    uint64_t n_submitted;
} manual_reads;

static inline void manual_submit(void *self, sl_read *read)
{
    manual_reads *reads = self;
    assert_true(reads->n_flying < MANUAL_MAX_FLYING);
    reads->flying[reads->n_flying++] = read;
    reads->n_submitted++;
}

/* The i-th read in flight is done; `works`: the bytes are there. */
static inline void manual_finish(manual_reads *reads, uint32_t i_read, bool works)
{
    assert_true(i_read < reads->n_flying);
    sl_read *read = reads->flying[i_read];
    memmove(&reads->flying[i_read], &reads->flying[i_read + 1],
            (reads->n_flying - i_read - 1) * sizeof reads->flying[0]);
    reads->n_flying--;
    read->status = works ? SLUICE_OK : SLUICE_ERROR_IO;
    read->system_errno = works ? 0 : 5;
    read->bytes_read = 0;
    if (works) {
        ssize_t got = pread(read->file->descriptor, read->destination, read->length, (off_t)read->offset);
        assert_true(got >= (ssize_t)read->required);
        read->bytes_read = (uint64_t)got;
    }
    sl_slot_read_done(read->user, read);
}

static inline void manual_finish_all(manual_reads *reads)
{
    while (reads->n_flying > 0) {
        manual_finish(reads, 0, true);
    }
}

static inline void manual_close(void *self)
{
    manual_finish_all(self);
}

static const sl_reads_backend manual_backend = {.name = "manual", .submit = manual_submit, .close = manual_close};

static inline sl_store *manual_store_open_config(const sl_store_config *config, manual_reads *reads)
{
    sluice_error error = {0};
    sl_store *store = NULL;
    if (sl_store_open(&store, config, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    sl_reads_close(&store->reads);
    *reads = (manual_reads){0};
    store->reads = (sl_reads){.backend = &manual_backend, .self = reads};
    return store;
}

static inline sl_store *manual_store_open(expert_files *set, uint64_t n_slots, uint64_t window_bytes,
                                          manual_reads *reads)
{
    sl_store_config config = expert_config(set, n_slots);
    config.prefetch_window_bytes = window_bytes;
    return manual_store_open_config(&config, reads);
}

/* Whether sl_store_wait would return at once. */
static inline bool manual_would_deliver(const sl_store *store, const sl_store_request *request)
{
    for (uint32_t i_entry = 0; i_entry < request->n_experts; i_entry++) {
        uint64_t word = request->progress[i_entry];
        sl_entry_state state = sl_entry_state_of(word);
        if (state == SL_ENTRY_HIT ||
            (state == SL_ENTRY_MISS && store->slots[sl_entry_slot_of(word)].state == SL_SLOT_READY)) {
            return true;
        }
    }
    return request->status != SLUICE_OK || request->n_delivered == request->n_experts;
}

/* Whose read it is, as layer * 1000000 + expert * 1000 + piece. */
static inline uint32_t manual_name(const sl_store *store, const sl_read *read)
{
    size_t place = (size_t)(read - store->slot_reads);
    const sl_slot *slot = &store->slots[place / store->n_ranges];
    return slot->layer * 1000000 + slot->expert * 1000 + (uint32_t)(place % store->n_ranges);
}

#endif
