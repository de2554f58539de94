/* Owns nothing: carries out the ROUTE, PREDICT and EXPERTS steps.
 *
 * A ROUTE step sorts the (token, rank) pairs by expert and asks the store for the distinct experts; what stands between
 * it and its EXPERTS step is computed while they are read. Then hints follow for the next layer, behind those reads:
 * from what the predictor remembers, or from a PREDICT step. The EXPERTS step computes each expert as it becomes ready
 * for all its tokens, and combines the results of a token in routed order.
 *
 * Invariants
 *  (1) An expert's rows are read only between its delivery by the store and its release.
 *  (2) Everything delivered is released before the store is asked to wait again, so a budget of a single slot
 *      makes progress.
 *  (3) The result of a pair depends on the token and the expert alone; the combination runs over ranks in order:
 *      neither the order of arrival nor the split over workers changes a bit.
 *  (4) Every request that was begun is ended, also after an error (sl_step_give_up_demand).
 *  (5) Hints come after the layer's own reads were asked for, and nothing that is computed depends on them. */
#include "exec/steps.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- Asking and hinting ---- */

/* Sort pairs by expert (counting sort: pairs of one expert stay in order) and list the distinct experts: in rank order
 * for a single token, by number otherwise, which is their order in the file. */
static uint32_t sort_pairs(sl_executor *executor, const uint32_t *ids, uint32_t n_pairs, uint32_t n_experts,
                           bool one_token)
{
    uint32_t *first = executor->expert_first;
    uint32_t n_wanted = 0;
    memset(first, 0, (n_experts + 1) * sizeof *first);
    for (uint32_t pair = 0; pair < n_pairs; pair++) {
        first[ids[pair] + 1]++;
    }
    for (uint32_t e = 0; e < n_experts; e++) {
        if (first[e + 1] > 0 && !one_token) {
            executor->wanted[n_wanted++] = e;
        }
        first[e + 1] += first[e];
    }
    if (one_token) {
        memcpy(executor->wanted, ids, n_pairs * sizeof *ids);
        n_wanted = n_pairs;
    }
    for (uint32_t pair = n_pairs; pair-- > 0;) {
        /* Filling from the back leaves first[e] at the start of expert e once shifted by one. */
        uint32_t place = --first[ids[pair] + 1];
        executor->pair_of[place] = pair;
        executor->place_of[pair] = place;
    }
    return n_wanted;
}

/* Tell the store what the layer after this one will probably need, as far as the predictor knows without its router. */
static void hint_next_layer(sl_executor *executor, uint32_t layer, const uint32_t *ids, uint32_t n_rows)
{
    if (!executor->with_hints) {
        return;
    }
    sl_predictor *predictor = executor->config.predictor;
    uint32_t next_layer = (layer + 1) % sl_store_n_layers(executor->config.store);
    const uint32_t *experts = NULL;
    sl_predictor_record(predictor, layer, ids, n_rows);
    uint32_t n_experts = sl_predictor_predict(predictor, next_layer, &experts);
    if (n_experts > 0) {
        sl_store_prefetch(executor->config.store, next_layer, experts, n_experts);
    }
}

/* Open the request of an EXPERTS step: its ids are [n_rows][n_used]. */
static sluice_status begin_demand(sl_executor *executor, const sl_step *step, const uint32_t *ids, uint32_t n_rows,
                                  sluice_error *error)
{
    sl_demand *demand = &executor->demand;
    uint32_t layer = step->attributes.expert_layer;
    demand->n_pairs = n_rows * step->attributes.n_used;
    demand->n_wanted = sort_pairs(executor, ids, demand->n_pairs, step->attributes.n_experts, n_rows == 1);
    for (uint32_t i = 0; i < demand->n_wanted; i++) {
        uint32_t expert = executor->wanted[i];
        executor->tokens_of[i] = executor->expert_first[expert + 1] - executor->expert_first[expert];
    }
    SL_TRY(sl_store_begin_chunk(executor->config.store, &demand->request, layer, executor->wanted, executor->tokens_of,
                                demand->n_wanted, n_rows, executor->progress, error));
    demand->step = step;
    hint_next_layer(executor, layer, ids, n_rows);
    return SLUICE_OK;
}

static void end_demand(sl_executor *executor)
{
    sl_store_end(executor->config.store, &executor->demand.request);
    executor->demand.step = NULL;
}

void sl_step_give_up_demand(sl_executor *executor)
{
    if (executor->demand.step != NULL) {
        end_demand(executor);
    }
}

/* The EXPERTS step that reads the ids of this ROUTE step, before any other ROUTE step; NULL when there is none. */
static const sl_step *experts_step_after(const sl_step_run *route)
{
    const sl_program *program = route->run->program;
    const sl_place *ids = &route->step->outputs[0];
    for (const sl_step *step = route->step + 1; step < program->steps + program->n_steps; step++) {
        if (step->kind == SL_OP_ROUTE) {
            return NULL;
        }
        if (step->kind == SL_OP_EXPERTS) {
            return step->inputs[1].kind == ids->kind && step->inputs[1].offset == ids->offset ? step : NULL;
        }
    }
    return NULL;
}

/* ---- ROUTE and PREDICT ---- */

static bool route_row(const sl_step_run *run, uint32_t row, float *p)
{
    const sl_step *step = run->step;
    const sl_op_attributes *attributes = &step->attributes;
    uint32_t n_used = attributes->n_used;
    uint32_t *ids = (uint32_t *)run->outputs[0] + (size_t)row * n_used;
    float *weights = sl_float_row_of(run->outputs[1], &step->outputs[1], row);
    memcpy(p, sl_float_row(run->inputs[0], &step->inputs[0], row), attributes->n_experts * sizeof *p);
    run->kernels->softmax(p, attributes->n_experts);
    sl_kernel_top_k(p, attributes->n_experts, n_used, ids);
    float sum = 0.0f;
    for (uint32_t i = 0; i < n_used; i++) {
        weights[i] = p[ids[i]];
        sum += weights[i];
    }
    if (!isfinite(sum)) {
        return false;
    }
    float divisor = !attributes->renormalise ? 1.0f : sum > 0x1p-14f ? sum : 0x1p-14f;
    float scale = attributes->weights_scale == 0.0f ? 1.0f : attributes->weights_scale;
    for (uint32_t i = 0; i < n_used; i++) {
        weights[i] = weights[i] / divisor * scale;
    }
    return true;
}

static sluice_status no_probabilities(const sl_step *experts, uint32_t row, sluice_error *error)
{
    char layer[32] = "";
    if (experts != NULL) {
        snprintf(layer, sizeof layer, " of MoE layer %u", experts->attributes.expert_layer);
    }
    return sl_error_set(
        error, SLUICE_ERROR_FORMAT,
        "the router%s finds no probabilities for row %u of the batch: weights up to there are not finite "
        "numbers; check the file against its source",
        layer, row);
}

sluice_status sl_step_route(const sl_step_run *step, sluice_error *error)
{
    sl_executor *executor = step->executor;
    const sl_step *experts = experts_step_after(step);
    for (uint32_t row = 0; row < step->rows; row++) {
        if (!route_row(step, row, executor->router_scratch)) {
            return no_probabilities(experts, row, error);
        }
    }
    return experts == NULL ? SLUICE_OK : begin_demand(executor, experts, step->outputs[0], step->rows, error);
}

void sl_step_predict(const sl_step_run *step)
{
    sl_executor *executor = step->executor;
    const sl_op_attributes *attributes = &step->step->attributes;
    uint32_t *ids = step->outputs[0];
    for (uint32_t row = 0; row < step->rows; row++) {
        sl_kernel_top_k(sl_float_row(step->inputs[0], &step->step->inputs[0], row), attributes->n_experts,
                        attributes->n_used, ids + (size_t)row * attributes->n_used);
    }
    const uint32_t *experts = NULL;
    uint32_t n_experts = sl_predictor_merge(executor->config.predictor, ids, step->rows, &experts);
    sl_store_prefetch(executor->config.store, attributes->expert_layer, experts, n_experts);
}

/* ---- EXPERTS ---- */

typedef struct experts_run {
    const sl_step_run *run;
    uint32_t n_pairs;
    uint32_t n_ready;
    uint32_t n_whole; /* so many of the first ready are each computed by one worker, from gate to down */
    bool shared_row;  /* one token: every expert reads the same row, nothing is gathered */
} experts_run;

/* After sort_pairs expert e's pairs start at first[e + 1]; its count follows from the next start. */
static uint32_t first_place(const experts_run *experts, uint32_t expert)
{
    return experts->run->executor->expert_first[expert + 1];
}

static uint32_t end_place(const experts_run *experts, uint32_t expert)
{
    return expert + 1 < experts->run->step->attributes.n_experts ? first_place(experts, expert + 1) : experts->n_pairs;
}

static void gather_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    const experts_run *experts = argument;
    const sl_step_run *run = experts->run;
    const sl_step *step = run->step;
    uint32_t begin = 0;
    uint32_t end = 0;
    sl_workers_share(experts->n_pairs, 1, worker, n_workers, &begin, &end);
    size_t row_bytes = step->inputs[0].row_bytes;
    for (uint32_t place = begin; place < end; place++) {
        uint32_t token = run->executor->pair_of[place] / step->attributes.n_used;
        memcpy((char *)run->outputs[SL_EXPERTS_GATHERED] + row_bytes * place,
               (const char *)run->inputs[0] + row_bytes * token, row_bytes);
    }
}

/* The rows of a piece of gate and up, then SwiGLU, for all tokens of one ready expert. */
static void gate_up_rows(const experts_run *experts, const sl_expert_view *view, uint32_t begin, uint32_t end)
{
    const sl_step_run *run = experts->run;
    const sl_step *step = run->step;
    const sl_op_attributes *attributes = &step->attributes;
    const sl_place *input = &step->inputs[0];
    uint32_t n_columns = (uint32_t)input->width;
    uint32_t place = first_place(experts, view->expert);
    uint32_t n_tokens = end_place(experts, view->expert) - place;
    const char *x =
        experts->shared_row ? run->inputs[0] : (char *)run->outputs[SL_EXPERTS_GATHERED] + input->row_bytes * place;
    float *gate = sl_float_row_of(run->outputs[SL_EXPERTS_GATE], &step->outputs[SL_EXPERTS_GATE], place);
    float *up = sl_float_row_of(run->outputs[SL_EXPERTS_UP], &step->outputs[SL_EXPERTS_UP], place);
    run->kernels->matmul[attributes->gate_type](view->matrices[0], sl_type_row_bytes(attributes->gate_type, n_columns),
                                                n_columns, begin, end, x, input->row_bytes, n_tokens, gate,
                                                attributes->n_ff);
    run->kernels->matmul[attributes->up_type](view->matrices[1], sl_type_row_bytes(attributes->up_type, n_columns),
                                              n_columns, begin, end, x, input->row_bytes, n_tokens, up,
                                              attributes->n_ff);
    for (uint32_t t = 0; t < n_tokens; t++) {
        float *row = gate + (size_t)t * attributes->n_ff + begin;
        run->kernels->swiglu(row, up + (size_t)t * attributes->n_ff + begin, end - begin, row);
    }
}

/* The activation form of a hidden row; nothing where the product takes it as it is. */
static void quantize_hidden(const experts_run *experts, uint32_t place)
{
    const sl_step_run *run = experts->run;
    const sl_step *step = run->step;
    const sl_place *hidden = &step->outputs[SL_EXPERTS_HIDDEN];
    if (run->outputs[SL_EXPERTS_HIDDEN] != NULL) {
        run->kernels->quantize_row[hidden->type](
            sl_float_row(run->outputs[SL_EXPERTS_GATE], &step->outputs[SL_EXPERTS_GATE], place), step->attributes.n_ff,
            (char *)run->outputs[SL_EXPERTS_HIDDEN] + hidden->row_bytes * place);
    }
}

static void down_rows(const experts_run *experts, const sl_expert_view *view, uint32_t begin, uint32_t end)
{
    const sl_step_run *run = experts->run;
    const sl_step *step = run->step;
    const sl_op_attributes *attributes = &step->attributes;
    uint32_t i_hidden = run->outputs[SL_EXPERTS_HIDDEN] != NULL ? SL_EXPERTS_HIDDEN : SL_EXPERTS_GATE;
    const sl_place *hidden = &step->outputs[i_hidden];
    uint32_t place = first_place(experts, view->expert);
    run->kernels->matmul[attributes->down_type](
        view->matrices[2], sl_type_row_bytes(attributes->down_type, attributes->n_ff), attributes->n_ff, begin, end,
        (char *)run->outputs[i_hidden] + hidden->row_bytes * place, hidden->row_bytes,
        end_place(experts, view->expert) - place,
        sl_float_row_of(run->outputs[SL_EXPERTS_PAIR_OUT], &step->outputs[SL_EXPERTS_PAIR_OUT], place),
        (uint32_t)step->outputs[SL_EXPERTS_OUT].width);
}

/* How many experts whole workers compute. An expert lies in one piece, and what is read in one run is read fastest; what
 * is left is for all workers together, so that they finish at one time. */
static uint32_t n_whole_of(const experts_run *experts, uint32_t n_workers)
{
    uint32_t n_shared = n_workers > 1 ? 1 : 0;
    return experts->shared_row ? (experts->n_ready - n_shared) / n_workers * n_workers : 0;
}

static void whole_expert(const experts_run *experts, const sl_expert_view *view)
{
    const sl_step *step = experts->run->step;
    gate_up_rows(experts, view, 0, step->attributes.n_ff);
    for (uint32_t place = first_place(experts, view->expert); place < end_place(experts, view->expert); place++) {
        quantize_hidden(experts, place);
    }
    down_rows(experts, view, 0, (uint32_t)step->outputs[SL_EXPERTS_OUT].width);
}

/* A worker's whole experts, then what it gets of gate and up of the others. */
static void gate_up_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    const experts_run *experts = argument;
    const sl_step_run *run = experts->run;
    const sl_op_attributes *attributes = &run->step->attributes;
    for (uint32_t i = worker; i < experts->n_whole; i += n_workers) {
        whole_expert(experts, &run->executor->ready[i]);
    }
    uint64_t row_bytes = sl_type_row_bytes(attributes->gate_type, run->step->inputs[0].width);
    sl_pieces pieces =
        sl_pieces_of(experts->n_ready - experts->n_whole, attributes->n_ff, row_bytes, run->rows, n_workers);
    sl_rows rows;
    while (sl_next_rows(run->executor->config.workers, &pieces, worker, &rows)) {
        gate_up_rows(experts, &run->executor->ready[experts->n_whole + rows.matrix], rows.begin, rows.end);
    }
}

/* The activation form of the hidden rows of the other experts, by row. */
static void quantize_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    const experts_run *experts = argument;
    uint32_t unit = 0;
    for (uint32_t i = experts->n_whole; i < experts->n_ready; i++) {
        uint32_t expert = experts->run->executor->ready[i].expert;
        for (uint32_t place = first_place(experts, expert); place < end_place(experts, expert); place++, unit++) {
            if (unit % n_workers == worker) {
                quantize_hidden(experts, place);
            }
        }
    }
}

static void down_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    const experts_run *experts = argument;
    const sl_step_run *run = experts->run;
    const sl_op_attributes *attributes = &run->step->attributes;
    sl_pieces pieces =
        sl_pieces_of(experts->n_ready - experts->n_whole, (uint32_t)run->step->outputs[SL_EXPERTS_OUT].width,
                     sl_type_row_bytes(attributes->down_type, attributes->n_ff), run->rows, n_workers);
    sl_rows rows;
    while (sl_next_rows(run->executor->config.workers, &pieces, worker, &rows)) {
        down_rows(experts, &run->executor->ready[experts->n_whole + rows.matrix], rows.begin, rows.end);
    }
}

/* out = sum over ranks, in order, of weight * pair output; by token. */
static void combine_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    const experts_run *experts = argument;
    const sl_step_run *run = experts->run;
    const sl_step *step = run->step;
    uint32_t n_used = step->attributes.n_used;
    uint32_t n_embd = (uint32_t)step->outputs[SL_EXPERTS_OUT].width;
    uint32_t begin = 0;
    uint32_t end = 0;
    sl_workers_share(run->rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t row = begin; row < end; row++) {
        const float *weights = sl_float_row(run->inputs[2], &step->inputs[2], row);
        float *out = sl_float_row_of(run->outputs[SL_EXPERTS_OUT], &step->outputs[SL_EXPERTS_OUT], row);
        for (uint32_t rank = 0; rank < n_used; rank++) {
            uint32_t place = run->executor->place_of[row * n_used + rank];
            run->kernels->accumulate(
                sl_float_row(run->outputs[SL_EXPERTS_PAIR_OUT], &step->outputs[SL_EXPERTS_PAIR_OUT], place),
                weights[rank], rank == 0, n_embd, out);
        }
    }
}

static void compute_ready(experts_run *experts)
{
    const sl_step_run *run = experts->run;
    sl_workers *workers = run->executor->config.workers;
    experts->n_whole = n_whole_of(experts, run->executor->n_workers);
    sl_workers_run(workers, gate_up_task, experts);
    if (experts->n_whole == experts->n_ready) {
        return;
    }
    if (run->outputs[SL_EXPERTS_HIDDEN] != NULL) {
        sl_workers_run(workers, quantize_task, experts);
    }
    sl_workers_run(workers, down_task, experts);
}

/* Any worker. */
static void count_use(const experts_run *experts, const sl_expert_view *view)
{
    const sl_step_run *run = experts->run;
    if (run->run->expert_use == NULL) {
        return;
    }
    sl_expert_use *use = &run->run->expert_use[run->step->attributes.expert_layer];
    uint64_t n_tokens = end_place(experts, view->expert) - first_place(experts, view->expert);
    __atomic_add_fetch(view->was_resident ? &use->memory_calls : &use->read_calls, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(view->was_resident ? &use->memory_tokens : &use->read_tokens, n_tokens, __ATOMIC_RELAXED);
}

/* Copy what the page cache has. Where there is enough of it a worker computes an expert as soon as it has copied it, while it
 * is in the caches of its core. */
static void copy_task(void *argument, uint32_t worker, uint32_t n_workers)
{
    (void)worker;
    const experts_run *experts = argument;
    sl_executor *executor = experts->run->executor;
    sl_store *store = executor->config.store;
    sl_store_request *request = &executor->demand.request;
    bool whole = request->n_copies >= 2 * n_workers;
    sl_expert_view view;
    while (sl_store_copy(store, request, whole ? &view : NULL)) {
        if (whole) {
            whole_expert(experts, &view);
            count_use(experts, &view);
            sl_store_release(store, request, &view);
        }
    }
}

static sluice_status compute_all(experts_run *experts, sluice_error *error)
{
    sl_executor *executor = experts->run->executor;
    sl_store *store = executor->config.store;
    sl_demand *demand = &executor->demand;
    if (demand->request.n_copies > 0) {
        sl_workers_run(executor->config.workers, copy_task, experts);
    }
    for (;;) {
        SL_TRY(sl_store_wait(store, &demand->request, executor->ready, demand->n_wanted, &experts->n_ready, error));
        if (experts->n_ready == 0) {
            return SLUICE_OK;
        }
        compute_ready(experts);
        for (uint32_t i = 0; i < experts->n_ready; i++) {
            count_use(experts, &executor->ready[i]);
            sl_store_release(store, &demand->request, &executor->ready[i]);
        }
    }
}

static void capture_routing(const sl_step_run *step)
{
    if (step->run->routing != NULL) {
        const sl_op_attributes *attributes = &step->step->attributes;
        memcpy(step->run->routing + attributes->expert_layer * step->run->routing_stride, step->inputs[1],
               (size_t)step->rows * attributes->n_used * sizeof(uint32_t));
    }
}

sluice_status sl_step_experts(const sl_step_run *step, sluice_error *error)
{
    sl_executor *executor = step->executor;
    sl_workers *workers = executor->config.workers;
    if (executor->demand.step != step->step) {
        sl_step_give_up_demand(executor);
        SL_TRY(begin_demand(executor, step->step, step->inputs[1], step->rows, error));
    }
    experts_run experts = {.run = step, .n_pairs = executor->demand.n_pairs, .shared_row = step->rows == 1};
    capture_routing(step);
    if (!experts.shared_row) {
        sl_workers_run(workers, gather_task, &experts);
    }
    SL_TRY(compute_all(&experts, error));
    end_demand(executor);
    if (step->rows > 1) {
        sl_workers_run(workers, combine_task, &experts);
    } else {
        combine_task(&experts, 0, 1);
    }
    return SLUICE_OK;
}
