/* Owns nothing: turns metadata values into the numbers that callers ask for, or says why that is impossible. Safe from
 * any thread. */
#include "gguf/reader.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gguf/parse.h"

static const struct {
    const char *name;
    uint64_t bytes;
} types[SL_GGUF_TYPE_COUNT] = {
    [SL_GGUF_U8] = {"u8", 1},       [SL_GGUF_I8] = {"i8", 1},     [SL_GGUF_U16] = {"u16", 2},
    [SL_GGUF_I16] = {"i16", 2},     [SL_GGUF_U32] = {"u32", 4},   [SL_GGUF_I32] = {"i32", 4},
    [SL_GGUF_F32] = {"f32", 4},     [SL_GGUF_BOOL] = {"bool", 1}, [SL_GGUF_STRING] = {"string", 0},
    [SL_GGUF_ARRAY] = {"array", 0}, [SL_GGUF_U64] = {"u64", 8},   [SL_GGUF_I64] = {"i64", 8},
    [SL_GGUF_F64] = {"f64", 8},
};

const char *sl_gguf_type_name(sl_gguf_type type)
{
    return (unsigned)type < SL_GGUF_TYPE_COUNT ? types[type].name : "unknown";
}

uint64_t sl_gguf_type_bytes(sl_gguf_type type)
{
    return (unsigned)type < SL_GGUF_TYPE_COUNT ? types[type].bytes : 0;
}

/* One number of the file, in the widest type of its kind. */
typedef struct element {
    enum { ELEMENT_NONE, ELEMENT_UNSIGNED, ELEMENT_SIGNED, ELEMENT_FLOAT } kind;
    uint64_t as_unsigned;
    int64_t as_signed; /* negative */
    double as_float;
} element;

#define LOAD(type, name)                                                                                               \
    type name;                                                                                                         \
    memcpy(&name, source, sizeof name)

static element of_signed(int64_t number)
{
    return number < 0 ? (element){.kind = ELEMENT_SIGNED, .as_signed = number}
                      : (element){.kind = ELEMENT_UNSIGNED, .as_unsigned = (uint64_t)number};
}

static element of_unsigned(uint64_t number)
{
    return (element){.kind = ELEMENT_UNSIGNED, .as_unsigned = number};
}

static element of_float(double number)
{
    return (element){.kind = ELEMENT_FLOAT, .as_float = number};
}

static element load_element(const sl_gguf_value *value, uint64_t index)
{
    if (value->numbers == NULL) {
        return (element){.kind = ELEMENT_NONE};
    }
    const unsigned char *source =
        (const unsigned char *)value->numbers + index * sl_gguf_type_bytes(value->element_type);
    switch (value->element_type) {
    case SL_GGUF_U8: return of_unsigned(*source);
    case SL_GGUF_I8: return of_signed((int8_t)*source);
    case SL_GGUF_U16: {
        LOAD(uint16_t, number);
        return of_unsigned(number);
    }
    case SL_GGUF_I16: {
        LOAD(int16_t, number);
        return of_signed(number);
    }
    case SL_GGUF_U32: {
        LOAD(uint32_t, number);
        return of_unsigned(number);
    }
    case SL_GGUF_I32: {
        LOAD(int32_t, number);
        return of_signed(number);
    }
    case SL_GGUF_U64: {
        LOAD(uint64_t, number);
        return of_unsigned(number);
    }
    case SL_GGUF_I64: {
        LOAD(int64_t, number);
        return of_signed(number);
    }
    case SL_GGUF_F32: {
        LOAD(float, number);
        return of_float((double)number);
    }
    case SL_GGUF_F64: {
        LOAD(double, number);
        return of_float(number);
    }
    default: return (element){.kind = ELEMENT_NONE};
    }
}

static const char *describe(const sl_gguf_value *value, char *buffer, size_t capacity)
{
    if (value->type == SL_GGUF_ARRAY) {
        snprintf(buffer, capacity, "an array of %" PRIu64 " %s", value->count, sl_gguf_type_name(value->element_type));
    } else {
        snprintf(buffer, capacity, "a %s", sl_gguf_type_name(value->type));
    }
    return buffer;
}

static sluice_status fail_type(const sl_gguf_value *value, const char *where, const char *expected, sluice_error *error)
{
    char quoted[SL_GGUF_QUOTED_BYTES];
    char found[64];
    return sl_error_set(error, SLUICE_ERROR_FORMAT, "%skey %s: expected %s, found %s; the file is not a usable model",
                        where, sl_gguf_quote(value->key, quoted), expected, describe(value, found, sizeof found));
}

static sluice_status fail_range(const sl_gguf_value *value, const char *where, uint64_t index, const char *expected,
                                element number, sluice_error *error)
{
    char quoted[SL_GGUF_QUOTED_BYTES];
    char found[64];
    if (number.kind == ELEMENT_UNSIGNED) {
        snprintf(found, sizeof found, "%" PRIu64, number.as_unsigned);
    } else if (number.kind == ELEMENT_SIGNED) {
        snprintf(found, sizeof found, "%" PRId64, number.as_signed);
    } else {
        snprintf(found, sizeof found, "%g", number.as_float);
    }
    return sl_error_set(error, SLUICE_ERROR_FORMAT,
                        "%skey %s, element %" PRIu64 ": expected %s, found %s; the file is not a usable model", where,
                        sl_gguf_quote(value->key, quoted), index, expected, found);
}

static sluice_status check_index(const sl_gguf_value *value, uint64_t index, sluice_error *error)
{
    if (index < value->count) {
        return SLUICE_OK;
    }
    char quoted[SL_GGUF_QUOTED_BYTES];
    return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "key %s: there is no element %" PRIu64 " among %" PRIu64,
                        sl_gguf_quote(value->key, quoted), index, value->count);
}

static sluice_status convert_u64(const sl_gguf_value *value, const char *where, uint64_t index, uint64_t maximum,
                                 const char *expected, uint64_t *out, sluice_error *error)
{
    element number = load_element(value, index);
    if (number.kind == ELEMENT_NONE || number.kind == ELEMENT_FLOAT) {
        return fail_type(value, where, expected, error);
    }
    if (number.kind == ELEMENT_SIGNED || number.as_unsigned > maximum) {
        return fail_range(value, where, index, expected, number, error);
    }
    *out = number.as_unsigned;
    return SLUICE_OK;
}

/* Integers are accepted where F32 holds them exactly. */
static sluice_status convert_f32(const sl_gguf_value *value, const char *where, uint64_t index, float *out,
                                 sluice_error *error)
{
    element number = load_element(value, index);
    if (number.kind == ELEMENT_NONE) {
        return fail_type(value, where, "a number", error);
    }
    if (number.kind == ELEMENT_FLOAT) {
        float narrowed = (float)number.as_float;
        if (isinf(narrowed) && !isinf(number.as_float)) {
            return fail_range(value, where, index, "a number that fits 32 bits", number, error);
        }
        *out = narrowed;
        return SLUICE_OK;
    }
    static const int64_t exact = 1 << 24;
    bool fits = number.kind == ELEMENT_SIGNED ? number.as_signed >= -exact : number.as_unsigned <= (uint64_t)exact;
    if (!fits) {
        return fail_range(value, where, index, "a floating-point number", number, error);
    }
    *out = number.kind == ELEMENT_SIGNED ? (float)number.as_signed : (float)number.as_unsigned;
    return SLUICE_OK;
}

sluice_status sl_gguf_element_u64(const sl_gguf_value *value, uint64_t index, uint64_t *out, sluice_error *error)
{
    SL_TRY(check_index(value, index, error));
    return convert_u64(value, "", index, UINT64_MAX, "an integer that is not negative", out, error);
}

sluice_status sl_gguf_element_f32(const sl_gguf_value *value, uint64_t index, float *out, sluice_error *error)
{
    SL_TRY(check_index(value, index, error));
    return convert_f32(value, "", index, out, error);
}

/* Where a value of `reader` stands, for messages: "<path>: ". */
enum { WHERE_BYTES = 512 };

static const char *where_of(const sl_gguf *reader, char *buffer)
{
    snprintf(buffer, WHERE_BYTES, "%s: ", reader->files[0].path);
    return buffer;
}

static sluice_status find_scalar(const sl_gguf *reader, const char *key, const char *expected,
                                 const sl_gguf_value **value, sluice_error *error)
{
    char where[WHERE_BYTES];
    *value = sl_gguf_find_value(reader, key);
    if (*value == NULL) {
        return sl_error_set(error, SLUICE_ERROR_NOT_FOUND,
                            "%skey \"%s\": expected %s, found no such key; the file is not a usable model of this "
                            "architecture",
                            where_of(reader, where), key, expected);
    }
    if ((*value)->type == SL_GGUF_ARRAY) {
        return fail_type(*value, where_of(reader, where), expected, error);
    }
    return SLUICE_OK;
}

sluice_status sl_gguf_get_u32(const sl_gguf *reader, const char *key, uint32_t *out, sluice_error *error)
{
    static const char expected[] = "an integer from 0 to 4294967295";
    const sl_gguf_value *value = NULL;
    SL_TRY(find_scalar(reader, key, expected, &value, error));
    char where[WHERE_BYTES];
    uint64_t number = 0;
    SL_TRY(convert_u64(value, where_of(reader, where), 0, UINT32_MAX, expected, &number, error));
    *out = (uint32_t)number;
    return SLUICE_OK;
}

sluice_status sl_gguf_get_f32(const sl_gguf *reader, const char *key, float *out, sluice_error *error)
{
    const sl_gguf_value *value = NULL;
    SL_TRY(find_scalar(reader, key, "a number", &value, error));
    char where[WHERE_BYTES];
    return convert_f32(value, where_of(reader, where), 0, out, error);
}

sluice_status sl_gguf_get_bool(const sl_gguf *reader, const char *key, bool *out, sluice_error *error)
{
    const sl_gguf_value *value = NULL;
    SL_TRY(find_scalar(reader, key, "a bool", &value, error));
    if (value->type != SL_GGUF_BOOL) {
        char where[WHERE_BYTES];
        return fail_type(value, where_of(reader, where), "a bool", error);
    }
    *out = *(const unsigned char *)value->numbers != 0;
    return SLUICE_OK;
}

sluice_status sl_gguf_get_string(const sl_gguf *reader, const char *key, sl_span *out, sluice_error *error)
{
    const sl_gguf_value *value = NULL;
    SL_TRY(find_scalar(reader, key, "a string", &value, error));
    if (value->type != SL_GGUF_STRING) {
        char where[WHERE_BYTES];
        return fail_type(value, where_of(reader, where), "a string", error);
    }
    *out = value->strings[0];
    return SLUICE_OK;
}
