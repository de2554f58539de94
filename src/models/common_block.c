/* The graph of a Llama-like block with routed experts.
 *
 * Owns: nothing; everything is appended to the caller's graph, which keeps the first error.
 * Invariants:
 *   1. Every weight that is bound was claimed by a rule of the family when the model was opened, so its shape is right.
 *   2. Queries and keys are normed, then clamped, then rotated.
 * Threads: the graph's owner. */
#include "models/common_block.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What all layers share. */
typedef struct attention_inputs {
    sl_positions positions;
    sl_rotary_table table;
    sl_kv_type kv_type;
} attention_inputs;

static const sl_gguf_tensor *find_in_layer(const sl_block *block, const char *name)
{
    char full_name[SL_GRAPH_NAME_BYTES];
    snprintf(full_name, sizeof full_name, "blk.%" PRIu32 ".%s", block->layer, name);
    return sl_gguf_find_tensor(block->model->file, full_name);
}

static sl_value bind(sl_graph *graph, const sl_gguf_tensor *tensor, bool is_matrix)
{
    if (tensor == NULL) {
        return SL_NO_VALUE;
    }
    char name[SL_GRAPH_NAME_BYTES];
    snprintf(name, sizeof name, "%.*s", SL_SPAN_ARGUMENTS(tensor->name));
    for (uint32_t i = 0; i < graph->n_values; i++) {
        if (graph->values[i].kind == SL_VALUE_WEIGHT && strcmp(graph->values[i].name, name) == 0) {
            return (sl_value){i};
        }
    }
    return sl_graph_weight(graph, name, tensor->type,
                           is_matrix ? sl_shape_of_2(tensor->dims[1], tensor->dims[0])
                                     : sl_shape_of_1(tensor->dims[0]));
}

static sl_matrix model_matrix(const sl_model *model, sl_graph *graph, const char *name)
{
    return (sl_matrix){bind(graph, sl_gguf_find_tensor(model->file, name), true)};
}

static sl_vector model_vector(const sl_model *model, sl_graph *graph, const char *name)
{
    return (sl_vector){bind(graph, sl_gguf_find_tensor(model->file, name), false)};
}

sl_matrix sl_block_matrix(const sl_block *block, const char *name)
{
    return (sl_matrix){bind(block->graph, find_in_layer(block, name), true)};
}

sl_vector sl_block_vector(const sl_block *block, const char *name)
{
    return (sl_vector){bind(block->graph, find_in_layer(block, name), false)};
}

static sl_branch build_attention(const sl_block *block, const attention_inputs *inputs, sl_attention_input x)
{
    const sl_hyper *hyper = &block->model->hyper;
    sl_graph *graph = block->graph;
    const sl_attention_shape shape = {hyper->n_heads, hyper->n_kv_heads, hyper->key_dim, hyper->value_dim};

    /* One statement for each weight: weights are declared in an order that does not depend on the compiler. */
    sl_matrix q_weight = sl_block_matrix(block, "attn_q.weight");
    sl_vector q_bias = sl_block_vector(block, "attn_q.bias");
    sl_matrix k_weight = sl_block_matrix(block, "attn_k.weight");
    sl_vector k_bias = sl_block_vector(block, "attn_k.bias");
    sl_matrix v_weight = sl_block_matrix(block, "attn_v.weight");
    sl_vector v_bias = sl_block_vector(block, "attn_v.bias");
    sl_query q = sl_build_query(graph, x, q_weight, q_bias);
    sl_key k = sl_build_key(graph, x, k_weight, k_bias);
    sl_head_values v = sl_build_values(graph, x, v_weight, v_bias);
    if (hyper->norm_heads || hyper->norm_qk_full) {
        uint32_t n_groups_q = hyper->norm_heads ? 1 : hyper->n_heads;
        uint32_t n_groups_k = hyper->norm_heads ? 1 : hyper->n_kv_heads;
        q = sl_build_query_norm(graph, q, sl_block_vector(block, "attn_q_norm.weight"), n_groups_q * hyper->key_dim,
                                hyper->norm_epsilon);
        k = sl_build_key_norm(graph, k, sl_block_vector(block, "attn_k_norm.weight"), n_groups_k * hyper->key_dim,
                              hyper->norm_epsilon);
    }
    if (hyper->clamp_qkv > 0.0f) {
        q = sl_build_query_clamp(graph, q, hyper->clamp_qkv);
        k = sl_build_key_clamp(graph, k, hyper->clamp_qkv);
        v = sl_build_values_clamp(graph, v, hyper->clamp_qkv);
    }
    sl_rotated_query rotated_q =
        sl_build_rotate_query(graph, q, inputs->table, hyper->n_heads, hyper->key_dim, hyper->rope_pairing);
    sl_rotated_key rotated_k =
        sl_build_rotate_key(graph, k, inputs->table, hyper->n_kv_heads, hyper->key_dim, hyper->rope_pairing);
    sl_key_cache keys = sl_build_key_cache(graph, block->layer, &shape, inputs->kv_type);
    sl_value_cache values = sl_build_value_cache(graph, block->layer, &shape, inputs->kv_type);
    sl_attended attended = sl_build_attention(graph, rotated_q, rotated_k, v, inputs->positions, keys, values, &shape,
                                              hyper->attention_scale);
    sl_matrix output_weight = sl_block_matrix(block, "attn_output.weight");
    sl_vector output_bias = sl_block_vector(block, "attn_output.bias");
    return sl_build_attention_output(graph, attended, output_weight, output_bias);
}

/* The given layer's norm and router on the state `x` of a place before it. Every layer has experts, so their numbers
 * agree. */
static void predict(const sl_block *block, uint32_t layer, sl_residual x)
{
    const sl_hyper *hyper = &block->model->hyper;
    const sl_block later = {.model = block->model, .graph = block->graph, .layer = layer};
    const sl_predict_rule rule = {
        .expert_layer = layer, .n_experts = hyper->n_experts, .n_used = hyper->n_experts_used};
    sl_vector norm_weight = sl_block_vector(&later, "ffn_norm.weight");
    sl_matrix router_weight = sl_block_matrix(&later, "ffn_gate_inp.weight");
    sl_build_predict(block->graph, x, norm_weight, hyper->norm_epsilon, router_weight, &rule);
}

sl_routing sl_block_route(const sl_block *block, sl_ffn_input x)
{
    const sl_hyper *hyper = &block->model->hyper;
    const sl_route_rule rule = {.n_experts = hyper->n_experts,
                                .n_used = hyper->n_experts_used,
                                .gating = SL_GATING_SOFTMAX,
                                .renormalise = hyper->renormalise,
                                .weights_scale = hyper->expert_weights_scale};
    const sl_vector no_bias = {SL_NO_VALUE};
    sl_router_logits logits = sl_build_router(block->graph, x, sl_block_matrix(block, "ffn_gate_inp.weight"), no_bias);
    sl_routing routing = sl_build_route(block->graph, logits, &rule);
    if (block->layer + 1 < hyper->n_layers) {
        predict(block, block->layer + 1, block->state);
    }
    return routing;
}

sl_branch sl_block_experts(const sl_block *block, sl_ffn_input x, sl_routing routing)
{
    const sl_hyper *hyper = &block->model->hyper;
    const sl_expert_layer *layer = &block->model->expert_layers[block->layer];
    const sl_expert_shape shape = {.expert_layer = block->layer,
                                   .n_experts = hyper->n_experts,
                                   .n_used = hyper->n_experts_used,
                                   .n_ff = hyper->n_ff_expert,
                                   .gate_type = layer->matrices[SL_EXPERT_GATE].type,
                                   .up_type = layer->matrices[SL_EXPERT_UP].type,
                                   .down_type = layer->matrices[SL_EXPERT_DOWN].type};
    return sl_build_experts(block->graph, x, routing, &shape);
}

sl_branch sl_block_routed_experts(const sl_block *block, sl_ffn_input x)
{
    return sl_block_experts(block, x, sl_block_route(block, x));
}

void sl_block_build_body(const sl_model *model, sl_graph *graph, sl_kv_type kv_type, sl_build_ffn_fn *build_ffn)
{
    const sl_hyper *hyper = &model->hyper;
    sl_token_ids tokens = sl_build_token_ids(graph);
    attention_inputs inputs = {.positions = sl_build_positions(graph), .kv_type = kv_type};
    inputs.table = sl_build_rotary_table(graph, inputs.positions, model_vector(model, graph, "rope_freqs.weight"),
                                         hyper->n_rot, hyper->rope_base, hyper->rope_scale);
    sl_residual x = sl_build_embed(graph, tokens, model_matrix(model, graph, "token_embd.weight"));
    const sl_block first = {.model = model, .graph = graph, .layer = 0, .state = x};
    predict(&first, 0, x);
    for (uint32_t layer = 0; layer < hyper->n_layers; layer++) {
        sl_block block = {.model = model, .graph = graph, .layer = layer};
        sl_attention_input a =
            sl_build_attention_norm(graph, x, sl_block_vector(&block, "attn_norm.weight"), hyper->norm_epsilon);
        x = sl_build_add(graph, x, build_attention(&block, &inputs, a));
        block.state = x;
        sl_ffn_input f = sl_build_ffn_norm(graph, x, sl_block_vector(&block, "ffn_norm.weight"), hyper->norm_epsilon);
        x = sl_build_add(graph, x, build_ffn(&block, f));
    }
    sl_build_output_residual(graph, x);
}

void sl_block_build_routed_body(const sl_model *model, sl_graph *graph, sl_kv_type kv_type)
{
    sl_block_build_body(model, graph, kv_type, sl_block_routed_experts);
}

void sl_block_build_head(const sl_model *model, sl_graph *graph)
{
    const bool tied = sl_gguf_find_tensor(model->file, "output.weight") == NULL;
    sl_residual x = sl_build_residual_input(graph, model->hyper.n_embd);
    sl_final_hidden hidden =
        sl_build_output_norm(graph, x, model_vector(model, graph, "output_norm.weight"), model->hyper.norm_epsilon);
    sl_matrix head = model_matrix(model, graph, tied ? "token_embd.weight" : "output.weight");
    sl_build_output_logits(graph, sl_build_head(graph, hidden, head));
}
