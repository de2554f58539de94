/* Owns a recording in memory. Prints the hit rates of all policies on recorded routing, and how much of what the optimum
 * has over the least recently used each of them closes.
 *
 * Usage: replay RECORDING [WORKING_SETS...]
 *
 * Slots are given in working sets, layers times experts per token: 1, 1.5, 2, 3 and 4 unless said otherwise. The pinned
 * set is taken from the first half of the recording itself, so its figure is what a good recording of the same kind
 * would bring.
 *
 * Threads: main. */
#include <stdio.h>
#include <stdlib.h>

#include "experts/replay.h"

static double rate(const sl_replay_counts *counts)
{
    return counts->requests == 0 ? 0.0 : (double)counts->hits / (double)counts->requests;
}

/* All but what one layer of one token needs. */
static sluice_status favourites(const sl_recorded_routing *routing, uint32_t n_slots, uint64_t *mask,
                                sluice_error *error)
{
    sl_recorded_routing first_half = *routing;
    first_half.n_chunks = (routing->n_chunks + 1) / 2;
    uint32_t n_used = routing->shape.n_used;
    return sl_recorded_routing_favourites(&first_half, n_slots > n_used ? n_slots - n_used : 0, mask, error);
}

static sluice_status print_row(const sl_recorded_routing *routing, double working_sets, uint64_t *mask,
                               sluice_error *error)
{
    const sl_recording_shape *shape = &routing->shape;
    uint32_t n_slots = (uint32_t)(working_sets * shape->n_layers * shape->n_used + 0.5);
    n_slots = n_slots < 1 ? 1 : n_slots;
    sl_replay_counts counts[SL_POLICY_KINDS];
    sl_replay_counts best;
    SL_TRY(favourites(routing, n_slots, mask, error));
    SL_TRY(sl_replay_optimum(routing, n_slots, &best, error));
    printf("%12.2f %6u", working_sets, n_slots);
    for (int kind = 0; kind < SL_POLICY_KINDS; kind++) {
        SL_TRY(sl_replay(routing, (sl_policy_kind)kind, mask, n_slots, &counts[kind], error));
        double lru = rate(&counts[SL_POLICY_LRU]);
        double gap = rate(&best) - lru;
        printf("  %6.3f %4.0f %%", rate(&counts[kind]), gap > 0 ? (rate(&counts[kind]) - lru) / gap * 100 : 0.0);
    }
    printf("  %6.3f\n", rate(&best));
    return SLUICE_OK;
}

static sluice_status run(int n_words, char **words, sl_recorded_routing *routing, sl_memory *memory,
                         sluice_error *error)
{
    static const double usual[] = {1, 1.5, 2, 3, 4};
    SL_TRY(sl_recorded_routing_read(routing, words[1], memory, error));
    const sl_recording_shape *shape = &routing->shape;
    printf("%s: %u layers, %u experts, %u used, %u chunks\n%12s %6s", words[1], shape->n_layers, shape->n_experts,
           shape->n_used, routing->n_chunks, "working sets", "slots");
    for (int kind = 0; kind < SL_POLICY_KINDS; kind++) {
        printf("  %13s", sl_policy_kind_name((sl_policy_kind)kind));
    }
    printf("  %6s\n", "Belady");
    uint64_t *mask = calloc((size_t)shape->n_layers * ((shape->n_experts - 1) / 64 + 1), sizeof *mask);
    sluice_status status = mask != NULL ? SLUICE_OK : sl_error_no_memory(error, shape->n_layers, "the pinned set");
    int n_rows = n_words > 2 ? n_words - 2 : (int)(sizeof usual / sizeof usual[0]);
    for (int i = 0; i < n_rows && status == SLUICE_OK; i++) {
        status = print_row(routing, n_words > 2 ? strtod(words[i + 2], NULL) : usual[i], mask, error);
    }
    free(mask);
    return status;
}

int main(int n_words, char **words)
{
    if (n_words < 2) {
        fprintf(stderr, "usage: replay RECORDING [WORKING_SETS...]\n");
        return 2;
    }
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_recorded_routing routing = {.memory = &memory};
    sluice_error error = {0};
    sluice_status status = run(n_words, words, &routing, &memory, &error);
    sl_recorded_routing_free(&routing);
    if (status != SLUICE_OK) {
        fprintf(stderr, "replay: %s\n", error.message);
    }
    return status == SLUICE_OK ? 0 : 1;
}
