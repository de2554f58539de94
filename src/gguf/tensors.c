/* Parses the tensor descriptions and places them in the file.
 *
 * Invariants
 *  (1) A tensor that is in the map is in tensors[]; its name is unique, not empty and free of NUL; its type is one of
 * the file format's; its dims are not 0 and unused ones are 1; its bytes are those of whole blocks, and fit 63 bits.
 *  (2) After sl_gguf_place_tensors every [offset, offset + bytes) lies inside the file, behind the header, and no two
 *      share a byte.
 * Threads: part of one call of sl_gguf_open. */
#include "gguf/parse.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "quant/traits.h"

/* Name length, one byte of name, number of dims, one dim, type, offset. */
enum { MINIMUM_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8 };

static sluice_status take_name(sl_gguf *reader, sl_gguf_cursor *cursor, sl_span *name)
{
    uint64_t start = cursor->position;
    uint64_t length = 0;
    SL_TRY(sl_gguf_cursor_take_u64(cursor, &length, "the length of a tensor name"));
    if (length == 0 || length > SL_GGUF_MAX_NAME_BYTES) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, start,
                                   "expected a tensor name of 1 to %d bytes, found a length of %" PRIu64
                                   "; the file is damaged, download it again",
                                   SL_GGUF_MAX_NAME_BYTES, length);
    }
    char *bytes = sl_gguf_storage_take(&reader->index->storage, length);
    if (bytes == NULL) {
        return sl_error_no_memory(cursor->error, length, "the tensor names of a model file");
    }
    SL_TRY(sl_gguf_cursor_take(cursor, bytes, length, "a tensor name"));
    *name = (sl_span){.data = bytes, .length = (size_t)length};
    char quoted[SL_GGUF_QUOTED_BYTES];
    sl_gguf_cursor_set_subject(cursor, "tensor %s", sl_gguf_quote(*name, quoted));
    if (memchr(bytes, '\0', name->length) != NULL) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, start,
                                   "expected a name without NUL bytes; the file is damaged, download it again");
    }
    bool existing = false;
    if (!sl_map_insert(&reader->index->tensor_positions, *name, (uint32_t)reader->n_tensors, &existing)) {
        return sl_error_no_memory(cursor->error, sizeof(sl_map_entry), "the tensor names of a model file");
    }
    if (existing) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, start,
                                   "expected each tensor name once, found this one again; the file is damaged, "
                                   "download it again");
    }
    return SLUICE_OK;
}

static sluice_status take_dims(sl_gguf_cursor *cursor, sl_gguf_tensor *tensor)
{
    uint64_t start = cursor->position;
    SL_TRY(sl_gguf_cursor_take_u32(cursor, &tensor->n_dims, "the number of dimensions"));
    if (tensor->n_dims < 1 || tensor->n_dims > SL_GGUF_MAX_DIMS) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, start,
                                   "expected 1 to %d dimensions, found %" PRIu32
                                   "; the file is damaged, download it again",
                                   SL_GGUF_MAX_DIMS, tensor->n_dims);
    }
    for (uint32_t i = 0; i < SL_GGUF_MAX_DIMS; i++) {
        tensor->dims[i] = 1;
        if (i >= tensor->n_dims) {
            continue;
        }
        start = cursor->position;
        SL_TRY(sl_gguf_cursor_take_u64(cursor, &tensor->dims[i], "a dimension"));
        if (tensor->dims[i] == 0) {
            return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, start,
                                       "expected dimension %" PRIu32 " above 0, found 0; the file is damaged, download "
                                       "it again",
                                       i);
        }
    }
    return SLUICE_OK;
}

static sluice_status take_type(sl_gguf_cursor *cursor, sl_gguf_tensor *tensor)
{
    uint64_t start = cursor->position;
    uint32_t number = 0;
    SL_TRY(sl_gguf_cursor_take_u32(cursor, &number, "a tensor type"));
    const sl_type_traits *traits = number < SL_TYPE_FILE_COUNT ? sl_type_traits_of((int)number) : NULL;
    if (traits == NULL) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_UNSUPPORTED, start,
                                   "expected a tensor type that this build knows, found number %" PRIu32
                                   "; the file is damaged or needs a newer build",
                                   number);
    }
    tensor->type = (sl_type)number;
    return SLUICE_OK;
}

bool sl_gguf_measure_tensor(const sl_gguf_tensor *tensor, uint64_t *bytes)
{
    uint64_t product = sl_type_row_bytes(tensor->type, tensor->dims[0]);
    bool fits = true;
    for (uint32_t i = 1; i < SL_GGUF_MAX_DIMS && fits; i++) {
        fits = sl_checked_multiply(product, tensor->dims[i], &product);
    }
    *bytes = product;
    return fits && product != 0 && product <= INT64_MAX;
}

static sluice_status measure(sl_gguf_cursor *cursor, sl_gguf_tensor *tensor, uint64_t start)
{
    const uint64_t *dims = tensor->dims;
    const sl_type_traits *traits = sl_type_traits_of((int)tensor->type);
    if (dims[0] % traits->block_elements != 0) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, start,
                                   "expected rows of a multiple of %" PRIu32 " elements for type %s, found %" PRIu64
                                   "; the file is damaged, download it again",
                                   traits->block_elements, traits->name, dims[0]);
    }
    if (!sl_gguf_measure_tensor(tensor, &tensor->bytes)) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, start,
                                   "expected dimensions of a tensor that fits a file, found %" PRIu64 " x %" PRIu64
                                   " x %" PRIu64 " x %" PRIu64 " of type %s; the file is damaged, download it again",
                                   dims[0], dims[1], dims[2], dims[3], traits->name);
    }
    return SLUICE_OK;
}

static sluice_status take_tensor(sl_gguf *reader, sl_gguf_cursor *cursor, sl_gguf_tensor *tensor)
{
    SL_TRY(take_name(reader, cursor, &tensor->name));
    uint64_t dims_start = cursor->position;
    SL_TRY(take_dims(cursor, tensor));
    SL_TRY(take_type(cursor, tensor));
    SL_TRY(measure(cursor, tensor, dims_start));
    uint64_t offset_start = cursor->position;
    SL_TRY(sl_gguf_cursor_take_u64(cursor, &tensor->offset, "the offset of a tensor"));
    if (tensor->offset % reader->alignment != 0) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, offset_start,
                                   "expected an offset that is a multiple of the alignment %" PRIu64 ", found %" PRIu64
                                   "; the file is damaged, download it again",
                                   reader->alignment, tensor->offset);
    }
    return SLUICE_OK;
}

sluice_status sl_gguf_parse_tensors(sl_gguf *reader, sl_gguf_cursor *cursor, uint64_t n_tensors)
{
    sl_gguf_cursor_set_subject(cursor, "tensor list");
    if (n_tensors > SL_GGUF_MAX_TENSORS) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, cursor->position,
                                   "expected at most %d tensors, found a count of %" PRIu64
                                   "; the file is damaged, download it again",
                                   SL_GGUF_MAX_TENSORS, n_tensors);
    }
    SL_TRY(sl_gguf_cursor_expect(cursor, n_tensors, MINIMUM_TENSOR_BYTES, "the tensor descriptions"));
    uint64_t capacity = 0;
    for (uint64_t i = 0; i < n_tensors; i++) {
        sl_gguf_cursor_set_subject(cursor, "tensor %" PRIu64 " of %" PRIu64, i + 1, n_tensors);
        sl_gguf_tensor *grown =
            sl_gguf_grow(reader->memory, reader->tensors, &capacity, i + 1, n_tensors, sizeof *reader->tensors);
        if (grown == NULL) {
            return sl_error_no_memory(cursor->error, (i + 1) * sizeof *grown, "the tensor list of a model file");
        }
        reader->tensors = grown;
        reader->tensors[i] = (sl_gguf_tensor){0};
        SL_TRY(take_tensor(reader, cursor, &reader->tensors[i]));
        reader->n_tensors = i + 1;
    }
    return SLUICE_OK;
}

static void set_tensor_subject(sl_gguf_cursor *cursor, const sl_gguf_tensor *tensor)
{
    char quoted[SL_GGUF_QUOTED_BYTES];
    sl_gguf_cursor_set_subject(cursor, "tensor %s", sl_gguf_quote(tensor->name, quoted));
}

static int compare_offsets(const void *left, const void *right)
{
    const sl_gguf_tensor *a = *(const sl_gguf_tensor *const *)left;
    const sl_gguf_tensor *b = *(const sl_gguf_tensor *const *)right;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static sluice_status check_neighbours(sl_gguf_cursor *cursor, const sl_gguf_tensor *before, const sl_gguf_tensor *after)
{
    if (after->offset >= before->offset + before->bytes) {
        return SLUICE_OK;
    }
    char quoted[SL_GGUF_QUOTED_BYTES];
    set_tensor_subject(cursor, after);
    return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, after->offset,
                               "expected bytes of its own, found those of tensor %s, which ends at byte %" PRIu64
                               "; the file is damaged, download it again",
                               sl_gguf_quote(before->name, quoted), before->offset + before->bytes);
}

/* Writers put the data in the order of the descriptions; only a file that does otherwise is sorted. */
static sluice_status check_overlaps(sl_gguf *reader, sl_gguf_cursor *cursor)
{
    const sl_gguf_tensor *tensors = reader->tensors;
    bool ordered = true;
    for (uint64_t i = 1; i < reader->n_tensors && ordered; i++) {
        ordered = tensors[i].offset >= tensors[i - 1].offset;
    }
    const sl_gguf_tensor **sorted = NULL;
    if (!ordered) {
        sorted = sl_alloc(reader->memory, SL_MEMORY_OTHER, (size_t)reader->n_tensors, sizeof *sorted);
        if (sorted == NULL) {
            return sl_error_no_memory(cursor->error, reader->n_tensors * sizeof *sorted,
                                      "the tensor list of a model file");
        }
        for (uint64_t i = 0; i < reader->n_tensors; i++) {
            sorted[i] = &tensors[i];
        }
        qsort(sorted, (size_t)reader->n_tensors, sizeof *sorted, compare_offsets);
    }
    sluice_status status = SLUICE_OK;
    for (uint64_t i = 1; i < reader->n_tensors && status == SLUICE_OK; i++) {
        status = ordered ? check_neighbours(cursor, &tensors[i - 1], &tensors[i])
                         : check_neighbours(cursor, sorted[i - 1], sorted[i]);
    }
    sl_free(reader->memory, sorted);
    return status;
}

sluice_status sl_gguf_place_tensors(sl_gguf *reader, sl_gguf_cursor *cursor)
{
    if (reader->n_tensors == 0) {
        return SLUICE_OK;
    }
    uint64_t file_bytes = cursor->file->identity.bytes;
    uint64_t data_start = 0;
    if (!sl_checked_align(cursor->position, reader->alignment, &data_start) || data_start > file_bytes) {
        sl_gguf_cursor_set_subject(cursor, "tensor data");
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, cursor->position,
                                   "expected tensor data from byte %" PRIu64 " on, found the end of the file at byte "
                                   "%" PRIu64 "; it is truncated, download it again",
                                   data_start, file_bytes);
    }
    uint64_t data_bytes = file_bytes - data_start;
    for (uint64_t i = 0; i < reader->n_tensors; i++) {
        sl_gguf_tensor *tensor = &reader->tensors[i];
        if (tensor->offset > data_bytes || tensor->bytes > data_bytes - tensor->offset) {
            set_tensor_subject(cursor, tensor);
            return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, data_start,
                                       "expected %" PRIu64 " bytes at offset %" PRIu64 " from here, found only %" PRIu64
                                       " bytes of data in the file; it is truncated or damaged, download it again",
                                       tensor->bytes, tensor->offset, data_bytes);
        }
        tensor->offset += data_start;
    }
    return check_overlaps(reader, cursor);
}
