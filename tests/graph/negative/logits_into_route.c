/* The head's logits where the router's are wanted. */
#include "pick.h"

sl_routing wire(sl_graph *graph, sl_logits logits, sl_router_logits router, const sl_route_rule *rule);

sl_routing wire(sl_graph *graph, sl_logits logits, sl_router_logits router, const sl_route_rule *rule)
{
    return sl_build_route(graph, PICK(logits, router), rule);
}
