/* Owns the hints: for each layer at most one list of experts that will probably be asked for when its turn comes.
 *
 * Invariants
 *  (1) A hint stands from sl_store_prefetch until a newer one for the layer, the layer's next request, or the number of
 *      requests by which that one was due. n_hints counts those that stand; masks of the others are empty.
 *  (2) Speculation never holds up what is waited for by more than the window: pieces are given to the engine one at a
 *      time, in the order of the hints, only while all bytes in flight are fewer than the window; the rest waits here,
 *      where a request overtakes it.
 *  (3) At most one slot is only partly started: `filling`. It is READING for a hint that stands, and unasked.
 *  (4) No slot is taken for a hint while a request lacks one, and never that of an expert that is pinned, on its way or
 *      named by a hint.
 *  (5) An unasked slot is asked for once (sl_slot_ask), or ends as useless (empty_slot): issued = used + useless +
 *      unasked slots.
 * Threads: the holder of the store's lock; sl_store_prefetch takes it. */
#include <string.h>

#include "experts/store_internal.h"

/* Until the disk's speed is known, and the bounds of what is taken for a millisecond of it: below the first a request
 * costs more than its bytes, above the second no disk gains by more. */
static const uint64_t default_window_bytes = UINT64_C(2) << 20;
static const uint64_t least_window_bytes = UINT64_C(1) << 20;
static const uint64_t largest_window_bytes = UINT64_C(16) << 20;
/* Reads must have taken this long to tell a speed. */
static const uint64_t measured_ns = 20000000;

static uint64_t *mask_of(const sl_store *store, uint32_t layer)
{
    return &store->hint_masks[(size_t)layer * store->n_mask_words];
}

bool sl_hints_name(const sl_store *store, uint32_t layer, uint32_t expert)
{
    return store->n_hints > 0 && sl_mask_has(store, store->hint_masks, layer, expert);
}

static void drop(sl_store *store, uint32_t layer)
{
    sl_hint *hint = &store->hints[layer];
    if (hint->n_experts == 0) {
        return;
    }
    *hint = (sl_hint){0};
    memset(mask_of(store, layer), 0, store->n_mask_words * sizeof(uint64_t));
    store->n_hints--;
    if (store->filling != SL_NO_SLOT && store->slots[store->filling].layer == layer) {
        sl_slot_abandon(store, store->filling);
    }
}

void sl_hints_pass(sl_store *store, uint32_t layer)
{
    drop(store, layer);
    for (uint32_t i_layer = 0; i_layer < store->n_layers && store->n_hints > 0; i_layer++) {
        if (store->hints[i_layer].expires_at <= store->n_begins) {
            drop(store, i_layer);
        }
    }
}

void sl_hints_drop_all(sl_store *store)
{
    for (uint32_t i_layer = 0; i_layer < store->n_layers; i_layer++) {
        drop(store, i_layer);
    }
}

/* What the disk moves in a millisecond, as far as it was measured. */
static uint64_t window_bytes(const sl_store *store)
{
    const sl_store_counters *total = &store->meters[store->n_layers].counters;
    if (store->prefetch_window_bytes > 0) {
        return store->prefetch_window_bytes;
    }
    if (total->busy_ns < measured_ns) {
        return default_window_bytes;
    }
    uint64_t bytes = total->bytes_read / (total->busy_ns / 1000000);
    return bytes < least_window_bytes     ? least_window_bytes
           : bytes > largest_window_bytes ? largest_window_bytes
                                          : bytes;
}

/* The hint whose layer comes first among those with something left to look at. */
static sl_hint *nearest_hint(sl_store *store)
{
    sl_hint *nearest = NULL;
    for (uint32_t i_layer = 0; i_layer < store->n_layers; i_layer++) {
        sl_hint *hint = &store->hints[i_layer];
        if (hint->next < hint->n_experts && (nearest == NULL || hint->expires_at < nearest->expires_at)) {
            nearest = hint;
        }
    }
    return nearest;
}

/* A slot for the next hinted expert that has none; false when there is nothing to read or no place for it. */
static bool begin_next(sl_store *store)
{
    if (store->n_hints == 0 || sl_requests_lack_slots(store)) {
        return false;
    }
    for (sl_hint *hint = nearest_hint(store); hint != NULL; hint = nearest_hint(store)) {
        uint32_t layer = (uint32_t)(hint - store->hints);
        uint32_t expert = store->hint_lists[(size_t)layer * store->n_experts + hint->next];
        if (*sl_slot_place(store, layer, expert) != SL_NO_SLOT ||
            sl_expert_is_to_copy(store, layer, expert, store->keeps)) {
            hint->next++;
            continue;
        }
        uint32_t slot = sl_slot_take_for_hint(store, layer, expert);
        if (slot == SL_NO_SLOT) {
            return false;
        }
        hint->next++;
        sl_slot_start_reading(store, slot);
        store->filling = store->slots[slot].state == SL_SLOT_READING ? slot : SL_NO_SLOT;
        return true;
    }
    return false;
}

void sl_hints_read(sl_store *store)
{
    if (store->n_hints == 0) {
        return;
    }
    uint64_t window = window_bytes(store);
    while (store->flying_bytes < window) {
        if (store->filling == SL_NO_SLOT && !begin_next(store)) {
            return;
        }
        if (store->filling != SL_NO_SLOT) {
            const sl_slot *slot = &store->slots[store->filling];
            sl_slot_start_piece(store, store->filling);
            store->filling = slot->n_started < slot->n_pieces ? store->filling : SL_NO_SLOT;
        }
    }
}

/* How many requests from now on the layer's turn comes, layer after layer. */
static uint64_t turns_until(const sl_store *store, uint32_t layer)
{
    return (layer + (uint64_t)store->n_layers - store->last_layer - 1) % store->n_layers + 1;
}

/* Put the hint down, each expert once. */
static void set_hint(sl_store *store, uint32_t layer, const uint32_t *experts, uint32_t n_experts)
{
    sl_hint *hint = &store->hints[layer];
    store->n_hints += hint->n_experts == 0 ? 1 : 0;
    *hint = (sl_hint){.expires_at = store->n_begins + turns_until(store, layer)};
    uint64_t *mask = mask_of(store, layer);
    memset(mask, 0, store->n_mask_words * sizeof *mask);
    for (uint32_t i_entry = 0; i_entry < n_experts; i_entry++) {
        uint32_t expert = experts[i_entry];
        if (expert < store->n_experts && (mask[expert / 64] >> (expert % 64) & 1u) == 0) {
            mask[expert / 64] |= (uint64_t)1 << (expert % 64);
            store->hint_lists[(size_t)layer * store->n_experts + hint->n_experts++] = expert;
        }
    }
    store->n_hints -= hint->n_experts == 0 ? 1 : 0;
}

void sl_store_prefetch(sl_store *store, uint32_t layer, const uint32_t *experts, uint32_t n_experts)
{
    if (layer >= store->n_layers || sl_store_is_settled(store)) {
        return;
    }
    pthread_mutex_lock(&store->lock);
    set_hint(store, layer, experts, n_experts);
    if (store->filling != SL_NO_SLOT && store->slots[store->filling].layer == layer &&
        !sl_hints_name(store, layer, store->slots[store->filling].expert)) {
        sl_slot_abandon(store, store->filling);
    }
    sl_hints_read(store);
    pthread_mutex_unlock(&store->lock);
}
