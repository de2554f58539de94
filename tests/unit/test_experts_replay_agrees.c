/* Replays against the store with reads that finish in any order, and the optimum against trying everything. */
#include "manual_store.h"

#include "experts/replay.h"

static const expert_shape small = {
    .n_layers = 3, .n_experts = 10, .n_ranges = 2, .matrix_bytes = 100, .n_files = 1, .buffered = true};
enum { N_LAYERS = 3, N_EXPERTS = 10, N_USED = 2, N_PLACES = N_LAYERS * N_EXPERTS, N_CHUNKS = 80, MAX_TOKENS = 6 };

static uint64_t next_random(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

static uint32_t below(uint64_t *random, uint32_t limit)
{
    return (uint32_t)(next_random(random) % limit);
}

static void expect_ok(sluice_status status, const sluice_error *error)
{
    if (status != SLUICE_OK) {
        fail_msg("%s", error->message);
    }
}

/* Two different experts for each token, low numbers more often. */
static void draw_choices(uint64_t *random, uint32_t n_experts, uint32_t n_tokens, uint32_t *choices)
{
    for (uint32_t token = 0; token < n_tokens; token++) {
        choices[2 * token] = below(random, 1 + below(random, n_experts));
        do {
            choices[2 * token + 1] = below(random, n_experts);
        } while (choices[2 * token + 1] == choices[2 * token]);
    }
}

/* What the executor asks for: by rank for a single token, by number for several. */
static uint32_t list_distinct(const uint32_t *choices, uint32_t n_tokens, uint32_t *experts, uint32_t *tokens_of)
{
    uint32_t uses[N_EXPERTS] = {0};
    uint32_t n_asked = 0;
    for (uint32_t i = 0; i < 2 * n_tokens; i++) {
        uses[choices[i]]++;
    }
    for (uint32_t i = 0; i < (n_tokens == 1 ? 2 : N_EXPERTS); i++) {
        uint32_t expert = n_tokens == 1 ? choices[i] : i;
        if (uses[expert] > 0) {
            experts[n_asked] = expert;
            tokens_of[n_asked++] = uses[expert];
        }
    }
    return n_asked;
}

/* Finish some read, or have what is ready delivered and release it in any order, until all was delivered. */
static void serve(sl_store *store, manual_reads *reads, sl_store_request *request, uint64_t *random)
{
    sluice_error error = {0};
    sl_expert_view views[N_EXPERTS];
    while (request->n_released < request->n_experts) {
        if (reads->n_flying > 0 && (below(random, 2) == 0 || !manual_would_deliver(store, request))) {
            manual_finish(reads, below(random, reads->n_flying), true);
            continue;
        }
        uint32_t n_ready = 0;
        expect_ok(sl_store_wait(store, request, views, 1 + below(random, N_EXPERTS), &n_ready, &error), &error);
        while (n_ready > 0) {
            uint32_t i_view = below(random, n_ready);
            sl_store_release(store, request, &views[i_view]);
            views[i_view] = views[--n_ready];
            if (reads->n_flying > 0 && below(random, 3) == 0) {
                manual_finish(reads, below(random, reads->n_flying), true);
            }
        }
    }
    manual_finish_all(reads);
    sl_store_end(store, request);
}

typedef struct run {
    uint32_t n_tokens[N_CHUNKS];
    uint32_t choices[N_CHUNKS * N_LAYERS * MAX_TOKENS * N_USED];
    sl_recorded_routing routing;
} run;

static void ask_layers(run *self, sl_store *store, manual_reads *reads, uint32_t n_tokens, uint64_t *random)
{
    sluice_error error = {0};
    for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
        uint32_t *choices = &self->choices[self->routing.n_choices];
        uint32_t experts[N_EXPERTS];
        uint32_t tokens_of[N_EXPERTS];
        uint64_t progress[N_EXPERTS];
        sl_store_request request;
        draw_choices(random, N_EXPERTS, n_tokens, choices);
        self->routing.n_choices += (size_t)n_tokens * N_USED;
        uint32_t n_asked = list_distinct(choices, n_tokens, experts, tokens_of);
        expect_ok(sl_store_begin_chunk(store, &request, layer, experts, tokens_of, n_asked, n_tokens, progress, &error),
                  &error);
        serve(store, reads, &request, random);
    }
}

/* After every chunk of a random run the store has counted what a replay of the run until then counts. */
static void check_run(expert_files *set, sl_policy_kind kind, uint32_t n_slots, uint64_t *random)
{
    static const uint64_t pinned[N_LAYERS] = {0x83, 0x03, 0x09};
    sluice_error error = {0};
    sl_store_config config = expert_config(set, n_slots);
    config.n_used = N_USED;
    config.policy = kind;
    config.pinned = pinned;
    manual_reads reads;
    sl_store *store = manual_store_open_config(&config, &reads);
    run self = {
        .routing = {.shape = {.n_layers = N_LAYERS, .n_experts = N_EXPERTS, .n_used = N_USED}, .memory = &set->memory}};
    self.routing.n_tokens = self.n_tokens;
    self.routing.experts = self.choices;
    for (uint32_t i_chunk = 0; i_chunk < N_CHUNKS; i_chunk++) {
        self.n_tokens[i_chunk] = below(random, 5) == 0 ? 1 + below(random, MAX_TOKENS) : 1;
        self.routing.n_chunks++;
        ask_layers(&self, store, &reads, self.n_tokens[i_chunk], random);
        sl_replay_counts counts;
        sl_store_counters counters;
        expect_ok(sl_replay(&self.routing, kind, pinned, n_slots, &counts, &error), &error);
        sl_store_counters_get(store, &counters);
        assert_int_equal(counts.requests, counters.requests);
        assert_int_equal(counts.hits, counters.hits);
        assert_int_equal(counts.evictions, counters.evictions);
    }
    sl_store_close(&store);
}

static void a_replay_counts_what_the_store_counts_whatever_the_disk_does(void **state)
{
    (void)state;
    uint64_t random = 88172645463325252u;
    expert_files *set = expert_files_open(&small);
    for (int kind = 0; kind < SL_POLICY_KINDS; kind++) {
        for (uint32_t n_slots = 1; n_slots <= N_PLACES + 2; n_slots += 1 + n_slots / 4) {
            check_run(set, (sl_policy_kind)kind, n_slots, &random);
        }
    }
    expert_files_close(set);
}

/* ---- The optimum ---- */

enum { TINY_LAYERS = 2, TINY_EXPERTS = 4, TINY_CHUNKS = 6, TINY_REQUESTS = TINY_LAYERS * TINY_CHUNKS };

/* Hits by request and residents, two layers of four experts; -1: not known. */
typedef struct exhaustive {
    uint32_t wanted[TINY_REQUESTS];
    uint32_t n_slots;
    int16_t known[TINY_REQUESTS][1 << (TINY_LAYERS * TINY_EXPERTS)];
} exhaustive;

/* The most hits that any choice of victims gives from request `next` on, when no request needs more than the slots. */
static uint32_t most_hits(exhaustive *search, uint32_t next, uint32_t resident)
{
    if (next == TINY_REQUESTS) {
        return 0;
    }
    if (search->known[next][resident] >= 0) {
        return (uint32_t)search->known[next][resident];
    }
    uint32_t wanted = search->wanted[next];
    uint32_t others = resident & ~wanted;
    uint32_t n_kept = search->n_slots - (uint32_t)__builtin_popcount(wanted);
    uint32_t best = 0;
    for (uint32_t kept = others;; kept = (kept - 1) & others) {
        if ((uint32_t)__builtin_popcount(kept) <= n_kept) {
            uint32_t hits = most_hits(search, next + 1, wanted | kept);
            best = hits > best ? hits : best;
        }
        if (kept == 0) {
            break;
        }
    }
    search->known[next][resident] = (int16_t)(best + (uint32_t)__builtin_popcount(wanted & resident));
    return (uint32_t)search->known[next][resident];
}

typedef struct tiny_run {
    uint32_t n_tokens[TINY_CHUNKS];
    uint32_t choices[TINY_REQUESTS * 4];
    sl_recorded_routing routing;
} tiny_run;

static void draw_tiny(tiny_run *self, sl_memory *memory, uint64_t *random, exhaustive *search)
{
    *self = (tiny_run){.routing = {.shape = {.n_layers = TINY_LAYERS, .n_experts = TINY_EXPERTS, .n_used = 2},
                                   .n_chunks = TINY_CHUNKS,
                                   .memory = memory}};
    self->routing.n_tokens = self->n_tokens;
    self->routing.experts = self->choices;
    *search = (exhaustive){0};
    for (uint32_t i_request = 0; i_request < TINY_REQUESTS; i_request++) {
        uint32_t i_chunk = i_request / TINY_LAYERS;
        uint32_t *choices = &self->choices[self->routing.n_choices];
        if (i_request % TINY_LAYERS == 0) {
            self->n_tokens[i_chunk] = 1 + below(random, 2);
        }
        draw_choices(random, TINY_EXPERTS, self->n_tokens[i_chunk], choices);
        for (uint32_t i = 0; i < 2 * self->n_tokens[i_chunk]; i++) {
            search->wanted[i_request] |= 1u << (i_request % TINY_LAYERS * TINY_EXPERTS + choices[i]);
        }
        self->routing.n_choices += 2 * (size_t)self->n_tokens[i_chunk];
    }
    memset(search->known, 0xff, sizeof search->known);
}

static void the_optimum_is_the_most_that_any_choice_of_victims_hits(void **state)
{
    (void)state;
    static exhaustive search;
    uint64_t random = 4101842887655102017u;
    sl_memory memory;
    sluice_error error = {0};
    sl_memory_init(&memory, NULL);
    for (int i_run = 0; i_run < 300; i_run++) {
        tiny_run self;
        draw_tiny(&self, &memory, &random, &search);
        search.n_slots = 4 + below(&random, 4);
        sl_replay_counts counts;
        expect_ok(sl_replay_optimum(&self.routing, search.n_slots, &counts, &error), &error);
        assert_int_equal(counts.hits, most_hits(&search, 0, 0));
    }
    assert_int_equal(memory.total_bytes, 0);
}

/* With requests larger than the slots the rule is no proof of the most hits in every run, but it counts by the store's
 * rules and comes out ahead: the experts that such a request leaves are those asked for soonest. A single layer, so that
 * nothing comes between it and the next request. */
static void requests_larger_than_the_slots_leave_the_optimum_ahead(void **state)
{
    (void)state;
    uint64_t random = 362436069u;
    uint64_t best_hits = 0;
    uint64_t hits[SL_POLICY_KINDS] = {0};
    sl_memory memory;
    sluice_error error = {0};
    sl_memory_init(&memory, NULL);
    for (int i_run = 0; i_run < 300; i_run++) {
        tiny_run self = {.routing = {.shape = {.n_layers = 1, .n_experts = N_EXPERTS, .n_used = 2},
                                     .n_chunks = TINY_CHUNKS,
                                     .memory = &memory}};
        self.routing.n_tokens = self.n_tokens;
        self.routing.experts = self.choices;
        for (uint32_t i_chunk = 0; i_chunk < TINY_CHUNKS; i_chunk++) {
            self.n_tokens[i_chunk] = 1 + below(&random, 3);
            draw_choices(&random, N_EXPERTS, self.n_tokens[i_chunk], &self.choices[self.routing.n_choices]);
            self.routing.n_choices += 2 * (size_t)self.n_tokens[i_chunk];
        }
        uint32_t n_slots = 1 + below(&random, 4);
        sl_replay_counts best;
        expect_ok(sl_replay_optimum(&self.routing, n_slots, &best, &error), &error);
        best_hits += best.hits;
        for (int kind = 0; kind < SL_POLICY_KINDS; kind++) {
            sl_replay_counts counts;
            expect_ok(sl_replay(&self.routing, (sl_policy_kind)kind, NULL, n_slots, &counts, &error), &error);
            assert_int_equal(counts.requests, best.requests);
            assert_int_equal(counts.hits + counts.evictions, best.hits + best.evictions);
            hits[kind] += counts.hits;
        }
    }
    for (int kind = 0; kind < SL_POLICY_KINDS; kind++) {
        assert_true(hits[kind] > 0 && best_hits > hits[kind] + hits[kind] / 20);
    }
    assert_int_equal(memory.total_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_replay_counts_what_the_store_counts_whatever_the_disk_does),
        cmocka_unit_test(the_optimum_is_the_most_that_any_choice_of_victims_hits),
        cmocka_unit_test(requests_larger_than_the_slots_leave_the_optimum_ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
