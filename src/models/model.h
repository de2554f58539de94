/* An architecture family: hyper-parameters from GGUF metadata, where its tensors are, and its graphs. One file per
 * family; adding one is a file and a line in families.h. No loops over numbers, no I/O. */
#ifndef SL_MODELS_MODEL_H
#define SL_MODELS_MODEL_H

#include "gguf/reader.h"
#include "graph/roles.h"

struct sl_family;

/* No published model comes near these; what a file says beyond them is damage or malice. */
enum {
    SL_MODEL_MAX_LAYERS = 1024,
    SL_MODEL_MAX_WIDTH = 1 << 20, /* of any vector that a layer works on */
    SL_MODEL_MAX_HEADS = 4096,
    SL_MODEL_MAX_EXPERTS = 4096,
    SL_MODEL_MAX_EXPERTS_USED = 64
};

/* What every family has in common. Filled by the family's read function from metadata; checked against the tensors. */
typedef struct sl_hyper {
    uint32_t n_layers; /* that a decoder runs */
    uint32_t n_blocks; /* in the file: blocks n_layers and above predict further tokens and are not used */
    uint32_t n_embd;
    uint32_t n_vocab; /* rows of the embedding; the tokenizer knows at most as many tokens */
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
    float expert_weights_scale; /* 0 and 1: none */
    float clamp_qkv;            /* 0: none */
    bool norm_heads;            /* QK norm per head */
    bool norm_qk_full;          /* QK norm over the whole row */
} sl_hyper;

/* A length that the hyper-parameters give. */
typedef enum sl_size {
    SL_SIZE_ONE,
    SL_SIZE_EMBD,
    SL_SIZE_VOCAB,
    SL_SIZE_QUERY,     /* n_heads * key_dim */
    SL_SIZE_KEY,       /* n_kv_heads * key_dim */
    SL_SIZE_VALUE,     /* n_kv_heads * value_dim */
    SL_SIZE_ATTENDED,  /* n_heads * value_dim */
    SL_SIZE_KEY_HEAD,  /* key_dim */
    SL_SIZE_EXPERTS,   /* n_experts */
    SL_SIZE_FF_SHARED, /* n_ff_shared */
    SL_SIZE_ROTATIONS  /* n_rot / 2 */
} sl_size;

/* A dense tensor that a family has. A matrix is [rows][columns] (GGUF lists columns first); a vector, always F32, has
 * `columns` elements. */
typedef struct sl_tensor_rule {
    const char *name; /* behind "blk.N." for one in every layer */
    bool per_layer, optional, is_matrix;
    sl_size rows, columns;
} sl_tensor_rule;

/* One matrix of the experts of one layer: a stack of n_experts equal matrices, or one tensor each (old files). */
typedef struct sl_expert_matrix {
    const sl_gguf_tensor *stacked;         /* borrowed from the reader; NULL when split */
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
    sl_memory *memory;   /* borrowed */
    const sl_gguf *file; /* borrowed: outlives the model */
    const struct sl_family *family;
    sl_hyper hyper;
    sl_expert_layer *expert_layers; /* owned; [n_expert_layers] */
    uint32_t n_expert_layers;
    const sl_gguf_tensor *
        *dense; /* owned; [n_dense]: every tensor the graphs bind as a weight, each once, in file order */
    uint32_t n_dense;
} sl_model;

/* Constant data; any thread. */
typedef struct sl_family {
    const char *architecture; /* general.architecture */
    SLUICE_NODISCARD sluice_status (*read_hyper)(const sl_gguf *file, sl_hyper *hyper, sluice_error *error);
    const sl_tensor_rule *tensors; /* [n_tensors]: all but the experts' */
    uint32_t n_tensors;
    /* tokens, positions -> output: the residual stream after the last layer, [R][n_embd]. */
    void (*build_body)(const sl_model *model, sl_graph *graph, sl_kv_type kv_type);
    /* input "hidden" -> output: logits [R][n_vocab]. */
    void (*build_head)(const sl_model *model, sl_graph *graph);
} sl_family;

/* Recognise the file's family, read and check hyper-parameters, find every tensor, check every shape and type. Tensors
 * the family does not know are an error that lists them (save those of blocks that predict further tokens), never
 * silently dropped. Errors: UNSUPPORTED for an unknown family (the sentence lists the known ones), a tensor type
 * without a kernel or anything else that is valid but beyond this build; FORMAT; NOT_FOUND for a missing key or tensor;
 * NO_MEMORY. */
SLUICE_NODISCARD sluice_status sl_model_open(sl_model **out, const sl_gguf *file, sl_memory *memory,
                                             sluice_error *error);
void sl_model_close(sl_model **model);

/* Where the given matrix of the given expert lies: which of the reader's files, and the bytes in it. */
void sl_model_expert_range(const sl_model *model, uint32_t expert_layer, uint32_t matrix, uint32_t expert,
                           uint32_t *file, uint64_t *offset, uint64_t *bytes);

/* The names of all families, for messages: "llama, olmoe, qwen2moe, qwen3moe". */
const char *sl_model_family_names(void);

#endif
