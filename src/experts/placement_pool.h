/* Which experts of a layer have a place: a set of fixed size that follows how much they are used, refreshed every few
 * steps, with as many coming as going. Pure: knows nothing of slots or reads.
 * Source: the ExpertPool of RLX and the predictive offload of TIDE (arXiv 2026); where they leave an order open, it is
 * defined here. */
#ifndef SL_EXPERTS_PLACEMENT_POOL_H
#define SL_EXPERTS_PLACEMENT_POOL_H

#include <stdbool.h>

#include "base/error.h"
#include "base/memory.h"

/* Add how often each expert occurs among `ids` [n_ids] to `counts` [n_experts]; ids out of range are ignored. */
void sl_placement_count(const uint32_t *ids, size_t n_ids, uint32_t n_experts, uint32_t *counts);

/* The most used experts: by falling count, then rising number, those never used left out, at most `budget`. `target`
 * has room for that many. Returns how many there are. */
uint32_t sl_placement_target(const uint32_t *counts, uint32_t n_experts, uint32_t budget, uint32_t *target);

/* How many experts of each layer fit into memory that is free but for a reserve; 0 bytes or layers: as many as the cap
 * allows. */
uint32_t sl_placement_budget(uint64_t free_bytes, uint64_t reserve_bytes, uint64_t expert_bytes, uint64_t n_layers,
                             uint32_t cap, uint32_t n_experts);

typedef enum sl_placement_refresh {
    SL_PLACEMENT_EVERY_FORWARD,
    SL_PLACEMENT_EVERY_STEPS, /* steps that `interval` divides */
    SL_PLACEMENT_ALWAYS       /* asked for explicitly */
} sl_placement_refresh;

typedef struct sl_placement_config {
    uint32_t n_experts;
    uint32_t budget; /* experts that have a place; more than n_experts is lowered to that */
    sl_placement_refresh refresh;
    uint32_t interval; /* 0 counts as 1 */
    float margin;      /* a newcomer needs this share more uses than who gives way */
    uint32_t dwell;    /* refreshes that a place is kept at least */
    sl_memory *memory; /* borrowed for the pool's life */
} sl_placement_config;

typedef struct sl_placement_statistics {
    uint64_t refreshes, promotions, demotions;
} sl_placement_statistics;

/* thread: one at a time. */
typedef struct sl_placement_pool sl_placement_pool;

/* Experts 0 to budget - 1 have a place. */
SLUICE_NODISCARD sluice_status sl_placement_pool_open(sl_placement_pool **out, const sl_placement_config *config,
                                                      sluice_error *error);
void sl_placement_pool_close(sl_placement_pool **pool);
/* What open takes from the account, tag other. */
uint64_t sl_placement_pool_cost(const sl_placement_config *config);

/* Whether to refresh before `step`; in a prefill always, and never while every expert has a place. */
bool sl_placement_should_refresh(const sl_placement_pool *pool, uint64_t step, bool is_prefill);

/* Bring in the target of `counts` [n_experts]. Newcomers come hottest first; each takes a free place, or that of an
 * expert outside the target: the least used, then the one placed longest ago, then the lowest number, whose dwell is
 * over. The first newcomer that beats nobody by the margin ends it. */
void sl_placement_refresh_pool(sl_placement_pool *pool, const uint32_t *counts);

/* Change how many have a place: the last of the order above lose theirs, with `counts` [n_experts] as uses. */
void sl_placement_set_budget(sl_placement_pool *pool, uint32_t budget, const uint32_t *counts);

bool sl_placement_has(const sl_placement_pool *pool, uint32_t expert);
uint32_t sl_placement_n_placed(const sl_placement_pool *pool);
sl_placement_statistics sl_placement_statistics_of(const sl_placement_pool *pool);
/* Bits of the experts that have a place, added to `mask` [(n_experts - 1) / 64 + 1]: zeroed before, the pool's own;
 * over several pools, their union. */
void sl_placement_add_mask(const sl_placement_pool *pool, uint64_t *mask);

#endif
