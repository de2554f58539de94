/* Owns the expert arena: which expert's bytes each slot holds, who uses them, and the reads that bring them in, asked
 * for or ahead of that.
 *
 * Invariants
 *  (1) A slot whose n_pins is not 0, or that is READING, keeps its expert and its place; its bytes are not written
 *      except by the reads of that expert, before it becomes READY.
 *  (2) slot_of_expert[e] names the one slot of expert e, or none; every slot in QUEUED, READING or READY is named by
 *      exactly one expert, every ABSENT slot in use is on the free list, and no ABSENT slot is named by any.
 *  (3) n_pins of a slot is the number of entries of open requests in HIT, MISS or DELIVERED that name it.
 *  (4) A slot is READY only after every piece of its expert arrived whole from files that had not changed.
 *  (5) An expert is read once for all requests that want it: while an expert has a slot, no entry of a request that
 *      has not failed waits for that expert without one.
 *  (6) A victim is READY and unpinned, and no hint names its expert while another will do. Hits are pinned before the
 *      first miss of the request takes a slot, so no expert that is READY and that the request wants gives way to
 *      another one it wants, until the request released it.
 *  (7) What gives way follows from the order of the requests, not from the disk: the policy counts time in experts
 *      asked for, and a request larger than the store waits for the oldest of its own slots. It can depend on timing
 *      only where requests of several threads overlap, where one is ended before its reads arrived, after a failed
 *      read, after hints, and where the number of slots changes during a request. With a slot for every expert nothing
 *      gives way, and what is kept may depend on what the page cache has (copies.c).
 *  (8) A request blocks only while reads are in flight, or while it holds nothing and others hold the slots; where it
 *      would wait for its own releases, wait returns an error instead. What it has pinned and not delivered is never
 *      out of its caller's reach: the next wait delivers it. So requests that release what they hold before they wait
 *      again cannot block each other for ever.
 *  (9) Nothing is allocated after open: the reads lie beside their slots, a request's state in its caller's memory.
 * (10) A slot begins at a multiple of geometry.piece_alignment in the arena, and so does every piece in its slot.
 * (11) The slots in use are those below n_slots. One beyond them is ABSENT, or READING, or READY and pinned: it takes
 *      no new expert, and leaves its own when the last pin or the last read is gone. n_leaving counts those that are
 *      not ABSENT. So a request waits for none of them but those it holds, and whoever made them fewer waits only for
 *      what requests wait for too; by (8) it waits for ever only where a caller keeps what it was given.
 *
 * (12) A settled store (settled.c) changes no slot: all experts are READY, and only a change of n_slots, which unsettles it
 *      first and waits for the requests that rely on it, makes one give way.
 *
 * States of a slot
 *
 *           [sl_slot_take]        [sl_slot_start_reading]          [finish_reading]
 *    ABSENT ---------------> QUEUED -----------------------> READING ---------------> READY
 *      ^ ^                      |                               |                      ^ |
 *      | |                      `-------------------------------|----------------------' |
 *      | |                 [sl_slot_start_reading: an expert of no bytes]                |
 *      | `------------------------------------------------------'                        |
 *      |              [finish_reading: fail; finish_abandoned]                           |
 *      `---------------------------------------------------------------------------------'
 *             [sl_slot_take: the victim; beyond n_slots: sl_slots_limit, sl_slot_unpin, finish_reading]
 *
 *    QUEUED   the slot has its expert; its reads are not with the engine yet. Never seen while the lock is free.
 *    READING  the engine has n_started of its sl_reads; n_unfinished of all are not done. Those of who asks are started
 *             at once, those for a hint one after the other.
 *    READY    the bytes are there; evictable when n_pins is 0.
 *
 *    n_pins rises in [give_slots_to, take_slot, join] and falls in [sl_slot_unpin], which empties a transient slot.
 *    A slot that is copied into is READING too, and whoever copies performs its sl_reads (copies.c).
 *
 * Files: store.c opens and closes; resize.c has the arena; geometry.c places bytes; slots.c moves slots; requests.c
 * serves callers; copies.c has them copy what the page cache has; settled.c does without the lock where nothing can be
 * missed; prefetch.c reads ahead; counters.c counts; policy.h is what an eviction policy has to do; lru.c keeps a list,
 * ranked.c keeps any other order, of lfru.c, pinned.c, placement.c or reuse.c; predict.h says what to read
 * ahead; replay.h plays recordings against all of it.
 *
 * Threads: callers' threads and the engine's threads (sl_slot_read_done). Everything below "guarded" in sl_store
 * belongs to the holder of the lock, and so do the fields of open requests and their progress words, except settled ones. A READING slot's
 * bytes and sl_reads belong to the engine, a READY slot's bytes to whoever pins it, for reading. Locks are taken in the
 * order resize_lock, lock, the engine's; log functions are called under the second and must not call the store. */
#include "experts/store.h"

#include <string.h>

#include "base/checked.h"
#include "experts/store_internal.h"

/* The allocations of open, one row each, so that the estimate cannot forget one. */
typedef struct store_allocations {
    uint64_t ranges, files, slots, slot_reads, slot_of_expert, meters, hints, hint_lists, masks; /* bytes */
} store_allocations;

static uint32_t mask_words(uint32_t n_experts)
{
    return (n_experts - 1) / 64 + 1;
}

/* Tables have a row for a slot for every expert, because the number of slots in use may rise. The counts were checked:
 * 2^28 experts at most, so no product overflows. */
static store_allocations allocations_of(const sl_store_config *config, const sl_store_geometry *geometry)
{
    return (store_allocations){
        .ranges = geometry->n_total * config->n_ranges * sizeof(sl_expert_range),
        .files = config->n_files * sizeof(sl_store_file),
        .slots = geometry->n_total * sizeof(sl_slot),
        .slot_reads = geometry->n_total * config->n_ranges * sizeof(sl_read),
        .slot_of_expert = geometry->n_total * sizeof(uint32_t),
        .meters = ((uint64_t)config->n_layers + 1) * sizeof(sl_store_meter),
        .hints = config->n_layers * sizeof(sl_hint),
        .hint_lists = geometry->n_total * sizeof(uint32_t),
        .masks = (uint64_t)config->n_layers * mask_words(config->n_experts) * sizeof(uint64_t),
    };
}

static uint64_t cost_of(uint64_t bytes)
{
    return sl_memory_cost(bytes, 16);
}

static sl_policy_config policy_config_of(const sl_store_config *config, const sl_store_geometry *geometry)
{
    uint64_t n_in_use = config->n_slots < geometry->n_total ? config->n_slots : geometry->n_total;
    return (sl_policy_config){.kind = config->policy,
                              .n_layers = config->n_layers,
                              .n_experts = config->n_experts,
                              .n_used = config->n_used,
                              .n_slots = (uint32_t)geometry->n_total,
                              .n_in_use = (uint32_t)n_in_use,
                              .pinned = config->pinned,
                              .memory = config->memory};
}

static uint64_t policy_cost(const sl_store_config *config, const sl_store_geometry *geometry)
{
    sl_policy_config policy_config = policy_config_of(config, geometry);
    return sl_policy_cost(&policy_config);
}

/* How to read: slots are read into again and again. */
static sl_reads_options reads_options_of(const sl_store_config *config, const sl_store_geometry *geometry,
                                         unsigned char *arena, uint32_t n_slots)
{
    sl_reads_options options = config->reads;
    options.memory = (sl_reads_memory){.start = arena, .range_bytes = geometry->slot_bytes, .n_ranges = n_slots};
    return options;
}

sluice_status sl_store_estimate(const sl_store_config *config, sl_store_plan *plan, sluice_error *error)
{
    sl_store_geometry geometry;
    SL_TRY(sl_store_geometry_of(config, config->n_slots, &geometry, error));
    store_allocations bytes = allocations_of(config, &geometry);
    sl_reads_options reads_options = reads_options_of(config, &geometry, NULL, (uint32_t)geometry.n_total);
    sl_reads_cost reads_cost = sl_reads_cost_of(&reads_options);
    plan->slot_bytes = geometry.slot_bytes;
    plan->slots_bytes = config->n_slots * geometry.slot_bytes;
    plan->io_bytes =
        cost_of(bytes.slot_reads) + reads_cost.account_bytes + (config->faults == NULL ? 0 : sl_reads_faults_cost());
    plan->other_bytes = cost_of(sizeof(sl_store)) + cost_of(bytes.ranges) + cost_of(bytes.files) +
                        cost_of(bytes.slots) + cost_of(bytes.slot_of_expert) + cost_of(bytes.meters) +
                        cost_of(bytes.hints) + cost_of(bytes.hint_lists) + 3 * cost_of(bytes.masks) +
                        policy_cost(config, &geometry);
    plan->kernel_bytes = reads_cost.kernel_bytes;
    plan->n_read_threads = reads_cost.n_threads;
    return SLUICE_OK;
}

static sluice_status allocate(sl_store *store, sl_memory_tag tag, uint64_t bytes, const char *what, void *out,
                              sluice_error *error)
{
    void *block = sl_alloc(store->memory, tag, 1, bytes);
    if (block == NULL) {
        return sl_error_no_memory(error, bytes, what);
    }
    memcpy(out, &block, sizeof block);
    return SLUICE_OK;
}

static sluice_status allocate_tables(sl_store *store, const sl_store_config *config, sluice_error *error)
{
    store_allocations bytes = allocations_of(config, &store->geometry);
    SL_TRY(allocate(store, SL_MEMORY_OTHER, bytes.ranges, "the places of the experts", &store->ranges, error));
    SL_TRY(allocate(store, SL_MEMORY_OTHER, bytes.files, "the list of model files", &store->files, error));
    SL_TRY(allocate(store, SL_MEMORY_OTHER, bytes.slots, "the states of the expert slots", &store->slots, error));
    SL_TRY(allocate(store, SL_MEMORY_IO, bytes.slot_reads, "the reads of the expert slots", &store->slot_reads, error));
    SL_TRY(allocate(store, SL_MEMORY_OTHER, bytes.slot_of_expert, "the table of resident experts",
                    &store->slot_of_expert, error));
    SL_TRY(allocate(store, SL_MEMORY_OTHER, bytes.meters, "the counters of the expert store", &store->meters, error));
    SL_TRY(allocate(store, SL_MEMORY_OTHER, bytes.hints, "the hints of layers", &store->hints, error));
    SL_TRY(allocate(store, SL_MEMORY_OTHER, bytes.hint_lists, "the experts of hints", &store->hint_lists, error));
    SL_TRY(allocate(store, SL_MEMORY_OTHER, bytes.masks, "the masks of hints", &store->hint_masks, error));
    SL_TRY(allocate(store, SL_MEMORY_OTHER, bytes.masks, "the masks of displaced experts", &store->displaced, error));
    SL_TRY(
        allocate(store, SL_MEMORY_OTHER, bytes.masks, "the masks of experts that were read", &store->had_slots, error));
    sl_policy_config policy_config = policy_config_of(config, &store->geometry);
    SL_TRY(sl_policy_open(&store->policy, &policy_config, error));
    memcpy(store->ranges, config->ranges, bytes.ranges);
    if (config->n_files > 0) { /* a replay has none */
        memcpy(store->files, config->files, bytes.files);
    }
    return SLUICE_OK;
}

static sluice_status init_locks(sl_store *store, sluice_error *error)
{
    pthread_mutex_t *mutexes[] = {&store->lock, &store->resize_lock};
    pthread_cond_t *conditions[] = {&store->slot_ready, &store->slots_left};
    int failed = 0;
    int n_mutexes = 0;
    int n_conditions = 0;
    while (n_mutexes < 2 && failed == 0) {
        failed = pthread_mutex_init(mutexes[n_mutexes], NULL);
        n_mutexes += failed == 0 ? 1 : 0;
    }
    while (n_conditions < 2 && failed == 0) {
        failed = pthread_cond_init(conditions[n_conditions], NULL);
        n_conditions += failed == 0 ? 1 : 0;
    }
    if (failed == 0) {
        store->locks_ready = true;
        return SLUICE_OK;
    }
    while (n_conditions > 0) {
        pthread_cond_destroy(conditions[--n_conditions]);
    }
    while (n_mutexes > 0) {
        pthread_mutex_destroy(mutexes[--n_mutexes]);
    }
    return sl_error_set_system(error, SLUICE_ERROR_SYSTEM, failed, "cannot set up the locks of the expert store");
}

static const char *name_backend(const sl_store *store)
{
    static const char *const names[2][3] = {{"pread, buffered", "pread, partly direct", "pread, direct"},
                                            {"uring, buffered", "uring, partly direct", "uring, direct"}};
    uint32_t n_direct = 0;
    for (uint32_t i_file = 0; i_file < store->n_files; i_file++) {
        n_direct += store->files[i_file].file->direct_descriptor >= 0 ? 1 : 0;
    }
    int directness = n_direct == 0 ? 0 : n_direct < store->n_files ? 1 : 2;
    return names[strcmp(store->reads.backend->name, "uring") == 0][directness];
}

static sluice_status open_reads(sl_store *store, const sl_store_config *config, sluice_error *error)
{
    sl_reads_options options = reads_options_of(config, &store->geometry, store->arena, store->max_slots);
    SL_TRY(sl_reads_open(&store->reads, &options, store->memory, store->log, sl_slot_read_done, store, error));
    store->backend_name = name_backend(store);
    char text[256];
    sl_reads_describe_backend(&store->reads, text, sizeof text);
    sl_log_line(store->log, SL_LOG_INFO, "expert reads: %s", text);
    if (config->faults != NULL) {
        SL_TRY(sl_reads_wrap_faults(&store->reads, config->faults, store->memory, error));
    }
    return SLUICE_OK;
}

sluice_status sl_store_open(sl_store **out, const sl_store_config *config, sluice_error *error)
{
    *out = NULL;
    uint64_t n_total = (uint64_t)config->n_layers * config->n_experts;
    uint64_t n_slots = config->n_slots > n_total ? n_total : config->n_slots;
    sl_store_geometry geometry;
    SL_TRY(sl_store_geometry_of(config, n_slots, &geometry, error));
    sl_store *store = sl_alloc(config->memory, SL_MEMORY_OTHER, 1, sizeof *store);
    if (store == NULL) {
        return sl_error_no_memory(error, sizeof *store, "the expert store");
    }
    store->memory = config->memory;
    store->log = config->log;
    store->n_layers = config->n_layers;
    store->n_experts = config->n_experts;
    store->n_ranges = config->n_ranges;
    store->n_files = config->n_files;
    store->geometry = geometry;
    store->n_mask_words = mask_words(config->n_experts);
    store->prefetch_window_bytes = config->prefetch_window_bytes;
    store->from_cache = config->reads.from_cache;
    store->cache_stays = config->cache_stays;
    store->spare_core = config->spare_core;
    store->time = 1;
    store->last_layer = config->n_layers - 1;
    store->filling = SL_NO_SLOT;
    sluice_status status = allocate_tables(store, config, error);
    if (status == SLUICE_OK) {
        sl_slots_init(store);
        status = init_locks(store, error);
    }
    if (status == SLUICE_OK) {
        status = sl_arena_open(store, (uint32_t)n_slots, error);
    }
    if (status == SLUICE_OK) {
        status = open_reads(store, config, error);
    }
    if (status != SLUICE_OK) {
        sl_store_close(&store);
        return status;
    }
    *out = store;
    return SLUICE_OK;
}

void sl_store_close(sl_store **out)
{
    sl_store *store = *out;
    if (store == NULL) {
        return;
    }
    if (store->reads.backend != NULL) {
        pthread_mutex_lock(&store->lock);
        sl_hints_drop_all(store);
        pthread_mutex_unlock(&store->lock);
    }
    sl_reads_close(&store->reads);
    if (store->locks_ready) {
        pthread_cond_destroy(&store->slots_left);
        pthread_cond_destroy(&store->slot_ready);
        pthread_mutex_destroy(&store->resize_lock);
        pthread_mutex_destroy(&store->lock);
    }
    if (store->policy != NULL) {
        store->policy->type->close(store->policy);
    }
    sl_memory *memory = store->memory;
    sl_arena_close(store);
    sl_free(memory, store->had_slots);
    sl_free(memory, store->displaced);
    sl_free(memory, store->hint_masks);
    sl_free(memory, store->hint_lists);
    sl_free(memory, store->hints);
    sl_free(memory, store->meters);
    sl_free(memory, store->slot_of_expert);
    sl_free(memory, store->slot_reads);
    sl_free(memory, store->slots);
    sl_free(memory, store->files);
    sl_free(memory, store->ranges);
    sl_free(memory, store);
    *out = NULL;
}

uint32_t sl_store_n_layers(const sl_store *store)
{
    return store->n_layers;
}

const char *sl_store_backend(const sl_store *store)
{
    return store->backend_name;
}
