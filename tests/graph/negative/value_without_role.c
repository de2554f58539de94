/* A value that has no role. */
#include "pick.h"

sl_residual wire(sl_graph *graph, sl_value value, sl_residual residual, sl_branch branch);

sl_residual wire(sl_graph *graph, sl_value value, sl_residual residual, sl_branch branch)
{
    return sl_build_add(graph, PICK(value, residual), branch);
}
