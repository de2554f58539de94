/* The residual stream into the query projection. */
#include "pick.h"

sl_query wire(sl_graph *graph, sl_residual residual, sl_attention_input normed, sl_matrix weight, sl_vector bias);

sl_query wire(sl_graph *graph, sl_residual residual, sl_attention_input normed, sl_matrix weight, sl_vector bias)
{
    return sl_build_query(graph, PICK(residual, normed), weight, bias);
}
