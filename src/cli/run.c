/* `sluice run`: completes a prompt. Owns the prompt's tokens and, for --json, the text. */
#include "cli/model_run.h"

#include <inttypes.h>
#include <string.h>

#include "cli/input.h"
#include "cli/interrupt.h"
#include "cli/report.h"

typedef struct completion {
    sl_model_run model;
    sl_text prompt;
    sl_text text;    /* for --json, else empty */
    int32_t *tokens; /* owned */
    size_t n_tokens;
    bool as_json;
    bool ends_line; /* the last character streamed was a newline */
    bool no_memory;
    sluice_generation_result result;
} completion;

static bool take_text(void *user, const char *bytes, size_t length)
{
    completion *self = user;
    sl_progress_clear(&self->model.progress);
    if (self->as_json) {
        self->no_memory = !sl_text_append(&self->text, bytes, length);
        return !self->no_memory;
    }
    sl_console_stream(self->model.console, bytes, length);
    self->ends_line = length > 0 && bytes[length - 1] == '\n';
    return self->model.console->write_errno == 0;
}

static void show_prefill(void *user, size_t done_tokens, size_t n_tokens)
{
    completion *self = user;
    if (done_tokens < n_tokens) {
        sl_progress_show(&self->model.progress, done_tokens, n_tokens, "tokens");
    } else {
        sl_progress_clear(&self->model.progress);
    }
}

static sluice_status generate(completion *self, sluice_error *error)
{
    const sl_options *options = self->model.options;
    sluice_generation generation = {.prompt = self->tokens,
                                    .n_prompt = self->n_tokens,
                                    .max_tokens = (uint32_t)sl_options_integer(options, SL_OPTION_MAX_TOKENS),
                                    .ignore_eos = sl_options_flag(options, SL_OPTION_IGNORE_EOS),
                                    .on_text = take_text,
                                    .on_prefill = show_prefill,
                                    .user = self};
    sluice_sampling *sampling = &generation.sampling;
    sluice_sampling_init(sampling);
    sampling->temperature = (float)sl_options_number(options, SL_OPTION_TEMPERATURE);
    sampling->top_k = (uint32_t)sl_options_integer(options, SL_OPTION_TOP_K);
    sampling->top_p = (float)sl_options_number(options, SL_OPTION_TOP_P);
    sampling->min_p = (float)sl_options_number(options, SL_OPTION_MIN_P);
    sampling->repetition_penalty = (float)sl_options_number(options, SL_OPTION_REPEAT_PENALTY);
    sampling->penalty_window = (uint32_t)sl_options_integer(options, SL_OPTION_REPEAT_WINDOW);
    sampling->seed = sl_options_integer(options, SL_OPTION_SEED);
    self->model.progress.label = "prompt";
    sluice_status status = sluice_session_generate(self->model.session, &generation, &self->result, error);
    sl_progress_clear(&self->model.progress);
    if (status == SLUICE_OK && self->no_memory) {
        return sl_error_no_memory(error, self->text.length, "the generated text");
    }
    return status;
}

/* Statistics to where they were asked for, also of a generation that was stopped. */
static sluice_status report(completion *self, sluice_error *error)
{
    sl_report report;
    sl_report_init(&report, self->model.engine);
    sl_report_add_generation(&report, &self->result);
    report.logits_hash = sluice_session_logits_hash(self->model.session);
    if (!self->as_json) {
        if (self->model.console->out_is_terminal && !self->ends_line) {
            sl_console_stream(self->model.console, "\n", 1);
        }
        sl_report_print_summary(&report);
    }
    json_t *object = sl_report_json(&report);
    sluice_status status = sl_model_run_finish(&self->model, object, error);
    if (status == SLUICE_OK && self->as_json) {
        status =
            sl_json_put(object, "text", sl_json_text(&self->model.console->memory, self->text.data, self->text.length))
                ? sl_json_print(self->model.console, object, error)
                : sl_error_no_memory(error, self->text.length, "the generated text");
    }
    json_decref(object);
    return status;
}

static int dump_graph(const sl_options *options, sl_console *console)
{
    sl_model_run model;
    sluice_error error = {0};
    char *text = NULL;
    sluice_status status = sl_model_run_open(&model, options, console, &error);
    if (status == SLUICE_OK) {
        uint32_t rows = (uint32_t)sl_options_integer(options, SL_OPTION_DUMP_GRAPH);
        status = sluice_engine_dump_graph(model.engine, rows, &text, &error);
    }
    if (status == SLUICE_OK) {
        sl_console_stream(console, text, strlen(text));
        sluice_free(text);
    }
    sl_model_run_close(&model);
    return status == SLUICE_OK ? SL_EXIT_OK : sl_model_run_fail(&error);
}

static sluice_status complete(completion *self, const sl_options *options, sl_console *console, sluice_error *error)
{
    SL_TRY(sl_model_run_open(&self->model, options, console, error));
    SL_TRY(sl_model_run_tokenize(sluice_engine_vocabulary(self->model.engine), options, &self->prompt, &self->tokens,
                                 &self->n_tokens, error));
    sluice_status status = generate(self, error);
    sluice_error report_error = {0};
    sluice_status report_status = report(self, &report_error);
    if (status == SLUICE_OK && report_status != SLUICE_OK) {
        *error = report_error;
        return report_status;
    }
    return status;
}

int sl_command_run(const sl_options *options, sl_console *console)
{
    if (sl_options_given(options, SL_OPTION_DUMP_GRAPH)) {
        return dump_graph(options, console);
    }
    completion self = {.as_json = sl_options_flag(options, SL_OPTION_JSON)};
    sl_text_init(&self.prompt, &console->memory, SL_MEMORY_OTHER);
    sl_text_init(&self.text, &console->memory, SL_MEMORY_OTHER);
    sluice_error error = {0};
    /* Without a prompt nothing else is tried: that is a mistake in the command line. */
    sluice_status status = sl_input_read(&self.prompt, options, &error);
    int exit_status;
    if (status == SLUICE_ERROR_ARGUMENT) {
        sl_console_say("%s", error.message);
        exit_status = SL_EXIT_USAGE;
    } else {
        if (status == SLUICE_OK) {
            status = complete(&self, options, console, &error);
            sluice_free(self.tokens);
            sl_model_run_close(&self.model);
        }
        exit_status = status == SLUICE_OK ? SL_EXIT_OK : sl_model_run_fail(&error);
    }
    sl_text_fini(&self.prompt);
    sl_text_fini(&self.text);
    return exit_status;
}
