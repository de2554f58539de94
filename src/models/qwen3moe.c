/* Qwen3 MoE: RMS norm of each query and key head before rotation, softmax router with renormalised weights, no shared
 * expert. The head width is its own key, not n_embd / n_heads. Constant data; any thread. */
#include "models/families.h"

#include "models/common_block.h"
#include "models/keys.h"

static sluice_status read_hyper(const sl_gguf *file, sl_hyper *hyper, sluice_error *error)
{
    const sl_keys keys = {.file = file, .architecture = "qwen3moe"};
    SL_TRY(sl_keys_read_common(&keys, hyper, error));
    SL_TRY(sl_keys_read_expert_width(&keys, hyper, error));
    hyper->rope_pairing = SL_ROPE_NEOX;
    hyper->norm_heads = true;
    return sl_keys_read_renormalise(&keys, true, hyper, error);
}

static const sl_tensor_rule tensors[] = {
    SL_COMMON_BLOCK_TENSORS,
    SL_VECTOR("attn_q_norm.weight", SL_SIZE_KEY_HEAD),
    SL_VECTOR("attn_k_norm.weight", SL_SIZE_KEY_HEAD),
};

const sl_family sl_family_qwen3moe = {
    .architecture = "qwen3moe",
    .read_hyper = read_hyper,
    .tensors = tensors,
    .n_tensors = sizeof tensors / sizeof tensors[0],
    .build_body = sl_block_build_routed_body,
    .build_head = sl_block_build_head,
};
