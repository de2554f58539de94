/* Owns which experts of a layer have a place, and since when.
 *
 * Invariants
 *  (1) Between calls at most `budget` experts have a place; a refresh never lowers their number.
 *  (2) Every promotion beyond free places is paired with one demotion.
 *  (3) No order depends on anything but counts, times and numbers.
 * Threads: one at a time. */
#include "experts/placement_pool.h"

#include <string.h>

struct sl_placement_pool {
    sl_placement_config config;
    uint32_t n_placed;
    sl_placement_statistics statistics;
    bool *placed;     /* owned; [n_experts] */
    bool *wanted;     /* owned; [n_experts]: the target of the refresh under way */
    uint64_t *since;  /* owned; [n_experts]: number of refreshes when it got its place */
    uint32_t *target; /* owned; [n_experts] */
};

static const uint32_t nobody = UINT32_MAX;

void sl_placement_count(const uint32_t *ids, size_t n_ids, uint32_t n_experts, uint32_t *counts)
{
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < n_experts) {
            counts[ids[i]]++;
        }
    }
}

uint32_t sl_placement_target(const uint32_t *counts, uint32_t n_experts, uint32_t budget, uint32_t *target)
{
    uint32_t n_target = 0;
    for (uint32_t expert = 0; expert < n_experts; expert++) {
        uint32_t place = n_target;
        while (place > 0 && counts[target[place - 1]] < counts[expert]) {
            place--;
        }
        if (counts[expert] == 0 || place >= budget) {
            continue;
        }
        n_target += n_target < budget ? 1 : 0;
        memmove(&target[place + 1], &target[place], (n_target - 1 - place) * sizeof *target);
        target[place] = expert;
    }
    return n_target;
}

uint32_t sl_placement_budget(uint64_t free_bytes, uint64_t reserve_bytes, uint64_t expert_bytes, uint64_t n_layers,
                             uint32_t cap, uint32_t n_experts)
{
    uint32_t most = cap < n_experts ? cap : n_experts;
    uint64_t layer_bytes = 0;
    if (expert_bytes == 0 || n_layers == 0) {
        return most;
    }
    uint64_t usable = free_bytes > reserve_bytes ? free_bytes - reserve_bytes : 0;
    if (__builtin_mul_overflow(expert_bytes, n_layers, &layer_bytes)) {
        return 0;
    }
    return usable / layer_bytes < most ? (uint32_t)(usable / layer_bytes) : most;
}

bool sl_placement_should_refresh(const sl_placement_pool *pool, uint64_t step, bool is_prefill)
{
    const sl_placement_config *config = &pool->config;
    if (config->budget >= config->n_experts) {
        return false;
    }
    if (is_prefill || config->refresh != SL_PLACEMENT_EVERY_STEPS) {
        return true;
    }
    return step % (config->interval == 0 ? 1 : config->interval) == 0;
}

/* Whether `a` gives way before `b`. */
static bool is_weaker(const sl_placement_pool *pool, const uint32_t *counts, uint32_t a, uint32_t b)
{
    if (counts[a] != counts[b]) {
        return counts[a] < counts[b];
    }
    return pool->since[a] != pool->since[b] ? pool->since[a] < pool->since[b] : a < b;
}

/* Who gives way next outside the target; `dwell` refreshes must be over. */
static uint32_t weakest(const sl_placement_pool *pool, const uint32_t *counts, uint32_t dwell)
{
    uint32_t found = nobody;
    for (uint32_t expert = 0; expert < pool->config.n_experts; expert++) {
        bool may_go =
            pool->placed[expert] && !pool->wanted[expert] && pool->statistics.refreshes - pool->since[expert] >= dwell;
        if (may_go && (found == nobody || is_weaker(pool, counts, expert, found))) {
            found = expert;
        }
    }
    return found;
}

static void place(sl_placement_pool *pool, uint32_t expert)
{
    pool->placed[expert] = true;
    pool->since[expert] = pool->statistics.refreshes;
    pool->n_placed++;
    pool->statistics.promotions++;
}

static void displace(sl_placement_pool *pool, uint32_t expert)
{
    pool->placed[expert] = false;
    pool->n_placed--;
    pool->statistics.demotions++;
}

void sl_placement_refresh_pool(sl_placement_pool *pool, const uint32_t *counts)
{
    const sl_placement_config *config = &pool->config;
    uint32_t n_target = sl_placement_target(counts, config->n_experts, config->budget, pool->target);
    memset(pool->wanted, 0, config->n_experts * sizeof *pool->wanted);
    for (uint32_t i = 0; i < n_target; i++) {
        pool->wanted[pool->target[i]] = true;
    }
    pool->statistics.refreshes++;
    for (uint32_t i = 0; i < n_target; i++) {
        uint32_t newcomer = pool->target[i];
        if (pool->placed[newcomer]) {
            continue;
        }
        if (pool->n_placed == config->budget) {
            uint32_t going = weakest(pool, counts, config->dwell);
            if (going == nobody || (double)counts[newcomer] < (double)counts[going] * (1.0 + (double)config->margin)) {
                return;
            }
            displace(pool, going);
        }
        place(pool, newcomer);
    }
}

void sl_placement_set_budget(sl_placement_pool *pool, uint32_t budget, const uint32_t *counts)
{
    pool->config.budget = budget < pool->config.n_experts ? budget : pool->config.n_experts;
    memset(pool->wanted, 0, pool->config.n_experts * sizeof *pool->wanted);
    while (pool->n_placed > pool->config.budget) {
        displace(pool, weakest(pool, counts, 0));
    }
}

bool sl_placement_has(const sl_placement_pool *pool, uint32_t expert)
{
    return pool->placed[expert];
}

uint32_t sl_placement_n_placed(const sl_placement_pool *pool)
{
    return pool->n_placed;
}

sl_placement_statistics sl_placement_statistics_of(const sl_placement_pool *pool)
{
    return pool->statistics;
}

void sl_placement_add_mask(const sl_placement_pool *pool, uint64_t *mask)
{
    for (uint32_t expert = 0; expert < pool->config.n_experts; expert++) {
        mask[expert / 64] |= (uint64_t)(pool->placed[expert] ? 1 : 0) << (expert % 64);
    }
}

uint64_t sl_placement_pool_cost(const sl_placement_config *config)
{
    return sl_memory_cost(sizeof(sl_placement_pool), 16) + 2 * sl_memory_cost(config->n_experts * sizeof(bool), 16) +
           sl_memory_cost(config->n_experts * sizeof(uint64_t), 16) +
           sl_memory_cost(config->n_experts * sizeof(uint32_t), 16);
}

sluice_status sl_placement_pool_open(sl_placement_pool **out, const sl_placement_config *config, sluice_error *error)
{
    *out = NULL;
    sl_memory *memory = config->memory;
    sl_placement_pool *pool = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizeof *pool);
    if (pool == NULL) {
        return sl_error_no_memory(error, sizeof *pool, "the placement of experts");
    }
    pool->config = *config;
    pool->config.budget = config->budget < config->n_experts ? config->budget : config->n_experts;
    pool->placed = sl_alloc(memory, SL_MEMORY_OTHER, config->n_experts, sizeof *pool->placed);
    pool->wanted = sl_alloc(memory, SL_MEMORY_OTHER, config->n_experts, sizeof *pool->wanted);
    pool->since = sl_alloc(memory, SL_MEMORY_OTHER, config->n_experts, sizeof *pool->since);
    pool->target = sl_alloc(memory, SL_MEMORY_OTHER, config->n_experts, sizeof *pool->target);
    if (pool->placed == NULL || pool->wanted == NULL || pool->since == NULL || pool->target == NULL) {
        sl_placement_pool_close(&pool);
        return sl_error_no_memory(error, sl_placement_pool_cost(config), "the placement of experts");
    }
    pool->n_placed = pool->config.budget;
    for (uint32_t expert = 0; expert < pool->n_placed; expert++) {
        pool->placed[expert] = true;
    }
    *out = pool;
    return SLUICE_OK;
}

void sl_placement_pool_close(sl_placement_pool **out)
{
    sl_placement_pool *pool = *out;
    if (pool == NULL) {
        return;
    }
    sl_memory *memory = pool->config.memory;
    sl_free(memory, pool->target);
    sl_free(memory, pool->since);
    sl_free(memory, pool->wanted);
    sl_free(memory, pool->placed);
    sl_free(memory, pool);
    *out = NULL;
}
