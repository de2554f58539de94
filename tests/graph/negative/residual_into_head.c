/* The residual stream into the head without the output norm. */
#include "pick.h"

sl_logits wire(sl_graph *graph, sl_residual residual, sl_final_hidden hidden, sl_matrix weight);

sl_logits wire(sl_graph *graph, sl_residual residual, sl_final_hidden hidden, sl_matrix weight)
{
    return sl_build_head(graph, PICK(residual, hidden), weight);
}
