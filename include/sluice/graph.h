/* Build, compile and run graphs of tensor operations on the kernels of Sluice, without a model.
 *
 * A graph is described with no data, compiled once for a largest number of rows (its memory is planned then), and run
 * as often as wanted; a run allocates nothing. Values are float tensors [rows][width], weights are [out][in] of any
 * type the engine reads. The result of a row does not depend on the other rows, the number of threads or the
 * instruction set.
 *
 * Threads: a graph belongs to one thread while it is built; a compiled graph to one thread at a time. */
#ifndef SLUICE_GRAPH_H
#define SLUICE_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sluice/errors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sluice_graph sluice_graph;

/* A value of the graph that made it; meaningless in another. */
typedef struct sluice_tensor {
    uint32_t index;
} sluice_tensor;

/* NULL when memory is refused. */
SLUICE_API sluice_graph *sluice_graph_create(void);
SLUICE_API void sluice_graph_destroy(sluice_graph **graph);

/* Building never fails at once: the first error is kept, what follows it is ignored, and compiling reports it. */

/* A batch of rows [rows][width], given by name at each run. */
SLUICE_API sluice_tensor sluice_graph_input(sluice_graph *graph, const char *name, uint64_t width);
/* A weight matrix [n_out][n_in] of a type such as "F32" or "Q8_0", given once by name. */
SLUICE_API sluice_tensor sluice_graph_matrix(sluice_graph *graph, const char *name, const char *type, uint64_t n_out,
                                             uint64_t n_in);
/* A weight vector [n], F32. */
SLUICE_API sluice_tensor sluice_graph_vector(sluice_graph *graph, const char *name, uint64_t n);

/* y[r] = W x[r] */
SLUICE_API sluice_tensor sluice_graph_matmul(sluice_graph *graph, sluice_tensor x, sluice_tensor matrix);
/* a + b; b is a batch of the same width or a vector */
SLUICE_API sluice_tensor sluice_graph_add(sluice_graph *graph, sluice_tensor a, sluice_tensor b);
SLUICE_API sluice_tensor sluice_graph_multiply(sluice_graph *graph, sluice_tensor a, sluice_tensor b);
/* x / (1 + exp(-x)) */
SLUICE_API sluice_tensor sluice_graph_silu(sluice_graph *graph, sluice_tensor x);
/* GELU with the tanh approximation (Hendrycks and Gimpel, 2016) */
SLUICE_API sluice_tensor sluice_graph_gelu(sluice_graph *graph, sluice_tensor x);
SLUICE_API sluice_tensor sluice_graph_softmax(sluice_graph *graph, sluice_tensor x);
/* x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich, 2019) */
SLUICE_API sluice_tensor sluice_graph_rms_norm(sluice_graph *graph, sluice_tensor x, sluice_tensor weight,
                                               float epsilon);
/* Keep a value until the end of a run, as the next output. */
SLUICE_API void sluice_graph_output(sluice_graph *graph, sluice_tensor x);

/* What a graph needs at a number of rows; bytes. */
typedef struct sluice_graph_estimate {
    uint64_t activation_bytes; /* arena of the intermediate values */
    uint64_t weight_bytes;
    uint64_t input_bytes;
    uint64_t peak_bytes; /* their sum */
} sluice_graph_estimate;

/* Errors: ARGUMENT with the kept building error. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_graph_estimate_memory(const sluice_graph *graph, uint64_t rows,
                                                                       sluice_graph_estimate *estimate,
                                                                       sluice_error *error);
/* SLUICE_ERROR_BUDGET, with a sentence that names every part, when the estimate exceeds `budget_bytes`. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_graph_estimate_fits(const sluice_graph_estimate *estimate,
                                                                     uint64_t budget_bytes, sluice_error *error);

typedef struct sluice_compiled sluice_compiled;

typedef struct sluice_compile_options {
    uint64_t rows;        /* the most rows of a run, at least 1 */
    uint32_t n_threads;   /* 0: usable physical cores */
    const char *cpu_mask; /* NULL or "auto", "generic", "avx2", "avx512", "amx", "neon" */
} sluice_compile_options;

/* The graph is not changed and may be destroyed afterwards. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_graph_compile(const sluice_graph *graph,
                                                               const sluice_compile_options *options,
                                                               sluice_compiled **out, sluice_error *error);
SLUICE_API void sluice_compiled_destroy(sluice_compiled **compiled);

/* Copy a weight in. NOT_FOUND for an unknown name; ARGUMENT when `bytes` is not exactly the weight's size. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_compiled_set_weight(sluice_compiled *compiled, const char *name,
                                                                     const void *data, size_t bytes,
                                                                     sluice_error *error);

typedef struct sluice_graph_binding {
    const char *name;
    const float *data; /* borrowed during the run: [rows][width] */
} sluice_graph_binding;

/* Run `rows` rows. Every input must be bound exactly once and every weight set before. */
SLUICE_API SLUICE_NODISCARD sluice_status sluice_compiled_run(sluice_compiled *compiled, uint64_t rows,
                                                              const sluice_graph_binding *inputs, size_t n_inputs,
                                                              sluice_error *error);
/* Output `index` of the last run, [rows][*width], valid until the next run; NULL for an index out of range. */
SLUICE_API const float *sluice_compiled_output(const sluice_compiled *compiled, uint32_t index, uint64_t *width);

/* Allocations the compiled graph has made since it was compiled. */
SLUICE_API uint64_t sluice_compiled_n_allocations(const sluice_compiled *compiled);

#ifdef __cplusplus
}
#endif
#endif
