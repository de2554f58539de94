/* Owns the budget of a running engine, and finds one where none is given.
 *
 * Invariants
 *  (1) current_plan is the plan in force: the slots it names are charged whenever budget_lock is free, and its total is
 *      within its budget.
 *  (2) One thread at a time changes the budget (budget_lock). It never waits for run_lock, and a run waits for it only
 *      where it reads a plan (plan_lock, held for a moment): so a step in progress always ends, and with it the wait for
 *      the experts that it holds.
 * Threads: any. */
#include "engine/engine.h"

#include "os/limits.h"

/* Kept free when the budget is found. */
static const uint64_t reserve_bytes = UINT64_C(256) << 20;
static const uint64_t reserve_share = 16;

uint64_t sl_budget_within(const sl_memory_limits *limits)
{
    uint64_t budget = limits->cgroup_bytes;
    uint64_t available = limits->available_bytes;
    if (available > 0) {
        available = available > UINT64_MAX - limits->held_bytes ? UINT64_MAX : available + limits->held_bytes;
        budget = available < budget ? available : budget;
    }
    if (limits->physical_bytes > 0 && limits->physical_bytes < budget) {
        budget = limits->physical_bytes;
    }
    return budget - (budget / reserve_share < reserve_bytes ? budget / reserve_share : reserve_bytes);
}

bool sl_cache_stays_within(const sl_memory_limits *limits, uint64_t resident_bytes, uint64_t model_bytes)
{
    return limits->free_bytes >= resident_bytes && limits->cgroup_bytes >= model_bytes &&
           limits->cgroup_bytes - model_bytes >= resident_bytes;
}

bool sl_engine_cache_stays(const sluice_engine *engine)
{
    uint64_t model_bytes = 0;
    for (uint32_t i = 0; i < engine->file->n_files; i++) {
        model_bytes += engine->file->files[i].file.identity.bytes;
    }
    return sl_cache_stays_within(
        &(sl_memory_limits){.cgroup_bytes = sl_cgroup_memory_limit(), .free_bytes = sl_machine_free_bytes()},
        engine->plan.resident_bytes, model_bytes);
}

uint64_t sl_engine_automatic_budget(const sluice_engine *engine)
{
    /* Only what was touched is missing from the available memory; what the program took besides is not the engine's. */
    uint64_t account = atomic_load_explicit(&engine->memory.total_bytes, memory_order_relaxed);
    uint64_t resident = sl_process_resident_bytes();
    uint64_t held = resident > engine->resident_before ? resident - engine->resident_before : 0;
    return sl_budget_within(&(sl_memory_limits){.cgroup_bytes = sl_cgroup_memory_limit(),
                                                .available_bytes = sl_machine_available_bytes(),
                                                .physical_bytes = sl_machine_physical_bytes(),
                                                .held_bytes = held < account ? held : account});
}

void sluice_engine_memory_plan_get(sluice_engine *engine, sluice_memory_plan *plan)
{
    pthread_mutex_lock(&engine->plan_lock);
    *plan = engine->current_plan;
    pthread_mutex_unlock(&engine->plan_lock);
}

static void put_in_force(sluice_engine *engine, const sluice_memory_plan *plan)
{
    char budget[24];
    pthread_mutex_lock(&engine->plan_lock);
    engine->current_plan = *plan;
    pthread_mutex_unlock(&engine->plan_lock);
    sl_log_line(&engine->log, SL_LOG_INFO, "budget changed to %s: %llu of %llu experts fit",
                sl_format_size(plan->budget_bytes, budget, sizeof budget), (unsigned long long)plan->n_slots,
                (unsigned long long)plan->maximum_slots);
}

sluice_status sluice_engine_set_budget(sluice_engine *engine, uint64_t mem_budget_bytes, sluice_memory_plan *plan,
                                       sluice_error *error)
{
    sluice_memory_plan next;
    pthread_mutex_lock(&engine->budget_lock);
    sluice_engine_memory_plan_get(engine, &next);
    next.budget_bytes = mem_budget_bytes > 0 ? mem_budget_bytes : sl_engine_automatic_budget(engine);
    sluice_status status = sl_engine_plan_again(engine, &next, error);
    if (status == SLUICE_OK) {
        status = sl_store_set_slots(engine->store, next.n_slots, error);
    }
    if (status == SLUICE_OK) {
        put_in_force(engine, &next);
    }
    pthread_mutex_unlock(&engine->budget_lock);
    if (plan != NULL) {
        *plan = next;
    }
    return status;
}
