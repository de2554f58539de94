/* Recorded routing played against a store without bytes: what a policy would have hit with any number of slots, and what
 * the best one with knowledge of the future would have. */
#ifndef SL_EXPERTS_REPLAY_H
#define SL_EXPERTS_REPLAY_H

#include "experts/policy.h"
#include "experts/recording.h"

/* A recording in memory. */
typedef struct sl_recorded_routing {
    sl_recording_shape shape;
    uint32_t n_chunks;
    uint32_t *n_tokens; /* owned; [n_chunks] */
    uint32_t *experts;  /* owned; chunk after chunk: [n_layers][n_tokens][n_used] */
    size_t n_choices;   /* of all */
    sl_memory *memory;  /* borrowed */
} sl_recorded_routing;

/* FORMAT, also for an expert that a token chose twice in a layer. `*routing` is to be freed whatever comes back. */
SLUICE_NODISCARD sluice_status sl_recorded_routing_read(sl_recorded_routing *routing, const char *path,
                                                        sl_memory *memory, sluice_error *error);
void sl_recorded_routing_free(sl_recorded_routing *routing);

/* The `n_pins` experts that most tokens chose, more used ones first, then lower layers, then lower numbers, as bits:
 * mask [n_layers][(n_experts - 1) / 64 + 1], which is overwritten. */
SLUICE_NODISCARD sluice_status sl_recorded_routing_favourites(const sl_recorded_routing *routing, uint64_t n_pins,
                                                              uint64_t *mask, sluice_error *error);

typedef struct sl_replay_counts {
    uint64_t requests; /* distinct experts asked for, chunk by chunk */
    uint64_t hits;
    uint64_t evictions;
} sl_replay_counts;

/* The store itself with experts of no bytes and nothing read ahead. `pinned` is for SL_POLICY_PINNED. */
SLUICE_NODISCARD sluice_status sl_replay(const sl_recorded_routing *routing, sl_policy_kind policy,
                                         const uint64_t *pinned, uint32_t n_slots, sl_replay_counts *counts,
                                         sluice_error *error);

/* The most hits any policy could have (L. A. Belady, 1966), as long as no request needs more than the slots: who gives way is
 * who is asked for again last. By the rules of the store: what a request asks for stays while others can go. */
SLUICE_NODISCARD sluice_status sl_replay_optimum(const sl_recorded_routing *routing, uint32_t n_slots,
                                                 sl_replay_counts *counts, sluice_error *error);

#endif
