/* Token numbers as positions. */
#include "pick.h"

sl_rotary_table wire(sl_graph *graph, sl_token_ids tokens, sl_positions positions, sl_vector factors);

sl_rotary_table wire(sl_graph *graph, sl_token_ids tokens, sl_positions positions, sl_vector factors)
{
    return sl_build_rotary_table(graph, PICK(tokens, positions), factors, 64, 10000.0f, 1.0f);
}
