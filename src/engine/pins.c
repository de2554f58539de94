/* Owns nothing: which experts stay in memory, from a recording. Threads: the opening thread only. */
#include "engine/engine.h"
#include "experts/replay.h"

static sluice_status check_shape(const sluice_engine *engine, const sl_recording_shape *shape, const char *path,
                                 sluice_error *error)
{
    const sl_hyper *hyper = &engine->model->hyper;
    if (shape->n_layers != engine->model->n_expert_layers || shape->n_experts != hyper->n_experts ||
        shape->n_used != hyper->n_experts_used) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: a recording of %u layers with %u experts of which %u are used, but the model has %u "
                            "with %u of which %u; record the routing of this model",
                            path, shape->n_layers, shape->n_experts, shape->n_used, engine->model->n_expert_layers,
                            hyper->n_experts, hyper->n_experts_used);
    }
    return SLUICE_OK;
}

/* Slots that one layer of one token needs are left to the others. */
static sluice_status choose(sluice_engine *engine, const sl_recorded_routing *routing, const char *path,
                            sluice_error *error)
{
    SL_TRY(check_shape(engine, &routing->shape, path, error));
    size_t n_words = (size_t)routing->shape.n_layers * ((routing->shape.n_experts - 1) / 64 + 1);
    engine->pins = sl_alloc(&engine->memory, SL_MEMORY_OTHER, n_words, sizeof *engine->pins);
    if (engine->pins == NULL) {
        return sl_error_no_memory(error, n_words * sizeof *engine->pins, "the experts that stay");
    }
    return sl_recorded_routing_favourites(routing, engine->plan.n_slots - engine->plan.minimum_slots, engine->pins,
                                          error);
}

sluice_status sl_engine_read_pins(sluice_engine *engine, const char *path, sluice_error *error)
{
    if (engine->policy_kind != SL_POLICY_PINNED) {
        return SLUICE_OK;
    }
    sl_recorded_routing routing;
    sluice_status status = sl_recorded_routing_read(&routing, path, &engine->memory, error);
    if (status == SLUICE_OK) {
        status = choose(engine, &routing, path, error);
    }
    sl_recorded_routing_free(&routing);
    return status;
}
