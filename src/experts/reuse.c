/* Owns the chances of experts (chance.h): what is least worth keeping, until its layer's next turn or longer, gives way
 * first.
 * Threads: the holder of the store's lock. */
#include "experts/chance.h"
#include "experts/ranked.h"

static void reuse_routed(void *self, const sl_policy_request *request)
{
    sl_chance_turn(self, request->layer, request->experts, request->tokens_of, request->n_experts, request->n_tokens);
}

static float reuse_worth(const void *self, uint32_t layer, uint32_t expert)
{
    return sl_chance_worth(self, layer, expert);
}

static void reuse_close(void *self)
{
    sl_chance *chance = self;
    sl_chance_close(&chance);
}

static const sl_ranking reuse_ranking = {
    .routed = reuse_routed, .worth = reuse_worth, .by_distance = true, .close = reuse_close};

/* Larger tables of pairs, of models with very many experts, would cost more slots than they are worth. */
static const uint64_t largest_pairs_bytes = UINT64_C(16) << 20;

static sl_chance_config chance_config_of(const sl_policy_config *config)
{
    uint64_t pairs_bytes = (uint64_t)config->n_layers * config->n_experts * config->n_experts * sizeof(float);
    uint32_t n_used = config->n_used == 0 ? 1 : config->n_used;
    return (sl_chance_config){.n_layers = config->n_layers,
                              .n_experts = config->n_experts,
                              .n_used = n_used < config->n_experts ? n_used : config->n_experts,
                              .with_pairs = pairs_bytes <= largest_pairs_bytes,
                              .memory = config->memory};
}

uint64_t sl_policy_reuse_cost(const sl_policy_config *config)
{
    sl_chance_config chance_config = chance_config_of(config);
    return sl_policy_ranked_cost(config) + sl_chance_cost(&chance_config);
}

sluice_status sl_policy_open_reuse(sl_policy **policy, const sl_policy_config *config, sluice_error *error)
{
    sl_chance_config chance_config = chance_config_of(config);
    sl_chance *chance = NULL;
    SL_TRY(sl_chance_open(&chance, &chance_config, error));
    return sl_policy_open_ranked(policy, config, &reuse_ranking, chance, error);
}
