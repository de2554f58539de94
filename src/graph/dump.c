/* Graphs and programs as text, for goldens and for people.
 *
 * Owns: nothing; appends to the caller's text.
 * Invariant: the text depends on the graph or program alone: no addresses, no order of hashing, floats with the digits
 * that tell them apart. Threads: any; reads only. */
#include <inttypes.h>

#include "graph/definitions.h"
#include "graph/program.h"

static const char *type_name(sl_type type)
{
    const sl_type_traits *traits = sl_type_traits_of((int)type);
    return traits != NULL ? traits->name : "?";
}

static const char *kind_name(sl_value_kind kind)
{
    switch (kind) {
    case SL_VALUE_INPUT: return "input";
    case SL_VALUE_WEIGHT: return "weight";
    case SL_VALUE_STATE: return "state";
    case SL_VALUE_TEMPORARY: return "temporary";
    }
    return "?";
}

static bool dump_route(const sl_op_attributes *a, sl_text *out)
{
    return sl_text_format(out, " n_experts=%" PRIu32 " n_used=%" PRIu32 " gating=softmax%s", a->n_experts, a->n_used,
                          a->renormalise ? " renormalise" : "") &&
           (a->weights_scale == 0.0f || sl_text_format(out, " weights_scale=%.9g", (double)a->weights_scale));
}

static bool dump_experts(const sl_op_attributes *a, sl_text *out)
{
    return sl_text_format(out,
                          " expert_layer=%" PRIu32 " n_experts=%" PRIu32 " n_used=%" PRIu32 " n_ff=%" PRIu32
                          " gate=%s up=%s down=%s",
                          a->expert_layer, a->n_experts, a->n_used, a->n_ff, type_name(a->gate_type),
                          type_name(a->up_type), type_name(a->down_type));
}

static bool dump_predict(const sl_op_attributes *a, sl_text *out)
{
    return sl_text_format(out, " expert_layer=%" PRIu32 " n_experts=%" PRIu32 " n_used=%" PRIu32, a->expert_layer,
                          a->n_experts, a->n_used);
}

/* " epsilon=1e-06 head_dim=64": the attributes that the kind uses. */
static bool dump_attributes(const sl_op_attributes *a, sl_op_kind kind, sl_text *out)
{
    const struct {
        uint32_t bit;
        const char *name;
        uint32_t value;
    } numbers[] = {
        {SL_ATTRIBUTE_N_HEADS, "n_heads", a->n_heads},    {SL_ATTRIBUTE_N_KV_HEADS, "n_kv_heads", a->n_kv_heads},
        {SL_ATTRIBUTE_HEAD_DIM, "head_dim", a->head_dim}, {SL_ATTRIBUTE_VALUE_DIM, "value_dim", a->value_dim},
        {SL_ATTRIBUTE_N_ROT, "n_rot", a->n_rot},
    };
    const uint32_t used = sl_op_definition_of(kind)->attributes;
    bool written = true;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if ((used & numbers[i].bit) != 0) {
            written = written && sl_text_format(out, " %s=%" PRIu32, numbers[i].name, numbers[i].value);
        }
    }
    if ((used & SL_ATTRIBUTE_EPSILON) != 0) {
        written = written && sl_text_format(out, " epsilon=%.9g", (double)a->epsilon);
    }
    if ((used & SL_ATTRIBUTE_LIMIT) != 0) {
        written = written && sl_text_format(out, " limit=%.9g", (double)a->limit);
    }
    if ((used & SL_ATTRIBUTE_SCALE) != 0) {
        written = written && sl_text_format(out, " scale=%.9g", (double)a->scale);
    }
    if ((used & SL_ATTRIBUTE_ROPE_TABLE) != 0) {
        written = written &&
                  sl_text_format(out, " rope_base=%.9g rope_scale=%.9g", (double)a->rope_base, (double)a->rope_scale);
    }
    if ((used & SL_ATTRIBUTE_PAIRING) != 0) {
        written = written && sl_text_format(out, " pairing=%s", a->pairing == SL_ROPE_NEOX ? "neox" : "norm");
    }
    if ((used & SL_ATTRIBUTE_ROUTE) != 0) {
        written = written && dump_route(a, out);
    }
    if ((used & SL_ATTRIBUTE_EXPERTS) != 0) {
        written = written && dump_experts(a, out);
    }
    if ((used & SL_ATTRIBUTE_PREDICT) != 0) {
        written = written && dump_predict(a, out);
    }
    return written;
}

static bool dump_names(const sl_graph *graph, const sl_value *values, uint32_t n_values, sl_text *out)
{
    bool written = true;
    for (uint32_t i = 0; i < n_values && written; i++) {
        const char *name = sl_value_exists(values[i]) ? graph->values[values[i].index].name : "-";
        written = sl_text_format(out, "%s%s", i == 0 ? " " : ", ", name);
    }
    return written;
}

bool sl_graph_dump(const sl_graph *graph, sl_text *out)
{
    bool written = true;
    for (uint32_t i = 0; i < graph->n_values && written; i++) {
        const sl_value_info *info = &graph->values[i];
        char shape[SL_SHAPE_TEXT_BYTES];
        written =
            sl_text_format(out, "value %" PRIu32 " %s %s %s %s%s\n", i, kind_name(info->kind), info->name,
                           type_name(info->type), sl_shape_text(&info->shape, shape), info->is_output ? " output" : "");
    }
    for (uint32_t i = 0; i < graph->n_ops && written; i++) {
        const sl_op *op = &graph->ops[i];
        written = sl_text_format(out, "op %" PRIu32 ":", i) && dump_names(graph, op->outputs, op->n_outputs, out) &&
                  sl_text_format(out, " = %s", sl_op_name(op->kind)) &&
                  dump_names(graph, op->inputs, op->n_inputs, out) && dump_attributes(&op->attributes, op->kind, out) &&
                  sl_text_append(out, "\n", 1);
    }
    return written;
}

/* "arena+128 F32 8x64", "binding 3 Q4_K 64x256", "-". */
static bool dump_place(const sl_place *place, sl_text *out)
{
    switch (place->kind) {
    case SL_PLACE_NONE: return sl_text_append(out, "-", 1);
    case SL_PLACE_ARENA:
        return sl_text_format(out, "arena+%" PRIu64 " %s %" PRIu64 "x%" PRIu64, place->offset, type_name(place->type),
                              place->rows, place->width);
    case SL_PLACE_BINDING:
        return sl_text_format(out, "binding %" PRIu32 " %s %" PRIu64 "x%" PRIu64, place->binding,
                              type_name(place->type), place->rows, place->width);
    }
    return false;
}

/* The places up to the last one that is used. */
static bool dump_places(const sl_place *places, uint32_t capacity, sl_text *out)
{
    uint32_t n_places = capacity;
    while (n_places > 0 && places[n_places - 1].kind == SL_PLACE_NONE) {
        n_places--;
    }
    bool written = true;
    for (uint32_t i = 0; i < n_places && written; i++) {
        written = sl_text_format(out, i == 0 ? " " : ", ") && dump_place(&places[i], out);
    }
    return written;
}

bool sl_program_dump(const sl_program *program, sl_text *out)
{
    bool written = sl_text_format(
        out,
        "program rows=%" PRIu64 " arena=%" PRIu64 " unshared=%" PRIu64 " buffers=%" PRIu32 " colours=%" PRIu32 "\n",
        program->rows, program->arena_bytes, program->unshared_bytes, program->n_buffers, program->n_colours);
    for (uint32_t i = 0; i < program->n_bindings && written; i++) {
        const sl_binding *binding = &program->bindings[i];
        written =
            sl_text_format(out, "binding %" PRIu32 " %s %s %s %" PRIu64 "x%" PRIu64 "\n", i, kind_name(binding->kind),
                           binding->name, type_name(binding->place.type), binding->place.rows, binding->place.width);
    }
    for (uint32_t i = 0; i < program->n_steps && written; i++) {
        const sl_step *step = &program->steps[i];
        written = sl_text_format(out, "step %" PRIu32 ":", i) && dump_places(step->outputs, SL_OP_MAX_OUTPUTS, out) &&
                  sl_text_format(out, " = %s", sl_op_name(step->kind)) &&
                  dump_places(step->inputs, SL_OP_MAX_INPUTS, out) &&
                  dump_attributes(&step->attributes, step->kind, out) &&
                  sl_text_format(out, step->for_hint ? " hint\n" : "\n");
    }
    for (uint32_t i = 0; i < program->n_outputs && written; i++) {
        written = sl_text_format(out, "output %" PRIu32 ": ", i) && dump_place(&program->outputs[i], out) &&
                  sl_text_append(out, "\n", 1);
    }
    return written;
}

bool sl_program_dump_plan(const sl_program *program, sl_text *out)
{
    bool written = true;
    for (uint32_t i = 0; i < program->n_buffers && written; i++) {
        const sl_plan_buffer *buffer = &program->buffers[i];
        written = sl_text_format(
            out, "buffer at %" PRIu64 ": %" PRIu64 " bytes, steps %" PRIu32 " to %" PRIu32 ", value %" PRIu32 "\n",
            buffer->offset, buffer->bytes, buffer->lifetime.first_write, buffer->lifetime.last_read,
            buffer->lifetime.value);
    }
    return written;
}
