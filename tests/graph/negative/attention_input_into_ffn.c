/* The norm before attention into the feed-forward part. */
#include "pick.h"

sl_branch wire(sl_graph *graph, sl_attention_input early, sl_ffn_input late, sl_matrix gate, sl_matrix up,
               sl_matrix down);

sl_branch wire(sl_graph *graph, sl_attention_input early, sl_ffn_input late, sl_matrix gate, sl_matrix up,
               sl_matrix down)
{
    return sl_build_swiglu_ffn(graph, PICK(early, late), gate, up, down);
}
