/* From a verified graph to a flat program.
 *
 * Owns: while it compiles, a lowered copy of the graph (values keep their indexes; activation forms and scratch
 * follow); afterwards the arrays of an sl_program. Invariants:
 *   1. The lowered graph differs from the source in this only: QUANTIZE operations stand before the first reader of a
 * value in an activation form, readers name that form, EXPERTS names its scratch as outputs, and rows are numbers.
 *   2. A value is quantised once per activation form and version: an in-place operation makes a new version.
 *   3. Every place of a step is complete: running it needs no shape and no name.
 * Threads: compiling reads the graph; a compiled program is immutable. */
#include "graph/program.h"

#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "graph/definitions.h"

/* SL_TYPE_ACT_Q8_32 and SL_TYPE_ACT_Q8_256. */
enum { ACTIVATION_FORMS = SL_TYPE_COUNT - SL_TYPE_FILE_COUNT };

/* Indexes of a value's current activation forms in the lowered graph; UINT32_MAX: not made. */
typedef struct quantised_forms {
    uint32_t values[ACTIVATION_FORMS];
} quantised_forms;

typedef struct lowering_state {
    const sl_graph *graph; /* borrowed */
    uint64_t rows;
    sl_graph lowered;
    uint32_t *origins;      /* owned; [lowered.n_ops]: index in graph->ops */
    quantised_forms *forms; /* owned; [graph->n_values] */
    sluice_error *error;    /* borrowed; may be NULL */
} lowering_state;

static sluice_status forward_graph_error(const lowering_state *lowering)
{
    if (lowering->error != NULL) {
        *lowering->error = lowering->lowered.error;
    }
    return lowering->lowered.error.status;
}

static sl_type activation_form(sl_type weight)
{
    return sl_type_traits_of((int)weight)->activation_type;
}

/* Whether a row of `width` elements is a whole number of blocks of `form`. */
static sluice_status check_form(const lowering_state *lowering, const char *reader, sl_type weight, uint64_t width)
{
    sl_type form = activation_form(weight);
    if (sl_type_row_bytes(form, width) != 0) {
        return SLUICE_OK;
    }
    return sl_error_set(lowering->error, SLUICE_ERROR_UNSUPPORTED,
                        "%s: a %s matrix with rows of %" PRIu64 " elements: its rows must be a multiple of %" PRIu32,
                        reader, sl_type_traits_of((int)weight)->name, width,
                        sl_type_traits_of((int)form)->block_elements);
}

static sluice_status append_op(lowering_state *lowering, const sl_op *op, uint32_t origin)
{
    uint32_t capacity = lowering->lowered.ops_capacity;
    if (!sl_graph_append_op(&lowering->lowered, op)) {
        return forward_graph_error(lowering);
    }
    if (lowering->lowered.ops_capacity != capacity) {
        capacity = lowering->lowered.ops_capacity;
        uint32_t *origins =
            sl_realloc(lowering->lowered.memory, SL_MEMORY_OTHER, lowering->origins, capacity, sizeof *origins);
        if (origins == NULL) {
            return sl_error_no_memory(lowering->error, (unsigned long long)capacity * sizeof *origins,
                                      "lowering a graph");
        }
        lowering->origins = origins;
    }
    lowering->origins[lowering->lowered.n_ops - 1] = origin;
    return SLUICE_OK;
}

/* The form of `*value` that matrices of type `weight` are multiplied with replaces it. */
static sluice_status quantise(lowering_state *lowering, sl_value *value, sl_type weight, uint32_t i_op)
{
    sl_type form = activation_form(weight);
    if (form == SL_TYPE_F32) {
        return SLUICE_OK;
    }
    uint32_t *made = &lowering->forms[value->index].values[form - SL_TYPE_FILE_COUNT];
    if (*made == UINT32_MAX) {
        sl_value_info info = lowering->lowered.values[value->index];
        SL_TRY(check_form(lowering, sl_op_name(lowering->graph->ops[i_op].kind), weight, info.shape.dims[1]));
        info.kind = SL_VALUE_TEMPORARY;
        info.type = form;
        info.is_output = false;
        sl_value result = sl_graph_append_value(&lowering->lowered, &info);
        if (!sl_value_exists(result)) {
            return forward_graph_error(lowering);
        }
        sl_op op = {.kind = SL_OP_QUANTIZE, .n_inputs = 1, .n_outputs = 1};
        op.inputs[0] = *value;
        op.outputs[0] = result;
        SL_TRY(append_op(lowering, &op, i_op));
        *made = result.index;
    }
    value->index = *made;
    return SLUICE_OK;
}

static sluice_status add_scratch(lowering_state *lowering, sl_op *op, uint32_t i_output, const char *name, sl_type type,
                                 uint64_t rows, uint64_t width)
{
    sl_value_info info = {.kind = SL_VALUE_TEMPORARY, .type = type, .shape = sl_shape_of_2(rows, width)};
    memcpy(info.name, name, strlen(name) + 1);
    op->outputs[i_output] = sl_graph_append_value(&lowering->lowered, &info);
    return sl_value_exists(op->outputs[i_output]) ? SLUICE_OK : forward_graph_error(lowering);
}

static sluice_status lower_experts(lowering_state *lowering, sl_op *op, uint32_t i_op)
{
    const sl_op_attributes *a = &op->attributes;
    sl_type form = activation_form(a->gate_type);
    sl_type hidden_form = activation_form(a->down_type);
    if (form != activation_form(a->up_type)) {
        return sl_error_set(lowering->error, SLUICE_ERROR_UNSUPPORTED,
                            "experts of layer %" PRIu32 ": gate is %s and up is %s, which need different activation "
                            "forms; expected types with the same block size",
                            a->expert_layer, sl_type_traits_of((int)a->gate_type)->name,
                            sl_type_traits_of((int)a->up_type)->name);
    }
    uint64_t n_pairs;
    if (!sl_checked_multiply(lowering->rows, a->n_used, &n_pairs) || n_pairs > SL_DIM_MAX) {
        return sl_error_set(lowering->error, SLUICE_ERROR_ARGUMENT,
                            "%" PRIu64 " rows with %" PRIu32 " experts each are too many for one program",
                            lowering->rows, a->n_used);
    }
    uint64_t width = lowering->lowered.values[op->inputs[0].index].shape.dims[1];
    SL_TRY(check_form(lowering, "experts (down)", a->down_type, a->n_ff));
    SL_TRY(quantise(lowering, &op->inputs[0], a->gate_type, i_op));
    op->n_outputs = SL_EXPERTS_PAIR_OUT + 1;
    SL_TRY(add_scratch(lowering, op, SL_EXPERTS_GATHERED, "experts.gathered", form, n_pairs, width));
    SL_TRY(add_scratch(lowering, op, SL_EXPERTS_GATE, "experts.gate", SL_TYPE_F32, n_pairs, a->n_ff));
    SL_TRY(add_scratch(lowering, op, SL_EXPERTS_UP, "experts.up", SL_TYPE_F32, n_pairs, a->n_ff));
    op->outputs[SL_EXPERTS_HIDDEN] = SL_NO_VALUE;
    if (hidden_form != SL_TYPE_F32) {
        SL_TRY(add_scratch(lowering, op, SL_EXPERTS_HIDDEN, "experts.hidden", hidden_form, n_pairs, a->n_ff));
    }
    return add_scratch(lowering, op, SL_EXPERTS_PAIR_OUT, "experts.pair_out", SL_TYPE_F32, n_pairs, width);
}

/* Where the rows of up lie until they meet those of gate, which land in the result. */
static sluice_status add_swiglu_scratch(lowering_state *lowering, sl_op *op)
{
    const sl_shape *shape = &lowering->lowered.values[op->outputs[0].index].shape;
    op->n_outputs = SL_SWIGLU_UP + 1;
    return add_scratch(lowering, op, SL_SWIGLU_UP, "swiglu.up", SL_TYPE_F32, shape->dims[0], shape->dims[1]);
}

static sluice_status lower_op(lowering_state *lowering, uint32_t i_op)
{
    sl_op op = lowering->graph->ops[i_op];
    if (op.kind == SL_OP_MATMUL || op.kind == SL_OP_MATMUL_SWIGLU) {
        SL_TRY(quantise(lowering, &op.inputs[0], lowering->lowered.values[op.inputs[1].index].type, i_op));
        if (op.kind == SL_OP_MATMUL_SWIGLU) {
            SL_TRY(add_swiglu_scratch(lowering, &op));
        }
    } else if (op.kind == SL_OP_EXPERTS) {
        SL_TRY(lower_experts(lowering, &op, i_op));
    }
    for (uint32_t i = 0; i < op.n_outputs; i++) {
        if (sl_op_rewrites(&op, i)) {
            memset(&lowering->forms[op.outputs[i].index], 0xff, sizeof(quantised_forms));
        }
    }
    return append_op(lowering, &op, i_op);
}

static sluice_status lower_graph(lowering_state *lowering)
{
    const sl_graph *graph = lowering->graph;
    for (uint32_t i = 0; i < graph->n_values; i++) {
        sl_value_info info = graph->values[i];
        if (info.shape.dims[0] == SL_DIM_ROWS) {
            info.shape.dims[0] = lowering->rows;
        }
        if (!sl_value_exists(sl_graph_append_value(&lowering->lowered, &info))) {
            return forward_graph_error(lowering);
        }
    }
    lowering->forms = sl_alloc(graph->memory, SL_MEMORY_OTHER, graph->n_values, sizeof *lowering->forms);
    if (lowering->forms == NULL) {
        return sl_error_no_memory(lowering->error, graph->n_values * sizeof *lowering->forms, "lowering a graph");
    }
    memset(lowering->forms, 0xff, graph->n_values * sizeof *lowering->forms);
    for (uint32_t i = 0; i < graph->n_ops; i++) {
        SL_TRY(lower_op(lowering, i));
    }
    return SLUICE_OK;
}

/* Rows, width and bytes of a value; kind and where it lies are the caller's. */
static sluice_status shape_place(const sl_value_info *info, sl_place *place, sluice_error *error)
{
    bool is_vector = info->kind == SL_VALUE_WEIGHT && info->shape.n_dims == 1;
    place->type = info->type;
    place->rows = is_vector ? 1 : info->shape.dims[0];
    place->width = is_vector ? info->shape.dims[0] : 1;
    bool fits = true;
    for (uint32_t i = 1; i < info->shape.n_dims; i++) {
        if (info->shape.dims[i] != SL_DIM_POSITIONS) {
            fits = fits && sl_checked_multiply(place->width, info->shape.dims[i], &place->width);
        }
    }
    place->row_bytes = sl_type_row_bytes(info->type, place->width);
    uint64_t bytes;
    if (fits && place->row_bytes != 0 && sl_checked_multiply(place->rows, place->row_bytes, &bytes)) {
        return SLUICE_OK;
    }
    char text[SL_SHAPE_TEXT_BYTES];
    return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                        "value '%s' is %s %s: its rows must be a whole number of blocks and its bytes countable",
                        info->name, sl_type_traits_of((int)info->type)->name, sl_shape_text(&info->shape, text));
}

static sluice_status bind_values(const lowering_state *lowering, sl_program *program, sl_place *places)
{
    uint32_t n_bindings = 0;
    uint32_t n_outputs = 0;
    for (uint32_t i = 0; i < lowering->graph->n_values; i++) {
        n_bindings += lowering->graph->values[i].kind != SL_VALUE_TEMPORARY;
        n_outputs += lowering->graph->values[i].is_output;
    }
    program->bindings = sl_alloc(program->memory, SL_MEMORY_OTHER, n_bindings, sizeof *program->bindings);
    program->outputs = sl_alloc(program->memory, SL_MEMORY_OTHER, n_outputs, sizeof *program->outputs);
    if (program->bindings == NULL || program->outputs == NULL) {
        return sl_error_no_memory(lowering->error, n_bindings * sizeof *program->bindings, "the bindings of a program");
    }
    for (uint32_t i = 0; i < lowering->graph->n_values; i++) {
        const sl_value_info *info = &lowering->lowered.values[i];
        if (info->kind == SL_VALUE_TEMPORARY) {
            continue;
        }
        places[i].kind = SL_PLACE_BINDING;
        places[i].binding = program->n_bindings;
        sl_binding *binding = &program->bindings[program->n_bindings++];
        *binding = (sl_binding){.value = {i}, .kind = info->kind};
        memcpy(binding->name, info->name, sizeof binding->name);
        SL_TRY(shape_place(info, &places[i], lowering->error));
        binding->place = places[i];
    }
    return SLUICE_OK;
}

/* Lifetimes, sizes and offsets of the temporaries. `intervals` and `colours` are scratch [lowered.n_values]. */
static sluice_status plan_buffers(const lowering_state *lowering, sl_program *program, sl_place *places,
                                  sl_interval *intervals, uint32_t *colours)
{
    uint32_t n_buffers = sl_graph_lifetimes(&lowering->lowered, intervals);
    program->buffers = sl_alloc(program->memory, SL_MEMORY_OTHER, n_buffers, sizeof *program->buffers);
    if (program->buffers == NULL ||
        !sl_intervals_colour(intervals, n_buffers, program->memory, colours, &program->n_colours)) {
        return sl_error_no_memory(lowering->error, n_buffers * sizeof *program->buffers, "the plan of an arena");
    }
    program->n_buffers = n_buffers;
    for (uint32_t i = 0; i < n_buffers; i++) {
        sl_place *place = &places[intervals[i].value];
        SL_TRY(shape_place(&lowering->lowered.values[intervals[i].value], place, lowering->error));
        program->buffers[i] = (sl_plan_buffer){.lifetime = intervals[i], .bytes = place->rows * place->row_bytes};
    }
    SL_TRY(sl_plan_arena(program->buffers, n_buffers, program->memory, &program->arena_bytes, lowering->error));
    for (uint32_t i = 0; i < n_buffers; i++) {
        const sl_plan_buffer *buffer = &program->buffers[i];
        places[buffer->lifetime.value].kind = SL_PLACE_ARENA;
        places[buffer->lifetime.value].offset = buffer->offset;
        /* The plan checked that the aligned sizes add up. */
        uint64_t aligned = 0;
        if (sl_checked_align(buffer->bytes, SL_ARENA_ALIGNMENT, &aligned)) {
            program->unshared_bytes += aligned;
        }
    }
    return SLUICE_OK;
}

/* Which operations nothing but hints depends on: those that would be dead without them. `needed` is scratch
 * [lowered.n_values]. */
static void mark_hints(const lowering_state *lowering, sl_program *program, bool *needed)
{
    const sl_graph *lowered = &lowering->lowered;
    for (uint32_t i = 0; i < lowered->n_values; i++) {
        needed[i] = lowered->values[i].is_output || lowered->values[i].kind == SL_VALUE_STATE;
    }
    for (uint32_t i = lowered->n_ops; i-- > 0;) {
        const sl_op *op = &lowered->ops[i];
        bool for_hint = true;
        for (uint32_t j = 0; j < op->n_outputs; j++) {
            for_hint = for_hint && !(sl_value_exists(op->outputs[j]) && needed[op->outputs[j].index]);
        }
        for (uint32_t j = 0; j < op->n_inputs && !for_hint; j++) {
            if (sl_value_exists(op->inputs[j])) {
                needed[op->inputs[j].index] = true;
            }
        }
        program->steps[i].for_hint = for_hint;
    }
}

static sluice_status write_steps(const lowering_state *lowering, sl_program *program, const sl_place *places)
{
    const sl_graph *lowered = &lowering->lowered;
    program->steps = sl_alloc(program->memory, SL_MEMORY_OTHER, lowered->n_ops, sizeof *program->steps);
    if (program->steps == NULL) {
        return sl_error_no_memory(lowering->error, lowered->n_ops * sizeof *program->steps, "the steps of a program");
    }
    program->n_steps = lowered->n_ops;
    for (uint32_t i = 0; i < lowered->n_ops; i++) {
        const sl_op *op = &lowered->ops[i];
        sl_step *step = &program->steps[i];
        step->kind = op->kind;
        step->op = lowering->origins[i];
        step->attributes = op->attributes;
        for (uint32_t j = 0; j < op->n_inputs; j++) {
            if (sl_value_exists(op->inputs[j])) {
                step->inputs[j] = places[op->inputs[j].index];
            }
        }
        for (uint32_t j = 0; j < op->n_outputs; j++) {
            if (sl_value_exists(op->outputs[j])) {
                step->outputs[j] = places[op->outputs[j].index];
            }
        }
    }
    for (uint32_t i = 0; i < lowering->graph->n_values; i++) {
        if (lowering->graph->values[i].is_output) {
            program->outputs[program->n_outputs++] = places[i];
        }
    }
    return SLUICE_OK;
}

static sluice_status emit(const lowering_state *lowering, sl_program *program)
{
    sl_memory *memory = program->memory;
    uint32_t n_values = lowering->lowered.n_values;
    sl_place *places = sl_alloc(memory, SL_MEMORY_OTHER, n_values, sizeof *places);          /* [n_values] */
    sl_interval *intervals = sl_alloc(memory, SL_MEMORY_OTHER, n_values, sizeof *intervals); /* [n_values] */
    uint32_t *colours = sl_alloc(memory, SL_MEMORY_OTHER, n_values, sizeof *colours);        /* [n_values] */
    bool *needed = sl_alloc(memory, SL_MEMORY_OTHER, n_values, sizeof *needed);              /* [n_values] */
    sluice_status status = SLUICE_OK;
    if (places == NULL || intervals == NULL || colours == NULL || needed == NULL) {
        status = sl_error_no_memory(lowering->error, n_values * sizeof *places, "lowering a graph");
    }
    if (status == SLUICE_OK) {
        status = bind_values(lowering, program, places);
    }
    if (status == SLUICE_OK) {
        status = plan_buffers(lowering, program, places, intervals, colours);
    }
    if (status == SLUICE_OK) {
        status = write_steps(lowering, program, places);
    }
    if (status == SLUICE_OK) {
        mark_hints(lowering, program, needed);
    }
    sl_free(memory, needed);
    sl_free(memory, colours);
    sl_free(memory, intervals);
    sl_free(memory, places);
    return status;
}

sluice_status sl_program_compile(sl_program **out, const sl_graph *graph, uint64_t rows, sl_memory *memory,
                                 sluice_error *error)
{
    *out = NULL;
    SL_TRY(sl_graph_verify(graph, error));
    if (rows == 0 || rows > SL_DIM_MAX) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "a program cannot be compiled for %" PRIu64 " rows: 1 to %" PRIu64 " are possible", rows,
                            SL_DIM_MAX);
    }
    sl_program *program = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizeof *program);
    if (program == NULL) {
        return sl_error_no_memory(error, sizeof *program, "a program");
    }
    program->memory = memory;
    program->rows = rows;
    lowering_state lowering = {.graph = graph, .rows = rows, .error = error};
    sl_graph_init(&lowering.lowered, memory);
    sluice_status status = lower_graph(&lowering);
    if (status == SLUICE_OK) {
        status = emit(&lowering, program);
    }
    sl_free(graph->memory, lowering.forms);
    sl_free(memory, lowering.origins);
    sl_graph_fini(&lowering.lowered);
    if (status != SLUICE_OK) {
        sl_program_free(&program);
        return status;
    }
    *out = program;
    return SLUICE_OK;
}

void sl_program_free(sl_program **program)
{
    if (*program == NULL) {
        return;
    }
    sl_memory *memory = (*program)->memory;
    sl_free(memory, (*program)->steps);
    sl_free(memory, (*program)->bindings);
    sl_free(memory, (*program)->outputs);
    sl_free(memory, (*program)->buffers);
    sl_free(memory, *program);
    *program = NULL;
}

uint32_t sl_program_find_binding(const sl_program *program, const char *name)
{
    for (uint32_t i = 0; i < program->n_bindings; i++) {
        if (strcmp(program->bindings[i].name, name) == 0) {
            return i;
        }
    }
    return UINT32_MAX;
}
