/* `sluice logits`: logits of every position, and their hash. Owns the tokens and the result file. */
#include "cli/model_run.h"

#include <inttypes.h>
#include <string.h>

#include "cli/interrupt.h"
#include "cli/npy.h"
#include "cli/report.h"
#include "os/clock.h"

typedef struct evaluation {
    sl_model_run model;
    int32_t *tokens; /* owned, by sluice_free or by the console's account */
    bool tokens_from_library;
    size_t n_tokens;
    sl_result_file out;
    size_t row_bytes;
    sluice_error write_error;
} evaluation;

static bool take_logits(void *user, uint32_t position, const float *logits)
{
    evaluation *self = user;
    sl_progress_show(&self->model.progress, (uint64_t)position + 1, self->n_tokens, "tokens");
    return sl_result_file_write(&self->out, logits, self->row_bytes, &self->write_error) == SLUICE_OK;
}

static sluice_status read_tokens(evaluation *self, sluice_error *error)
{
    const sl_options *options = self->model.options;
    sl_memory *memory = &self->model.console->memory;
    if (sl_options_given(options, SL_OPTION_TOKENS)) {
        const char *list = sl_options_text(options, SL_OPTION_TOKENS);
        (void)sl_parse_token_ids(list, NULL, 0, &self->n_tokens);
        self->tokens = sl_alloc(memory, SL_MEMORY_OTHER, self->n_tokens, sizeof *self->tokens);
        if (self->tokens == NULL) {
            return sl_error_no_memory(error, self->n_tokens * sizeof *self->tokens, "token ids");
        }
        (void)sl_parse_token_ids(list, self->tokens, self->n_tokens, &self->n_tokens);
        return SLUICE_OK;
    }
    const char *prompt = sl_options_text(options, SL_OPTION_PROMPT);
    sl_text text;
    sl_text_init(&text, memory, SL_MEMORY_OTHER);
    sluice_status status = sl_text_append(&text, prompt, strlen(prompt))
                               ? SLUICE_OK
                               : sl_error_no_memory(error, strlen(prompt), "the text");
    if (status == SLUICE_OK) {
        status = sl_model_run_tokenize(sluice_engine_vocabulary(self->model.engine), options, &text, &self->tokens,
                                       &self->n_tokens, error);
        self->tokens_from_library = true;
    }
    sl_text_fini(&text);
    return status;
}

/* Evaluate everything, at once or token by token; `*elapsed_ms` is the time it took. */
static sluice_status evaluate(evaluation *self, double *elapsed_ms, sluice_error *error)
{
    size_t step = sl_options_flag(self->model.options, SL_OPTION_DECODE) ? 1 : self->n_tokens;
    uint64_t start_ns = sl_clock_ns();
    sluice_status status = SLUICE_OK;
    for (size_t i = 0; i < self->n_tokens && status == SLUICE_OK; i += step) {
        status = sluice_session_eval(self->model.session, self->tokens + i, step, SLUICE_LOGITS_ALL, take_logits, self,
                                     error);
    }
    *elapsed_ms = (double)(sl_clock_ns() - start_ns) * 1e-6;
    sl_progress_clear(&self->model.progress);
    if (status == SLUICE_ERROR_CANCELLED && self->write_error.status != SLUICE_OK) {
        *error = self->write_error;
        return error->status;
    }
    return status;
}

static sluice_status publish(evaluation *self, double elapsed_ms, sluice_error *error)
{
    sl_console *console = self->model.console;
    sl_report report;
    sl_report_init(&report, self->model.engine);
    report.prompt_tokens = self->n_tokens;
    report.logits_hash = sluice_session_logits_hash(self->model.session);
    double speed = (double)self->n_tokens * 1e3 / elapsed_ms;
    *(sl_options_flag(self->model.options, SL_OPTION_DECODE) ? &report.decode_tok_s : &report.prefill_tok_s) = speed;
    json_t *object = sl_report_json(&report);
    sluice_status status = sl_model_run_finish(&self->model, object, error);
    if (status == SLUICE_OK && sl_options_flag(self->model.options, SL_OPTION_JSON)) {
        status = sl_json_print(console, object, error);
    } else if (status == SLUICE_OK) {
        sl_console_print(console, "tokens       %zu\nlogits hash  %016" PRIx64 "\n", self->n_tokens,
                         report.logits_hash);
    }
    json_decref(object);
    return status;
}

static sluice_status run(evaluation *self, const sl_options *options, sl_console *console, sluice_error *error)
{
    SL_TRY(sl_model_run_open(&self->model, options, console, error));
    SL_TRY(read_tokens(self, error));
    uint32_t n_vocab = sluice_engine_n_vocab(self->model.engine);
    self->row_bytes = n_vocab * sizeof(float);
    unsigned char header[SL_NPY_HEADER_BYTES];
    sl_npy_header(header, self->n_tokens, n_vocab);
    SL_TRY(sl_result_file_write(&self->out, header, sizeof header, error));
    self->model.progress.label = "logits";
    double elapsed_ms = 0;
    SL_TRY(evaluate(self, &elapsed_ms, error));
    SL_TRY(sl_result_file_commit(&self->out, error));
    return publish(self, elapsed_ms, error);
}

int sl_command_logits(const sl_options *options, sl_console *console)
{
    if (!sl_options_given(options, SL_OPTION_PROMPT) && !sl_options_given(options, SL_OPTION_TOKENS)) {
        sl_console_say("there is no text: give -p TEXT or --tokens IDS");
        return SL_EXIT_USAGE;
    }
    evaluation self = {0};
    sluice_error error = {0};
    sluice_status status = sl_result_file_open(&self.out, sl_options_text(options, SL_OPTION_OUT), &error);
    if (status == SLUICE_OK) {
        status = run(&self, options, console, &error);
        if (self.tokens_from_library) {
            sluice_free(self.tokens);
        } else {
            sl_free(&console->memory, self.tokens);
        }
        sl_model_run_close(&self.model);
    }
    sl_result_file_close(&self.out);
    return status == SLUICE_OK ? SL_EXIT_OK : sl_model_run_fail(&error);
}
