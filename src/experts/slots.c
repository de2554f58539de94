/* Owns the transitions of a slot; store.c has the diagram and the invariants.
 * Threads: the holder of the store's lock. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "experts/store_internal.h"
#include "os/clock.h"

void sl_slots_init(sl_store *store)
{
    uint32_t n_slots = store->geometry.n_slots;
    for (uint32_t slot = 0; slot < n_slots; slot++) {
        store->slots[slot].next_free = slot + 1 < n_slots ? slot + 1 : SL_NO_SLOT;
    }
    store->first_free = 0;
    for (uint64_t place = 0; place < store->geometry.n_total; place++) {
        store->slot_of_expert[place] = SL_NO_SLOT;
    }
}

uint32_t *sl_slot_place(sl_store *store, uint32_t layer, uint32_t expert)
{
    return &store->slot_of_expert[(size_t)layer * store->n_experts + expert];
}

/* READY or READING -> ABSENT. */
static void empty_slot(sl_store *store, uint32_t index)
{
    sl_slot *slot = &store->slots[index];
    *sl_slot_place(store, slot->layer, slot->expert) = SL_NO_SLOT;
    store->policy->type->evict(store->policy, index);
    slot->state = SL_SLOT_ABSENT;
    slot->next_free = store->first_free;
    store->first_free = index;
}

static bool request_holds(const sl_store_request *request, uint32_t slot)
{
    for (uint32_t i_entry = 0; i_entry < request->n_experts; i_entry++) {
        if (sl_entry_holds(request->progress[i_entry]) && sl_entry_slot_of(request->progress[i_entry]) == slot) {
            return true;
        }
    }
    return false;
}

/* The first slot in the policy's order that may be emptied. A slot that `request` itself still holds ends the search:
 * the request will release it, and taking a younger one instead would make what is resident afterwards depend on which
 * read was the faster. Slots that others hold are passed over, because nothing says when they are released. */
static uint32_t find_victim(sl_store *store, const sl_store_request *request)
{
    const sl_policy *policy = store->policy;
    for (uint32_t index = policy->type->first_victim(policy); index != SL_NO_SLOT;
         index = policy->type->next_victim(policy, index)) {
        const sl_slot *slot = &store->slots[index];
        if (slot->n_pins == 0 && slot->state == SL_SLOT_READY) {
            return index;
        }
        if (slot->n_pins > 0 && slot->layer == request->layer && request_holds(request, index)) {
            return SL_NO_SLOT;
        }
    }
    return SL_NO_SLOT;
}

uint32_t sl_slot_take(sl_store *store, const sl_store_request *request, uint32_t expert, uint64_t time)
{
    if (store->first_free == SL_NO_SLOT) {
        uint32_t victim = find_victim(store, request);
        if (victim == SL_NO_SLOT) {
            return SL_NO_SLOT;
        }
        store->meters[store->slots[victim].layer].counters.evictions++;
        empty_slot(store, victim);
    }
    uint32_t index = store->first_free;
    sl_slot *slot = &store->slots[index];
    store->first_free = slot->next_free;
    *slot = (sl_slot){.state = SL_SLOT_QUEUED, .layer = request->layer, .expert = expert, .next_free = SL_NO_SLOT};
    *sl_slot_place(store, request->layer, expert) = index;
    store->policy->type->miss(store->policy, index, request->layer, expert, time);
    return index;
}

static void become_ready(sl_store *store, sl_slot *slot)
{
    slot->state = SL_SLOT_READY;
    slot->arrival = store->n_arrivals++;
    if (slot->n_pins > 0) {
        pthread_cond_broadcast(&store->slot_ready);
    }
}

void sl_slot_start_reading(sl_store *store, uint32_t index)
{
    sl_slot *slot = &store->slots[index];
    const sl_expert_range *ranges =
        &store->ranges[((size_t)slot->layer * store->n_experts + slot->expert) * store->n_ranges];
    sl_expert_layout layout;
    sl_expert_layout_of(store->files, store->geometry.piece_alignment, ranges, store->n_ranges, &layout);
    slot->expert_bytes = layout.expert_bytes;
    slot->n_pieces = layout.n_pieces;
    slot->n_unfinished = layout.n_pieces;
    memcpy(slot->matrix_offsets, layout.matrix_offsets, sizeof slot->matrix_offsets);
    if (layout.n_pieces == 0) {
        become_ready(store, slot);
        return;
    }
    slot->state = SL_SLOT_READING;
    sl_store_count_reading(store, slot->layer, sl_clock_ns());
    unsigned char *start = store->arena + (size_t)index * store->geometry.slot_bytes;
    for (uint32_t i_piece = 0; i_piece < layout.n_pieces; i_piece++) {
        const sl_expert_piece *piece = &layout.pieces[i_piece];
        sl_read *read = &store->slot_reads[(size_t)index * store->n_ranges + i_piece];
        *read = (sl_read){
            .file = store->files[piece->file].file,
            .path = store->files[piece->file].path,
            .offset = piece->offset,
            .length = piece->length,
            .required = piece->required,
            .destination = start + piece->slot_offset,
            .direct = store->files[piece->file].file->direct_descriptor >= 0,
            .user = store,
        };
        sl_reads_submit(&store->reads, read);
    }
}

/* READING -> ABSENT. */
static void fail(sl_store *store, uint32_t index, const sl_read *failed)
{
    sl_slot *slot = &store->slots[index];
    sluice_error cause;
    sluice_error error;
    sluice_status status = sl_read_describe(failed, &cause);
    sl_error_set(&error, status, "expert %" PRIu32 " of MoE layer %" PRIu32 ": %s", slot->expert, slot->layer,
                 cause.message);
    error.system_errno = cause.system_errno;
    sl_log_line(store->log, SL_LOG_ERROR, "%s", error.message);
    sl_requests_fail_slot(store, index, &error);
    empty_slot(store, index);
    pthread_cond_broadcast(&store->slot_ready);
}

/* All reads of an expert are done: READING -> READY, or ABSENT when one failed. The first one in the order of the file
 * speaks for all, whichever failed first. */
static void finish_reading(sl_store *store, uint32_t index)
{
    sl_slot *slot = &store->slots[index];
    sl_store_counters *counters = &store->meters[slot->layer].counters;
    const sl_read *failed = NULL;
    for (uint32_t i_piece = slot->n_pieces; i_piece-- > 0;) {
        const sl_read *read = &store->slot_reads[(size_t)index * store->n_ranges + i_piece];
        if (read->status != SLUICE_OK) {
            counters->failed_reads++;
            failed = read;
        }
    }
    sl_store_count_read(store, slot->layer, sl_clock_ns());
    if (failed != NULL) {
        fail(store, index, failed);
    } else {
        counters->expert_bytes += slot->expert_bytes;
        become_ready(store, slot);
    }
    sl_requests_give_slots(store);
}

void sl_slot_read_done(void *user, sl_read *read)
{
    sl_store *store = user;
    pthread_mutex_lock(&store->lock);
    uint32_t index = (uint32_t)((size_t)(read - store->slot_reads) / store->n_ranges);
    sl_slot *slot = &store->slots[index];
    store->meters[slot->layer].counters.bytes_read += read->bytes_read;
    if (--slot->n_unfinished == 0) {
        finish_reading(store, index);
    }
    pthread_mutex_unlock(&store->lock);
}
