/* Finding and checking tensors: each one in the file is claimed by a rule of the family or by an expert, or belongs to
 * a block that predicts further tokens, or is an error.
 *
 * Owns: nothing; fills in arrays of the sl_model, which frees them.
 * Invariants:
 *   1. A claimed tensor has the shape that the hyper-parameters give and a type that has a decoder; vectors are F32.
 *   2. Matrices of one layer's experts have one type each, gate and up need one activation form, and each expert's
 * bytes lie inside the tensor.
 *   3. After success every tensor of the file is accounted for.
 * Threads: the opener. */
#include "models/tensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"

enum { NAME_BYTES = SL_GGUF_MAX_NAME_BYTES + 1, SHAPE_BYTES = 96, MAX_LISTED = 8 };

typedef struct claim_state {
    sl_model *model;     /* borrowed */
    const sl_gguf *file; /* borrowed */
    bool *dense;         /* owned; [file->n_tensors]: claimed by a rule */
    bool *routed;        /* owned; [file->n_tensors]: claimed by an expert */
    sluice_error *error; /* borrowed; may be NULL */
} claim_state;

static const char *path_of(const claim_state *claims)
{
    return claims->file->files[0].path;
}

static uint64_t size_of(const sl_hyper *hyper, sl_size size)
{
    switch (size) {
    case SL_SIZE_ONE: return 1;
    case SL_SIZE_EMBD: return hyper->n_embd;
    case SL_SIZE_VOCAB: return hyper->n_vocab;
    case SL_SIZE_QUERY: return (uint64_t)hyper->n_heads * hyper->key_dim;
    case SL_SIZE_KEY: return (uint64_t)hyper->n_kv_heads * hyper->key_dim;
    case SL_SIZE_VALUE: return (uint64_t)hyper->n_kv_heads * hyper->value_dim;
    case SL_SIZE_ATTENDED: return (uint64_t)hyper->n_heads * hyper->value_dim;
    case SL_SIZE_KEY_HEAD: return hyper->key_dim;
    case SL_SIZE_EXPERTS: return hyper->n_experts;
    case SL_SIZE_FF_SHARED: return hyper->n_ff_shared;
    case SL_SIZE_ROTATIONS: return hyper->n_rot / 2;
    }
    return 0;
}

/* "{2048, 64}" as GGUF lists them, without trailing ones. */
static const char *dims_text(const uint64_t dims[SL_GGUF_MAX_DIMS], char buffer[SHAPE_BYTES])
{
    uint32_t n_dims = SL_GGUF_MAX_DIMS;
    while (n_dims > 1 && dims[n_dims - 1] == 1) {
        n_dims--;
    }
    size_t used = 0;
    for (uint32_t i = 0; i < n_dims; i++) {
        used += (size_t)snprintf(buffer + used, SHAPE_BYTES - used, "%s%" PRIu64, i == 0 ? "{" : ", ", dims[i]);
    }
    snprintf(buffer + used, SHAPE_BYTES - used, "}");
    return buffer;
}

static sluice_status check_tensor(const claim_state *claims, const sl_gguf_tensor *tensor,
                                  const uint64_t expected[SL_GGUF_MAX_DIMS], bool is_vector)
{
    const sl_type_traits *traits = sl_type_traits_of((int)tensor->type);
    if (memcmp(tensor->dims, expected, sizeof tensor->dims) != 0) {
        char found[SHAPE_BYTES];
        char wanted[SHAPE_BYTES];
        return sl_error_set(claims->error, SLUICE_ERROR_FORMAT,
                            "%s: tensor \"%.*s\" has shape %s: expected %s from the metadata; the file contradicts "
                            "itself",
                            path_of(claims), SL_SPAN_ARGUMENTS(tensor->name), dims_text(tensor->dims, found),
                            dims_text(expected, wanted));
    }
    if (traits == NULL || traits->decode_row == NULL) {
        return sl_error_set(
            claims->error, SLUICE_ERROR_UNSUPPORTED,
            "%s: tensor \"%.*s\" has type %s (%d), which this build cannot compute with; use a file with "
            "another quantisation",
            path_of(claims), SL_SPAN_ARGUMENTS(tensor->name), traits != NULL ? traits->name : "unknown",
            (int)tensor->type);
    }
    if (is_vector && tensor->type != SL_TYPE_F32) {
        return sl_error_set(claims->error, SLUICE_ERROR_UNSUPPORTED,
                            "%s: tensor \"%.*s\" has type %s: norms, biases and factors are expected as F32",
                            path_of(claims), SL_SPAN_ARGUMENTS(tensor->name), traits->name);
    }
    return SLUICE_OK;
}

static sluice_status missing(const claim_state *claims, const char *name)
{
    return sl_error_set(
        claims->error, SLUICE_ERROR_NOT_FOUND,
        "%s: tensor \"%s\" is missing: a %s model needs it; the file is incomplete or of another variant",
        path_of(claims), name, claims->model->family->architecture);
}

static size_t index_of(const claim_state *claims, const sl_gguf_tensor *tensor)
{
    return (size_t)(tensor - claims->file->tensors);
}

/* Tensors that stand for others in a layout this build does not read. */
static const struct refused_name {
    const char *suffix;
    const char *reason;
} refused_names[] = {
    {".ffn_gate_up_exps.weight", "gate and up of the experts are merged in one tensor"},
    {".attn_qkv.weight", "queries, keys and values are merged in one tensor"},
    {".attn_qkv.bias", "queries, keys and values are merged in one tensor"},
    {".scale", "the tensor it belongs to has a second scale"},
};

static bool ends_with(sl_span name, const char *suffix)
{
    size_t length = strlen(suffix);
    return name.length >= length && memcmp(name.data + name.length - length, suffix, length) == 0;
}

static sluice_status refuse_other_layouts(const claim_state *claims)
{
    for (uint64_t i = 0; i < claims->file->n_tensors; i++) {
        const sl_gguf_tensor *tensor = &claims->file->tensors[i];
        for (size_t j = 0; j < sizeof refused_names / sizeof refused_names[0]; j++) {
            if (ends_with(tensor->name, refused_names[j].suffix)) {
                return sl_error_set(claims->error, SLUICE_ERROR_UNSUPPORTED,
                                    "%s: tensor \"%.*s\": %s, which this build does not read; use a file with separate "
                                    "tensors and one scale each",
                                    path_of(claims), SL_SPAN_ARGUMENTS(tensor->name), refused_names[j].reason);
            }
        }
    }
    return SLUICE_OK;
}

static sluice_status claim_dense(claim_state *claims, const sl_tensor_rule *rule, uint32_t layer)
{
    const sl_hyper *hyper = &claims->model->hyper;
    char name[NAME_BYTES];
    if (rule->per_layer) {
        snprintf(name, sizeof name, "blk.%" PRIu32 ".%s", layer, rule->name);
    } else {
        snprintf(name, sizeof name, "%s", rule->name);
    }
    const sl_gguf_tensor *tensor = sl_gguf_find_tensor(claims->file, name);
    if (tensor == NULL) {
        return rule->optional ? SLUICE_OK : missing(claims, name);
    }
    const uint64_t expected[SL_GGUF_MAX_DIMS] = {size_of(hyper, rule->columns),
                                                 rule->is_matrix ? size_of(hyper, rule->rows) : 1, 1, 1};
    SL_TRY(check_tensor(claims, tensor, expected, !rule->is_matrix));
    claims->dense[index_of(claims, tensor)] = true;
    return SLUICE_OK;
}

static const char *const matrix_names[SL_EXPERT_MATRICES] = {
    [SL_EXPERT_GATE] = "ffn_gate", [SL_EXPERT_UP] = "ffn_up", [SL_EXPERT_DOWN] = "ffn_down"};

/* Old files: one tensor for each expert, "blk.N.ffn_gate.E.weight". */
static sluice_status claim_separate(claim_state *claims, sl_expert_matrix *matrix, uint32_t layer,
                                    const char *matrix_name)
{
    uint32_t n_experts = claims->model->hyper.n_experts;
    const sl_gguf_tensor **separate = /* [n_experts] */
        sl_alloc(claims->model->memory, SL_MEMORY_OTHER, n_experts, sizeof *separate);
    if (separate == NULL) {
        return sl_error_no_memory(claims->error, n_experts * sizeof *separate, "the places of experts");
    }
    matrix->separate = separate;
    const uint64_t expected[SL_GGUF_MAX_DIMS] = {matrix->n_columns, matrix->n_rows, 1, 1};
    for (uint32_t expert = 0; expert < n_experts; expert++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "blk.%" PRIu32 ".%s.%" PRIu32 ".weight", layer, matrix_name, expert);
        separate[expert] = sl_gguf_find_tensor(claims->file, name);
        if (separate[expert] == NULL) {
            return missing(claims, name);
        }
        SL_TRY(check_tensor(claims, separate[expert], expected, false));
        if (separate[expert]->type != separate[0]->type) {
            return sl_error_set(claims->error, SLUICE_ERROR_UNSUPPORTED,
                                "%s: tensor \"%s\" has type %s and expert 0 has %s: experts of one layer must have one "
                                "type",
                                path_of(claims), name, sl_type_traits_of((int)separate[expert]->type)->name,
                                sl_type_traits_of((int)separate[0]->type)->name);
        }
        claims->routed[index_of(claims, separate[expert])] = true;
    }
    matrix->type = separate[0]->type;
    return SLUICE_OK;
}

static sluice_status claim_matrix(claim_state *claims, sl_expert_layer *layer, uint32_t i_matrix)
{
    const sl_hyper *hyper = &claims->model->hyper;
    sl_expert_matrix *matrix = &layer->matrices[i_matrix];
    matrix->n_rows = i_matrix == SL_EXPERT_DOWN ? hyper->n_embd : hyper->n_ff_expert;
    matrix->n_columns = i_matrix == SL_EXPERT_DOWN ? hyper->n_ff_expert : hyper->n_embd;
    char stacked_name[NAME_BYTES];
    char first_name[NAME_BYTES];
    snprintf(stacked_name, sizeof stacked_name, "blk.%" PRIu32 ".%s_exps.weight", layer->layer, matrix_names[i_matrix]);
    snprintf(first_name, sizeof first_name, "blk.%" PRIu32 ".%s.0.weight", layer->layer, matrix_names[i_matrix]);
    matrix->stacked = sl_gguf_find_tensor(claims->file, stacked_name);
    uint64_t n_in_tensor = hyper->n_experts;
    const sl_gguf_tensor *holder = matrix->stacked;
    if (holder != NULL) {
        const uint64_t expected[SL_GGUF_MAX_DIMS] = {matrix->n_columns, matrix->n_rows, hyper->n_experts, 1};
        SL_TRY(check_tensor(claims, holder, expected, false));
        claims->routed[index_of(claims, holder)] = true;
        matrix->type = holder->type;
    } else if (sl_gguf_find_tensor(claims->file, first_name) != NULL) {
        SL_TRY(claim_separate(claims, matrix, layer->layer, matrix_names[i_matrix]));
        holder = matrix->separate[0];
        n_in_tensor = 1;
    } else {
        return missing(claims, stacked_name);
    }
    uint64_t row_bytes = sl_type_row_bytes(matrix->type, matrix->n_columns);
    uint64_t all_bytes = 0;
    if (row_bytes == 0 || !sl_checked_multiply(row_bytes, matrix->n_rows, &matrix->bytes) ||
        !sl_checked_multiply(matrix->bytes, n_in_tensor, &all_bytes) || all_bytes != holder->bytes) {
        return sl_error_set(claims->error, SLUICE_ERROR_FORMAT,
                            "%s: tensor \"%.*s\" has %" PRIu64 " bytes: expected %" PRIu64
                            " equal experts of whole rows",
                            path_of(claims), SL_SPAN_ARGUMENTS(holder->name), holder->bytes, n_in_tensor);
    }
    return SLUICE_OK;
}

static sluice_status claim_experts(claim_state *claims, uint32_t i_layer)
{
    sl_expert_layer *layer = &claims->model->expert_layers[i_layer];
    layer->layer = i_layer;
    for (uint32_t i = 0; i < SL_EXPERT_MATRICES; i++) {
        SL_TRY(claim_matrix(claims, layer, i));
    }
    const sl_type_traits *gate = sl_type_traits_of((int)layer->matrices[SL_EXPERT_GATE].type);
    const sl_type_traits *up = sl_type_traits_of((int)layer->matrices[SL_EXPERT_UP].type);
    if (gate->activation_type != up->activation_type) {
        return sl_error_set(claims->error, SLUICE_ERROR_UNSUPPORTED,
                            "%s: layer %" PRIu32
                            ": the experts' gate matrices are %s and their up matrices %s: this build "
                            "needs types with the same block size",
                            path_of(claims), i_layer, gate->name, up->name);
    }
    return SLUICE_OK;
}

/* Whether the name is "blk.N..." with N a block that predicts further tokens. */
static bool is_predicting_block(const sl_hyper *hyper, sl_span name)
{
    const size_t prefix_length = 4;
    if (name.length <= prefix_length || memcmp(name.data, "blk.", prefix_length) != 0) {
        return false;
    }
    uint64_t block = 0;
    size_t i = prefix_length;
    while (i < name.length && name.data[i] >= '0' && name.data[i] <= '9' && block <= hyper->n_blocks) {
        block = block * 10 + (uint64_t)(name.data[i] - '0');
        i++;
    }
    bool is_number = i > prefix_length && i < name.length && name.data[i] == '.';
    return is_number && block >= hyper->n_layers && block < hyper->n_blocks;
}

/* List the tensors that nothing claimed. */
static sluice_status refuse_unknown(const claim_state *claims)
{
    char list[600];
    size_t used = 0;
    uint64_t n_unknown = 0;
    for (uint64_t i = 0; i < claims->file->n_tensors; i++) {
        const sl_gguf_tensor *tensor = &claims->file->tensors[i];
        if (claims->dense[i] || claims->routed[i] || is_predicting_block(&claims->model->hyper, tensor->name)) {
            continue;
        }
        if (n_unknown < MAX_LISTED && tensor->name.length + 8 < sizeof list - used) {
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%.*s", used == 0 ? "" : ", ",
                                     SL_SPAN_ARGUMENTS(tensor->name));
        }
        n_unknown++;
    }
    if (n_unknown == 0) {
        return SLUICE_OK;
    }
    return sl_error_set(
        claims->error, SLUICE_ERROR_UNSUPPORTED,
        "%s: %" PRIu64 " tensors are unknown in a %s model, and leaving them out would give wrong output: "
        "%s%s",
        path_of(claims), n_unknown, claims->model->family->architecture, list, n_unknown > MAX_LISTED ? ", ..." : "");
}

static sluice_status list_dense(const claim_state *claims)
{
    sl_model *model = claims->model;
    uint32_t n_dense = 0;
    for (uint64_t i = 0; i < claims->file->n_tensors; i++) {
        n_dense += claims->dense[i];
    }
    model->dense = sl_alloc(model->memory, SL_MEMORY_OTHER, n_dense, sizeof *model->dense);
    if (model->dense == NULL) {
        return sl_error_no_memory(claims->error, n_dense * sizeof *model->dense, "the list of dense tensors");
    }
    for (uint64_t i = 0; i < claims->file->n_tensors; i++) {
        if (claims->dense[i]) {
            model->dense[model->n_dense++] = &claims->file->tensors[i];
        }
    }
    return SLUICE_OK;
}

static sluice_status claim_all(claim_state *claims)
{
    sl_model *model = claims->model;
    const sl_family *family = model->family;
    SL_TRY(refuse_other_layouts(claims));
    for (uint32_t i = 0; i < family->n_tensors; i++) {
        uint32_t n_layers = family->tensors[i].per_layer ? model->hyper.n_layers : 1;
        for (uint32_t layer = 0; layer < n_layers; layer++) {
            SL_TRY(claim_dense(claims, &family->tensors[i], layer));
        }
    }
    model->expert_layers =
        sl_alloc(model->memory, SL_MEMORY_OTHER, model->hyper.n_layers, sizeof *model->expert_layers);
    if (model->expert_layers == NULL) {
        return sl_error_no_memory(claims->error, model->hyper.n_layers * sizeof *model->expert_layers,
                                  "the places of experts");
    }
    model->n_expert_layers = model->hyper.n_layers;
    for (uint32_t layer = 0; layer < model->hyper.n_layers; layer++) {
        SL_TRY(claim_experts(claims, layer));
    }
    SL_TRY(refuse_unknown(claims));
    return list_dense(claims);
}

sluice_status sl_model_find_tensors(sl_model *model, sluice_error *error)
{
    claim_state found = {.model = model, .file = model->file, .error = error};
    found.dense = sl_alloc(model->memory, SL_MEMORY_OTHER, model->file->n_tensors, sizeof *found.dense);
    found.routed = sl_alloc(model->memory, SL_MEMORY_OTHER, model->file->n_tensors, sizeof *found.routed);
    sluice_status status;
    if (found.dense == NULL || found.routed == NULL) {
        status = sl_error_no_memory(error, model->file->n_tensors * 2, "finding tensors");
    } else {
        status = claim_all(&found);
    }
    sl_free(model->memory, found.routed);
    sl_free(model->memory, found.dense);
    return status;
}
