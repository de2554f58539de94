/* Typed building: each function appends operations and gives their result its role.
 *
 * Owns: nothing. Errors stay in the graph (graph.c, invariant 1), so nothing here is fallible.
 * Threads: the graph's owner. */
#include "graph/roles.h"

#include <inttypes.h>
#include <stdio.h>

#define INPUTS(...) ((const sl_value[]){__VA_ARGS__}), sizeof((const sl_value[]){__VA_ARGS__}) / sizeof(sl_value)

static sl_value multiply_matrix(sl_graph *graph, sl_value x, sl_matrix weight, sl_vector bias)
{
    return sl_graph_op(graph, SL_OP_MATMUL, INPUTS(x, weight.value, bias.value), NULL, NULL);
}

static sl_value norm(sl_graph *graph, sl_value x, sl_vector weight, float epsilon)
{
    const sl_op_attributes attributes = {.epsilon = epsilon};
    return sl_graph_op(graph, SL_OP_RMS_NORM, INPUTS(x, weight.value), &attributes, NULL);
}

static sl_value norm_groups(sl_graph *graph, sl_value x, sl_vector weight, uint32_t group, float epsilon)
{
    const sl_op_attributes attributes = {.epsilon = epsilon, .head_dim = group};
    return sl_graph_op(graph, SL_OP_NORM_HEADS, INPUTS(x, weight.value), &attributes, NULL);
}

static sl_value clamp(sl_graph *graph, sl_value x, float limit)
{
    const sl_op_attributes attributes = {.limit = limit};
    return sl_graph_op(graph, SL_OP_CLAMP, INPUTS(x), &attributes, NULL);
}

static sl_value rotate(sl_graph *graph, sl_value x, sl_rotary_table table, uint32_t n_heads, uint32_t head_dim,
                       sl_rope_pairing pairing)
{
    sl_op_attributes attributes = {.n_heads = n_heads, .head_dim = head_dim, .pairing = pairing};
    if (graph->error.status == SLUICE_OK && table.value.index < graph->n_values) {
        attributes.n_rot = (uint32_t)graph->values[table.value.index].shape.dims[1];
    }
    return sl_graph_op(graph, SL_OP_ROPE, INPUTS(x, table.value), &attributes, NULL);
}

static sl_value cache(sl_graph *graph, uint32_t layer, const char *what, uint32_t n_heads, uint32_t dim,
                      sl_kv_type type)
{
    static const sl_type types[] = {[SL_KV_F32] = SL_TYPE_F32, [SL_KV_F16] = SL_TYPE_F16, [SL_KV_Q8_0] = SL_TYPE_Q8_0};
    char name[SL_GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "kv.%" PRIu32 ".%s", layer, what);
    return sl_graph_state(graph, name, types[type], sl_shape_of_3(n_heads, SL_DIM_POSITIONS, dim));
}

sl_token_ids sl_build_token_ids(sl_graph *graph)
{
    return (sl_token_ids){sl_graph_input(graph, "tokens", SL_TYPE_I32, sl_shape_of_1(SL_DIM_ROWS))};
}

sl_positions sl_build_positions(sl_graph *graph)
{
    return (sl_positions){sl_graph_input(graph, "positions", SL_TYPE_I32, sl_shape_of_1(SL_DIM_ROWS))};
}

sl_residual sl_build_residual_input(sl_graph *graph, uint64_t width)
{
    return (sl_residual){sl_graph_input(graph, "hidden", SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, width))};
}

sl_residual sl_build_embed(sl_graph *graph, sl_token_ids tokens, sl_matrix table)
{
    return (sl_residual){sl_graph_op(graph, SL_OP_EMBED, INPUTS(tokens.value, table.value), NULL, NULL)};
}

sl_attention_input sl_build_attention_norm(sl_graph *graph, sl_residual x, sl_vector weight, float epsilon)
{
    return (sl_attention_input){norm(graph, x.value, weight, epsilon)};
}

sl_ffn_input sl_build_ffn_norm(sl_graph *graph, sl_residual x, sl_vector weight, float epsilon)
{
    return (sl_ffn_input){norm(graph, x.value, weight, epsilon)};
}

sl_final_hidden sl_build_output_norm(sl_graph *graph, sl_residual x, sl_vector weight, float epsilon)
{
    return (sl_final_hidden){norm(graph, x.value, weight, epsilon)};
}

sl_query sl_build_query(sl_graph *graph, sl_attention_input x, sl_matrix weight, sl_vector bias)
{
    return (sl_query){multiply_matrix(graph, x.value, weight, bias)};
}

sl_key sl_build_key(sl_graph *graph, sl_attention_input x, sl_matrix weight, sl_vector bias)
{
    return (sl_key){multiply_matrix(graph, x.value, weight, bias)};
}

sl_head_values sl_build_values(sl_graph *graph, sl_attention_input x, sl_matrix weight, sl_vector bias)
{
    return (sl_head_values){multiply_matrix(graph, x.value, weight, bias)};
}

sl_query sl_build_query_norm(sl_graph *graph, sl_query q, sl_vector weight, uint32_t group, float epsilon)
{
    return (sl_query){norm_groups(graph, q.value, weight, group, epsilon)};
}

sl_key sl_build_key_norm(sl_graph *graph, sl_key k, sl_vector weight, uint32_t group, float epsilon)
{
    return (sl_key){norm_groups(graph, k.value, weight, group, epsilon)};
}

sl_query sl_build_query_clamp(sl_graph *graph, sl_query q, float limit)
{
    return (sl_query){clamp(graph, q.value, limit)};
}

sl_key sl_build_key_clamp(sl_graph *graph, sl_key k, float limit)
{
    return (sl_key){clamp(graph, k.value, limit)};
}

sl_head_values sl_build_values_clamp(sl_graph *graph, sl_head_values v, float limit)
{
    return (sl_head_values){clamp(graph, v.value, limit)};
}

sl_rotary_table sl_build_rotary_table(sl_graph *graph, sl_positions positions, sl_vector factors, uint32_t n_rot,
                                      float base, float scale)
{
    const sl_op_attributes attributes = {.n_rot = n_rot, .rope_base = base, .rope_scale = scale};
    return (sl_rotary_table){
        sl_graph_op(graph, SL_OP_ROPE_TABLE, INPUTS(positions.value, factors.value), &attributes, NULL)};
}

sl_rotated_query sl_build_rotate_query(sl_graph *graph, sl_query q, sl_rotary_table table, uint32_t n_heads,
                                       uint32_t head_dim, sl_rope_pairing pairing)
{
    return (sl_rotated_query){rotate(graph, q.value, table, n_heads, head_dim, pairing)};
}

sl_rotated_key sl_build_rotate_key(sl_graph *graph, sl_key k, sl_rotary_table table, uint32_t n_heads,
                                   uint32_t head_dim, sl_rope_pairing pairing)
{
    return (sl_rotated_key){rotate(graph, k.value, table, n_heads, head_dim, pairing)};
}

sl_key_cache sl_build_key_cache(sl_graph *graph, uint32_t layer, const sl_attention_shape *shape, sl_kv_type type)
{
    return (sl_key_cache){cache(graph, layer, "key", shape->n_kv_heads, shape->key_dim, type)};
}

sl_value_cache sl_build_value_cache(sl_graph *graph, uint32_t layer, const sl_attention_shape *shape, sl_kv_type type)
{
    return (sl_value_cache){cache(graph, layer, "value", shape->n_kv_heads, shape->value_dim, type)};
}

sl_attended sl_build_attention(sl_graph *graph, sl_rotated_query q, sl_rotated_key k, sl_head_values v,
                               sl_positions positions, sl_key_cache keys, sl_value_cache values,
                               const sl_attention_shape *shape, float scale)
{
    const sl_op_attributes attributes = {.n_heads = shape->n_heads,
                                         .n_kv_heads = shape->n_kv_heads,
                                         .head_dim = shape->key_dim,
                                         .value_dim = shape->value_dim,
                                         .scale = scale};
    sl_graph_op(graph, SL_OP_KV_STORE, INPUTS(k.value, v.value, positions.value, keys.value, values.value), &attributes,
                NULL);
    return (sl_attended){sl_graph_op(graph, SL_OP_ATTENTION, INPUTS(q.value, positions.value, keys.value, values.value),
                                     &attributes, NULL)};
}

sl_branch sl_build_attention_output(sl_graph *graph, sl_attended x, sl_matrix weight, sl_vector bias)
{
    return (sl_branch){multiply_matrix(graph, x.value, weight, bias)};
}

sl_residual sl_build_add(sl_graph *graph, sl_residual x, sl_branch branch)
{
    return (sl_residual){sl_graph_op(graph, SL_OP_ADD, INPUTS(x.value, branch.value), NULL, NULL)};
}

sl_branch sl_build_sum(sl_graph *graph, sl_branch a, sl_branch b)
{
    return (sl_branch){sl_graph_op(graph, SL_OP_ADD, INPUTS(a.value, b.value), NULL, NULL)};
}

sl_router_logits sl_build_router(sl_graph *graph, sl_ffn_input x, sl_matrix weight, sl_vector bias)
{
    return (sl_router_logits){multiply_matrix(graph, x.value, weight, bias)};
}

sl_routing sl_build_route(sl_graph *graph, sl_router_logits logits, const sl_route_rule *rule)
{
    const sl_op_attributes attributes = {.n_experts = rule->n_experts,
                                         .n_used = rule->n_used,
                                         .gating = rule->gating,
                                         .renormalise = rule->renormalise,
                                         .weights_scale = rule->weights_scale};
    sl_value outputs[SL_OP_MAX_OUTPUTS];
    sl_graph_op(graph, SL_OP_ROUTE, INPUTS(logits.value), &attributes, outputs);
    return (sl_routing){.ids = {outputs[0]}, .weights = {outputs[1]}};
}

void sl_build_predict(sl_graph *graph, sl_residual x, sl_vector norm_weight, float epsilon, sl_matrix router_weight,
                      const sl_predict_rule *rule)
{
    const sl_vector no_bias = {SL_NO_VALUE};
    const sl_op_attributes attributes = {
        .expert_layer = rule->expert_layer, .n_experts = rule->n_experts, .n_used = rule->n_used};
    sl_value normed = norm(graph, x.value, norm_weight, epsilon);
    sl_value logits = multiply_matrix(graph, normed, router_weight, no_bias);
    sl_graph_op(graph, SL_OP_PREDICT, INPUTS(logits), &attributes, NULL);
}

sl_branch sl_build_experts(sl_graph *graph, sl_ffn_input x, sl_routing routing, const sl_expert_shape *shape)
{
    const sl_op_attributes attributes = {.expert_layer = shape->expert_layer,
                                         .n_experts = shape->n_experts,
                                         .n_used = shape->n_used,
                                         .n_ff = shape->n_ff,
                                         .gate_type = shape->gate_type,
                                         .up_type = shape->up_type,
                                         .down_type = shape->down_type};
    return (sl_branch){sl_graph_op(graph, SL_OP_EXPERTS, INPUTS(x.value, routing.ids.value, routing.weights.value),
                                   &attributes, NULL)};
}

sl_branch sl_build_swiglu_ffn(sl_graph *graph, sl_ffn_input x, sl_matrix gate, sl_matrix up, sl_matrix down)
{
    const sl_vector no_bias = {SL_NO_VALUE};
    sl_value gated = multiply_matrix(graph, x.value, gate, no_bias);
    sl_value raised = multiply_matrix(graph, x.value, up, no_bias);
    sl_value activated = sl_graph_op(graph, SL_OP_SILU, INPUTS(gated), NULL, NULL);
    sl_value hidden = sl_graph_op(graph, SL_OP_MULTIPLY, INPUTS(activated, raised), NULL, NULL);
    return (sl_branch){multiply_matrix(graph, hidden, down, no_bias)};
}

sl_branch sl_build_sigmoid_gate(sl_graph *graph, sl_branch branch, sl_ffn_input x, sl_matrix weight)
{
    const sl_vector no_bias = {SL_NO_VALUE};
    sl_value gate = multiply_matrix(graph, x.value, weight, no_bias);
    return (sl_branch){sl_graph_op(graph, SL_OP_SIGMOID_SCALE, INPUTS(branch.value, gate), NULL, NULL)};
}

sl_logits sl_build_head(sl_graph *graph, sl_final_hidden x, sl_matrix weight)
{
    const sl_vector no_bias = {SL_NO_VALUE};
    return (sl_logits){multiply_matrix(graph, x.value, weight, no_bias)};
}

void sl_build_output_residual(sl_graph *graph, sl_residual x)
{
    sl_graph_mark_output(graph, x.value);
}

void sl_build_output_logits(sl_graph *graph, sl_logits x)
{
    sl_graph_mark_output(graph, x.value);
}
