/* The table of operation kinds: what each takes, rewrites and gives, and which shapes fit.
 *
 * Owns: constant tables only.
 * Invariants:
 *   1. Every kind has exactly one row (asserted where the table ends).
 *   2. An infer function reads inputs only after sl_op_check made sure that the required ones exist, and gives one
 * result per output.
 *   3. A function that returns a failure has filled in a sentence that names the operation, the value and both shapes.
 * Threads: any. */
#include "graph/definitions.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What one infer function works on. */
typedef struct op_check {
    const sl_graph *graph; /* borrowed */
    const sl_op *op;       /* borrowed */
    sluice_error *error;   /* borrowed; may be NULL */
} op_check;

static const sl_value_info *input_of(const op_check *check, uint32_t i)
{
    return &check->graph->values[check->op->inputs[i].index];
}

static bool has_input(const op_check *check, uint32_t i)
{
    return sl_value_exists(check->op->inputs[i]);
}

const char *sl_shape_text(const sl_shape *shape, char buffer[SL_SHAPE_TEXT_BYTES])
{
    size_t used = 0;
    buffer[0] = '\0';
    for (uint32_t i = 0; i < shape->n_dims && i < SL_GRAPH_MAX_DIMS; i++) {
        uint64_t dim = shape->dims[i];
        int length = dim == SL_DIM_ROWS ? snprintf(buffer + used, SL_SHAPE_TEXT_BYTES - used, "[rows]")
                     : dim == SL_DIM_POSITIONS
                         ? snprintf(buffer + used, SL_SHAPE_TEXT_BYTES - used, "[positions]")
                         : snprintf(buffer + used, SL_SHAPE_TEXT_BYTES - used, "[%" PRIu64 "]", dim);
        used += (size_t)length;
    }
    return buffer;
}

/* "operation 7 (matmul): input 1 'w' is F32 [3][4], expected ..." */
static bool misfit(const op_check *check, uint32_t i, const char *expected)
{
    const sl_value_info *info = input_of(check, i);
    const sl_type_traits *traits = sl_type_traits_of((int)info->type);
    char text[SL_SHAPE_TEXT_BYTES];
    sl_error_set(check->error, SLUICE_ERROR_ARGUMENT, "%s: input %" PRIu32 " '%s' is %s %s: expected %s",
                 sl_op_name(check->op->kind), i, info->name, traits != NULL ? traits->name : "?",
                 sl_shape_text(&info->shape, text), expected);
    return false;
}

static sluice_status bad_attribute(const op_check *check, const char *what)
{
    return sl_error_set(check->error, SLUICE_ERROR_ARGUMENT, "%s: %s", sl_op_name(check->op->kind), what);
}

/* Input i is F32 [R][width]; any width when it is 0. */
static bool is_batch(const op_check *check, uint32_t i, uint64_t width)
{
    const sl_value_info *info = input_of(check, i);
    if (info->type == SL_TYPE_F32 && info->shape.n_dims == 2 && info->shape.dims[0] == SL_DIM_ROWS &&
        (width == 0 || info->shape.dims[1] == width)) {
        return true;
    }
    char expected[64];
    if (width == 0) {
        snprintf(expected, sizeof expected, "F32 [rows][n]");
    } else {
        snprintf(expected, sizeof expected, "F32 [rows][%" PRIu64 "]", width);
    }
    return misfit(check, i, expected);
}

/* Input i is I32 [R], or I32 [R][width] when width is not 0. */
static bool is_index_batch(const op_check *check, uint32_t i, uint64_t width)
{
    const sl_value_info *info = input_of(check, i);
    if (info->type == SL_TYPE_I32 && info->shape.n_dims == (width == 0 ? 1 : 2) && info->shape.dims[0] == SL_DIM_ROWS &&
        (width == 0 || info->shape.dims[1] == width)) {
        return true;
    }
    char expected[64];
    if (width == 0) {
        snprintf(expected, sizeof expected, "I32 [rows]");
    } else {
        snprintf(expected, sizeof expected, "I32 [rows][%" PRIu64 "]", width);
    }
    return misfit(check, i, expected);
}

/* Input i is an F32 vector weight of n elements. */
static bool is_vector(const op_check *check, uint32_t i, uint64_t n)
{
    const sl_value_info *info = input_of(check, i);
    if (info->kind == SL_VALUE_WEIGHT && info->type == SL_TYPE_F32 && info->shape.n_dims == 1 &&
        info->shape.dims[0] == n) {
        return true;
    }
    char expected[64];
    snprintf(expected, sizeof expected, "a weight F32 [%" PRIu64 "]", n);
    return misfit(check, i, expected);
}

/* Input i is a weight [any][in]; any `in` when it is 0. */
static bool is_matrix(const op_check *check, uint32_t i, uint64_t in)
{
    const sl_value_info *info = input_of(check, i);
    if (info->kind == SL_VALUE_WEIGHT && info->shape.n_dims == 2 && (in == 0 || info->shape.dims[1] == in)) {
        return true;
    }
    char expected[64];
    if (in == 0) {
        snprintf(expected, sizeof expected, "a weight [out][in]");
    } else {
        snprintf(expected, sizeof expected, "a weight [out][%" PRIu64 "]", in);
    }
    return misfit(check, i, expected);
}

/* Input i is a state [n_heads][positions][dim]. */
static bool is_cache(const op_check *check, uint32_t i, uint64_t n_heads, uint64_t dim)
{
    const sl_value_info *info = input_of(check, i);
    if (info->kind == SL_VALUE_STATE && info->shape.n_dims == 3 && info->shape.dims[0] == n_heads &&
        info->shape.dims[1] == SL_DIM_POSITIONS && info->shape.dims[2] == dim) {
        return true;
    }
    char expected[96];
    snprintf(expected, sizeof expected, "a state [%" PRIu64 "][positions][%" PRIu64 "]", n_heads, dim);
    return misfit(check, i, expected);
}

static uint64_t width_of(const op_check *check, uint32_t i)
{
    return input_of(check, i)->shape.dims[1];
}

static sl_op_result batch_of(uint64_t width)
{
    return (sl_op_result){.type = SL_TYPE_F32, .shape = sl_shape_of_2(SL_DIM_ROWS, width)};
}

static sl_op_result same_as(const op_check *check, uint32_t i)
{
    const sl_value_info *info = input_of(check, i);
    return (sl_op_result){.type = info->type, .shape = info->shape};
}

static sluice_status verdict(bool fits)
{
    return fits ? SLUICE_OK : SLUICE_ERROR_ARGUMENT;
}

/* Below: one function per kind or group of kinds. */

#define CHECK_OF(graph, op, error) (&(const op_check){(graph), (op), (error)})

static sluice_status infer_embed(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    bool fits = is_index_batch(check, 0, 0) && is_matrix(check, 1, 0);
    results[0] = batch_of(fits ? width_of(check, 1) : 0);
    return verdict(fits);
}

static sluice_status infer_matmul(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    if (!is_batch(check, 0, 0) || !is_matrix(check, 1, width_of(check, 0))) {
        return SLUICE_ERROR_ARGUMENT;
    }
    uint64_t n_out = input_of(check, 1)->shape.dims[0];
    results[0] = batch_of(n_out);
    return verdict(!has_input(check, 2) || is_vector(check, 2, n_out));
}

static sluice_status infer_rms_norm(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    if (!is_batch(check, 0, 0) || !is_vector(check, 1, width_of(check, 0))) {
        return SLUICE_ERROR_ARGUMENT;
    }
    results[0] = same_as(check, 0);
    return SLUICE_OK;
}

static sluice_status infer_norm_heads(const sl_graph *graph, const sl_op *op, sl_op_result *results,
                                      sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    uint32_t group = op->attributes.head_dim;
    if (!is_batch(check, 0, 0)) {
        return SLUICE_ERROR_ARGUMENT;
    }
    if (group == 0 || width_of(check, 0) % group != 0) {
        return bad_attribute(check, "the width must be a whole number of groups of head_dim elements");
    }
    results[0] = same_as(check, 0);
    return verdict(is_vector(check, 1, group));
}

static sluice_status infer_add(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    if (!is_batch(check, 0, 0)) {
        return SLUICE_ERROR_ARGUMENT;
    }
    uint64_t width = width_of(check, 0);
    results[0] = batch_of(width);
    return verdict(input_of(check, 1)->shape.n_dims == 1 ? is_vector(check, 1, width) : is_batch(check, 1, width));
}

/* MULTIPLY, SWIGLU */
static sluice_status infer_same_pair(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    if (!is_batch(check, 0, 0) || !is_batch(check, 1, width_of(check, 0))) {
        return SLUICE_ERROR_ARGUMENT;
    }
    results[0] = same_as(check, 0);
    return SLUICE_OK;
}

/* SILU, GELU, SOFTMAX, CLAMP */
static sluice_status infer_same(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    if (!is_batch(check, 0, 0)) {
        return SLUICE_ERROR_ARGUMENT;
    }
    if (op->kind == SL_OP_CLAMP && !(op->attributes.limit > 0)) {
        return bad_attribute(check, "limit must be above 0");
    }
    results[0] = same_as(check, 0);
    return SLUICE_OK;
}

static sluice_status infer_sigmoid_scale(const sl_graph *graph, const sl_op *op, sl_op_result *results,
                                         sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    if (!is_batch(check, 0, 0) || !is_batch(check, 1, 1)) {
        return SLUICE_ERROR_ARGUMENT;
    }
    results[0] = same_as(check, 0);
    return SLUICE_OK;
}

static sluice_status infer_rope_table(const sl_graph *graph, const sl_op *op, sl_op_result *results,
                                      sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    uint32_t n_rot = op->attributes.n_rot;
    if (n_rot == 0 || n_rot % 2 != 0 || n_rot > SL_DIM_MAX) {
        return bad_attribute(check, "n_rot must be even and above 0");
    }
    if (!(op->attributes.rope_base > 0) || !(op->attributes.rope_scale > 0)) {
        return bad_attribute(check, "rope_base and rope_scale must be above 0");
    }
    results[0] = batch_of(n_rot);
    return verdict(is_index_batch(check, 0, 0) && (!has_input(check, 1) || is_vector(check, 1, n_rot / 2)));
}

static sluice_status infer_rope(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    const sl_op_attributes *a = &op->attributes;
    if (a->n_heads == 0 || a->head_dim == 0 || a->n_rot == 0 || a->n_rot % 2 != 0 || a->n_rot > a->head_dim) {
        return bad_attribute(check, "n_heads and head_dim must be above 0, n_rot even and at most head_dim");
    }
    if (!is_batch(check, 0, (uint64_t)a->n_heads * a->head_dim) || !is_batch(check, 1, a->n_rot)) {
        return SLUICE_ERROR_ARGUMENT;
    }
    results[0] = same_as(check, 0);
    return SLUICE_OK;
}

static bool has_head_attributes(const op_check *check, bool with_queries)
{
    const sl_op_attributes *a = &check->op->attributes;
    if (a->n_kv_heads == 0 || a->head_dim == 0 || a->value_dim == 0) {
        bad_attribute(check, "n_kv_heads, head_dim and value_dim must be above 0");
        return false;
    }
    if (with_queries && (a->n_heads == 0 || a->n_heads % a->n_kv_heads != 0)) {
        bad_attribute(check, "n_heads must be a multiple of n_kv_heads");
        return false;
    }
    return true;
}

static sluice_status infer_kv_store(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    const sl_op_attributes *a = &op->attributes;
    if (!has_head_attributes(check, false) || !is_batch(check, 0, (uint64_t)a->n_kv_heads * a->head_dim) ||
        !is_batch(check, 1, (uint64_t)a->n_kv_heads * a->value_dim) || !is_index_batch(check, 2, 0) ||
        !is_cache(check, 3, a->n_kv_heads, a->head_dim) || !is_cache(check, 4, a->n_kv_heads, a->value_dim)) {
        return SLUICE_ERROR_ARGUMENT;
    }
    if (op->inputs[3].index == op->inputs[4].index || input_of(check, 3)->type != input_of(check, 4)->type) {
        return bad_attribute(check, "the key and value caches must be two states of one type");
    }
    results[0] = same_as(check, 3);
    results[1] = same_as(check, 4);
    return SLUICE_OK;
}

static sluice_status infer_attention(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    const sl_op_attributes *a = &op->attributes;
    if (!has_head_attributes(check, true) || !is_batch(check, 0, (uint64_t)a->n_heads * a->head_dim) ||
        !is_index_batch(check, 1, 0) || !is_cache(check, 2, a->n_kv_heads, a->head_dim) ||
        !is_cache(check, 3, a->n_kv_heads, a->value_dim)) {
        return SLUICE_ERROR_ARGUMENT;
    }
    if (input_of(check, 2)->type != input_of(check, 3)->type) {
        return bad_attribute(check, "the key and value caches must have one type");
    }
    uint64_t width = (uint64_t)a->n_heads * a->value_dim;
    if (width > SL_DIM_MAX) {
        return bad_attribute(check, "n_heads * value_dim is too large");
    }
    results[0] = batch_of(width);
    return SLUICE_OK;
}

static bool has_route_attributes(const op_check *check)
{
    const sl_op_attributes *a = &check->op->attributes;
    if (a->n_experts == 0 || a->n_used == 0 || a->n_used > a->n_experts) {
        bad_attribute(check, "n_experts must be above 0 and n_used between 1 and n_experts");
        return false;
    }
    return true;
}

static sluice_status infer_route(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    const sl_op_attributes *a = &op->attributes;
    if (!has_route_attributes(check) || !is_batch(check, 0, a->n_experts)) {
        return SLUICE_ERROR_ARGUMENT;
    }
    if (a->gating != SL_GATING_SOFTMAX) {
        return bad_attribute(check, "the gating function is unknown");
    }
    results[0] = batch_of(a->n_used);
    results[0].type = SL_TYPE_I32;
    results[1] = batch_of(a->n_used);
    return SLUICE_OK;
}

static sluice_status infer_predict(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    const sl_op_attributes *a = &op->attributes;
    if (!has_route_attributes(check) || !is_batch(check, 0, a->n_experts)) {
        return SLUICE_ERROR_ARGUMENT;
    }
    results[0] = batch_of(a->n_used);
    results[0].type = SL_TYPE_I32;
    return SLUICE_OK;
}

static bool is_expert_type(sl_type type)
{
    const sl_type_traits *traits = sl_type_traits_of((int)type);
    return traits != NULL && traits->decode_row != NULL;
}

static sluice_status infer_experts(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    const sl_op_attributes *a = &op->attributes;
    if (!has_route_attributes(check) || !is_batch(check, 0, 0) || !is_index_batch(check, 1, a->n_used) ||
        !is_batch(check, 2, a->n_used)) {
        return SLUICE_ERROR_ARGUMENT;
    }
    if (a->n_ff == 0 || a->n_ff > SL_DIM_MAX) {
        return bad_attribute(check, "n_ff must be above 0");
    }
    if (!is_expert_type(a->gate_type) || !is_expert_type(a->up_type) || !is_expert_type(a->down_type)) {
        return bad_attribute(check, "an expert matrix has a type that this build cannot decode");
    }
    results[0] = same_as(check, 0);
    return SLUICE_OK;
}

static sluice_status infer_add_rms_norm(const sl_graph *graph, const sl_op *op, sl_op_result *results,
                                        sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    if (!is_batch(check, 0, 0) || !is_batch(check, 1, width_of(check, 0)) || !is_vector(check, 2, width_of(check, 0))) {
        return SLUICE_ERROR_ARGUMENT;
    }
    results[0] = same_as(check, 0);
    results[1] = same_as(check, 0);
    return SLUICE_OK;
}

static sluice_status infer_matmul_swiglu(const sl_graph *graph, const sl_op *op, sl_op_result *results,
                                         sluice_error *error)
{
    const op_check *check = CHECK_OF(graph, op, error);
    if (!is_batch(check, 0, 0) || !is_matrix(check, 1, width_of(check, 0)) ||
        !is_matrix(check, 2, width_of(check, 0))) {
        return SLUICE_ERROR_ARGUMENT;
    }
    const sl_value_info *gate = input_of(check, 1);
    const sl_value_info *up = input_of(check, 2);
    if (gate->shape.dims[0] != up->shape.dims[0]) {
        return bad_attribute(check, "gate and up must have the same number of rows");
    }
    if (sl_type_traits_of((int)gate->type)->activation_type != sl_type_traits_of((int)up->type)->activation_type) {
        return bad_attribute(check, "the types of gate and up need different activation forms");
    }
    results[0] = batch_of(gate->shape.dims[0]);
    return SLUICE_OK;
}

/* kind, name, inputs, optional inputs, outputs, attributes, in place, first rewritten input, infer */
#define OPERATIONS(ROW)                                                                                                \
    ROW(SL_OP_EMBED, "embed", 2, 0, 1, 0, false, 0, infer_embed)                                                       \
    ROW(SL_OP_MATMUL, "matmul", 3, 1u << 2, 1, 0, false, 0, infer_matmul)                                              \
    ROW(SL_OP_RMS_NORM, "rms_norm", 2, 0, 1, SL_ATTRIBUTE_EPSILON, false, 0, infer_rms_norm)                           \
    ROW(SL_OP_NORM_HEADS, "norm_heads", 2, 0, 1, SL_ATTRIBUTE_EPSILON | SL_ATTRIBUTE_HEAD_DIM, true, 0,                \
        infer_norm_heads)                                                                                              \
    ROW(SL_OP_ADD, "add", 2, 0, 1, 0, false, 0, infer_add)                                                             \
    ROW(SL_OP_MULTIPLY, "multiply", 2, 0, 1, 0, false, 0, infer_same_pair)                                             \
    ROW(SL_OP_CLAMP, "clamp", 1, 0, 1, SL_ATTRIBUTE_LIMIT, true, 0, infer_same)                                        \
    ROW(SL_OP_SILU, "silu", 1, 0, 1, 0, false, 0, infer_same)                                                          \
    ROW(SL_OP_GELU, "gelu", 1, 0, 1, 0, false, 0, infer_same)                                                          \
    ROW(SL_OP_SOFTMAX, "softmax", 1, 0, 1, 0, false, 0, infer_same)                                                    \
    ROW(SL_OP_SIGMOID_SCALE, "sigmoid_scale", 2, 0, 1, 0, false, 0, infer_sigmoid_scale)                               \
    ROW(SL_OP_ROPE_TABLE, "rope_table", 2, 1u << 1, 1, SL_ATTRIBUTE_N_ROT | SL_ATTRIBUTE_ROPE_TABLE, false, 0,         \
        infer_rope_table)                                                                                              \
    ROW(SL_OP_ROPE, "rope", 2, 0, 1,                                                                                   \
        SL_ATTRIBUTE_N_HEADS | SL_ATTRIBUTE_HEAD_DIM | SL_ATTRIBUTE_N_ROT | SL_ATTRIBUTE_PAIRING, true, 0, infer_rope) \
    ROW(SL_OP_KV_STORE, "kv_store", 5, 0, 2, SL_ATTRIBUTE_N_KV_HEADS | SL_ATTRIBUTE_HEAD_DIM | SL_ATTRIBUTE_VALUE_DIM, \
        true, 3, infer_kv_store)                                                                                       \
    ROW(SL_OP_ATTENTION, "attention", 4, 0, 1,                                                                         \
        SL_ATTRIBUTE_N_HEADS | SL_ATTRIBUTE_N_KV_HEADS | SL_ATTRIBUTE_HEAD_DIM | SL_ATTRIBUTE_VALUE_DIM |              \
            SL_ATTRIBUTE_SCALE,                                                                                        \
        false, 0, infer_attention)                                                                                     \
    ROW(SL_OP_ROUTE, "route", 1, 0, 2, SL_ATTRIBUTE_ROUTE, false, 0, infer_route)                                      \
    ROW(SL_OP_EXPERTS, "experts", 3, 0, 1, SL_ATTRIBUTE_EXPERTS, false, 0, infer_experts)                              \
    ROW(SL_OP_PREDICT, "predict", 1, 0, 1, SL_ATTRIBUTE_PREDICT, false, 0, infer_predict)                              \
    ROW(SL_OP_SWIGLU, "swiglu", 2, 0, 1, 0, false, 0, infer_same_pair)                                                 \
    ROW(SL_OP_ADD_RMS_NORM, "add_rms_norm", 3, 0, 2, SL_ATTRIBUTE_EPSILON, false, 0, infer_add_rms_norm)               \
    ROW(SL_OP_MATMUL_SWIGLU, "matmul_swiglu", 3, 0, 1, 0, false, 0, infer_matmul_swiglu)                               \
    ROW(SL_OP_QUANTIZE, "quantize", 1, 0, 1, 0, false, 0, NULL)

#define DEFINE(kind_, name_, n_inputs_, optional_, n_outputs_, attributes_, in_place_, first_rewritten_, infer_)       \
    [kind_] = {.name = (name_),                                                                                        \
               .n_inputs = (n_inputs_),                                                                                \
               .optional = (optional_),                                                                                \
               .n_outputs = (n_outputs_),                                                                              \
               .attributes = (attributes_),                                                                            \
               .in_place = (in_place_),                                                                                \
               .first_rewritten = (first_rewritten_),                                                                  \
               .infer = (infer_)},
static const sl_op_definition definitions[SL_OP_KIND_COUNT] = {OPERATIONS(DEFINE)};

/* The compiler refuses two rows for one kind (-Woverride-init), so as many rows as kinds means one for each. */
#define COUNT_ONE(...) +1
_Static_assert(0 OPERATIONS(COUNT_ONE) == SL_OP_KIND_COUNT, "every operation kind has a row");

const sl_op_definition *sl_op_definition_of(sl_op_kind kind)
{
    return (unsigned)kind < SL_OP_KIND_COUNT ? &definitions[kind] : NULL;
}

const char *sl_op_name(sl_op_kind kind)
{
    const sl_op_definition *definition = sl_op_definition_of(kind);
    return definition != NULL ? definition->name : "unknown";
}

bool sl_op_is_hint(sl_op_kind kind)
{
    return kind == SL_OP_PREDICT;
}

bool sl_op_rewrites(const sl_op *op, uint32_t i_output)
{
    const sl_op_definition *definition = &definitions[op->kind];
    return definition->in_place && i_output < definition->n_outputs;
}

sluice_status sl_op_check(const sl_graph *graph, const sl_op *op, sl_op_result *results, sluice_error *error)
{
    const sl_op_definition *definition = sl_op_definition_of(op->kind);
    if (definition == NULL) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "operation kind %d is unknown", (int)op->kind);
    }
    if (definition->infer == NULL) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s is made by lowering only", definition->name);
    }
    if (op->n_inputs != definition->n_inputs) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s has %" PRIu32 " inputs: expected %" PRIu32,
                            definition->name, op->n_inputs, definition->n_inputs);
    }
    for (uint32_t i = 0; i < op->n_inputs; i++) {
        bool optional = (definition->optional >> i & 1u) != 0;
        if (!sl_value_exists(op->inputs[i])) {
            if (!optional) {
                return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s: input %" PRIu32 " is missing", definition->name,
                                    i);
            }
        } else if (op->inputs[i].index >= graph->n_values) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "%s: input %" PRIu32 " names value %" PRIu32 ": the graph has %" PRIu32,
                                definition->name, i, op->inputs[i].index, graph->n_values);
        }
    }
    return definition->infer(graph, op, results, error);
}
