/* Owns the transitions of a slot; store.c has the diagram and the invariants.
 * Threads: the holder of the store's lock. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "experts/store_internal.h"
#include "os/clock.h"

void sl_slots_init(sl_store *store)
{
    store->first_free = SL_NO_SLOT;
    for (uint64_t place = 0; place < store->geometry.n_total; place++) {
        store->slot_of_expert[place] = SL_NO_SLOT;
    }
}

uint32_t *sl_slot_place(sl_store *store, uint32_t layer, uint32_t expert)
{
    return &store->slot_of_expert[(size_t)layer * store->n_experts + expert];
}

/* Bytes of the slot's pieces that are with the engine, or that have arrived. */
static uint64_t piece_bytes(const sl_slot *slot, bool arrived)
{
    uint64_t bytes = 0;
    for (uint32_t i_piece = 0; i_piece < slot->n_started; i_piece++) {
        if (((slot->finished >> i_piece & 1u) != 0) == arrived) {
            bytes += slot->piece_bytes[i_piece];
        }
    }
    return bytes;
}

/* READY or READING -> ABSENT, with nothing in flight. */
static void empty_slot(sl_store *store, uint32_t index)
{
    sl_slot *slot = &store->slots[index];
    if (slot->unasked) {
        sl_store_counters *counters = &store->meters[slot->layer].counters;
        counters->prefetch_useless++;
        counters->prefetch_useless_bytes += piece_bytes(slot, true);
        slot->unasked = false;
    }
    *sl_slot_place(store, slot->layer, slot->expert) = SL_NO_SLOT;
    store->n_ready -= slot->state == SL_SLOT_READY ? 1 : 0;
    store->policy->type->evict(store->policy, index);
    slot->state = SL_SLOT_ABSENT;
    slot->transient = false;
    if (index < store->n_slots) {
        slot->next_free = store->first_free;
        store->first_free = index;
    } else if (--store->n_leaving == 0) {
        pthread_cond_broadcast(&store->slots_left);
    }
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
 * read was the faster. Slots that others hold are passed over, because nothing says when they are released, and those
 * beyond the ones in use. With `spare`, so are those of experts that a hint names. */
static uint32_t find_victim(sl_store *store, const sl_store_request *request, bool spare)
{
    const sl_policy *policy = store->policy;
    for (uint32_t index = policy->type->first_victim(policy); index != SL_NO_SLOT;
         index = policy->type->next_victim(policy, index)) {
        const sl_slot *slot = &store->slots[index];
        if (index >= store->n_slots) {
            continue;
        }
        if (slot->n_pins == 0 && slot->state == SL_SLOT_READY &&
            !(spare && sl_hints_name(store, slot->layer, slot->expert))) {
            return index;
        }
        if (request != NULL && slot->n_pins > 0 && slot->layer == request->layer && request_holds(request, index)) {
            return SL_NO_SLOT;
        }
    }
    return SL_NO_SLOT;
}

/* Empty the victim. */
static void evict(sl_store *store, uint32_t victim)
{
    store->meters[store->slots[victim].layer].counters.evictions++;
    empty_slot(store, victim);
}

/* A slot beyond those in use keeps its expert only as long as somebody needs it there. */
static void evict_if_leaving(sl_store *store, uint32_t index)
{
    const sl_slot *slot = &store->slots[index];
    if (index >= store->n_slots && slot->state == SL_SLOT_READY && slot->n_pins == 0) {
        evict(store, index);
    }
}

void sl_slot_unpin(sl_store *store, uint32_t index)
{
    sl_slot *slot = &store->slots[index];
    slot->n_pins--;
    if (slot->transient && slot->n_pins == 0 && slot->state == SL_SLOT_READY && !sl_store_is_settled(store)) {
        empty_slot(store, index);
    } else {
        evict_if_leaving(store, index);
    }
}

static void begin_using(sl_store *store, uint32_t begin, uint32_t end)
{
    for (uint32_t index = end; index-- > begin;) {
        store->slots[index].next_free = store->first_free;
        store->first_free = index;
    }
}

static void stop_using(sl_store *store, uint32_t begin, uint32_t end)
{
    uint32_t *link = &store->first_free;
    while (*link != SL_NO_SLOT) {
        if (*link >= begin) {
            *link = store->slots[*link].next_free;
        } else {
            link = &store->slots[*link].next_free;
        }
    }
    for (uint32_t index = begin; index < end; index++) {
        store->n_leaving += store->slots[index].state != SL_SLOT_ABSENT ? 1 : 0;
    }
    for (uint32_t index = begin; index < end; index++) {
        if (index == store->filling) {
            sl_slot_abandon(store, index);
        } else {
            evict_if_leaving(store, index);
        }
    }
}

void sl_slots_limit(sl_store *store, uint32_t n_slots)
{
    uint32_t n_before = store->n_slots;
    store->n_slots = n_slots;
    store->policy->type->limit(store->policy, n_slots);
    if (n_slots > n_before) {
        begin_using(store, n_before, n_slots);
    } else {
        stop_using(store, n_slots, n_before);
    }
    sl_requests_give_slots(store);
    if (sl_requests_lack_slots(store)) {
        pthread_cond_broadcast(&store->slot_ready); /* the slot they hoped for may be out of their reach */
    }
    sl_hints_read(store);
    sl_store_settle(store);
}

/* The first free slot is the expert's: ABSENT -> QUEUED. */
static uint32_t occupy(sl_store *store, uint32_t layer, uint32_t expert)
{
    uint32_t index = store->first_free;
    sl_slot *slot = &store->slots[index];
    store->first_free = slot->next_free;
    *slot = (sl_slot){.state = SL_SLOT_QUEUED,
                      .layer = layer,
                      .expert = expert,
                      .next_free = SL_NO_SLOT,
                      .has_pages = slot->has_pages};
    *sl_slot_place(store, layer, expert) = index;
    sl_mask_add(store, store->had_slots, layer, expert);
    return index;
}

uint32_t sl_slot_take(sl_store *store, const sl_store_request *request, uint32_t expert, uint64_t time)
{
    if (store->first_free == SL_NO_SLOT) {
        uint32_t victim = find_victim(store, request, true);
        if (victim == SL_NO_SLOT && store->filling != SL_NO_SLOT) {
            sl_slot_abandon(store, store->filling);
        } else if (victim == SL_NO_SLOT && store->n_hints > 0) {
            victim = find_victim(store, request, false);
        }
        if (victim != SL_NO_SLOT) {
            evict(store, victim);
        }
        if (store->first_free == SL_NO_SLOT) {
            return SL_NO_SLOT;
        }
    }
    uint32_t index = occupy(store, request->layer, expert);
    store->policy->type->miss(store->policy, index, request->layer, expert, time);
    return index;
}

uint32_t sl_slot_take_for_hint(sl_store *store, uint32_t layer, uint32_t expert)
{
    if (store->first_free == SL_NO_SLOT) {
        uint32_t victim = find_victim(store, NULL, true);
        if (victim == SL_NO_SLOT) {
            return SL_NO_SLOT;
        }
        const sl_slot *slot = &store->slots[victim];
        if (!slot->unasked) {
            sl_mask_add(store, store->displaced, slot->layer, slot->expert);
        }
        evict(store, victim);
    }
    uint32_t index = occupy(store, layer, expert);
    store->slots[index].for_hint = true;
    store->slots[index].unasked = true;
    store->policy->type->prefetched(store->policy, index, layer, expert);
    store->meters[layer].counters.prefetch_issued++;
    return index;
}

static void become_ready(sl_store *store, sl_slot *slot)
{
    slot->state = SL_SLOT_READY;
    slot->arrival = store->n_arrivals++;
    store->n_ready++;
    sl_store_settle(store);
    if (slot->n_pins > 0) {
        pthread_cond_broadcast(&store->slot_ready);
    }
}

static void prepare_reads(sl_store *store, uint32_t index, const sl_expert_layout *layout)
{
    unsigned char *start = store->arena + (size_t)index * store->geometry.slot_bytes;
    for (uint32_t i_piece = 0; i_piece < layout->n_pieces; i_piece++) {
        const sl_expert_piece *piece = &layout->pieces[i_piece];
        store->slots[index].piece_bytes[i_piece] = piece->length;
        store->slot_reads[(size_t)index * store->n_ranges + i_piece] = (sl_read){
            .file = store->files[piece->file].file,
            .path = store->files[piece->file].path,
            .offset = piece->offset,
            .length = piece->length,
            .required = piece->required,
            .destination = start + piece->slot_offset,
            .direct = store->files[piece->file].file->direct_descriptor >= 0,
            .user = store,
        };
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
    slot->n_started = 0;
    slot->finished = 0;
    slot->n_unfinished = layout.n_pieces;
    memcpy(slot->matrix_offsets, layout.matrix_offsets, sizeof slot->matrix_offsets);
    if (layout.n_pieces == 0) {
        become_ready(store, slot);
        return;
    }
    slot->state = SL_SLOT_READING;
    prepare_reads(store, index, &layout);
}

/* The next piece is about to be read. */
static sl_read *start_piece(sl_store *store, uint32_t index)
{
    sl_slot *slot = &store->slots[index];
    if (slot->n_started == 0) {
        sl_store_count_reading(store, slot->layer, sl_clock_ns());
    }
    uint32_t i_piece = slot->n_started++;
    store->flying_bytes += slot->piece_bytes[i_piece];
    store->flying_unasked_bytes += slot->unasked ? slot->piece_bytes[i_piece] : 0;
    return &store->slot_reads[(size_t)index * store->n_ranges + i_piece];
}

void sl_slot_start_piece(sl_store *store, uint32_t index)
{
    sl_reads_submit(&store->reads, start_piece(store, index));
}

void sl_slot_start_pieces(sl_store *store, uint32_t index)
{
    while (store->slots[index].n_started < store->slots[index].n_pieces) {
        sl_slot_start_piece(store, index);
    }
}

sl_read *sl_slot_start_copying(sl_store *store, uint32_t index)
{
    store->slots[index].has_pages = true;
    while (store->slots[index].n_started < store->slots[index].n_pieces) {
        (void)start_piece(store, index);
    }
    return &store->slot_reads[(size_t)index * store->n_ranges];
}

void sl_slot_ask(sl_store *store, uint32_t index)
{
    sl_slot *slot = &store->slots[index];
    if (!slot->unasked) {
        return;
    }
    __atomic_store_n(&slot->unasked, false, __ATOMIC_RELAXED);
    slot->abandoned = false;
    sl_store_counters *counters = &store->meters[slot->layer].counters;
    counters->prefetch_used++;
    counters->prefetch_used_bytes += piece_bytes(slot, true);
    if (slot->state == SL_SLOT_READING) {
        counters->prefetch_late++;
        store->flying_unasked_bytes -= piece_bytes(slot, false);
        if (store->filling == index) {
            store->filling = SL_NO_SLOT;
        }
        sl_slot_start_pieces(store, index);
    }
}

/* All of an abandoned slot's pieces that were started are done. */
static void finish_abandoned(sl_store *store, uint32_t index)
{
    if (store->slots[index].n_started > 0) {
        sl_store_count_read(store, store->slots[index].layer, sl_clock_ns());
    }
    empty_slot(store, index);
}

void sl_slot_abandon(sl_store *store, uint32_t index)
{
    sl_slot *slot = &store->slots[index];
    if (store->filling == index) {
        store->filling = SL_NO_SLOT;
    }
    if (piece_bytes(slot, false) == 0) {
        finish_abandoned(store, index);
    } else {
        slot->abandoned = true;
    }
}

/* Read again, this time for who waits. */
static void read_again(sl_store *store, uint32_t index, const sluice_error *error)
{
    store->slots[index].for_hint = false;
    sl_log_line(store->log, SL_LOG_WARNING, "%s; it was read ahead and is read again", error->message);
    sl_slot_start_reading(store, index);
    sl_slot_start_pieces(store, index);
}

/* READING -> ABSENT, or READING once more. Without anyone who asked it is not worth more than a warning. */
static void fail(sl_store *store, uint32_t index, const sl_read *failed)
{
    sl_slot *slot = &store->slots[index];
    sluice_error cause;
    sluice_error error;
    sluice_status status = sl_read_describe(failed, &cause);
    sl_error_set(&error, status, "expert %" PRIu32 " of MoE layer %" PRIu32 ": %s", slot->expert, slot->layer,
                 cause.message);
    error.system_errno = cause.system_errno;
    if (slot->for_hint && slot->n_pins > 0) {
        read_again(store, index, &error);
        return;
    }
    sl_log_line(store->log, slot->unasked ? SL_LOG_WARNING : SL_LOG_ERROR, "%s", error.message);
    sl_requests_fail_slot(store, index, &error);
    empty_slot(store, index);
    pthread_cond_broadcast(&store->slot_ready);
}

/* All reads of an expert are done: READING -> READY, or what `fail` does when one failed. The first one in the order of
 * the file speaks for all, whichever failed first. */
static void finish_reading(sl_store *store, uint32_t index)
{
    sl_slot *slot = &store->slots[index];
    sl_store_counters *counters = &store->meters[slot->layer].counters;
    const sl_read *failed = NULL;
    for (uint32_t i_piece = slot->n_pieces; i_piece-- > 0;) {
        const sl_read *read = &store->slot_reads[(size_t)index * store->n_ranges + i_piece];
        if (read->status != SLUICE_OK) {
            failed = read;
        }
    }
    sl_store_count_read(store, slot->layer, sl_clock_ns());
    if (failed != NULL) {
        fail(store, index, failed);
    } else {
        counters->expert_bytes += slot->expert_bytes;
        slot->has_pages = true;
        become_ready(store, slot);
        evict_if_leaving(store, index);
    }
}

void sl_slot_read_done(void *user, sl_read *read)
{
    sl_store *store = user;
    pthread_mutex_lock(&store->lock);
    size_t place = (size_t)(read - store->slot_reads);
    uint32_t index = (uint32_t)(place / store->n_ranges);
    uint32_t i_piece = (uint32_t)(place % store->n_ranges);
    sl_slot *slot = &store->slots[index];
    store->flying_bytes -= slot->piece_bytes[i_piece];
    store->flying_unasked_bytes -= slot->unasked ? slot->piece_bytes[i_piece] : 0;
    store->meters[slot->layer].counters.bytes_read += read->bytes_read;
    store->meters[store->n_layers].counters.bytes_read += read->bytes_read;
    store->meters[slot->layer].counters.failed_reads += read->status != SLUICE_OK ? 1 : 0;
    slot->finished |= 1u << i_piece;
    bool freed = true;
    if (--slot->n_unfinished == 0) {
        finish_reading(store, index);
    } else if (slot->abandoned && piece_bytes(slot, false) == 0) {
        finish_abandoned(store, index);
    } else {
        freed = false;
    }
    if (freed) {
        sl_requests_give_slots(store);
        if (sl_requests_lack_slots(store)) {
            pthread_cond_broadcast(&store->slot_ready); /* the slot they hoped for may be out of their reach */
        }
    }
    sl_hints_read(store);
    pthread_mutex_unlock(&store->lock);
}
