/* The residual stream where its norm is wanted. */
#include "pick.h"

sl_router_logits wire(sl_graph *graph, sl_residual residual, sl_ffn_input normed, sl_matrix weight, sl_vector bias);

sl_router_logits wire(sl_graph *graph, sl_residual residual, sl_ffn_input normed, sl_matrix weight, sl_vector bias)
{
    return sl_build_router(graph, PICK(residual, normed), weight, bias);
}
