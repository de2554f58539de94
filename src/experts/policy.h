/* What decides which expert gives way. A policy sees every event in the order the store handles them, and keeps the
 * slots in the order in which they should be emptied; the store takes the first one it may. */
#ifndef SL_EXPERTS_POLICY_H
#define SL_EXPERTS_POLICY_H

#include "base/error.h"
#include "base/memory.h"

#define SL_NO_SLOT UINT32_MAX

typedef struct sl_policy sl_policy;

/* `time` counts experts asked for, store-wide: expert i of a request has the request's time + i, however late it gets
 * its slot. So what a policy does follows from the order of the requests and not from the disk. thread: the holder of
 * the store's lock. No function allocates or fails. */
typedef struct sl_policy_type {
    const char *name;
    /* Every expert of every request, in the order of the list, before any other event of that request. */
    void (*routed)(sl_policy *policy, uint32_t layer, uint32_t expert, uint64_t time);
    /* The routed expert has this slot already: READY, or on its way for another request. */
    void (*hit)(sl_policy *policy, uint32_t slot, uint64_t time);
    /* The routed expert gets this slot, which was empty. */
    void (*miss)(sl_policy *policy, uint32_t slot, uint32_t layer, uint32_t expert, uint64_t time);
    /* The slot, which was empty, gets an expert that nobody asked for yet: until it is hit, it goes before all others.
     */
    void (*prefetched)(sl_policy *policy, uint32_t slot, uint32_t layer, uint32_t expert);
    /* The slot becomes empty: its expert gave way, or could not be read. */
    void (*evict)(sl_policy *policy, uint32_t slot);
    /* The occupied slot to empty first, and the one to empty after `slot`; SL_NO_SLOT at the end. */
    uint32_t (*first_victim)(const sl_policy *policy);
    uint32_t (*next_victim)(const sl_policy *policy, uint32_t slot);
    void (*close)(sl_policy *policy);
} sl_policy_type;

/* Every policy's struct begins with this. */
struct sl_policy {
    const sl_policy_type *type;
};

/* Least recently asked for goes first. `*policy` is freed by its type's close. */
SLUICE_NODISCARD sluice_status sl_policy_open_lru(sl_policy **policy, uint32_t n_slots, sl_memory *memory,
                                                  sluice_error *error);
uint64_t sl_policy_lru_cost(uint32_t n_slots);

#endif
