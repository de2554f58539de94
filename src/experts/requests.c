/* Owns nothing: what callers ask of the store; store.c has the states and the invariants.
 *
 * Life of an entry of a request, its progress word:
 *
 *   begin ---> HIT ------------------------+-> DELIVERED ---> RELEASED
 *    | | \                                 |  [wait, copy]    [release]
 *    | |  `--> MISS (slot on its way) -----+
 *    | v           ^  ^  `-> FAILED [sl_requests_fail_slot]
 *    | WITHOUT_SLOT-' |
 *    |  [give_slots]  |       either joins when another request's slot starts reading the same expert
 *    `--> TO_COPY ----'
 *          [sl_request_copy]
 *
 * A settled request has HIT, DELIVERED and RELEASED alone, is on no list and pins nothing (settled.c).
 * Threads: the public functions take the lock, except for settled requests; the others are called with it. */
#include "experts/store_internal.h"

#include <inttypes.h>

#include "os/clock.h"

/* A larger chunk takes longer to compute than to copy: what it saves is not worth copying twice. */
static const uint32_t max_passing_tokens = 128;

/* An entry without a slot gets one that its expert has already. */
static void join(sl_store *store, sl_store_request *request, uint32_t i_entry, uint32_t slot, sl_entry_state state)
{
    request->progress[i_entry] = sl_entry_word(state, slot);
    sl_slot_ask(store, slot);
    store->slots[slot].transient = false;
    store->slots[slot].n_pins++;
    store->policy->type->hit(store->policy, slot, request->time + i_entry);
}

/* The request's count of entries that are in a state without slot; NULL for another state. */
static uint32_t *count_of(sl_store_request *request, sl_entry_state state)
{
    return state == SL_ENTRY_WITHOUT_SLOT ? &request->n_without_slot
           : state == SL_ENTRY_TO_COPY    ? &request->n_to_copy
                                          : NULL;
}

void sl_requests_join(sl_store *store, uint32_t index)
{
    const sl_slot *slot = &store->slots[index];
    for (sl_store_request *request = store->requests; request != NULL; request = request->next) {
        if (request->layer != slot->layer || request->n_without_slot + request->n_to_copy == 0 ||
            request->status != SLUICE_OK) {
            continue;
        }
        for (uint32_t i_entry = 0; i_entry < request->n_experts; i_entry++) {
            uint32_t *count = count_of(request, sl_entry_state_of(request->progress[i_entry]));
            if (count != NULL && request->experts[i_entry] == slot->expert) {
                join(store, request, i_entry, index, SL_ENTRY_MISS);
                (*count)--;
            }
        }
    }
}

/* Slots for one request, in the order of its list, as far as there are any. */
static void give_slots_to(sl_store *store, sl_store_request *request)
{
    while (request->n_without_slot > 0 && request->status == SLUICE_OK) {
        uint32_t i_entry = request->first_without_slot;
        if (sl_entry_state_of(request->progress[i_entry]) != SL_ENTRY_WITHOUT_SLOT) {
            request->first_without_slot++;
            continue;
        }
        uint32_t slot = sl_slot_take(store, request, request->experts[i_entry], request->time + i_entry);
        if (slot == SL_NO_SLOT) {
            return;
        }
        request->progress[i_entry] = sl_entry_word(SL_ENTRY_MISS, slot);
        request->n_without_slot--;
        store->slots[slot].n_pins++;
        sl_requests_join(store, slot);
        sl_slot_start_reading(store, slot);
        sl_slot_start_pieces(store, slot);
    }
}

bool sl_requests_lack_slots(const sl_store *store)
{
    for (const sl_store_request *request = store->requests; request != NULL; request = request->next) {
        if (request->n_without_slot > 0 && request->status == SLUICE_OK) {
            return true;
        }
    }
    return false;
}

void sl_requests_give_slots(sl_store *store)
{
    for (sl_store_request *request = store->requests; request != NULL; request = request->next) {
        give_slots_to(store, request);
    }
}

void sl_requests_fail_slot(sl_store *store, uint32_t slot, const sluice_error *error)
{
    for (sl_store_request *request = store->requests; request != NULL; request = request->next) {
        for (uint32_t i_entry = 0; i_entry < request->n_experts; i_entry++) {
            uint64_t word = request->progress[i_entry];
            if (!sl_entry_holds(word) || sl_entry_slot_of(word) != slot) {
                continue;
            }
            sl_slot_unpin(store, slot);
            request->progress[i_entry] = sl_entry_word(SL_ENTRY_FAILED, SL_NO_SLOT);
            if (request->status == SLUICE_OK) {
                request->status = error->status;
                request->error = *error;
            }
        }
    }
}

static sluice_status check_request(const sl_store *store, uint32_t layer, const uint32_t *experts, uint32_t n_experts,
                                   sluice_error *error)
{
    if (layer >= store->n_layers) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "MoE layer %" PRIu32 " was asked for, but there are %" PRIu32 " of them", layer,
                            store->n_layers);
    }
    for (uint32_t i_entry = 0; i_entry < n_experts; i_entry++) {
        if (experts[i_entry] >= store->n_experts) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "expert %" PRIu32 " of MoE layer %" PRIu32 " was asked for, but there are %" PRIu32
                                " of them",
                                experts[i_entry], layer, store->n_experts);
        }
    }
    return SLUICE_OK;
}

/* Whether the expert gave way to a prefetch since it was asked for last; forgets it. */
static bool was_displaced(sl_store *store, uint32_t layer, uint32_t expert)
{
    bool displaced = sl_mask_has(store, store->displaced, layer, expert);
    *sl_mask_word(store, store->displaced, layer, expert) &= ~((uint64_t)1 << (expert % 64));
    return displaced;
}

static void tell_policy(sl_store *store, const sl_store_request *request, const uint32_t *tokens_of, uint32_t n_tokens)
{
    const sl_policy_request routed = {.layer = request->layer,
                                      .n_experts = request->n_experts,
                                      .experts = request->experts,
                                      .tokens_of = tokens_of,
                                      .n_tokens = n_tokens,
                                      .time = request->time};
    store->policy->type->routed(store->policy, &routed);
}

/* Pin what is READY or on its way, and count. All hits are pinned before the first miss takes a slot. */
static void pin_present(sl_store *store, sl_store_request *request)
{
    sl_store_counters *counters = &store->meters[request->layer].counters;
    uint32_t n_hits = 0;
    for (uint32_t i_entry = 0; i_entry < request->n_experts; i_entry++) {
        bool displaced = was_displaced(store, request->layer, request->experts[i_entry]);
        uint32_t slot = *sl_slot_place(store, request->layer, request->experts[i_entry]);
        if (slot == SL_NO_SLOT) {
            sl_entry_state state =
                sl_expert_is_to_copy(store, request->layer, request->experts[i_entry], request->keeps)
                    ? SL_ENTRY_TO_COPY
                    : SL_ENTRY_WITHOUT_SLOT;
            request->progress[i_entry] = sl_entry_word(state, SL_NO_SLOT);
            (*count_of(request, state))++;
            counters->prefetch_displaced += displaced ? 1 : 0;
        } else if (store->slots[slot].state == SL_SLOT_READY) {
            join(store, request, i_entry, slot, SL_ENTRY_HIT);
            n_hits++;
        } else {
            join(store, request, i_entry, slot, SL_ENTRY_MISS);
        }
    }
    counters->requests += request->n_experts;
    counters->hits += n_hits;
    counters->misses += request->n_experts - n_hits;
    request->n_copies = request->n_to_copy;
    counters->prefetch_ahead_bytes += n_hits < request->n_experts ? store->flying_unasked_bytes : 0;
}

sluice_status sl_store_begin(sl_store *store, sl_store_request *request, uint32_t layer, const uint32_t *experts,
                             uint32_t n_experts, uint64_t *progress, sluice_error *error)
{
    return sl_store_begin_chunk(store, request, layer, experts, NULL, n_experts, 1, progress, error);
}

sluice_status sl_store_begin_chunk(sl_store *store, sl_store_request *request, uint32_t layer, const uint32_t *experts,
                                   const uint32_t *tokens_of, uint32_t n_experts, uint32_t n_tokens, uint64_t *progress,
                                   sluice_error *error)
{
    request->n_experts = 0;
    request->settled = false;
    request->status = SLUICE_OK;
    SL_TRY(check_request(store, layer, experts, n_experts, error));
    request->layer = layer;
    request->n_experts = n_experts;
    request->experts = experts;
    request->n_delivered = 0;
    request->n_released = 0;
    request->n_without_slot = 0;
    request->first_without_slot = 0;
    request->n_copies = 0;
    request->n_to_copy = 0;
    request->first_to_copy = 0;
    request->keeps = !store->cache_stays || n_tokens == 1 || n_tokens > max_passing_tokens;
    request->progress = progress;
    request->next = NULL;
    request->settled = sl_settled_begin(store, request);
    if (request->settled) {
        return SLUICE_OK;
    }

    pthread_mutex_lock(&store->lock);
    request->time = store->time;
    store->time += n_experts;
    store->n_begins++;
    store->last_layer = layer;
    store->keeps = request->keeps;
    tell_policy(store, request, tokens_of, n_tokens);
    pin_present(store, request);
    sl_hints_pass(store, layer);
    sl_store_request **link = &store->requests;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = request;
    give_slots_to(store, request);
    sl_hints_read(store);
    pthread_mutex_unlock(&store->lock);
    return SLUICE_OK;
}

/* Whether the entry can be delivered now, and its rank: hits by place in the list, then misses by arrival. */
static bool is_deliverable(const sl_store *store, const sl_store_request *request, uint32_t i_entry, uint64_t *rank)
{
    uint64_t word = request->progress[i_entry];
    sl_entry_state state = sl_entry_state_of(word);
    if (state == SL_ENTRY_HIT) {
        *rank = i_entry;
        return true;
    }
    if (state != SL_ENTRY_MISS) {
        return false;
    }
    const sl_slot *slot = &store->slots[sl_entry_slot_of(word)];
    *rank = ((uint64_t)1 << 32) + slot->arrival;
    return slot->state == SL_SLOT_READY;
}

/* Put the entry of rank `rank` in its place among the best `capacity` so far. */
static void insert_ranked(const sl_store *store, const sl_store_request *request, sl_expert_view *ready,
                          uint32_t capacity, uint32_t *n_ready, uint32_t i_entry, uint64_t rank)
{
    uint32_t place = *n_ready;
    while (place > 0) {
        uint64_t other_rank = 0;
        (void)is_deliverable(store, request, ready[place - 1].index, &other_rank);
        if (other_rank <= rank) {
            break;
        }
        place--;
    }
    if (place == capacity) {
        return;
    }
    if (*n_ready < capacity) {
        (*n_ready)++;
    }
    for (uint32_t i_view = *n_ready - 1; i_view > place; i_view--) {
        ready[i_view].index = ready[i_view - 1].index;
    }
    ready[place].index = i_entry;
}

void sl_request_deliver(const sl_store *store, sl_store_request *request, uint32_t i_entry, sl_expert_view *view)
{
    uint32_t index = sl_entry_slot_of(request->progress[i_entry]);
    const sl_slot *slot = &store->slots[index];
    const unsigned char *start = store->arena + (size_t)index * store->geometry.slot_bytes;
    view->index = i_entry;
    view->expert = slot->expert;
    view->slot = index;
    view->was_resident = sl_entry_state_of(request->progress[i_entry]) == SL_ENTRY_HIT;
    for (uint32_t i_range = 0; i_range < SL_EXPERT_MAX_RANGES; i_range++) {
        bool present = i_range < store->n_ranges && slot->matrix_offsets[i_range] != SL_NO_MATRIX;
        view->matrices[i_range] = present ? start + slot->matrix_offsets[i_range] : NULL;
    }
    request->progress[i_entry] = sl_entry_word(SL_ENTRY_DELIVERED, index);
    request->n_delivered++;
}

static uint32_t deliver(sl_store *store, sl_store_request *request, sl_expert_view *ready, uint32_t capacity)
{
    uint32_t n_ready = 0;
    for (uint32_t i_entry = 0; i_entry < request->n_experts; i_entry++) {
        uint64_t rank = 0;
        if (is_deliverable(store, request, i_entry, &rank)) {
            insert_ranked(store, request, ready, capacity, &n_ready, i_entry, rank);
        }
    }
    for (uint32_t i_view = 0; i_view < n_ready; i_view++) {
        sl_request_deliver(store, request, ready[i_view].index, &ready[i_view]);
    }
    return n_ready;
}

/* Whether a slot that is being read, and that nobody holds, will be there for who waits. */
static bool a_slot_will_come(const sl_store *store)
{
    for (uint32_t index = 0; index < store->n_slots; index++) {
        if (store->slots[index].state == SL_SLOT_READING && store->slots[index].n_pins == 0) {
            return true;
        }
    }
    return false;
}

/* Whether a wait with nothing deliverable would depend on the caller itself: everything the request has is delivered
 * and not released, and the rest has no slot nor will find one. */
static bool waits_for_itself(const sl_store *store, const sl_store_request *request)
{
    return request->n_delivered > request->n_released &&
           request->n_experts - request->n_delivered == request->n_without_slot + request->n_to_copy &&
           !a_slot_will_come(store);
}

static sluice_status wait_locked(sl_store *store, sl_store_request *request, sl_expert_view *ready, uint32_t capacity,
                                 uint32_t *n_ready, sluice_error *error)
{
    uint64_t wait_start_ns = 0;
    sluice_status status = SLUICE_OK;
    for (;;) {
        if (request->status != SLUICE_OK) {
            if (error != NULL) {
                *error = request->error;
            }
            status = request->status;
            break;
        }
        *n_ready = deliver(store, request, ready, capacity);
        if (*n_ready > 0 || request->n_delivered == request->n_experts) {
            break;
        }
        uint32_t i_entry;
        if (sl_request_copy(store, request, &i_entry)) {
            continue;
        }
        if (waits_for_itself(store, request)) {
            status = sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                  "MoE layer %" PRIu32 ": %" PRIu32 " experts still need a slot and %" PRIu32
                                  " delivered ones are not released; release before waiting again",
                                  request->layer, request->n_without_slot + request->n_to_copy,
                                  request->n_delivered - request->n_released);
            break;
        }
        if (wait_start_ns == 0) {
            wait_start_ns = sl_clock_ns();
        }
        if (!sl_arena_populate(store, request)) {
            pthread_cond_wait(&store->slot_ready, &store->lock);
        }
    }
    if (wait_start_ns != 0) {
        store->meters[request->layer].counters.wait_ns += sl_clock_ns() - wait_start_ns;
    }
    return status;
}

sluice_status sl_store_wait(sl_store *store, sl_store_request *request, sl_expert_view *ready, uint32_t capacity,
                            uint32_t *n_ready, sluice_error *error)
{
    *n_ready = 0;
    if (capacity == 0) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "room for at least 1 expert is needed to wait, found 0");
    }
    if (request->settled) {
        *n_ready = deliver(store, request, ready, capacity);
        return SLUICE_OK;
    }
    pthread_mutex_lock(&store->lock);
    sluice_status status = wait_locked(store, request, ready, capacity, n_ready, error);
    pthread_mutex_unlock(&store->lock);
    return status;
}

/* DELIVERED -> RELEASED; false when the view is none of the request's. */
static bool release_entry(sl_store_request *request, const sl_expert_view *view)
{
    if (view->index >= request->n_experts ||
        request->progress[view->index] != sl_entry_word(SL_ENTRY_DELIVERED, view->slot)) {
        return false;
    }
    request->progress[view->index] = sl_entry_word(SL_ENTRY_RELEASED, SL_NO_SLOT);
    request->n_released++;
    return true;
}

void sl_store_release(sl_store *store, sl_store_request *request, const sl_expert_view *view)
{
    if (request->settled) {
        (void)release_entry(request, view);
        return;
    }
    pthread_mutex_lock(&store->lock);
    if (release_entry(request, view)) {
        sl_slot_unpin(store, view->slot);
        sl_requests_give_slots(store);
        sl_hints_read(store);
    }
    pthread_mutex_unlock(&store->lock);
}

/* Take an open request off the list, and its pins away. */
static void end_locked(sl_store *store, sl_store_request *request)
{
    sl_store_request **link = &store->requests;
    while (*link != NULL && *link != request) {
        link = &(*link)->next;
    }
    if (*link == request) {
        *link = request->next;
        for (uint32_t i_entry = 0; i_entry < request->n_experts; i_entry++) {
            if (sl_entry_holds(request->progress[i_entry])) {
                sl_slot_unpin(store, sl_entry_slot_of(request->progress[i_entry]));
            }
        }
        sl_requests_give_slots(store);
        sl_hints_read(store);
    }
}

void sl_store_end(sl_store *store, sl_store_request *request)
{
    if (request->settled) {
        sl_settled_end(store);
    } else {
        pthread_mutex_lock(&store->lock);
        end_locked(store, request);
        pthread_mutex_unlock(&store->lock);
    }
    request->settled = false;
    request->n_experts = 0;
    request->n_without_slot = 0;
    request->n_to_copy = 0;
    request->next = NULL;
}
