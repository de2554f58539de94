/* A matrix as the weight of a norm. */
#include "pick.h"

sl_attention_input wire(sl_graph *graph, sl_residual residual, sl_matrix matrix, sl_vector vector);

sl_attention_input wire(sl_graph *graph, sl_residual residual, sl_matrix matrix, sl_vector vector)
{
    return sl_build_attention_norm(graph, residual, PICK(matrix, vector), 1e-6f);
}
