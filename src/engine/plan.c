/* Owns nothing: works out what an engine will use, to the byte where it is ours to say, before it uses it.
 *
 * The budget is divided so: what the process has whatever the model (program, libraries, stacks, page tables), then
 * every allocation that follows from the options, then expert slots from what is left. Allocations are counted with the
 * headers that base/memory.h puts before them.
 *
 * Invariants
 *  (1) The floor is the plan with the smallest chunk allowed and the slots that one token needs in one layer; a
 *      budget of exactly the floor is accepted, and the same file and options always give the same floor.
 *  (2) total_bytes <= budget_bytes in every accepted plan.
 *  (3) Of a running engine only the slots, the page tables that follow from them, and the budget change. */
#include "engine/engine.h"

#include <inttypes.h>

#include "base/checked.h"
#include "os/thread.h"

/* What the kernel counts for this process beyond the account: the program and its libraries, the heap's own overhead,
 * stacks. Measured at 2.3 to 3.2 MiB of resident memory with the command line; the rest is margin for what a cgroup is
 * charged beside (kernel stacks, slab, pages of the program) and for pages that are touched only later. */
static const uint64_t process_base_bytes = UINT64_C(5) << 20;
static const uint64_t stack_bytes_touched = UINT64_C(64) << 10;
/* Page tables take 8 bytes for each page of 4 KiB. */
static const uint64_t page_table_share = 512;

static uint64_t saturating_add(uint64_t a, uint64_t b)
{
    uint64_t sum = 0;
    return sl_checked_add(a, b, &sum) ? sum : UINT64_MAX;
}

static uint64_t saturating_multiply(uint64_t a, uint64_t b)
{
    uint64_t product = 0;
    return sl_checked_multiply(a, b, &product) ? product : UINT64_MAX;
}

uint64_t sl_engine_state_bytes(const sluice_engine *engine, sl_value state)
{
    const sl_value_info *info = &engine->body_graph.values[state.index];
    uint32_t n_outer = info->shape.n_dims - 1;
    uint64_t bytes = sl_type_row_bytes(info->type, info->shape.dims[n_outer]);
    for (uint32_t i = 0; i < n_outer; i++) {
        uint64_t dim = info->shape.dims[i];
        bytes = saturating_multiply(bytes, dim == SL_DIM_POSITIONS ? engine->plan.context_length : dim);
    }
    return saturating_add(bytes, 63) & ~UINT64_C(63);
}

uint64_t sl_engine_kv_bytes(const sluice_engine *engine)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < engine->body_graph.n_values; i++) {
        if (engine->body_graph.values[i].kind == SL_VALUE_STATE) {
            bytes = saturating_add(bytes, sl_engine_state_bytes(engine, (sl_value){i}));
        }
    }
    return bytes;
}

uint64_t sl_session_cost(const sluice_engine *engine)
{
    return sl_memory_cost(sizeof(sluice_session), 16) + 2 * sl_memory_cost(SL_MAX_CHUNK * sizeof(int32_t), 16) +
           sl_memory_cost(engine->body[0]->n_bindings * sizeof(void *), 16) +
           sl_memory_cost(engine->head[0]->n_bindings * sizeof(void *), 16) +
           sl_memory_cost((uint64_t)engine->model->hyper.n_vocab * sizeof(float), 16) + sl_session_routing_cost(engine);
}

static uint64_t activation_bytes(const sluice_engine *engine, uint32_t chunk)
{
    sl_executor_limits limits = engine->limits;
    limits.max_rows = chunk < SL_HEAD_ROWS ? SL_HEAD_ROWS : chunk;
    return sl_memory_cost(engine->body[sl_engine_bucket(engine, chunk)]->arena_bytes, SL_ARENA_ALIGNMENT) +
           sl_memory_cost(engine->head[SL_HEAD_BUCKETS - 1]->arena_bytes, SL_ARENA_ALIGNMENT) +
           sl_executor_cost(&limits, engine->n_threads) + engine->n_sessions_planned * sl_session_cost(engine);
}

/* Everything but the expert arena. */
static uint64_t total_without_slots(const sluice_memory_plan *plan)
{
    uint64_t parts[] = {plan->process_bytes, plan->dense_bytes, plan->kv_bytes,   plan->activation_bytes,
                        plan->io_bytes,      plan->text_bytes,  plan->other_bytes};
    uint64_t total = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        total = saturating_add(total, parts[i]);
    }
    return total;
}

/* Total with `n_slots` slots; also sets the part of the process, which depends on their number: touched memory has page
 * tables. */
static uint64_t total_with_slots(const sluice_engine *engine, sluice_memory_plan *plan, uint64_t n_slots)
{
    const sl_store_plan *store_plan = &engine->store_plan;
    uint64_t slots_bytes = saturating_multiply(n_slots, plan->slot_bytes);
    uint64_t touched = saturating_add(saturating_add(plan->dense_bytes, plan->kv_bytes),
                                      saturating_add(plan->activation_bytes, slots_bytes));
    plan->process_bytes = process_base_bytes + (engine->n_threads + store_plan->n_read_threads) * stack_bytes_touched +
                          touched / page_table_share + store_plan->kernel_bytes;
    return saturating_add(total_without_slots(plan), slots_bytes);
}

/* The most slots whose total stays within the budget, of which the fewest do; the total grows with the slots, so halving
 * finds it. */
static void take_most_slots(const sluice_engine *engine, sluice_memory_plan *plan)
{
    uint64_t low = plan->minimum_slots;
    uint64_t high = plan->maximum_slots;
    while (low < high) {
        uint64_t middle = low + (high - low + 1) / 2;
        if (total_with_slots(engine, plan, middle) <= plan->budget_bytes) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    plan->n_slots = low;
    plan->total_bytes = total_with_slots(engine, plan, low);
}

/* The parts are those of the floor. `advice` ends the sentence. */
static sluice_status refuse(sluice_memory_plan *plan, const char *advice, sluice_error *error)
{
    plan->n_slots = plan->minimum_slots;
    plan->total_bytes = plan->floor_bytes;
    return sl_error_set(
        error, SLUICE_ERROR_BUDGET,
        "a memory budget of %" PRIu64 " bytes is too small by %" PRIu64 ": process %" PRIu64 ", dense weights %" PRIu64
        ", KV cache %" PRIu64 " (%u positions), activations %" PRIu64 ", I/O %" PRIu64 ", vocabulary %" PRIu64
        ", other %" PRIu64 ", %" PRIu64 " expert slots of %" PRIu64
        " bytes each; the smallest budget that works is %" PRIu64 " bytes (--mem %" PRIu64 "); %s",
        plan->budget_bytes, plan->floor_bytes - plan->budget_bytes, plan->process_bytes, plan->dense_bytes,
        plan->kv_bytes, plan->context_length, plan->activation_bytes, plan->io_bytes, plan->text_bytes,
        plan->other_bytes, plan->minimum_slots, plan->slot_bytes, plan->floor_bytes, plan->floor_bytes, advice);
}

/* The largest chunk whose activations take at most a quarter of what the floor leaves. */
static uint32_t choose_chunk(const sluice_engine *engine, uint32_t smallest, uint32_t largest)
{
    uint64_t least = activation_bytes(engine, smallest);
    uint64_t spare = engine->plan.budget_bytes - engine->plan.floor_bytes;
    uint32_t chosen = smallest;
    for (uint32_t chunk = smallest * 2; chunk <= largest; chunk *= 2) {
        if (activation_bytes(engine, chunk) - least + engine->body_cost[sl_engine_bucket(engine, chunk)] <= spare / 4) {
            chosen = chunk;
        }
    }
    return chosen;
}

static uint64_t account_bytes(sluice_engine *engine, sl_memory_tag tag)
{
    return atomic_load_explicit(&engine->memory.bytes[tag], memory_order_relaxed);
}

/* The parts that follow from the chunk: programs above its bucket are freed before anything is loaded. */
static void plan_chunk(sluice_engine *engine, uint32_t chunk)
{
    sluice_memory_plan *plan = &engine->plan;
    plan->prefill_chunk = chunk;
    plan->activation_bytes = activation_bytes(engine, chunk);
    plan->other_bytes =
        account_bytes(engine, SL_MEMORY_OTHER) + sizeof *engine + engine->store_plan.other_bytes +
        sl_workers_cost(engine->n_threads) +
        (engine->predictor_config.kind == SL_PREFETCH_NONE ? 0 : sl_predictor_cost(&engine->predictor_config));
    for (uint32_t i = sl_engine_bucket(engine, chunk) + 1; i < SL_BODY_BUCKETS; i++) {
        plan->other_bytes -= engine->body_cost[i];
    }
}

static void plan_fixed_parts(sluice_engine *engine, const sluice_engine_options *options)
{
    sluice_memory_plan *plan = &engine->plan;
    const sl_hyper *hyper = &engine->model->hyper;
    uint32_t trained = hyper->n_context_trained;
    plan->context_length = options->context_length > 0 ? options->context_length : trained < 4096 ? trained : 4096;
    plan->budget_bytes = options->mem_budget_bytes > 0 ? options->mem_budget_bytes : sl_engine_automatic_budget(engine);
    plan->minimum_slots = hyper->n_experts_used;
    plan->maximum_slots = (uint64_t)engine->model->n_expert_layers * hyper->n_experts;
    uint64_t kv_bytes = saturating_add(sl_engine_kv_bytes(engine), sl_memory_cost(0, 4096));
    plan->kv_bytes = saturating_multiply(engine->n_sessions_planned, kv_bytes);
    plan->dense_bytes = engine->dense.cost_bytes;
    plan->text_bytes = account_bytes(engine, SL_MEMORY_TEXT);
    plan->io_bytes = engine->store_plan.io_bytes;
    plan->slot_bytes = engine->store_plan.slot_bytes;
}

sluice_status sl_engine_make_plan(sluice_engine *engine, const sluice_engine_options *options, sluice_error *error)
{
    sluice_memory_plan *plan = &engine->plan;
    SL_TRY(sl_store_estimate(&engine->store_config, &engine->store_plan, error));
    plan_fixed_parts(engine, options);
    uint32_t smallest = options->prefill_chunk > 0 ? options->prefill_chunk : 1;
    uint32_t largest = options->prefill_chunk > 0 ? options->prefill_chunk : SL_MAX_CHUNK;
    while (largest > smallest && largest / 2 >= plan->context_length) {
        largest /= 2;
    }
    plan_chunk(engine, largest);
    plan->resident_bytes = total_with_slots(engine, plan, plan->maximum_slots);
    plan_chunk(engine, smallest);
    plan->floor_bytes = total_with_slots(engine, plan, plan->minimum_slots);
    if (plan->floor_bytes > plan->budget_bytes) {
        return refuse(plan, "a smaller --ctx lowers it", error);
    }
    plan_chunk(engine, choose_chunk(engine, smallest, largest));
    engine->limits.max_rows = plan->prefill_chunk < SL_HEAD_ROWS ? SL_HEAD_ROWS : plan->prefill_chunk;
    take_most_slots(engine, plan);
    engine->store_config.n_slots = plan->n_slots;
    engine->store_config.cache_stays = sl_engine_cache_stays(engine);
    return SLUICE_OK;
}

sluice_status sl_engine_plan_again(const sluice_engine *engine, sluice_memory_plan *plan, sluice_error *error)
{
    plan->resident_bytes = total_with_slots(engine, plan, plan->maximum_slots);
    plan->floor_bytes = total_with_slots(engine, plan, plan->minimum_slots);
    if (plan->floor_bytes > plan->budget_bytes) {
        return refuse(plan, "all but the slots is as this engine was opened", error);
    }
    take_most_slots(engine, plan);
    return SLUICE_OK;
}
