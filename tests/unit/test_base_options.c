/* The option registry: tables that agree with themselves, and command lines that are understood or refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/options.h"
#include "base/options_table.h"

/* Literals are const, argv is not; nothing writes to either. */
#define WORDS(...) ((char *const *)(const char *const[]){__VA_ARGS__, NULL})

static sluice_status parse_in(sl_options *options, sl_command command, char *const *words, char *const *environment,
                              sluice_error *error)
{
    int n_words = 0;
    while (words[n_words] != NULL) {
        n_words++;
    }
    return sl_options_parse(options, command, n_words, words, environment, error);
}

static void expect_refused(sl_command command, char *const *words, const char *part_of_message)
{
    sl_options options;
    sluice_error error = {0};
    assert_int_equal(parse_in(&options, command, words, NULL, &error), SLUICE_ERROR_ARGUMENT);
    if (strstr(error.message, part_of_message) == NULL) {
        fail_msg("expected \"%s\" in \"%s\"", part_of_message, error.message);
    }
}

static sl_options expect_accepted(sl_command command, char *const *words)
{
    sl_options options;
    sluice_error error = {0};
    if (parse_in(&options, command, words, NULL, &error) != SLUICE_OK) {
        fail_msg("refused: %s", error.message);
    }
    return options;
}

static void names_are_unique_within_a_command(void **state)
{
    (void)state;
    for (int i = 0; i < SL_OPTION_COUNT; i++) {
        const sl_option_row *a = &sl_option_table[i];
        assert_non_null(a->name);
        assert_int_not_equal(a->commands, 0);
        assert_int_equal(a->required & ~a->commands, 0);
        for (int j = i + 1; j < SL_OPTION_COUNT; j++) {
            const sl_option_row *b = &sl_option_table[j];
            if ((a->commands & b->commands) == 0) {
                continue;
            }
            assert_string_not_equal(a->name, b->name);
            assert_false(a->letter != '\0' && a->letter == b->letter);
        }
    }
}

static void environment_names_are_unique_and_prefixed(void **state)
{
    (void)state;
    for (int i = 0; i < SL_OPTION_COUNT; i++) {
        const char *name = sl_option_table[i].environment;
        if (name == NULL) {
            continue;
        }
        assert_memory_equal(name, "SLUICE_", 7);
        for (int j = i + 1; j < SL_OPTION_COUNT; j++) {
            assert_false(sl_option_table[j].environment != NULL && strcmp(sl_option_table[j].environment, name) == 0);
        }
    }
}

static void defaults_are_values_of_their_type(void **state)
{
    (void)state;
    sl_options options = expect_accepted(SL_COMMAND_RUN, WORDS("-m", "a.gguf"));
    assert_true(sl_options_number(&options, SL_OPTION_TEMPERATURE) == 0.8);
    assert_int_equal(sl_options_integer(&options, SL_OPTION_TOP_K), 40);
    assert_string_equal(sl_options_text(&options, SL_OPTION_KV), "f16");
    assert_false(sl_options_given(&options, SL_OPTION_KV));
    assert_string_equal(sl_options_text(&options, SL_OPTION_MEM), "auto");
    assert_int_equal(sl_options_integer(&options, SL_OPTION_MEM), 0);
}

static void every_spelling_of_a_value_is_understood(void **state)
{
    (void)state;
    sl_options options = expect_accepted(SL_COMMAND_RUN, WORDS("--model=a=b.gguf", "-t", "4", "--mem", "1.5G", "--temp",
                                                               "0", "-p", "-1 is negative", "--ignore-eos"));
    assert_string_equal(sl_options_text(&options, SL_OPTION_MODEL), "a=b.gguf");
    assert_int_equal(sl_options_integer(&options, SL_OPTION_THREADS), 4);
    assert_int_equal(sl_options_integer(&options, SL_OPTION_MEM), 1536ULL << 20);
    assert_true(sl_options_number(&options, SL_OPTION_TEMPERATURE) == 0.0);
    assert_string_equal(sl_options_text(&options, SL_OPTION_PROMPT), "-1 is negative");
    assert_true(sl_options_flag(&options, SL_OPTION_IGNORE_EOS));
}

static void the_same_letter_means_what_the_command_says(void **state)
{
    (void)state;
    sl_options options = expect_accepted(SL_COMMAND_BENCH, WORDS("-m", "a", "-p", "7", "-n", "9", "-r", "1"));
    assert_int_equal(sl_options_integer(&options, SL_OPTION_PROMPT_TOKENS), 7);
    assert_int_equal(sl_options_integer(&options, SL_OPTION_GENERATED_TOKENS), 9);
    assert_false(sl_options_given(&options, SL_OPTION_PROMPT));
}

static void a_mistyped_option_gets_a_suggestion(void **state)
{
    (void)state;
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--theads", "4"), "did you mean --threads?");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--ctx-size=4"), "unknown option --ctx-size");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "-temp", "4"), "did you mean --temp?");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--ignore"), "did you mean --ignore-eos?");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "-t4"), "its value the next word");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "-z"), "unknown option -z");
}

static void an_option_of_another_command_is_named_as_such(void **state)
{
    (void)state;
    expect_refused(SL_COMMAND_INSPECT, WORDS("-m", "a", "--temp", "1"), "--temp is an option of run, not of inspect");
}

static void values_outside_their_range_are_refused(void **state)
{
    (void)state;
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "-t", "0"), "a whole number from 1 to 1024, found \"0\"");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "-t", "-3"), "found \"-3\"");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "-t", "4x"), "found \"4x\"");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "-t", ""), "found \"\"");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--seed", "18446744073709551616"), "--seed");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--chunk", "513"), "1 to 512");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--temp", "nan"), "a number from 0 to 100");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--top-p", "1.01"), "--top-p");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--mem", "lots"), "as in 700M");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--mem", "lots"), "or auto");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--mem", "0"), "--mem");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--mem", "automatic"), "--mem");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--io", "uringg"), "did you mean uring?");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--kv", "q8"), "one of f16, f32, q8_0");
    expect_refused(SL_COMMAND_LOGITS, WORDS("-m", "a", "--tokens", "1,x"), "token ids");
}

static void the_largest_seed_is_kept_exactly(void **state)
{
    (void)state;
    sl_options options = expect_accepted(SL_COMMAND_RUN, WORDS("-m", "a", "--seed", "18446744073709551615"));
    assert_true(sl_options_integer(&options, SL_OPTION_SEED) == UINT64_MAX);
}

static void missing_values_and_options_are_refused(void **state)
{
    (void)state;
    expect_refused(SL_COMMAND_RUN, WORDS("-m"), "--model needs a value");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--stats", "--json"), "--stats needs a value");
    expect_refused(SL_COMMAND_RUN, WORDS("-p", "hello"), "--model FILE is missing");
    expect_refused(SL_COMMAND_PERPLEXITY, WORDS("-m", "a"), "--file FILE is missing");
    expect_refused(SL_COMMAND_QUANTIZE, WORDS("in.gguf", "out.gguf"), "TYPE is missing");
}

static void duplicates_and_conflicts_are_refused(void **state)
{
    (void)state;
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "-t", "4", "--threads", "4"), "--threads is given twice");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--ignore-eos", "--ignore-eos"), "given twice");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "-p", "x", "-f", "y"), "--prompt and --file exclude each other");
    expect_refused(SL_COMMAND_TOKENIZE, WORDS("-m", "a", "--decode", "1", "--ids"), "exclude each other");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "--ignore-eos=1"), "--ignore-eos takes no value");
    expect_refused(SL_COMMAND_RUN, WORDS("-m", "a", "tale"), "unexpected argument \"tale\"");
    expect_refused(SL_COMMAND_QUANTIZE, WORDS("a", "b", "Q4_K", "d"), "unexpected argument \"d\"");
}

static void operands_and_repeated_options_keep_their_order(void **state)
{
    (void)state;
    sl_options options = expect_accepted(
        SL_COMMAND_QUANTIZE, WORDS("in", "--tensor", "a=F16", "out", "--tensor=b=Q8_0", "--", "--strange-type"));
    assert_int_equal(options.n_operands, 3);
    assert_string_equal(options.operands[0], "in");
    assert_string_equal(options.operands[1], "out");
    assert_string_equal(options.operands[2], "--strange-type");
    assert_int_equal(options.n_list, 2);
    assert_string_equal(options.list[0], "a=F16");
    assert_string_equal(options.list[1], "b=Q8_0");
}

static void more_repeated_options_than_fit_are_refused(void **state)
{
    (void)state;
    static char word[] = "--tensor=a=F16";
    char *words[SL_MAX_LIST + 2] = {0};
    for (int i = 0; i <= SL_MAX_LIST; i++) {
        words[i] = word;
    }
    expect_refused(SL_COMMAND_QUANTIZE, words, "more than 64 times");
}

static void help_wins_over_everything_else(void **state)
{
    (void)state;
    sl_options options = expect_accepted(SL_COMMAND_RUN, WORDS("--nonsense", "--help"));
    assert_true(sl_options_flag(&options, SL_OPTION_HELP));
}

static void the_environment_fills_in_what_argv_leaves_open(void **state)
{
    (void)state;
    sl_options options;
    sluice_error error = {0};
    char *const *environment = WORDS("HOME=/", "SLUICE_THREADS=3", "SLUICE_MEM=2G", "SLUICE_BINARY=build/sluice");
    assert_int_equal(parse_in(&options, SL_COMMAND_RUN, WORDS("-m", "a", "-t", "5"), environment, &error), SLUICE_OK);
    assert_int_equal(sl_options_integer(&options, SL_OPTION_THREADS), 5);
    assert_int_equal(sl_options_integer(&options, SL_OPTION_MEM), 2ULL << 30);
    assert_true(sl_options_given(&options, SL_OPTION_MEM));
    assert_int_equal(parse_in(&options, SL_COMMAND_RUN, WORDS("-m", "a", "--mem", "auto"), environment, &error),
                     SLUICE_OK);
    assert_int_equal(sl_options_integer(&options, SL_OPTION_MEM), 0);
    assert_int_equal(parse_in(&options, SL_COMMAND_RUN, WORDS("-m", "a"), WORDS("SLUICE_MEM=auto"), &error), SLUICE_OK);
    assert_int_equal(sl_options_integer(&options, SL_OPTION_MEM), 0);
}

static void an_unknown_variable_is_refused_with_a_suggestion(void **state)
{
    (void)state;
    sl_options options;
    sluice_error error = {0};
    assert_int_equal(parse_in(&options, SL_COMMAND_RUN, WORDS("-m", "a"), WORDS("SLUICE_THREDS=3"), &error),
                     SLUICE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "did you mean SLUICE_THREADS?"));
    assert_int_equal(parse_in(&options, SL_COMMAND_RUN, WORDS("-m", "a"), WORDS("SLUICE_FAST=1"), &error),
                     SLUICE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "SLUICE_FAST is unknown"));
}

static void a_bad_variable_is_named_in_the_error(void **state)
{
    (void)state;
    sl_options options;
    sluice_error error = {0};
    assert_int_equal(parse_in(&options, SL_COMMAND_RUN, WORDS("-m", "a"), WORDS("SLUICE_MEM=much"), &error),
                     SLUICE_ERROR_ARGUMENT);
    assert_memory_equal(error.message, "SLUICE_MEM: expected", 20);
}

static void commands_are_found_or_suggested(void **state)
{
    (void)state;
    sl_command command;
    sluice_error error = {0};
    assert_int_equal(sl_command_find("tokenize", &command, &error), SLUICE_OK);
    assert_int_equal(command, SL_COMMAND_TOKENIZE);
    assert_int_equal(sl_command_find("quantise", &command, &error), SLUICE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "did you mean quantize?"));
    assert_int_equal(sl_command_find("chat", &command, &error), SLUICE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "the commands are run, bench"));
}

static void help_names_every_option_and_fits_the_screen(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    for (int command = 0; command < SL_COMMAND_COUNT; command++) {
        sl_text text;
        sl_text_init(&text, &memory, SL_MEMORY_OTHER);
        assert_true(sl_options_help(&text, (sl_command)command));
        for (int i = 0; i < SL_OPTION_COUNT; i++) {
            const sl_option_row *row = &sl_option_table[i];
            char name[64];
            snprintf(name, sizeof name, "--%s ", row->name);
            assert_true(!sl_option_belongs(row, (sl_command)command) || strstr(text.data, name) != NULL);
        }
        for (const char *line = text.data; *line != '\0'; line += strcspn(line, "\n") + 1) {
            assert_true(strcspn(line, "\n") <= 100);
        }
        sl_text_fini(&text);
    }
    assert_int_equal(memory.n_live, 0);
}

static void token_ids_are_split_at_commas_and_blanks(void **state)
{
    (void)state;
    int32_t ids[4] = {0};
    size_t n_ids = 0;
    assert_true(sl_parse_token_ids(" 1,2, 3\n2147483647,", ids, 4, &n_ids));
    assert_int_equal(n_ids, 4);
    assert_int_equal(ids[2], 3);
    assert_int_equal(ids[3], INT32_MAX);
    assert_false(sl_parse_token_ids("", NULL, 0, &n_ids));
    assert_false(sl_parse_token_ids("-1", NULL, 0, &n_ids));
    assert_false(sl_parse_token_ids("2147483648", NULL, 0, &n_ids));
    assert_false(sl_parse_token_ids("1;2", NULL, 0, &n_ids));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_unique_within_a_command),
        cmocka_unit_test(environment_names_are_unique_and_prefixed),
        cmocka_unit_test(defaults_are_values_of_their_type),
        cmocka_unit_test(every_spelling_of_a_value_is_understood),
        cmocka_unit_test(the_same_letter_means_what_the_command_says),
        cmocka_unit_test(a_mistyped_option_gets_a_suggestion),
        cmocka_unit_test(an_option_of_another_command_is_named_as_such),
        cmocka_unit_test(values_outside_their_range_are_refused),
        cmocka_unit_test(the_largest_seed_is_kept_exactly),
        cmocka_unit_test(missing_values_and_options_are_refused),
        cmocka_unit_test(duplicates_and_conflicts_are_refused),
        cmocka_unit_test(operands_and_repeated_options_keep_their_order),
        cmocka_unit_test(more_repeated_options_than_fit_are_refused),
        cmocka_unit_test(help_wins_over_everything_else),
        cmocka_unit_test(the_environment_fills_in_what_argv_leaves_open),
        cmocka_unit_test(an_unknown_variable_is_refused_with_a_suggestion),
        cmocka_unit_test(a_bad_variable_is_named_in_the_error),
        cmocka_unit_test(commands_are_found_or_suggested),
        cmocka_unit_test(help_names_every_option_and_fits_the_screen),
        cmocka_unit_test(token_ids_are_split_at_commas_and_blanks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
