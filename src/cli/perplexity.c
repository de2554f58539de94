/* `sluice perplexity`: how well a model predicts a text. Owns the text and its tokens.
 *
 * Definition: the text is tokenised once without added tokens and cut into windows of --ctx tokens; each starts with an
 * empty context; every token of a window but its first is predicted; a last short window is dropped. The probability of
 * a token is its softmax over the whole vocabulary, the log of the sum taken in double. Bits per byte: the bits of all
 * predicted tokens over the bytes that they decode to. The hash runs over the logits of every position, in order. */
#include "cli/model_run.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "cli/input.h"
#include "cli/interrupt.h"
#include "cli/report.h"
#include "os/clock.h"

typedef struct perplexity {
    sl_model_run model;
    sl_text text;
    int32_t *tokens; /* owned: sluice_free */
    size_t n_tokens;
    size_t window; /* tokens */
    size_t n_windows;
    size_t n_windows_done;
    uint32_t n_vocab;
    const int32_t *window_tokens; /* borrowed: of the window in progress, [window] */
    double nll;                   /* nats, of all predicted tokens */
    uint64_t n_predicted;
    uint64_t n_evaluated;
    uint64_t predicted_bytes;
    uint64_t hash;
    double elapsed_ms;
} perplexity;

/* -log softmax(logits)[token] */
static double negative_log_likelihood(const float *logits, uint32_t n_vocab, int32_t token)
{
    float highest = logits[0];
    for (uint32_t i = 1; i < n_vocab; i++) {
        highest = logits[i] > highest ? logits[i] : highest;
    }
    double sum = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        sum += exp((double)logits[i] - (double)highest);
    }
    return log(sum) + (double)highest - (double)logits[token];
}

static bool take_logits(void *user, uint32_t position, const float *logits)
{
    perplexity *self = user;
    self->hash = sl_hash64(logits, self->n_vocab * sizeof *logits, self->hash);
    self->n_evaluated++;
    if (position + 1 < self->window) {
        self->nll += negative_log_likelihood(logits, self->n_vocab, self->window_tokens[position + 1]);
        self->n_predicted++;
    }
    sl_progress_show(&self->model.progress, self->n_evaluated, self->n_windows * self->window, "tokens");
    return !sl_interrupt_caught();
}

static sluice_status read_text(perplexity *self, sluice_error *error)
{
    const char *path = sl_options_text(self->model.options, SL_OPTION_FILE);
    SL_TRY(sl_input_read_file(&self->text, path, error));
    SL_TRY(sluice_tokenize(sluice_engine_vocabulary(self->model.engine), self->text.data != NULL ? self->text.data : "",
                           self->text.length, false, false, &self->tokens, &self->n_tokens, error));
    sl_text_fini(&self->text);
    self->n_vocab = sluice_engine_n_vocab(self->model.engine);
    sluice_memory_plan plan;
    sluice_engine_memory_plan_get(self->model.engine, &plan);
    self->window = plan.context_length;
    self->n_windows = self->n_tokens / self->window;
    if (self->n_windows == 0 || self->window < 2) {
        return sl_error_set(
            error, SLUICE_ERROR_ARGUMENT,
            "%s: it has %zu tokens, and a window takes %zu; give a longer text, or a --ctx from 2 to the "
            "number of its tokens",
            path, self->n_tokens, self->window);
    }
    return SLUICE_OK;
}

/* Bytes that the window's tokens decode to after its first one. */
static sluice_status count_bytes(perplexity *self, sluice_error *error)
{
    const sluice_vocabulary *vocabulary = sluice_engine_vocabulary(self->model.engine);
    size_t n_bytes[2] = {0, 0};
    const size_t n_tokens[2] = {1, self->window};
    for (int i = 0; i < 2; i++) {
        char *text = NULL;
        SL_TRY(sluice_detokenize(vocabulary, self->window_tokens, n_tokens[i], true, &text, &n_bytes[i], error));
        sluice_free(text);
    }
    self->predicted_bytes += n_bytes[1] - n_bytes[0];
    return SLUICE_OK;
}

static sluice_status evaluate(perplexity *self, sluice_error *error)
{
    size_t step = sl_options_flag(self->model.options, SL_OPTION_DECODE) ? 1 : self->window;
    for (size_t i_window = 0; i_window < self->n_windows; i_window++) {
        self->window_tokens = self->tokens + i_window * self->window;
        sluice_session_reset(self->model.session);
        uint64_t start_ns = sl_clock_ns();
        sluice_status status = SLUICE_OK;
        for (size_t i = 0; i < self->window && status == SLUICE_OK; i += step) {
            status = sluice_session_eval(self->model.session, self->window_tokens + i, step, SLUICE_LOGITS_ALL,
                                         take_logits, self, error);
        }
        self->elapsed_ms += (double)(sl_clock_ns() - start_ns) * 1e-6;
        if (status != SLUICE_OK) {
            return status;
        }
        SL_TRY(count_bytes(self, error));
        self->n_windows_done++;
    }
    return SLUICE_OK;
}

static bool put_figures(json_t *object, const perplexity *self, double nll_per_token, double bits_per_byte)
{
    return sl_json_put(object, "tokens", sl_json_count(self->n_predicted)) &&
           sl_json_put(object, "windows", sl_json_count(self->n_windows_done)) &&
           sl_json_put(object, "nll_per_token", sl_json_number(nll_per_token)) &&
           sl_json_put(object, "perplexity", sl_json_number(exp(nll_per_token))) &&
           sl_json_put(object, "bits_per_byte", sl_json_number(bits_per_byte));
}

/* Also of an evaluation that was stopped: its figures are of the tokens that were predicted, and have no bits per byte,
 * because bytes are counted by whole windows. */
static sluice_status publish(perplexity *self, sluice_error *error)
{
    sl_console *console = self->model.console;
    bool complete = self->n_windows_done == self->n_windows;
    double nll_per_token = self->nll / (double)self->n_predicted;
    double bits_per_byte =
        complete && self->predicted_bytes > 0 ? self->nll / log(2.0) / (double)self->predicted_bytes : (double)NAN;
    sl_report report;
    sl_report_init(&report, self->model.engine);
    report.prompt_tokens = self->n_evaluated;
    report.logits_hash = self->hash;
    double speed = (double)self->n_evaluated * 1e3 / self->elapsed_ms;
    *(sl_options_flag(self->model.options, SL_OPTION_DECODE) ? &report.decode_tok_s : &report.prefill_tok_s) = speed;
    json_t *object = sl_report_json(&report);
    sluice_status status = put_figures(object, self, nll_per_token, bits_per_byte)
                               ? sl_model_run_finish(&self->model, object, error)
                               : sl_error_no_memory(error, 0, "the statistics");
    if (status == SLUICE_OK && sl_options_flag(self->model.options, SL_OPTION_JSON)) {
        status = sl_json_print(console, object, error);
    } else if (status == SLUICE_OK && complete) {
        sl_console_print(console,
                         "tokens         %" PRIu64 " predicted in %zu windows of %zu\n"
                         "nll per token  %.6f nats\nperplexity     %.4f\nbits per byte  %.4f\n",
                         self->n_predicted, self->n_windows, self->window, nll_per_token, exp(nll_per_token),
                         bits_per_byte);
    }
    if (!complete) {
        sl_console_say("stopped after %" PRIu64 " predicted tokens; nll per token so far %.6f nats", self->n_predicted,
                       nll_per_token);
    }
    if (!sl_options_flag(self->model.options, SL_OPTION_JSON)) {
        sl_report_print_summary(&report);
    }
    json_decref(object);
    return status;
}

static sluice_status run(perplexity *self, const sl_options *options, sl_console *console, sluice_error *error)
{
    SL_TRY(sl_model_run_open(&self->model, options, console, error));
    SL_TRY(read_text(self, error));
    self->model.progress.label = "perplexity";
    sluice_status status = evaluate(self, error);
    sl_progress_clear(&self->model.progress);
    if (status != SLUICE_OK && self->n_predicted > 0) {
        sluice_error report_error = {0};
        (void)publish(self, &report_error);
    }
    return status == SLUICE_OK ? publish(self, error) : status;
}

int sl_command_perplexity(const sl_options *options, sl_console *console)
{
    perplexity self = {0};
    sl_text_init(&self.text, &console->memory, SL_MEMORY_OTHER);
    sluice_error error = {0};
    sluice_status status = run(&self, options, console, &error);
    sluice_free(self.tokens);
    sl_text_fini(&self.text);
    sl_model_run_close(&self.model);
    return status == SLUICE_OK ? SL_EXIT_OK : sl_model_run_fail(&error);
}
