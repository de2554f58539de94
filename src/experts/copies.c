/* Owns nothing: experts that the page cache has are copied by the threads that compute with them, as many at a time as there
 * are threads, and each may be computed with while it lies in the caches of its core. store.c has the states and the
 * invariants.
 *
 * Invariants
 *  (1) An expert is copied so only in a store with a slot for every expert, where nothing gives way for it. Where a core has nothing else to do, the engine copies what is kept, also ahead.
 *  (2) Who copies is to the slot what the engine is: it performs the reads of a slot in READING, which report themselves as
 *      all others do. A copy that fails is a read that failed; what left the page cache meanwhile comes from the disk.
 *  (3) A slot is transient from its copy for a chunk that keeps nothing, the first that asks for the expert, until the last
 *      pin is gone. It stays as an ordinary one if somebody else asks for the expert before that, or if the store is settled,
 *      its expert having been the last that was missing. So every expert is kept from the second time on.
 *
 * Threads: any. */
#include "experts/store_internal.h"

bool sl_expert_is_to_copy(const sl_store *store, uint32_t layer, uint32_t expert, bool keeps)
{
    if (!store->from_cache || store->n_slots < store->geometry.n_total ||
        (store->spare_core && (keeps || sl_mask_has(store, store->had_slots, layer, expert)))) {
        return false;
    }
    const sl_expert_range *ranges = &store->ranges[((size_t)layer * store->n_experts + expert) * store->n_ranges];
    for (uint32_t i_range = 0; i_range < store->n_ranges; i_range++) {
        const sl_expert_range *range = &ranges[i_range];
        if (range->bytes > 0 && !sl_file_is_cached(store->files[range->file].file, range->offset, range->bytes)) {
            return false;
        }
    }
    return true;
}

/* A slot for the next entry in TO_COPY. */
static uint32_t take_slot(sl_store *store, sl_store_request *request)
{
    while (sl_entry_state_of(request->progress[request->first_to_copy]) != SL_ENTRY_TO_COPY) {
        request->first_to_copy++;
    }
    uint32_t i_entry = request->first_to_copy;
    uint32_t expert = request->experts[i_entry];
    bool kept = request->keeps || sl_mask_has(store, store->had_slots, request->layer, expert);
    uint32_t slot = sl_slot_take(store, request, expert, request->time + i_entry);
    if (slot == SL_NO_SLOT) {
        return SL_NO_SLOT;
    }
    request->progress[i_entry] = sl_entry_word(SL_ENTRY_MISS, slot);
    request->n_to_copy--;
    store->slots[slot].n_pins++;
    store->slots[slot].transient = !kept;
    sl_requests_join(store, slot);
    sl_slot_start_reading(store, slot);
    return slot;
}

bool sl_request_copy(sl_store *store, sl_store_request *request, uint32_t *i_entry)
{
    uint32_t slot = request->n_to_copy > 0 && request->status == SLUICE_OK ? take_slot(store, request) : SL_NO_SLOT;
    if (slot == SL_NO_SLOT) {
        return false;
    }
    *i_entry = request->first_to_copy;
    uint32_t n_pieces = store->slots[slot].n_pieces;
    bool is_fresh = !store->slots[slot].has_pages;
    sl_read *reads = sl_slot_start_copying(store, slot);
    pthread_mutex_unlock(&store->lock);
    if (is_fresh) {
        sl_arena_populate_slot(store, slot);
    }
    for (uint32_t i_piece = 0; i_piece < n_pieces; i_piece++) {
        sl_reads_perform(&store->reads, &reads[i_piece]);
    }
    pthread_mutex_lock(&store->lock);
    return true;
}

bool sl_store_copy(sl_store *store, sl_store_request *request, sl_expert_view *view)
{
    uint32_t i_entry = 0;
    pthread_mutex_lock(&store->lock);
    bool copied = sl_request_copy(store, request, &i_entry) && request->status == SLUICE_OK;
    if (copied && view != NULL) {
        sl_request_deliver(store, request, i_entry, view);
    }
    pthread_mutex_unlock(&store->lock);
    return copied;
}
