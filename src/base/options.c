/* Owns nothing: turns a command line and the environment into values that borrow from them.
 *
 * Invariants after a successful parse: (1) a value is present when it was given or its row has a default; (2) every
 * number is inside its row's range; (3) no two excluding options are given; (4) operands and required options are
 * there, unless help was asked for. This is the only file that looks at the environment. Threads: no state. */
#include "base/options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options_table.h"

static const char environment_prefix[] = "SLUICE_";
/* Names that belong to the project's own tests and tools, which run the program. */
static const char test_prefix[] = "SLUICE_TEST_";
static const char test_binary[] = "SLUICE_BINARY";

enum { MAX_WORD = 40 }; /* longest word that suggestions are looked for */

/* ---- Suggestions ------------------------------------------------------------------------------------------------- */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Insertions, deletions, substitutions and swaps of neighbours between two words. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t n_a = strlen(a);
    size_t n_b = strlen(b);
    if (n_a > MAX_WORD || n_b > MAX_WORD) {
        return SIZE_MAX;
    }
    size_t rows[MAX_WORD + 1][MAX_WORD + 1];
    for (size_t i = 0; i <= n_a; i++) {
        rows[i][0] = i;
    }
    for (size_t j = 0; j <= n_b; j++) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= n_a; i++) {
        for (size_t j = 1; j <= n_b; j++) {
            size_t best = rows[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            best = smaller(best, smaller(rows[i - 1][j], rows[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                best = smaller(best, rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    return rows[n_a][n_b];
}

/* The nearest word so far. */
typedef struct suggestion {
    const char *word; /* borrowed */
    size_t distance;
} suggestion;

static void consider(suggestion *best, const char *typed, const char *word)
{
    size_t n_typed = strlen(typed);
    size_t distance = edit_distance(typed, word);
    if (n_typed >= 2 && strncmp(typed, word, n_typed) == 0) {
        distance = 1; /* an abbreviation */
    }
    if (distance <= smaller(2, n_typed / 2) && (best->word == NULL || distance < best->distance)) {
        *best = (suggestion){.word = word, .distance = distance};
    }
}

/* ---- Finding rows ------------------------------------------------------------------------------------------------ */

const char *sl_command_name(sl_command command)
{
    return sl_command_table[command].name;
}

sluice_status sl_command_find(const char *name, sl_command *command, sluice_error *error)
{
    suggestion best = {0};
    for (int i = 0; i < SL_COMMAND_COUNT; i++) {
        if (strcmp(sl_command_table[i].name, name) == 0) {
            *command = (sl_command)i;
            return SLUICE_OK;
        }
        consider(&best, name, sl_command_table[i].name);
    }
    if (best.word != NULL) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "unknown command %.200s; did you mean %s?", name, best.word);
    }
    char names[256] = "";
    for (int i = 0; i < SL_COMMAND_COUNT; i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i == 0 ? "" : ", ", sl_command_table[i].name);
    }
    return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "unknown command %.200s; the commands are %s", name, names);
}

/* The option of `command` with that name, or SL_OPTION_COUNT. */
static sl_option_id find_name(sl_command command, const char *name, size_t length)
{
    for (int i = 0; i < SL_OPTION_COUNT; i++) {
        const sl_option_row *row = &sl_option_table[i];
        if (sl_option_belongs(row, command) && strlen(row->name) == length && memcmp(row->name, name, length) == 0) {
            return (sl_option_id)i;
        }
    }
    return SL_OPTION_COUNT;
}

static sl_option_id find_letter(sl_command command, char letter)
{
    for (int i = 0; i < SL_OPTION_COUNT; i++) {
        if (sl_option_belongs(&sl_option_table[i], command) && sl_option_table[i].letter == letter) {
            return (sl_option_id)i;
        }
    }
    return SL_OPTION_COUNT;
}

static sluice_status unknown_name(sl_command command, const char *name, size_t length, sluice_error *error)
{
    char typed[MAX_WORD + 1];
    snprintf(typed, sizeof typed, "%.*s", (int)(length < MAX_WORD ? length : MAX_WORD), name);
    suggestion best = {0};
    const char *owner = NULL;
    for (int i = 0; i < SL_OPTION_COUNT; i++) {
        const sl_option_row *row = &sl_option_table[i];
        if (sl_option_belongs(row, command)) {
            consider(&best, typed, row->name);
        } else if (strcmp(row->name, typed) == 0) {
            for (int j = SL_COMMAND_COUNT - 1; j >= 0; j--) {
                owner = sl_option_belongs(row, (sl_command)j) ? sl_command_table[j].name : owner;
            }
        }
    }
    const char *name_of_command = sl_command_table[command].name;
    if (owner != NULL) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "--%s is an option of %s, not of %s", typed, owner,
                            name_of_command);
    }
    if (best.word != NULL) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "unknown option --%s; did you mean --%s?", typed, best.word);
    }
    return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "unknown option --%s; sluice %s --help lists what there is",
                        typed, name_of_command);
}

/* ---- Values ------------------------------------------------------------------------------------------------------ */

static bool parse_integer(const char *text, uint64_t *number)
{
    char *end = NULL;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
}

static bool parse_number(const char *text, double *number)
{
    if (text[0] == '\0' || strspn(text, "+-.0123456789eE") != strlen(text)) {
        return false;
    }
    char *end = NULL;
    errno = 0;
    *number = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*number);
}

bool sl_parse_token_ids(const char *text, int32_t *ids, size_t capacity, size_t *n_ids)
{
    static const char separators[] = ", \t\r\n";
    size_t count = 0;
    for (const char *at = text + strspn(text, separators); *at != '\0'; at += strspn(at, separators)) {
        char *end = NULL;
        errno = 0;
        unsigned long long id = strtoull(at, &end, 10);
        if (*at < '0' || *at > '9' || errno != 0 || id > INT32_MAX ||
            (*end != '\0' && strchr(separators, *end) == NULL)) {
            return false;
        }
        if (ids != NULL && count < capacity) {
            ids[count] = (int32_t)id;
        }
        count++;
        at = end;
    }
    *n_ids = count;
    return count > 0;
}

static sluice_status bad_value(const char *source, const char *text, const char *expected, sluice_error *error)
{
    return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s: expected %s, found \"%.200s\"", source, expected, text);
}

static sluice_status parse_choice(const sl_option_row *row, const char *source, const char *text, uint64_t *index,
                                  sluice_error *error)
{
    suggestion best = {0};
    char expected[160] = "one of";
    for (size_t i = 0; i < sizeof row->choices / sizeof row->choices[0] && row->choices[i] != NULL; i++) {
        if (strcmp(row->choices[i], text) == 0) {
            *index = i;
            return SLUICE_OK;
        }
        consider(&best, text, row->choices[i]);
        size_t used = strlen(expected);
        snprintf(expected + used, sizeof expected - used, "%s %s", i == 0 ? "" : ",", row->choices[i]);
    }
    if (best.word != NULL) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s: expected %s, found \"%.200s\"; did you mean %s?", source,
                            expected, text, best.word);
    }
    return bad_value(source, text, expected, error);
}

/* Check `text` against the row and store it. `source` names where it stands: "--mem" or "SLUICE_MEM". */
static sluice_status store_value(const sl_option_row *row, const char *source, const char *text, sl_option_value *value,
                                 sluice_error *error)
{
    char expected[120];
    value->present = true;
    value->text = text;
    switch (row->type) {
    case SL_OPTION_TYPE_FLAG: value->integer = 1; return SLUICE_OK;
    case SL_OPTION_TYPE_TEXT:
    case SL_OPTION_TYPE_LIST: return SLUICE_OK;
    case SL_OPTION_TYPE_CHOICE: return parse_choice(row, source, text, &value->integer, error);
    case SL_OPTION_TYPE_INTEGER:
        if (!parse_integer(text, &value->integer) || value->integer < row->minimum || value->integer > row->maximum) {
            snprintf(expected, sizeof expected, "a whole number from %" PRIu64 " to %" PRIu64, row->minimum,
                     row->maximum);
            return bad_value(source, text, expected, error);
        }
        value->number = (double)value->integer;
        return SLUICE_OK;
    case SL_OPTION_TYPE_NUMBER:
        if (!parse_number(text, &value->number) || value->number < row->lowest || value->number > row->highest) {
            snprintf(expected, sizeof expected, "a number from %g to %g", row->lowest, row->highest);
            return bad_value(source, text, expected, error);
        }
        return SLUICE_OK;
    case SL_OPTION_TYPE_SIZE:
        if (row->word != NULL && strcmp(text, row->word) == 0) {
            value->integer = 0;
            return SLUICE_OK;
        }
        if (!sl_parse_size(text, &value->integer) || value->integer < row->minimum || value->integer > row->maximum) {
            snprintf(expected, sizeof expected,
                     "a size in bytes, or with K, M, G, T or KiB, MiB, GiB, TiB, as in 700M%s%s",
                     row->word != NULL ? ", or " : "", row->word != NULL ? row->word : "");
            return bad_value(source, text, expected, error);
        }
        return SLUICE_OK;
    case SL_OPTION_TYPE_IDS: {
        size_t n_ids;
        if (!sl_parse_token_ids(text, NULL, 0, &n_ids)) {
            return bad_value(source, text, "token ids separated by commas, as in 1,2,3", error);
        }
        return SLUICE_OK;
    }
    }
    return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s: the table gives it no type", source);
}

/* ---- The command line -------------------------------------------------------------------------------------------- */

static sluice_status give(sl_options *options, sl_option_id id, const char *text, sluice_error *error)
{
    const sl_option_row *row = &sl_option_table[id];
    sl_option_value *value = &options->values[id];
    char source[MAX_WORD];
    snprintf(source, sizeof source, "--%s", row->name);
    if (row->type == SL_OPTION_TYPE_LIST) {
        if (options->n_list == SL_MAX_LIST) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s is given more than %d times", source, SL_MAX_LIST);
        }
        options->list[options->n_list++] = text;
    } else if (value->given) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s is given twice; give it once", source);
    }
    value->given = true;
    return store_value(row, source, text, value, error);
}

/* Whether a word looks like an option of this command, so that it was hardly meant as a value. */
static bool looks_like_option(sl_command command, const char *word)
{
    return strncmp(word, "--", 2) == 0 && find_name(command, word + 2, strcspn(word + 2, "=")) != SL_OPTION_COUNT;
}

/* One argument that starts with a dash; `*i` moves over a value that stands apart. */
static sluice_status parse_dashed(sl_options *options, int n_arguments, char *const *arguments, int *i,
                                  sluice_error *error)
{
    const char *word = arguments[*i];
    bool is_long = word[1] == '-';
    size_t length = is_long ? strcspn(word + 2, "=") : 1;
    sl_option_id id = is_long ? find_name(options->command, word + 2, length) : find_letter(options->command, word[1]);
    if (!is_long && word[2] != '\0') {
        bool meant_long = find_name(options->command, word + 1, strcspn(word + 1, "=")) != SL_OPTION_COUNT;
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            meant_long ? "unknown option %.200s; did you mean -%.200s?"
                                       : "unknown option %.200s; a short option is one letter, its value the next word",
                            word, word);
    }
    if (id == SL_OPTION_COUNT) {
        return is_long ? unknown_name(options->command, word + 2, length, error)
                       : sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                      "unknown option %.200s; sluice %s --help lists what there is", word,
                                      sl_command_table[options->command].name);
    }
    const sl_option_row *row = &sl_option_table[id];
    const char *attached = is_long && word[2 + length] == '=' ? word + 3 + length : NULL;
    if (row->type == SL_OPTION_TYPE_FLAG) {
        if (attached != NULL) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "--%s takes no value", row->name);
        }
        return give(options, id, word, error);
    }
    if (attached != NULL) {
        return give(options, id, attached, error);
    }
    if (*i + 1 >= n_arguments || looks_like_option(options->command, arguments[*i + 1])) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "--%s needs a value, as in --%s=%s", row->name, row->name,
                            row->choices[0] != NULL ? row->choices[0] : row->placeholder);
    }
    return give(options, id, arguments[++*i], error);
}

static sluice_status parse_operand(sl_options *options, const char *word, sluice_error *error)
{
    const sl_command_row *command = &sl_command_table[options->command];
    if (options->n_operands == SL_MAX_OPERANDS || command->operands[options->n_operands] == NULL) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "unexpected argument \"%.200s\"; sluice %s takes %s; put quotes around a text with blanks",
                            word, command->name, command->operands[0] == NULL ? "options only" : command->synopsis);
    }
    options->operands[options->n_operands++] = word;
    return SLUICE_OK;
}

static bool asks_for_help(int n_arguments, char *const *arguments)
{
    for (int i = 0; i < n_arguments && strcmp(arguments[i], "--") != 0; i++) {
        if (strcmp(arguments[i], "--help") == 0 || strcmp(arguments[i], "-h") == 0) {
            return true;
        }
    }
    return false;
}

/* ---- The environment --------------------------------------------------------------------------------------------- */

/* The value of `name` in a list of NAME=value, or NULL. */
static const char *look_up(char *const *environment, const char *name)
{
    size_t length = strlen(name);
    for (; environment != NULL && *environment != NULL; environment++) {
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=') {
            return *environment + length + 1;
        }
    }
    return NULL;
}

static sluice_status check_variable(const char *variable, sluice_error *error)
{
    size_t length = strcspn(variable, "=");
    char name[MAX_WORD + 1];
    snprintf(name, sizeof name, "%.*s", (int)(length < MAX_WORD ? length : MAX_WORD), variable);
    if (strncmp(name, environment_prefix, sizeof environment_prefix - 1) != 0 || strcmp(name, test_binary) == 0 ||
        strncmp(name, test_prefix, sizeof test_prefix - 1) == 0) {
        return SLUICE_OK;
    }
    suggestion best = {0};
    for (int i = 0; i < SL_OPTION_COUNT; i++) {
        const char *known = sl_option_table[i].environment;
        if (known != NULL && strcmp(known, name) == 0) {
            return SLUICE_OK;
        }
        if (known != NULL) {
            consider(&best, name, known);
        }
    }
    if (best.word != NULL) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "the environment variable %s is unknown; did you mean %s? Unset it otherwise", name,
                            best.word);
    }
    return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                        "the environment variable %s is unknown, so it would have no effect; unset it", name);
}

static sluice_status take_environment(sl_options *options, char *const *environment, sluice_error *error)
{
    for (char *const *at = environment; at != NULL && *at != NULL; at++) {
        SL_TRY(check_variable(*at, error));
    }
    for (int i = 0; i < SL_OPTION_COUNT; i++) {
        const sl_option_row *row = &sl_option_table[i];
        sl_option_value *value = &options->values[i];
        if (row->environment == NULL || !sl_option_belongs(row, options->command) || value->given) {
            continue;
        }
        const char *text = look_up(environment, row->environment);
        if (text != NULL) {
            value->given = true;
            SL_TRY(store_value(row, row->environment, text, value, error));
        }
    }
    return SLUICE_OK;
}

/* ---- What must hold ---------------------------------------------------------------------------------------------- */

static sluice_status check_complete(const sl_options *options, sluice_error *error)
{
    const sl_command_row *command = &sl_command_table[options->command];
    for (size_t i = 0; i < sl_option_n_conflicts; i++) {
        sl_option_conflict pair = sl_option_conflicts[i];
        if (options->values[pair.first].given && options->values[pair.second].given) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "--%s and --%s exclude each other; give one of them",
                                sl_option_table[pair.first].name, sl_option_table[pair.second].name);
        }
    }
    for (int i = 0; i < SL_OPTION_COUNT; i++) {
        const sl_option_row *row = &sl_option_table[i];
        if ((row->required >> options->command & 1U) != 0 && !options->values[i].given) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "--%s %s is missing: %s", row->name, row->placeholder,
                                row->help);
        }
    }
    if (options->n_operands < SL_MAX_OPERANDS && command->operands[options->n_operands] != NULL) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s is missing: sluice %s %s",
                            command->operands[options->n_operands], command->name, command->synopsis);
    }
    return SLUICE_OK;
}

static sluice_status set_defaults(sl_options *options, sluice_error *error)
{
    for (int i = 0; i < SL_OPTION_COUNT; i++) {
        const sl_option_row *row = &sl_option_table[i];
        if (row->standard != NULL && sl_option_belongs(row, options->command)) {
            SL_TRY(store_value(row, row->name, row->standard, &options->values[i], error));
        }
    }
    return SLUICE_OK;
}

sluice_status sl_options_parse(sl_options *options, sl_command command, int n_arguments, char *const *arguments,
                               char *const *environment, sluice_error *error)
{
    *options = (sl_options){.command = command};
    SL_TRY(set_defaults(options, error));
    if (asks_for_help(n_arguments, arguments)) {
        return give(options, SL_OPTION_HELP, "--help", error);
    }
    bool only_operands = false;
    for (int i = 0; i < n_arguments; i++) {
        const char *word = arguments[i];
        if (!only_operands && strcmp(word, "--") == 0) {
            only_operands = true;
        } else if (!only_operands && word[0] == '-' && word[1] != '\0') {
            SL_TRY(parse_dashed(options, n_arguments, arguments, &i, error));
        } else {
            SL_TRY(parse_operand(options, word, error));
        }
    }
    SL_TRY(take_environment(options, environment, error));
    return check_complete(options, error);
}

bool sl_options_given(const sl_options *options, sl_option_id id)
{
    return options->values[id].given;
}

bool sl_options_flag(const sl_options *options, sl_option_id id)
{
    return options->values[id].integer != 0;
}

const char *sl_options_text(const sl_options *options, sl_option_id id)
{
    return options->values[id].present ? options->values[id].text : NULL;
}

uint64_t sl_options_integer(const sl_options *options, sl_option_id id)
{
    return options->values[id].integer;
}

double sl_options_number(const sl_options *options, sl_option_id id)
{
    return options->values[id].number;
}
