/* The router's logits as the output of a head. */
#include "pick.h"

void wire(sl_graph *graph, sl_router_logits router, sl_logits logits);

void wire(sl_graph *graph, sl_router_logits router, sl_logits logits)
{
    sl_build_output_logits(graph, PICK(router, logits));
}
