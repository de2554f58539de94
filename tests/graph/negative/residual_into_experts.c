/* The residual stream into the experts. */
#include "pick.h"

sl_branch wire(sl_graph *graph, sl_residual residual, sl_ffn_input normed, sl_routing routing,
               const sl_expert_shape *shape);

sl_branch wire(sl_graph *graph, sl_residual residual, sl_ffn_input normed, sl_routing routing,
               const sl_expert_shape *shape)
{
    return sl_build_experts(graph, PICK(residual, normed), routing, shape);
}
