/* Published vocabularies, read in place: their own test texts give the ids that the reference tokenizers give, and a
 * text of every kind reads back byte for byte, save for bytes that a vocabulary cannot express. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../support/mixed_text.h"
#include "../support/tokenizer_file.h"

#define FOLDER "../shared/data/vocab/"
#define NEVER_IN_UTF8 "\xc0\xc1\xf5\xf6\xf7\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff"
#define SEPARATOR "\n__ggml_vocab_test__\n"

enum { PATH_BYTES = 200, MIXED_BYTES = 200 * 1024 };

/* Tests are named by the vocabulary they take, in `*state`. */
static const char *path_of(void **state, const char *suffix, char *path)
{
    snprintf(path, PATH_BYTES, FOLDER "ggml-vocab-%s.gguf%s", (const char *)*state, suffix);
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not there\n", path);
        skip();
    }
    return path;
}

static char *read_whole_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long length = ftell(file);
    rewind(file);
    char *text = calloc((size_t)length + 1, 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)length, file), (size_t)length);
    fclose(file);
    return text;
}

static void expect_ids(tokenizer_file *file, sl_span text, const char *line)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    if (sl_tokenizer_encode(file->tokenizer, text, SL_ENCODE_PLAIN, &ids, &n_ids, &file->error) != SLUICE_OK) {
        fail_msg("%s", file->error.message);
    }
    char *rest = (char *)line;
    for (size_t i = 0;; i++) {
        char *end = rest;
        while (*rest == ' ') {
            rest++;
        }
        if (*rest == '\n' || *rest == '\0') {
            assert_int_equal(n_ids, i);
            break;
        }
        long expected = strtol(rest, &end, 10);
        if (end == rest || i >= n_ids || ids[i] != expected) {
            fail_msg("\"%.*s\": id %zu is %d of %zu ids, expected %ld", SL_SPAN_ARGUMENTS(text), i,
                     i < n_ids ? ids[i] : -1, n_ids, expected);
        }
        rest = end;
    }
    sl_free(&file->memory, ids);
}

static void the_test_texts_give_the_reference_ids(void **state)
{
    char path[PATH_BYTES];
    char *texts = read_whole_file(path_of(state, ".inp", path));
    char *lines = read_whole_file(path_of(state, ".out", path));
    tokenizer_file file;
    tokenizer_file_open(&file, path_of(state, "", path));
    size_t n_texts = 0;
    const char *line = lines;
    for (char *text = texts; *text != '\0'; n_texts++) {
        char *end = strstr(text, SEPARATOR);
        size_t length = end == NULL ? strlen(text) : (size_t)(end - text);
        expect_ids(&file, (sl_span){text, length}, line);
        const char *newline = strchr(line, '\n');
        if (end == NULL || newline == NULL) {
            assert_null(end);
            break;
        }
        text = end + strlen(SEPARATOR);
        line = newline + 1;
    }
    assert_true(n_texts > 40);
    tokenizer_file_close(&file);
    free(lines);
    free(texts);
}

static void expect_round_trip(tokenizer_file *file, sl_span text, unsigned flags, sl_span expected)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    sl_text decoded;
    sl_text_init(&decoded, &file->memory, SL_MEMORY_TEXT);
    if (sl_tokenizer_encode(file->tokenizer, text, flags, &ids, &n_ids, &file->error) != SLUICE_OK ||
        sl_tokenizer_decode(file->tokenizer, ids, n_ids, true, &decoded, &file->error) != SLUICE_OK) {
        fail_msg("%s", file->error.message);
    }
    size_t same = 0;
    while (same < decoded.length && same < expected.length && decoded.data[same] == expected.data[same]) {
        same++;
    }
    if (decoded.length != expected.length || same != expected.length) {
        fail_msg("%zu bytes read back as %zu; the first that differs is byte %zu", expected.length, decoded.length,
                 same);
    }
    sl_text_fini(&decoded);
    sl_free(&file->memory, ids);
}

/* The bytes for which a published vocabulary has no token; U+FFFD stands for them. Most cannot occur in UTF-8. */
static const struct {
    const char *vocabulary;
    const char *missing_bytes;
} incomplete[] = {
    {"deepseek-coder", NEVER_IN_UTF8},
    {"deepseek-llm", NEVER_IN_UTF8},
    {"falcon", NEVER_IN_UTF8 "\x03\x04\x05\x0b\x11\x13\x14\x15\x16\x17\x19\x1c\x1d\x1e\xf2"},
    {"gpt-neox", NEVER_IN_UTF8},
    {"mpt", NEVER_IN_UTF8},
    {"refact", NEVER_IN_UTF8 "\xf1"},
    {"starcoder", NEVER_IN_UTF8 "\xf1"},
};

static const char *missing_bytes_of(const char *vocabulary)
{
    for (size_t i = 0; i < sizeof incomplete / sizeof incomplete[0]; i++) {
        if (strcmp(incomplete[i].vocabulary, vocabulary) == 0) {
            return incomplete[i].missing_bytes;
        }
    }
    return "";
}

static void a_mixed_text_reads_back_byte_for_byte(void **state)
{
    char path[PATH_BYTES];
    tokenizer_file file;
    tokenizer_file_open(&file, path_of(state, "", path));
    sl_text mixed;
    sl_text expected;
    sl_text_init(&mixed, &file.memory, SL_MEMORY_TEXT);
    sl_text_init(&expected, &file.memory, SL_MEMORY_TEXT);
    append_mixed_text(&mixed, MIXED_BYTES, 1);
    const char *missing = missing_bytes_of(*state);
    for (size_t i = 0; i < mixed.length; i++) {
        bool is_missing = mixed.data[i] != '\0' && strchr(missing, mixed.data[i]) != NULL;
        assert_true(sl_text_append(&expected, is_missing ? "\xef\xbf\xbd" : &mixed.data[i], is_missing ? 3 : 1));
    }
    sl_span text = {mixed.data, mixed.length};
    expect_round_trip(&file, text, SL_ENCODE_PLAIN, (sl_span){expected.data, expected.length});
    expect_round_trip(&file, text, SL_ENCODE_PARSE_SPECIAL, (sl_span){expected.data, expected.length});
    sl_text_fini(&expected);
    sl_text_fini(&mixed);
    tokenizer_file_close(&file);
}

/* What reading back means for SentencePiece: the space that encoding puts in front goes away again, one that the text
 * begins with stays; U+2581 stands for a space, so it comes back as one. */
static void leading_spaces_stay_and_the_space_sign_becomes_a_space(void **state)
{
    char path[PATH_BYTES];
    tokenizer_file file;
    tokenizer_file_open(&file, path_of(state, "", path));
    const char *const kept[] = {"", " ", "  ", "a", " a", "   a  b ", "\n a", "\xff a"};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        expect_round_trip(&file, sl_span_of(kept[i]), SL_ENCODE_PLAIN, sl_span_of(kept[i]));
    }
    expect_round_trip(&file, sl_span_of("<s>a</s> b</s>"), SL_ENCODE_PARSE_SPECIAL, sl_span_of("<s>a</s> b</s>"));
    expect_round_trip(&file, sl_span_of("a\xe2\x96\x81\x62"), SL_ENCODE_PLAIN, sl_span_of("a b"));
    tokenizer_file_close(&file);
}

static void the_demo_model_reads_its_prompt(void **state)
{
    (void)state;
    const char *path = "../shared/data/demo-model/tales-moe-f16.gguf";
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not there\n", path);
        skip();
    }
    tokenizer_file file;
    tokenizer_file_open(&file, path);
    expect_ids(&file, sl_span_of("Once upon a time there was a king who"), "79 1794 506 258 635 425 363 258 469 490");
    assert_false(sl_tokenizer_adds_bos(file.tokenizer));
    assert_true(sl_tokenizer_is_stop(file.tokenizer, 4095));
    tokenizer_file_close(&file);
}

#define REFERENCE(vocabulary)                                                                                          \
    {                                                                                                                  \
        "the_test_texts_give_the_reference_ids: " vocabulary, the_test_texts_give_the_reference_ids, NULL, NULL,       \
            (void *)vocabulary                                                                                         \
    }
#define READS_BACK(vocabulary)                                                                                         \
    {                                                                                                                  \
        "a_mixed_text_reads_back_byte_for_byte: " vocabulary, a_mixed_text_reads_back_byte_for_byte, NULL, NULL,       \
            (void *)vocabulary                                                                                         \
    }
#define LEADING_SPACES(vocabulary)                                                                                     \
    {                                                                                                                  \
        "leading_spaces_stay_and_the_space_sign_becomes_a_space: " vocabulary,                                         \
            leading_spaces_stay_and_the_space_sign_becomes_a_space, NULL, NULL, (void *)vocabulary                     \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        REFERENCE("deepseek-coder"), REFERENCE("deepseek-llm"),
        REFERENCE("falcon"),         REFERENCE("gpt-2"),
        REFERENCE("llama-spm"),      REFERENCE("mpt"),
        REFERENCE("phi-3"),          REFERENCE("refact"),
        REFERENCE("starcoder"),      READS_BACK("deepseek-coder"),
        READS_BACK("deepseek-llm"),  READS_BACK("falcon"),
        READS_BACK("gpt-2"),         READS_BACK("gpt-neox"),
        READS_BACK("llama-spm"),     READS_BACK("mpt"),
        READS_BACK("phi-3"),         READS_BACK("refact"),
        READS_BACK("starcoder"),     LEADING_SPACES("llama-spm"),
        LEADING_SPACES("phi-3"),     cmocka_unit_test(the_demo_model_reads_its_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
