/* The expert store: an arena of slots, filled from the model's files on demand. Knows bytes, not models.
 *
 * Life of a slot:  ABSENT -> QUEUED -> READING -> READY (pinned n) -> evictable (pinned 0) -> ABSENT.
 * A failed read gives every request that waits for it that read's error and leaves the slot ABSENT. */
#ifndef SL_EXPERTS_STORE_H
#define SL_EXPERTS_STORE_H

#include "experts/policy.h"
#include "io/reads.h"

enum { SL_EXPERT_MAX_RANGES = 4 }; /* gate, up, down, and one to spare */

/* Where one matrix of one expert lies. */
typedef struct sl_expert_range {
    uint32_t file; /* index into the store's files */
    uint64_t offset;
    uint64_t bytes; /* 0: this expert has no such matrix */
} sl_expert_range;

typedef struct sl_store_file {
    const sl_file *file; /* borrowed: open as long as the store */
    const char *path;    /* borrowed */
} sl_store_file;

typedef struct sl_store_config {
    uint32_t n_layers;             /* layers that have experts, counted without the others */
    uint32_t n_experts;            /* per layer */
    uint32_t n_used;               /* experts of a layer that one token asks for; 0: unknown */
    uint32_t n_ranges;             /* matrices per expert */
    const sl_expert_range *ranges; /* borrowed during open: [n_layers][n_experts][n_ranges] */
    const sl_store_file *files;    /* borrowed during open (its elements for the store's life): [n_files] */
    uint32_t n_files;
    uint64_t n_slots;               /* at least 1; more than n_layers * n_experts is lowered to that */
    uint64_t prefetch_window_bytes; /* what prefetches may fill up of the bytes in flight; 0: about 1 ms of the disk */
    sl_policy_kind policy;          /* which expert gives way */
    const uint64_t *pinned;         /* SL_POLICY_PINNED: see sl_policy_config; borrowed during open */
    sl_reads_options reads;         /* how to read */
    bool cache_stays;               /* what the page cache has stays there while all slots fill: see sl_store_copy */
    bool spare_core;                /* is left for the engine's threads, which copy what is kept */
    sl_read_fault_plan *faults;     /* NULL: none; borrowed for the store's life */
    sl_memory *memory;              /* borrowed for the store's life */
    const sl_log *log;              /* borrowed for the store's life; may be NULL */
} sl_store_config;

/* thread: every function may be called from any thread; a request belongs to one thread at a time. */
typedef struct sl_store sl_store;

/* Exact sizes before anything is allocated. Every slot is as large as the largest expert, each range padded to what
 * direct reads need. `slots_bytes` is the arena (tag experts), `io_bytes` and `other_bytes` what else the store
 * allocates (tags io and other), all as the account is charged; SL_READS_AUTO counts as io_uring, so settle it before.
 * `kernel_bytes` is what the kernel takes for reading, beside the account, as closely as it can be known. The stacks of
 * the `n_read_threads` are in none of them. Only `slots_bytes`, n_slots times slot_bytes, follows from n_slots, which
 * is used as given: tables have room for a slot for every expert. */
typedef struct sl_store_plan {
    uint64_t slot_bytes;
    uint64_t slots_bytes;
    uint64_t io_bytes;
    uint64_t other_bytes;
    uint64_t kernel_bytes;
    uint32_t n_read_threads;
} sl_store_plan;
SLUICE_NODISCARD sluice_status sl_store_estimate(const sl_store_config *config, sl_store_plan *plan,
                                                 sluice_error *error);

SLUICE_NODISCARD sluice_status sl_store_open(sl_store **out, const sl_store_config *config, sluice_error *error);
/* No request may be open. Waits for reads in flight. */
void sl_store_close(sl_store **store);

/* Use another number of slots from now on, at least 1; more than there are experts is lowered to that. Requests go on
 * meanwhile, and what they deliver is the same.
 *
 * More slots are there at once; they are charged first. Fewer: the last slots are given up, whatever their experts are
 * worth, because slots keep their places. Experts nobody holds are evicted at once, the others when their requests
 * release them or their reads are done; the call waits for that, then gives the memory back to the kernel. So it must
 * not come from a thread that holds an expert. Requests that hold some and need a slot do not wait for the call.
 *
 * ARGUMENT for 0. NO_MEMORY when the account or the kernel refuses, SYSTEM for more than sl_store_max_slots: nothing is
 * changed then. SYSTEM also when the kernel does not take memory back: the slots are given up, and a further call tries
 * again. */
SLUICE_NODISCARD sluice_status sl_store_set_slots(sl_store *store, uint64_t n_slots, sluice_error *error);

/* An expert that is pinned for a request. */
typedef struct sl_expert_view {
    uint32_t index;  /* position in the request's list */
    uint32_t expert; /* number within the layer */
    uint32_t slot;
    bool was_resident;                          /* READY when it was asked for */
    const void *matrices[SL_EXPERT_MAX_RANGES]; /* pinned until released; any alignment */
} sl_expert_view;

/* One layer's need. The struct is the caller's; its fields are the store's. */
typedef struct sl_store_request {
    uint32_t layer;
    uint32_t n_experts;
    const uint32_t *experts; /* borrowed until sl_store_end: [n_experts], distinct */
    uint32_t n_delivered;
    uint32_t n_released;
    uint32_t n_without_slot; /* neither resident nor being read */
    uint32_t first_without_slot;
    uint32_t n_copies;  /* were left to the caller to copy when it began */
    uint32_t n_to_copy; /* of them, not begun yet */
    uint32_t first_to_copy;
    bool keeps;         /* every expert it asks for */
    uint64_t time;      /* in the store's count of experts asked for, of the first in the list */
    uint64_t *progress; /* borrowed until sl_store_end: [n_experts] words of scratch from the caller */
    struct sl_store_request *next;
    bool settled;         /* goes without the lock */
    sluice_status status; /* of the first failed read it waited for */
    sluice_error error;
} sl_store_request;

/* Ask for experts of a layer: hits are pinned, misses queued as far as slots are free (the rest follows as slots are
 * released). A miss is an expert that is not READY now, also when another request is having it read. Counts hits and
 * misses. Never blocks on the disk, allocates nothing. ARGUMENT for a layer or expert out of range: the request is then
 * not open. */
SLUICE_NODISCARD sluice_status sl_store_begin(sl_store *store, sl_store_request *request, uint32_t layer,
                                              const uint32_t *experts, uint32_t n_experts, uint64_t *progress,
                                              sluice_error *error);

/* The same for `n_tokens` tokens together, tokens_of[i] of which ask for experts[i]; NULL: one each. Policies learn from
 * it, and n_tokens says whether all are kept (sl_store_copy); nothing else depends on it. */
SLUICE_NODISCARD sluice_status sl_store_begin_chunk(sl_store *store, sl_store_request *request, uint32_t layer,
                                                    const uint32_t *experts, const uint32_t *tokens_of,
                                                    uint32_t n_experts, uint32_t n_tokens, uint64_t *progress,
                                                    sluice_error *error);

/* Wait until at least one expert that was not delivered yet is ready, then deliver up to `capacity` of them, hits
 * before misses in the order of the list, misses in the order they arrive. `*n_ready` is 0 once all were delivered.
 * When some are delivered and not released while none of the rest can get a slot, that is ARGUMENT: release before
 * waiting again. A failed read is that read's error; the request must then be ended. */
SLUICE_NODISCARD sluice_status sl_store_wait(sl_store *store, sl_store_request *request, sl_expert_view *ready,
                                             uint32_t capacity, uint32_t *n_ready, sluice_error *error);

/* Copy the next of the request's experts that the page cache has, on this thread, and deliver it to `view`, or leave it for
 * sl_store_wait where `view` is NULL. false when there is none, when no slot can be had now, and when a read failed, which
 * sl_store_wait then says. Any number of threads at a time, also for one request, and so may they release what they were
 * given; sl_store_wait copies what they leave.
 *
 * Only a store with a slot for every expert, whose reads are `from_cache`, has such experts, and with a spare core only
 * those that are not kept; request->n_copies is their number at first. With cache_stays an expert that a chunk of 2 to
 * 128 tokens is the first to ask for is not kept: its slot is free when it is released, so that the next one is copied
 * into memory that need not be cleared and lies in the processor's caches. It is kept from the second time on. */
bool sl_store_copy(sl_store *store, sl_store_request *request, sl_expert_view *view);

/* Have the kernel give memory to the first free slot that never held any, which is cleared then and not when the slot is
 * read into; false when there is none, or where it is not worth a call. For a thread that has nothing else to do; any. */
bool sl_store_prepare(sl_store *store);

/* Whether every expert is in memory to stay until the number of slots changes. Then requests take no lock, all of them are hits,
 * hints say nothing new, and policies learn nothing. May be over the moment it is known. */
bool sl_store_is_settled(const sl_store *store);

/* Unpin one delivered expert. */
void sl_store_release(sl_store *store, sl_store_request *request, const sl_expert_view *view);

/* Close a request, after success or failure: forgets what was not delivered and unpins what was not released. */
void sl_store_end(sl_store *store, sl_store_request *request);

/* A hint that nobody waits for: these experts of the layer will probably be asked for when its turn comes, the
 * likeliest first. Those that are not resident are read into free slots or those of evictable experts, with what of the
 * window the reads that are waited for leave, and while no request needs a slot; evictions spare the others. It
 * replaces the layer's hint before it, and what was not read by then or by the time the layer is asked for is dropped,
 * as is a hint whose layer was passed over: layers are taken to be asked for in turn, the first after the last. Names
 * out of range are left out. What comes of it are hits or nothing: a failed read is tried again by who asks. Never
 * blocks. */
void sl_store_prefetch(sl_store *store, uint32_t layer, const uint32_t *experts, uint32_t n_experts);

/* Exact counters since open (or the last reset). */
typedef struct sl_store_counters {
    uint64_t requests; /* experts asked for = hits + misses */
    uint64_t hits;
    uint64_t misses;
    uint64_t evictions;
    uint64_t bytes_read;   /* from the files, padding of direct reads and what failed reads delivered included */
    uint64_t expert_bytes; /* of the experts that were read whole, their ranges alone */
    uint64_t failed_reads;
    uint64_t wait_ns; /* time requests waited with nothing ready */
    uint64_t busy_ns; /* time with at least one read in flight */

    /* Experts whose reading began for a hint = used + useless + those of which neither is known yet. The last count as
     * issued again after a reset. */
    uint64_t prefetch_issued;
    uint64_t prefetch_used;          /* asked for later, late or not */
    uint64_t prefetch_late;          /* of them, not READY yet when they were */
    uint64_t prefetch_useless;       /* gave way, were dropped on the way or failed before anyone asked */
    uint64_t prefetch_used_bytes;    /* of the used ones, what had arrived when they were asked for */
    uint64_t prefetch_useless_bytes; /* read for the useless ones */
    uint64_t prefetch_displaced;     /* misses of experts that had given way to a prefetch */
    uint64_t prefetch_ahead_bytes;   /* in flight for hints, and not wanted, when a request with misses began */
} sl_store_counters;

void sl_store_counters_get(sl_store *store, sl_store_counters *total);
/* Of one layer; false for a layer out of range. bytes and times of a layer cover its own reads and waits. */
bool sl_store_layer_counters_get(sl_store *store, uint32_t layer, sl_store_counters *counters);
void sl_store_counters_reset(sl_store *store);

/* Bits of the experts of a layer that are READY now: mask[e / 64] bit e % 64; n_words words are written. */
void sl_store_residency(sl_store *store, uint32_t layer, uint64_t *mask, uint32_t n_words);
/* The experts that are READY now in any layer. */
void sl_store_merged_residency(sl_store *store, uint64_t *mask, uint32_t n_words);

uint32_t sl_store_n_layers(const sl_store *store);
/* Slots in use now. */
uint64_t sl_store_n_slots(sl_store *store);
/* The most that can ever be in use: one for every expert, or as many as at open where the system refused addresses for
 * more. */
uint64_t sl_store_max_slots(const sl_store *store);
/* "uring, direct", "pread, buffered", and so on; "partly direct" where only some files allow direct reads. */
const char *sl_store_backend(const sl_store *store);

#endif
