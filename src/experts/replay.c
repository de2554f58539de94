/* Owns a recording in memory, and what a replay needs beside it.
 *
 * Invariants
 *  (1) A request of a replay lists what the executor would: a single token's experts by rank, the distinct ones of a
 *      chunk by number.
 *  (2) Nothing here depends on time: experts of no bytes are there as soon as they have a slot.
 * Threads: owner only. */
#include "experts/replay.h"

#include <string.h>

#include "experts/store.h"

/* ---- Reading ---- */

static sluice_status grow(sl_recorded_routing *routing, uint32_t n_tokens, uint32_t *max_chunks, size_t *max_choices,
                          sluice_error *error)
{
    const sl_recording_shape *shape = &routing->shape;
    size_t n_choices = routing->n_choices + (size_t)shape->n_layers * n_tokens * shape->n_used;
    if (routing->n_chunks == *max_chunks) {
        *max_chunks = *max_chunks == 0 ? 64 : *max_chunks * 2;
        uint32_t *tokens = sl_realloc(routing->memory, SL_MEMORY_OTHER, routing->n_tokens, *max_chunks, sizeof *tokens);
        if (tokens == NULL) {
            return sl_error_no_memory(error, *max_chunks * sizeof *tokens, "the chunks of the recording");
        }
        routing->n_tokens = tokens;
    }
    if (n_choices > *max_choices) {
        *max_choices = n_choices * 2;
        uint32_t *experts =
            sl_realloc(routing->memory, SL_MEMORY_OTHER, routing->experts, *max_choices, sizeof *experts);
        if (experts == NULL) {
            return sl_error_no_memory(error, *max_choices * sizeof *experts, "the choices of the recording");
        }
        routing->experts = experts;
    }
    return SLUICE_OK;
}

static sluice_status read_chunks(sl_recorded_routing *routing, sl_recording_reader *reader, sluice_error *error)
{
    uint32_t max_chunks = 0;
    size_t max_choices = 0;
    for (;;) {
        uint32_t n_tokens = 0;
        SL_TRY(sl_recording_next_chunk(reader, &n_tokens, error));
        if (n_tokens == 0) {
            return SLUICE_OK;
        }
        SL_TRY(grow(routing, n_tokens, &max_chunks, &max_choices, error));
        routing->n_tokens[routing->n_chunks++] = n_tokens;
        for (uint32_t layer = 0; layer < routing->shape.n_layers; layer++) {
            SL_TRY(sl_recording_next_layer(reader, n_tokens, &routing->experts[routing->n_choices], error));
            routing->n_choices += (size_t)n_tokens * routing->shape.n_used;
        }
    }
}

sluice_status sl_recorded_routing_read(sl_recorded_routing *routing, const char *path, sl_memory *memory,
                                       sluice_error *error)
{
    *routing = (sl_recorded_routing){.memory = memory};
    sl_recording_reader reader = {0};
    sluice_status status = sl_recording_open(&reader, path, error);
    if (status == SLUICE_OK) {
        routing->shape = reader.shape;
        status = read_chunks(routing, &reader, error);
    }
    sl_recording_close(&reader);
    return status;
}

void sl_recorded_routing_free(sl_recorded_routing *routing)
{
    sl_free(routing->memory, routing->n_tokens);
    sl_free(routing->memory, routing->experts);
    *routing = (sl_recorded_routing){.memory = routing->memory};
}

sluice_status sl_recorded_routing_favourites(const sl_recorded_routing *routing, uint64_t n_pins, uint64_t *mask,
                                             sluice_error *error)
{
    const sl_recording_shape *shape = &routing->shape;
    size_t n_total = (size_t)shape->n_layers * shape->n_experts;
    uint32_t *uses = sl_alloc(routing->memory, SL_MEMORY_OTHER, n_total, sizeof *uses);
    if (uses == NULL) {
        return sl_error_no_memory(error, n_total * sizeof *uses, "the counts of experts");
    }
    const uint32_t *choice = routing->experts;
    for (uint32_t i_chunk = 0; i_chunk < routing->n_chunks; i_chunk++) {
        for (uint32_t layer = 0; layer < shape->n_layers; layer++) {
            for (uint32_t i = 0; i < routing->n_tokens[i_chunk] * shape->n_used; i++) {
                uses[(size_t)layer * shape->n_experts + *choice++]++;
            }
        }
    }
    sl_recording_favourites(shape, uses, n_pins, mask);
    sl_free(routing->memory, uses);
    return SLUICE_OK;
}

/* ---- Requests ---- */

/* What one layer asks for in one chunk. */
typedef struct requests {
    uint32_t *experts;   /* owned; [n_experts] */
    uint32_t *tokens_of; /* owned; [n_experts] */
    uint32_t *uses;      /* owned; [n_experts] */
    uint32_t n_asked;
} requests;

static bool requests_open(requests *self, const sl_recorded_routing *routing)
{
    uint32_t n_experts = routing->shape.n_experts;
    *self = (requests){.experts = sl_alloc(routing->memory, SL_MEMORY_OTHER, n_experts, sizeof(uint32_t)),
                       .tokens_of = sl_alloc(routing->memory, SL_MEMORY_OTHER, n_experts, sizeof(uint32_t)),
                       .uses = sl_alloc(routing->memory, SL_MEMORY_OTHER, n_experts, sizeof(uint32_t))};
    return self->experts != NULL && self->tokens_of != NULL && self->uses != NULL;
}

static void requests_close(requests *self, const sl_recorded_routing *routing)
{
    sl_free(routing->memory, self->experts);
    sl_free(routing->memory, self->tokens_of);
    sl_free(routing->memory, self->uses);
}

static void list_request(requests *self, const sl_recorded_routing *routing, const uint32_t *choices, uint32_t n_tokens)
{
    uint32_t n_experts = routing->shape.n_experts;
    uint32_t n_used = routing->shape.n_used;
    self->n_asked = 0;
    if (n_tokens == 1) {
        for (uint32_t rank = 0; rank < n_used; rank++) {
            self->experts[self->n_asked] = choices[rank];
            self->tokens_of[self->n_asked++] = 1;
        }
        return;
    }
    memset(self->uses, 0, n_experts * sizeof *self->uses);
    for (uint32_t i = 0; i < n_tokens * n_used; i++) {
        self->uses[choices[i]]++;
    }
    for (uint32_t expert = 0; expert < n_experts; expert++) {
        if (self->uses[expert] > 0) {
            self->experts[self->n_asked] = expert;
            self->tokens_of[self->n_asked++] = self->uses[expert];
        }
    }
}

/* Visit every request in order. */
typedef sluice_status visit_request(void *user, uint32_t layer, const requests *asked, uint32_t n_tokens,
                                    sluice_error *error);

static sluice_status for_each_request(const sl_recorded_routing *routing, visit_request *visit, void *user,
                                      sluice_error *error)
{
    requests asked;
    sluice_status status = requests_open(&asked, routing)
                               ? SLUICE_OK
                               : sl_error_no_memory(error, routing->shape.n_experts * sizeof(uint32_t), "a request");
    const uint32_t *choices = routing->experts;
    for (uint32_t i_chunk = 0; i_chunk < routing->n_chunks && status == SLUICE_OK; i_chunk++) {
        uint32_t n_tokens = routing->n_tokens[i_chunk];
        for (uint32_t layer = 0; layer < routing->shape.n_layers && status == SLUICE_OK; layer++) {
            list_request(&asked, routing, choices, n_tokens);
            choices += (size_t)n_tokens * routing->shape.n_used;
            status = visit(user, layer, &asked, n_tokens, error);
        }
    }
    requests_close(&asked, routing);
    return status;
}

/* ---- Policies ---- */

typedef struct store_replay {
    sl_store *store;
    sl_store_request request;
    uint64_t *progress;    /* owned; [n_experts] */
    sl_expert_view *ready; /* owned; [n_experts] */
    uint32_t n_experts;
} store_replay;

static sluice_status ask_store(void *user, uint32_t layer, const requests *asked, uint32_t n_tokens,
                               sluice_error *error)
{
    store_replay *self = user;
    SL_TRY(sl_store_begin_chunk(self->store, &self->request, layer, asked->experts, asked->tokens_of, asked->n_asked,
                                n_tokens, self->progress, error));
    sluice_status status = SLUICE_OK;
    for (uint32_t n_ready = 1; n_ready > 0 && status == SLUICE_OK;) {
        status = sl_store_wait(self->store, &self->request, self->ready, self->n_experts, &n_ready, error);
        for (uint32_t i = 0; i < n_ready; i++) {
            sl_store_release(self->store, &self->request, &self->ready[i]);
        }
    }
    sl_store_end(self->store, &self->request);
    return status;
}

sluice_status sl_replay(const sl_recorded_routing *routing, sl_policy_kind policy, const uint64_t *pinned,
                        uint32_t n_slots, sl_replay_counts *counts, sluice_error *error)
{
    *counts = (sl_replay_counts){0};
    const sl_recording_shape *shape = &routing->shape;
    sl_memory *memory = routing->memory;
    size_t n_total = (size_t)shape->n_layers * shape->n_experts;
    sl_expert_range *ranges = sl_alloc(memory, SL_MEMORY_OTHER, n_total, sizeof *ranges); /* of no bytes */
    store_replay self = {.progress = sl_alloc(memory, SL_MEMORY_OTHER, shape->n_experts, sizeof *self.progress),
                         .ready = sl_alloc(memory, SL_MEMORY_OTHER, shape->n_experts, sizeof *self.ready),
                         .n_experts = shape->n_experts};
    sl_store_config config = {.n_layers = shape->n_layers,
                              .n_experts = shape->n_experts,
                              .n_used = shape->n_used,
                              .n_ranges = 1,
                              .ranges = ranges,
                              .n_slots = n_slots,
                              .policy = policy,
                              .pinned = pinned,
                              .reads = {.kind = SL_READS_PREAD, .n_threads = 1},
                              .memory = memory};
    sluice_status status = ranges != NULL && self.progress != NULL && self.ready != NULL
                               ? sl_store_open(&self.store, &config, error)
                               : sl_error_no_memory(error, n_total * sizeof *ranges, "the replay");
    if (status == SLUICE_OK) {
        status = for_each_request(routing, ask_store, &self, error);
    }
    if (status == SLUICE_OK) {
        sl_store_counters total;
        sl_store_counters_get(self.store, &total);
        *counts = (sl_replay_counts){.requests = total.requests, .hits = total.hits, .evictions = total.evictions};
    }
    sl_store_close(&self.store);
    sl_free(memory, self.ready);
    sl_free(memory, self.progress);
    sl_free(memory, ranges);
    return status;
}

/* ---- The optimum ---- */

static const uint32_t never = UINT32_MAX;

typedef struct optimum {
    uint32_t n_experts, n_slots;
    uint32_t *next_of;    /* owned; [entries]: the number of the request that asks for the same expert next */
    uint32_t *next_use;   /* owned; [n_total]: of a resident expert */
    uint32_t *resident;   /* owned; [n_slots]: places of experts */
    uint32_t *asked_last; /* owned; [n_total]: 1 + the number of the last request that asked; 0: none */
    uint32_t *hit_last;   /* owned; [n_total]: the same of the last request that hit */
    bool *is_resident;    /* owned; [n_total] */
    uint32_t n_resident;
    uint32_t i_request;
    size_t i_entry;
    size_t *last_entry; /* owned; [n_total]: 1 + the last entry of the expert; 0: none */
    sl_replay_counts counts;
} optimum;

/* First pass: link every entry to the next request for its expert. */
static sluice_status link_entries(void *user, uint32_t layer, const requests *asked, uint32_t n_tokens,
                                  sluice_error *error)
{
    optimum *self = user;
    (void)n_tokens;
    (void)error;
    for (uint32_t i = 0; i < asked->n_asked; i++) {
        size_t place = (size_t)layer * self->n_experts + asked->experts[i];
        if (self->last_entry[place] > 0) {
            self->next_of[self->last_entry[place] - 1] = self->i_request;
        }
        self->next_of[self->i_entry] = never;
        self->last_entry[place] = ++self->i_entry;
    }
    self->i_request++;
    return SLUICE_OK;
}

/* The slot whose expert is asked for again last, of all or of `others`, those the request does not want; SL_NO_SLOT: there
 * is none. */
static uint32_t farthest(const optimum *self, bool others)
{
    uint32_t found = SL_NO_SLOT;
    for (uint32_t slot = 0; slot < self->n_resident; slot++) {
        uint32_t place = self->resident[slot];
        if ((!others || self->asked_last[place] != self->i_request + 1) &&
            (found == SL_NO_SLOT || self->next_use[place] > self->next_use[self->resident[found]])) {
            found = slot;
        }
    }
    return found;
}

static void take_slot(optimum *self, uint32_t place)
{
    uint32_t slot = self->n_resident;
    if (slot < self->n_slots) {
        self->n_resident++;
    } else {
        slot = farthest(self, true);
        if (slot == SL_NO_SLOT) {
            slot = farthest(self, false); /* the request has done with it */
        }
        self->is_resident[self->resident[slot]] = false;
        self->counts.evictions++;
    }
    self->resident[slot] = place;
    self->is_resident[place] = true;
}

static sluice_status ask_oracle(void *user, uint32_t layer, const requests *asked, uint32_t n_tokens,
                                sluice_error *error)
{
    optimum *self = user;
    (void)n_tokens;
    (void)error;
    for (uint32_t i = 0; i < asked->n_asked; i++) {
        size_t place = (size_t)layer * self->n_experts + asked->experts[i];
        self->asked_last[place] = self->i_request + 1;
        self->next_use[place] = self->next_of[self->i_entry++];
        self->counts.requests++;
        if (self->is_resident[place]) {
            self->hit_last[place] = self->i_request + 1;
            self->counts.hits++;
        }
    }
    for (uint32_t i = 0; i < asked->n_asked; i++) {
        size_t place = (size_t)layer * self->n_experts + asked->experts[i];
        if (self->hit_last[place] != self->i_request + 1) {
            take_slot(self, (uint32_t)place);
        }
    }
    self->i_request++;
    return SLUICE_OK;
}

sluice_status sl_replay_optimum(const sl_recorded_routing *routing, uint32_t n_slots, sl_replay_counts *counts,
                                sluice_error *error)
{
    sl_memory *memory = routing->memory;
    size_t n_total = (size_t)routing->shape.n_layers * routing->shape.n_experts;
    optimum self = {.n_experts = routing->shape.n_experts,
                    .n_slots = n_slots,
                    .next_of = sl_alloc(memory, SL_MEMORY_OTHER, routing->n_choices + 1, sizeof *self.next_of),
                    .next_use = sl_alloc(memory, SL_MEMORY_OTHER, n_total, sizeof *self.next_use),
                    .resident = sl_alloc(memory, SL_MEMORY_OTHER, n_slots, sizeof *self.resident),
                    .asked_last = sl_alloc(memory, SL_MEMORY_OTHER, n_total, sizeof *self.asked_last),
                    .hit_last = sl_alloc(memory, SL_MEMORY_OTHER, n_total, sizeof *self.hit_last),
                    .is_resident = sl_alloc(memory, SL_MEMORY_OTHER, n_total, sizeof *self.is_resident),
                    .last_entry = sl_alloc(memory, SL_MEMORY_OTHER, n_total, sizeof *self.last_entry)};
    bool complete = self.next_of != NULL && self.next_use != NULL && self.resident != NULL && self.asked_last != NULL &&
                    self.hit_last != NULL && self.is_resident != NULL && self.last_entry != NULL;
    sluice_status status = complete ? for_each_request(routing, link_entries, &self, error)
                                    : sl_error_no_memory(error, n_total * sizeof *self.next_use, "the optimum");
    if (status == SLUICE_OK) {
        self.i_entry = 0;
        self.i_request = 0;
        status = for_each_request(routing, ask_oracle, &self, error);
    }
    *counts = self.counts;
    sl_free(memory, self.last_entry);
    sl_free(memory, self.is_resident);
    sl_free(memory, self.hit_last);
    sl_free(memory, self.asked_last);
    sl_free(memory, self.resident);
    sl_free(memory, self.next_use);
    sl_free(memory, self.next_of);
    return status;
}
