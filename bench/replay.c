/* Owns a recording of routing in memory. Replays it against eviction policies and prints a table: the hit rate of each, how
 * much of what the optimum has over the least recently used it closes, and the optimum.
 *
 * Usage: replay RECORDING [--slots N,N...] [--working-sets X,X...] [--policy P,P...] [--policy-trace RECORDING]
 *
 * A working set is what one token uses: layers times experts per token. Without numbers of slots the table has 1, 1.5, 2, 3
 * and 4 working sets, without policies all of them. The pinned set is that of --policy-trace; without one, of the first half
 * of the recording itself, which then is replayed with some knowledge of its own future.
 *
 * Threads: main. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "experts/replay.h"

enum { MAX_ROWS = 32 };

/* A number of slots, or of working sets when that is not 0. */
typedef struct row {
    uint32_t n_slots;
    double n_working_sets;
} row;

typedef struct replay_job {
    const char *path, *pins_path; /* pins_path: NULL for the recording itself */
    row rows[MAX_ROWS];
    int n_rows;
    bool wanted[SL_POLICY_KINDS];
    sl_recorded_routing routing, pins;
    uint64_t *mask; /* owned: the pinned set */
} replay_job;

/* ---- Arguments ---- */

static bool add_row(replay_job *job, const char *word, bool in_working_sets)
{
    char *end = NULL;
    double number = strtod(word, &end);
    bool is_number = end != word && *end == '\0' && number > 0.0 && number <= 1e9;
    if (!is_number || job->n_rows == MAX_ROWS || (!in_working_sets && number != (double)(uint32_t)number)) {
        return false;
    }
    job->rows[job->n_rows++] = in_working_sets ? (row){.n_working_sets = number} : (row){.n_slots = (uint32_t)number};
    return true;
}

static bool add_policy(replay_job *job, const char *word)
{
    sl_policy_kind kind = SL_POLICY_LRU;
    if (!sl_policy_kind_parse(word, &kind)) {
        return false;
    }
    job->wanted[kind] = true;
    return true;
}

static bool take_list(replay_job *job, const char *option, char *list)
{
    for (char *rest = list, *word = strsep(&rest, ","); word != NULL; word = strsep(&rest, ",")) {
        bool taken = strcmp(option, "--policy") == 0 ? add_policy(job, word)
                                                     : add_row(job, word, strcmp(option, "--working-sets") == 0);
        if (!taken) {
            return false;
        }
    }
    return true;
}

static bool take_arguments(replay_job *job, int n_words, char **words)
{
    for (int i = 1; i < n_words; i++) {
        bool is_list = strcmp(words[i], "--slots") == 0 || strcmp(words[i], "--working-sets") == 0 ||
                       strcmp(words[i], "--policy") == 0;
        if (is_list && i + 1 < n_words && take_list(job, words[i], words[i + 1])) {
            i++;
        } else if (strcmp(words[i], "--policy-trace") == 0 && i + 1 < n_words) {
            job->pins_path = words[++i];
        } else if (words[i][0] != '-' && job->path == NULL) {
            job->path = words[i];
        } else {
            return false;
        }
    }
    return job->path != NULL;
}

static void fill_in(replay_job *job)
{
    static const double usual[] = {1, 1.5, 2, 3, 4};
    bool any = false;
    for (int kind = 0; kind < SL_POLICY_KINDS; kind++) {
        any = any || job->wanted[kind];
    }
    for (int kind = 0; kind < SL_POLICY_KINDS && !any; kind++) {
        job->wanted[kind] = true;
    }
    if (job->n_rows == 0) {
        for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++) {
            job->rows[job->n_rows++] = (row){.n_working_sets = usual[i]};
        }
    }
}

/* ---- The table ---- */

static double rate(const sl_replay_counts *counts)
{
    return counts->requests == 0 ? 0.0 : (double)counts->hits / (double)counts->requests;
}

/* All but what one layer of one token needs. */
static sluice_status choose_pins(replay_job *job, uint32_t n_slots, sluice_error *error)
{
    sl_recorded_routing source = job->pins;
    if (job->pins_path == NULL) {
        source = job->routing;
        source.n_chunks = (source.n_chunks + 1) / 2;
    }
    uint32_t n_used = source.shape.n_used;
    return sl_recorded_routing_favourites(&source, n_slots > n_used ? n_slots - n_used : 0, job->mask, error);
}

static sluice_status print_row(replay_job *job, const row *wanted, sluice_error *error)
{
    const sl_recording_shape *shape = &job->routing.shape;
    double working_set = (double)shape->n_layers * shape->n_used;
    uint32_t n_slots = wanted->n_slots > 0 ? wanted->n_slots : (uint32_t)(wanted->n_working_sets * working_set + 0.5);
    n_slots = n_slots < 1 ? 1 : n_slots;
    sl_replay_counts lru;
    sl_replay_counts best;
    SL_TRY(choose_pins(job, n_slots, error));
    SL_TRY(sl_replay(&job->routing, SL_POLICY_LRU, NULL, n_slots, &lru, error));
    SL_TRY(sl_replay_optimum(&job->routing, n_slots, &best, error));
    double gap = rate(&best) - rate(&lru);
    printf("%12.2f %6u", (double)n_slots / working_set, n_slots);
    for (int kind = 0; kind < SL_POLICY_KINDS; kind++) {
        sl_replay_counts counts = lru;
        if (job->wanted[kind] && kind != SL_POLICY_LRU) {
            SL_TRY(sl_replay(&job->routing, (sl_policy_kind)kind, job->mask, n_slots, &counts, error));
        }
        if (job->wanted[kind]) {
            printf("  %6.3f %4.0f %%", rate(&counts), gap > 0 ? (rate(&counts) - rate(&lru)) / gap * 100 : 0.0);
        }
    }
    printf("  %6.3f\n", rate(&best));
    return SLUICE_OK;
}

static void print_head(const replay_job *job)
{
    const sl_recording_shape *shape = &job->routing.shape;
    uint64_t n_tokens = 0;
    for (uint32_t i = 0; i < job->routing.n_chunks; i++) {
        n_tokens += job->routing.n_tokens[i];
    }
    printf("%s: %u layers, %u experts, %u used, %llu tokens in %u chunks\n%12s %6s", job->path, shape->n_layers,
           shape->n_experts, shape->n_used, (unsigned long long)n_tokens, job->routing.n_chunks, "working sets",
           "slots");
    for (int kind = 0; kind < SL_POLICY_KINDS; kind++) {
        if (job->wanted[kind]) {
            printf("  %13s", sl_policy_kind_name((sl_policy_kind)kind));
        }
    }
    printf("  %6s\n", "Belady");
}

static sluice_status read_pins(replay_job *job, sl_memory *memory, sluice_error *error)
{
    if (job->pins_path == NULL) {
        return SLUICE_OK;
    }
    const sl_recording_shape *shape = &job->routing.shape;
    SL_TRY(sl_recorded_routing_read(&job->pins, job->pins_path, memory, error));
    if (memcmp(&job->pins.shape, shape, sizeof *shape) != 0) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT, "%s and %s are recordings of different models", job->path,
                            job->pins_path);
    }
    return SLUICE_OK;
}

static sluice_status run(replay_job *job, sl_memory *memory, sluice_error *error)
{
    SL_TRY(sl_recorded_routing_read(&job->routing, job->path, memory, error));
    SL_TRY(read_pins(job, memory, error));
    const sl_recording_shape *shape = &job->routing.shape;
    size_t n_words = (size_t)shape->n_layers * ((shape->n_experts - 1) / 64 + 1);
    job->mask = sl_alloc(memory, SL_MEMORY_OTHER, n_words, sizeof *job->mask);
    if (job->mask == NULL) {
        return sl_error_no_memory(error, n_words * sizeof *job->mask, "the pinned set");
    }
    print_head(job);
    for (int i = 0; i < job->n_rows; i++) {
        SL_TRY(print_row(job, &job->rows[i], error));
    }
    return SLUICE_OK;
}

int main(int n_words, char **words)
{
    replay_job job = {0};
    if (!take_arguments(&job, n_words, words)) {
        fprintf(stderr, "usage: replay RECORDING [--slots N,N...] [--working-sets X,X...] [--policy P,P...] "
                        "[--policy-trace RECORDING]\n");
        return 2;
    }
    fill_in(&job);
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    job.routing.memory = &memory;
    job.pins.memory = &memory;
    sluice_error error = {0};
    sluice_status status = run(&job, &memory, &error);
    sl_free(&memory, job.mask);
    sl_recorded_routing_free(&job.pins);
    sl_recorded_routing_free(&job.routing);
    if (status != SLUICE_OK) {
        fprintf(stderr, "replay: %s\n", error.message);
    }
    return status == SLUICE_OK ? 0 : 1;
}
