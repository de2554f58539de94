/* Graphs that several graph tests share. */
#ifndef SL_TESTS_GRAPH_FIXTURE_H
#define SL_TESTS_GRAPH_FIXTURE_H

#include "graph/roles.h"

enum {
    FIXTURE_EMBD = 256,
    FIXTURE_VOCAB = 512,
    FIXTURE_HEADS = 4,
    FIXTURE_KV_HEADS = 2,
    FIXTURE_HEAD_DIM = 64,
    FIXTURE_EXPERTS = 8,
    FIXTURE_USED = 2,
    FIXTURE_FF = 512
};

static inline sl_matrix fixture_matrix(sl_graph *graph, const char *name, sl_type type, uint64_t out, uint64_t in)
{
    return (sl_matrix){sl_graph_weight(graph, name, type, sl_shape_of_2(out, in))};
}

static inline sl_vector fixture_vector(sl_graph *graph, const char *name, uint64_t n)
{
    return (sl_vector){sl_graph_weight(graph, name, SL_TYPE_F32, sl_shape_of_1(n))};
}

/* One layer with every kind of operation that models use: embedding, attention with per-head norms and bias, a shared
 * expert with a sigmoid gate, and routed experts. */
static inline void fixture_build_body(sl_graph *graph, sl_type type)
{
    const sl_attention_shape shape = {FIXTURE_HEADS, FIXTURE_KV_HEADS, FIXTURE_HEAD_DIM, FIXTURE_HEAD_DIM};
    const uint64_t q_width = FIXTURE_HEADS * FIXTURE_HEAD_DIM;
    const uint64_t kv_width = FIXTURE_KV_HEADS * FIXTURE_HEAD_DIM;
    const sl_vector none = {SL_NO_VALUE};

    sl_token_ids tokens = sl_build_token_ids(graph);
    sl_positions positions = sl_build_positions(graph);
    sl_residual x =
        sl_build_embed(graph, tokens, fixture_matrix(graph, "token_embd", type, FIXTURE_VOCAB, FIXTURE_EMBD));
    sl_rotary_table table = sl_build_rotary_table(graph, positions, none, FIXTURE_HEAD_DIM, 10000.0f, 1.0f);

    sl_attention_input normed =
        sl_build_attention_norm(graph, x, fixture_vector(graph, "attn_norm", FIXTURE_EMBD), 1e-6f);
    sl_matrix q_weight = fixture_matrix(graph, "attn_q", type, q_width, FIXTURE_EMBD);
    sl_query q = sl_build_query(graph, normed, q_weight, fixture_vector(graph, "attn_q.bias", q_width));
    sl_key k = sl_build_key(graph, normed, fixture_matrix(graph, "attn_k", type, kv_width, FIXTURE_EMBD), none);
    sl_head_values v =
        sl_build_values(graph, normed, fixture_matrix(graph, "attn_v", type, kv_width, FIXTURE_EMBD), none);
    q = sl_build_query_norm(graph, q, fixture_vector(graph, "attn_q_norm", FIXTURE_HEAD_DIM), FIXTURE_HEAD_DIM, 1e-6f);
    sl_rotated_query rq = sl_build_rotate_query(graph, q, table, FIXTURE_HEADS, FIXTURE_HEAD_DIM, SL_ROPE_NEOX);
    sl_rotated_key rk = sl_build_rotate_key(graph, k, table, FIXTURE_KV_HEADS, FIXTURE_HEAD_DIM, SL_ROPE_NEOX);
    sl_key_cache keys = sl_build_key_cache(graph, 0, &shape, SL_KV_F16);
    sl_value_cache values = sl_build_value_cache(graph, 0, &shape, SL_KV_F16);
    sl_attended attended = sl_build_attention(graph, rq, rk, v, positions, keys, values, &shape, 0.125f);
    x = sl_build_add(graph, x,
                     sl_build_attention_output(
                         graph, attended, fixture_matrix(graph, "attn_output", type, FIXTURE_EMBD, q_width), none));

    sl_ffn_input y = sl_build_ffn_norm(graph, x, fixture_vector(graph, "ffn_norm", FIXTURE_EMBD), 1e-6f);
    sl_router_logits logits =
        sl_build_router(graph, y, fixture_matrix(graph, "router", SL_TYPE_F32, FIXTURE_EXPERTS, FIXTURE_EMBD), none);
    const sl_route_rule rule = {.n_experts = FIXTURE_EXPERTS, .n_used = FIXTURE_USED, .renormalise = true};
    const sl_expert_shape experts = {.n_experts = FIXTURE_EXPERTS,
                                     .n_used = FIXTURE_USED,
                                     .n_ff = FIXTURE_FF,
                                     .gate_type = type,
                                     .up_type = type,
                                     .down_type = type};
    sl_branch routed = sl_build_experts(graph, y, sl_build_route(graph, logits, &rule), &experts);
    sl_matrix gate = fixture_matrix(graph, "gate_shexp", type, FIXTURE_FF, FIXTURE_EMBD);
    sl_matrix up = fixture_matrix(graph, "up_shexp", type, FIXTURE_FF, FIXTURE_EMBD);
    sl_matrix down = fixture_matrix(graph, "down_shexp", type, FIXTURE_EMBD, FIXTURE_FF);
    sl_branch shared = sl_build_swiglu_ffn(graph, y, gate, up, down);
    shared =
        sl_build_sigmoid_gate(graph, shared, y, fixture_matrix(graph, "gate_inp_shexp", SL_TYPE_F32, 1, FIXTURE_EMBD));
    x = sl_build_add(graph, x, sl_build_sum(graph, routed, shared));
    sl_build_output_residual(graph, x);
}

#endif
