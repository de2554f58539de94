/* Keys that were not rotated into the cache. */
#include "pick.h"

sl_attended wire(sl_graph *graph, sl_rotated_query query, sl_key key, sl_rotated_key rotated, sl_head_values values,
                 sl_positions positions, sl_key_cache key_cache, sl_value_cache value_cache,
                 const sl_attention_shape *shape);

sl_attended wire(sl_graph *graph, sl_rotated_query query, sl_key key, sl_rotated_key rotated, sl_head_values values,
                 sl_positions positions, sl_key_cache key_cache, sl_value_cache value_cache,
                 const sl_attention_shape *shape)
{
    return sl_build_attention(graph, query, PICK(key, rotated), values, positions, key_cache, value_cache, shape, 1.0f);
}
