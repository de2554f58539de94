/* OLMoE: RMS norm of the whole query and key rows before they are split in heads, an optional clamp of queries, keys
 * and values after it, softmax router whose weights are not renormalised. Constant data; any thread. */
#include "models/families.h"

#include "models/common_block.h"
#include "models/keys.h"

static sluice_status read_hyper(const sl_gguf *file, sl_hyper *hyper, sluice_error *error)
{
    const sl_keys keys = {.file = file, .architecture = "olmoe"};
    SL_TRY(sl_keys_read_common(&keys, hyper, error));
    SL_TRY(sl_keys_u32(&keys, "feed_forward_length", 1, SL_MODEL_MAX_WIDTH, &hyper->n_ff_expert, error));
    SL_TRY(sl_keys_f32_or(&keys, "attention.clamp_kqv", 0.0f, 0.0f, 1e30f, &hyper->clamp_qkv, error));
    hyper->rope_pairing = SL_ROPE_NEOX;
    hyper->norm_qk_full = true;
    return sl_keys_read_renormalise(&keys, false, hyper, error);
}

static const sl_tensor_rule tensors[] = {
    SL_COMMON_BLOCK_TENSORS,
    SL_VECTOR("attn_q_norm.weight", SL_SIZE_QUERY),
    SL_VECTOR("attn_k_norm.weight", SL_SIZE_KEY),
};

const sl_family sl_family_olmoe = {
    .architecture = "olmoe",
    .read_hyper = read_hyper,
    .tensors = tensors,
    .n_tensors = sizeof tensors / sizeof tensors[0],
    .build_body = sl_block_build_routed_body,
    .build_head = sl_block_build_head,
};
