/* Owns the set of experts that stay while others can go. Among each kind the least recently asked for gives way first.
 * Threads: the holder of the store's lock. */
#include <string.h>

#include "experts/ranked.h"

typedef struct pinned {
    uint32_t n_mask_words;
    uint64_t masks[]; // [n_layers][n_mask_words]
} pinned;

static void pinned_routed(void *self, const sl_policy_request *request)
{
    (void)self;
    (void)request;
}

static float pinned_worth(const void *state, uint32_t layer, uint32_t expert)
{
    const pinned *self = state;
    uint64_t word = self->masks[(size_t)layer * self->n_mask_words + expert / 64];
    return (word >> (expert % 64) & 1u) != 0 ? 1.0f : 0.0f;
}

static const sl_ranking pinned_ranking = {.routed = pinned_routed, .worth = pinned_worth};

static uint64_t masks_bytes(const sl_policy_config *config)
{
    return (uint64_t)config->n_layers * ((config->n_experts - 1) / 64 + 1) * sizeof(uint64_t);
}

uint64_t sl_policy_pinned_cost(const sl_policy_config *config)
{
    return sl_policy_ranked_cost(config) + sl_memory_cost(sizeof(pinned) + masks_bytes(config), 16);
}

sluice_status sl_policy_open_pinned(sl_policy **policy, const sl_policy_config *config, sluice_error *error)
{
    pinned *self = sl_alloc(config->memory, SL_MEMORY_OTHER, 1, sizeof *self + masks_bytes(config));
    if (self == NULL) {
        return sl_error_no_memory(error, sizeof *self + masks_bytes(config), "the experts that stay");
    }
    self->n_mask_words = (config->n_experts - 1) / 64 + 1;
    if (config->pinned != NULL) {
        memcpy(self->masks, config->pinned, masks_bytes(config));
    }
    return sl_policy_open_ranked(policy, config, &pinned_ranking, self, error);
}
