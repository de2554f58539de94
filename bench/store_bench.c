/* Owns one expert store with room for every expert, over a temporary file. Measures what the store costs when nothing has
 * to be read: tokens that ask each layer in turn for random experts, wait for them, release them and end, as the executor
 * does. Prints one JSON object.
 *
 * Usage: store_bench LAYERS EXPERTS USED
 *
 * Threads: main, which asks; the store's reader sleeps once everything is resident. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "experts/store.h"
#include "os/clock.h"

enum { EXPERT_BYTES = 4096, N_TOKENS = 20000, MAX_NUMBER = 4096 };

typedef struct store_shape {
    uint32_t n_layers, n_experts, n_used;
} store_shape;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* One layer's request from begin to end. */
static sluice_status ask(sl_store *store, uint32_t layer, const uint32_t *experts, uint32_t n_experts,
                         uint64_t *progress, sl_expert_view *ready, sluice_error *error)
{
    sl_store_request request = {0};
    SL_TRY(sl_store_begin(store, &request, layer, experts, n_experts, progress, error));
    sluice_status status = SLUICE_OK;
    for (uint32_t n_ready = 1; n_ready > 0 && status == SLUICE_OK;) {
        status = sl_store_wait(store, &request, ready, n_experts, &n_ready, error);
        for (uint32_t i = 0; i < n_ready; i++) {
            sl_store_release(store, &request, &ready[i]);
        }
    }
    sl_store_end(store, &request);
    return status;
}

static sluice_status read_everything(sl_store *store, const store_shape *shape, uint64_t *progress,
                                     sl_expert_view *ready, sluice_error *error)
{
    for (uint32_t layer = 0; layer < shape->n_layers; layer++) {
        for (uint32_t expert = 0; expert < shape->n_experts; expert++) {
            SL_TRY(ask(store, layer, &expert, 1, progress, ready, error));
        }
    }
    return SLUICE_OK;
}

/* The first n_used of a shuffled list are a token's experts. */
static void choose(uint32_t *numbers, const store_shape *shape, uint64_t *random)
{
    for (uint32_t i = 0; i < shape->n_used; i++) {
        uint32_t other = i + (uint32_t)(next_random(random) % (shape->n_experts - i));
        uint32_t number = numbers[i];
        numbers[i] = numbers[other];
        numbers[other] = number;
    }
}

static sluice_status measure(sl_store *store, const store_shape *shape, sluice_error *error)
{
    static uint32_t numbers[MAX_NUMBER];
    static uint64_t progress[MAX_NUMBER];
    static sl_expert_view ready[MAX_NUMBER];
    SL_TRY(read_everything(store, shape, progress, ready, error));
    for (uint32_t i = 0; i < shape->n_experts; i++) {
        numbers[i] = i;
    }
    uint64_t random = 88172645463325252u;
    uint64_t spent_ns = 0;
    for (uint32_t token = 0; token < N_TOKENS; token++) {
        for (uint32_t layer = 0; layer < shape->n_layers; layer++) {
            choose(numbers, shape, &random);
            uint64_t start_ns = sl_clock_ns();
            SL_TRY(ask(store, layer, numbers, shape->n_used, progress, ready, error));
            spent_ns += sl_clock_ns() - start_ns;
        }
    }
    printf("{\"ns_per_token\": %.1f, \"ns_per_layer\": %.1f}\n", (double)spent_ns / N_TOKENS,
           (double)spent_ns / N_TOKENS / shape->n_layers);
    return SLUICE_OK;
}

static sluice_status run(const store_shape *shape, const char *path, sluice_error *error)
{
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_file file;
    SL_TRY(sl_file_open(&file, path, false, error));
    uint64_t n_total = (uint64_t)shape->n_layers * shape->n_experts;
    sl_expert_range *ranges = calloc(n_total, sizeof *ranges);
    if (ranges == NULL) {
        return sl_error_no_memory(error, n_total * sizeof *ranges, "the places of the experts");
    }
    for (uint64_t i = 0; i < n_total; i++) {
        ranges[i] = (sl_expert_range){.offset = i * EXPERT_BYTES, .bytes = EXPERT_BYTES};
    }
    sl_store_file store_file = {.file = &file, .path = path};
    sl_store_config config = {.n_layers = shape->n_layers,
                              .n_experts = shape->n_experts,
                              .n_used = shape->n_used,
                              .n_ranges = 1,
                              .ranges = ranges,
                              .files = &store_file,
                              .n_files = 1,
                              .n_slots = n_total,
                              .policy = SL_POLICY_REUSE,
                              .reads = {.kind = SL_READS_AUTO, .n_threads = 1},
                              .memory = &memory};
    sl_store *store = NULL;
    sluice_status status = sl_store_open(&store, &config, error);
    if (status == SLUICE_OK) {
        status = measure(store, shape, error);
    }
    sl_store_close(&store);
    free(ranges);
    sl_file_close(&file);
    return status;
}

static bool make_file(char *path, uint64_t n_bytes)
{
    int descriptor = mkstemp(path);
    bool made = descriptor >= 0 && ftruncate(descriptor, (off_t)n_bytes) == 0;
    return descriptor >= 0 && close(descriptor) == 0 && made;
}

static uint32_t number_of(const char *word)
{
    char *end = NULL;
    unsigned long value = strtoul(word, &end, 10);
    return *end == '\0' && value <= MAX_NUMBER ? (uint32_t)value : 0;
}

int main(int n_words, char **words)
{
    store_shape shape = {0};
    if (n_words == 4) {
        shape = (store_shape){number_of(words[1]), number_of(words[2]), number_of(words[3])};
    }
    if (shape.n_layers == 0 || shape.n_used == 0 || shape.n_used > shape.n_experts) {
        fprintf(stderr, "usage: store_bench LAYERS EXPERTS USED\n");
        return 2;
    }
    char path[] = "/tmp/store_bench.XXXXXX";
    sluice_error error = {0};
    bool done = make_file(path, (uint64_t)shape.n_layers * shape.n_experts * EXPERT_BYTES);
    if (done) {
        done = run(&shape, path, &error) == SLUICE_OK;
    } else {
        perror(path);
    }
    (void)unlink(path);
    if (error.message[0] != '\0') {
        fprintf(stderr, "store_bench: %s\n", error.message);
    }
    return done ? 0 : 1;
}
