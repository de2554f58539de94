/* Small vocabularies of our own: every pre-tokenizer and SentencePiece give the ids that the reference libraries gave
 * when tools/make_vocabularies.py wrote tests/golden/text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "../support/tokenizer_file.h"
#include "text/pretokenizer_rules.h"

#define FOLDER "tests/golden/text/"
enum { PATH_BYTES = 200, MIN_TEXTS = 60 };

static FILE *open_file(const char *name, const char *suffix)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, FOLDER "%s%s", name, suffix);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fail_msg("%s is missing; run the tests from the repository's root", path);
    }
    return file;
}

/* Undo the escapes of texts.txt in place. */
static size_t unescape(char *line, size_t length)
{
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        if (line[i] != '\\') {
            line[used++] = line[i];
        } else if (line[i + 1] == '\\') {
            line[used++] = '\\';
            i++;
        } else {
            char digits[3] = {line[i + 2], line[i + 3], '\0'};
            line[used++] = (char)strtol(digits, NULL, 16);
            i += 3;
        }
    }
    return used;
}

static void expect_ids(tokenizer_file *file, sl_span text, size_t number, char *line)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    if (sl_tokenizer_encode(file->tokenizer, text, SL_ENCODE_PLAIN, &ids, &n_ids, &file->error) != SLUICE_OK) {
        fail_msg("%s", file->error.message);
    }
    size_t n_expected = 0;
    for (char *word = strtok(line, " \n"); word != NULL; word = strtok(NULL, " \n"), n_expected++) {
        long expected = strtol(word, NULL, 10);
        if (n_expected >= n_ids || ids[n_expected] != expected) {
            fail_msg("line %zu of texts.txt, \"%.*s\": id %zu is %d, expected %ld", number, SL_SPAN_ARGUMENTS(text),
                     n_expected, n_expected < n_ids ? ids[n_expected] : -1, expected);
        }
    }
    assert_int_equal(n_ids, n_expected);
    sl_free(&file->memory, ids);
}

static void expect_all_ids(tokenizer_file *file, const char *name)
{
    FILE *texts = open_file("texts", ".txt");
    FILE *lines = open_file(name, ".ids");
    char *text = NULL;
    char *line = NULL;
    size_t text_capacity = 0;
    size_t line_capacity = 0;
    size_t n_texts = 0;
    for (ssize_t length; (length = getline(&text, &text_capacity, texts)) > 0; n_texts++) {
        assert_true(getline(&line, &line_capacity, lines) > 0);
        size_t used = unescape(text, (size_t)length - 1);
        expect_ids(file, (sl_span){text, used}, n_texts + 1, line);
    }
    assert_true(n_texts > MIN_TEXTS);
    assert_true(getline(&line, &line_capacity, lines) < 0);
    free(text);
    free(line);
    fclose(lines);
    fclose(texts);
}

/* The vocabulary is the same for all; the file's own pre-tokenizer gives way to the one under test. */
static void every_pretokenizer_gives_the_ids_of_the_reference(void **state)
{
    (void)state;
    for (size_t i = 0; sl_pretokenizer_rule_at(i) != NULL; i++) {
        const char *name = sl_pretokenizer_rule_at(i)->name;
        tokenizer_file file;
        tokenizer_file_open_as(&file, FOLDER "bible-bpe.gguf", name);
        expect_all_ids(&file, name);
        tokenizer_file_close(&file);
    }
}

static void every_alias_names_a_pretokenizer(void **state)
{
    (void)state;
    for (size_t i = 0; sl_pretokenizer_alias_at(i) != NULL; i++) {
        assert_non_null(sl_pretokenizer_rule_find(sl_span_of(sl_pretokenizer_alias_at(i))));
    }
}

static void sentencepiece_gives_the_ids_of_the_reference(void **state)
{
    (void)state;
    tokenizer_file file;
    tokenizer_file_open(&file, FOLDER "bible-spm.gguf");
    expect_all_ids(&file, "bible-spm");
    tokenizer_file_close(&file);
}

static void sentencepiece_with_pieces_across_words_gives_the_ids_of_the_reference(void **state)
{
    (void)state;
    tokenizer_file file;
    tokenizer_file_open(&file, FOLDER "bible-spm-phrases.gguf");
    expect_all_ids(&file, "bible-spm-phrases");
    tokenizer_file_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pretokenizer_gives_the_ids_of_the_reference),
        cmocka_unit_test(every_alias_names_a_pretokenizer),
        cmocka_unit_test(sentencepiece_gives_the_ids_of_the_reference),
        cmocka_unit_test(sentencepiece_with_pieces_across_words_gives_the_ids_of_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
