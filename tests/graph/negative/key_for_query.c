/* Keys where queries are wanted. */
#include "pick.h"

sl_query wire(sl_graph *graph, sl_key key, sl_query query, sl_vector weight);

sl_query wire(sl_graph *graph, sl_key key, sl_query query, sl_vector weight)
{
    return sl_build_query_norm(graph, PICK(key, query), weight, 64, 1e-6f);
}
