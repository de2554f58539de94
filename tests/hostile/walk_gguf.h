/* Touches everything that an opened model shows, so that a sanitizer sees a pointer or a length that is wrong, and says
 * whether what the reader promises holds. Needs no test framework. */
#ifndef SL_TESTS_WALK_GGUF_H
#define SL_TESTS_WALK_GGUF_H

#include "base/checked.h"
#include "gguf/reader.h"
#include "quant/traits.h"

static inline uint64_t walk_bytes(const void *bytes, uint64_t length)
{
    const unsigned char *source = bytes;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < length; i++) {
        sum = sum * 31 + source[i];
    }
    return sum;
}

static inline bool walk_value(const sl_gguf *reader, const sl_gguf_value *value, uint64_t *sum)
{
    bool is_string = value->element_type == SL_GGUF_STRING;
    *sum += walk_bytes(value->key.data, value->key.length);
    bool holds = value->key.length > 0 && value->element_type != SL_GGUF_ARRAY &&
                 (value->type == SL_GGUF_ARRAY || (value->type == value->element_type && value->count == 1)) &&
                 (is_string ? value->strings != NULL : value->numbers != NULL);
    for (uint64_t i = 0; i < value->count && holds; i++) {
        uint64_t integer = 0;
        float number = 0;
        if (is_string) {
            *sum += walk_bytes(value->strings[i].data, value->strings[i].length);
        } else if (sl_gguf_element_u64(value, i, &integer, NULL) == SLUICE_OK) {
            *sum += integer;
        } else if (sl_gguf_element_f32(value, i, &number, NULL) == SLUICE_OK) {
            *sum += number > 0;
        }
    }
    /* Keys hold no NUL, so each can be asked for by name. */
    char key[256];
    if (holds && value->key.length < sizeof key) {
        uint32_t integer = 0;
        float number = 0;
        bool truth = false;
        sl_span text = {0};
        sluice_error error = {0};
        __builtin_memcpy(key, value->key.data, value->key.length);
        key[value->key.length] = '\0';
        holds = sl_gguf_find_value(reader, key) == value;
        *sum += (uint64_t)sl_gguf_get_u32(reader, key, &integer, &error);
        *sum += (uint64_t)sl_gguf_get_f32(reader, key, &number, &error);
        *sum += (uint64_t)sl_gguf_get_bool(reader, key, &truth, &error);
        *sum += (uint64_t)sl_gguf_get_string(reader, key, &text, &error);
    }
    return holds;
}

static inline bool walk_tensor(const sl_gguf *reader, uint64_t position)
{
    const sl_gguf_tensor *tensor = &reader->tensors[position];
    char name[SL_GGUF_MAX_NAME_BYTES + 1];
    if (tensor->name.length == 0 || tensor->name.length > SL_GGUF_MAX_NAME_BYTES || tensor->n_dims < 1 ||
        tensor->n_dims > SL_GGUF_MAX_DIMS || tensor->file >= reader->n_files) {
        return false;
    }
    __builtin_memcpy(name, tensor->name.data, tensor->name.length);
    name[tensor->name.length] = '\0';
    uint64_t bytes = sl_type_row_bytes(tensor->type, tensor->dims[0]);
    bool fits = bytes > 0;
    for (uint32_t i = 1; i < SL_GGUF_MAX_DIMS && fits; i++) {
        fits = tensor->dims[i] > 0 && sl_checked_multiply(bytes, tensor->dims[i], &bytes);
    }
    uint64_t end = 0;
    return fits && bytes == tensor->bytes && sl_checked_add(tensor->offset, tensor->bytes, &end) &&
           end <= reader->files[tensor->file].file.identity.bytes && sl_gguf_find_tensor(reader, name) == tensor;
}

static inline bool walk_overlaps(const sl_gguf *reader)
{
    for (uint64_t i = 0; i < reader->n_tensors; i++) {
        for (uint64_t j = 0; j < i; j++) {
            const sl_gguf_tensor *a = &reader->tensors[i];
            const sl_gguf_tensor *b = &reader->tensors[j];
            if (a->file == b->file && a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes) {
                return true;
            }
        }
    }
    return false;
}

/* false when the reader accepted what it promises to refuse. */
static inline bool walk_model(const sl_gguf *reader)
{
    volatile uint64_t sum = 0; /* keeps the compiler from skipping the reads */
    bool holds = reader->n_files >= 1 && (reader->version == 2 || reader->version == 3) && reader->alignment > 0 &&
                 (reader->alignment & (reader->alignment - 1)) == 0;
    for (uint64_t i = 0; i < reader->n_values && holds; i++) {
        uint64_t value_sum = 0;
        holds = walk_value(reader, &reader->values[i], &value_sum);
        sum += value_sum;
    }
    for (uint64_t i = 0; i < reader->n_tensors && holds; i++) {
        holds = walk_tensor(reader, i);
    }
    (void)sum;
    return holds && (reader->n_tensors > 100 || !walk_overlaps(reader));
}

#endif
