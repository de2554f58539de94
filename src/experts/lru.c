/* Owns a list of the occupied slots, ordered by when their expert was last asked for.
 *
 * Invariants
 *  (1) The list holds the occupied slots and no others, from the smallest time to the largest.
 *  (2) Two slots never have the same time, because a time belongs to one place in one request's list; so the order
 *      has no ties. Slots whose expert nobody asked for yet have time 0, before all others, the newest of them first.
 *  (3) A slot's time never falls: a late slot of an old request does not make an expert older that a newer request
 *      asked for.
 * Threads: the holder of the store's lock. */
#include "experts/ranked.h"

typedef struct lru_node {
    uint64_t time;
    uint32_t older, newer; /* SL_NO_SLOT at the ends */
} lru_node;

typedef struct lru_policy {
    sl_policy policy;
    sl_memory *memory; /* borrowed */
    uint32_t oldest, newest;
    lru_node nodes[]; // [n_slots]
} lru_policy;

static void unlink_slot(lru_policy *lru, uint32_t slot)
{
    lru_node *node = &lru->nodes[slot];
    if (node->older == SL_NO_SLOT) {
        lru->oldest = node->newer;
    } else {
        lru->nodes[node->older].newer = node->newer;
    }
    if (node->newer == SL_NO_SLOT) {
        lru->newest = node->older;
    } else {
        lru->nodes[node->newer].older = node->older;
    }
}

/* Nearly always at the newest end: only a slot that a request got late has to look further. */
static void link_slot(lru_policy *lru, uint32_t slot, uint64_t time)
{
    uint32_t older = lru->newest;
    while (older != SL_NO_SLOT && lru->nodes[older].time > time) {
        older = lru->nodes[older].older;
    }
    uint32_t newer = older == SL_NO_SLOT ? lru->oldest : lru->nodes[older].newer;
    lru->nodes[slot] = (lru_node){.time = time, .older = older, .newer = newer};
    if (older == SL_NO_SLOT) {
        lru->oldest = slot;
    } else {
        lru->nodes[older].newer = slot;
    }
    if (newer == SL_NO_SLOT) {
        lru->newest = slot;
    } else {
        lru->nodes[newer].older = slot;
    }
}

static void lru_routed(sl_policy *policy, const sl_policy_request *request)
{
    (void)policy;
    (void)request;
}

static void lru_hit(sl_policy *policy, uint32_t slot, uint64_t time)
{
    lru_policy *lru = (lru_policy *)policy;
    if (time > lru->nodes[slot].time) {
        unlink_slot(lru, slot);
        link_slot(lru, slot, time);
    }
}

static void lru_miss(sl_policy *policy, uint32_t slot, uint32_t layer, uint32_t expert, uint64_t time)
{
    (void)layer;
    (void)expert;
    link_slot((lru_policy *)policy, slot, time);
}

static void lru_prefetched(sl_policy *policy, uint32_t slot, uint32_t layer, uint32_t expert)
{
    lru_policy *lru = (lru_policy *)policy;
    (void)layer;
    (void)expert;
    lru->nodes[slot] = (lru_node){.time = 0, .older = SL_NO_SLOT, .newer = lru->oldest};
    if (lru->oldest == SL_NO_SLOT) {
        lru->newest = slot;
    } else {
        lru->nodes[lru->oldest].older = slot;
    }
    lru->oldest = slot;
}

static void lru_evict(sl_policy *policy, uint32_t slot)
{
    unlink_slot((lru_policy *)policy, slot);
}

static uint32_t lru_first_victim(const sl_policy *policy)
{
    return ((const lru_policy *)policy)->oldest;
}

static uint32_t lru_next_victim(const sl_policy *policy, uint32_t slot)
{
    return ((const lru_policy *)policy)->nodes[slot].newer;
}

static void lru_limit(sl_policy *policy, uint32_t n_slots)
{
    (void)policy;
    (void)n_slots;
}

static void lru_close(sl_policy *policy)
{
    lru_policy *lru = (lru_policy *)policy;
    sl_free(lru->memory, lru);
}

static const sl_policy_type lru_type = {
    .routed = lru_routed,
    .hit = lru_hit,
    .miss = lru_miss,
    .prefetched = lru_prefetched,
    .evict = lru_evict,
    .first_victim = lru_first_victim,
    .next_victim = lru_next_victim,
    .limit = lru_limit,
    .close = lru_close,
};

static size_t lru_bytes(uint32_t n_slots)
{
    return sizeof(lru_policy) + (size_t)n_slots * sizeof(lru_node);
}

uint64_t sl_policy_lru_cost(const sl_policy_config *config)
{
    return sl_memory_cost(lru_bytes(config->n_slots), 16);
}

sluice_status sl_policy_open_lru(sl_policy **policy, const sl_policy_config *config, sluice_error *error)
{
    lru_policy *lru = sl_alloc(config->memory, SL_MEMORY_OTHER, 1, lru_bytes(config->n_slots));
    if (lru == NULL) {
        return sl_error_no_memory(error, lru_bytes(config->n_slots), "the eviction policy");
    }
    lru->policy.type = &lru_type;
    lru->memory = config->memory;
    lru->oldest = SL_NO_SLOT;
    lru->newest = SL_NO_SLOT;
    *policy = &lru->policy;
    return SLUICE_OK;
}
