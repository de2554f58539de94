/* From a GGUF file's tokenizer keys to a vocabulary spec. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include "../support/gguf_image.h"
#include "engine/vocabulary.h"

typedef struct fixture {
    char path[64];
    sl_memory memory;
    sluice_error error;
    sl_gguf *reader;
    sl_vocabulary_spec spec;
} fixture;

static int set_up(void **state)
{
    fixture *test = calloc(1, sizeof *test);
    assert_non_null(test);
    snprintf(test->path, sizeof test->path, "%s/sluice-vocabulary-XXXXXX", P_tmpdir);
    int descriptor = mkstemp(test->path);
    assert_true(descriptor >= 0);
    close(descriptor);
    sl_memory_init(&test->memory, NULL);
    *state = test;
    return 0;
}

static int tear_down(void **state)
{
    fixture *test = *state;
    sl_gguf_close(&test->reader);
    uint64_t n_live = test->memory.n_live;
    unlink(test->path);
    free(test);
    return n_live == 0 ? 0 : -1;
}

/* Write `image` and read its vocabulary. */
static sluice_status read_spec(fixture *test, gguf_image *image)
{
    image_store(image, test->path);
    sl_gguf_close(&test->reader);
    if (sl_gguf_open(&test->reader, test->path, &test->memory, NULL, &test->error) != SLUICE_OK) {
        fail_msg("%s", test->error.message);
    }
    return sl_vocabulary_spec_from_gguf(test->reader, &test->spec, &test->error);
}

static void put_strings(gguf_image *image, const char *key, const char *first, const char *second)
{
    image_put_key_array(image, key, SL_GGUF_STRING, 2);
    image_put_string(image, first);
    image_put_string(image, second);
}

static void expect_failure(fixture *test, gguf_image *image, sluice_status status, const char *mentioned)
{
    assert_int_equal(read_spec(test, image), status);
    if (strstr(test->error.message, mentioned) == NULL) {
        fail_msg("\"%s\" does not mention \"%s\"", test->error.message, mentioned);
    }
}

static void every_key_finds_its_field(void **state)
{
    fixture *test = *state;
    gguf_image image = {0};
    image_put_header(&image, 3, 0, 12);
    image_put_key_string(&image, "tokenizer.ggml.model", "gpt2");
    image_put_key_string(&image, "tokenizer.ggml.pre", "qwen2");
    put_strings(&image, "tokenizer.ggml.tokens", "a", "bc");
    put_strings(&image, "tokenizer.ggml.merges", "b c", "c d");
    image_put_key_array(&image, "tokenizer.ggml.scores", SL_GGUF_F32, 2);
    image_put_u32(&image, 0x3f800000);
    image_put_u32(&image, 0);
    image_put_key_array(&image, "tokenizer.ggml.token_type", SL_GGUF_I32, 2);
    image_put_u32(&image, 1);
    image_put_u32(&image, 3);
    image_put_key_u32(&image, "tokenizer.ggml.bos_token_id", 1);
    image_put_key_u32(&image, "tokenizer.ggml.eos_token_id", 0);
    image_put_key_u32(&image, "tokenizer.ggml.eot_token_id", UINT32_MAX);
    image_put_key(&image, "tokenizer.ggml.add_bos_token", SL_GGUF_BOOL);
    image_put_u8(&image, 1);
    image_put_key(&image, "tokenizer.ggml.add_eos_token", SL_GGUF_BOOL);
    image_put_u8(&image, 0);
    image_put_key(&image, "tokenizer.ggml.add_space_prefix", SL_GGUF_BOOL);
    image_put_u8(&image, 0);
    if (read_spec(test, &image) != SLUICE_OK) {
        fail_msg("%s", test->error.message);
    }
    const sl_vocabulary_spec *spec = &test->spec;
    assert_true(sl_span_equal_text(spec->model, "gpt2") && sl_span_equal_text(spec->pre, "qwen2"));
    assert_true(spec->n_tokens == 2 && sl_span_equal_text(spec->tokens[1], "bc"));
    assert_true(spec->n_merges == 2 && sl_span_equal_text(spec->merges[0], "b c"));
    assert_non_null(spec->scores);
    assert_non_null(spec->types);
    assert_int_equal(spec->bos_id, 1);
    assert_int_equal(spec->eos_id, 0);
    assert_int_equal(spec->eot_id, -1);
    assert_int_equal(spec->eom_id, -1);
    assert_int_equal(spec->unknown_id, -1);
    assert_int_equal(spec->padding_id, -1);
    assert_int_equal(spec->add_bos, SL_RULE_YES);
    assert_int_equal(spec->add_eos, SL_RULE_NO);
    assert_int_equal(spec->add_space_prefix, SL_RULE_NO);
    assert_int_equal(spec->remove_extra_whitespaces, SL_RULE_DEFAULT);
}

static void only_model_and_tokens_are_needed(void **state)
{
    fixture *test = *state;
    gguf_image image = {0};
    image_put_header(&image, 3, 0, 2);
    image_put_key_string(&image, "tokenizer.ggml.model", "llama");
    put_strings(&image, "tokenizer.ggml.tokens", "a", "b");
    assert_int_equal(read_spec(test, &image), SLUICE_OK);
    assert_int_equal(test->spec.pre.length, 0);
    assert_int_equal(test->spec.n_merges, 0);
    assert_null(test->spec.scores);
    assert_null(test->spec.types);
}

static void a_file_without_a_vocabulary_is_not_found(void **state)
{
    fixture *test = *state;
    gguf_image image = {0};
    image_put_header(&image, 3, 0, 1);
    image_put_key_string(&image, "general.architecture", "test");
    expect_failure(test, &image, SLUICE_ERROR_NOT_FOUND, "tokenizer.ggml.model");
    image_put_header(&image, 3, 0, 1);
    image_put_key_string(&image, "tokenizer.ggml.model", "gpt2");
    expect_failure(test, &image, SLUICE_ERROR_NOT_FOUND, "tokenizer.ggml.tokens");
}

static void arrays_of_the_wrong_type_or_length_are_refused(void **state)
{
    fixture *test = *state;
    gguf_image image = {0};
    image_put_header(&image, 3, 0, 2);
    image_put_key_string(&image, "tokenizer.ggml.model", "gpt2");
    image_put_key_array(&image, "tokenizer.ggml.tokens", SL_GGUF_U32, 1);
    image_put_u32(&image, 7);
    expect_failure(test, &image, SLUICE_ERROR_FORMAT, "tokenizer.ggml.tokens");

    image_put_header(&image, 3, 0, 3);
    image_put_key_string(&image, "tokenizer.ggml.model", "gpt2");
    put_strings(&image, "tokenizer.ggml.tokens", "a", "b");
    image_put_key_array(&image, "tokenizer.ggml.token_type", SL_GGUF_I32, 1);
    image_put_u32(&image, 1);
    expect_failure(test, &image, SLUICE_ERROR_FORMAT, "tokenizer.ggml.token_type");

    image_put_header(&image, 3, 0, 3);
    image_put_key_string(&image, "tokenizer.ggml.model", "gpt2");
    put_strings(&image, "tokenizer.ggml.tokens", "a", "b");
    put_strings(&image, "tokenizer.ggml.scores", "1", "2");
    expect_failure(test, &image, SLUICE_ERROR_FORMAT, "tokenizer.ggml.scores");
}

static void an_id_beyond_every_vocabulary_is_refused(void **state)
{
    fixture *test = *state;
    gguf_image image = {0};
    image_put_header(&image, 3, 0, 3);
    image_put_key_string(&image, "tokenizer.ggml.model", "gpt2");
    put_strings(&image, "tokenizer.ggml.tokens", "a", "b");
    image_put_key_u32(&image, "tokenizer.ggml.bos_token_id", 0x80000000u);
    expect_failure(test, &image, SLUICE_ERROR_FORMAT, "tokenizer.ggml.bos_token_id");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_key_finds_its_field),
        TEST(only_model_and_tokens_are_needed),
        TEST(a_file_without_a_vocabulary_is_not_found),
        TEST(arrays_of_the_wrong_type_or_length_are_refused),
        TEST(an_id_beyond_every_vocabulary_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
