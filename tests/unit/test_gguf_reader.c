/* What the GGUF reader reads, and how it refuses. The systematic damage is in tests/hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include "../support/failing_memory.h"
#include "../support/gguf_image.h"

enum { PATH_BYTES = 200 };

typedef struct fixture {
    char directory[64];
    sl_memory memory;
    sluice_error error;
    sl_gguf *reader;
    gguf_image image;
    char path[PATH_BYTES]; /* of the single-file model */
} fixture;

static const char *part_path(const fixture *test, char *buffer, unsigned number, unsigned count)
{
    snprintf(buffer, PATH_BYTES, "%s/model-%05u-of-%05u.gguf", test->directory, number, count);
    return buffer;
}

static int set_up(void **state)
{
    fixture *test = calloc(1, sizeof *test);
    assert_non_null(test);
    strcpy(test->directory, P_tmpdir "/sluice-gguf-XXXXXX");
    assert_non_null(mkdtemp(test->directory));
    snprintf(test->path, sizeof test->path, "%s/model.gguf", test->directory);
    sl_memory_init(&test->memory, NULL);
    *state = test;
    return 0;
}

/* Every test ends with nothing allocated. */
static int tear_down(void **state)
{
    fixture *test = *state;
    sl_gguf_close(&test->reader);
    uint64_t n_live = test->memory.n_live;
    image_free(&test->image);
    unlink(test->path);
    char path[PATH_BYTES];
    for (unsigned i = 1; i <= 3; i++) {
        unlink(part_path(test, path, i, 3));
    }
    int not_empty = rmdir(test->directory);
    free(test);
    return n_live != 0 || not_empty != 0 ? -1 : 0;
}

static sluice_status open_image(fixture *test)
{
    image_store(&test->image, test->path);
    return sl_gguf_open(&test->reader, test->path, &test->memory, NULL, &test->error);
}

static void assert_refused(fixture *test, sluice_status expected, const char *part_of_sentence)
{
    assert_int_equal(open_image(test), expected);
    assert_null(test->reader);
    assert_int_equal(test->error.status, expected);
    assert_non_null(strstr(test->error.message, test->path));
    if (strstr(test->error.message, part_of_sentence) == NULL) {
        fail_msg("expected \"%s\" in \"%s\"", part_of_sentence, test->error.message);
    }
    assert_int_equal(test->memory.n_live, 0);
}

static const uint64_t vector_of_32[] = {32};

/* One scalar of each type, under the name of the type. */
static void open_scalars(fixture *test)
{
    gguf_image *image = &test->image;
    image_put_header(image, 3, 0, 12);
    image_put_key(image, "u8", SL_GGUF_U8);
    image_put_u8(image, 200);
    image_put_key(image, "i8", SL_GGUF_I8);
    image_put_u8(image, (uint8_t)-3);
    image_put_key(image, "u16", SL_GGUF_U16);
    image_put_u16(image, 60000);
    image_put_key(image, "i16", SL_GGUF_I16);
    image_put_u16(image, 1234);
    image_put_key_u32(image, "u32", 4000000000u);
    image_put_key(image, "i32", SL_GGUF_I32);
    image_put_u32(image, (uint32_t)-7);
    float f32 = 0.5f;
    image_put_key(image, "f32", SL_GGUF_F32);
    image_put(image, &f32, sizeof f32);
    image_put_key(image, "bool", SL_GGUF_BOOL);
    image_put_u8(image, 1);
    image_put_key_string(image, "string", "h\xc3\xa9");
    image_put_key(image, "u64", SL_GGUF_U64);
    image_put_u64(image, UINT64_MAX);
    image_put_key(image, "i64", SL_GGUF_I64);
    image_put_u64(image, 5);
    double f64 = 0.25;
    image_put_key(image, "f64", SL_GGUF_F64);
    image_put(image, &f64, sizeof f64);
    assert_int_equal(open_image(test), SLUICE_OK);
}

static void every_scalar_type_is_read(void **state)
{
    fixture *test = *state;
    open_scalars(test);
    assert_int_equal(test->reader->version, 3);
    assert_int_equal(test->reader->n_values, 12);
    assert_int_equal(test->reader->alignment, 32);
    static const struct {
        const char *key;
        uint32_t number;
    } integers[] = {{"u8", 200}, {"u16", 60000}, {"i16", 1234}, {"u32", 4000000000u}, {"i64", 5}};
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        uint32_t number = 0;
        assert_int_equal(sl_gguf_get_u32(test->reader, integers[i].key, &number, &test->error), SLUICE_OK);
        assert_int_equal(number, integers[i].number);
    }
    uint64_t wide = 0;
    assert_int_equal(sl_gguf_element_u64(sl_gguf_find_value(test->reader, "u64"), 0, &wide, NULL), SLUICE_OK);
    assert_true(wide == UINT64_MAX);
    float number = 0;
    assert_int_equal(sl_gguf_get_f32(test->reader, "f32", &number, NULL), SLUICE_OK);
    assert_true(number == 0.5f);
    assert_int_equal(sl_gguf_get_f32(test->reader, "f64", &number, NULL), SLUICE_OK);
    assert_true(number == 0.25f);
    assert_int_equal(sl_gguf_get_f32(test->reader, "i8", &number, NULL), SLUICE_OK);
    assert_true(number == -3.0f);
    assert_int_equal(sl_gguf_get_f32(test->reader, "u64", &number, NULL), SLUICE_ERROR_FORMAT);
    bool truth = false;
    assert_int_equal(sl_gguf_get_bool(test->reader, "bool", &truth, NULL), SLUICE_OK);
    assert_true(truth);
    assert_int_equal(sl_gguf_get_bool(test->reader, "u8", &truth, NULL), SLUICE_ERROR_FORMAT);
    sl_span text;
    assert_int_equal(sl_gguf_get_string(test->reader, "string", &text, NULL), SLUICE_OK);
    assert_true(sl_span_equal_text(text, "h\xc3\xa9"));
    assert_int_equal(sl_gguf_get_string(test->reader, "u8", &text, NULL), SLUICE_ERROR_FORMAT);
    assert_int_equal(sl_gguf_get_string(test->reader, "absent", &text, &test->error), SLUICE_ERROR_NOT_FOUND);
    assert_non_null(strstr(test->error.message, "absent"));
}

static void integers_that_do_not_fit_are_refused(void **state)
{
    fixture *test = *state;
    open_scalars(test);
    static const char *const refused[] = {"i8", "i32", "f32", "bool", "string", "u64", "f64"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        uint32_t number = 0;
        assert_int_equal(sl_gguf_get_u32(test->reader, refused[i], &number, &test->error), SLUICE_ERROR_FORMAT);
        assert_non_null(strstr(test->error.message, refused[i]));
    }
}

static void an_f64_beyond_f32_is_out_of_range(void **state)
{
    fixture *test = *state;
    double huge = 1e300;
    image_put_header(&test->image, 3, 0, 1);
    image_put_key(&test->image, "huge", SL_GGUF_F64);
    image_put(&test->image, &huge, sizeof huge);
    assert_int_equal(open_image(test), SLUICE_OK);
    float number = 0;
    assert_int_equal(sl_gguf_get_f32(test->reader, "huge", &number, &test->error), SLUICE_ERROR_FORMAT);
    assert_non_null(strstr(test->error.message, "1e+300"));
}

static void arrays_of_every_number_type_are_read(void **state)
{
    fixture *test = *state;
    static const struct {
        uint32_t type;
        size_t bytes;
    } types[] = {{SL_GGUF_U8, 1},  {SL_GGUF_I8, 1},  {SL_GGUF_U16, 2}, {SL_GGUF_I16, 2}, {SL_GGUF_U32, 4},
                 {SL_GGUF_I32, 4}, {SL_GGUF_U64, 8}, {SL_GGUF_I64, 8}, {SL_GGUF_F32, 4}, {SL_GGUF_F64, 8}};
    enum { N_TYPES = sizeof types / sizeof types[0], N_ELEMENTS = 100 };
    image_put_header(&test->image, 3, 0, N_TYPES + 2);
    for (size_t i = 0; i < N_TYPES; i++) {
        char key[16];
        snprintf(key, sizeof key, "array.%zu", i);
        image_put_key_array(&test->image, key, types[i].type, N_ELEMENTS);
        for (uint64_t j = 0; j < N_ELEMENTS; j++) {
            float f32 = (float)j;
            double f64 = (double)j;
            const void *source = types[i].type == SL_GGUF_F32   ? (const void *)&f32
                                 : types[i].type == SL_GGUF_F64 ? (const void *)&f64
                                                                : (const void *)&j;
            image_put(&test->image, source, types[i].bytes);
        }
    }
    image_put_key_array(&test->image, "truths", SL_GGUF_BOOL, 3);
    image_put(&test->image, "\0\1\1", 3);
    image_put_key_array(&test->image, "nothing", SL_GGUF_I64, 0);
    assert_int_equal(open_image(test), SLUICE_OK);
    for (size_t i = 0; i < N_TYPES; i++) {
        const sl_gguf_value *value = &test->reader->values[i];
        assert_int_equal(value->type, SL_GGUF_ARRAY);
        assert_int_equal(value->element_type, types[i].type);
        assert_int_equal(value->count, N_ELEMENTS);
        assert_null(value->strings);
        bool is_float = types[i].type == SL_GGUF_F32 || types[i].type == SL_GGUF_F64;
        for (uint64_t j = 0; j < N_ELEMENTS; j++) {
            uint64_t integer = 0;
            float number = -1;
            sluice_status status = sl_gguf_element_u64(value, j, &integer, NULL);
            assert_int_equal(status, is_float ? SLUICE_ERROR_FORMAT : SLUICE_OK);
            assert_int_equal(integer, is_float ? 0 : j);
            assert_int_equal(sl_gguf_element_f32(value, j, &number, NULL), SLUICE_OK);
            assert_true(number == (float)j);
        }
        uint64_t integer = 0;
        assert_int_equal(sl_gguf_element_u64(value, N_ELEMENTS, &integer, NULL), SLUICE_ERROR_ARGUMENT);
    }
    assert_int_equal(sl_gguf_find_value(test->reader, "truths")->count, 3);
    assert_memory_equal(sl_gguf_find_value(test->reader, "truths")->numbers, "\0\1\1", 3);
    assert_int_equal(sl_gguf_find_value(test->reader, "nothing")->count, 0);
    uint32_t number = 0;
    assert_int_equal(sl_gguf_get_u32(test->reader, "array.4", &number, &test->error), SLUICE_ERROR_FORMAT);
    assert_non_null(strstr(test->error.message, "array of 100 u32"));
}

static void arrays_of_strings_keep_every_byte(void **state)
{
    fixture *test = *state;
    enum { N_STRINGS = 5000 };
    image_put_header(&test->image, 3, 0, 2);
    image_put_key_array(&test->image, "tokens", SL_GGUF_STRING, N_STRINGS);
    for (uint64_t i = 0; i < N_STRINGS; i++) {
        image_put_u64(&test->image, i % 40);
        for (uint64_t j = 0; j < i % 40; j++) {
            image_put_u8(&test->image, (uint8_t)(i + j * 31));
        }
    }
    image_put_key_array(&test->image, "nothing", SL_GGUF_STRING, 0);
    assert_int_equal(open_image(test), SLUICE_OK);
    const sl_gguf_value *tokens = sl_gguf_find_value(test->reader, "tokens");
    assert_int_equal(tokens->count, N_STRINGS);
    assert_null(tokens->numbers);
    for (uint64_t i = 0; i < N_STRINGS; i++) {
        assert_int_equal(tokens->strings[i].length, i % 40);
        for (uint64_t j = 0; j < i % 40; j++) {
            assert_int_equal((uint8_t)tokens->strings[i].data[j], (uint8_t)(i + j * 31));
        }
    }
    assert_int_equal(sl_gguf_find_value(test->reader, "nothing")->count, 0);
    uint64_t number = 0;
    assert_int_equal(sl_gguf_element_u64(tokens, 0, &number, NULL), SLUICE_ERROR_FORMAT);
}

static void a_value_larger_than_a_slice_is_read(void **state)
{
    fixture *test = *state;
    enum { LENGTH = 300001 };
    image_put_header(&test->image, 2, 0, 2);
    image_put_key(&test->image, "long", SL_GGUF_STRING);
    image_put_u64(&test->image, LENGTH);
    image_put_data(&test->image, LENGTH);
    image_put_key_u32(&test->image, "after", 42);
    assert_int_equal(open_image(test), SLUICE_OK);
    assert_int_equal(test->reader->version, 2);
    sl_span text;
    assert_int_equal(sl_gguf_get_string(test->reader, "long", &text, NULL), SLUICE_OK);
    assert_int_equal(text.length, LENGTH);
    for (size_t i = 0; i < LENGTH; i++) {
        if ((uint8_t)text.data[i] != (uint8_t)(i * 7 + 1)) {
            fail_msg("byte %zu differs", i);
        }
    }
    uint32_t number = 0;
    assert_int_equal(sl_gguf_get_u32(test->reader, "after", &number, NULL), SLUICE_OK);
    assert_int_equal(number, 42);
}

static void tensors_are_placed_after_the_header(void **state)
{
    fixture *test = *state;
    image_put_header(&test->image, 3, 3, 1);
    image_put_key_u32(&test->image, "general.alignment", 64);
    image_put_tensor(&test->image, "a", 1, vector_of_32, SL_TYPE_F32, 0);
    image_put_tensor(&test->image, "b", 4, (const uint64_t[]){64, 2, 3, 1}, SL_TYPE_Q8_0, 128);
    image_put_tensor(&test->image, "c", 2, (const uint64_t[]){256, 2}, SL_TYPE_Q4_K, 576);
    image_pad(&test->image, 64);
    size_t data_start = test->image.length;
    image_put_data(&test->image, 576 + 288);
    assert_int_equal(open_image(test), SLUICE_OK);
    assert_int_equal(test->reader->alignment, 64);
    assert_int_equal(test->reader->n_tensors, 3);
    const sl_gguf_tensor *a = sl_gguf_find_tensor(test->reader, "a");
    const sl_gguf_tensor *b = sl_gguf_find_tensor(test->reader, "b");
    const sl_gguf_tensor *c = sl_gguf_find_tensor(test->reader, "c");
    assert_ptr_equal(a, &test->reader->tensors[0]);
    assert_ptr_equal(b, &test->reader->tensors[1]);
    assert_int_equal(a->offset, data_start);
    assert_int_equal(a->bytes, 128);
    assert_int_equal(a->dims[1], 1);
    assert_int_equal(b->offset, data_start + 128);
    assert_int_equal(b->bytes, 2 * 34 * 6);
    assert_int_equal(b->n_dims, 4);
    assert_int_equal(c->offset, data_start + 576);
    assert_int_equal(c->bytes, 288);
    assert_int_equal(c->type, SL_TYPE_Q4_K);
    assert_null(sl_gguf_find_tensor(test->reader, "d"));
    unsigned char first = 0;
    assert_int_equal(sl_file_read(&test->reader->files[a->file].file, test->path, &first, 1, a->offset, NULL),
                     SLUICE_OK);
    assert_int_equal(first, 1);
}

static void every_power_of_two_up_to_the_maximum_is_an_alignment(void **state)
{
    fixture *test = *state;
    for (uint32_t alignment = 1; alignment <= 1 << 16; alignment *= 2) {
        image_put_header(&test->image, 3, 2, 1);
        image_put_key_u32(&test->image, "general.alignment", alignment);
        uint64_t second = alignment > 128 ? alignment : 128;
        image_put_tensor(&test->image, "a", 1, vector_of_32, SL_TYPE_F32, 0);
        image_put_tensor(&test->image, "b", 1, vector_of_32, SL_TYPE_F32, second);
        image_pad(&test->image, alignment);
        size_t data_start = test->image.length;
        image_put_data(&test->image, second + 128);
        assert_int_equal(open_image(test), SLUICE_OK);
        assert_int_equal(test->reader->alignment, alignment);
        assert_int_equal(test->reader->tensors[0].offset, data_start);
        assert_int_equal(test->reader->tensors[1].offset, data_start + second);
        sl_gguf_close(&test->reader);
    }
}

static void tensors_may_lie_in_another_order_than_described(void **state)
{
    fixture *test = *state;
    image_put_header(&test->image, 3, 3, 0);
    image_put_tensor(&test->image, "a", 1, vector_of_32, SL_TYPE_F32, 256);
    image_put_tensor(&test->image, "b", 1, vector_of_32, SL_TYPE_F32, 0);
    image_put_tensor(&test->image, "c", 1, vector_of_32, SL_TYPE_F32, 128);
    image_pad(&test->image, 32);
    image_put_data(&test->image, 384);
    assert_int_equal(open_image(test), SLUICE_OK);
}

static void overlapping_tensors_are_refused_in_any_order(void **state)
{
    fixture *test = *state;
    static const uint64_t offsets[][3] = {{0, 96, 256}, {256, 0, 96}, {0, 0, 128}, {256, 160, 0}};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        image_put_header(&test->image, 3, 3, 0);
        for (size_t j = 0; j < 3; j++) {
            char name[] = {(char)('a' + j), '\0'};
            image_put_tensor(&test->image, name, 1, vector_of_32, SL_TYPE_F32, offsets[i][j]);
        }
        image_pad(&test->image, 32);
        image_put_data(&test->image, 512);
        assert_refused(test, SLUICE_ERROR_FORMAT, "bytes of its own");
    }
}

static void a_file_that_ends_before_its_tensors_is_refused(void **state)
{
    fixture *test = *state;
    for (size_t missing = 1; missing <= 128; missing *= 2) {
        image_put_header(&test->image, 3, 1, 0);
        image_put_tensor(&test->image, "a", 1, vector_of_32, SL_TYPE_F32, 0);
        image_pad(&test->image, 32);
        image_put_data(&test->image, 128 - missing);
        assert_refused(test, SLUICE_ERROR_FORMAT, "tensor \"a\"");
    }
}

static void a_big_endian_file_is_named_as_one(void **state)
{
    fixture *test = *state;
    image_put(&test->image, "GGUF", 4);
    image_put_u32(&test->image, 0x03000000);
    image_put_u64(&test->image, 0);
    image_put_u64(&test->image, 0);
    assert_refused(test, SLUICE_ERROR_UNSUPPORTED, "big-endian");
    image_put(&test->image, "FUGG", 4);
    image_put_u64(&test->image, 0);
    assert_refused(test, SLUICE_ERROR_UNSUPPORTED, "big-endian");
}

static void other_versions_are_unsupported(void **state)
{
    fixture *test = *state;
    static const uint32_t versions[] = {0, 1, 4, UINT32_MAX};
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        image_put_header(&test->image, versions[i], 0, 0);
        assert_refused(test, SLUICE_ERROR_UNSUPPORTED, "expected version 2 or 3");
    }
}

static void what_is_not_gguf_is_refused_with_what_was_found(void **state)
{
    fixture *test = *state;
    image_put(&test->image, "<!DOCTYPE html>", 15);
    assert_refused(test, SLUICE_ERROR_FORMAT, "\"<!DO\"");
    image_put(&test->image, "\x1b[2J....", 8);
    assert_refused(test, SLUICE_ERROR_FORMAT, "\\x1b[2J");
    assert_refused(test, SLUICE_ERROR_FORMAT, "end of the file");
}

static void a_missing_file_is_not_found(void **state)
{
    fixture *test = *state;
    assert_int_equal(sl_gguf_open(&test->reader, test->path, &test->memory, NULL, &test->error),
                     SLUICE_ERROR_NOT_FOUND);
    assert_non_null(strstr(test->error.message, test->path));
    assert_null(test->reader);
}

static void duplicate_keys_and_tensor_names_are_refused(void **state)
{
    fixture *test = *state;
    image_put_header(&test->image, 3, 0, 2);
    image_put_key_u32(&test->image, "same.key", 1);
    image_put_key_u32(&test->image, "same.key", 1);
    assert_refused(test, SLUICE_ERROR_FORMAT, "key \"same.key\"");
    image_put_header(&test->image, 3, 2, 0);
    image_put_tensor(&test->image, "same.weight", 1, vector_of_32, SL_TYPE_F32, 0);
    image_put_tensor(&test->image, "same.weight", 1, vector_of_32, SL_TYPE_F32, 128);
    image_pad(&test->image, 32);
    image_put_data(&test->image, 256);
    assert_refused(test, SLUICE_ERROR_FORMAT, "tensor \"same.weight\"");
}

static void names_are_read_up_to_their_longest(void **state)
{
    fixture *test = *state;
    static char name[65536 + 1];
    static const struct {
        size_t key_bytes, name_bytes;
        sluice_status status;
    } lengths[] = {{65535, SL_GGUF_MAX_NAME_BYTES, SLUICE_OK},
                   {65536, SL_GGUF_MAX_NAME_BYTES, SLUICE_ERROR_FORMAT},
                   {65535, SL_GGUF_MAX_NAME_BYTES + 1, SLUICE_ERROR_FORMAT}};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        memset(name, 'n', sizeof name);
        image_put_header(&test->image, 3, 1, 1);
        name[lengths[i].key_bytes] = '\0';
        image_put_key_u32(&test->image, name, 1);
        name[lengths[i].name_bytes] = '\0';
        image_put_tensor(&test->image, name, 1, vector_of_32, SL_TYPE_F32, 0);
        image_pad(&test->image, 32);
        image_put_data(&test->image, 128);
        assert_int_equal(open_image(test), lengths[i].status);
        sl_gguf_close(&test->reader);
    }
}

static void an_alignment_that_is_no_power_of_two_is_refused(void **state)
{
    fixture *test = *state;
    static const uint32_t alignments[] = {0, 3, 48, (1 << 20) + 1, 1 << 21, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
        image_put_header(&test->image, 3, 0, 1);
        image_put_key_u32(&test->image, "general.alignment", alignments[i]);
        assert_refused(test, SLUICE_ERROR_FORMAT, "power of two");
    }
}

static void a_nested_array_is_unsupported(void **state)
{
    fixture *test = *state;
    image_put_header(&test->image, 3, 0, 1);
    image_put_key_array(&test->image, "nested", SL_GGUF_ARRAY, 1);
    image_put_u32(&test->image, SL_GGUF_U8);
    image_put_u64(&test->image, 1);
    image_put_u8(&test->image, 0);
    assert_refused(test, SLUICE_ERROR_UNSUPPORTED, "array of arrays");
}

static void a_huge_count_costs_no_memory(void **state)
{
    fixture *test = *state;
    static const uint64_t counts[] = {1000, UINT32_MAX, UINT64_MAX / 16 + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (uint32_t type = 0; type < SL_GGUF_TYPE_COUNT; type++) {
            if (type != SL_GGUF_ARRAY) {
                image_put_header(&test->image, 3, 0, 1);
                image_put_key_array(&test->image, "large", type, counts[i]);
                image_put_data(&test->image, 100);
                assert_refused(test, SLUICE_ERROR_FORMAT, "key \"large\"");
            }
        }
        image_put_header(&test->image, 3, counts[i], 0);
        image_put_data(&test->image, 100);
        assert_refused(test, SLUICE_ERROR_FORMAT, "tensor");
        image_put_header(&test->image, 3, 0, counts[i]);
        image_put_data(&test->image, 100);
        assert_refused(test, SLUICE_ERROR_FORMAT, "metadata");
    }
    assert_true(test->memory.peak_bytes < 256 * 1024);
}

/* ---- split sets -------------------------------------------------------------------------------------------------- */

/* One part with a tensor of its own; deviations from a good set come in as arguments. */
static void store_part(const fixture *test, unsigned number, unsigned said_number, unsigned said_count,
                       unsigned said_tensors, const char *tensor_name)
{
    char path[PATH_BYTES];
    gguf_image image = {0};
    image_put_header(&image, 3, 1, number == 1 ? 4 : 3);
    if (number == 1) {
        image_put_key_string(&image, "general.name", "in parts");
    }
    image_put_key(&image, "split.no", SL_GGUF_U16);
    image_put_u16(&image, (uint16_t)said_number);
    image_put_key(&image, "split.count", SL_GGUF_U16);
    image_put_u16(&image, (uint16_t)said_count);
    image_put_key(&image, "split.tensors.count", SL_GGUF_I32);
    image_put_u32(&image, said_tensors);
    image_put_tensor(&image, tensor_name, 1, vector_of_32, SL_TYPE_F32, 0);
    image_pad(&image, 32);
    image_put_data(&image, 128);
    image_store(&image, part_path(test, path, number, 3));
}

static void store_set(const fixture *test)
{
    store_part(test, 1, 0, 3, 3, "first");
    store_part(test, 2, 1, 3, 3, "second");
    store_part(test, 3, 2, 3, 3, "third");
}

static sluice_status open_part(fixture *test, unsigned number)
{
    char path[PATH_BYTES];
    return sl_gguf_open(&test->reader, part_path(test, path, number, 3), &test->memory, NULL, &test->error);
}

static void a_split_set_opens_from_any_part(void **state)
{
    fixture *test = *state;
    store_set(test);
    for (unsigned number = 1; number <= 3; number++) {
        assert_int_equal(open_part(test, number), SLUICE_OK);
        assert_int_equal(test->reader->n_files, 3);
        assert_int_equal(test->reader->n_tensors, 3);
        assert_int_equal(test->reader->n_values, 4);
        static const char *const names[] = {"first", "second", "third"};
        for (uint32_t i = 0; i < 3; i++) {
            char path[PATH_BYTES];
            const sl_gguf_tensor *tensor = sl_gguf_find_tensor(test->reader, names[i]);
            assert_ptr_equal(tensor, &test->reader->tensors[i]);
            assert_int_equal(tensor->file, i);
            assert_string_equal(test->reader->files[i].path, part_path(test, path, i + 1, 3));
        }
        sl_span name;
        assert_int_equal(sl_gguf_get_string(test->reader, "general.name", &name, NULL), SLUICE_OK);
        assert_true(sl_span_equal_text(name, "in parts"));
        sl_gguf_close(&test->reader);
        assert_int_equal(test->memory.n_live, 0);
    }
}

static void a_missing_part_is_named(void **state)
{
    fixture *test = *state;
    for (unsigned missing = 1; missing <= 3; missing++) {
        char path[PATH_BYTES];
        store_set(test);
        assert_int_equal(unlink(part_path(test, path, missing, 3)), 0);
        assert_int_equal(open_part(test, missing == 1 ? 2 : 1), SLUICE_ERROR_NOT_FOUND);
        assert_non_null(strstr(test->error.message, path));
        assert_null(test->reader);
        assert_int_equal(test->memory.n_live, 0);
    }
}

static void a_set_that_contradicts_itself_is_refused(void **state)
{
    fixture *test = *state;
    static const struct {
        unsigned number, said_number, said_count, said_tensors;
        const char *tensor_name;
    } lies[] = {
        {2, 2, 3, 3, "second"}, /* another part's number */
        {2, 1, 4, 3, "second"}, /* another count */
        {2, 1, 0, 3, "second"}, /* no set at all */
        {2, 1, 1, 3, "second"}, /* the same */
        {2, 1, 3, 4, "second"}, /* another sum of tensors */
        {2, 3, 3, 3, "second"}, /* a number beyond the count */
        {2, 1, 3, 3, "first"},  /* a name that another part has */
        {3, 0, 3, 3, "third"},  /* two first parts */
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        store_set(test);
        store_part(test, lies[i].number, lies[i].said_number, lies[i].said_count, lies[i].said_tensors,
                   lies[i].tensor_name);
        assert_int_equal(open_part(test, 1), SLUICE_ERROR_FORMAT);
        assert_true(strlen(test->error.message) > 0);
        assert_null(test->reader);
        assert_int_equal(test->memory.n_live, 0);
    }
}

static void a_sum_of_tensors_that_no_part_can_reach_is_refused(void **state)
{
    fixture *test = *state;
    store_part(test, 1, 0, 3, 7, "first");
    store_part(test, 2, 1, 3, 7, "second");
    store_part(test, 3, 2, 3, 7, "third");
    assert_int_equal(open_part(test, 1), SLUICE_ERROR_FORMAT);
    assert_non_null(strstr(test->error.message, "7 tensors"));
}

static void a_part_under_another_name_is_refused(void **state)
{
    fixture *test = *state;
    char path[PATH_BYTES];
    store_part(test, 1, 0, 3, 3, "first");
    assert_int_equal(rename(part_path(test, path, 1, 3), test->path), 0);
    assert_int_equal(sl_gguf_open(&test->reader, test->path, &test->memory, NULL, &test->error), SLUICE_ERROR_FORMAT);
    assert_non_null(strstr(test->error.message, "-00001-of-00003.gguf"));
}

static void a_merged_file_with_a_count_of_zero_is_one_file(void **state)
{
    fixture *test = *state;
    char path[PATH_BYTES];
    store_part(test, 1, 0, 0, 1, "only");
    assert_int_equal(rename(part_path(test, path, 1, 3), test->path), 0);
    assert_int_equal(sl_gguf_open(&test->reader, test->path, &test->memory, NULL, &test->error), SLUICE_OK);
    assert_int_equal(test->reader->n_files, 1);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* Open with the n-th allocation failing, for every n until none is left to fail. */
static void assert_every_failed_allocation_is_handled(fixture *test, const char *path)
{
    for (uint64_t n = 0;; n++) {
        failing_source source;
        sl_memory memory;
        failing_memory_init(&memory, &source, n);
        sl_gguf *reader = NULL;
        test->error = (sluice_error){0};
        sluice_status status = sl_gguf_open(&reader, path, &memory, NULL, &test->error);
        if (source.n_calls <= n) {
            assert_int_equal(status, SLUICE_OK);
            assert_true(n > 5);
            sl_gguf_close(&reader);
            assert_int_equal(memory.n_live, 0);
            return;
        }
        assert_int_equal(status, SLUICE_ERROR_NO_MEMORY);
        assert_null(reader);
        assert_true(strlen(test->error.message) > 0);
        assert_int_equal(memory.n_live, 0);
        assert_int_equal(memory.total_bytes, 0);
    }
}

static void every_failed_allocation_is_handled(void **state)
{
    fixture *test = *state;
    image_put_header(&test->image, 3, 200, 101);
    for (unsigned i = 0; i < 100; i++) {
        char key[32];
        snprintf(key, sizeof key, "key.%u", i);
        image_put_key_string(&test->image, key, "text");
    }
    image_put_key_array(&test->image, "tokens", SL_GGUF_STRING, 1000);
    for (unsigned i = 0; i < 1000; i++) {
        image_put_string(&test->image, "a token of some length, so that storage needs several chunks");
    }
    for (unsigned i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof name, "blk.%u.weight", i);
        image_put_tensor(&test->image, name, 1, vector_of_32, SL_TYPE_F32, 128 * (199 - i));
    }
    image_pad(&test->image, 32);
    image_put_data(&test->image, 200 * 128);
    image_store(&test->image, test->path);
    assert_every_failed_allocation_is_handled(test, test->path);
}

static void every_failed_allocation_of_a_set_is_handled(void **state)
{
    fixture *test = *state;
    char path[PATH_BYTES];
    store_set(test);
    assert_every_failed_allocation_is_handled(test, part_path(test, path, 3, 3));
}

/* ---- files from elsewhere ---------------------------------------------------------------------------------------- */

static void open_from_elsewhere(fixture *test, const char *path)
{
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not here\n", path);
        skip();
    }
    sluice_status status = sl_gguf_open(&test->reader, path, &test->memory, NULL, &test->error);
    if (status != SLUICE_OK) {
        fail_msg("%s", test->error.message);
    }
}

static void published_vocabularies_open(void **state)
{
    fixture *test = *state;
    static const struct {
        const char *name;
        uint64_t n_tokens;
    } files[] = {{"deepseek-coder", 32256}, {"deepseek-llm", 102400}, {"falcon", 65024}, {"gpt-2", 50257},
                 {"gpt-neox", 50432},       {"llama-spm", 32000},     {"mpt", 50432},    {"phi-3", 32064},
                 {"refact", 49216},         {"starcoder", 49152}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "../shared/data/vocab/ggml-vocab-%s.gguf", files[i].name);
        open_from_elsewhere(test, path);
        const sl_gguf_value *tokens = sl_gguf_find_value(test->reader, "tokenizer.ggml.tokens");
        assert_non_null(tokens);
        assert_int_equal(tokens->element_type, SL_GGUF_STRING);
        assert_int_equal(tokens->count, files[i].n_tokens);
        sl_gguf_close(&test->reader);
    }
}

static void a_trained_model_opens(void **state)
{
    fixture *test = *state;
    open_from_elsewhere(test, "../shared/data/demo-model/tales-moe-f16.gguf");
    assert_true(test->reader->n_tensors > 0);
    sl_span architecture;
    assert_int_equal(sl_gguf_get_string(test->reader, "general.architecture", &architecture, NULL), SLUICE_OK);
    assert_true(architecture.length > 0);
    assert_non_null(sl_gguf_find_tensor(test->reader, "token_embd.weight"));
    uint64_t end = 0;
    for (uint64_t i = 0; i < test->reader->n_tensors; i++) {
        uint64_t tensor_end = test->reader->tensors[i].offset + test->reader->tensors[i].bytes;
        end = tensor_end > end ? tensor_end : end;
    }
    uint64_t file_bytes = test->reader->files[0].file.identity.bytes;
    assert_true(end <= file_bytes && file_bytes - end < test->reader->alignment);
}

int main(void)
{
#define READER_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        READER_TEST(every_scalar_type_is_read),
        READER_TEST(integers_that_do_not_fit_are_refused),
        READER_TEST(an_f64_beyond_f32_is_out_of_range),
        READER_TEST(arrays_of_every_number_type_are_read),
        READER_TEST(arrays_of_strings_keep_every_byte),
        READER_TEST(a_value_larger_than_a_slice_is_read),
        READER_TEST(tensors_are_placed_after_the_header),
        READER_TEST(every_power_of_two_up_to_the_maximum_is_an_alignment),
        READER_TEST(tensors_may_lie_in_another_order_than_described),
        READER_TEST(overlapping_tensors_are_refused_in_any_order),
        READER_TEST(a_file_that_ends_before_its_tensors_is_refused),
        READER_TEST(a_big_endian_file_is_named_as_one),
        READER_TEST(other_versions_are_unsupported),
        READER_TEST(what_is_not_gguf_is_refused_with_what_was_found),
        READER_TEST(a_missing_file_is_not_found),
        READER_TEST(duplicate_keys_and_tensor_names_are_refused),
        READER_TEST(names_are_read_up_to_their_longest),
        READER_TEST(an_alignment_that_is_no_power_of_two_is_refused),
        READER_TEST(a_nested_array_is_unsupported),
        READER_TEST(a_huge_count_costs_no_memory),
        READER_TEST(a_split_set_opens_from_any_part),
        READER_TEST(a_missing_part_is_named),
        READER_TEST(a_set_that_contradicts_itself_is_refused),
        READER_TEST(a_sum_of_tensors_that_no_part_can_reach_is_refused),
        READER_TEST(a_part_under_another_name_is_refused),
        READER_TEST(a_merged_file_with_a_count_of_zero_is_one_file),
        READER_TEST(every_failed_allocation_is_handled),
        READER_TEST(every_failed_allocation_of_a_set_is_handled),
        READER_TEST(published_vocabularies_open),
        READER_TEST(a_trained_model_opens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
