/* Owns nothing between calls: reads a model tensor by tensor, re-encodes what should change, and writes a new file that
 * appears under its name only when complete.
 *
 * Invariants
 *  (1) Memory stays at one slice of rows, whatever the size of a tensor.
 *  (2) The output depends on the input and the options alone: rows are encoded one by one, so threads change nothing.
 *  (3) Vectors, routers and tensors that are not weights of the model's matrices keep F32. */
#include <fnmatch.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "exec/workers.h"
#include "gguf/writer.h"
#include "os/cpu.h"
#include "quant/traits.h"
#include "sluice/sluice.h"

enum { SLICE_BYTES = 8 << 20 };

typedef struct quantizer {
    sl_memory memory;
    sl_gguf *input;         /* owned */
    sl_gguf_writer *output; /* owned */
    sl_workers *workers;    /* owned */
    const sluice_quantize_options *options;
    sluice_quantize_result *result;
    sl_type target;
    sl_type *types;         /* owned; [n_tensors]: chosen */
    unsigned char *source;  /* owned; a slice of input rows */
    float *decoded;         /* owned; the same rows as floats */
    unsigned char *encoded; /* owned; the same rows re-encoded */
    uint64_t done_bytes;
} quantizer;

/* The type that a row of `n_elements` takes when it is no multiple of `wanted`'s block: 32 wide, at least as precise.
 */
static sl_type fitting_type(sl_type wanted, uint64_t n_elements)
{
    static const sl_type substitutes[SL_TYPE_FILE_COUNT] = {
        [SL_TYPE_Q2_K] = SL_TYPE_Q4_0, [SL_TYPE_Q3_K] = SL_TYPE_Q4_0, [SL_TYPE_Q4_K] = SL_TYPE_Q5_0,
        [SL_TYPE_Q5_K] = SL_TYPE_Q5_1, [SL_TYPE_Q6_K] = SL_TYPE_Q8_0, [SL_TYPE_IQ4_XS] = SL_TYPE_IQ4_NL,
    };
    if (sl_type_row_bytes(wanted, n_elements) > 0) {
        return wanted;
    }
    sl_type substitute = substitutes[wanted];
    return substitute != SL_TYPE_F32 && sl_type_row_bytes(substitute, n_elements) > 0 ? substitute : SL_TYPE_F16;
}

static sluice_status parse_type(const char *name, sl_type *type, sluice_error *error)
{
    if (!sl_type_parse(name, type) || sl_type_traits_of((int)*type)->encode_row == NULL) {
        return sl_error_set(
            error, SLUICE_ERROR_ARGUMENT,
            "cannot write tensors of type '%s': expected F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, "
            "Q5_K, Q6_K, IQ4_NL or MXFP4",
            name);
    }
    return SLUICE_OK;
}

/* The type of the first override whose pattern matches; false when none does. */
static sluice_status overridden_type(const quantizer *self, const char *name, bool *found, sl_type *type,
                                     sluice_error *error)
{
    *found = false;
    for (size_t i = 0; i < self->options->n_overrides; i++) {
        const char *rule = self->options->overrides[i];
        const char *equals = strrchr(rule, '=');
        char pattern[256];
        if (equals == NULL || equals == rule || (size_t)(equals - rule) >= sizeof pattern) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "override '%s': expected PATTERN=TYPE, as in '*ffn_down*=Q5_0'", rule);
        }
        memcpy(pattern, rule, (size_t)(equals - rule));
        pattern[equals - rule] = '\0';
        sl_type parsed;
        SL_TRY(parse_type(equals + 1, &parsed, error));
        if (!*found && fnmatch(pattern, name, 0) == 0) {
            *found = true;
            *type = parsed;
        }
    }
    return SLUICE_OK;
}

static bool is_matrix(const sl_gguf_tensor *tensor, const char *name)
{
    return tensor->n_dims >= 2 && tensor->dims[1] > 1 && strstr(name, "ffn_gate_inp") == NULL &&
           strstr(name, "_norm") == NULL && strlen(name) > 7 && strcmp(name + strlen(name) - 7, ".weight") == 0;
}

static sluice_status choose_type(quantizer *self, uint64_t index, sluice_error *error)
{
    const sl_gguf_tensor *tensor = &self->input->tensors[index];
    char name[SL_GGUF_MAX_NAME_BYTES + 1];
    snprintf(name, sizeof name, "%.*s", (int)tensor->name.length, tensor->name.data);
    bool is_overridden = false;
    sl_type wanted = self->target;
    SL_TRY(overridden_type(self, name, &is_overridden, &wanted, error));
    if (tensor->n_dims < 2 || (!is_overridden && !is_matrix(tensor, name))) {
        self->types[index] = tensor->type;
        return SLUICE_OK;
    }
    const sl_type_traits *traits = sl_type_traits_of((int)tensor->type);
    if (traits->decode_row == NULL && wanted != tensor->type) {
        return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED, "%s: tensors of type %s cannot be decoded yet", name,
                            traits->name);
    }
    self->types[index] = fitting_type(wanted, tensor->dims[0]);
    self->result->n_fallback += self->types[index] != wanted;
    self->result->n_converted += self->types[index] != tensor->type;
    return SLUICE_OK;
}

static sluice_status describe(quantizer *self, sluice_error *error)
{
    const sl_gguf *input = self->input;
    for (uint64_t i = 0; i < input->n_values; i++) {
        sl_span key = input->values[i].key;
        bool is_split = key.length >= 6 && memcmp(key.data, "split.", 6) == 0;
        if (!is_split && !sl_span_equal_text(key, "general.file_type") &&
            !sl_span_equal_text(key, "general.alignment") && !sl_span_equal_text(key, "general.quantized_by")) {
            SL_TRY(sl_gguf_writer_add_value(self->output, &input->values[i], error));
        }
    }
    self->types = sl_alloc(&self->memory, SL_MEMORY_OTHER, input->n_tensors, sizeof *self->types);
    if (self->types == NULL) {
        return sl_error_no_memory(error, input->n_tensors * sizeof *self->types, "tensor types");
    }
    for (uint64_t i = 0; i < input->n_tensors; i++) {
        SL_TRY(choose_type(self, i, error));
        sl_gguf_tensor tensor = input->tensors[i];
        tensor.type = self->types[i];
        SL_TRY(sl_gguf_writer_add_tensor(self->output, &tensor, error));
        self->result->input_bytes += tensor.bytes;
    }
    self->result->n_tensors = input->n_tensors;
    return SLUICE_OK;
}

typedef struct slice {
    const quantizer *self;
    sl_type from, to;
    uint64_t n_rows, n_columns;
    atomic_bool not_finite; /* set by the worker that finds such a value */
} slice;

static void convert_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    slice *work = argument;
    uint32_t begin = 0;
    uint32_t end = 0;
    sl_workers_share((uint32_t)work->n_rows, 1, worker, n_workers, &begin, &end);
    uint64_t from_bytes = sl_type_row_bytes(work->from, work->n_columns);
    uint64_t to_bytes = sl_type_row_bytes(work->to, work->n_columns);
    for (uint64_t row = begin; row < end; row++) {
        float *decoded = work->self->decoded + row * work->n_columns;
        sl_type_traits_of((int)work->from)->decode_row(work->self->source + row * from_bytes, decoded, work->n_columns);
        for (uint64_t i = 0; i < work->n_columns; i++) {
            if (!isfinite(decoded[i])) {
                atomic_store_explicit(&work->not_finite, true, memory_order_relaxed);
                return;
            }
        }
        sl_type_traits_of((int)work->to)->encode_row(decoded, work->self->encoded + row * to_bytes, work->n_columns);
    }
}

static sluice_status report(quantizer *self, const sl_gguf_tensor *tensor, sluice_error *error)
{
    char name[SL_GGUF_MAX_NAME_BYTES + 1];
    snprintf(name, sizeof name, "%.*s", (int)tensor->name.length, tensor->name.data);
    if (self->options->progress != NULL &&
        !self->options->progress(self->options->user, self->done_bytes, self->result->input_bytes, name)) {
        return sl_error_set(error, SLUICE_ERROR_CANCELLED, "quantising was cancelled at tensor %s", name);
    }
    return SLUICE_OK;
}

/* A tensor that keeps its type goes through byte by byte. */
static sluice_status copy_tensor(quantizer *self, const sl_gguf_tensor *tensor, sluice_error *error)
{
    const sl_gguf_file *file = &self->input->files[tensor->file];
    for (uint64_t done = 0; done < tensor->bytes;) {
        uint64_t length = tensor->bytes - done < SLICE_BYTES ? tensor->bytes - done : SLICE_BYTES;
        SL_TRY(sl_file_read(&file->file, file->path, self->source, length, tensor->offset + done, error));
        SL_TRY(sl_gguf_writer_write(self->output, self->source, length, error));
        done += length;
        self->done_bytes += length;
        SL_TRY(report(self, tensor, error));
    }
    return SLUICE_OK;
}

static sluice_status convert_tensor(quantizer *self, const sl_gguf_tensor *tensor, sl_type to, sluice_error *error)
{
    const sl_gguf_file *file = &self->input->files[tensor->file];
    uint64_t n_columns = tensor->dims[0];
    uint64_t from_bytes = sl_type_row_bytes(tensor->type, n_columns);
    uint64_t n_rows = tensor->bytes / from_bytes;
    uint64_t rows_at_once = SLICE_BYTES / (n_columns * sizeof(float));
    if (rows_at_once == 0) {
        return sl_error_set(
            error, SLUICE_ERROR_UNSUPPORTED, "%.*s: rows of %llu elements are longer than the %d expected",
            SL_SPAN_ARGUMENTS(tensor->name), (unsigned long long)n_columns, SLICE_BYTES / (int)sizeof(float));
    }
    for (uint64_t done = 0; done < n_rows;) {
        slice work = {.self = self,
                      .from = tensor->type,
                      .to = to,
                      .n_rows = n_rows - done < rows_at_once ? n_rows - done : rows_at_once,
                      .n_columns = n_columns};
        SL_TRY(sl_file_read(&file->file, file->path, self->source, work.n_rows * from_bytes,
                            tensor->offset + done * from_bytes, error));
        sl_workers_run(self->workers, convert_task, &work);
        if (atomic_load_explicit(&work.not_finite, memory_order_relaxed)) {
            return sl_error_set(
                error, SLUICE_ERROR_FORMAT,
                "%s: tensor %.*s holds values that are not finite numbers; check the file against its source",
                file->path, SL_SPAN_ARGUMENTS(tensor->name));
        }
        SL_TRY(
            sl_gguf_writer_write(self->output, self->encoded, work.n_rows * sl_type_row_bytes(to, n_columns), error));
        done += work.n_rows;
        self->done_bytes += work.n_rows * from_bytes;
        SL_TRY(report(self, tensor, error));
    }
    return SLUICE_OK;
}

/* The source of a lossy copy is not to be lost to it. */
static sluice_status check_output(const quantizer *self, const char *output_path, sluice_error *error)
{
    for (uint32_t i_file = 0; i_file < self->input->n_files; i_file++) {
        if (sl_file_is_at(&self->input->files[i_file].file, output_path)) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "%s: the output would replace the file it is made from; name another file",
                                output_path);
        }
    }
    return SLUICE_OK;
}

static sluice_status quantize(quantizer *self, const char *input_path, const char *output_path, sluice_error *error)
{
    SL_TRY(parse_type(self->options->type, &self->target, error));
    SL_TRY(sl_gguf_open(&self->input, input_path, &self->memory, NULL, error));
    SL_TRY(check_output(self, output_path, error));
    SL_TRY(sl_gguf_writer_open(&self->output, output_path, &self->memory, error));
    uint32_t n_threads = self->options->n_threads > 0 ? self->options->n_threads : sl_cpu_usable_cores();
    SL_TRY(sl_workers_open(&self->workers, n_threads, &self->memory, error));
    SL_TRY(describe(self, error));
    self->source = sl_alloc_aligned(&self->memory, SL_MEMORY_IO, SLICE_BYTES, 4096);
    self->decoded = sl_alloc_aligned(&self->memory, SL_MEMORY_IO, SLICE_BYTES, 4096);
    self->encoded = sl_alloc_aligned(&self->memory, SL_MEMORY_IO, SLICE_BYTES, 4096);
    if (self->source == NULL || self->decoded == NULL || self->encoded == NULL) {
        return sl_error_no_memory(error, 3ull * SLICE_BYTES, "slices of tensors");
    }
    for (uint64_t i = 0; i < self->input->n_tensors; i++) {
        const sl_gguf_tensor *tensor = &self->input->tensors[i];
        SL_TRY(tensor->type == self->types[i] ? copy_tensor(self, tensor, error)
                                              : convert_tensor(self, tensor, self->types[i], error));
        self->result->output_bytes +=
            sl_type_row_bytes(self->types[i], tensor->dims[0]) * (tensor->dims[1] * tensor->dims[2] * tensor->dims[3]);
    }
    return sl_gguf_writer_commit(self->output, error);
}

sluice_status sluice_quantize(const char *input_path, const char *output_path, const sluice_quantize_options *options,
                              sluice_quantize_result *result, sluice_error *error)
{
    *result = (sluice_quantize_result){0};
    quantizer self = {.options = options, .result = result};
    sl_memory_init(&self.memory, NULL);
    sluice_status status = quantize(&self, input_path, output_path, error);
    sl_gguf_writer_close(&self.output);
    sl_gguf_close(&self.input);
    sl_workers_close(&self.workers);
    void *owned[] = {self.types, self.source, self.decoded, self.encoded};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        sl_free(&self.memory, owned[i]);
    }
    return status;
}
