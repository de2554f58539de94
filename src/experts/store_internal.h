/* The store's own structs, shared by the files of this folder alone. store.c says what must hold. */
#ifndef SL_EXPERTS_STORE_INTERNAL_H
#define SL_EXPERTS_STORE_INTERNAL_H

#include <pthread.h>

#include "experts/geometry.h"
#include "experts/policy.h"
#include "experts/store.h"

typedef enum sl_slot_state { SL_SLOT_ABSENT, SL_SLOT_QUEUED, SL_SLOT_READING, SL_SLOT_READY } sl_slot_state;

typedef struct sl_slot {
    sl_slot_state state;
    uint32_t layer, expert; /* whose bytes; not in ABSENT */
    uint32_t n_pins;        /* entries of open requests that hold the slot, delivered or not yet */
    uint32_t n_pieces;      /* reads of this expert */
    uint32_t n_unfinished;  /* of them, not done yet; READING only */
    uint32_t next_free;     /* ABSENT only: SL_NO_SLOT at the end */
    uint64_t arrival;       /* READY: its place in the order in which experts became ready */
    uint64_t expert_bytes;
    uint64_t matrix_offsets[SL_EXPERT_MAX_RANGES]; // [n_ranges]
} sl_slot;

/* Where one entry of a request stands. Kept in the low byte of its progress word; the slot is in the upper half. */
typedef enum sl_entry_state {
    SL_ENTRY_WITHOUT_SLOT,
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

/* Counters with the running clock of the time during which reads are in flight. `counters.busy_ns` lacks the part since
 * busy_since_ns while n_reading is not 0. */
typedef struct sl_store_meter {
    sl_store_counters counters;
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
    unsigned char *arena;    /* owned; [n_slots][slot_bytes] */
    sl_reads reads;          /* owned; open once its backend is set */
    bool locks_ready;

    pthread_mutex_t lock;
    pthread_cond_t slot_ready; /* a pinned slot became READY, or a request failed */

    /* Guarded by `lock`. */
    sl_slot *slots;             /* owned; [n_slots] */
    sl_read *slot_reads;        /* owned; [n_slots][n_ranges]; the engine's while it has them in flight */
    uint32_t *slot_of_expert;   /* owned; [n_layers][n_experts]; SL_NO_SLOT: ABSENT */
    sl_store_meter *meters;     /* owned; [n_layers], and one more that measures the whole store's busy time */
    sl_policy *policy;          /* owned */
    sl_store_request *requests; /* borrowed; the open ones, oldest first */
    uint32_t first_free;        /* SL_NO_SLOT: no slot is ABSENT */
    uint64_t time;              /* experts asked for so far */
    uint64_t n_arrivals;
};

/* slots.c. All under the lock. */

/* Put every slot on the free list. */
void sl_slots_init(sl_store *store);
uint32_t *sl_slot_place(sl_store *store, uint32_t layer, uint32_t expert);
/* A slot in QUEUED for the expert: a free one, or that of a victim. SL_NO_SLOT when `request` has to wait for one. */
uint32_t sl_slot_take(sl_store *store, const sl_store_request *request, uint32_t expert, uint64_t time);
/* QUEUED -> READING, or straight to READY for an expert of no bytes. */
void sl_slot_start_reading(sl_store *store, uint32_t slot);
/* The callback of the read engine: takes the lock itself. */
void sl_slot_read_done(void *user, sl_read *read);

/* requests.c. All under the lock. */

/* Give slots to what open requests still need, oldest request first. */
void sl_requests_give_slots(sl_store *store);
/* Tell every request that holds the slot that its expert could not be read, and take its pins away. */
void sl_requests_fail_slot(sl_store *store, uint32_t slot, const sluice_error *error);

/* counters.c. Under the lock. */
void sl_store_count_reading(sl_store *store, uint32_t layer, uint64_t now_ns);
void sl_store_count_read(sl_store *store, uint32_t layer, uint64_t now_ns);

#endif
