/* Owns nothing: turns the option tables into text. Lines have at most HELP_COLUMNS columns. Threads: no state. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/options_table.h"

enum { HELP_COLUMNS = 100, OPTION_COLUMNS = 32 };

static const char *const group_titles[] = {
    [SL_OPTION_GROUP_INPUT] = "Input",
    [SL_OPTION_GROUP_SAMPLING] = "Generation",
    [SL_OPTION_GROUP_RESOURCES] = "Memory and speed",
    [SL_OPTION_GROUP_OUTPUT] = "Output",
};
_Static_assert(sizeof group_titles / sizeof group_titles[0] == SL_OPTION_GROUP_COUNT, "every group has a title");

/* Append words of `text`, broken so that lines fit; `column` is where the first word lands, later lines are indented by
 * `indent`. A newline in `text` starts a new line. */
static bool append_wrapped(sl_text *out, const char *text, size_t column, size_t indent)
{
    bool first = true;
    while (*text != '\0') {
        size_t length = strcspn(text, " \n");
        if (!first && column + 1 + length > HELP_COLUMNS) {
            if (!sl_text_format(out, "\n%*s", (int)indent, "")) {
                return false;
            }
            column = indent;
            first = true;
        }
        if ((!first && !sl_text_append(out, " ", 1)) || !sl_text_append(out, text, length)) {
            return false;
        }
        column += length + (first ? 0 : 1);
        first = false;
        text += length;
        if (*text == '\n') {
            if (!sl_text_format(out, "\n%*s", (int)indent, "")) {
                return false;
            }
            column = indent;
            first = true;
        }
        text += *text != '\0' ? 1 : 0;
    }
    return sl_text_append(out, "\n", 1);
}

/* "auto|uring|pread" or "FILE". */
static void describe_value(const sl_option_row *row, char *buffer, size_t capacity)
{
    buffer[0] = '\0';
    if (row->type != SL_OPTION_TYPE_CHOICE) {
        snprintf(buffer, capacity, "%s", row->placeholder != NULL ? row->placeholder : "");
        return;
    }
    for (size_t i = 0; i < sizeof row->choices / sizeof row->choices[0] && row->choices[i] != NULL; i++) {
        size_t used = strlen(buffer);
        snprintf(buffer + used, capacity - used, "%s%s", i == 0 ? "" : "|", row->choices[i]);
    }
}

static bool append_option(sl_text *out, const sl_option_row *row, sl_command command)
{
    char value[80];
    char left[140];
    char note[160] = "";
    describe_value(row, value, sizeof value);
    if (row->letter != '\0') {
        snprintf(left, sizeof left, "  -%c, --%s %s", row->letter, row->name, value);
    } else {
        snprintf(left, sizeof left, "      --%s %s", row->name, value);
    }
    bool required = (row->required >> command & 1U) != 0;
    if (required) {
        snprintf(note, sizeof note, " (required)");
    } else if (row->standard != NULL) {
        snprintf(note, sizeof note, " (default %s)", row->standard);
    }
    if (row->environment != NULL) {
        size_t used = strlen(note);
        snprintf(note + used, sizeof note - used, " [%s]", row->environment);
    }
    char help[400];
    snprintf(help, sizeof help, "%s%s", row->help, note);
    size_t length = strlen(left);
    bool fits = length + 2 <= OPTION_COLUMNS;
    return sl_text_append(out, left, length) &&
           sl_text_format(out, fits ? "%*s" : "\n%*s", fits ? (int)(OPTION_COLUMNS - length) : OPTION_COLUMNS, "") &&
           append_wrapped(out, help, OPTION_COLUMNS, OPTION_COLUMNS);
}

static bool append_group(sl_text *out, sl_option_group group, sl_command command)
{
    bool empty = true;
    for (int i = 0; i < SL_OPTION_COUNT; i++) {
        const sl_option_row *row = &sl_option_table[i];
        if (row->group != group || !sl_option_belongs(row, command)) {
            continue;
        }
        if ((empty && !sl_text_format(out, "\n%s:\n", group_titles[group])) || !append_option(out, row, command)) {
            return false;
        }
        empty = false;
    }
    return true;
}

/* What SIZE and the brackets mean, where they occur. */
static bool append_legend(sl_text *out, sl_command command)
{
    bool has_size = false;
    bool has_environment = false;
    for (int i = 0; i < SL_OPTION_COUNT; i++) {
        const sl_option_row *row = &sl_option_table[i];
        if (sl_option_belongs(row, command)) {
            has_size = has_size || row->type == SL_OPTION_TYPE_SIZE;
            has_environment = has_environment || row->environment != NULL;
        }
    }
    return sl_text_format(out, "%s%s%s", has_size || has_environment ? "\n" : "",
                          has_size ? "SIZE is bytes, or a number with K, M, G or KiB, MiB, GiB (all binary).\n" : "",
                          has_environment ? "A name in brackets is an environment variable that sets the option.\n"
                                          : "");
}

bool sl_options_help(sl_text *text, sl_command command)
{
    const sl_command_row *row = &sl_command_table[command];
    if (!sl_text_format(text, "sluice %s: %s\n\nusage: sluice %s %s\n\n", row->name, row->summary, row->name,
                        row->synopsis) ||
        !append_wrapped(text, row->details, 0, 0)) {
        return false;
    }
    for (int group = 0; group < SL_OPTION_GROUP_COUNT; group++) {
        if (!append_group(text, (sl_option_group)group, command)) {
            return false;
        }
    }
    return append_legend(text, command) && sl_text_format(text, "\nexample:\n  %s\n", row->example);
}

bool sl_options_overview(sl_text *text)
{
    if (!sl_text_format(text,
                        "Sluice runs Mixture-of-Experts language models that are bigger than memory.\n\n"
                        "Start with:\n"
                        "  sluice run -m model.gguf --mem 4G -p \"Once upon a time\"    complete a prompt in 4 GiB\n"
                        "  sluice inspect -m model.gguf                               see what a model needs\n\n"
                        "Commands:\n")) {
        return false;
    }
    for (int i = 0; i < SL_COMMAND_COUNT; i++) {
        if (!sl_text_format(text, "  %-12s%s\n", sl_command_table[i].name, sl_command_table[i].summary)) {
            return false;
        }
    }
    return sl_text_format(text,
                          "\nsluice COMMAND --help explains a command and its options; sluice --version prints the "
                          "version.\n");
}
