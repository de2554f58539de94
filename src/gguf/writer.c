/* Owns a GGUF file that is being written.
 *
 * Invariants
 *  (1) Whatever is accepted here, the reader accepts: names, counts, types and dims are held to the same limits.
 *  (2) keys and names borrow their bytes from the storage, which never moves; n_values and n_tensors count what is in
 *      them.
 *  (3) While data is written, tensor i_tensor has received tensor_bytes_written bytes, all before it are complete and
 *      padded, and the file ends there.
 * States: DESCRIBING (values and tensors come in) -> WRITING (the header is in the file) -> COMMITTED; any failed write
 * leads to FAILED, from where only close is left.
 * Threads: owner only. */
#include "gguf/writer.h"

#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "gguf/parse.h"
#include "quant/traits.h"

enum { WRITTEN_VERSION = 3, PADDING_BYTES = 4096 };

typedef enum writer_state { DESCRIBING, WRITING, COMMITTED, FAILED } writer_state;

struct sl_gguf_writer {
    sl_memory *memory; /* borrowed: outlives the writer */
    writer_state state;
    sl_file_writer file;
    uint64_t alignment;
    sl_gguf_storage storage; /* the bytes of keys and names */
    sl_map keys;
    sl_map names;
    sl_text values; /* the metadata section as it will lie in the file */
    uint64_t n_values;
    sl_gguf_tensor *tensors; /* owned; [n_tensors] of tensor_capacity; offsets are set when the header is written */
    uint64_t n_tensors;
    uint64_t tensor_capacity;
    uint64_t i_tensor;
    uint64_t tensor_bytes_written;
};

sluice_status sl_gguf_writer_open(sl_gguf_writer **out, const char *path, sl_memory *memory, sluice_error *error)
{
    *out = NULL;
    sl_gguf_writer *writer = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizeof *writer);
    if (writer == NULL) {
        return sl_error_no_memory(error, sizeof *writer, "writing a model file");
    }
    *writer = (sl_gguf_writer){.memory = memory, .alignment = SL_GGUF_DEFAULT_ALIGNMENT};
    sl_gguf_storage_init(&writer->storage, memory);
    sl_map_init(&writer->keys, memory, SL_MEMORY_OTHER);
    sl_map_init(&writer->names, memory, SL_MEMORY_OTHER);
    sl_text_init(&writer->values, memory, SL_MEMORY_OTHER);
    sluice_status status = sl_file_writer_open(&writer->file, path, error);
    if (status != SLUICE_OK) {
        sl_gguf_writer_close(&writer);
        return status;
    }
    *out = writer;
    return SLUICE_OK;
}

void sl_gguf_writer_close(sl_gguf_writer **writer)
{
    sl_gguf_writer *closing = *writer;
    *writer = NULL;
    if (closing == NULL) {
        return;
    }
    sl_file_writer_close(&closing->file);
    sl_map_fini(&closing->keys);
    sl_map_fini(&closing->names);
    sl_text_fini(&closing->values);
    sl_gguf_storage_fini(&closing->storage);
    sl_free(closing->memory, closing->tensors);
    sl_free(closing->memory, closing);
}

/* ---- describing -------------------------------------------------------------------------------------------------- */

static sluice_status check_describing(const sl_gguf_writer *writer, sluice_error *error)
{
    if (writer->state != DESCRIBING) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "%s: metadata and tensors must be described before the first tensor data",
                            writer->file.final_path);
    }
    return SLUICE_OK;
}

/* Enter a key or a tensor name; the map then borrows a copy of its bytes, which `*kept` (may be NULL) describes. */
static sluice_status enter_name(sl_gguf_writer *writer, sl_map *map, sl_span name, uint64_t maximum_bytes,
                                uint64_t maximum_count, const char *what, sl_span *kept, sluice_error *error)
{
    char quoted[SL_GGUF_QUOTED_BYTES];
    uint32_t position = 0;
    if (name.length == 0 || name.length > maximum_bytes || memchr(name.data, '\0', name.length) != NULL) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "%s: expected a %s of 1 to %" PRIu64 " bytes without NUL, found %s of %zu bytes",
                            writer->file.final_path, what, maximum_bytes, sl_gguf_quote(name, quoted), name.length);
    }
    if (sl_map_find(map, name, &position)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s: %s %s was added before; add each once",
                            writer->file.final_path, what, sl_gguf_quote(name, quoted));
    }
    if (map->count >= maximum_count) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s: %s %s is one more than the %" PRIu64 " a file may have",
                            writer->file.final_path, what, sl_gguf_quote(name, quoted), maximum_count);
    }
    char *bytes = sl_gguf_storage_take(&writer->storage, name.length);
    if (bytes == NULL) {
        return sl_error_no_memory(error, name.length, "writing a model file");
    }
    memcpy(bytes, name.data, name.length);
    sl_span copy = {.data = bytes, .length = name.length};
    if (!sl_map_insert(map, copy, (uint32_t)map->count, NULL)) {
        return sl_error_no_memory(error, sizeof(sl_map_entry), "writing a model file");
    }
    if (kept != NULL) {
        *kept = copy;
    }
    return SLUICE_OK;
}

static bool append_u32(sl_text *text, uint32_t number)
{
    return sl_text_append(text, &number, sizeof number);
}

static bool append_u64(sl_text *text, uint64_t number)
{
    return sl_text_append(text, &number, sizeof number);
}

static bool append_string(sl_text *text, sl_span string)
{
    return append_u64(text, string.length) && sl_text_append(text, string.data, string.length);
}

static bool append_contents(sl_text *text, const sl_gguf_value *value)
{
    if (value->element_type != SL_GGUF_STRING) {
        return sl_text_append(text, value->numbers, (size_t)(value->count * sl_gguf_type_bytes(value->element_type)));
    }
    for (uint64_t i = 0; i < value->count; i++) {
        if (!append_string(text, value->strings[i])) {
            return false;
        }
    }
    return true;
}

static bool append_value(sl_text *text, const sl_gguf_value *value)
{
    bool fits = append_string(text, value->key) && append_u32(text, (uint32_t)value->type);
    if (value->type == SL_GGUF_ARRAY) {
        fits = fits && append_u32(text, (uint32_t)value->element_type) && append_u64(text, value->count);
    }
    return fits && append_contents(text, value);
}

/* Take back what was appended since the text had this length. */
static void cut_text(sl_text *text, size_t length)
{
    text->length = length;
    if (text->data != NULL) {
        text->data[length] = '\0';
    }
}

/* The bytes of the contents, without lengths of strings; false on overflow. */
static bool measure_contents(const sl_gguf_value *value, uint64_t *bytes)
{
    if (value->element_type != SL_GGUF_STRING) {
        return sl_checked_multiply(value->count, sl_gguf_type_bytes(value->element_type), bytes);
    }
    *bytes = 0;
    bool fits = true;
    for (uint64_t i = 0; i < value->count && fits; i++) {
        fits = sl_checked_add(*bytes, value->strings[i].length, bytes);
    }
    return fits;
}

static sluice_status check_value(const sl_gguf_writer *writer, const sl_gguf_value *value, sluice_error *error)
{
    const char *path = writer->file.final_path;
    char quoted[SL_GGUF_QUOTED_BYTES];
    bool is_array = value->type == SL_GGUF_ARRAY;
    bool is_string = value->element_type == SL_GGUF_STRING;
    bool known = is_string || sl_gguf_type_bytes(value->element_type) != 0;
    if (!known || (!is_array && (value->type != value->element_type || value->count != 1))) {
        return sl_error_set(
            error, SLUICE_ERROR_ARGUMENT,
            "%s: key %s: expected one value or an array of numbers or strings, found type %d with %" PRIu64
            " elements of type %d",
            path, sl_gguf_quote(value->key, quoted), (int)value->type, value->count, (int)value->element_type);
    }
    const void *contents = is_string ? (const void *)value->strings : value->numbers;
    if (contents == NULL && value->count > 0) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s: key %s: expected %" PRIu64 " elements, found no memory",
                            path, sl_gguf_quote(value->key, quoted), value->count);
    }
    uint64_t bytes = 0;
    if (!measure_contents(value, &bytes) || bytes > SL_GGUF_MAX_HEADER_BYTES) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "%s: key %s: its contents exceed the largest header, %d bytes", path,
                            sl_gguf_quote(value->key, quoted), SL_GGUF_MAX_HEADER_BYTES);
    }
    for (uint64_t i = 0; value->element_type == SL_GGUF_BOOL && i < value->count; i++) {
        if (((const unsigned char *)value->numbers)[i] > 1) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s: key %s: a boolean is 0 or 1", path,
                                sl_gguf_quote(value->key, quoted));
        }
    }
    return SLUICE_OK;
}

/* general.alignment is the one key that the writer itself obeys. */
static sluice_status find_alignment(const sl_gguf_writer *writer, const sl_gguf_value *value, uint64_t *alignment,
                                    sluice_error *error)
{
    *alignment = writer->alignment;
    if (!sl_span_equal_text(value->key, "general.alignment")) {
        return SLUICE_OK;
    }
    if (value->type == SL_GGUF_ARRAY || sl_gguf_element_u64(value, 0, alignment, NULL) != SLUICE_OK ||
        !sl_gguf_alignment_is_valid(*alignment)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "%s: key \"general.alignment\": expected a power of two from 1 to %d",
                            writer->file.final_path, SL_GGUF_MAX_ALIGNMENT);
    }
    return SLUICE_OK;
}

sluice_status sl_gguf_writer_add_value(sl_gguf_writer *writer, const sl_gguf_value *value, sluice_error *error)
{
    uint64_t alignment = 0;
    SL_TRY(check_describing(writer, error));
    SL_TRY(check_value(writer, value, error));
    SL_TRY(find_alignment(writer, value, &alignment, error));
    /* The bytes come before the key, so that a failure leaves no key without a value. */
    size_t length_before = writer->values.length;
    if (!append_value(&writer->values, value)) {
        cut_text(&writer->values, length_before);
        return sl_error_no_memory(error, length_before, "the metadata of a model file");
    }
    sluice_status status =
        enter_name(writer, &writer->keys, value->key, SL_GGUF_MAX_KEY_BYTES, SL_GGUF_MAX_VALUES, "key", NULL, error);
    if (status != SLUICE_OK) {
        cut_text(&writer->values, length_before);
        return status;
    }
    writer->alignment = alignment;
    writer->n_values++;
    return SLUICE_OK;
}

sluice_status sl_gguf_writer_add_u32(sl_gguf_writer *writer, const char *key, uint32_t number, sluice_error *error)
{
    sl_gguf_value value = {
        .key = sl_span_of(key), .type = SL_GGUF_U32, .element_type = SL_GGUF_U32, .count = 1, .numbers = &number};
    return sl_gguf_writer_add_value(writer, &value, error);
}

sluice_status sl_gguf_writer_add_string(sl_gguf_writer *writer, const char *key, const char *text, sluice_error *error)
{
    sl_span string = sl_span_of(text);
    sl_gguf_value value = {
        .key = sl_span_of(key), .type = SL_GGUF_STRING, .element_type = SL_GGUF_STRING, .count = 1, .strings = &string};
    return sl_gguf_writer_add_value(writer, &value, error);
}

sluice_status sl_gguf_writer_add_tensor(sl_gguf_writer *writer, const sl_gguf_tensor *tensor, sluice_error *error)
{
    char quoted[SL_GGUF_QUOTED_BYTES];
    SL_TRY(check_describing(writer, error));
    sl_gguf_tensor added = {.type = tensor->type, .n_dims = tensor->n_dims};
    bool valid = (unsigned)tensor->type < SL_TYPE_FILE_COUNT && tensor->n_dims >= 1 &&
                 tensor->n_dims <= SL_GGUF_MAX_DIMS && sl_type_traits_of((int)tensor->type) != NULL;
    for (uint32_t i = 0; i < SL_GGUF_MAX_DIMS; i++) {
        added.dims[i] = i < tensor->n_dims ? tensor->dims[i] : 1;
    }
    if (!valid || !sl_gguf_measure_tensor(&added, &added.bytes)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "%s: tensor %s: expected 1 to %d dimensions above 0 with rows of whole blocks, found "
                            "%" PRIu32 " of %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64 " of type %d",
                            writer->file.final_path, sl_gguf_quote(tensor->name, quoted), SL_GGUF_MAX_DIMS,
                            tensor->n_dims, added.dims[0], added.dims[1], added.dims[2], added.dims[3],
                            (int)tensor->type);
    }
    sl_gguf_tensor *grown = sl_gguf_grow(writer->memory, writer->tensors, &writer->tensor_capacity,
                                         writer->n_tensors + 1, SL_GGUF_MAX_TENSORS, sizeof *grown);
    if (grown == NULL) {
        return sl_error_no_memory(error, (writer->n_tensors + 1) * sizeof *grown, "writing a model file");
    }
    writer->tensors = grown;
    SL_TRY(enter_name(writer, &writer->names, tensor->name, SL_GGUF_MAX_NAME_BYTES, SL_GGUF_MAX_TENSORS, "tensor",
                      &added.name, error));
    writer->tensors[writer->n_tensors++] = added;
    return SLUICE_OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static sluice_status assign_offsets(sl_gguf_writer *writer, sluice_error *error)
{
    uint64_t offset = 0;
    for (uint64_t i = 0; i < writer->n_tensors; i++) {
        sl_gguf_tensor *tensor = &writer->tensors[i];
        tensor->offset = offset;
        if (!sl_checked_add(offset, tensor->bytes, &offset) || !sl_checked_align(offset, writer->alignment, &offset) ||
            offset > INT64_MAX) {
            char quoted[SL_GGUF_QUOTED_BYTES];
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "%s: tensor %s: the tensors up to this one exceed the largest file",
                                writer->file.final_path, sl_gguf_quote(tensor->name, quoted));
        }
    }
    return SLUICE_OK;
}

static bool append_header(const sl_gguf_writer *writer, sl_text *header)
{
    bool fits = sl_text_append(header, "GGUF", 4) && append_u32(header, WRITTEN_VERSION) &&
                append_u64(header, writer->n_tensors) && append_u64(header, writer->n_values) &&
                sl_text_append(header, writer->values.data, writer->values.length);
    for (uint64_t i = 0; i < writer->n_tensors && fits; i++) {
        const sl_gguf_tensor *tensor = &writer->tensors[i];
        fits = append_string(header, tensor->name) && append_u32(header, tensor->n_dims) &&
               sl_text_append(header, tensor->dims, tensor->n_dims * sizeof tensor->dims[0]) &&
               append_u32(header, (uint32_t)tensor->type) && append_u64(header, tensor->offset);
    }
    return fits;
}

/* Zero bytes from `length`, where the file or the data section ends, to the next multiple of the alignment. */
static sluice_status write_padding(sl_gguf_writer *writer, uint64_t length, sluice_error *error)
{
    static const unsigned char zeros[PADDING_BYTES];
    uint64_t n_bytes = (writer->alignment - length % writer->alignment) % writer->alignment;
    while (n_bytes > 0) {
        size_t n_now = n_bytes < sizeof zeros ? (size_t)n_bytes : sizeof zeros;
        SL_TRY(sl_file_writer_write(&writer->file, zeros, n_now, error));
        n_bytes -= n_now;
    }
    return SLUICE_OK;
}

static sluice_status write_header(sl_gguf_writer *writer, sluice_error *error)
{
    SL_TRY(assign_offsets(writer, error));
    sl_text header;
    sl_text_init(&header, writer->memory, SL_MEMORY_OTHER);
    sluice_status status = SLUICE_OK;
    if (!append_header(writer, &header)) {
        status = sl_error_no_memory(error, header.length, "the header of a model file");
    } else if (header.length > SL_GGUF_MAX_HEADER_BYTES) {
        status = sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s: a header of %zu bytes exceeds the largest, %d bytes",
                              writer->file.final_path, header.length, SL_GGUF_MAX_HEADER_BYTES);
    } else {
        /* From here on a failure leaves a file that cannot be completed. */
        writer->state = FAILED;
        status = sl_file_writer_write(&writer->file, header.data, header.length, error);
        if (status == SLUICE_OK) {
            status = write_padding(writer, header.length, error);
        }
        if (status == SLUICE_OK) {
            writer->state = WRITING;
        }
    }
    sl_text_fini(&header);
    return status;
}

static sluice_status begin_writing(sl_gguf_writer *writer, sluice_error *error)
{
    if (writer->state == DESCRIBING) {
        SL_TRY(write_header(writer, error));
    }
    if (writer->state != WRITING) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s: the file %s; open a new one", writer->file.final_path,
                            writer->state == COMMITTED ? "is complete" : "could not be written");
    }
    return SLUICE_OK;
}

/* Append at most what the current tensor still lacks; `*n_written` says how much that was. */
static sluice_status write_to_tensor(sl_gguf_writer *writer, const void *bytes, uint64_t length, uint64_t *n_written,
                                     sluice_error *error)
{
    const sl_gguf_tensor *tensor = &writer->tensors[writer->i_tensor];
    uint64_t missing = tensor->bytes - writer->tensor_bytes_written;
    *n_written = length < missing ? length : missing;
    SL_TRY(sl_file_writer_write(&writer->file, bytes, (size_t)*n_written, error));
    writer->tensor_bytes_written += *n_written;
    if (writer->tensor_bytes_written == tensor->bytes) {
        SL_TRY(write_padding(writer, tensor->bytes, error));
        writer->i_tensor++;
        writer->tensor_bytes_written = 0;
    }
    return SLUICE_OK;
}

sluice_status sl_gguf_writer_write(sl_gguf_writer *writer, const void *bytes, uint64_t length, sluice_error *error)
{
    SL_TRY(begin_writing(writer, error));
    const unsigned char *source = bytes;
    while (length > 0) {
        if (writer->i_tensor == writer->n_tensors) {
            writer->state = FAILED;
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "%s: all %" PRIu64 " tensors are complete, found %" PRIu64 " bytes more",
                                writer->file.final_path, writer->n_tensors, length);
        }
        uint64_t n_written = 0;
        sluice_status status = write_to_tensor(writer, source, length, &n_written, error);
        if (status != SLUICE_OK) {
            writer->state = FAILED;
            return status;
        }
        source += n_written;
        length -= n_written;
    }
    return SLUICE_OK;
}

sluice_status sl_gguf_writer_commit(sl_gguf_writer *writer, sluice_error *error)
{
    SL_TRY(begin_writing(writer, error));
    if (writer->i_tensor < writer->n_tensors) {
        char quoted[SL_GGUF_QUOTED_BYTES];
        const sl_gguf_tensor *tensor = &writer->tensors[writer->i_tensor];
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "%s: tensor %s: expected %" PRIu64 " bytes of data, found %" PRIu64
                            "; write the rest before the file is completed",
                            writer->file.final_path, sl_gguf_quote(tensor->name, quoted), tensor->bytes,
                            writer->tensor_bytes_written);
    }
    writer->state = FAILED;
    SL_TRY(sl_file_writer_commit(&writer->file, error));
    writer->state = COMMITTED;
    return SLUICE_OK;
}
