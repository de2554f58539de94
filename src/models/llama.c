/* Llama blocks with experts (Mixtral): whole heads rotated in adjacent pairs, softmax router with renormalised weights,
 * experts of the dense width. Constant data; any thread. */
#include "models/families.h"

#include <inttypes.h>

#include "models/common_block.h"
#include "models/keys.h"

static sluice_status read_hyper(const sl_gguf *file, sl_hyper *hyper, sluice_error *error)
{
    const sl_keys keys = {.file = file, .architecture = "llama"};
    SL_TRY(sl_keys_read_common(&keys, hyper, error));
    SL_TRY(sl_keys_u32(&keys, "feed_forward_length", 1, SL_MODEL_MAX_WIDTH, &hyper->n_ff_expert, error));
    if (hyper->n_rot != hyper->key_dim) {
        return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                            "%s: \"llama.rope.dimension_count\" is %" PRIu32 " and heads are %" PRIu32
                            " wide: llama models rotate whole heads",
                            file->files[0].path, hyper->n_rot, hyper->key_dim);
    }
    hyper->rope_pairing = SL_ROPE_NORM;
    /* The tensor holds the factors of a context extension already; the key repeats them in another form. */
    if (sl_gguf_find_tensor(file, "rope_freqs.weight") != NULL) {
        hyper->rope_scale = 1.0f;
    }
    return sl_keys_read_renormalise(&keys, true, hyper, error);
}

static const sl_tensor_rule tensors[] = {
    SL_COMMON_BLOCK_TENSORS,
    {.name = "rope_freqs.weight", .optional = true, .columns = SL_SIZE_ROTATIONS},
    SL_OPTIONAL_VECTOR("attn_q.bias", SL_SIZE_QUERY),
    SL_OPTIONAL_VECTOR("attn_k.bias", SL_SIZE_KEY),
    SL_OPTIONAL_VECTOR("attn_v.bias", SL_SIZE_VALUE),
    SL_OPTIONAL_VECTOR("attn_output.bias", SL_SIZE_EMBD),
};

const sl_family sl_family_llama = {
    .architecture = "llama",
    .read_hyper = read_hyper,
    .tensors = tensors,
    .n_tensors = sizeof tensors / sizeof tensors[0],
    .build_body = sl_block_build_routed_body,
    .build_head = sl_block_build_head,
};
