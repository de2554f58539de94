/* A rotated query into another rotation. */
#include "pick.h"

sl_rotated_query wire(sl_graph *graph, sl_rotated_query rotated, sl_query query, sl_rotary_table table);

sl_rotated_query wire(sl_graph *graph, sl_rotated_query rotated, sl_query query, sl_rotary_table table)
{
    return sl_build_rotate_query(graph, PICK(rotated, query), table, 4, 64, SL_ROPE_NEOX);
}
