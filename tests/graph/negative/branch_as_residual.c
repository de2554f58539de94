/* A branch in the place of the residual stream. */
#include "pick.h"

sl_ffn_input wire(sl_graph *graph, sl_branch branch, sl_residual residual, sl_vector weight);

sl_ffn_input wire(sl_graph *graph, sl_branch branch, sl_residual residual, sl_vector weight)
{
    return sl_build_ffn_norm(graph, PICK(branch, residual), weight, 1e-6f);
}
