/* Queries that were not rotated into attention. */
#include "pick.h"

sl_attended wire(sl_graph *graph, sl_query query, sl_rotated_query rotated, sl_rotated_key key, sl_head_values values,
                 sl_positions positions, sl_key_cache key_cache, sl_value_cache value_cache,
                 const sl_attention_shape *shape);

sl_attended wire(sl_graph *graph, sl_query query, sl_rotated_query rotated, sl_rotated_key key, sl_head_values values,
                 sl_positions positions, sl_key_cache key_cache, sl_value_cache value_cache,
                 const sl_attention_shape *shape)
{
    return sl_build_attention(graph, PICK(query, rotated), key, values, positions, key_cache, value_cache, shape, 1.0f);
}
