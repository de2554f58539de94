/* `sluice quantize`: writes a model file with other tensor types. Owns nothing. */
#include "cli/model_run.h"

#include <inttypes.h>
#include <string.h>

#include "cli/interrupt.h"
#include "cli/report.h"

static bool show_progress(void *user, uint64_t done_bytes, uint64_t total_bytes, const char *tensor)
{
    (void)tensor;
    sl_progress_show(user, done_bytes, total_bytes, NULL);
    return !sl_interrupt_caught();
}

static sluice_status publish(const sl_options *options, sl_console *console, const sluice_quantize_result *result,
                             sluice_error *error)
{
    if (!sl_options_flag(options, SL_OPTION_JSON)) {
        char input[24];
        char output[24];
        sl_console_print_escaped(console, options->operands[1], strlen(options->operands[1]));
        sl_console_print(console, ": %s, from %s; %" PRIu64 " of %" PRIu64 " tensors converted",
                         sl_format_size(result->output_bytes, output, sizeof output),
                         sl_format_size(result->input_bytes, input, sizeof input), result->n_converted,
                         result->n_tensors);
        if (result->n_fallback > 0) {
            sl_console_print(console, ", %" PRIu64 " of them to a finer type because of their width",
                             result->n_fallback);
        }
        sl_console_print(console, "\n");
        return SLUICE_OK;
    }
    json_t *object = json_object();
    bool done = sl_json_put(object, "input_bytes", sl_json_count(result->input_bytes)) &&
                sl_json_put(object, "output_bytes", sl_json_count(result->output_bytes)) &&
                sl_json_put(object, "tensors", sl_json_count(result->n_tensors)) &&
                sl_json_put(object, "converted", sl_json_count(result->n_converted)) &&
                sl_json_put(object, "fallbacks", sl_json_count(result->n_fallback));
    sluice_status status =
        done ? sl_json_print(console, object, error) : sl_error_no_memory(error, 0, "the statistics");
    json_decref(object);
    return status;
}

int sl_command_quantize(const sl_options *options, sl_console *console)
{
    sl_progress progress;
    sl_progress_init(&progress, console, "quantizing");
    sluice_quantize_options quantize_options = {.type = options->operands[2],
                                                .overrides = options->list,
                                                .n_overrides = options->n_list,
                                                .n_threads = (uint32_t)sl_options_integer(options, SL_OPTION_THREADS),
                                                .progress = show_progress,
                                                .user = &progress};
    sluice_quantize_result result = {0};
    sluice_error error = {0};
    sluice_status status =
        sluice_quantize(options->operands[0], options->operands[1], &quantize_options, &result, &error);
    sl_progress_clear(&progress);
    if (status == SLUICE_OK) {
        status = publish(options, console, &result, &error);
    }
    return status == SLUICE_OK ? SL_EXIT_OK : sl_model_run_fail(&error);
}
