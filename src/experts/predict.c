/* Owns what the last token asked each layer for, and the verdicts on the predictors.
 *
 * Invariants
 *  (1) One candidate is active, or none: `candidate` counts through those of the kind, and past the last one comes a
 *      rest of `n_rest` windows without any, after which the first is tried again.
 *  (2) Verdicts rest on counted bytes over whole windows of passes that are not wide; a pass counts for the candidate
 *      that was active when it began.
 *  (3) Predictions are guesses: nothing of them reaches a result.
 * States of the predictor: TRYING candidate -> (does not pay) next candidate ... -> RESTING -> TRYING the first.
 * Threads: the owner, one at a time. */
#include "experts/predict.h"

#include <string.h>

/* Of a wide pass every expert is expected to be asked for by this many tokens. */
enum { WIDE_TOKENS_PER_EXPERT = 4, MAX_CANDIDATES = 2, LARGEST_REST = 16 * SL_PREDICT_LEAST_REST };

struct sl_predictor {
    sl_predictor_config config;
    sl_prefetch_kind candidates[MAX_CANDIDATES];
    uint32_t n_candidates;
    uint32_t candidate;       /* index of the active one; n_candidates: resting */
    bool has_counters;        /* since the first pass */
    bool wide;                /* the pass under way */
    uint32_t n_passes;        /* of the window so far, not wide */
    uint32_t n_rest;          /* windows that the next rest has */
    uint32_t n_rested;        /* of the rest under way */
    sl_store_counters seen;   /* when the pass under way began */
    sl_store_counters window; /* gained in the window so far */
    uint32_t *n_recorded;     /* owned; [n_layers] */
    uint32_t *recorded;       /* owned; [n_layers][n_experts] */
    uint32_t *merged;         /* owned; [n_experts] */
    uint32_t *merged_at;      /* owned; [n_experts]: the merge that took the expert last */
    uint32_t n_merges;
};

bool sl_prefetch_kind_parse(const char *name, sl_prefetch_kind *kind)
{
    static const char *const names[] = {"none", "previous", "router", "auto"};
    for (int i_name = 0; i_name <= SL_PREFETCH_AUTO; i_name++) {
        if (strcmp(name, names[i_name]) == 0) {
            *kind = (sl_prefetch_kind)i_name;
            return true;
        }
    }
    return false;
}

/* ---- What it brings ---- */

/* a += b - c for every counter that is judged by. */
static void add_difference(sl_store_counters *a, const sl_store_counters *b, const sl_store_counters *c)
{
    a->bytes_read += b->bytes_read - c->bytes_read;
    a->expert_bytes += b->expert_bytes - c->expert_bytes;
    a->busy_ns += b->busy_ns - c->busy_ns;
    a->misses += b->misses - c->misses;
    a->prefetch_issued += b->prefetch_issued - c->prefetch_issued;
    a->prefetch_used += b->prefetch_used - c->prefetch_used;
    a->prefetch_useless += b->prefetch_useless - c->prefetch_useless;
    a->prefetch_used_bytes += b->prefetch_used_bytes - c->prefetch_used_bytes;
    a->prefetch_displaced += b->prefetch_displaced - c->prefetch_displaced;
    a->prefetch_ahead_bytes += b->prefetch_ahead_bytes - c->prefetch_ahead_bytes;
}

sl_prefetch_value sl_prefetch_value_of(const sl_store_counters *before, const sl_store_counters *after)
{
    sl_store_counters gained = {0};
    add_difference(&gained, after, before);
    if (gained.bytes_read == 0) {
        return (sl_prefetch_value){0};
    }
    double ms_per_byte = (double)gained.busy_ns * 1e-6 / (double)gained.bytes_read;
    uint64_t n_settled = gained.prefetch_used + gained.prefetch_useless;
    double useless_share = n_settled == 0 ? 0.0 : (double)gained.prefetch_useless / (double)n_settled;
    uint64_t n_read = gained.misses + gained.prefetch_used;
    double bytes_of_one = n_read == 0 ? 0.0 : (double)gained.bytes_read / (double)n_read;
    double displaced_bytes = (double)gained.prefetch_displaced * useless_share * bytes_of_one;
    return (sl_prefetch_value){.saved_ms = (double)gained.prefetch_used_bytes * ms_per_byte,
                               .lost_ms = ((double)gained.prefetch_ahead_bytes + displaced_bytes) * ms_per_byte,
                               .read_ms = (double)gained.busy_ns * 1e-6};
}

bool sl_prefetch_pays(const sl_prefetch_value *value)
{
    return value->saved_ms - value->lost_ms > 0.03 * value->read_ms;
}

static const char *candidate_name(const sl_predictor *predictor)
{
    return predictor->candidates[predictor->candidate] == SL_PREFETCH_ROUTER ? "router" : "previous";
}

static void log_verdict(const sl_predictor *predictor, const sl_prefetch_value *value, bool pays)
{
    const sl_store_counters *window = &predictor->window;
    sl_log_line(predictor->config.log, SL_LOG_DEBUG,
                "prefetch by %s: %d tokens: %llu experts read ahead, %llu used, %.1f ms saved and %.1f ms lost of %.1f "
                "ms of reads; %s",
                candidate_name(predictor), SL_PREDICT_WINDOW, (unsigned long long)window->prefetch_issued,
                (unsigned long long)window->prefetch_used, value->saved_ms, value->lost_ms, value->read_ms,
                pays ? "it stays" : "it does not pay");
}

/* A window is over: stay with the candidate, or go on to what follows it. */
static void judge(sl_predictor *predictor)
{
    if (predictor->candidate == predictor->n_candidates) {
        predictor->n_rested++;
        if (predictor->n_rested >= predictor->n_rest) {
            predictor->n_rest = predictor->n_rest * 2 > LARGEST_REST ? LARGEST_REST : predictor->n_rest * 2;
            predictor->candidate = 0;
        }
        return;
    }
    static const sl_store_counters nothing = {0};
    sl_prefetch_value value = sl_prefetch_value_of(&nothing, &predictor->window);
    bool pays = sl_prefetch_pays(&value);
    log_verdict(predictor, &value, pays);
    if (pays) {
        predictor->n_rest = SL_PREDICT_LEAST_REST;
    } else {
        predictor->candidate++;
        predictor->n_rested = 0;
    }
}

/* ---- Passes ---- */

void sl_predictor_begin_pass(sl_predictor *predictor, uint32_t n_rows, const sl_store_counters *counters)
{
    if (predictor->n_candidates == 0) {
        return;
    }
    /* Counters that fell were reset in between: that pass tells nothing. */
    if (predictor->has_counters && !predictor->wide && counters->requests >= predictor->seen.requests) {
        add_difference(&predictor->window, counters, &predictor->seen);
        predictor->n_passes++;
        if (predictor->n_passes == SL_PREDICT_WINDOW) {
            judge(predictor);
            predictor->window = (sl_store_counters){0};
            predictor->n_passes = 0;
        }
    }
    predictor->seen = *counters;
    predictor->has_counters = true;
    predictor->wide =
        (uint64_t)n_rows * predictor->config.n_used >= (uint64_t)WIDE_TOKENS_PER_EXPERT * predictor->config.n_experts;
}

static bool is_active(const sl_predictor *predictor, sl_prefetch_kind kind)
{
    return predictor->candidate < predictor->n_candidates && predictor->candidates[predictor->candidate] == kind;
}

bool sl_predictor_wants_router(const sl_predictor *predictor)
{
    return is_active(predictor, SL_PREFETCH_ROUTER) && !predictor->wide;
}

/* The distinct experts of all rows into `experts` [n_experts]: first every row's first, then every row's second. */
static uint32_t merge(sl_predictor *predictor, const uint32_t *ids, uint32_t n_rows, uint32_t *experts)
{
    uint32_t n_used = predictor->config.n_used;
    uint32_t n_merged = 0;
    if (++predictor->n_merges == 0) {
        memset(predictor->merged_at, 0, predictor->config.n_experts * sizeof *predictor->merged_at);
        predictor->n_merges = 1;
    }
    for (uint32_t rank = 0; rank < n_used; rank++) {
        for (uint32_t row = 0; row < n_rows; row++) {
            uint32_t expert = ids[(size_t)row * n_used + rank];
            if (expert < predictor->config.n_experts && predictor->merged_at[expert] != predictor->n_merges) {
                predictor->merged_at[expert] = predictor->n_merges;
                experts[n_merged++] = expert;
            }
        }
    }
    return n_merged;
}

void sl_predictor_record(sl_predictor *predictor, uint32_t layer, const uint32_t *ids, uint32_t n_rows)
{
    if (layer >= predictor->config.n_layers || predictor->n_candidates == 0 || n_rows == 0) {
        return;
    }
    /* After a prompt it is its last token that the next one resembles. */
    uint32_t first_row = predictor->wide ? n_rows - 1 : 0;
    predictor->n_recorded[layer] =
        merge(predictor, ids + (size_t)first_row * predictor->config.n_used, n_rows - first_row,
              &predictor->recorded[(size_t)layer * predictor->config.n_experts]);
}

void sl_predictor_invalidate(sl_predictor *predictor)
{
    memset(predictor->n_recorded, 0, predictor->config.n_layers * sizeof *predictor->n_recorded);
}

uint32_t sl_predictor_predict(sl_predictor *predictor, uint32_t layer, const uint32_t **experts)
{
    *experts = predictor->merged;
    if (layer >= predictor->config.n_layers || predictor->n_candidates == 0) {
        return 0;
    }
    if (predictor->wide) {
        for (uint32_t expert = 0; expert < predictor->config.n_experts; expert++) {
            predictor->merged[expert] = expert;
        }
        return predictor->config.n_experts;
    }
    if (!is_active(predictor, SL_PREFETCH_PREVIOUS)) {
        return 0;
    }
    *experts = &predictor->recorded[(size_t)layer * predictor->config.n_experts];
    return predictor->n_recorded[layer];
}

uint32_t sl_predictor_merge(sl_predictor *predictor, const uint32_t *ids, uint32_t n_rows, const uint32_t **experts)
{
    *experts = predictor->merged;
    return merge(predictor, ids, n_rows, predictor->merged);
}

/* ---- Open and close ---- */

typedef struct predictor_sizes {
    uint64_t n_recorded, recorded, merged; /* bytes; there are two of the last */
} predictor_sizes;

static predictor_sizes sizes_of(const sl_predictor_config *config)
{
    uint64_t n_total = (uint64_t)config->n_layers * config->n_experts;
    return (predictor_sizes){.n_recorded = config->n_layers * sizeof(uint32_t),
                             .recorded = n_total * sizeof(uint32_t),
                             .merged = config->n_experts * sizeof(uint32_t)};
}

uint64_t sl_predictor_cost(const sl_predictor_config *config)
{
    predictor_sizes sizes = sizes_of(config);
    return sl_memory_cost(sizeof(sl_predictor), 16) + sl_memory_cost(sizes.n_recorded, 16) +
           sl_memory_cost(sizes.recorded, 16) + 2 * sl_memory_cost(sizes.merged, 16);
}

sluice_status sl_predictor_open(sl_predictor **out, const sl_predictor_config *config, sluice_error *error)
{
    *out = NULL;
    sl_memory *memory = config->memory;
    sl_predictor *predictor = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizeof *predictor);
    if (predictor == NULL) {
        return sl_error_no_memory(error, sizeof *predictor, "the predictor of experts");
    }
    predictor_sizes sizes = sizes_of(config);
    predictor->config = *config;
    if (config->kind == SL_PREFETCH_ROUTER || config->kind == SL_PREFETCH_AUTO) {
        predictor->candidates[predictor->n_candidates++] = SL_PREFETCH_ROUTER;
    }
    if (config->kind == SL_PREFETCH_PREVIOUS || config->kind == SL_PREFETCH_AUTO) {
        predictor->candidates[predictor->n_candidates++] = SL_PREFETCH_PREVIOUS;
    }
    predictor->n_rest = SL_PREDICT_LEAST_REST;
    predictor->n_recorded = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizes.n_recorded);
    predictor->recorded = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizes.recorded);
    predictor->merged = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizes.merged);
    predictor->merged_at = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizes.merged);
    if (predictor->n_recorded == NULL || predictor->recorded == NULL || predictor->merged == NULL ||
        predictor->merged_at == NULL) {
        sl_predictor_close(&predictor);
        return sl_error_no_memory(error, sl_predictor_cost(config), "the predictor of experts");
    }
    *out = predictor;
    return SLUICE_OK;
}

void sl_predictor_close(sl_predictor **predictor)
{
    sl_predictor *closing = *predictor;
    if (closing == NULL) {
        return;
    }
    sl_memory *memory = closing->config.memory;
    sl_free(memory, closing->merged_at);
    sl_free(memory, closing->merged);
    sl_free(memory, closing->recorded);
    sl_free(memory, closing->n_recorded);
    sl_free(memory, closing);
    *predictor = NULL;
}
