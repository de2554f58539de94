/* Policies that say what an expert is worth: they share one way of keeping slots in order. */
#ifndef SL_EXPERTS_RANKED_H
#define SL_EXPERTS_RANKED_H

#include "experts/policy.h"

/* What makes a policy of its kind. `self` is the kind's own state, which may be NULL. */
typedef struct sl_ranking {
    /* See sl_policy_type. Only experts of the request's layer may change their worth by it. */
    void (*routed)(void *self, const sl_policy_request *request);
    /* Of keeping an expert: finite and not negative. Among equals the least recently asked for goes first. */
    float (*worth)(const void *self, uint32_t layer, uint32_t expert);
    /* The worth is that of the layer's next turn, and is held against how far that is. */
    bool by_distance;
    void (*limit)(void *self, uint32_t n_slots); /* may be NULL */
    void (*close)(void *self);                   /* may be NULL: `self` is one block of the config's memory, or NULL */
} sl_ranking;

/* Owns `self` from now on, also when it fails. */
SLUICE_NODISCARD sluice_status sl_policy_open_ranked(sl_policy **policy, const sl_policy_config *config,
                                                     const sl_ranking *ranking, void *self, sluice_error *error);
uint64_t sl_policy_ranked_cost(const sl_policy_config *config);

/* The kinds. Their costs include what sl_policy_open_ranked takes. */
SLUICE_NODISCARD sluice_status sl_policy_open_lru(sl_policy **policy, const sl_policy_config *config,
                                                  sluice_error *error);
uint64_t sl_policy_lru_cost(const sl_policy_config *config);
SLUICE_NODISCARD sluice_status sl_policy_open_lfru(sl_policy **policy, const sl_policy_config *config,
                                                   sluice_error *error);
uint64_t sl_policy_lfru_cost(const sl_policy_config *config);
SLUICE_NODISCARD sluice_status sl_policy_open_pinned(sl_policy **policy, const sl_policy_config *config,
                                                     sluice_error *error);
uint64_t sl_policy_pinned_cost(const sl_policy_config *config);
SLUICE_NODISCARD sluice_status sl_policy_open_placement(sl_policy **policy, const sl_policy_config *config,
                                                        sluice_error *error);
uint64_t sl_policy_placement_cost(const sl_policy_config *config);
SLUICE_NODISCARD sluice_status sl_policy_open_reuse(sl_policy **policy, const sl_policy_config *config,
                                                    sluice_error *error);
uint64_t sl_policy_reuse_cost(const sl_policy_config *config);

#endif
