/* Owns nothing: the kinds of policies by name and number. Threads: any. */
#include "experts/policy.h"

#include <string.h>

#include "experts/ranked.h"

typedef struct kind_row {
    const char *name;
    sluice_status (*open)(sl_policy **policy, const sl_policy_config *config, sluice_error *error);
    uint64_t (*cost)(const sl_policy_config *config);
} kind_row;

static const kind_row kinds[SL_POLICY_KINDS] = {
    [SL_POLICY_LRU] = {"lru", sl_policy_open_lru, sl_policy_lru_cost},
    [SL_POLICY_LFRU] = {"lfru", sl_policy_open_lfru, sl_policy_lfru_cost},
    [SL_POLICY_PINNED] = {"pinned", sl_policy_open_pinned, sl_policy_pinned_cost},
    [SL_POLICY_PLACEMENT] = {"placement", sl_policy_open_placement, sl_policy_placement_cost},
    [SL_POLICY_REUSE] = {"reuse", sl_policy_open_reuse, sl_policy_reuse_cost},
};

bool sl_policy_kind_parse(const char *name, sl_policy_kind *parsed)
{
    if (strcmp(name, "auto") == 0) {
        *parsed = SL_POLICY_REUSE;
        return true;
    }
    for (int i_kind = 0; i_kind < SL_POLICY_KINDS; i_kind++) {
        if (strcmp(name, kinds[i_kind].name) == 0) {
            *parsed = (sl_policy_kind)i_kind;
            return true;
        }
    }
    return false;
}

const char *sl_policy_kind_name(sl_policy_kind kind)
{
    return kinds[kind].name;
}

sluice_status sl_policy_open(sl_policy **policy, const sl_policy_config *config, sluice_error *error)
{
    *policy = NULL;
    return kinds[config->kind].open(policy, config, error);
}

uint64_t sl_policy_cost(const sl_policy_config *config)
{
    return kinds[config->kind].cost(config);
}
