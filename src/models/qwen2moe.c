/* Qwen2 MoE: biases on queries, keys and values, softmax router whose weights are not renormalised, and a shared expert
 * that is scaled by the sigmoid of its own gate. Constant data; any thread. */
#include "models/families.h"

#include "models/common_block.h"
#include "models/keys.h"

static sluice_status read_hyper(const sl_gguf *file, sl_hyper *hyper, sluice_error *error)
{
    const sl_keys keys = {.file = file, .architecture = "qwen2moe"};
    SL_TRY(sl_keys_read_common(&keys, hyper, error));
    SL_TRY(sl_keys_read_expert_width(&keys, hyper, error));
    const char *shared_key = sl_keys_has(&keys, "expert_shared_feed_forward_length")
                                 ? "expert_shared_feed_forward_length"
                                 : "feed_forward_length";
    SL_TRY(sl_keys_u32(&keys, shared_key, 1, SL_MODEL_MAX_WIDTH, &hyper->n_ff_shared, error));
    hyper->rope_pairing = SL_ROPE_NEOX;
    return sl_keys_read_renormalise(&keys, false, hyper, error);
}

static const sl_tensor_rule tensors[] = {
    SL_COMMON_BLOCK_TENSORS,
    SL_VECTOR("attn_q.bias", SL_SIZE_QUERY),
    SL_VECTOR("attn_k.bias", SL_SIZE_KEY),
    SL_VECTOR("attn_v.bias", SL_SIZE_VALUE),
    SL_MATRIX("ffn_gate_inp_shexp.weight", SL_SIZE_ONE, SL_SIZE_EMBD),
    SL_MATRIX("ffn_gate_shexp.weight", SL_SIZE_FF_SHARED, SL_SIZE_EMBD),
    SL_MATRIX("ffn_up_shexp.weight", SL_SIZE_FF_SHARED, SL_SIZE_EMBD),
    SL_MATRIX("ffn_down_shexp.weight", SL_SIZE_EMBD, SL_SIZE_FF_SHARED),
};

static sl_branch build_ffn(const sl_block *block, sl_ffn_input x)
{
    sl_routing routing = sl_block_route(block, x);
    sl_matrix gate = sl_block_matrix(block, "ffn_gate_shexp.weight");
    sl_matrix up = sl_block_matrix(block, "ffn_up_shexp.weight");
    sl_matrix down = sl_block_matrix(block, "ffn_down_shexp.weight");
    sl_branch shared = sl_build_swiglu_ffn(block->graph, x, gate, up, down);
    shared = sl_build_sigmoid_gate(block->graph, shared, x, sl_block_matrix(block, "ffn_gate_inp_shexp.weight"));
    sl_branch routed = sl_block_experts(block, x, routing);
    return sl_build_sum(block->graph, routed, shared);
}

static void build_body(const sl_model *model, sl_graph *graph, sl_kv_type kv_type)
{
    sl_block_build_body(model, graph, kv_type, build_ffn);
}

const sl_family sl_family_qwen2moe = {
    .architecture = "qwen2moe",
    .read_hyper = read_hyper,
    .tensors = tensors,
    .n_tensors = sizeof tensors / sizeof tensors[0],
    .build_body = build_body,
    .build_head = sl_block_build_head,
};
