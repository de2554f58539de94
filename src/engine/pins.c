/* Owns nothing: which experts stay in memory, from a recording. The mask is there before the plan is made, which so counts
 * it; it is filled when the number of slots is known. A recording may be longer than the memory: it is read once, chunk by
 * chunk. Threads: the opening thread only. */
#include "engine/engine.h"
#include "experts/recording.h"

sluice_status sl_engine_open_pins(sluice_engine *engine, sluice_error *error)
{
    if (engine->policy_kind != SL_POLICY_PINNED) {
        return SLUICE_OK;
    }
    const sl_store_config *config = &engine->store_config;
    size_t n_words = (size_t)config->n_layers * ((config->n_experts - 1) / 64 + 1);
    engine->pins = sl_alloc(&engine->memory, SL_MEMORY_OTHER, n_words, sizeof *engine->pins);
    if (engine->pins == NULL) {
        return sl_error_no_memory(error, n_words * sizeof *engine->pins, "the experts that stay");
    }
    engine->store_config.pinned = engine->pins;
    return SLUICE_OK;
}

static sluice_status check_shape(const sluice_engine *engine, const sl_recording_shape *shape, const char *path,
                                 sluice_error *error)
{
    const sl_store_config *config = &engine->store_config;
    if (shape->n_layers != config->n_layers || shape->n_experts != config->n_experts ||
        shape->n_used != config->n_used) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: a recording of %u layers with %u experts of which %u are used, but the model has %u "
                            "with %u of which %u; record the routing of this model",
                            path, shape->n_layers, shape->n_experts, shape->n_used, config->n_layers, config->n_experts,
                            config->n_used);
    }
    return SLUICE_OK;
}

/* Slots that one layer of one token needs are left to the others. */
static sluice_status choose(sluice_engine *engine, sl_recording_reader *reader, sluice_error *error)
{
    SL_TRY(check_shape(engine, &reader->shape, reader->path, error));
    size_t n_total = (size_t)reader->shape.n_layers * reader->shape.n_experts;
    uint32_t *uses = sl_alloc(&engine->memory, SL_MEMORY_OTHER, n_total, sizeof *uses);
    if (uses == NULL) {
        return sl_error_no_memory(error, n_total * sizeof *uses, "the counts of experts");
    }
    sluice_status status = sl_recording_count_uses(reader, uses, &engine->memory, error);
    if (status == SLUICE_OK) {
        sl_recording_favourites(&reader->shape, uses, engine->plan.n_slots - engine->plan.minimum_slots, engine->pins);
    }
    sl_free(&engine->memory, uses);
    return status;
}

sluice_status sl_engine_read_pins(sluice_engine *engine, const char *path, sluice_error *error)
{
    if (engine->policy_kind != SL_POLICY_PINNED) {
        return SLUICE_OK;
    }
    sl_recording_reader reader;
    sluice_status status = sl_recording_open(&reader, path, error);
    if (status == SLUICE_OK) {
        status = choose(engine, &reader, error);
    }
    sl_recording_close(&reader);
    return status;
}
