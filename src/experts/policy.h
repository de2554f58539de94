/* What decides which expert gives way. A policy sees every event in the order the store handles them, and keeps the
 * slots in the order in which they should be emptied; the store takes the first one it may. */
#ifndef SL_EXPERTS_POLICY_H
#define SL_EXPERTS_POLICY_H

#include <stdbool.h>

#include "base/error.h"
#include "base/memory.h"

#define SL_NO_SLOT UINT32_MAX

typedef enum sl_policy_kind {
    SL_POLICY_LRU,       /* least recently asked for */
    SL_POLICY_LFRU,      /* least often asked for, as far as it is not long ago */
    SL_POLICY_PINNED,    /* a fixed set stays, the others as LRU */
    SL_POLICY_PLACEMENT, /* a set that follows the use of each layer stays, the others as LRU */
    SL_POLICY_REUSE,     /* the least chance of being asked for soon */
    SL_POLICY_KINDS
} sl_policy_kind;

/* From "lru", "lfru", "pinned", "placement" or "reuse"; "auto" is REUSE: docs/policies.md has the measurements. */
bool sl_policy_kind_parse(const char *name, sl_policy_kind *kind);
const char *sl_policy_kind_name(sl_policy_kind kind);

typedef struct sl_policy_config {
    sl_policy_kind kind;
    uint32_t n_layers;
    uint32_t n_experts; /* per layer */
    uint32_t n_used;    /* by one token in one layer; 0 counts as 1 */
    uint32_t n_slots;   /* the most there will ever be */
    uint32_t n_in_use;  /* of them at first; 0: all */
    /* PINNED: bits of each layer's experts [n_layers][mask_words]; borrowed during open. NULL: none is pinned. */
    const uint64_t *pinned;
    sl_memory *memory; /* borrowed for the policy's life */
} sl_policy_config;

typedef struct sl_policy sl_policy;

/* One request: `n_tokens` tokens together ask a layer for `experts` [n_experts], distinct; tokens_of [n_experts] is how
 * many of them ask for each (NULL: one each). */
typedef struct sl_policy_request {
    uint32_t layer;
    uint32_t n_experts;
    const uint32_t *experts;
    const uint32_t *tokens_of;
    uint32_t n_tokens;
    uint64_t time; /* of the first in the list */
} sl_policy_request;

/* `time` counts experts asked for, store-wide: expert i of a request has the request's time + i, however late it gets
 * its slot. So what a policy does follows from the order of the requests and not from the disk. thread: the holder of
 * the store's lock. No function allocates or fails. */
typedef struct sl_policy_type {
    /* Every request, before any other event of it. */
    void (*routed)(sl_policy *policy, const sl_policy_request *request);
    /* The routed expert has this slot already: READY, or on its way for another request. */
    void (*hit)(sl_policy *policy, uint32_t slot, uint64_t time);
    /* The routed expert gets this slot, which was empty. */
    void (*miss)(sl_policy *policy, uint32_t slot, uint32_t layer, uint32_t expert, uint64_t time);
    /* The slot, which was empty, gets an expert that nobody asked for yet: until it is hit, it goes before all others.
     */
    void (*prefetched)(sl_policy *policy, uint32_t slot, uint32_t layer, uint32_t expert);
    /* The slot becomes empty: its expert gave way, or could not be read. */
    void (*evict)(sl_policy *policy, uint32_t slot);
    /* The occupied slot to empty first, and the one to empty after `slot`; SL_NO_SLOT at the end. What the latest
     * request asked for comes last, the first of its list first. Not asked while every expert can have a slot. */
    uint32_t (*first_victim)(const sl_policy *policy);
    uint32_t (*next_victim)(const sl_policy *policy, uint32_t slot);
    /* From now on slots 0 to n_slots - 1 are in use. Those above are emptied one by one as they are free to be, each
     * through `evict`, and get no expert until the number rises again. Never more than the policy was opened for. */
    void (*limit)(sl_policy *policy, uint32_t n_slots);
    void (*close)(sl_policy *policy);
} sl_policy_type;

/* Every policy's struct begins with this. */
struct sl_policy {
    const sl_policy_type *type;
};

/* `*policy` is freed by its type's close. */
SLUICE_NODISCARD sluice_status sl_policy_open(sl_policy **policy, const sl_policy_config *config, sluice_error *error);
/* What open takes from the account, tag other. */
uint64_t sl_policy_cost(const sl_policy_config *config);

#endif
