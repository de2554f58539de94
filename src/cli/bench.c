/* `sluice bench`: measures prefill and decode, several times from an empty context. Owns the prompt and the reports.
 *
 * Every repetition draws greedily from the same prompt, so all of them must come to the same logits; it is an error
 * when one does not. */
#include "cli/model_run.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/input.h"
#include "cli/report.h"

typedef struct benchmark {
    sl_model_run model;
    int32_t *prompt; /* owned; [n_prompt] */
    size_t n_prompt;
    uint32_t n_generated;
    uint32_t n_repetitions; /* measured so far */
    sl_report *reports;     /* owned; as many as are wanted */
} benchmark;

/* A fixed sequence (SplitMix64), the same on every machine. */
static uint64_t next_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static sluice_status prompt_from_file(benchmark *self, sluice_error *error)
{
    const sl_options *options = self->model.options;
    const char *path = sl_options_text(options, SL_OPTION_FILE);
    sl_text text;
    sl_text_init(&text, &self->model.console->memory, SL_MEMORY_OTHER);
    int32_t *tokens = NULL;
    size_t n_tokens = 0;
    sluice_status status = sl_input_read_file(&text, path, error);
    if (status == SLUICE_OK) {
        status = sl_model_run_tokenize(sluice_engine_vocabulary(self->model.engine), options, &text, &tokens, &n_tokens,
                                       error);
    }
    if (status == SLUICE_OK && n_tokens < self->n_prompt) {
        status =
            sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                         "%s: it has %zu tokens, fewer than the %zu of the prompt; give a longer text or a smaller "
                         "--prompt-tokens",
                         path, n_tokens, self->n_prompt);
    }
    if (status == SLUICE_OK) {
        memcpy(self->prompt, tokens, self->n_prompt * sizeof *self->prompt);
    }
    sluice_free(tokens);
    sl_text_fini(&text);
    return status;
}

static sluice_status make_prompt(benchmark *self, sluice_error *error)
{
    const sl_options *options = self->model.options;
    self->n_prompt = (size_t)sl_options_integer(options, SL_OPTION_PROMPT_TOKENS);
    self->n_generated = (uint32_t)sl_options_integer(options, SL_OPTION_GENERATED_TOKENS);
    uint64_t n_positions = self->n_prompt + self->n_generated;
    sluice_memory_plan plan;
    sluice_engine_memory_plan_get(self->model.engine, &plan);
    if (n_positions > plan.context_length) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "%zu prompt tokens and %" PRIu32 " generated ones need a context of %" PRIu64
                            " positions, found %" PRIu32 "; give a larger --ctx, or smaller numbers",
                            self->n_prompt, self->n_generated, n_positions, plan.context_length);
    }
    self->prompt = sl_alloc(&self->model.console->memory, SL_MEMORY_OTHER, self->n_prompt, sizeof *self->prompt);
    if (self->prompt == NULL) {
        return sl_error_no_memory(error, self->n_prompt * sizeof *self->prompt, "the prompt");
    }
    if (sl_options_given(options, SL_OPTION_FILE)) {
        return prompt_from_file(self, error);
    }
    uint64_t state = 0;
    for (size_t i = 0; i < self->n_prompt; i++) {
        self->prompt[i] = (int32_t)(next_random(&state) % sluice_engine_n_vocab(self->model.engine));
    }
    return SLUICE_OK;
}

static sluice_status repeat(benchmark *self, sluice_error *error)
{
    sluice_session_reset(self->model.session);
    sluice_engine_stats_reset(self->model.engine);
    sluice_generation generation = {
        .prompt = self->prompt, .n_prompt = self->n_prompt, .max_tokens = self->n_generated, .ignore_eos = true};
    sluice_sampling_init(&generation.sampling);
    generation.sampling.temperature = 0.0f;
    sluice_generation_result result = {0};
    SL_TRY(sluice_session_generate(self->model.session, &generation, &result, error));
    sl_report *report = &self->reports[self->n_repetitions];
    sl_report_init(report, self->model.engine);
    sl_report_add_generation(report, &result);
    report->logits_hash = sluice_session_logits_hash(self->model.session);
    if (report->logits_hash != self->reports[0].logits_hash) {
        return sl_error_set(error, SLUICE_ERROR_SYSTEM,
                            "repetition %" PRIu32
                            " came to other logits than the first: the machine or the engine is at "
                            "fault; test the memory, then report it",
                            self->n_repetitions + 1);
    }
    self->n_repetitions++;
    return SLUICE_OK;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct spread {
    double median, lowest, highest;
} spread;

static spread spread_of(const benchmark *self, const sl_metric *metric, double *scratch)
{
    uint32_t n = self->n_repetitions;
    for (uint32_t i = 0; i < n; i++) {
        scratch[i] = metric->get(&self->reports[i]);
    }
    qsort(scratch, n, sizeof *scratch, compare_doubles);
    double median = n % 2 == 1 ? scratch[n / 2] : (scratch[n / 2 - 1] + scratch[n / 2]) / 2;
    return (spread){.median = median, .lowest = scratch[0], .highest = scratch[n - 1]};
}

static json_t *json_of(const sl_metric *metric, double value)
{
    return metric->is_count ? sl_json_count((uint64_t)llround(value)) : sl_json_number(value);
}

static bool put_spread(json_t *object, const sl_metric *metric, spread values)
{
    char lowest[64];
    char highest[64];
    snprintf(lowest, sizeof lowest, "%s_min", metric->name);
    snprintf(highest, sizeof highest, "%s_max", metric->name);
    return sl_json_put(object, metric->name, json_of(metric, values.median)) &&
           sl_json_put(object, lowest, json_of(metric, values.lowest)) &&
           sl_json_put(object, highest, json_of(metric, values.highest));
}

static void print_spread(sl_console *console, const sl_metric *metric, spread values)
{
    const char *format = metric->is_count ? "%-16s %16.0f %16.0f %16.0f\n" : "%-16s %16.3f %16.3f %16.3f\n";
    char line[120];
    snprintf(line, sizeof line, format, metric->name, values.median, values.lowest, values.highest);
    sl_console_print(console, "%s", line);
}

static sluice_status publish(benchmark *self, sluice_error *error)
{
    sl_console *console = self->model.console;
    bool as_json = sl_options_flag(self->model.options, SL_OPTION_JSON);
    const sl_report *last = &self->reports[self->n_repetitions - 1];
    json_t *object = sl_report_json(last);
    double *scratch = sl_alloc(&console->memory, SL_MEMORY_OTHER, self->n_repetitions, sizeof *scratch);
    bool done = scratch != NULL && sl_json_put(object, "repetitions", json_integer(self->n_repetitions));
    if (!as_json) {
        sl_console_print_escaped(console, last->model, strlen(last->model));
        sl_console_print(console,
                         ": %zu prompt tokens, %" PRIu32 " generated, %" PRIu32 " repetitions; %s, %s, %" PRIu32
                         " threads\n\n%-16s %16s %16s %16s\n",
                         self->n_prompt, self->n_generated, self->n_repetitions, last->isa, last->io_backend,
                         last->threads, "", "median", "lowest", "highest");
    }
    for (size_t i = 0; i < sl_n_metrics && done; i++) {
        spread values = spread_of(self, &sl_metrics[i], scratch);
        done = put_spread(object, &sl_metrics[i], values);
        if (!as_json) {
            print_spread(console, &sl_metrics[i], values);
        }
    }
    sluice_status status = done ? SLUICE_OK : sl_error_no_memory(error, 0, "the statistics");
    if (status == SLUICE_OK) {
        status = sl_model_run_finish(&self->model, object, error);
    }
    if (status == SLUICE_OK && as_json) {
        status = sl_json_print(console, object, error);
    }
    sl_free(&console->memory, scratch);
    json_decref(object);
    return status;
}

static sluice_status measure(benchmark *self, const sl_options *options, sl_console *console, sluice_error *error)
{
    SL_TRY(sl_model_run_open(&self->model, options, console, error));
    SL_TRY(make_prompt(self, error));
    uint32_t n_wanted = (uint32_t)sl_options_integer(options, SL_OPTION_REPETITIONS);
    self->reports = sl_alloc(&console->memory, SL_MEMORY_OTHER, n_wanted, sizeof *self->reports);
    if (self->reports == NULL) {
        return sl_error_no_memory(error, n_wanted * sizeof *self->reports, "the statistics");
    }
    self->model.progress.label = "measuring";
    sluice_status status = SLUICE_OK;
    while (self->n_repetitions < n_wanted && status == SLUICE_OK) {
        sl_progress_show(&self->model.progress, self->n_repetitions, n_wanted, "repetitions");
        status = repeat(self, error);
    }
    sl_progress_clear(&self->model.progress);
    if (status == SLUICE_ERROR_CANCELLED && self->n_repetitions > 0) {
        /* What was measured counts; that it was stopped is still what the command ends with. */
        sluice_error report_error = {0};
        (void)publish(self, &report_error);
    }
    return status == SLUICE_OK ? publish(self, error) : status;
}

int sl_command_bench(const sl_options *options, sl_console *console)
{
    benchmark self = {0};
    sluice_error error = {0};
    sluice_status status = measure(&self, options, console, &error);
    sl_free(&console->memory, self.prompt);
    sl_free(&console->memory, self.reports);
    sl_model_run_close(&self.model);
    return status == SLUICE_OK ? SL_EXIT_OK : sl_model_run_fail(&error);
}
