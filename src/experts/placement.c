/* Owns a placement pool for each layer, with an even share of the slots, and the uses that refresh it: placed experts
 * stay while others can go, those that lost their place and were not asked for since go first, in each group the least
 * recently asked for before the others.
 *
 * Invariants
 *  (1) Counts of a layer are its uses with those before each refresh halved once.
 *  (2) An expert that is `demoted` has no place.
 * Threads: the holder of the store's lock. */
#include "experts/placement_pool.h"
#include "experts/ranked.h"

/* Measured on recorded routing (docs/policies.md); nothing is moved by a refresh, so it may come often. */
enum { REFRESH_TOKENS = 8, DWELL = 2 };
static const float margin = 0.25f;

typedef struct placement {
    sl_memory *memory; /* borrowed */
    uint32_t n_layers, n_experts;
    sl_placement_pool **pools; /* owned; [n_layers] */
    uint64_t *n_tokens;        /* owned; [n_layers] */
    uint32_t *counts;          /* owned; [n_layers][n_experts] */
    bool *demoted;             /* owned; [n_layers][n_experts]: lost its place, not asked for since */
} placement;

static bool *demoted_of(const placement *self, uint32_t layer)
{
    return &self->demoted[(size_t)layer * self->n_experts];
}

/* Before and after a pool changes: whoever had a place and has none is demoted. */
static void mark_placed(placement *self, uint32_t layer)
{
    for (uint32_t expert = 0; expert < self->n_experts; expert++) {
        demoted_of(self, layer)[expert] |= sl_placement_has(self->pools[layer], expert);
    }
}

static void mark_demoted(placement *self, uint32_t layer)
{
    for (uint32_t expert = 0; expert < self->n_experts; expert++) {
        demoted_of(self, layer)[expert] &= !sl_placement_has(self->pools[layer], expert);
    }
}

static void forget_asked(placement *self, const sl_policy_request *request)
{
    for (uint32_t i = 0; i < request->n_experts; i++) {
        demoted_of(self, request->layer)[request->experts[i]] = false;
    }
}

static void placement_routed(void *state, const sl_policy_request *request)
{
    placement *self = state;
    sl_placement_pool *pool = self->pools[request->layer];
    uint32_t *counts = &self->counts[(size_t)request->layer * self->n_experts];
    for (uint32_t i = 0; i < request->n_experts; i++) {
        counts[request->experts[i]] += request->tokens_of == NULL ? 1 : request->tokens_of[i];
    }
    uint64_t step = self->n_tokens[request->layer] += request->n_tokens;
    if (!sl_placement_should_refresh(pool, step, request->n_tokens > 1)) {
        forget_asked(self, request);
        return;
    }
    mark_placed(self, request->layer);
    sl_placement_refresh_pool(pool, counts);
    mark_demoted(self, request->layer);
    for (uint32_t expert = 0; expert < self->n_experts; expert++) {
        counts[expert] /= 2;
    }
    forget_asked(self, request);
}

static float placement_worth(const void *state, uint32_t layer, uint32_t expert)
{
    const placement *self = state;
    bool demoted = self->demoted[(size_t)layer * self->n_experts + expert];
    return sl_placement_has(self->pools[layer], expert) ? 2.0f : demoted ? 0.0f : 1.0f;
}

static void placement_limit(void *state, uint32_t n_slots)
{
    placement *self = state;
    for (uint32_t layer = 0; layer < self->n_layers; layer++) {
        mark_placed(self, layer);
        sl_placement_set_budget(self->pools[layer], n_slots / self->n_layers,
                                &self->counts[(size_t)layer * self->n_experts]);
        mark_demoted(self, layer);
    }
}

static void placement_close(void *state)
{
    placement *self = state;
    for (uint32_t layer = 0; self->pools != NULL && layer < self->n_layers; layer++) {
        sl_placement_pool_close(&self->pools[layer]);
    }
    sl_free(self->memory, self->pools);
    sl_free(self->memory, self->n_tokens);
    sl_free(self->memory, self->counts);
    sl_free(self->memory, self->demoted);
    sl_free(self->memory, self);
}

static const sl_ranking placement_ranking = {
    .routed = placement_routed, .worth = placement_worth, .limit = placement_limit, .close = placement_close};

static sl_placement_config pool_config_of(const sl_policy_config *config)
{
    return (sl_placement_config){.n_experts = config->n_experts,
                                 .budget =
                                     (config->n_in_use > 0 ? config->n_in_use : config->n_slots) / config->n_layers,
                                 .refresh = SL_PLACEMENT_EVERY_STEPS,
                                 .interval = REFRESH_TOKENS,
                                 .margin = margin,
                                 .dwell = DWELL,
                                 .memory = config->memory};
}

uint64_t sl_policy_placement_cost(const sl_policy_config *config)
{
    sl_placement_config pool_config = pool_config_of(config);
    return sl_policy_ranked_cost(config) + sl_memory_cost(sizeof(placement), 16) +
           sl_memory_cost(config->n_layers * sizeof(sl_placement_pool *), 16) +
           sl_memory_cost(config->n_layers * sizeof(uint64_t), 16) +
           sl_memory_cost((uint64_t)config->n_layers * config->n_experts * sizeof(uint32_t), 16) +
           sl_memory_cost((uint64_t)config->n_layers * config->n_experts * sizeof(bool), 16) +
           config->n_layers * sl_placement_pool_cost(&pool_config);
}

static sluice_status open_pools(placement *self, const sl_policy_config *config, sluice_error *error)
{
    size_t n_total = (size_t)config->n_layers * config->n_experts;
    self->pools = sl_alloc(self->memory, SL_MEMORY_OTHER, config->n_layers, sizeof(sl_placement_pool *));
    self->n_tokens = sl_alloc(self->memory, SL_MEMORY_OTHER, config->n_layers, sizeof *self->n_tokens);
    self->counts = sl_alloc(self->memory, SL_MEMORY_OTHER, n_total, sizeof *self->counts);
    self->demoted = sl_alloc(self->memory, SL_MEMORY_OTHER, n_total, sizeof *self->demoted);
    if (self->pools == NULL || self->n_tokens == NULL || self->counts == NULL || self->demoted == NULL) {
        return sl_error_no_memory(error, n_total * sizeof *self->counts, "the placement of experts");
    }
    sl_placement_config pool_config = pool_config_of(config);
    for (uint32_t layer = 0; layer < config->n_layers; layer++) {
        SL_TRY(sl_placement_pool_open(&self->pools[layer], &pool_config, error));
    }
    return SLUICE_OK;
}

sluice_status sl_policy_open_placement(sl_policy **policy, const sl_policy_config *config, sluice_error *error)
{
    placement *self = sl_alloc(config->memory, SL_MEMORY_OTHER, 1, sizeof *self);
    if (self == NULL) {
        return sl_error_no_memory(error, sizeof *self, "the placement of experts");
    }
    self->memory = config->memory;
    self->n_layers = config->n_layers;
    self->n_experts = config->n_experts;
    sluice_status status = open_pools(self, config, error);
    if (status != SLUICE_OK) {
        placement_close(self);
        return status;
    }
    return sl_policy_open_ranked(policy, config, &placement_ranking, self, error);
}
