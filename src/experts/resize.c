/* Owns the arena: addresses for a slot for every expert, of which the first ones hold memory. store.c has the
 * invariants of the slots.
 *
 * Invariants
 *  (1) The first n_committed slots hold memory and are charged to the account; n_slots of them are in use. The two
 *      differ only while resize_lock is held, or when the kernel did not take memory back.
 *  (2) Memory is charged before it is committed, and discharged after it was given back.
 *  (3) The memory of a slot is given back only when the slot is ABSENT and beyond those in use: nothing reads it,
 *      computes with it or finds it on the free list.
 *  (4) Memory is given back only while the read engine has none of the arena registered: what is registered keeps its
 *      pages, and reads would go on into pages that the slots no longer have. That holds for every slot, because the
 *      last one that stays may share a large page with the first that goes.
 *  (5) The address space is never charged: where nothing was touched the kernel holds nothing, page tables included.
 *      Those of touched slots are for the engine's plan to count.
 *  (6) Memory that is touched for the first time has to be cleared by the kernel, which takes as long as copying into it: a
 *      thread that waits for reads does that for the slots whose turn comes later. Memory is given back only while
 *      none does (n_populating).
 *
 * Threads: any; one changes the number of slots at a time (resize_lock), requests go on under the store's lock. */
#include "experts/store_internal.h"

#include <inttypes.h>

#include "base/checked.h"
#include "os/pages.h"

/* From here on huge pages are worth what it takes the kernel to find them. */
static const uint64_t large_arena_bytes = 64 * (uint64_t)SL_HUGE_PAGE_BYTES;

static const uint64_t populate_lead_bytes = 2 * (uint64_t)SL_HUGE_PAGE_BYTES;

/* Of free slots, at most, that are prepared: what is read meanwhile; not more than layers still to come may ask for. */
static const uint64_t prepared_bytes = 128 * (uint64_t)SL_HUGE_PAGE_BYTES;

static size_t bytes_of(const sl_store *store, uint32_t n_slots)
{
    return (size_t)n_slots * store->geometry.slot_bytes;
}

/* Charge and commit the slots up to `n_slots`. */
static sluice_status commit(sl_store *store, uint32_t n_slots, sluice_error *error)
{
    size_t committed = bytes_of(store, store->n_committed);
    size_t more = bytes_of(store, n_slots) - committed;
    if (!sl_memory_charge(store->memory, SL_MEMORY_EXPERTS, more)) {
        return sl_error_no_memory(error, more, "the expert slots");
    }
    if (!sl_pages_commit(store->arena + committed, more)) {
        sl_memory_discharge(store->memory, SL_MEMORY_EXPERTS, more);
        return sl_error_no_memory(error, more, "the expert slots");
    }
    store->n_committed = n_slots;
    if (bytes_of(store, n_slots) >= large_arena_bytes) {
        sl_pages_advise_huge(store->arena, bytes_of(store, n_slots));
    }
    return SLUICE_OK;
}

/* Give back the memory beyond `n_slots`. */
static sluice_status release(sl_store *store, uint32_t n_slots, sluice_error *error)
{
    size_t kept = bytes_of(store, n_slots);
    size_t less = bytes_of(store, store->n_committed) - kept;
    sl_reads_register_memory(&store->reads, false);
    bool released = sl_pages_release(store->arena + kept, less);
    sl_reads_register_memory(&store->reads, true);
    if (!released) {
        return sl_error_set(error, SLUICE_ERROR_SYSTEM,
                            "the kernel does not take back %zu bytes of expert slots that are no longer used; it may "
                            "on the next try, or when locked memory is unlocked",
                            less);
    }
    sl_memory_discharge(store->memory, SL_MEMORY_EXPERTS, less);
    store->n_committed = n_slots;
    return SLUICE_OK;
}

sluice_status sl_arena_open(sl_store *store, uint32_t n_slots, sluice_error *error)
{
    uint64_t all_bytes = 0;
    uint32_t n_total = (uint32_t)store->geometry.n_total;
    if (sl_checked_multiply(n_total, store->geometry.slot_bytes, &all_bytes) && all_bytes <= INT64_MAX / 2) {
        store->arena = sl_pages_reserve(all_bytes);
        store->max_slots = n_total;
    }
    if (store->arena == NULL) {
        store->arena = sl_pages_reserve(bytes_of(store, n_slots));
        store->max_slots = n_slots;
        sl_log_line(store->log, SL_LOG_INFO,
                    "the system has no addresses for all %" PRIu32 " experts: there will be %" PRIu32 " slots at most",
                    n_total, n_slots);
    }
    if (store->arena == NULL) {
        return sl_error_no_memory(error, bytes_of(store, n_slots), "the expert slots");
    }
    SL_TRY(commit(store, n_slots, error));
    pthread_mutex_lock(&store->lock);
    sl_slots_limit(store, n_slots);
    pthread_mutex_unlock(&store->lock);
    return SLUICE_OK;
}

void sl_arena_close(sl_store *store)
{
    sl_pages_unreserve(store->arena, bytes_of(store, store->max_slots));
    if (store->n_committed > 0) {
        sl_memory_discharge(store->memory, SL_MEMORY_EXPERTS, bytes_of(store, store->n_committed));
    }
}

/* A slot of the request that is being read and never held memory. The reads are at the first of these; of those that follow
 * so many are passed over that they do not touch the same pages meanwhile. */
static uint32_t slot_to_populate(const sl_store *store, const sl_store_request *request)
{
    const uint64_t n_ahead = 2 + populate_lead_bytes / store->geometry.slot_bytes;
    uint64_t n_found = 0;
    for (uint32_t i_entry = 0; i_entry < request->n_experts; i_entry++) {
        uint64_t word = request->progress[i_entry];
        if (sl_entry_state_of(word) != SL_ENTRY_MISS) {
            continue;
        }
        const sl_slot *slot = &store->slots[sl_entry_slot_of(word)];
        if (slot->state == SL_SLOT_READING && !slot->has_pages && n_found++ == n_ahead) {
            return sl_entry_slot_of(word);
        }
    }
    return SL_NO_SLOT;
}

/* Under the lock, which is free meanwhile. */
static void populate(sl_store *store, uint32_t index)
{
    store->slots[index].has_pages = true;
    store->n_populating++;
    pthread_mutex_unlock(&store->lock);
    (void)sl_pages_populate(store->arena + bytes_of(store, index), store->geometry.slot_bytes);
    pthread_mutex_lock(&store->lock);
    if (--store->n_populating == 0) {
        pthread_cond_broadcast(&store->slots_left);
    }
}

static uint64_t bytes_to_prepare(const sl_store *store, const sl_store_request *request)
{
    if (bytes_of(store, store->n_slots) < large_arena_bytes) {
        return 0;
    }
    uint32_t n_layers_left = request != NULL ? store->n_layers - 1 - request->layer : store->n_layers;
    uint64_t left_bytes = bytes_of(store, request != NULL ? request->n_experts : store->n_experts) * n_layers_left;
    return left_bytes < prepared_bytes ? left_bytes : prepared_bytes;
}

/* One of the slots that are used next, if it never held memory. */
static uint32_t free_slot_to_populate(const sl_store *store, const sl_store_request *request)
{
    uint64_t left_bytes = bytes_to_prepare(store, request);
    uint32_t index = store->first_free;
    while (index != SL_NO_SLOT && store->slots[index].has_pages && left_bytes >= store->geometry.slot_bytes) {
        left_bytes -= store->geometry.slot_bytes;
        index = store->slots[index].next_free;
    }
    return left_bytes >= store->geometry.slot_bytes ? index : SL_NO_SLOT;
}

bool sl_arena_populate(sl_store *store, const sl_store_request *request)
{
    uint32_t index = request != NULL ? slot_to_populate(store, request) : SL_NO_SLOT;
    index = index != SL_NO_SLOT ? index : free_slot_to_populate(store, request);
    if (index != SL_NO_SLOT) {
        populate(store, index);
    }
    return index != SL_NO_SLOT;
}

/* The large pages that begin in the slot: the one before them belongs to the slot before, into which another thread may be
 * copying, and two that touch a page at a time both clear it. */
void sl_arena_populate_slot(sl_store *store, uint32_t index)
{
    size_t begin = (bytes_of(store, index) + SL_HUGE_PAGE_BYTES - 1) & ~(size_t)(SL_HUGE_PAGE_BYTES - 1);
    size_t end = bytes_of(store, index + 1);
    if (begin < end) {
        (void)sl_pages_populate(store->arena + begin, end - begin);
    }
}

bool sl_store_prepare(sl_store *store)
{
    pthread_mutex_lock(&store->lock);
    bool prepared = sl_arena_populate(store, NULL);
    pthread_mutex_unlock(&store->lock);
    return prepared;
}

/* Use `n_slots` of the committed slots, and wait until the others are empty. */
static void limit_and_wait(sl_store *store, uint32_t n_slots)
{
    pthread_mutex_lock(&store->lock);
    sl_store_unsettle(store);
    sl_slots_limit(store, n_slots);
    while (store->n_leaving > 0 || store->n_populating > 0) {
        pthread_cond_wait(&store->slots_left, &store->lock);
    }
    for (uint32_t index = n_slots; index < store->n_committed; index++) {
        store->slots[index].has_pages = false;
    }
    pthread_mutex_unlock(&store->lock);
}

static sluice_status set_slots_locked(sl_store *store, uint32_t n_slots, sluice_error *error)
{
    if (n_slots > store->n_committed) {
        SL_TRY(commit(store, n_slots, error));
    }
    limit_and_wait(store, n_slots);
    return n_slots < store->n_committed ? release(store, n_slots, error) : SLUICE_OK;
}

sluice_status sl_store_set_slots(sl_store *store, uint64_t n_slots, sluice_error *error)
{
    if (n_slots < 1) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "expected 1 or more expert slots, found 0");
    }
    uint64_t n_wanted = n_slots < store->geometry.n_total ? n_slots : store->geometry.n_total;
    if (n_wanted > store->max_slots) {
        return sl_error_set(error, SLUICE_ERROR_SYSTEM,
                            "%" PRIu64
                            " expert slots: when this engine was opened the system had addresses for %" PRIu32
                            " and no more; lift its limit of address space (ulimit -v) and open the engine again",
                            n_wanted, store->max_slots);
    }
    pthread_mutex_lock(&store->resize_lock);
    sluice_status status = set_slots_locked(store, (uint32_t)n_wanted, error);
    pthread_mutex_unlock(&store->resize_lock);
    return status;
}

uint64_t sl_store_n_slots(sl_store *store)
{
    pthread_mutex_lock(&store->lock);
    uint64_t n_slots = store->n_slots;
    pthread_mutex_unlock(&store->lock);
    return n_slots;
}

uint64_t sl_store_max_slots(const sl_store *store)
{
    return store->max_slots;
}
