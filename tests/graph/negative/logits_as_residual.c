/* Logits as the output of a body. */
#include "pick.h"

void wire(sl_graph *graph, sl_logits logits, sl_residual residual);

void wire(sl_graph *graph, sl_logits logits, sl_residual residual)
{
    sl_build_output_residual(graph, PICK(logits, residual));
}
