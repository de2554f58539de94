/* Owns graphs that callers build, and what they compile to: a program, its arena, its weights.
 *
 * Invariants: (1) a compiled graph holds copies of everything it needs, so graph and weight data may go away; (2) a run
 * that is not refused before it starts succeeds; (3) a run allocates nothing. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "exec/executor.h"
#include "os/cpu.h"
#include "sluice/graph.h"

struct sluice_graph {
    sl_memory memory;
    sl_graph graph; /* owned */
};

struct sluice_compiled {
    sl_memory memory;
    sl_kernel_table kernels;
    sl_workers *workers;   /* owned */
    sl_executor *executor; /* owned */
    sl_program *program;   /* owned */
    void *arena;           /* owned */
    void **bindings;       /* owned; [n_bindings]: weights owned, inputs borrowed during a run */
    uint32_t rows;         /* of the last run */
};

sluice_graph *sluice_graph_create(void)
{
    sluice_graph *graph = calloc(1, sizeof *graph);
    if (graph != NULL) {
        sl_memory_init(&graph->memory, NULL);
        sl_graph_init(&graph->graph, &graph->memory);
    }
    return graph;
}

void sluice_graph_destroy(sluice_graph **graph)
{
    if (*graph != NULL) {
        sl_graph_fini(&(*graph)->graph);
        free(*graph);
        *graph = NULL;
    }
}

static sluice_tensor tensor_of(sl_value value)
{
    return (sluice_tensor){.index = value.index};
}

static sluice_tensor append(sluice_graph *graph, sl_op_kind kind, const sluice_tensor *inputs, uint32_t n_inputs,
                            float epsilon)
{
    sl_value values[SL_OP_MAX_INPUTS];
    for (uint32_t i = 0; i < n_inputs; i++) {
        values[i] = (sl_value){inputs[i].index};
    }
    sl_op_attributes attributes = {.epsilon = epsilon};
    return tensor_of(sl_graph_op(&graph->graph, kind, values, n_inputs, &attributes, NULL));
}

sluice_tensor sluice_graph_input(sluice_graph *graph, const char *name, uint64_t width)
{
    return tensor_of(sl_graph_input(&graph->graph, name, SL_TYPE_F32, sl_shape_of_2(SL_DIM_ROWS, width)));
}

sluice_tensor sluice_graph_matrix(sluice_graph *graph, const char *name, const char *type, uint64_t n_out,
                                  uint64_t n_in)
{
    sl_type parsed;
    if (!sl_type_parse(type, &parsed)) {
        if (graph->graph.error.status == SLUICE_OK) {
            (void)sl_error_set(&graph->graph.error, SLUICE_ERROR_ARGUMENT, "weight %s: unknown type '%s'", name, type);
        }
        return tensor_of(SL_NO_VALUE);
    }
    return tensor_of(sl_graph_weight(&graph->graph, name, parsed, sl_shape_of_2(n_out, n_in)));
}

sluice_tensor sluice_graph_vector(sluice_graph *graph, const char *name, uint64_t n)
{
    return tensor_of(sl_graph_weight(&graph->graph, name, SL_TYPE_F32, sl_shape_of_1(n)));
}

sluice_tensor sluice_graph_matmul(sluice_graph *graph, sluice_tensor x, sluice_tensor matrix)
{
    sluice_tensor inputs[] = {x, matrix, tensor_of(SL_NO_VALUE)};
    return append(graph, SL_OP_MATMUL, inputs, 3, 0.0f);
}

sluice_tensor sluice_graph_add(sluice_graph *graph, sluice_tensor a, sluice_tensor b)
{
    return append(graph, SL_OP_ADD, (sluice_tensor[]){a, b}, 2, 0.0f);
}

sluice_tensor sluice_graph_multiply(sluice_graph *graph, sluice_tensor a, sluice_tensor b)
{
    return append(graph, SL_OP_MULTIPLY, (sluice_tensor[]){a, b}, 2, 0.0f);
}

sluice_tensor sluice_graph_silu(sluice_graph *graph, sluice_tensor x)
{
    return append(graph, SL_OP_SILU, &x, 1, 0.0f);
}

sluice_tensor sluice_graph_gelu(sluice_graph *graph, sluice_tensor x)
{
    return append(graph, SL_OP_GELU, &x, 1, 0.0f);
}

sluice_tensor sluice_graph_softmax(sluice_graph *graph, sluice_tensor x)
{
    return append(graph, SL_OP_SOFTMAX, &x, 1, 0.0f);
}

sluice_tensor sluice_graph_rms_norm(sluice_graph *graph, sluice_tensor x, sluice_tensor weight, float epsilon)
{
    return append(graph, SL_OP_RMS_NORM, (sluice_tensor[]){x, weight}, 2, epsilon);
}

void sluice_graph_output(sluice_graph *graph, sluice_tensor x)
{
    sl_graph_mark_output(&graph->graph, (sl_value){x.index});
}

/* Verify, fuse and lower a copy of the caller's graph. */
static sluice_status lower(const sluice_graph *graph, uint64_t rows, sl_memory *memory, sl_program **program,
                           sluice_error *error)
{
    if (rows == 0 || rows > UINT32_MAX) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%" PRIu64 " rows: expected 1 to %u", rows, UINT32_MAX);
    }
    SL_TRY(sl_graph_verify(&graph->graph, error));
    sl_graph copy;
    sl_graph_init(&copy, memory);
    sluice_status status = sl_graph_copy(&copy, &graph->graph, error);
    if (status == SLUICE_OK) {
        status = sl_graph_fuse(&copy, error);
    }
    if (status == SLUICE_OK) {
        status = sl_graph_drop_dead(&copy, error);
    }
    if (status == SLUICE_OK) {
        status = sl_program_compile(program, &copy, rows, memory, error);
    }
    sl_graph_fini(&copy);
    return status;
}

sluice_status sluice_graph_estimate_memory(const sluice_graph *graph, uint64_t rows, sluice_graph_estimate *estimate,
                                           sluice_error *error)
{
    *estimate = (sluice_graph_estimate){0};
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_program *program = NULL;
    SL_TRY(lower(graph, rows, &memory, &program, error));
    estimate->activation_bytes = program->arena_bytes;
    for (uint32_t i = 0; i < program->n_bindings; i++) {
        const sl_place *place = &program->bindings[i].place;
        uint64_t *sum = program->bindings[i].kind == SL_VALUE_WEIGHT ? &estimate->weight_bytes : &estimate->input_bytes;
        *sum += place->rows * place->row_bytes;
    }
    estimate->peak_bytes = estimate->activation_bytes + estimate->weight_bytes + estimate->input_bytes;
    sl_program_free(&program);
    return SLUICE_OK;
}

sluice_status sluice_graph_estimate_fits(const sluice_graph_estimate *estimate, uint64_t budget_bytes,
                                         sluice_error *error)
{
    if (estimate->peak_bytes <= budget_bytes) {
        return SLUICE_OK;
    }
    return sl_error_set(error, SLUICE_ERROR_BUDGET,
                        "the estimated peak of %" PRIu64 " bytes exceeds the budget of %" PRIu64 " by %" PRIu64
                        " (activations %" PRIu64 ", weights %" PRIu64 ", inputs %" PRIu64 ")",
                        estimate->peak_bytes, budget_bytes, estimate->peak_bytes - budget_bytes,
                        estimate->activation_bytes, estimate->weight_bytes, estimate->input_bytes);
}

static sluice_status allocate_weights(sluice_compiled *compiled, sluice_error *error)
{
    const sl_program *program = compiled->program;
    compiled->bindings = sl_alloc(&compiled->memory, SL_MEMORY_OTHER, program->n_bindings, sizeof *compiled->bindings);
    compiled->arena =
        sl_alloc_aligned(&compiled->memory, SL_MEMORY_ACTIVATIONS, program->arena_bytes, SL_ARENA_ALIGNMENT);
    if (compiled->bindings == NULL || compiled->arena == NULL) {
        return sl_error_no_memory(error, program->arena_bytes, "a compiled graph");
    }
    return SLUICE_OK;
}

static sluice_status compile(const sluice_graph *graph, const sluice_compile_options *options,
                             sluice_compiled *compiled, sluice_error *error)
{
    sl_isa isa = SL_ISA_GENERIC;
    if (!sl_isa_parse(options->cpu_mask != NULL ? options->cpu_mask : "auto", &isa) || isa > sl_cpu_best_isa()) {
        return sl_error_set(
            error, SLUICE_ERROR_ARGUMENT,
            "CPU mask '%s': expected auto, or one of generic, avx2, avx512, amx, neon that this processor has",
            options->cpu_mask);
    }
    sl_kernel_table_init(&compiled->kernels, isa);
    SL_TRY(lower(graph, options->rows, &compiled->memory, &compiled->program, error));
    SL_TRY(allocate_weights(compiled, error));
    uint32_t n_threads = options->n_threads > 0 ? options->n_threads : sl_cpu_usable_cores();
    SL_TRY(sl_workers_open(&compiled->workers, n_threads, &compiled->memory, error));
    sl_executor_config config = {.kernels = &compiled->kernels,
                                 .workers = compiled->workers,
                                 .memory = &compiled->memory,
                                 .limits = {.max_rows = (uint32_t)options->rows}};
    return sl_executor_open(&compiled->executor, &config, error);
}

sluice_status sluice_graph_compile(const sluice_graph *graph, const sluice_compile_options *options,
                                   sluice_compiled **out, sluice_error *error)
{
    *out = NULL;
    sluice_compiled *compiled = calloc(1, sizeof *compiled);
    if (compiled == NULL) {
        return sl_error_no_memory(error, sizeof *compiled, "a compiled graph");
    }
    sl_memory_init(&compiled->memory, NULL);
    sluice_status status = compile(graph, options, compiled, error);
    if (status != SLUICE_OK) {
        sluice_compiled_destroy(&compiled);
        return status;
    }
    *out = compiled;
    return SLUICE_OK;
}

void sluice_compiled_destroy(sluice_compiled **compiled)
{
    sluice_compiled *closing = *compiled;
    if (closing == NULL) {
        return;
    }
    sl_executor_close(&closing->executor);
    sl_workers_close(&closing->workers);
    for (uint32_t i = 0; closing->bindings != NULL && i < closing->program->n_bindings; i++) {
        if (closing->program->bindings[i].kind == SL_VALUE_WEIGHT) {
            sl_free(&closing->memory, closing->bindings[i]);
        }
    }
    sl_free(&closing->memory, closing->bindings);
    sl_free(&closing->memory, closing->arena);
    sl_program_free(&closing->program);
    free(closing);
    *compiled = NULL;
}

sluice_status sluice_compiled_set_weight(sluice_compiled *compiled, const char *name, const void *data, size_t bytes,
                                         sluice_error *error)
{
    uint32_t index = sl_program_find_binding(compiled->program, name);
    if (index == UINT32_MAX || compiled->program->bindings[index].kind != SL_VALUE_WEIGHT) {
        return sl_error_set(error, SLUICE_ERROR_NOT_FOUND, "the graph has no weight named '%s'", name);
    }
    const sl_place *place = &compiled->program->bindings[index].place;
    uint64_t expected = place->rows * place->row_bytes;
    if (bytes != expected) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "weight '%s' takes %" PRIu64 " bytes, not %zu", name,
                            expected, bytes);
    }
    if (compiled->bindings[index] == NULL) {
        compiled->bindings[index] = sl_alloc_aligned(&compiled->memory, SL_MEMORY_WEIGHTS, bytes, 64);
        if (compiled->bindings[index] == NULL) {
            return sl_error_no_memory(error, bytes, "a weight");
        }
    }
    memcpy(compiled->bindings[index], data, bytes);
    return SLUICE_OK;
}

static sluice_status bind_inputs(sluice_compiled *compiled, const sluice_graph_binding *inputs, size_t n_inputs,
                                 sluice_error *error)
{
    const sl_program *program = compiled->program;
    for (uint32_t i = 0; i < program->n_bindings; i++) {
        if (program->bindings[i].kind == SL_VALUE_INPUT) {
            compiled->bindings[i] = NULL;
        }
    }
    for (size_t i = 0; i < n_inputs; i++) {
        uint32_t index = sl_program_find_binding(program, inputs[i].name);
        if (index == UINT32_MAX || program->bindings[index].kind != SL_VALUE_INPUT) {
            return sl_error_set(error, SLUICE_ERROR_NOT_FOUND, "the graph has no input named '%s'", inputs[i].name);
        }
        if (compiled->bindings[index] != NULL || inputs[i].data == NULL) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "input '%s' must be bound once, to data", inputs[i].name);
        }
        compiled->bindings[index] = (void *)inputs[i].data;
    }
    for (uint32_t i = 0; i < program->n_bindings; i++) {
        if (compiled->bindings[i] == NULL) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "'%s' was not given before the run",
                                program->bindings[i].name);
        }
    }
    return SLUICE_OK;
}

sluice_status sluice_compiled_run(sluice_compiled *compiled, uint64_t rows, const sluice_graph_binding *inputs,
                                  size_t n_inputs, sluice_error *error)
{
    if (rows == 0 || rows > compiled->program->rows) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%" PRIu64 " rows: compiled for 1 to %" PRIu64, rows,
                            compiled->program->rows);
    }
    SL_TRY(bind_inputs(compiled, inputs, n_inputs, error));
    compiled->rows = (uint32_t)rows;
    sl_run run = {
        .program = compiled->program, .bindings = compiled->bindings, .arena = compiled->arena, .rows = compiled->rows};
    return sl_executor_run(compiled->executor, &run, error);
}

const float *sluice_compiled_output(const sluice_compiled *compiled, uint32_t index, uint64_t *width)
{
    if (index >= compiled->program->n_outputs || compiled->rows == 0) {
        return NULL;
    }
    const sl_place *place = &compiled->program->outputs[index];
    *width = place->width;
    return (const float *)((const char *)compiled->arena + place->offset);
}

uint64_t sluice_compiled_n_allocations(const sluice_compiled *compiled)
{
    return atomic_load_explicit(&compiled->memory.n_allocations, memory_order_relaxed);
}
