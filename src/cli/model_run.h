/* An engine and a session from the options of a command that runs a model. */
#ifndef SL_CLI_MODEL_RUN_H
#define SL_CLI_MODEL_RUN_H

#include "base/options.h"
#include "cli/console.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/result_file.h"
#include "sluice/sluice.h"

/* thread: the main thread only. */
typedef struct sl_model_run {
    const sl_options *options; /* borrowed */
    sl_console *console;       /* borrowed */
    sluice_engine *engine;     /* owned */
    sluice_session *session;   /* owned */
    sl_progress progress;
    sl_result_file stats_file; /* of --stats */
} sl_model_run;

/* The engine's options as the command line gives them. */
void sl_engine_options_from(sluice_engine_options *engine_options, const sl_options *options);

/* Open the file of --stats, the engine and a session; Ctrl-C cancels the session from here on. Close it whatever this
 * returns. */
SLUICE_NODISCARD sluice_status sl_model_run_open(sl_model_run *run, const sl_options *options, sl_console *console,
                                                 sluice_error *error);
/* Write the files that the options name: the statistics, and the recording of routing. */
SLUICE_NODISCARD sluice_status sl_model_run_finish(sl_model_run *run, const json_t *statistics, sluice_error *error);
void sl_model_run_close(sl_model_run *run);

/* The tokens of a text, with what --no-bos and --no-special say where the command takes them; freed with sluice_free.
 * SLUICE_ERROR_ARGUMENT when there are none. */
SLUICE_NODISCARD sluice_status sl_model_run_tokenize(const sluice_vocabulary *vocabulary, const sl_options *options,
                                                     const sl_text *text, int32_t **tokens, size_t *n_tokens,
                                                     sluice_error *error);

/* Say what went wrong; the program's exit status for it. */
int sl_model_run_fail(const sluice_error *error);

/* The commands. Each returns the program's exit status. */
int sl_command_run(const sl_options *options, sl_console *console);
int sl_command_bench(const sl_options *options, sl_console *console);
int sl_command_inspect(const sl_options *options, sl_console *console);
int sl_command_tokenize(const sl_options *options, sl_console *console);
int sl_command_logits(const sl_options *options, sl_console *console);
int sl_command_perplexity(const sl_options *options, sl_console *console);
int sl_command_quantize(const sl_options *options, sl_console *console);

#endif
