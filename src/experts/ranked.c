/* Owns the order of the slots by what their experts are worth.
 *
 * A slot's place follows from, first to last: nobody asked for it yet (the newest first); its value; the time its
 * expert was last asked for; its number. What the latest request asked for comes after all, by time. The value is the
 * worth, or with by_distance the worth over the number of layers until its layer's turn and that of all layers: who is
 * needed soon needs less of a chance.
 *
 * Invariants
 *  (1) `order` of a layer holds its occupied slots but the unasked, sorted by (current, worth, time, number): within a
 *      layer the distance is the same. The product of two floats is exact in a double, so values sort like worths.
 *  (2) `unasked` holds the other occupied slots, the oldest first.
 *  (3) Only slots of `layer`, whose turn it is, are current.
 *  (4) While every expert could have a slot nobody will have to give way: then nothing is learned, and (1) holds but for
 *      the sorting, which is done when the number of slots falls.
 * Threads: the holder of the store's lock. */
#include "experts/ranked.h"

#include <string.h>

typedef struct ranked_slot {
    uint32_t layer, expert;
    uint64_t time;
    float worth;
    bool unasked;
    bool current; /* asked for by the latest request */
} ranked_slot;

typedef struct ranked_policy {
    sl_policy policy;
    sl_memory *memory; /* borrowed */
    const sl_ranking *ranking;
    void *self; /* owned */
    uint32_t n_layers, n_experts;
    uint32_t layer; /* whose turn it is */
    bool resting;   /* a slot for every expert */
    uint32_t n_unasked;
    ranked_slot *slots; /* owned; [n_slots] */
    uint32_t *unasked;  /* owned; [n_slots] */
    uint32_t *order;    /* owned; [n_layers][n_experts]: slots */
    uint32_t *n_in;     /* owned; [n_layers] */
} ranked_policy;

/* ---- The order ---- */

static uint32_t distance_to(const ranked_policy *self, uint32_t layer)
{
    return layer > self->layer ? layer - self->layer : layer + self->n_layers - self->layer;
}

static double value_of(const ranked_policy *self, const ranked_slot *slot)
{
    if (!self->ranking->by_distance) {
        return (double)slot->worth;
    }
    float nearness = 1.0f / ((float)distance_to(self, slot->layer) + (float)self->n_layers);
    return (double)slot->worth * (double)nearness;
}

/* Whether slot `a` goes before slot `b`; neither is unasked. */
static bool goes_before(const ranked_policy *self, uint32_t a, uint32_t b)
{
    const ranked_slot *one = &self->slots[a];
    const ranked_slot *other = &self->slots[b];
    if (one->current != other->current) {
        return other->current;
    }
    double value = one->current ? 0.0 : value_of(self, one);
    double other_value = one->current ? 0.0 : value_of(self, other);
    if (value < other_value || value > other_value) {
        return value < other_value;
    }
    return one->time != other->time ? one->time < other->time : a < b;
}

static uint32_t *order_of(const ranked_policy *self, uint32_t layer)
{
    return &self->order[(size_t)layer * self->n_experts];
}

/* The first place in the layer's order whose slot does not go before `slot`. */
static uint32_t place_of(const ranked_policy *self, uint32_t layer, uint32_t n_in, uint32_t slot)
{
    const uint32_t *order = order_of(self, layer);
    uint32_t low = 0;
    uint32_t high = n_in;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (goes_before(self, order[middle], slot)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void insert(ranked_policy *self, uint32_t slot)
{
    uint32_t layer = self->slots[slot].layer;
    uint32_t *order = order_of(self, layer);
    uint32_t place = place_of(self, layer, self->n_in[layer], slot);
    memmove(&order[place + 1], &order[place], (self->n_in[layer] - place) * sizeof *order);
    order[place] = slot;
    self->n_in[layer]++;
}

static void take_out(ranked_policy *self, uint32_t slot)
{
    uint32_t layer = self->slots[slot].layer;
    uint32_t *order = order_of(self, layer);
    uint32_t place = 0;
    while (order[place] != slot) {
        place++;
    }
    self->n_in[layer]--;
    memmove(&order[place], &order[place + 1], (self->n_in[layer] - place) * sizeof *order);
}

static void take_out_unasked(ranked_policy *self, uint32_t slot)
{
    uint32_t place = 0;
    while (self->unasked[place] != slot) {
        place++;
    }
    self->n_unasked--;
    memmove(&self->unasked[place], &self->unasked[place + 1], (self->n_unasked - place) * sizeof *self->unasked);
    self->slots[slot].unasked = false;
}

/* Look every worth of the layer up again; none of its slots is current afterwards. */
static void sort_layer(ranked_policy *self, uint32_t layer)
{
    uint32_t *order = order_of(self, layer);
    for (uint32_t n_sorted = 0; n_sorted < self->n_in[layer]; n_sorted++) {
        uint32_t slot = order[n_sorted];
        self->slots[slot].worth = self->ranking->worth(self->self, layer, self->slots[slot].expert);
        self->slots[slot].current = false;
        uint32_t place = place_of(self, layer, n_sorted, slot);
        memmove(&order[place + 1], &order[place], (n_sorted - place) * sizeof *order);
        order[place] = slot;
    }
}

/* ---- Events ---- */

static void ranked_routed(sl_policy *policy, const sl_policy_request *request)
{
    ranked_policy *self = (ranked_policy *)policy;
    uint32_t layer_before = self->layer;
    self->layer = request->layer;
    if (self->resting) {
        return;
    }
    self->ranking->routed(self->self, request);
    if (layer_before != request->layer) {
        sort_layer(self, layer_before);
    }
    sort_layer(self, request->layer);
}

static void ranked_hit(sl_policy *policy, uint32_t slot, uint64_t time)
{
    ranked_policy *self = (ranked_policy *)policy;
    ranked_slot *hit = &self->slots[slot];
    if (self->resting && !hit->unasked) {
        hit->time = time > hit->time ? time : hit->time;
        return;
    }
    if (hit->unasked) {
        take_out_unasked(self, slot);
        hit->worth = self->ranking->worth(self->self, hit->layer, hit->expert);
    } else {
        take_out(self, slot);
    }
    hit->time = time > hit->time ? time : hit->time;
    hit->current = hit->layer == self->layer;
    insert(self, slot);
}

static void ranked_miss(sl_policy *policy, uint32_t slot, uint32_t layer, uint32_t expert, uint64_t time)
{
    ranked_policy *self = (ranked_policy *)policy;
    self->slots[slot] = (ranked_slot){.layer = layer,
                                      .expert = expert,
                                      .time = time,
                                      .worth = self->ranking->worth(self->self, layer, expert),
                                      .current = layer == self->layer};
    insert(self, slot);
}

static void ranked_prefetched(sl_policy *policy, uint32_t slot, uint32_t layer, uint32_t expert)
{
    ranked_policy *self = (ranked_policy *)policy;
    self->slots[slot] = (ranked_slot){.layer = layer, .expert = expert, .unasked = true};
    self->unasked[self->n_unasked++] = slot;
}

static void ranked_evict(sl_policy *policy, uint32_t slot)
{
    ranked_policy *self = (ranked_policy *)policy;
    if (self->slots[slot].unasked) {
        take_out_unasked(self, slot);
    } else {
        take_out(self, slot);
    }
}

/* The first of all layers' slots at the places given. */
static uint32_t first_among(const ranked_policy *self, uint32_t best, uint32_t layer, uint32_t place)
{
    if (place >= self->n_in[layer]) {
        return best;
    }
    uint32_t slot = order_of(self, layer)[place];
    return best == SL_NO_SLOT || goes_before(self, slot, best) ? slot : best;
}

static uint32_t first_asked(const ranked_policy *self)
{
    uint32_t best = SL_NO_SLOT;
    for (uint32_t layer = 0; layer < self->n_layers; layer++) {
        best = first_among(self, best, layer, 0);
    }
    return best;
}

static uint32_t ranked_first_victim(const sl_policy *policy)
{
    const ranked_policy *self = (const ranked_policy *)policy;
    return self->n_unasked > 0 ? self->unasked[self->n_unasked - 1] : first_asked(self);
}

static uint32_t ranked_next_victim(const sl_policy *policy, uint32_t slot)
{
    const ranked_policy *self = (const ranked_policy *)policy;
    if (self->slots[slot].unasked) {
        uint32_t place = self->n_unasked - 1;
        while (self->unasked[place] != slot) {
            place--;
        }
        return place > 0 ? self->unasked[place - 1] : first_asked(self);
    }
    uint32_t best = SL_NO_SLOT;
    for (uint32_t layer = 0; layer < self->n_layers; layer++) {
        uint32_t place = place_of(self, layer, self->n_in[layer], slot);
        best = first_among(self, best, layer, layer == self->slots[slot].layer ? place + 1 : place);
    }
    return best;
}

/* ---- Open and close ---- */

static void ranked_limit(sl_policy *policy, uint32_t n_slots)
{
    ranked_policy *self = (ranked_policy *)policy;
    bool rested = self->resting;
    self->resting = n_slots >= (uint64_t)self->n_layers * self->n_experts;
    if (self->ranking->limit != NULL) {
        self->ranking->limit(self->self, n_slots);
    }
    if (rested && !self->resting) {
        for (uint32_t layer = 0; layer < self->n_layers; layer++) {
            sort_layer(self, layer);
        }
    }
}

static void ranked_close(sl_policy *policy)
{
    ranked_policy *self = (ranked_policy *)policy;
    if (self->ranking->close != NULL) {
        self->ranking->close(self->self);
    } else {
        sl_free(self->memory, self->self);
    }
    sl_free(self->memory, self->slots);
    sl_free(self->memory, self->unasked);
    sl_free(self->memory, self->order);
    sl_free(self->memory, self->n_in);
    sl_free(self->memory, self);
}

uint64_t sl_policy_ranked_cost(const sl_policy_config *config)
{
    uint64_t n_total = (uint64_t)config->n_layers * config->n_experts;
    return sl_memory_cost(sizeof(ranked_policy), 16) +
           sl_memory_cost((uint64_t)config->n_slots * sizeof(ranked_slot), 16) +
           sl_memory_cost((uint64_t)config->n_slots * sizeof(uint32_t), 16) +
           sl_memory_cost(n_total * sizeof(uint32_t), 16) + sl_memory_cost(config->n_layers * sizeof(uint32_t), 16);
}

sluice_status sl_policy_open_ranked(sl_policy **policy, const sl_policy_config *config, const sl_ranking *ranking,
                                    void *state, sluice_error *error)
{
    static const sl_policy_type type = {
        .routed = ranked_routed,
        .hit = ranked_hit,
        .miss = ranked_miss,
        .prefetched = ranked_prefetched,
        .evict = ranked_evict,
        .first_victim = ranked_first_victim,
        .next_victim = ranked_next_victim,
        .limit = ranked_limit,
        .close = ranked_close,
    };
    sl_memory *memory = config->memory;
    ranked_policy *self = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizeof *self);
    if (self == NULL) {
        if (ranking->close != NULL) {
            ranking->close(state);
        } else {
            sl_free(memory, state);
        }
        return sl_error_no_memory(error, sizeof *self, "the eviction policy");
    }
    uint64_t n_total = (uint64_t)config->n_layers * config->n_experts;
    self->policy.type = &type;
    self->memory = memory;
    self->ranking = ranking;
    self->self = state;
    self->n_layers = config->n_layers;
    self->n_experts = config->n_experts;
    self->layer = config->n_layers - 1;
    self->slots = sl_alloc(memory, SL_MEMORY_OTHER, config->n_slots, sizeof *self->slots);
    self->unasked = sl_alloc(memory, SL_MEMORY_OTHER, config->n_slots, sizeof *self->unasked);
    self->order = sl_alloc(memory, SL_MEMORY_OTHER, n_total, sizeof *self->order);
    self->n_in = sl_alloc(memory, SL_MEMORY_OTHER, config->n_layers, sizeof *self->n_in);
    if (self->slots == NULL || self->unasked == NULL || self->order == NULL || self->n_in == NULL) {
        ranked_close(&self->policy);
        return sl_error_no_memory(error, sl_policy_ranked_cost(config), "the eviction policy");
    }
    ranked_limit(&self->policy, config->n_in_use > 0 ? config->n_in_use : config->n_slots);
    *policy = &self->policy;
    return SLUICE_OK;
}
