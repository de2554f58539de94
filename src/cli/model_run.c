/* Owns the engine and the session of one command. States: nothing -> engine -> engine and watched session -> nothing.
 */
#include "cli/model_run.h"

#include <stdlib.h>

#include "cli/interrupt.h"

static void write_log(void *user, sluice_log_level level, const char *line)
{
    (void)user;
    static const char *const labels[] = {"error: ", "warning: ", "", "debug: ", "trace: "};
    sl_console_say("%s%s", labels[level], line);
}

static bool show_loading(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    sl_progress_show(user, done_bytes, total_bytes, NULL);
    return !sl_interrupt_caught();
}

void sl_engine_options_from(sluice_engine_options *engine_options, const sl_options *options)
{
    sluice_engine_options_init(engine_options);
    engine_options->model_path = sl_options_text(options, SL_OPTION_MODEL);
    engine_options->mem_budget_bytes = sl_options_integer(options, SL_OPTION_MEM);
    engine_options->context_length = (uint32_t)sl_options_integer(options, SL_OPTION_CONTEXT);
    engine_options->prefill_chunk = (uint32_t)sl_options_integer(options, SL_OPTION_CHUNK);
    engine_options->n_threads = (uint32_t)sl_options_integer(options, SL_OPTION_THREADS);
    engine_options->kv_type = (sluice_kv_type)sl_options_integer(options, SL_OPTION_KV); /* same order */
    engine_options->capture_routing = sl_options_given(options, SL_OPTION_RECORD_ROUTING);
    engine_options->cpu_mask = sl_options_text(options, SL_OPTION_CPU_MASK);
    engine_options->io = sl_options_text(options, SL_OPTION_IO);
    engine_options->prefetch = sl_options_text(options, SL_OPTION_PREFETCH);
    engine_options->policy = sl_options_text(options, SL_OPTION_POLICY);
    engine_options->policy_trace = sl_options_text(options, SL_OPTION_POLICY_TRACE);
    engine_options->log = write_log;
    engine_options->log_level = (sluice_log_level)sl_options_integer(options, SL_OPTION_LOG_LEVEL);
}

sluice_status sl_model_run_open(sl_model_run *run, const sl_options *options, sl_console *console, sluice_error *error)
{
    *run = (sl_model_run){.options = options, .console = console};
    sl_progress_init(&run->progress, console, "loading");
    SL_TRY(sl_result_file_open(&run->stats_file, sl_options_text(options, SL_OPTION_STATS), error));
    sluice_engine_options engine_options;
    sl_engine_options_from(&engine_options, options);
    engine_options.progress = show_loading;
    engine_options.progress_user = &run->progress;
    sluice_status status = sluice_engine_open(&run->engine, &engine_options, error);
    sl_progress_clear(&run->progress);
    if (status != SLUICE_OK) {
        return status;
    }
    SL_TRY(sluice_session_open(&run->session, run->engine, error));
    const char *recording = sl_options_text(options, SL_OPTION_RECORD_ROUTING);
    if (recording != NULL) {
        SL_TRY(sluice_session_record_routing(run->session, recording, error));
    }
    sl_interrupt_watch(run->session);
    return SLUICE_OK;
}

sluice_status sl_model_run_finish(sl_model_run *run, const json_t *statistics, sluice_error *error)
{
    SL_TRY(sl_json_save(&run->stats_file, statistics, error));
    return sluice_session_finish_recording(run->session, error);
}

void sl_model_run_close(sl_model_run *run)
{
    sl_interrupt_watch(NULL);
    sl_progress_clear(&run->progress);
    sluice_session_close(&run->session);
    sluice_engine_close(&run->engine);
    sl_result_file_close(&run->stats_file);
}

sluice_status sl_model_run_tokenize(const sluice_vocabulary *vocabulary, const sl_options *options, const sl_text *text,
                                    int32_t **tokens, size_t *n_tokens, sluice_error *error)
{
    SL_TRY(sluice_tokenize(vocabulary, text->data != NULL ? text->data : "", text->length,
                           !sl_options_flag(options, SL_OPTION_NO_BOS), !sl_options_flag(options, SL_OPTION_NO_SPECIAL),
                           tokens, n_tokens, error));
    if (*n_tokens == 0) {
        sluice_free(*tokens);
        *tokens = NULL;
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "the text is empty: there is no token to begin with");
    }
    return SLUICE_OK;
}

int sl_model_run_fail(const sluice_error *error)
{
    sl_console_say("%s", error->status == SLUICE_ERROR_CANCELLED && sl_interrupt_caught() ? "stopped by a signal"
                                                                                          : error->message);
    return SL_EXIT_FAILURE;
}
