/* Owns the way through a settled store: one whose experts are all in their slots, to stay. Requests take no lock there,
 * so that a model that fits is decoded without any.
 *
 * Invariants
 *  (1) `settled` is set under the lock, when every expert has a slot in use that is READY. Then nobody can miss, so nothing
 *      is read, takes a slot or gives way, and slots keep their experts until the number of slots changes.
 *  (2) Before that changes `settled` is cleared, and who clears it waits until n_inside is 0. A request counts itself in
 *      before it looks at `settled` for the last time, so one of the two sees the other (both sequentially consistent).
 *  (3) A request that counted itself in touches its own fields and what does not change in a settled store: the table of
 *      slots, their experts and the places of matrices. It pins nothing, and policies and hints do not hear of it: there is
 *      nothing to decide, and when there is again they go on from what they knew.
 *  (4) The first request for an expert that came by a hint goes by the lock, because it is counted as the hint's.
 * Threads: any; sl_store_settle and sl_store_unsettle under the lock. */
#include "experts/store_internal.h"

void sl_store_settle(sl_store *store)
{
    if (store->n_ready == store->geometry.n_total && store->n_slots == store->geometry.n_total) {
        sl_hints_drop_all(store);
        atomic_store(&store->settled, true);
    }
}

void sl_store_unsettle(sl_store *store)
{
    atomic_store(&store->settled, false);
    while (atomic_load(&store->n_inside) > 0) {
        pthread_cond_wait(&store->slots_left, &store->lock);
    }
}

bool sl_store_is_settled(const sl_store *store)
{
    return atomic_load_explicit(&store->settled, memory_order_relaxed);
}

static bool all_were_asked_for(sl_store *store, const sl_store_request *request)
{
    for (uint32_t i_entry = 0; i_entry < request->n_experts; i_entry++) {
        uint32_t slot = *sl_slot_place(store, request->layer, request->experts[i_entry]);
        if (__atomic_load_n(&store->slots[slot].unasked, __ATOMIC_RELAXED)) {
            return false;
        }
    }
    return true;
}

bool sl_settled_begin(sl_store *store, sl_store_request *request)
{
    if (!sl_store_is_settled(store)) {
        return false;
    }
    atomic_fetch_add(&store->n_inside, 1);
    if (!atomic_load(&store->settled) || !all_were_asked_for(store, request)) {
        sl_settled_end(store);
        return false;
    }
    for (uint32_t i_entry = 0; i_entry < request->n_experts; i_entry++) {
        uint32_t slot = *sl_slot_place(store, request->layer, request->experts[i_entry]);
        request->progress[i_entry] = sl_entry_word(SL_ENTRY_HIT, slot);
    }
    atomic_fetch_add_explicit(&store->meters[request->layer].settled_hits, request->n_experts, memory_order_relaxed);
    return true;
}

void sl_settled_end(sl_store *store)
{
    if (atomic_fetch_sub(&store->n_inside, 1) == 1 && !atomic_load(&store->settled)) {
        pthread_mutex_lock(&store->lock);
        pthread_cond_broadcast(&store->slots_left);
        pthread_mutex_unlock(&store->lock);
    }
}
