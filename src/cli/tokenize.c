/* `sluice tokenize`: text to token ids and back. Owns the ids and the texts it is given. */
#include "cli/model_run.h"

#include <stdlib.h>
#include <string.h>

#include "cli/input.h"
#include "cli/report.h"

static sluice_status put_ids(json_t *object, const int32_t *ids, size_t n_ids, sluice_error *error)
{
    json_t *list = json_array();
    bool done = list != NULL;
    for (size_t i = 0; i < n_ids && done; i++) {
        done = json_array_append_new(list, json_integer(ids[i])) == 0;
    }
    return sl_json_put(object, "tokens", list) && done ? SLUICE_OK
                                                       : sl_error_no_memory(error, n_ids * sizeof *ids, "token ids");
}

static sluice_status print_json(sl_console *console, const int32_t *ids, size_t n_ids, const char *text, size_t length,
                                sluice_error *error)
{
    json_t *object = json_object();
    sluice_status status = put_ids(object, ids, n_ids, error);
    if (status == SLUICE_OK && !sl_json_put(object, "text", sl_json_text(&console->memory, text, length))) {
        status = sl_error_no_memory(error, length, "the text");
    }
    if (status == SLUICE_OK) {
        status = sl_json_print(console, object, error);
    }
    json_decref(object);
    return status;
}

/* The text of one token inside a text. Some vocabularies drop a blank at the very beginning, so the token is decoded
 * alone and twice in a row: what the second adds is its text. */
static sluice_status print_piece(sl_console *console, const sluice_vocabulary *vocabulary, int32_t id,
                                 sluice_error *error)
{
    const int32_t twice[] = {id, id};
    char *text = NULL;
    size_t alone_length = 0;
    size_t length = 0;
    SL_TRY(sluice_detokenize(vocabulary, twice, 1, true, &text, &alone_length, error));
    sluice_free(text);
    SL_TRY(sluice_detokenize(vocabulary, twice, 2, true, &text, &length, error));
    sl_console_print(console, "%8d  \"", id);
    sl_console_print_escaped(console, text + alone_length, length - alone_length);
    sl_console_print(console, "\"\n");
    sluice_free(text);
    return SLUICE_OK;
}

static sluice_status encode(const sluice_vocabulary *vocabulary, const sl_options *options, sl_console *console,
                            const sl_text *text, sluice_error *error)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    SL_TRY(sluice_tokenize(vocabulary, text->data != NULL ? text->data : "", text->length,
                           !sl_options_flag(options, SL_OPTION_NO_BOS), !sl_options_flag(options, SL_OPTION_NO_SPECIAL),
                           &ids, &n_ids, error));
    sluice_status status = SLUICE_OK;
    if (sl_options_flag(options, SL_OPTION_JSON)) {
        status = print_json(console, ids, n_ids, text->data, text->length, error);
    } else if (sl_options_flag(options, SL_OPTION_IDS)) {
        for (size_t i = 0; i < n_ids; i++) {
            sl_console_print(console, "%s%d", i == 0 ? "" : ",", ids[i]);
        }
        sl_console_print(console, "\n");
    } else {
        for (size_t i = 0; i < n_ids && status == SLUICE_OK && console->write_errno == 0; i++) {
            status = print_piece(console, vocabulary, ids[i], error);
        }
    }
    sluice_free(ids);
    return status;
}

static sluice_status decode(const sluice_vocabulary *vocabulary, const sl_options *options, sl_console *console,
                            sluice_error *error)
{
    const char *list = sl_options_text(options, SL_OPTION_DECODE_IDS);
    size_t n_ids = 0;
    (void)sl_parse_token_ids(list, NULL, 0, &n_ids);
    int32_t *ids = sl_alloc(&console->memory, SL_MEMORY_OTHER, n_ids, sizeof *ids);
    if (ids == NULL) {
        return sl_error_no_memory(error, n_ids * sizeof *ids, "token ids");
    }
    (void)sl_parse_token_ids(list, ids, n_ids, &n_ids);
    char *text = NULL;
    size_t length = 0;
    sluice_status status = sluice_detokenize(vocabulary, ids, n_ids, false, &text, &length, error);
    if (status == SLUICE_OK && sl_options_flag(options, SL_OPTION_JSON)) {
        status = print_json(console, ids, n_ids, text, length, error);
    } else if (status == SLUICE_OK) {
        sl_console_stream(console, text, length);
        if (console->out_is_terminal) {
            sl_console_stream(console, "\n", 1);
        }
    }
    sluice_free(text);
    sl_free(&console->memory, ids);
    return status;
}

int sl_command_tokenize(const sl_options *options, sl_console *console)
{
    sluice_error error = {0};
    sl_text text;
    sl_text_init(&text, &console->memory, SL_MEMORY_OTHER);
    bool decodes = sl_options_given(options, SL_OPTION_DECODE_IDS);
    sluice_status status = decodes ? SLUICE_OK : sl_input_read(&text, options, &error);
    if (status == SLUICE_ERROR_ARGUMENT) {
        sl_console_say("%s", error.message);
        return SL_EXIT_USAGE;
    }
    sluice_vocabulary *vocabulary = NULL;
    if (status == SLUICE_OK) {
        status = sluice_vocabulary_open(&vocabulary, sl_options_text(options, SL_OPTION_MODEL), &error);
    }
    if (status == SLUICE_OK) {
        status = decodes ? decode(vocabulary, options, console, &error)
                         : encode(vocabulary, options, console, &text, &error);
    }
    sluice_vocabulary_close(&vocabulary);
    sl_text_fini(&text);
    return status == SLUICE_OK ? SL_EXIT_OK : sl_model_run_fail(&error);
}
