/* Attention without its output projection added to the residual stream. */
#include "pick.h"

sl_residual wire(sl_graph *graph, sl_residual residual, sl_attended attended, sl_branch projected);

sl_residual wire(sl_graph *graph, sl_residual residual, sl_attended attended, sl_branch projected)
{
    return sl_build_add(graph, residual, PICK(attended, projected));
}
