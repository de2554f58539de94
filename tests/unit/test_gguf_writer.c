/* What the GGUF writer writes, and what it refuses to write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include "../support/failing_memory.h"
#include "../support/gguf_image.h"
#include "gguf/writer.h"

enum { PATH_BYTES = 200 };

typedef struct fixture {
    char directory[64];
    char path[PATH_BYTES];   /* of what the writer writes */
    char source[PATH_BYTES]; /* of what the reader reads */
    sl_memory memory;
    sluice_error error;
    sl_gguf *reader;
    sl_gguf_writer *writer;
} fixture;

static int set_up(void **state)
{
    fixture *test = calloc(1, sizeof *test);
    assert_non_null(test);
    strcpy(test->directory, P_tmpdir "/sluice-gguf-XXXXXX");
    assert_non_null(mkdtemp(test->directory));
    snprintf(test->path, sizeof test->path, "%s/written.gguf", test->directory);
    snprintf(test->source, sizeof test->source, "%s/source.gguf", test->directory);
    sl_memory_init(&test->memory, NULL);
    *state = test;
    return 0;
}

/* Every test ends with nothing allocated and no partial file in the directory. */
static int tear_down(void **state)
{
    fixture *test = *state;
    sl_gguf_close(&test->reader);
    sl_gguf_writer_close(&test->writer);
    uint64_t n_live = test->memory.n_live;
    unlink(test->path);
    unlink(test->source);
    int not_empty = rmdir(test->directory);
    free(test);
    return n_live != 0 || not_empty != 0 ? -1 : 0;
}

static void open_writer(fixture *test)
{
    sl_gguf_writer_close(&test->writer);
    assert_int_equal(sl_gguf_writer_open(&test->writer, test->path, &test->memory, &test->error), SLUICE_OK);
}

static void open_reader(fixture *test, const char *path)
{
    sl_gguf_close(&test->reader);
    if (sl_gguf_open(&test->reader, path, &test->memory, NULL, &test->error) != SLUICE_OK) {
        fail_msg("%s", test->error.message);
    }
}

static unsigned char *load(const char *path, size_t *length)
{
    FILE *stream = fopen(path, "rb");
    assert_non_null(stream);
    assert_int_equal(fseek(stream, 0, SEEK_END), 0);
    *length = (size_t)ftell(stream);
    rewind(stream);
    unsigned char *bytes = malloc(*length + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *length, stream), *length);
    fclose(stream);
    return bytes;
}

static void assert_same_file(const char *path, const char *expected_path)
{
    size_t length = 0;
    size_t expected_length = 0;
    unsigned char *bytes = load(path, &length);
    unsigned char *expected = load(expected_path, &expected_length);
    assert_int_equal(length, expected_length);
    bool same = memcmp(bytes, expected, length) == 0;
    free(bytes);
    free(expected);
    assert_true(same);
}

/* Everything the reader shows, written again; the data in pieces of `piece_bytes`. */
static sluice_status copy_model(const sl_gguf *reader, sl_gguf_writer *writer, size_t piece_bytes, sluice_error *error)
{
    for (uint64_t i = 0; i < reader->n_values; i++) {
        SL_TRY(sl_gguf_writer_add_value(writer, &reader->values[i], error));
    }
    for (uint64_t i = 0; i < reader->n_tensors; i++) {
        SL_TRY(sl_gguf_writer_add_tensor(writer, &reader->tensors[i], error));
    }
    static unsigned char piece[1 << 20];
    for (uint64_t i = 0; i < reader->n_tensors; i++) {
        const sl_gguf_tensor *tensor = &reader->tensors[i];
        const sl_gguf_file *file = &reader->files[tensor->file];
        for (uint64_t done = 0; done < tensor->bytes;) {
            uint64_t n_bytes = tensor->bytes - done < piece_bytes ? tensor->bytes - done : piece_bytes;
            SL_TRY(sl_file_read(&file->file, file->path, piece, n_bytes, tensor->offset + done, error));
            SL_TRY(sl_gguf_writer_write(writer, piece, n_bytes, error));
            done += n_bytes;
        }
    }
    return sl_gguf_writer_commit(writer, error);
}

/* A version 3 model with every type of value, laid out as writers lay it out. */
static void store_source(const fixture *test)
{
    static const unsigned char number[8] = {1, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t bytes_of[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    gguf_image image = {0};
    image_put_header(&image, 3, 3, 26);
    for (uint32_t type = 0; type < SL_GGUF_TYPE_COUNT; type++) {
        char key[32];
        if (type != SL_GGUF_ARRAY) {
            snprintf(key, sizeof key, "scalar.%u", type);
            image_put_key(&image, key, type);
            if (type == SL_GGUF_STRING) {
                image_put_string(&image, "text");
            } else {
                image_put(&image, number, bytes_of[type]);
            }
            snprintf(key, sizeof key, "array.%u", type);
            image_put_key_array(&image, key, type, 3);
            for (size_t i = 0; i < 3; i++) {
                if (type == SL_GGUF_STRING) {
                    image_put_string(&image, i == 1 ? "" : "element");
                } else {
                    image_put(&image, number, bytes_of[type]);
                }
            }
        }
    }
    image_put_key_array(&image, "empty", SL_GGUF_STRING, 0);
    image_put_key_u32(&image, "general.alignment", 64);
    image_put_tensor(&image, "a", 1, (const uint64_t[]){3}, SL_TYPE_F32, 0);
    image_put_tensor(&image, "b", 3, (const uint64_t[]){32, 2, 2}, SL_TYPE_Q8_0, 64);
    image_put_tensor(&image, "c", 4, (const uint64_t[]){5, 1, 2, 1}, SL_TYPE_F16, 256);
    image_pad(&image, 64);
    image_put_data(&image, 12);
    image_pad(&image, 64);
    image_put_data(&image, 136);
    image_pad(&image, 64);
    image_put_data(&image, 20);
    image_pad(&image, 64);
    image_store(&image, test->source);
}

static void a_model_is_written_again_byte_for_byte(void **state)
{
    fixture *test = *state;
    static const size_t piece_bytes[] = {1, 7, 64, 1000};
    store_source(test);
    open_reader(test, test->source);
    for (size_t i = 0; i < sizeof piece_bytes / sizeof piece_bytes[0]; i++) {
        open_writer(test);
        assert_int_equal(copy_model(test->reader, test->writer, piece_bytes[i], &test->error), SLUICE_OK);
        assert_same_file(test->path, test->source);
    }
}

static void a_trained_model_is_written_again_byte_for_byte(void **state)
{
    fixture *test = *state;
    static const char path[] = "../shared/data/demo-model/tales-moe-f16.gguf";
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not here\n", path);
        skip();
    }
    open_reader(test, path);
    open_writer(test);
    assert_int_equal(copy_model(test->reader, test->writer, 1 << 20, &test->error), SLUICE_OK);
    assert_same_file(test->path, path);
}

static void a_piece_may_span_tensors(void **state)
{
    fixture *test = *state;
    unsigned char data[12 + 136 + 20];
    store_source(test);
    open_reader(test, test->source);
    open_writer(test);
    size_t filled = 0;
    for (uint64_t i = 0; i < test->reader->n_tensors; i++) {
        const sl_gguf_tensor *tensor = &test->reader->tensors[i];
        assert_int_equal(sl_gguf_writer_add_tensor(test->writer, tensor, NULL), SLUICE_OK);
        assert_int_equal(sl_file_read(&test->reader->files[0].file, test->source, data + filled, tensor->bytes,
                                      tensor->offset, NULL),
                         SLUICE_OK);
        filled += tensor->bytes;
    }
    /* Metadata may come after the tensors, the alignment too. */
    for (uint64_t i = 0; i < test->reader->n_values; i++) {
        assert_int_equal(sl_gguf_writer_add_value(test->writer, &test->reader->values[i], NULL), SLUICE_OK);
    }
    assert_int_equal(sl_gguf_writer_write(test->writer, data, sizeof data, &test->error), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_commit(test->writer, &test->error), SLUICE_OK);
    assert_same_file(test->path, test->source);
}

static void the_short_forms_read_back(void **state)
{
    fixture *test = *state;
    open_writer(test);
    assert_int_equal(sl_gguf_writer_add_u32(test->writer, "answer", 42, NULL), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_add_string(test->writer, "general.name", "small", NULL), SLUICE_OK);
    assert_int_equal(access(test->path, F_OK), -1);
    assert_int_equal(sl_gguf_writer_commit(test->writer, NULL), SLUICE_OK);
    open_reader(test, test->path);
    uint32_t number = 0;
    sl_span text;
    assert_int_equal(sl_gguf_get_u32(test->reader, "answer", &number, NULL), SLUICE_OK);
    assert_int_equal(number, 42);
    assert_int_equal(sl_gguf_get_string(test->reader, "general.name", &text, NULL), SLUICE_OK);
    assert_true(sl_span_equal_text(text, "small"));
    assert_int_equal(test->reader->n_tensors, 0);
}

static const sl_gguf_tensor small_tensor = {
    .name = {"small", 5}, .type = SL_TYPE_F32, .n_dims = 1, .dims = {4, 1, 1, 1}};

static void a_file_without_its_data_cannot_be_completed(void **state)
{
    fixture *test = *state;
    open_writer(test);
    assert_int_equal(sl_gguf_writer_add_tensor(test->writer, &small_tensor, NULL), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_write(test->writer, "123", 3, NULL), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_commit(test->writer, &test->error), SLUICE_ERROR_ARGUMENT);
    assert_non_null(strstr(test->error.message, "expected 16 bytes of data, found 3"));
    assert_int_equal(access(test->path, F_OK), -1);
    assert_int_equal(sl_gguf_writer_write(test->writer, "4567890123456", 13, NULL), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_commit(test->writer, NULL), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_commit(test->writer, &test->error), SLUICE_ERROR_ARGUMENT);
    open_reader(test, test->path);
}

static void more_data_than_described_is_refused(void **state)
{
    fixture *test = *state;
    open_writer(test);
    assert_int_equal(sl_gguf_writer_add_tensor(test->writer, &small_tensor, NULL), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_write(test->writer, "12345678901234567", 17, &test->error), SLUICE_ERROR_ARGUMENT);
    assert_non_null(strstr(test->error.message, "1 bytes more"));
    assert_int_equal(sl_gguf_writer_commit(test->writer, NULL), SLUICE_ERROR_ARGUMENT);
    sl_gguf_writer_close(&test->writer);
    assert_int_equal(access(test->path, F_OK), -1);
}

static void nothing_is_described_after_the_first_data(void **state)
{
    fixture *test = *state;
    open_writer(test);
    assert_int_equal(sl_gguf_writer_write(test->writer, NULL, 0, NULL), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_add_u32(test->writer, "late", 1, &test->error), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sl_gguf_writer_add_tensor(test->writer, &small_tensor, &test->error), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sl_gguf_writer_commit(test->writer, NULL), SLUICE_OK);
}

static void names_that_the_reader_would_refuse_are_refused(void **state)
{
    fixture *test = *state;
    static char long_name[70000];
    memset(long_name, 'n', sizeof long_name);
    open_writer(test);
    static const size_t tensor_lengths[] = {0, SL_GGUF_MAX_NAME_BYTES + 1, sizeof long_name};
    for (size_t i = 0; i < sizeof tensor_lengths / sizeof tensor_lengths[0]; i++) {
        sl_gguf_tensor tensor = small_tensor;
        tensor.name = (sl_span){long_name, tensor_lengths[i]};
        assert_int_equal(sl_gguf_writer_add_tensor(test->writer, &tensor, &test->error), SLUICE_ERROR_ARGUMENT);
    }
    sl_gguf_tensor tensor = small_tensor;
    tensor.name = (sl_span){"a\0b", 3};
    assert_int_equal(sl_gguf_writer_add_tensor(test->writer, &tensor, &test->error), SLUICE_ERROR_ARGUMENT);
    uint8_t number = 1;
    sl_gguf_value value = {.type = SL_GGUF_U8, .element_type = SL_GGUF_U8, .count = 1, .numbers = &number};
    static const size_t key_lengths[] = {0, 65536};
    for (size_t i = 0; i < sizeof key_lengths / sizeof key_lengths[0]; i++) {
        value.key = (sl_span){long_name, key_lengths[i]};
        assert_int_equal(sl_gguf_writer_add_value(test->writer, &value, &test->error), SLUICE_ERROR_ARGUMENT);
    }
    value.key = (sl_span){long_name, 65535};
    assert_int_equal(sl_gguf_writer_add_value(test->writer, &value, &test->error), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_add_value(test->writer, &value, &test->error), SLUICE_ERROR_ARGUMENT);
    tensor.name = (sl_span){long_name, SL_GGUF_MAX_NAME_BYTES};
    tensor.dims[0] = 1;
    assert_int_equal(sl_gguf_writer_add_tensor(test->writer, &tensor, &test->error), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_add_tensor(test->writer, &tensor, &test->error), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sl_gguf_writer_write(test->writer, "1234", 4, NULL), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_commit(test->writer, NULL), SLUICE_OK);
    open_reader(test, test->path);
    assert_int_equal(test->reader->n_values, 1);
    assert_int_equal(test->reader->n_tensors, 1);
}

static void tensors_that_the_reader_would_refuse_are_refused(void **state)
{
    fixture *test = *state;
    static const sl_gguf_tensor tensors[] = {
        {.name = {"t", 1}, .type = SL_TYPE_F32, .n_dims = 0, .dims = {1, 1, 1, 1}},
        {.name = {"t", 1}, .type = SL_TYPE_F32, .n_dims = 5, .dims = {1, 1, 1, 1}},
        {.name = {"t", 1}, .type = SL_TYPE_F32, .n_dims = 2, .dims = {1, 0, 1, 1}},
        {.name = {"t", 1}, .type = SL_TYPE_Q4_K, .n_dims = 1, .dims = {255, 1, 1, 1}},
        {.name = {"t", 1}, .type = SL_TYPE_F32, .n_dims = 3, .dims = {1u << 30, 1u << 30, 1u << 30, 1}},
        {.name = {"t", 1}, .type = SL_TYPE_F32, .n_dims = 1, .dims = {UINT64_MAX, 1, 1, 1}},
        {.name = {"t", 1}, .type = (sl_type)4, .n_dims = 1, .dims = {32, 1, 1, 1}},
        {.name = {"t", 1}, .type = SL_TYPE_ACT_Q8_32, .n_dims = 1, .dims = {32, 1, 1, 1}},
        {.name = {"t", 1}, .type = (sl_type)-1, .n_dims = 1, .dims = {32, 1, 1, 1}},
    };
    open_writer(test);
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        assert_int_equal(sl_gguf_writer_add_tensor(test->writer, &tensors[i], &test->error), SLUICE_ERROR_ARGUMENT);
        assert_non_null(strstr(test->error.message, "tensor \"t\""));
    }
    /* Each fits a file, both together do not. */
    sl_gguf_tensor half = {.name = {"h", 1}, .type = SL_TYPE_I8, .n_dims = 1, .dims = {1ull << 62, 1, 1, 1}};
    assert_int_equal(sl_gguf_writer_add_tensor(test->writer, &half, NULL), SLUICE_OK);
    half.name = (sl_span){"i", 1};
    assert_int_equal(sl_gguf_writer_add_tensor(test->writer, &half, NULL), SLUICE_OK);
    assert_int_equal(sl_gguf_writer_write(test->writer, "1", 1, &test->error), SLUICE_ERROR_ARGUMENT);
}

static void values_that_the_reader_would_refuse_are_refused(void **state)
{
    fixture *test = *state;
    static const uint64_t number = 2;
    static const uint32_t alignments[] = {0, 3, 1u << 31};
    static const sl_gguf_value values[] = {
        {.key = {"k", 1}, .type = SL_GGUF_ARRAY, .element_type = SL_GGUF_ARRAY, .count = 1, .numbers = &number},
        {.key = {"k", 1}, .type = SL_GGUF_U8, .element_type = SL_GGUF_U16, .count = 1, .numbers = &number},
        {.key = {"k", 1}, .type = SL_GGUF_U8, .element_type = SL_GGUF_U8, .count = 2, .numbers = &number},
        {.key = {"k", 1}, .type = (sl_gguf_type)13, .element_type = (sl_gguf_type)13, .count = 1, .numbers = &number},
        {.key = {"k", 1}, .type = SL_GGUF_BOOL, .element_type = SL_GGUF_BOOL, .count = 1, .numbers = &number},
        {.key = {"k", 1}, .type = SL_GGUF_U8, .element_type = SL_GGUF_U8, .count = 1, .numbers = NULL},
        {.key = {"k", 1}, .type = SL_GGUF_STRING, .element_type = SL_GGUF_STRING, .count = 1, .numbers = &number},
        {.key = {"k", 1}, .type = SL_GGUF_ARRAY, .element_type = SL_GGUF_U64, .count = UINT64_MAX, .numbers = &number},
    };
    open_writer(test);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        assert_int_equal(sl_gguf_writer_add_value(test->writer, &values[i], &test->error), SLUICE_ERROR_ARGUMENT);
        assert_non_null(strstr(test->error.message, "key \"k\""));
    }
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
        assert_int_equal(sl_gguf_writer_add_u32(test->writer, "general.alignment", alignments[i], NULL),
                         SLUICE_ERROR_ARGUMENT);
    }
    assert_int_equal(sl_gguf_writer_add_string(test->writer, "general.alignment", "32", NULL), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sl_gguf_writer_commit(test->writer, NULL), SLUICE_OK);
    open_reader(test, test->path);
    assert_int_equal(test->reader->n_values, 0);
}

static void every_failed_allocation_is_handled(void **state)
{
    fixture *test = *state;
    store_source(test);
    open_reader(test, test->source);
    for (uint64_t n = 0;; n++) {
        failing_source source;
        sl_memory memory;
        failing_memory_init(&memory, &source, n);
        sl_gguf_writer *writer = NULL;
        sluice_status status = sl_gguf_writer_open(&writer, test->path, &memory, &test->error);
        if (status == SLUICE_OK) {
            status = copy_model(test->reader, writer, 100, &test->error);
        }
        sl_gguf_writer_close(&writer);
        assert_int_equal(memory.n_live, 0);
        if (source.n_calls <= n) {
            assert_int_equal(status, SLUICE_OK);
            assert_true(n > 5);
            break;
        }
        assert_int_equal(status, SLUICE_ERROR_NO_MEMORY);
        assert_int_equal(access(test->path, F_OK), -1);
    }
    assert_same_file(test->path, test->source);
}

static void a_value_refused_for_lack_of_memory_can_be_added_again(void **state)
{
    fixture *test = *state;
    store_source(test);
    open_reader(test, test->source);
    for (uint64_t n = 1; n < 40; n++) {
        failing_source source;
        sl_memory memory;
        failing_memory_init(&memory, &source, n);
        sl_gguf_writer *writer = NULL;
        assert_int_equal(sl_gguf_writer_open(&writer, test->path, &memory, NULL), SLUICE_OK);
        for (uint64_t i = 0; i < test->reader->n_values; i++) {
            sluice_status status = sl_gguf_writer_add_value(writer, &test->reader->values[i], NULL);
            if (status == SLUICE_ERROR_NO_MEMORY) {
                status = sl_gguf_writer_add_value(writer, &test->reader->values[i], NULL);
            }
            assert_int_equal(status, SLUICE_OK);
        }
        sluice_status status = sl_gguf_writer_commit(writer, NULL);
        if (status == SLUICE_ERROR_NO_MEMORY) {
            status = sl_gguf_writer_commit(writer, NULL);
        }
        assert_int_equal(status, SLUICE_OK);
        sl_gguf_writer_close(&writer);
        sl_gguf *written = NULL;
        assert_int_equal(sl_gguf_open(&written, test->path, &test->memory, NULL, NULL), SLUICE_OK);
        assert_int_equal(written->n_values, test->reader->n_values);
        sl_gguf_close(&written);
    }
}

int main(void)
{
#define WRITER_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WRITER_TEST(a_model_is_written_again_byte_for_byte),
        WRITER_TEST(a_trained_model_is_written_again_byte_for_byte),
        WRITER_TEST(a_piece_may_span_tensors),
        WRITER_TEST(the_short_forms_read_back),
        WRITER_TEST(a_file_without_its_data_cannot_be_completed),
        WRITER_TEST(more_data_than_described_is_refused),
        WRITER_TEST(nothing_is_described_after_the_first_data),
        WRITER_TEST(names_that_the_reader_would_refuse_are_refused),
        WRITER_TEST(tensors_that_the_reader_would_refuse_are_refused),
        WRITER_TEST(values_that_the_reader_would_refuse_are_refused),
        WRITER_TEST(every_failed_allocation_is_handled),
        WRITER_TEST(a_value_refused_for_lack_of_memory_can_be_added_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
