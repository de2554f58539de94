/* The store's own structs, shared by the files of this folder alone. store.c says what must hold. */
#ifndef SL_EXPERTS_STORE_INTERNAL_H
#define SL_EXPERTS_STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "experts/geometry.h"
#include "experts/policy.h"
#include "experts/store.h"

typedef enum sl_slot_state { SL_SLOT_ABSENT, SL_SLOT_QUEUED, SL_SLOT_READING, SL_SLOT_READY } sl_slot_state;

typedef struct sl_slot {
    sl_slot_state state;
    uint32_t layer, expert; /* whose bytes; not in ABSENT */
    uint32_t n_pins;        /* entries of open requests that hold the slot, delivered or not yet */
    uint32_t n_pieces;      /* reads of this expert */
    uint32_t n_started;     /* of them, given to the engine; fewer than n_pieces only in READING for a hint */
    uint32_t n_unfinished;  /* of all, not done yet; READING only */
    uint32_t finished;      /* which are done, as bits */
    bool for_hint;          /* READING: nobody asked when the reads began, so a failure is no error yet */
    bool unasked;           /* READING, READY: came by a hint, and nobody asked yet */
    bool abandoned;         /* READING: becomes ABSENT when the pieces in flight are done */
    bool transient;         /* gives its expert up when the last pin is gone */
    bool has_pages;         /* its memory was touched, or is being */
    uint32_t next_free;     /* ABSENT and in use: SL_NO_SLOT at the end */
    uint64_t arrival;       /* READY: its place in the order in which experts became ready */
    uint64_t expert_bytes;
    uint64_t piece_bytes[SL_EXPERT_MAX_RANGES];    // [n_pieces]
    uint64_t matrix_offsets[SL_EXPERT_MAX_RANGES]; // [n_ranges]
} sl_slot;

/* Where one entry of a request stands. Kept in the low byte of its progress word; the slot is in the upper half. */
typedef enum sl_entry_state {
    SL_ENTRY_WITHOUT_SLOT,
    SL_ENTRY_TO_COPY,   /* without slot, and the page cache has it: one of the caller's threads copies it */
    SL_ENTRY_HIT,       /* pinned; was READY when asked for */
    SL_ENTRY_MISS,      /* pinned; its slot is QUEUED, READING or READY */
    SL_ENTRY_DELIVERED, /* pinned; the caller has its view */
    SL_ENTRY_RELEASED,
    SL_ENTRY_FAILED
} sl_entry_state;

static inline uint64_t sl_entry_word(sl_entry_state state, uint32_t slot)
{
    return ((uint64_t)slot << 32) | (uint64_t)state;
}

static inline sl_entry_state sl_entry_state_of(uint64_t word)
{
    return (sl_entry_state)(word & 0xff);
}

static inline uint32_t sl_entry_slot_of(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

/* Whether the entry pins its slot. */
static inline bool sl_entry_holds(uint64_t word)
{
    sl_entry_state state = sl_entry_state_of(word);
    return state == SL_ENTRY_HIT || state == SL_ENTRY_MISS || state == SL_ENTRY_DELIVERED;
}

/* The prediction for one layer. */
typedef struct sl_hint {
    uint32_t n_experts;  /* in the list; 0: no hint */
    uint32_t next;       /* place in the list of the first that was not looked at yet */
    uint64_t expires_at; /* dropped once the store's n_begins reaches this */
} sl_hint;

/* Counters with the running clock of the time during which reads are in flight. `counters.busy_ns` lacks the part since
 * busy_since_ns while n_reading is not 0. Hits of settled requests are counted apart, because they come without the lock. */
typedef struct sl_store_meter {
    sl_store_counters counters;
    _Atomic uint64_t settled_hits;
    uint32_t n_reading; /* slots in READING */
    uint64_t busy_since_ns;
} sl_store_meter;

struct sl_store {
    /* Never changes after open. */
    sl_memory *memory; /* borrowed */
    const sl_log *log; /* borrowed; may be NULL */
    const char *backend_name;
    uint32_t n_layers, n_experts, n_ranges, n_files;
    sl_store_geometry geometry;
    sl_expert_range *ranges; /* owned; [n_layers][n_experts][n_ranges] */
    sl_store_file *files;    /* owned, what they point at is borrowed; [n_files] */
    unsigned char *arena;    /* owned; [max_slots][slot_bytes], addresses; the first n_committed slots hold memory */
    uint32_t max_slots;
    bool from_cache;  /* the reads are */
    bool cache_stays; /* as configured, like the next */
    bool spare_core;
    sl_reads reads; /* owned; open once its backend is set */
    bool locks_ready;

    pthread_mutex_t resize_lock; /* held while the number of slots changes; before `lock` */
    uint32_t n_committed;        /* guarded by: resize_lock; charged, at least n_slots whenever that is free */

    pthread_mutex_t lock;
    pthread_cond_t slot_ready; /* a pinned slot became READY, or a request failed */
    pthread_cond_t slots_left; /* n_leaving or n_populating became 0, or n_inside after the store was unsettled */

    /* settled.c */
    atomic_bool settled;       /* every expert is in its slot, to stay; set and cleared under `lock` */
    _Atomic uint32_t n_inside; /* requests that rely on it */

    /* Guarded by `lock`. */
    uint32_t n_slots;           /* in use: the first ones */
    uint32_t n_leaving;         /* beyond them, and not ABSENT yet */
    uint32_t n_ready;           /* slots in READY */
    uint32_t n_populating;      /* threads that give memory to a slot, without the lock */
    sl_slot *slots;             /* owned; [n_total] */
    sl_read *slot_reads;        /* owned; [n_total][n_ranges]; the engine's while it has them in flight */
    uint32_t *slot_of_expert;   /* owned; [n_layers][n_experts]; SL_NO_SLOT: ABSENT */
    sl_store_meter *meters;     /* owned; [n_layers], and one more that measures the whole store's busy time */
    sl_policy *policy;          /* owned */
    sl_store_request *requests; /* borrowed; the open ones, oldest first */
    uint32_t first_free;        /* SL_NO_SLOT: no slot is ABSENT */
    uint64_t time;              /* 1 + experts asked for so far */
    uint64_t n_arrivals;
    uint64_t n_begins;              /* requests begun */
    uint32_t last_layer;            /* of the last of them */
    bool keeps;                     /* as the last of them */
    sl_hint *hints;                 /* owned; [n_layers] */
    uint32_t n_hints;               /* layers that have one */
    uint32_t *hint_lists;           /* owned; [n_layers][n_experts]: the likeliest first */
    uint64_t *hint_masks;           /* owned; [n_layers][n_mask_words]: the experts of the list, as bits */
    uint64_t *displaced;            /* owned; [n_layers][n_mask_words]: experts that gave way to a prefetch last */
    uint64_t *had_slots;            /* owned; [n_layers][n_mask_words]: experts that had a slot before */
    uint32_t n_mask_words;          /* never changes */
    uint32_t filling;               /* the slot for a hint whose pieces are not all started; SL_NO_SLOT: none */
    uint64_t flying_bytes;          /* with the engine */
    uint64_t flying_unasked_bytes;  /* of them, in slots that are unasked */
    uint64_t prefetch_window_bytes; /* never changes; 0: by the disk's speed */
};

/* Masks of experts: [n_layers][n_mask_words], bit expert % 64 of a layer's word expert / 64. Under the lock. */
static inline uint64_t *sl_mask_word(const sl_store *store, uint64_t *masks, uint32_t layer, uint32_t expert)
{
    return &masks[(size_t)layer * store->n_mask_words + expert / 64];
}

static inline bool sl_mask_has(const sl_store *store, uint64_t *masks, uint32_t layer, uint32_t expert)
{
    return (*sl_mask_word(store, masks, layer, expert) >> (expert % 64) & 1u) != 0;
}

static inline void sl_mask_add(const sl_store *store, uint64_t *masks, uint32_t layer, uint32_t expert)
{
    *sl_mask_word(store, masks, layer, expert) |= (uint64_t)1 << (expert % 64);
}

/* slots.c. All under the lock. */

/* No expert has a slot, and no slot is in use. */
void sl_slots_init(sl_store *store);
/* Use the first `n_slots` slots from now on. n_leaving says how many beyond them are still to be emptied. */
void sl_slots_limit(sl_store *store, uint32_t n_slots);
/* One entry less holds the slot. */
void sl_slot_unpin(sl_store *store, uint32_t slot);
uint32_t *sl_slot_place(sl_store *store, uint32_t layer, uint32_t expert);
/* A slot in QUEUED for the expert: a free one, or that of a victim. SL_NO_SLOT when `request` has to wait for one. */
uint32_t sl_slot_take(sl_store *store, const sl_store_request *request, uint32_t expert, uint64_t time);
/* The same for a hint. SL_NO_SLOT when no slot can be had without loss. */
uint32_t sl_slot_take_for_hint(sl_store *store, uint32_t layer, uint32_t expert);
/* QUEUED -> READING, or straight to READY for an expert of no bytes. No piece is started yet. */
void sl_slot_start_reading(sl_store *store, uint32_t slot);
/* Give the engine the next piece of a slot in READING, or all that are left. */
void sl_slot_start_piece(sl_store *store, uint32_t slot);
void sl_slot_start_pieces(sl_store *store, uint32_t slot);
/* The same of all pieces for a caller that performs the reads itself, without the lock: [n_pieces] */
sl_read *sl_slot_start_copying(sl_store *store, uint32_t slot);
/* Somebody asks for an expert that came by a hint: counts it, and starts what is left to read. */
void sl_slot_ask(sl_store *store, uint32_t slot);
/* Give up a slot in READING that nobody asked for: ABSENT now, or when what is in flight is done. */
void sl_slot_abandon(sl_store *store, uint32_t slot);
/* The callback of the read engine: takes the lock itself. */
void sl_slot_read_done(void *user, sl_read *read);

/* requests.c. All under the lock. */

/* Give slots to what open requests still need, oldest request first. */
void sl_requests_give_slots(sl_store *store);
/* Whether an open request that did not fail has an entry without a slot. */
bool sl_requests_lack_slots(const sl_store *store);
/* Tell every request that holds the slot that its expert could not be read, and take its pins away. */
void sl_requests_fail_slot(sl_store *store, uint32_t slot, const sluice_error *error);

/* Let every open request that still needs the expert of a slot share it. */
void sl_requests_join(sl_store *store, uint32_t slot);
/* Hand the expert of an entry out; its slot is READY. */
void sl_request_deliver(const sl_store *store, sl_store_request *request, uint32_t i_entry, sl_expert_view *view);

/* copies.c. Under the lock. */

/* Whether the expert, which has no slot, is for the caller's threads to copy, for a request that `keeps` its experts or
 * not. */
bool sl_expert_is_to_copy(const sl_store *store, uint32_t layer, uint32_t expert, bool keeps);
/* Copy the next expert of a request; the lock is free meanwhile. false when there is none or it finds no slot. `*i_entry` is
 * what it was copied for; the read may have failed. */
bool sl_request_copy(sl_store *store, sl_store_request *request, uint32_t *i_entry);

/* prefetch.c. All under the lock. */

/* A request for the layer began: its hint and those that are too old are dropped. */
void sl_hints_pass(sl_store *store, uint32_t layer);
void sl_hints_drop_all(sl_store *store);
/* Whether a hint that stands names the expert. */
bool sl_hints_name(const sl_store *store, uint32_t layer, uint32_t expert);
/* Start reads for hints as far as the window and the slots allow. */
void sl_hints_read(sl_store *store);

/* settled.c. Under the lock. */

/* Settle the store if every expert is in its slot. */
void sl_store_settle(sl_store *store);
/* The store is settled no more; waits, with the lock free, for requests that rely on it to end. */
void sl_store_unsettle(sl_store *store);

/* settled.c. Without the lock. */

/* Begin a request that was checked, all of it hits; false when it has to go by the lock. */
bool sl_settled_begin(sl_store *store, sl_store_request *request);
void sl_settled_end(sl_store *store);

/* resize.c. Reserve addresses for a slot for every expert, or for `n_slots` where that is refused, and use `n_slots`. */
SLUICE_NODISCARD sluice_status sl_arena_open(sl_store *store, uint32_t n_slots, sluice_error *error);
void sl_arena_close(sl_store *store);
/* Let a thread that waits give memory to a slot that never held any: one of its request, if it has one, whose turn to be read
 * comes later, or else one of the free slots that are used next; false when there is none. Under the lock, which is free
 * meanwhile. */
bool sl_arena_populate(sl_store *store, const sl_store_request *request);
/* Give memory to a slot that the calling thread is about to copy into. Without the lock. */
void sl_arena_populate_slot(sl_store *store, uint32_t slot);

/* counters.c. Under the lock. */
void sl_store_count_reading(sl_store *store, uint32_t layer, uint64_t now_ns);
void sl_store_count_read(sl_store *store, uint32_t layer, uint64_t now_ns);

#endif
