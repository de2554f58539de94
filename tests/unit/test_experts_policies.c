/* Every policy: what it puts first, and that its order holds exactly the occupied slots whatever happens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h needs setjmp, stdarg, stddef and stdint. */
#include <cmocka.h>

#include "../support/failing_memory.h"
#include "experts/policy.h"

enum { N_LAYERS = 3, N_EXPERTS = 12, N_TOTAL = N_LAYERS * N_EXPERTS, N_USED = 2, MAX_ASKED = N_EXPERTS };

/* Slots as the store would keep them. */
typedef struct slots {
    sl_policy *policy;
    sl_memory memory;
    uint32_t n_slots, limit;
    uint32_t place_in[N_TOTAL]; /* the slot of an expert, or SL_NO_SLOT */
    uint32_t expert_in[N_TOTAL];
    bool occupied[N_TOTAL];
    bool unasked[N_TOTAL];
    bool current[N_TOTAL]; /* by slot */
    uint64_t time;
} slots;

static const uint64_t two_pins_a_layer[N_LAYERS] = {0x3, 0x3, 0x3};

static sl_policy_config config_of(sl_policy_kind kind, uint32_t n_slots, sl_memory *memory)
{
    return (sl_policy_config){.kind = kind,
                              .n_layers = N_LAYERS,
                              .n_experts = N_EXPERTS,
                              .n_used = N_USED,
                              .n_slots = n_slots,
                              .pinned = two_pins_a_layer,
                              .memory = memory};
}

static void open_slots(slots *self, sl_policy_kind kind, uint32_t n_slots)
{
    *self = (slots){.n_slots = n_slots, .limit = n_slots, .time = 1};
    sl_memory_init(&self->memory, NULL);
    for (uint32_t place = 0; place < N_TOTAL; place++) {
        self->place_in[place] = SL_NO_SLOT;
    }
    sl_policy_config config = config_of(kind, n_slots, &self->memory);
    assert_int_equal(sl_policy_open(&self->policy, &config, NULL), SLUICE_OK);
    assert_int_equal(self->memory.total_bytes, sl_policy_cost(&config));
}

static void close_slots(slots *self)
{
    self->policy->type->close(self->policy);
    assert_int_equal(self->memory.total_bytes, 0);
}

static void empty(slots *self, uint32_t slot)
{
    self->policy->type->evict(self->policy, slot);
    self->place_in[self->expert_in[slot]] = SL_NO_SLOT;
    self->occupied[slot] = false;
    self->unasked[slot] = false;
    self->current[slot] = false;
}

static uint32_t free_slot(const slots *self)
{
    for (uint32_t slot = 0; slot < self->limit; slot++) {
        if (!self->occupied[slot]) {
            return slot;
        }
    }
    return SL_NO_SLOT;
}

/* A free slot, or that of the first victim that the request does not want. */
static uint32_t take(slots *self)
{
    uint32_t slot = free_slot(self);
    if (slot != SL_NO_SLOT) {
        return slot;
    }
    const sl_policy_type *type = self->policy->type;
    for (slot = type->first_victim(self->policy); slot != SL_NO_SLOT && self->current[slot];) {
        slot = type->next_victim(self->policy, slot);
    }
    if (slot != SL_NO_SLOT) {
        empty(self, slot);
    }
    return slot;
}

static void occupy(slots *self, uint32_t slot, uint32_t place, bool unasked)
{
    self->occupied[slot] = true;
    self->expert_in[slot] = place;
    self->place_in[place] = slot;
    self->unasked[slot] = unasked;
    self->current[slot] = !unasked;
}

static void ask(slots *self, uint32_t layer, const uint32_t *experts, const uint32_t *tokens_of, uint32_t n_asked,
                uint32_t n_tokens)
{
    const sl_policy_type *type = self->policy->type;
    memset(self->current, 0, sizeof self->current);
    sl_policy_request request = {.layer = layer,
                                 .n_experts = n_asked,
                                 .experts = experts,
                                 .tokens_of = tokens_of,
                                 .n_tokens = n_tokens,
                                 .time = self->time};
    type->routed(self->policy, &request);
    for (uint32_t i = 0; i < n_asked; i++) {
        uint32_t slot = self->place_in[layer * N_EXPERTS + experts[i]];
        if (slot != SL_NO_SLOT) {
            type->hit(self->policy, slot, self->time + i);
            self->unasked[slot] = false;
            self->current[slot] = true;
        }
    }
    for (uint32_t i = 0; i < n_asked; i++) {
        uint32_t place = layer * N_EXPERTS + experts[i];
        uint32_t slot = self->place_in[place] == SL_NO_SLOT ? take(self) : SL_NO_SLOT;
        if (slot != SL_NO_SLOT) {
            occupy(self, slot, place, false);
            type->miss(self->policy, slot, layer, experts[i], self->time + i);
        }
    }
    self->time += n_asked;
}

static void ask_two(slots *self, uint32_t layer, uint32_t a, uint32_t b)
{
    const uint32_t experts[2] = {a, b};
    ask(self, layer, experts, NULL, 2, 1);
}

/* The order holds every occupied slot once: the unasked first, what the latest request asked for last. */
static void check_order(const slots *self)
{
    if (self->limit == N_TOTAL) {
        return; /* nobody has to give way */
    }
    bool seen[N_TOTAL] = {false};
    uint32_t n_seen = 0;
    uint32_t n_occupied = 0;
    int phase = 0;
    const sl_policy_type *type = self->policy->type;
    for (uint32_t slot = type->first_victim(self->policy); slot != SL_NO_SLOT;
         slot = type->next_victim(self->policy, slot)) {
        assert_true(slot < self->n_slots && self->occupied[slot] && !seen[slot]);
        seen[slot] = true;
        n_seen++;
        int now = self->unasked[slot] ? 0 : self->current[slot] ? 2 : 1;
        assert_true(now >= phase);
        phase = now;
    }
    for (uint32_t slot = 0; slot < self->n_slots; slot++) {
        n_occupied += self->occupied[slot] ? 1 : 0;
    }
    assert_int_equal(n_seen, n_occupied);
}

static void random_request(slots *self)
{
    uint32_t experts[MAX_ASKED];
    uint32_t tokens_of[MAX_ASKED];
    uint32_t n_asked = 0;
    bool chunk = rand() % 5 == 0;
    uint32_t first = (uint32_t)rand() % N_EXPERTS;
    for (uint32_t i = 0; i < N_EXPERTS && n_asked < (chunk ? MAX_ASKED : N_USED); i++) {
        if (rand() % 3 == 0) {
            tokens_of[n_asked] = 1 + (uint32_t)rand() % 9;
            experts[n_asked++] = (first + i) % N_EXPERTS;
        }
    }
    ask(self, (uint32_t)rand() % N_LAYERS, experts, chunk ? tokens_of : NULL, n_asked, chunk ? 20 : 1);
}

static void random_prefetch(slots *self)
{
    uint32_t place = (uint32_t)rand() % N_TOTAL;
    uint32_t slot = self->place_in[place] == SL_NO_SLOT ? take(self) : SL_NO_SLOT;
    if (slot != SL_NO_SLOT) {
        occupy(self, slot, place, true);
        self->policy->type->prefetched(self->policy, slot, place / N_EXPERTS, place % N_EXPERTS);
    }
}

static void random_limit(slots *self)
{
    if (self->limit == N_TOTAL) {
        memset(self->current, 0, sizeof self->current); /* was not watched */
    }
    self->limit = 1 + (uint32_t)rand() % self->n_slots;
    self->policy->type->limit(self->policy, self->limit);
    for (uint32_t slot = self->limit; slot < self->n_slots; slot++) {
        if (self->occupied[slot]) {
            empty(self, slot);
        }
    }
}

static void the_order_holds_the_occupied_slots_whatever_happens(void **state)
{
    (void)state;
    srand(3);
    for (int round = 0; round < 60; round++) {
        slots self;
        open_slots(&self, (sl_policy_kind)(round % SL_POLICY_KINDS), 1 + (uint32_t)rand() % N_TOTAL);
        for (int event = 0; event < 200; event++) {
            int what = rand() % 20;
            if (what < 13) {
                random_request(&self);
            } else if (what < 17) {
                random_prefetch(&self);
            } else if (what < 19) {
                uint32_t slot = (uint32_t)rand() % self.n_slots;
                if (self.occupied[slot]) {
                    empty(&self, slot);
                }
            } else {
                random_limit(&self);
            }
            check_order(&self);
        }
        close_slots(&self);
    }
}

static void the_same_events_give_the_same_order(void **state)
{
    (void)state;
    for (int kind = 0; kind < SL_POLICY_KINDS; kind++) {
        uint32_t victims[2];
        for (int i = 0; i < 2; i++) {
            slots self;
            srand(5);
            open_slots(&self, (sl_policy_kind)kind, 9);
            for (int event = 0; event < 300; event++) {
                random_request(&self);
            }
            victims[i] = self.policy->type->first_victim(self.policy);
            close_slots(&self);
        }
        assert_int_equal(victims[0], victims[1]);
    }
}

/* The expert that would give way first, as a place. */
static uint32_t first_to_go(const slots *self)
{
    return self->expert_in[self->policy->type->first_victim(self->policy)];
}

static void lru_lets_the_least_recent_go(void **state)
{
    (void)state;
    slots self;
    open_slots(&self, SL_POLICY_LRU, 6);
    ask_two(&self, 0, 0, 1);
    ask_two(&self, 0, 2, 3);
    ask_two(&self, 0, 0, 4);
    assert_int_equal(first_to_go(&self), 1);
    close_slots(&self);
}

static void lfru_lets_the_rarest_go(void **state)
{
    (void)state;
    slots self;
    open_slots(&self, SL_POLICY_LFRU, 8);
    for (int i = 0; i < 6; i++) {
        ask_two(&self, 0, 0, 1);
    }
    ask_two(&self, 0, 2, 3);
    ask_two(&self, 0, 4, 5);
    assert_int_equal(first_to_go(&self), 2);
    close_slots(&self);
}

static void pinned_keeps_its_set(void **state)
{
    (void)state;
    slots self;
    open_slots(&self, SL_POLICY_PINNED, 8);
    ask_two(&self, 0, 0, 1);
    ask_two(&self, 0, 2, 3);
    ask_two(&self, 0, 4, 5);
    assert_int_equal(first_to_go(&self), 2);
    close_slots(&self);
}

static void placement_keeps_what_is_used_most(void **state)
{
    (void)state;
    slots self;
    open_slots(&self, SL_POLICY_PLACEMENT, 12);
    for (int i = 0; i < 40; i++) {
        ask_two(&self, 0, 10, 11);
    }
    for (uint32_t expert = 0; expert < 6; expert += 2) {
        ask_two(&self, 0, expert, expert + 1);
    }
    uint32_t slot = self.policy->type->first_victim(self.policy);
    for (; slot != SL_NO_SLOT && self.expert_in[slot] < 10;) {
        slot = self.policy->type->next_victim(self.policy, slot);
    }
    for (; slot != SL_NO_SLOT; slot = self.policy->type->next_victim(self.policy, slot)) {
        assert_true(self.expert_in[slot] >= 10 || self.current[slot] || self.expert_in[slot] < 4);
    }
    assert_true(first_to_go(&self) < 6);
    close_slots(&self);
}

static void placement_lets_who_lost_a_place_go_first(void **state)
{
    (void)state;
    slots self;
    open_slots(&self, SL_POLICY_PLACEMENT, 9);
    ask_two(&self, 1, 8, 9); /* never placed, and the least recently asked for */
    for (int i = 0; i < 40; i++) {
        ask_two(&self, 0, 10, 11);
    }
    assert_int_equal(first_to_go(&self), N_EXPERTS + 8);
    for (int i = 0; i < 100; i++) {
        ask_two(&self, 0, 4, 5);
    }
    for (int i = 0; i < 100; i++) {
        ask_two(&self, 0, 6, 7); /* three places: one of 10 and 11 may have kept its own until now */
    }
    assert_int_equal(first_to_go(&self), 10);
    ask_two(&self, 0, 10, 11);
    ask_two(&self, 0, 6, 7);
    assert_int_not_equal(first_to_go(&self), 10); /* asked for again */
    assert_int_not_equal(first_to_go(&self), 11);
    close_slots(&self);
}

static void reuse_lets_the_least_likely_go_and_among_equals_the_farthest(void **state)
{
    (void)state;
    slots self;
    open_slots(&self, SL_POLICY_REUSE, 8);
    for (int i = 0; i < 30; i++) {
        ask_two(&self, 0, 0, 1);
        ask_two(&self, 1, i % 2 == 0 ? 2 : 4, 3);
        ask_two(&self, 2, 0, 1);
    }
    /* Before layer 0: everything that is in is asked for by every token, but layer 1's 2 and 4, by turns. */
    assert_true(first_to_go(&self) == N_EXPERTS + 2 || first_to_go(&self) == N_EXPERTS + 4);
    close_slots(&self);
    open_slots(&self, SL_POLICY_REUSE, 8);
    ask_two(&self, 0, 0, 1);
    ask_two(&self, 1, 0, 1);
    ask_two(&self, 2, 0, 1);
    /* One token tells all the same; after layer 2 comes layer 0, and layer 1 is farther. */
    assert_int_equal(first_to_go(&self) / N_EXPERTS, 1);
    close_slots(&self);
}

static void reuse_keeps_who_sits_out_one_turn(void **state)
{
    (void)state;
    slots self;
    open_slots(&self, SL_POLICY_REUSE, 8);
    srand(19);
    for (uint32_t i = 0; i < 300; i++) {
        for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
            ask_two(&self, layer, i % 2, 2 + (uint32_t)rand() % 10);
        }
    }
    for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
        assert_int_not_equal(self.place_in[layer * N_EXPERTS], SL_NO_SLOT);
        assert_int_not_equal(self.place_in[layer * N_EXPERTS + 1], SL_NO_SLOT);
    }
    close_slots(&self);
}

static void names_of_kinds_are_known(void **state)
{
    (void)state;
    for (int kind = 0; kind < SL_POLICY_KINDS; kind++) {
        sl_policy_kind parsed = SL_POLICY_KINDS;
        assert_true(sl_policy_kind_parse(sl_policy_kind_name((sl_policy_kind)kind), &parsed));
        assert_int_equal(parsed, kind);
    }
    sl_policy_kind parsed = SL_POLICY_KINDS;
    assert_true(sl_policy_kind_parse("auto", &parsed));
    assert_int_equal(parsed, SL_POLICY_REUSE);
    assert_false(sl_policy_kind_parse("belady", &parsed));
}

static void a_refused_allocation_fails_open_and_leaves_nothing(void **state)
{
    (void)state;
    for (int kind = 0; kind < SL_POLICY_KINDS; kind++) {
        sluice_status status = SLUICE_ERROR_NO_MEMORY;
        uint64_t n_refused = 0;
        for (uint64_t failing = 0; status != SLUICE_OK; failing++) {
            failing_source source;
            sl_memory memory;
            failing_memory_init(&memory, &source, failing);
            sl_policy_config config = config_of((sl_policy_kind)kind, 9, &memory);
            sl_policy *policy = NULL;
            status = sl_policy_open(&policy, &config, NULL);
            n_refused += status != SLUICE_OK;
            if (status == SLUICE_OK) {
                policy->type->close(policy);
            } else {
                assert_int_equal(status, SLUICE_ERROR_NO_MEMORY);
                assert_null(policy);
            }
            assert_int_equal(memory.total_bytes, 0);
        }
        assert_true(n_refused >= 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_holds_the_occupied_slots_whatever_happens),
        cmocka_unit_test(the_same_events_give_the_same_order),
        cmocka_unit_test(lru_lets_the_least_recent_go),
        cmocka_unit_test(lfru_lets_the_rarest_go),
        cmocka_unit_test(pinned_keeps_its_set),
        cmocka_unit_test(placement_keeps_what_is_used_most),
        cmocka_unit_test(placement_lets_who_lost_a_place_go_first),
        cmocka_unit_test(reuse_lets_the_least_likely_go_and_among_equals_the_farthest),
        cmocka_unit_test(reuse_keeps_who_sits_out_one_turn),
        cmocka_unit_test(names_of_kinds_are_known),
        cmocka_unit_test(a_refused_allocation_fails_open_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
