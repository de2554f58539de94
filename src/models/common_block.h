/* What the families of a Llama-like block share: their tensors and the graph of one layer. Internal to this folder. */
#ifndef SL_MODELS_COMMON_BLOCK_H
#define SL_MODELS_COMMON_BLOCK_H

#include "models/model.h"

/* Rows of a family's tensor table. */
#define SL_MATRIX(name_, rows_, columns_)                                                                              \
    {                                                                                                                  \
        .name = (name_), .per_layer = true, .is_matrix = true, .rows = (rows_), .columns = (columns_)                  \
    }
#define SL_VECTOR(name_, columns_)                                                                                     \
    {                                                                                                                  \
        .name = (name_), .per_layer = true, .columns = (columns_)                                                      \
    }
#define SL_OPTIONAL_VECTOR(name_, columns_)                                                                            \
    {                                                                                                                  \
        .name = (name_), .per_layer = true, .optional = true, .columns = (columns_)                                    \
    }

/* The tensors that all of them have. Without output.weight the head uses token_embd.weight. */
#define SL_COMMON_BLOCK_TENSORS                                                                                        \
    {.name = "token_embd.weight", .is_matrix = true, .rows = SL_SIZE_VOCAB, .columns = SL_SIZE_EMBD},                  \
        {.name = "output_norm.weight", .columns = SL_SIZE_EMBD},                                                       \
        {.name = "output.weight",                                                                                      \
         .optional = true,                                                                                             \
         .is_matrix = true,                                                                                            \
         .rows = SL_SIZE_VOCAB,                                                                                        \
         .columns = SL_SIZE_EMBD},                                                                                     \
        SL_VECTOR("attn_norm.weight", SL_SIZE_EMBD), SL_MATRIX("attn_q.weight", SL_SIZE_QUERY, SL_SIZE_EMBD),          \
        SL_MATRIX("attn_k.weight", SL_SIZE_KEY, SL_SIZE_EMBD),                                                         \
        SL_MATRIX("attn_v.weight", SL_SIZE_VALUE, SL_SIZE_EMBD),                                                       \
        SL_MATRIX("attn_output.weight", SL_SIZE_EMBD, SL_SIZE_ATTENDED), SL_VECTOR("ffn_norm.weight", SL_SIZE_EMBD),   \
        SL_MATRIX("ffn_gate_inp.weight", SL_SIZE_EXPERTS, SL_SIZE_EMBD)

/* One layer while its graph is built. */
typedef struct sl_block {
    const sl_model *model; /* borrowed */
    sl_graph *graph;       /* borrowed */
    uint32_t layer;
    sl_residual state; /* before the feed-forward part */
} sl_block;

/* The layer's tensor as a weight of the graph; SL_NO_VALUE when an optional one is absent. */
sl_matrix sl_block_matrix(const sl_block *block, const char *name);
sl_vector sl_block_vector(const sl_block *block, const char *name);

/* The feed-forward part of a layer: what it adds to the residual stream. */
typedef sl_branch sl_build_ffn_fn(const sl_block *block, sl_ffn_input x);

/* Router and top k; and a guess at what the next layer will ask for. */
sl_routing sl_block_route(const sl_block *block, sl_ffn_input x);
/* What does not need the experts is built between the two: it is computed while they are read. */
sl_branch sl_block_experts(const sl_block *block, sl_ffn_input x, sl_routing routing);
/* Both. */
sl_branch sl_block_routed_experts(const sl_block *block, sl_ffn_input x);

/* The whole body: embedding, then per layer norm, attention, residual, norm, `build_ffn`, residual. */
void sl_block_build_body(const sl_model *model, sl_graph *graph, sl_kv_type kv_type, sl_build_ffn_fn *build_ffn);
/* The same with nothing but routed experts: a family's build_body. */
void sl_block_build_routed_body(const sl_model *model, sl_graph *graph, sl_kv_type kv_type);
/* Output norm and head, tied or not: a family's build_head. */
void sl_block_build_head(const sl_model *model, sl_graph *graph);

#endif
