/* Whether an engine's account is what its plan says, part by part. Include after cmocka.h. */
#ifndef TESTS_SUPPORT_ENGINE_ACCOUNT_H
#define TESTS_SUPPORT_ENGINE_ACCOUNT_H

#include "base/memory.h"
#include "sluice/sluice.h"

static inline uint64_t plan_parts(const sluice_memory_plan *plan)
{
    return plan->process_bytes + plan->dense_bytes + plan->kv_bytes + plan->activation_bytes + plan->io_bytes +
           plan->text_bytes + plan->other_bytes + plan->n_slots * plan->slot_bytes;
}

/* With all planned sessions open. Returns the plan in force. */
static inline sluice_memory_plan expect_account_as_planned(sluice_engine *engine)
{
    sluice_memory_plan plan;
    sluice_engine_stats stats;
    sluice_engine_memory_plan_get(engine, &plan);
    sluice_engine_stats_get(engine, &stats);
    assert_int_equal(stats.mem_by_tag[SL_MEMORY_WEIGHTS], plan.dense_bytes);
    assert_int_equal(stats.mem_by_tag[SL_MEMORY_EXPERTS], plan.n_slots * plan.slot_bytes);
    assert_int_equal(stats.mem_by_tag[SL_MEMORY_KV], plan.kv_bytes);
    assert_int_equal(stats.mem_by_tag[SL_MEMORY_ACTIVATIONS], plan.activation_bytes);
    assert_int_equal(stats.mem_by_tag[SL_MEMORY_IO], plan.io_bytes);
    assert_int_equal(stats.mem_by_tag[SL_MEMORY_TEXT], plan.text_bytes);
    assert_int_equal(stats.mem_by_tag[SL_MEMORY_OTHER], plan.other_bytes);
    assert_int_equal(plan_parts(&plan), plan.total_bytes);
    assert_true(plan.total_bytes <= plan.budget_bytes);
    assert_true(plan.n_slots >= plan.minimum_slots && plan.n_slots <= plan.maximum_slots);
    return plan;
}

#endif
