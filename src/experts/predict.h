/* Guesses which experts a layer will ask for before its own router has spoken, and watches whether acting on the
 * guesses pays. Knows layers and experts, not models. */
#ifndef SL_EXPERTS_PREDICT_H
#define SL_EXPERTS_PREDICT_H

#include "experts/store.h"

typedef enum sl_prefetch_kind {
    SL_PREFETCH_NONE,
    SL_PREFETCH_PREVIOUS, /* what the previous token asked the layer for */
    SL_PREFETCH_ROUTER,   /* what the layer's router says about the state of the layer before it */
    SL_PREFETCH_AUTO      /* whichever pays: router, then previous */
} sl_prefetch_kind;

/* From "none", "previous", "router" or "auto". */
bool sl_prefetch_kind_parse(const char *name, sl_prefetch_kind *kind);

enum {
    SL_PREDICT_WINDOW = 32,   /* passes over which a predictor is judged */
    SL_PREDICT_LEAST_REST = 4 /* windows without any after all failed; twice as many each time, up to 16 times that */
};

typedef struct sl_predictor_config {
    sl_prefetch_kind kind;
    uint32_t n_layers; /* that have experts */
    uint32_t n_experts;
    uint32_t n_used;   /* per token */
    sl_memory *memory; /* borrowed for the predictor's life */
    const sl_log *log; /* borrowed for the predictor's life; may be NULL */
} sl_predictor_config;

/* thread: one at a time. */
typedef struct sl_predictor sl_predictor;

SLUICE_NODISCARD sluice_status sl_predictor_open(sl_predictor **out, const sl_predictor_config *config,
                                                 sluice_error *error);
void sl_predictor_close(sl_predictor **predictor);
/* What open takes from the account, tag other. */
uint64_t sl_predictor_cost(const sl_predictor_config *config);

/* A pass through all layers with `n_rows` tokens begins. In a wide one, of so many tokens that nearly every expert will
 * be asked for, that is the prediction whatever the predictor. `counters` are the store's totals: what they gained
 * since the last call is what that pass brought, and after a window of passes that were not wide the predictor is
 * judged and may change. */
void sl_predictor_begin_pass(sl_predictor *predictor, uint32_t n_rows, const sl_store_counters *counters);

/* Whether guesses of routers are of use in this pass. */
bool sl_predictor_wants_router(const sl_predictor *predictor);

/* What the rows of this pass ask the layer for: ids [n_rows][n_used]. Nothing happens out of range. */
void sl_predictor_record(sl_predictor *predictor, uint32_t layer, const uint32_t *ids, uint32_t n_rows);
/* Forget what was recorded. */
void sl_predictor_invalidate(sl_predictor *predictor);

/* The experts to hint for the layer, the likeliest first, from what is known without its router; `*experts` is borrowed
 * until the next call. 0: no prediction, as for a layer out of range. */
uint32_t sl_predictor_predict(sl_predictor *predictor, uint32_t layer, const uint32_t **experts);

/* The same from the guesses of its router: ids [n_rows][n_used], each row the likeliest first. */
uint32_t sl_predictor_merge(sl_predictor *predictor, const uint32_t *ids, uint32_t n_rows, const uint32_t **experts);

/* What hints brought between two states of the counters, in milliseconds of the disk at the speed it showed:
 *   saved   what had arrived of hinted experts when they were asked for
 *   lost    what requests found in flight before them and did not want, and the misses of experts that gave way to
 *           hinted ones nobody asked for
 * Whether nothing else was to be waited for is not known, so both are upper bounds. */
typedef struct sl_prefetch_value {
    double saved_ms, lost_ms;
    double read_ms; /* all reads */
} sl_prefetch_value;
sl_prefetch_value sl_prefetch_value_of(const sl_store_counters *before, const sl_store_counters *after);

/* Whether that pays: more than 3 % of the time of all reads is gained. */
bool sl_prefetch_pays(const sl_prefetch_value *value);

#endif
