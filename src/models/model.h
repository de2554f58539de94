/* An architecture family: hyper-parameters from GGUF metadata, where its tensors are, and its graphs. One file per family;
 * adding one is a file and a line in the table of models.c. No loops over numbers, no I/O. */
#ifndef SL_MODELS_MODEL_H
#define SL_MODELS_MODEL_H

#include "gguf/reader.h"
#include "graph/roles.h"

struct sl_family;

/* What every family has in common. Filled by the family's read function from metadata; checked against the tensors. */
typedef struct sl_hyper {
    uint32_t n_layers;
    uint32_t n_embd;
    uint32_t n_vocab;
    uint32_t n_context_trained;
    uint32_t n_heads, n_kv_heads;
    uint32_t key_dim, value_dim;
    uint32_t n_rot;
    float rope_base, rope_scale;
    sl_rope_pairing rope_pairing;
    float norm_epsilon;
    float attention_scale;
    uint32_t n_experts, n_experts_used, n_ff_expert;
    uint32_t n_ff_shared; /* 0: no shared expert */
    bool renormalise;
    float expert_weights_scale;
    float clamp_qkv; /* 0: none */
    bool norm_heads; /* QK norm per head */
    bool norm_qk_full; /* QK norm over the whole row */
} sl_hyper;

/* One matrix of the experts of one layer: a stack of n_experts equal matrices, or one tensor each (old files). */
typedef struct sl_expert_matrix {
    const sl_gguf_tensor *stacked;        /* borrowed from the reader; NULL when split */
    const sl_gguf_tensor *const *separate; /* owned by the model; [n_experts]; NULL when stacked */
    sl_type type;
    uint64_t n_rows, n_columns;
    uint64_t bytes; /* of one expert's matrix */
} sl_expert_matrix;

enum { SL_EXPERT_GATE, SL_EXPERT_UP, SL_EXPERT_DOWN, SL_EXPERT_MATRICES };

typedef struct sl_expert_layer {
    uint32_t layer; /* of the model */
    sl_expert_matrix matrices[SL_EXPERT_MATRICES];
} sl_expert_layer;

/* Immutable after open; borrowed parts live as long as the reader. */
typedef struct sl_model {
    sl_memory *memory;              /* borrowed */
    const sl_gguf *file;            /* borrowed: outlives the model */
    const struct sl_family *family;
    sl_hyper hyper;
    sl_expert_layer *expert_layers; /* owned; [n_expert_layers] */
    uint32_t n_expert_layers;
    const sl_gguf_tensor **dense;   /* owned; [n_dense]: every tensor the graphs bind as a weight, each once, in file order */
    uint32_t n_dense;
} sl_model;

typedef struct sl_family {
    const char *architecture; /* general.architecture */
    SLUICE_NODISCARD sluice_status (*read_hyper)(const sl_gguf *file, sl_hyper *hyper, sluice_error *error);
    /* tokens, positions -> output: the residual stream after the last layer, [R][n_embd]. */
    void (*build_body)(const sl_model *model, sl_graph *graph, sl_kv_type kv_type);
    /* input "hidden" -> output: logits [R][n_vocab]. */
    void (*build_head)(const sl_model *model, sl_graph *graph);
} sl_family;

/* Recognise the file's family, read and check hyper-parameters, find every tensor, check every shape and type. Tensors the
 * family does not know are an error that lists them (save documented extras such as MTP blocks), never silently dropped.
 * Errors: UNSUPPORTED for an unknown family (the sentence lists the known ones) or a tensor type without a kernel, FORMAT,
 * NOT_FOUND for a missing key or tensor. */
SLUICE_NODISCARD sluice_status sl_model_open(sl_model **out, const sl_gguf *file, sl_memory *memory,
                                             sluice_error *error);
void sl_model_close(sl_model **model);

/* Where the given matrix of the given expert lies. */
void sl_model_expert_range(const sl_model *model, uint32_t expert_layer, uint32_t matrix, uint32_t expert,
                           uint32_t *file, uint64_t *offset, uint64_t *bytes);

/* The names of all families, for messages: "llama, olmoe, qwen2moe, qwen3moe". */
const char *sl_model_family_names(void);

#endif
