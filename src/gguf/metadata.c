/* Parses the metadata section: n entries of key, type and value.
 *
 * Invariants
 *  (1) No count or length allocates before the rest of the file was found large enough to hold what it promises, and
 *      lists whose items are larger in memory than in the file grow as their items arrive.
 *  (2) A key that is in the map is in values[], is unique, not empty and free of NUL.
 *  (3) The bytes of a boolean are 0 or 1.
 * Threads: part of one call of sl_gguf_open. */
#include "gguf/parse.h"

#include <inttypes.h>
#include <string.h>

/* Key length, one byte of key, type, one byte of value. */
enum { MINIMUM_VALUE_BYTES = 8 + 1 + 4 + 1, STRING_LENGTH_BYTES = 8, FIRST_CAPACITY = 64 };

void *sl_gguf_grow(sl_memory *memory, void *items, uint64_t *capacity, uint64_t n_needed, uint64_t n_expected,
                   size_t item_bytes)
{
    if (items != NULL && n_needed <= *capacity) {
        return items;
    }
    uint64_t grown_capacity = *capacity < FIRST_CAPACITY ? FIRST_CAPACITY : *capacity * 2;
    if (grown_capacity > n_expected) {
        grown_capacity = n_expected;
    }
    if (grown_capacity < n_needed) {
        grown_capacity = n_needed;
    }
    void *grown = sl_realloc(memory, SL_MEMORY_OTHER, items, (size_t)grown_capacity, item_bytes);
    if (grown != NULL) {
        *capacity = grown_capacity;
    }
    return grown;
}

/* A length and that many bytes, kept in the storage. */
static sluice_status take_string(sl_gguf *reader, sl_gguf_cursor *cursor, uint64_t maximum_bytes, const char *what,
                                 sl_span *span)
{
    uint64_t start = cursor->position;
    uint64_t length = 0;
    SL_TRY(sl_gguf_cursor_take_u64(cursor, &length, "the length of a string"));
    if (length > maximum_bytes) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, start,
                                   "expected %s of at most %" PRIu64 " bytes, found a length of %" PRIu64
                                   "; the file is damaged, download it again",
                                   what, maximum_bytes, length);
    }
    SL_TRY(sl_gguf_cursor_expect(cursor, length, 1, what));
    char *bytes = sl_gguf_storage_take(&reader->index->storage, length);
    if (bytes == NULL) {
        return sl_error_no_memory(cursor->error, length, "the metadata of a model file");
    }
    *span = (sl_span){.data = bytes, .length = (size_t)length};
    return sl_gguf_cursor_take(cursor, bytes, length, what);
}

static sluice_status take_strings(sl_gguf *reader, sl_gguf_cursor *cursor, sl_gguf_value *value)
{
    SL_TRY(sl_gguf_cursor_expect(cursor, value->count, STRING_LENGTH_BYTES, "the strings of an array"));
    sl_span *strings = NULL;
    uint64_t capacity = 0;
    sluice_status status = SLUICE_OK;
    for (uint64_t i = 0; i < value->count && status == SLUICE_OK; i++) {
        sl_span *grown = sl_gguf_grow(reader->memory, strings, &capacity, i + 1, value->count, sizeof *strings);
        if (grown == NULL) {
            status = sl_error_no_memory(cursor->error, (i + 1) * sizeof *strings, "the metadata of a model file");
        } else {
            strings = grown;
            status = take_string(reader, cursor, UINT64_MAX, "a string of an array", &strings[i]);
        }
    }
    if (status == SLUICE_OK) {
        uint64_t n_bytes = value->count * sizeof *strings;
        sl_span *kept = sl_gguf_storage_take(&reader->index->storage, n_bytes);
        if (kept == NULL) {
            status = sl_error_no_memory(cursor->error, n_bytes, "the metadata of a model file");
        } else if (value->count > 0) {
            memcpy(kept, strings, n_bytes);
        }
        value->strings = kept;
    }
    sl_free(reader->memory, strings);
    return status;
}

static sluice_status check_booleans(sl_gguf_cursor *cursor, const sl_gguf_value *value, uint64_t start)
{
    const unsigned char *bytes = value->numbers;
    for (uint64_t i = 0; i < value->count; i++) {
        if (bytes[i] > 1) {
            return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, start + i,
                                       "expected a boolean of 0 or 1, found %u; the file is damaged, download it again",
                                       bytes[i]);
        }
    }
    return SLUICE_OK;
}

static sluice_status take_numbers(sl_gguf *reader, sl_gguf_cursor *cursor, sl_gguf_value *value)
{
    uint64_t start = cursor->position;
    uint64_t number_bytes = sl_gguf_type_bytes(value->element_type);
    SL_TRY(sl_gguf_cursor_expect(cursor, value->count, number_bytes, "the numbers of the value"));
    uint64_t n_bytes = value->count * number_bytes;
    void *numbers = sl_gguf_storage_take(&reader->index->storage, n_bytes);
    if (numbers == NULL) {
        return sl_error_no_memory(cursor->error, n_bytes, "the metadata of a model file");
    }
    SL_TRY(sl_gguf_cursor_take(cursor, numbers, n_bytes, "the numbers of the value"));
    value->numbers = numbers;
    return value->element_type == SL_GGUF_BOOL ? check_booleans(cursor, value, start) : SLUICE_OK;
}

static sluice_status take_type(sl_gguf_cursor *cursor, const char *what, sl_gguf_type *type)
{
    uint64_t start = cursor->position;
    uint32_t number = 0;
    SL_TRY(sl_gguf_cursor_take_u32(cursor, &number, what));
    if (number >= SL_GGUF_TYPE_COUNT) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, start,
                                   "expected %s from 0 to %d, found %" PRIu32
                                   "; the file is damaged, download it again",
                                   what, SL_GGUF_TYPE_COUNT - 1, number);
    }
    *type = (sl_gguf_type)number;
    return SLUICE_OK;
}

static sluice_status take_contents(sl_gguf *reader, sl_gguf_cursor *cursor, sl_gguf_value *value)
{
    SL_TRY(take_type(cursor, "a value type", &value->type));
    value->element_type = value->type;
    value->count = 1;
    if (value->type == SL_GGUF_ARRAY) {
        uint64_t start = cursor->position;
        SL_TRY(take_type(cursor, "an element type", &value->element_type));
        if (value->element_type == SL_GGUF_ARRAY) {
            return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_UNSUPPORTED, start,
                                       "expected an array of numbers or strings, found an array of arrays; no known "
                                       "model has them, write the file again without this key");
        }
        SL_TRY(sl_gguf_cursor_take_u64(cursor, &value->count, "the length of an array"));
    }
    return value->element_type == SL_GGUF_STRING ? take_strings(reader, cursor, value)
                                                 : take_numbers(reader, cursor, value);
}

static sluice_status take_value(sl_gguf *reader, sl_gguf_cursor *cursor, sl_gguf_value *value)
{
    uint64_t start = cursor->position;
    SL_TRY(take_string(reader, cursor, SL_GGUF_MAX_KEY_BYTES, "a key", &value->key));
    char quoted[SL_GGUF_QUOTED_BYTES];
    sl_gguf_cursor_set_subject(cursor, "key %s", sl_gguf_quote(value->key, quoted));
    if (value->key.length == 0 || memchr(value->key.data, '\0', value->key.length) != NULL) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, start,
                                   "expected a key that is not empty and has no NUL byte; the file is damaged, "
                                   "download it again");
    }
    bool existing = false;
    if (!sl_map_insert(&reader->index->value_positions, value->key, (uint32_t)reader->n_values, &existing)) {
        return sl_error_no_memory(cursor->error, sizeof(sl_map_entry), "the metadata of a model file");
    }
    if (existing) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, start,
                                   "expected each key once, found this one again; which one holds is unknown, write "
                                   "the file again with one of them");
    }
    return take_contents(reader, cursor, value);
}

sluice_status sl_gguf_parse_values(sl_gguf *reader, sl_gguf_cursor *cursor, uint64_t n_values)
{
    sl_gguf_cursor_set_subject(cursor, "metadata");
    if (n_values > SL_GGUF_MAX_VALUES) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, cursor->position,
                                   "expected at most %d metadata entries, found a count of %" PRIu64
                                   "; the file is damaged, download it again",
                                   SL_GGUF_MAX_VALUES, n_values);
    }
    SL_TRY(sl_gguf_cursor_expect(cursor, n_values, MINIMUM_VALUE_BYTES, "the metadata entries"));
    uint64_t capacity = 0;
    for (uint64_t i = 0; i < n_values; i++) {
        sl_gguf_cursor_set_subject(cursor, "metadata entry %" PRIu64 " of %" PRIu64, i + 1, n_values);
        sl_gguf_value *grown =
            sl_gguf_grow(reader->memory, reader->values, &capacity, i + 1, n_values, sizeof *reader->values);
        if (grown == NULL) {
            return sl_error_no_memory(cursor->error, (i + 1) * sizeof *grown, "the metadata of a model file");
        }
        reader->values = grown;
        reader->values[i] = (sl_gguf_value){0};
        SL_TRY(take_value(reader, cursor, &reader->values[i]));
        reader->n_values = i + 1;
    }
    return SLUICE_OK;
}
