/* Hyper-parameters from metadata: the keys of one architecture, with ranges, and what all families read alike. Internal
 * to this folder. */
#ifndef SL_MODELS_KEYS_H
#define SL_MODELS_KEYS_H

#include "models/model.h"

/* Keys are "<architecture>.<name>". */
typedef struct sl_keys {
    const sl_gguf *file;      /* borrowed */
    const char *architecture; /* borrowed */
} sl_keys;

bool sl_keys_has(const sl_keys *keys, const char *name);

/* A number in [low, high]: NOT_FOUND without the key, FORMAT outside the range. An array with a number for each layer
 * is accepted when all are equal, else UNSUPPORTED. */
SLUICE_NODISCARD sluice_status sl_keys_u32(const sl_keys *keys, const char *name, uint32_t low, uint32_t high,
                                           uint32_t *out, sluice_error *error);
/* The same; `fallback`, whatever the range, without the key. */
SLUICE_NODISCARD sluice_status sl_keys_u32_or(const sl_keys *keys, const char *name, uint32_t fallback, uint32_t low,
                                              uint32_t high, uint32_t *out, sluice_error *error);
SLUICE_NODISCARD sluice_status sl_keys_f32(const sl_keys *keys, const char *name, float low, float high, float *out,
                                           sluice_error *error);
SLUICE_NODISCARD sluice_status sl_keys_f32_or(const sl_keys *keys, const char *name, float fallback, float low,
                                              float high, float *out, sluice_error *error);

/* Everything in `hyper` that the families of a Llama-like block with a softmax router read alike; n_ff_expert,
 * n_ff_shared, renormalise, rope_pairing and the norms of queries and keys are the family's. UNSUPPORTED for a model
 * without experts and for keys that change the result in a way this build does not compute. */
SLUICE_NODISCARD sluice_status sl_keys_read_common(const sl_keys *keys, sl_hyper *hyper, sluice_error *error);

/* n_ff_expert: `expert_feed_forward_length`, or an equal share of `feed_forward_length` for each expert used. */
SLUICE_NODISCARD sluice_status sl_keys_read_expert_width(const sl_keys *keys, sl_hyper *hyper, sluice_error *error);

/* `expert_weights_norm`, or what the family does without the key. */
SLUICE_NODISCARD sluice_status sl_keys_read_renormalise(const sl_keys *keys, bool fallback, sl_hyper *hyper,
                                                        sluice_error *error);

#endif
