/* Owns nothing: turns counters into JSON and into a summary. The keys are an interface: they never change. */
#include "cli/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sl_report_init(sl_report *report, sluice_engine *engine)
{
    sluice_memory_plan plan;
    sluice_engine_memory_plan_get(engine, &plan);
    *report = (sl_report){.model = sluice_engine_model_name(engine),
                          .isa = sluice_engine_isa(engine),
                          .io_backend = sluice_engine_io_backend(engine),
                          .threads = sluice_engine_n_threads(engine),
                          .mem_budget_bytes = plan.budget_bytes};
    sluice_engine_stats *stats = &report->engine;
    sluice_engine_stats_get(engine, stats);
    if (stats->expert_requests > 0) {
        report->hit_rate = (double)stats->expert_hits / (double)stats->expert_requests;
    }
    if (stats->io_busy_ms > 0) {
        report->read_gb_s = (double)stats->bytes_read / (stats->io_busy_ms * 1e6);
    }
}

void sl_report_add_generation(sl_report *report, const sluice_generation_result *result)
{
    report->prompt_tokens = result->prompt_tokens;
    report->generated_tokens = result->generated_tokens;
    report->prefill_tok_s = result->prefill_tok_s;
    report->decode_tok_s = result->decode_tok_s;
    report->ttft_ms = result->ttft_ms;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

bool sl_json_put(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

json_t *sl_json_number(double number)
{
    return isfinite(number) ? json_real(number) : json_null();
}

json_t *sl_json_count(uint64_t number)
{
    return number <= INT64_MAX ? json_integer((json_int_t)number) : json_real((double)number);
}

json_t *sl_json_text(sl_memory *memory, const char *bytes, size_t length)
{
    static const char replacement[] = "\xef\xbf\xbd";
    sl_text text;
    sl_text_init(&text, memory, SL_MEMORY_OTHER);
    bool done = sl_text_append(&text, "", 0);
    for (size_t i = 0; i < length && done;) {
        size_t n_bytes = sl_utf8_length(bytes + i, length - i);
        done = n_bytes > 0 ? sl_text_append(&text, bytes + i, n_bytes) : sl_text_append(&text, replacement, 3);
        i += n_bytes > 0 ? n_bytes : 1;
    }
    json_t *string = done ? json_stringn(text.data, text.length) : NULL;
    sl_text_fini(&text);
    return string;
}

json_t *sl_json_hash(uint64_t hash)
{
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    return json_string(text);
}

static bool put_memory(json_t *object, const sl_report *report)
{
    json_t *by_tag = json_object();
    bool done = by_tag != NULL;
    for (uint32_t tag = 0; tag < SLUICE_MEMORY_TAGS && done; tag++) {
        done = sl_json_put(by_tag, sluice_memory_tag_name(tag), sl_json_count(report->engine.mem_by_tag[tag]));
    }
    return sl_json_put(object, "mem_by_tag", by_tag) && done &&
           sl_json_put(object, "mem_budget_bytes", sl_json_count(report->mem_budget_bytes)) &&
           sl_json_put(object, "mem_peak_bytes", sl_json_count(report->engine.mem_peak_bytes));
}

static bool put_experts(json_t *object, const sl_report *report)
{
    const sluice_engine_stats *stats = &report->engine;
    return sl_json_put(object, "expert_requests", sl_json_count(stats->expert_requests)) &&
           sl_json_put(object, "expert_hits", sl_json_count(stats->expert_hits)) &&
           sl_json_put(object, "expert_misses", sl_json_count(stats->expert_misses)) &&
           sl_json_put(object, "hit_rate", sl_json_number(report->hit_rate)) &&
           sl_json_put(object, "bytes_read", sl_json_count(stats->bytes_read)) &&
           sl_json_put(object, "read_gb_s", sl_json_number(report->read_gb_s)) &&
           sl_json_put(object, "io_wait_ms", sl_json_number(stats->io_wait_ms)) &&
           sl_json_put(object, "prefetch_issued", sl_json_count(stats->prefetch_issued)) &&
           sl_json_put(object, "prefetch_used", sl_json_count(stats->prefetch_used)) &&
           sl_json_put(object, "prefetch_late", sl_json_count(stats->prefetch_late)) &&
           sl_json_put(object, "prefetch_useless", sl_json_count(stats->prefetch_useless));
}

json_t *sl_report_json(const sl_report *report)
{
    json_t *object = json_object();
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    bool done = sl_json_put(object, "model", sl_json_text(&memory, report->model, strlen(report->model))) &&
                sl_json_put(object, "prompt_tokens", sl_json_count(report->prompt_tokens)) &&
                sl_json_put(object, "generated_tokens", sl_json_count(report->generated_tokens)) &&
                sl_json_put(object, "prefill_tok_s", sl_json_number(report->prefill_tok_s)) &&
                sl_json_put(object, "decode_tok_s", sl_json_number(report->decode_tok_s)) &&
                sl_json_put(object, "ttft_ms", sl_json_number(report->ttft_ms)) && put_memory(object, report) &&
                put_experts(object, report) && sl_json_put(object, "logits_hash", sl_json_hash(report->logits_hash)) &&
                sl_json_put(object, "isa", json_string(report->isa)) &&
                sl_json_put(object, "io_backend", json_string(report->io_backend)) &&
                sl_json_put(object, "threads", json_integer(report->threads));
    if (!done) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static char *dump(const json_t *object, sluice_error *error)
{
    char *text = object == NULL ? NULL : json_dumps(object, JSON_INDENT(2));
    if (text == NULL) {
        (void)sl_error_no_memory(error, 0, "a JSON object");
    }
    return text;
}

sluice_status sl_json_print(sl_console *console, const json_t *object, sluice_error *error)
{
    char *text = dump(object, error);
    if (text == NULL) {
        return SLUICE_ERROR_NO_MEMORY;
    }
    sl_console_print(console, "%s\n", text);
    free(text);
    return SLUICE_OK;
}

sluice_status sl_json_save(sl_result_file *file, const json_t *object, sluice_error *error)
{
    char *text = dump(object, error);
    if (text == NULL) {
        return SLUICE_ERROR_NO_MEMORY;
    }
    sluice_status status = sl_result_file_write(file, text, strlen(text), error);
    if (status == SLUICE_OK) {
        status = sl_result_file_write(file, "\n", 1, error);
    }
    free(text);
    return status == SLUICE_OK ? sl_result_file_commit(file, error) : status;
}

/* ---- Summary ----------------------------------------------------------------------------------------------------- */

void sl_report_print_summary(const sl_report *report)
{
    const sluice_engine_stats *stats = &report->engine;
    if (report->prompt_tokens == 0 && stats->expert_requests == 0) {
        return; /* refused before anything ran: the error says it all */
    }
    char budget[24];
    char peak[24];
    char bytes[24];
    char speed[80] = "";
    if (report->decode_tok_s > 0) {
        snprintf(speed, sizeof speed, " at %.1f tok/s", report->decode_tok_s);
    }
    if (report->generated_tokens > 0) {
        sl_console_say("prompt: %" PRIu64 " tokens at %.1f tok/s; generated: %" PRIu64
                       " tokens%s, the first after %.0f ms",
                       report->prompt_tokens, report->prefill_tok_s, report->generated_tokens, speed, report->ttft_ms);
    } else if (report->prefill_tok_s > 0) {
        sl_console_say("%" PRIu64 " tokens at %.1f tok/s", report->prompt_tokens, report->prefill_tok_s);
    } else {
        sl_console_say("%" PRIu64 " tokens%s", report->prompt_tokens, speed);
    }
    sl_console_say("experts: %.1f %% of %" PRIu64 " requests found in memory; read %s at %.2f GB/s, waited %.0f ms",
                   report->hit_rate * 100.0, stats->expert_requests,
                   sl_format_size(stats->bytes_read, bytes, sizeof bytes), report->read_gb_s, stats->io_wait_ms);
    sl_console_say("memory: peak %s of a budget of %s; %s, %s, %" PRIu32 " threads",
                   sl_format_size(stats->mem_peak_bytes, peak, sizeof peak),
                   sl_format_size(report->mem_budget_bytes, budget, sizeof budget), report->isa, report->io_backend,
                   report->threads);
}

/* ---- Figures of a benchmark -------------------------------------------------------------------------------------- */

static double get_prefill_tok_s(const sl_report *report)
{
    return report->prefill_tok_s;
}

static double get_decode_tok_s(const sl_report *report)
{
    return report->decode_tok_s;
}

static double get_ttft_ms(const sl_report *report)
{
    return report->ttft_ms;
}

static double get_mem_peak_bytes(const sl_report *report)
{
    return (double)report->engine.mem_peak_bytes;
}

static double get_expert_requests(const sl_report *report)
{
    return (double)report->engine.expert_requests;
}

static double get_expert_hits(const sl_report *report)
{
    return (double)report->engine.expert_hits;
}

static double get_expert_misses(const sl_report *report)
{
    return (double)report->engine.expert_misses;
}

static double get_hit_rate(const sl_report *report)
{
    return report->hit_rate;
}

static double get_bytes_read(const sl_report *report)
{
    return (double)report->engine.bytes_read;
}

static double get_read_gb_s(const sl_report *report)
{
    return report->read_gb_s;
}

static double get_io_wait_ms(const sl_report *report)
{
    return report->engine.io_wait_ms;
}

static double get_prefetch_issued(const sl_report *report)
{
    return (double)report->engine.prefetch_issued;
}

static double get_prefetch_used(const sl_report *report)
{
    return (double)report->engine.prefetch_used;
}

static double get_prefetch_late(const sl_report *report)
{
    return (double)report->engine.prefetch_late;
}

static double get_prefetch_useless(const sl_report *report)
{
    return (double)report->engine.prefetch_useless;
}

const sl_metric sl_metrics[] = {
    {"prefill_tok_s", false, get_prefill_tok_s},
    {"decode_tok_s", false, get_decode_tok_s},
    {"ttft_ms", false, get_ttft_ms},
    {"hit_rate", false, get_hit_rate},
    {"expert_requests", true, get_expert_requests},
    {"expert_hits", true, get_expert_hits},
    {"expert_misses", true, get_expert_misses},
    {"bytes_read", true, get_bytes_read},
    {"read_gb_s", false, get_read_gb_s},
    {"io_wait_ms", false, get_io_wait_ms},
    {"prefetch_issued", true, get_prefetch_issued},
    {"prefetch_used", true, get_prefetch_used},
    {"prefetch_late", true, get_prefetch_late},
    {"prefetch_useless", true, get_prefetch_useless},
    {"mem_peak_bytes", true, get_mem_peak_bytes},
};
const size_t sl_n_metrics = sizeof sl_metrics / sizeof sl_metrics[0];
