/* Owns how often each expert was asked for, with what is long ago counting for less: who was asked for least gives way,
 * the least recently asked for among equals.
 *
 * Invariant: a count is the sum over the tokens that asked for the expert of 2^(-age / 64), age in tokens of its layer.
 * Threads: the holder of the store's lock. */
#include <math.h>

#include "experts/ranked.h"

static const float half_life = 64.0f; /* tokens */

typedef struct lfru {
    uint32_t n_experts;
    float counts[]; // [n_layers][n_experts]
} lfru;

static void lfru_routed(void *state, const sl_policy_request *request)
{
    lfru *self = state;
    float *counts = &self->counts[(size_t)request->layer * self->n_experts];
    float decay = exp2f(-(float)request->n_tokens / half_life);
    for (uint32_t expert = 0; expert < self->n_experts; expert++) {
        counts[expert] *= decay;
    }
    for (uint32_t i = 0; i < request->n_experts; i++) {
        counts[request->experts[i]] += request->tokens_of == NULL ? 1.0f : (float)request->tokens_of[i];
    }
}

static float lfru_worth(const void *state, uint32_t layer, uint32_t expert)
{
    const lfru *self = state;
    return self->counts[(size_t)layer * self->n_experts + expert];
}

static const sl_ranking lfru_ranking = {.routed = lfru_routed, .worth = lfru_worth};

static uint64_t lfru_bytes(const sl_policy_config *config)
{
    return sizeof(lfru) + (uint64_t)config->n_layers * config->n_experts * sizeof(float);
}

uint64_t sl_policy_lfru_cost(const sl_policy_config *config)
{
    return sl_policy_ranked_cost(config) + sl_memory_cost(lfru_bytes(config), 16);
}

sluice_status sl_policy_open_lfru(sl_policy **policy, const sl_policy_config *config, sluice_error *error)
{
    lfru *self = sl_alloc(config->memory, SL_MEMORY_OTHER, 1, lfru_bytes(config));
    if (self == NULL) {
        return sl_error_no_memory(error, lfru_bytes(config), "the counts of experts");
    }
    self->n_experts = config->n_experts;
    return sl_policy_open_ranked(policy, config, &lfru_ranking, self, error);
}
