/* Owns an open GGUF file for people and tools that want to look inside. Immutable after open. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/model.h"
#include "sluice/sluice.h"

struct sluice_file {
    sl_memory memory;
    sl_gguf *gguf;   /* owned */
    sl_model *model; /* owned; NULL when no supported family was recognised */
    char **names;    /* owned; [n_values + n_tensors + 1] NUL-terminated keys, tensor names, architecture */
    sluice_error unsupported;
};

static char *terminated(sl_memory *memory, sl_span span)
{
    char *text = sl_alloc(memory, SL_MEMORY_OTHER, span.length + 1, 1);
    if (text != NULL && span.length > 0) {
        memcpy(text, span.data, span.length);
    }
    return text;
}

static sluice_status copy_names(sluice_file *file, sluice_error *error)
{
    const sl_gguf *gguf = file->gguf;
    file->names = sl_alloc(&file->memory, SL_MEMORY_OTHER, gguf->n_values + gguf->n_tensors + 1, sizeof *file->names);
    bool complete = file->names != NULL;
    for (uint64_t i = 0; i < gguf->n_values && complete; i++) {
        file->names[i] = terminated(&file->memory, gguf->values[i].key);
        complete = file->names[i] != NULL;
    }
    for (uint64_t i = 0; i < gguf->n_tensors && complete; i++) {
        file->names[gguf->n_values + i] = terminated(&file->memory, gguf->tensors[i].name);
        complete = file->names[gguf->n_values + i] != NULL;
    }
    if (complete) {
        sl_span architecture = {.data = "", .length = 0};
        if (sl_gguf_get_string(gguf, "general.architecture", &architecture, NULL) != SLUICE_OK) {
            architecture.length = 0;
        }
        file->names[gguf->n_values + gguf->n_tensors] = terminated(&file->memory, architecture);
        complete = file->names[gguf->n_values + gguf->n_tensors] != NULL;
    }
    return complete ? SLUICE_OK : sl_error_no_memory(error, gguf->n_values + gguf->n_tensors, "names");
}

sluice_status sluice_file_open(sluice_file **out, const char *path, sluice_error *error)
{
    *out = NULL;
    sluice_file *file = calloc(1, sizeof *file);
    if (file == NULL) {
        return sl_error_no_memory(error, sizeof *file, "a file");
    }
    sl_memory_init(&file->memory, NULL);
    sluice_status status = sl_gguf_open(&file->gguf, path, &file->memory, NULL, error);
    if (status == SLUICE_OK) {
        status = copy_names(file, error);
    }
    if (status == SLUICE_OK) {
        /* A file of an unknown family can still be looked at. */
        sluice_status recognised = sl_model_open(&file->model, file->gguf, &file->memory, &file->unsupported);
        status = recognised == SLUICE_ERROR_NO_MEMORY ? sl_error_no_memory(error, 0, "the model's tensors") : SLUICE_OK;
    }
    if (status != SLUICE_OK) {
        sluice_file_close(&file);
        return status;
    }
    *out = file;
    return SLUICE_OK;
}

void sluice_file_close(sluice_file **file)
{
    sluice_file *closing = *file;
    if (closing == NULL) {
        return;
    }
    sl_model_close(&closing->model);
    if (closing->names != NULL) {
        for (uint64_t i = 0; i < closing->gguf->n_values + closing->gguf->n_tensors + 1; i++) {
            sl_free(&closing->memory, closing->names[i]);
        }
        sl_free(&closing->memory, closing->names);
    }
    sl_gguf_close(&closing->gguf);
    free(closing);
    *file = NULL;
}

static uint64_t expert_bytes_of(const sl_expert_layer *layer)
{
    uint64_t bytes = 0;
    for (uint32_t m = 0; m < SL_EXPERT_MATRICES; m++) {
        bytes += layer->matrices[m].bytes;
    }
    return bytes;
}

void sluice_file_summarize(const sluice_file *file, sluice_file_summary *summary)
{
    const sl_gguf *gguf = file->gguf;
    *summary = (sluice_file_summary){.version = gguf->version,
                                     .n_files = gguf->n_files,
                                     .alignment = gguf->alignment,
                                     .n_values = gguf->n_values,
                                     .n_tensors = gguf->n_tensors,
                                     .architecture = file->names[gguf->n_values + gguf->n_tensors],
                                     .supported = file->model != NULL,
                                     .unsupported = file->model != NULL ? "" : file->unsupported.message};
    for (uint32_t i = 0; i < gguf->n_files; i++) {
        summary->file_bytes += gguf->files[i].file.identity.bytes;
    }
    if (file->model == NULL) {
        return;
    }
    const sl_model *model = file->model;
    summary->n_layers = model->hyper.n_layers;
    summary->n_expert_layers = model->n_expert_layers;
    summary->n_experts = model->hyper.n_experts;
    summary->n_experts_used = model->hyper.n_experts_used;
    for (uint32_t i = 0; i < model->n_dense; i++) {
        summary->dense_bytes += model->dense[i]->bytes;
    }
    for (uint32_t i = 0; i < model->n_expert_layers; i++) {
        uint64_t bytes = expert_bytes_of(&model->expert_layers[i]);
        summary->expert_bytes += bytes * model->hyper.n_experts;
        summary->max_expert_bytes = bytes > summary->max_expert_bytes ? bytes : summary->max_expert_bytes;
    }
}

const char *sluice_file_path(const sluice_file *file, uint32_t index)
{
    return index < file->gguf->n_files ? file->gguf->files[index].path : NULL;
}

/* Scalars and arrays of each element type. */
static const char *const type_names[2][SL_GGUF_TYPE_COUNT] = {
    {[SL_GGUF_U8] = "u8",
     [SL_GGUF_I8] = "i8",
     [SL_GGUF_U16] = "u16",
     [SL_GGUF_I16] = "i16",
     [SL_GGUF_U32] = "u32",
     [SL_GGUF_I32] = "i32",
     [SL_GGUF_F32] = "f32",
     [SL_GGUF_BOOL] = "bool",
     [SL_GGUF_STRING] = "string",
     [SL_GGUF_ARRAY] = "array",
     [SL_GGUF_U64] = "u64",
     [SL_GGUF_I64] = "i64",
     [SL_GGUF_F64] = "f64"},
    {[SL_GGUF_U8] = "array of u8",
     [SL_GGUF_I8] = "array of i8",
     [SL_GGUF_U16] = "array of u16",
     [SL_GGUF_I16] = "array of i16",
     [SL_GGUF_U32] = "array of u32",
     [SL_GGUF_I32] = "array of i32",
     [SL_GGUF_F32] = "array of f32",
     [SL_GGUF_BOOL] = "array of bool",
     [SL_GGUF_STRING] = "array of string",
     [SL_GGUF_ARRAY] = "array",
     [SL_GGUF_U64] = "array of u64",
     [SL_GGUF_I64] = "array of i64",
     [SL_GGUF_F64] = "array of f64"},
};

bool sluice_file_value_at(const sluice_file *file, uint64_t index, sluice_file_value *value)
{
    if (index >= file->gguf->n_values) {
        return false;
    }
    const sl_gguf_value *found = &file->gguf->values[index];
    *value = (sluice_file_value){.key = file->names[index],
                                 .type = type_names[found->type == SL_GGUF_ARRAY][found->element_type],
                                 .count = found->count};
    return true;
}

/* A text that stops growing when the buffer is full. */
typedef struct bounded {
    char *data;
    size_t length, capacity;
} bounded;

static void put(bounded *out, const char *text)
{
    for (; *text != '\0' && out->length + 1 < out->capacity; text++) {
        out->data[out->length++] = *text;
    }
}

static void put_string(bounded *out, sl_span string)
{
    for (size_t i = 0; i < string.length && out->length + 1 < out->capacity; i++) {
        unsigned char byte = (unsigned char)string.data[i];
        char escaped[8];
        if (byte == '\n' || byte == '\t' || byte == '\r') {
            snprintf(escaped, sizeof escaped, "\\%c", byte == '\n' ? 'n' : byte == '\t' ? 't' : 'r');
        } else if (byte < 0x20 || byte == 0x7f) {
            snprintf(escaped, sizeof escaped, "\\x%02x", byte);
        } else {
            snprintf(escaped, sizeof escaped, "%c", byte);
        }
        put(out, escaped);
    }
}

static void put_element(bounded *out, const sl_gguf_value *value, uint64_t index)
{
    char number[40];
    uint64_t whole = 0;
    float real = 0.0f;
    if (value->element_type == SL_GGUF_STRING) {
        put_string(out, value->strings[index]);
        return;
    }
    if (value->element_type == SL_GGUF_F32) {
        memcpy(&real, (const char *)value->numbers + index * sizeof real, sizeof real);
        snprintf(number, sizeof number, "%.9g", (double)real);
    } else if (value->element_type == SL_GGUF_F64) {
        double wide = 0.0;
        memcpy(&wide, (const char *)value->numbers + index * sizeof wide, sizeof wide);
        snprintf(number, sizeof number, "%.17g", wide);
    } else if (value->element_type == SL_GGUF_BOOL) {
        snprintf(number, sizeof number, "%s", ((const unsigned char *)value->numbers)[index] != 0 ? "true" : "false");
    } else if (sl_gguf_element_u64(value, index, &whole, NULL) == SLUICE_OK) {
        snprintf(number, sizeof number, "%" PRIu64, whole);
    } else if (sl_gguf_element_f32(value, index, &real, NULL) == SLUICE_OK) {
        /* A negative integer; its magnitude may exceed what a float keeps exactly only in 64-bit fields. */
        snprintf(number, sizeof number, "%.0f", (double)real);
    } else {
        snprintf(number, sizeof number, "?");
    }
    put(out, number);
}

size_t sluice_file_value_text(const sluice_file *file, uint64_t index, char *buffer, size_t capacity)
{
    if (capacity == 0) {
        return 0;
    }
    bounded out = {.data = buffer, .capacity = capacity};
    if (index < file->gguf->n_values) {
        const sl_gguf_value *value = &file->gguf->values[index];
        bool is_array = value->type == SL_GGUF_ARRAY;
        put(&out, is_array ? "[" : "");
        for (uint64_t i = 0; i < value->count && out.length + 1 < capacity; i++) {
            put(&out, i > 0 ? ", " : "");
            put_element(&out, value, i);
        }
        put(&out, is_array ? "]" : "");
    }
    buffer[out.length] = '\0';
    return out.length;
}

bool sluice_file_tensor_at(const sluice_file *file, uint64_t index, sluice_file_tensor *tensor)
{
    if (index >= file->gguf->n_tensors) {
        return false;
    }
    const sl_gguf_tensor *found = &file->gguf->tensors[index];
    *tensor = (sluice_file_tensor){.name = file->names[file->gguf->n_values + index],
                                   .type = sl_type_traits_of((int)found->type)->name,
                                   .n_dims = found->n_dims,
                                   .file = found->file,
                                   .offset = found->offset,
                                   .bytes = found->bytes};
    memcpy(tensor->dims, found->dims, sizeof tensor->dims);
    return true;
}

bool sluice_file_expert_layer_at(const sluice_file *file, uint32_t index, sluice_file_expert_layer *layer)
{
    if (file->model == NULL || index >= file->model->n_expert_layers) {
        return false;
    }
    const sl_expert_layer *found = &file->model->expert_layers[index];
    *layer = (sluice_file_expert_layer){
        .layer = found->layer, .n_experts = file->model->hyper.n_experts, .expert_bytes = expert_bytes_of(found)};
    for (uint32_t m = 0; m < SL_EXPERT_MATRICES; m++) {
        uint64_t bytes = 0;
        sl_model_expert_range(file->model, index, m, 0, &layer->files[m], &layer->first_offset[m], &bytes);
        layer->types[m] = sl_type_traits_of((int)found->matrices[m].type)->name;
        layer->stride[m] = found->matrices[m].stacked != NULL ? bytes : 0;
    }
    return true;
}
