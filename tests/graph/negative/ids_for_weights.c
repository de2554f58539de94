/* Expert numbers in the place of their weights. */
#include "pick.h"

sl_routing wire(sl_expert_ids ids, sl_expert_weights weights);

sl_routing wire(sl_expert_ids ids, sl_expert_weights weights)
{
    sl_routing routing;
    routing.ids = ids;
    routing.weights = PICK(ids, weights);
    return routing;
}
