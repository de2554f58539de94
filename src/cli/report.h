/* The statistics object: gathered after a run, printed as a summary or written as JSON. */
#ifndef SL_CLI_REPORT_H
#define SL_CLI_REPORT_H

#include <jansson.h>

#include "cli/console.h"
#include "cli/result_file.h"
#include "sluice/sluice.h"

/* A rate is 0 where nothing was measured. thread: owner only. */
typedef struct sl_report {
    const char *model; /* borrowed from the engine, as the next two */
    const char *isa;
    const char *io_backend;
    uint32_t threads;
    uint64_t prompt_tokens, generated_tokens;
    double prefill_tok_s, decode_tok_s, ttft_ms;
    uint64_t mem_budget_bytes;
    uint64_t logits_hash;
    double hit_rate, read_gb_s;
    sluice_engine_stats engine;
} sl_report;

/* Everything the engine knows; the caller adds tokens, speeds and hash. */
void sl_report_init(sl_report *report, sluice_engine *engine);
/* Tokens and speeds of a generation. */
void sl_report_add_generation(sl_report *report, const sluice_generation_result *result);

/* A new object with the stable keys; NULL when memory is refused. */
json_t *sl_report_json(const sl_report *report);
/* Three lines on standard error. */
void sl_report_print_summary(const sl_report *report);

/* The figures that a benchmark repeats. */
typedef struct sl_metric {
    const char *name;
    bool is_count;
    double (*get)(const sl_report *report);
} sl_metric;
extern const sl_metric sl_metrics[];
extern const size_t sl_n_metrics;

/* Put `value`, which it takes over, under `key`; false when memory is refused or value is NULL. */
bool sl_json_put(json_t *object, const char *key, json_t *value);
/* A number, or null where it is infinite or not a number. */
json_t *sl_json_number(double number);
json_t *sl_json_count(uint64_t number);
/* A string of bytes of unknown origin: what is no UTF-8 becomes U+FFFD. */
json_t *sl_json_text(sl_memory *memory, const char *bytes, size_t length);
json_t *sl_json_hash(uint64_t hash);

/* The object as text with a newline. */
SLUICE_NODISCARD sluice_status sl_json_print(sl_console *console, const json_t *object, sluice_error *error);
SLUICE_NODISCARD sluice_status sl_json_save(sl_result_file *file, const json_t *object, sluice_error *error);

#endif
