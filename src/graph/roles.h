/* What model files build with: every buffer role is a type of its own, so a pre-norm buffer in a post-norm place does
 * not compile. Each function appends operations to the graph; errors are kept by the graph (graph/graph.h). */
#ifndef SL_GRAPH_ROLES_H
#define SL_GRAPH_ROLES_H

#include "graph/graph.h"

#define SL_ROLE(name)                                                                                                  \
    typedef struct name {                                                                                              \
        sl_value value;                                                                                                \
    } name

SL_ROLE(sl_token_ids);       /* I32 [R] */
SL_ROLE(sl_positions);       /* I32 [R] */
SL_ROLE(sl_residual);        /* the residual stream, [R][d] */
SL_ROLE(sl_attention_input); /* after attn_norm, [R][d] */
SL_ROLE(sl_ffn_input);       /* after ffn_norm, [R][d] */
SL_ROLE(sl_query);           /* [R][n_heads * head_dim], not yet rotated */
SL_ROLE(sl_key);             /* [R][n_kv_heads * head_dim], not yet rotated */
SL_ROLE(sl_head_values);     /* [R][n_kv_heads * value_dim] */
SL_ROLE(sl_rotated_query);
SL_ROLE(sl_rotated_key);
SL_ROLE(sl_rotary_table);   /* [R][n_rot] */
SL_ROLE(sl_key_cache);      /* [n_kv_heads][positions][head_dim] */
SL_ROLE(sl_value_cache);    /* [n_kv_heads][positions][value_dim] */
SL_ROLE(sl_attended);       /* attention output before its projection, [R][n_heads * value_dim] */
SL_ROLE(sl_branch);         /* what a block adds to the residual stream, [R][d] */
SL_ROLE(sl_router_logits);  /* [R][n_experts] */
SL_ROLE(sl_expert_ids);     /* I32 [R][k] */
SL_ROLE(sl_expert_weights); /* [R][k] */
SL_ROLE(sl_final_hidden);   /* after output_norm, [R][d] */
SL_ROLE(sl_logits);         /* [R][n_vocab] */

/* Weights are roles too. */
SL_ROLE(sl_matrix); /* [out][in] */
SL_ROLE(sl_vector); /* [n] */

typedef struct sl_attention_shape {
    uint32_t n_heads, n_kv_heads, key_dim, value_dim;
} sl_attention_shape;

sl_token_ids sl_build_token_ids(sl_graph *graph);                     /* input "tokens" */
sl_positions sl_build_positions(sl_graph *graph);                     /* input "positions" */
sl_residual sl_build_residual_input(sl_graph *graph, uint64_t width); /* input "hidden": where a head program starts */

sl_residual sl_build_embed(sl_graph *graph, sl_token_ids tokens, sl_matrix table);
sl_attention_input sl_build_attention_norm(sl_graph *graph, sl_residual x, sl_vector weight, float epsilon);
sl_ffn_input sl_build_ffn_norm(sl_graph *graph, sl_residual x, sl_vector weight, float epsilon);
sl_final_hidden sl_build_output_norm(sl_graph *graph, sl_residual x, sl_vector weight, float epsilon);

/* `bias` may hold SL_NO_VALUE. */
sl_query sl_build_query(sl_graph *graph, sl_attention_input x, sl_matrix weight, sl_vector bias);
sl_key sl_build_key(sl_graph *graph, sl_attention_input x, sl_matrix weight, sl_vector bias);
sl_head_values sl_build_values(sl_graph *graph, sl_attention_input x, sl_matrix weight, sl_vector bias);

/* RMS norm of each group of `group` elements (a head, or the whole row), in place. */
sl_query sl_build_query_norm(sl_graph *graph, sl_query q, sl_vector weight, uint32_t group, float epsilon);
sl_key sl_build_key_norm(sl_graph *graph, sl_key k, sl_vector weight, uint32_t group, float epsilon);
sl_query sl_build_query_clamp(sl_graph *graph, sl_query q, float limit);
sl_key sl_build_key_clamp(sl_graph *graph, sl_key k, float limit);
sl_head_values sl_build_values_clamp(sl_graph *graph, sl_head_values v, float limit);

/* Computed once per run and shared by all layers. `factors` may hold SL_NO_VALUE. */
sl_rotary_table sl_build_rotary_table(sl_graph *graph, sl_positions positions, sl_vector factors, uint32_t n_rot,
                                      float base, float scale);
sl_rotated_query sl_build_rotate_query(sl_graph *graph, sl_query q, sl_rotary_table table, uint32_t n_heads,
                                       uint32_t head_dim, sl_rope_pairing pairing);
sl_rotated_key sl_build_rotate_key(sl_graph *graph, sl_key k, sl_rotary_table table, uint32_t n_heads,
                                   uint32_t head_dim, sl_rope_pairing pairing);

/* States named "kv.<layer>.key" and "kv.<layer>.value". */
sl_key_cache sl_build_key_cache(sl_graph *graph, uint32_t layer, const sl_attention_shape *shape, sl_kv_type type);
sl_value_cache sl_build_value_cache(sl_graph *graph, uint32_t layer, const sl_attention_shape *shape, sl_kv_type type);

/* Append keys and values at the positions, then attend to everything up to each row's own position. */
sl_attended sl_build_attention(sl_graph *graph, sl_rotated_query q, sl_rotated_key k, sl_head_values v,
                               sl_positions positions, sl_key_cache keys, sl_value_cache values,
                               const sl_attention_shape *shape, float scale);
sl_branch sl_build_attention_output(sl_graph *graph, sl_attended x, sl_matrix weight, sl_vector bias);
sl_residual sl_build_add(sl_graph *graph, sl_residual x, sl_branch branch);
sl_branch sl_build_sum(sl_graph *graph, sl_branch a, sl_branch b);

sl_router_logits sl_build_router(sl_graph *graph, sl_ffn_input x, sl_matrix weight, sl_vector bias);
typedef struct sl_routing {
    sl_expert_ids ids;
    sl_expert_weights weights;
} sl_routing;
typedef struct sl_route_rule {
    uint32_t n_experts, n_used;
    sl_gating gating;
    bool renormalise;
    float weights_scale;
} sl_route_rule;
sl_routing sl_build_route(sl_graph *graph, sl_router_logits logits, const sl_route_rule *rule);

/* A guess at what a later layer will ask for: its norm and its router on this layer's state. A hint to the store, which
 * changes no result. */
typedef struct sl_predict_rule {
    uint32_t expert_layer; /* the later one */
    uint32_t n_experts, n_used;
} sl_predict_rule;
void sl_build_predict(sl_graph *graph, sl_residual x, sl_vector norm_weight, float epsilon, sl_matrix router_weight,
                      const sl_predict_rule *rule);

typedef struct sl_expert_shape {
    uint32_t expert_layer; /* number among the layers that have experts */
    uint32_t n_experts, n_used, n_ff;
    sl_type gate_type, up_type, down_type;
} sl_expert_shape;
sl_branch sl_build_experts(sl_graph *graph, sl_ffn_input x, sl_routing routing, const sl_expert_shape *shape);

/* down(silu(gate x) * (up x)): dense FFN or shared expert. */
sl_branch sl_build_swiglu_ffn(sl_graph *graph, sl_ffn_input x, sl_matrix gate, sl_matrix up, sl_matrix down);
/* branch * sigmoid(weight . x), weight [1][d]. */
sl_branch sl_build_sigmoid_gate(sl_graph *graph, sl_branch branch, sl_ffn_input x, sl_matrix weight);

sl_logits sl_build_head(sl_graph *graph, sl_final_hidden x, sl_matrix weight);

void sl_build_output_residual(sl_graph *graph, sl_residual x); /* mark as the program's output */
void sl_build_output_logits(sl_graph *graph, sl_logits x);

#endif
