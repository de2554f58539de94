/* A short generation with a small model, for tests of the engine as a whole. */
#ifndef TESTS_SUPPORT_ENGINE_RUN_H
#define TESTS_SUPPORT_ENGINE_RUN_H

#include <stdatomic.h>

#include "engine/engine.h"

/* Counts what the engine takes, and fails the allocation or charge number `fail_at` (from 1; 0: none). What is charged
 * counts as one allocation until all of it is discharged. */
typedef struct counting_allocator {
    atomic_ulong n_allocated;
    atomic_ulong n_released;
    atomic_ulong n_charges;
    atomic_ulong charged_bytes;
    unsigned long fail_at;
} counting_allocator;

sluice_allocator counting_allocator_interface(counting_allocator *counter);

/* What to run: zero fields mean the engine's defaults. */
typedef struct engine_run {
    const char *model_path;
    uint64_t mem_budget_bytes;
    uint32_t n_threads;
    uint32_t prefill_chunk;
    uint32_t n_generate;
    const char *cpu_mask;
    const char *prefetch;
    const char *io;
    uint32_t n_sessions;
    counting_allocator *counter; /* may be NULL */
} engine_run;

/* Open an engine, evaluate a fixed prompt of 10 tokens, draw n_generate tokens greedily, close everything. `*hash`
 * receives the logits hash. */
sluice_status run_engine(const engine_run *run, uint64_t *hash, sluice_error *error);

/* Only open the engine, with faults (may be NULL) planned for its reads. */
sluice_status open_engine(sluice_engine **out, const engine_run *run, sl_read_fault_plan *faults, sluice_error *error);

/* The floor of the run's budget, from a refused plan. */
uint64_t engine_floor_bytes(const engine_run *run);
uint64_t engine_resident_bytes(const engine_run *run);
uint64_t engine_slot_bytes(const engine_run *run);

#endif
