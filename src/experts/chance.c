/* Owns what is known of every expert, and the weights by which that becomes two chances:
 *
 *   next    that its layer's next turn asks for it
 *   later   that any one turn after that does, given that the next one does not
 *
 * Each is a logistic model, p = 1 / (1 + exp(-sum of weight * feature)), of the same features of an expert:
 *
 *   CONSTANT   1
 *   LATELY     the share of the layer's last 50 or so turns that asked for it, as log odds over those of an average one
 *   SO_FAR     the same over the last 500
 *   JUST       1 when the last turn asked for it; BEFORE, EARLIER, OLDER: 1 when the latest that did was the last but
 *              one, the third or fourth, the fifth to eighth from the end
 *   FOLLOWS    with pairs: the sum of what was learned of it after each of the experts of the last turn
 *
 * After every turn of a single token the weights of `next` move against the error of what was predicted for it, each at
 * its own pace (AdaGrad: J. Duchi, E. Hazan, Y. Singer, 2011), and so do the pairs of those that followed. So a model
 * without locality loses its weight on JUST, one without favourites that on SO_FAR, within some tens of tokens. `later`
 * is learned from what LATER_TURNS turns brought for the features as they were before the first of them, with one such
 * snapshot of a layer at a time.
 *
 * Invariants
 *  (1) `features`, `next` and `later` of a layer are those of its next turn, given all turns so far.
 *  (2) A turn of several tokens counts as that many for the shares; nothing is learned from it, it ends a snapshot, and
 *      it has no last turn that a next one could follow.
 *  (3) All numbers are finite: shares lie between 0 and 1, pairs and features are bounded, a weight moves by no more
 *      than the pace at once.
 *  (4) Nothing is allocated after open.
 * Threads: one at a time. */
#include "experts/chance.h"

#include <math.h>
#include <string.h>

enum { CONSTANT, LATELY, SO_FAR, JUST, BEFORE, EARLIER, OLDER, FOLLOWS, N_FEATURES };
enum { LATER_TURNS = 4 };

/* One logistic model. */
typedef struct model {
    float weights[N_FEATURES];
    float squares[N_FEATURES]; /* 1 + those of the gradients so far */
} model;

/* The weight of CONSTANT is that of the average chance. */
static const float first_next[N_FEATURES] = {
    [LATELY] = 0.3f, [SO_FAR] = 0.5f, [JUST] = 1.0f, [BEFORE] = 0.5f, [FOLLOWS] = 1.0f};
static const float first_later[N_FEATURES] = {[LATELY] = 0.3f, [SO_FAR] = 0.5f, [JUST] = 0.1f, [BEFORE] = 0.05f};

static const float pace = 0.1f;          /* of weights */
static const float pair_pace = 0.1f;     /* of pairs, at first */
static const float lately_gain = 0.02f;  /* of a turn in the share of the last turns */
static const float so_far_gain = 0.002f; /* likewise */
static const float largest_share = 0.98f;
static const float largest_sum = 15.0f; /* of a model, and of a pair; smaller than its negative no more than that */
static const uint16_t largest_count = 60000;

enum { ASKED_AT_FIRST = -1, NOT_YET = 0 }; /* else the number of the turn, from 1 */

struct sl_chance {
    sl_chance_config config;
    float average;      /* share of an average expert */
    float average_odds; /* log odds of that */
    model next_model, later_model;
    uint32_t *n_turns;      /* owned; [n_layers]: in tokens, saturating */
    uint32_t *n_last;       /* owned; [n_layers]: experts of the last turn; 0: not of a single token */
    uint32_t *last;         /* owned; [n_layers][n_used] */
    uint32_t *asked_at;     /* owned; [n_layers][n_experts]: n_turns of the last turn that asked for it; 0: none */
    float *lately, *so_far; /* owned; [n_layers][n_experts] */
    float *features;        /* owned; [n_layers][n_experts][N_FEATURES] */
    float *next, *later;    /* owned; [n_layers][n_experts] */
    float *errors;          /* owned; [n_experts]: of `next` at the turn that is being learned, above 0 for who came */
    int32_t *snapshot_age;  /* owned; [n_layers]: turns after its first; -1: there is no snapshot */
    float *snapshot;        /* owned; [n_layers][n_experts][N_FEATURES]: before its first turn */
    int8_t *first_use;      /* owned; [n_layers][n_experts]: the turn after the first that asked for it */
    float *pairs;           /* owned; [n_layers][n_experts][n_experts]: of the second after the first */
    uint16_t *n_followed;   /* owned; [n_layers][n_experts]: turns after ones that had the expert, saturating */
};

/* ---- What is known of an expert ---- */

static float log_odds(float share)
{
    return logf(share / (1.0f - share));
}

/* A share as log odds over the average; one turn's worth of the average keeps it off 0. */
static float share_feature(const sl_chance *self, float share, float gain)
{
    float mixed = (share + gain * self->average) / (1.0f + gain);
    return log_odds(mixed < largest_share ? mixed : largest_share) - self->average_odds;
}

static float follows_feature(const sl_chance *self, uint32_t layer, uint32_t expert)
{
    size_t first = (size_t)layer * self->config.n_experts;
    float sum = 0.0f;
    for (uint32_t i = 0; i < self->n_last[layer]; i++) {
        size_t before = first + self->last[(size_t)layer * self->config.n_used + i];
        sum += self->pairs[before * self->config.n_experts + expert];
    }
    return sum;
}

static float bounded(float sum)
{
    return sum < -largest_sum ? -largest_sum : sum > largest_sum ? largest_sum : sum;
}

static float chance_by(const model *of, const float *features)
{
    float sum = 0.0f;
    for (int i = 0; i < N_FEATURES; i++) {
        sum += of->weights[i] * features[i];
    }
    return 1.0f / (1.0f + expf(-bounded(sum)));
}

/* Features and chances of the layer's next turn. */
static void look_ahead(sl_chance *self, uint32_t layer)
{
    size_t first = (size_t)layer * self->config.n_experts;
    uint32_t now = self->n_turns[layer];
    for (uint32_t expert = 0; expert < self->config.n_experts; expert++) {
        size_t place = first + expert;
        float *features = &self->features[place * N_FEATURES];
        uint32_t age = self->asked_at[place] == 0 || self->n_last[layer] == 0 ? 0 : now - self->asked_at[place] + 1;
        features[CONSTANT] = 1.0f;
        features[LATELY] = share_feature(self, self->lately[place], lately_gain);
        features[SO_FAR] = share_feature(self, self->so_far[place], so_far_gain);
        features[JUST] = age == 1 ? 1.0f : 0.0f;
        features[BEFORE] = age == 2 ? 1.0f : 0.0f;
        features[EARLIER] = age == 3 || age == 4 ? 1.0f : 0.0f;
        features[OLDER] = age >= 5 && age <= 8 ? 1.0f : 0.0f;
        features[FOLLOWS] = self->pairs != NULL ? follows_feature(self, layer, expert) : 0.0f;
        self->next[place] = chance_by(&self->next_model, features);
        self->later[place] = chance_by(&self->later_model, features);
    }
}

/* ---- Learning ---- */

static void find_errors(sl_chance *self, uint32_t layer, const uint32_t *experts, uint32_t n_experts)
{
    const float *next = &self->next[(size_t)layer * self->config.n_experts];
    for (uint32_t expert = 0; expert < self->config.n_experts; expert++) {
        self->errors[expert] = -next[expert];
    }
    for (uint32_t i = 0; i < n_experts; i++) {
        self->errors[experts[i]] = 1.0f - next[experts[i]];
    }
}

static void move_weights(model *of, const float *gradient)
{
    for (int i = 0; i < N_FEATURES; i++) {
        of->squares[i] += gradient[i] * gradient[i];
        of->weights[i] += pace * gradient[i] / sqrtf(of->squares[i]);
    }
}

static void learn_next(sl_chance *self, uint32_t layer)
{
    const float *features = &self->features[(size_t)layer * self->config.n_experts * N_FEATURES];
    float gradient[N_FEATURES] = {0};
    for (uint32_t expert = 0; expert < self->config.n_experts; expert++) {
        for (int i = 0; i < N_FEATURES; i++) {
            gradient[i] += self->errors[expert] * features[(size_t)expert * N_FEATURES + (size_t)i];
        }
    }
    move_weights(&self->next_model, gradient);
}

/* Who was followed often moves less: by about one over the deviation of the errors so far. */
static void learn_pairs(sl_chance *self, uint32_t layer)
{
    uint32_t n_experts = self->config.n_experts;
    for (uint32_t i = 0; i < self->n_last[layer]; i++) {
        size_t before = (size_t)layer * n_experts + self->last[(size_t)layer * self->config.n_used + i];
        float variance = self->average * (1.0f - self->average) * (float)self->n_followed[before];
        float rate = pair_pace / sqrtf(1.0f + variance);
        float *pairs = &self->pairs[before * n_experts];
        for (uint32_t expert = 0; expert < n_experts; expert++) {
            pairs[expert] = bounded(pairs[expert] + rate * self->errors[expert]);
        }
        if (self->n_followed[before] < largest_count) {
            self->n_followed[before]++;
        }
    }
}

/* Every turn of those after the first is a trial, up to the one that asks for the expert; who was asked for at the first
 * says nothing. */
static void learn_later(sl_chance *self, uint32_t layer)
{
    size_t first = (size_t)layer * self->config.n_experts;
    float gradient[N_FEATURES] = {0};
    for (uint32_t expert = 0; expert < self->config.n_experts; expert++) {
        int first_use = self->first_use[first + expert];
        if (first_use == ASKED_AT_FIRST) {
            continue;
        }
        const float *features = &self->snapshot[(first + expert) * N_FEATURES];
        float later = chance_by(&self->later_model, features);
        float error = first_use == NOT_YET ? -LATER_TURNS * later : 1.0f - (float)first_use * later;
        for (int i = 0; i < N_FEATURES; i++) {
            gradient[i] += error / LATER_TURNS * features[i];
        }
    }
    move_weights(&self->later_model, gradient);
}

static void watch_snapshot(sl_chance *self, uint32_t layer)
{
    size_t first = (size_t)layer * self->config.n_experts;
    int32_t *age = &self->snapshot_age[layer];
    if (*age < 0) {
        size_t n_bytes = (size_t)self->config.n_experts * N_FEATURES * sizeof(float);
        memcpy(&self->snapshot[first * N_FEATURES], &self->features[first * N_FEATURES], n_bytes);
    }
    (*age)++;
    for (uint32_t expert = 0; expert < self->config.n_experts; expert++) {
        int8_t *first_use = &self->first_use[first + expert];
        bool asked = self->errors[expert] > 0.0f;
        if (*age == 0) {
            *first_use = asked ? ASKED_AT_FIRST : NOT_YET;
        } else if (asked && *first_use == NOT_YET) {
            *first_use = (int8_t)*age;
        }
    }
    if (*age == LATER_TURNS) {
        learn_later(self, layer);
        *age = -1;
    }
}

/* The gain of `n_tokens` tokens at once. The first ones count for more, as in the plain mean with eight turns of the
 * average before them. */
static float gain_of(float gain, uint32_t n_turns, uint32_t n_tokens)
{
    float whole = 1.0f - powf(1.0f - gain, (float)n_tokens);
    float in_mean = (float)n_tokens / ((float)n_turns + (float)n_tokens + 8.0f);
    return whole > in_mean ? whole : in_mean;
}

static void count_shares(sl_chance *self, uint32_t layer, const uint32_t *experts, const uint32_t *tokens_of,
                         uint32_t n_experts, uint32_t n_tokens)
{
    size_t first = (size_t)layer * self->config.n_experts;
    uint32_t n_turns = self->n_turns[layer];
    float lately = gain_of(lately_gain, n_turns, n_tokens);
    float so_far = gain_of(so_far_gain, n_turns, n_tokens);
    for (uint32_t expert = 0; expert < self->config.n_experts; expert++) {
        self->lately[first + expert] *= 1.0f - lately;
        self->so_far[first + expert] *= 1.0f - so_far;
    }
    self->n_turns[layer] = n_turns > UINT32_MAX / 2 ? n_turns : n_turns + n_tokens;
    for (uint32_t i = 0; i < n_experts; i++) {
        size_t place = first + experts[i];
        uint32_t tokens = tokens_of == NULL ? 1 : tokens_of[i];
        float share = tokens >= n_tokens ? 1.0f : (float)tokens / (float)n_tokens;
        self->lately[place] += lately * share;
        self->so_far[place] += so_far * share;
        self->asked_at[place] = self->n_turns[layer];
    }
}

void sl_chance_turn(sl_chance *self, uint32_t layer, const uint32_t *experts, const uint32_t *tokens_of,
                    uint32_t n_experts, uint32_t n_tokens)
{
    bool single = n_tokens == 1 && n_experts <= self->config.n_used;
    if (single) {
        find_errors(self, layer, experts, n_experts);
        if (self->pairs != NULL) {
            learn_pairs(self, layer);
        }
        learn_next(self, layer);
        watch_snapshot(self, layer);
    } else {
        self->snapshot_age[layer] = -1;
    }
    count_shares(self, layer, experts, tokens_of, n_experts, n_tokens == 0 ? 1 : n_tokens);
    self->n_last[layer] = single ? n_experts : 0;
    if (single) {
        memcpy(&self->last[(size_t)layer * self->config.n_used], experts, n_experts * sizeof *experts);
    }
    look_ahead(self, layer);
}

float sl_chance_of_next(const sl_chance *self, uint32_t layer, uint32_t expert)
{
    return self->next[(size_t)layer * self->config.n_experts + expert];
}

float sl_chance_of_later(const sl_chance *self, uint32_t layer, uint32_t expert)
{
    return self->later[(size_t)layer * self->config.n_experts + expert];
}

float sl_chance_worth(const sl_chance *self, uint32_t layer, uint32_t expert)
{
    float next = sl_chance_of_next(self, layer, expert);
    float later = sl_chance_of_later(self, layer, expert);
    float until_used = later / (later + 1.0f - next);
    return next > until_used ? next : until_used;
}

/* ---- Open and close ---- */

typedef struct chance_sizes {
    uint64_t per_layer, last, counts, numbers, errors, features, first_use, pairs, followed; /* bytes */
} chance_sizes;

static chance_sizes sizes_of(const sl_chance_config *config)
{
    uint64_t n_total = (uint64_t)config->n_layers * config->n_experts;
    return (chance_sizes){.per_layer = config->n_layers * sizeof(uint32_t),
                          .last = (uint64_t)config->n_layers * config->n_used * sizeof(uint32_t),
                          .counts = n_total * sizeof(uint32_t),
                          .numbers = n_total * sizeof(float),
                          .errors = config->n_experts * sizeof(float),
                          .features = n_total * N_FEATURES * sizeof(float),
                          .first_use = n_total * sizeof(int8_t),
                          .pairs = n_total * config->n_experts * sizeof(float),
                          .followed = n_total * sizeof(uint16_t)};
}

uint64_t sl_chance_cost(const sl_chance_config *config)
{
    chance_sizes sizes = sizes_of(config);
    uint64_t pairs = config->with_pairs ? sl_memory_cost(sizes.pairs, 16) + sl_memory_cost(sizes.followed, 16) : 0;
    return sl_memory_cost(sizeof(sl_chance), 16) + 3 * sl_memory_cost(sizes.per_layer, 16) +
           sl_memory_cost(sizes.last, 16) + sl_memory_cost(sizes.counts, 16) + 4 * sl_memory_cost(sizes.numbers, 16) +
           sl_memory_cost(sizes.errors, 16) + 2 * sl_memory_cost(sizes.features, 16) +
           sl_memory_cost(sizes.first_use, 16) + pairs;
}

static void *take(sl_chance *self, uint64_t bytes, bool *complete)
{
    void *block = sl_alloc(self->config.memory, SL_MEMORY_OTHER, 1, bytes);
    *complete = *complete && block != NULL;
    return block;
}

static bool allocate(sl_chance *self)
{
    chance_sizes sizes = sizes_of(&self->config);
    bool complete = true;
    self->n_turns = take(self, sizes.per_layer, &complete);
    self->n_last = take(self, sizes.per_layer, &complete);
    self->last = take(self, sizes.last, &complete);
    self->asked_at = take(self, sizes.counts, &complete);
    self->lately = take(self, sizes.numbers, &complete);
    self->so_far = take(self, sizes.numbers, &complete);
    self->next = take(self, sizes.numbers, &complete);
    self->later = take(self, sizes.numbers, &complete);
    self->errors = take(self, sizes.errors, &complete);
    self->features = take(self, sizes.features, &complete);
    self->snapshot_age = take(self, sizes.per_layer, &complete);
    self->snapshot = take(self, sizes.features, &complete);
    self->first_use = take(self, sizes.first_use, &complete);
    if (self->config.with_pairs) {
        self->pairs = take(self, sizes.pairs, &complete);
        self->n_followed = take(self, sizes.followed, &complete);
    }
    return complete;
}

static void start_model(const sl_chance *self, model *of, const float *first_weights)
{
    memcpy(of->weights, first_weights, sizeof of->weights);
    of->weights[CONSTANT] = self->average_odds;
    for (int i = 0; i < N_FEATURES; i++) {
        of->squares[i] = 1.0f;
    }
}

sluice_status sl_chance_open(sl_chance **out, const sl_chance_config *config, sluice_error *error)
{
    *out = NULL;
    sl_chance *self = sl_alloc(config->memory, SL_MEMORY_OTHER, 1, sizeof *self);
    if (self == NULL) {
        return sl_error_no_memory(error, sizeof *self, "the chances of experts");
    }
    self->config = *config;
    if (!allocate(self)) {
        sl_chance_close(&self);
        return sl_error_no_memory(error, sl_chance_cost(config), "the chances of experts");
    }
    /* Half an expert more and half a non-expert: the odds stay finite for every shape. */
    self->average = ((float)config->n_used + 0.5f) / ((float)config->n_experts + 1.0f);
    self->average_odds = log_odds(self->average);
    start_model(self, &self->next_model, first_next);
    start_model(self, &self->later_model, first_later);
    size_t n_total = (size_t)config->n_layers * config->n_experts;
    for (size_t place = 0; place < n_total; place++) {
        self->lately[place] = self->average;
        self->so_far[place] = self->average;
    }
    for (uint32_t layer = 0; layer < config->n_layers; layer++) {
        self->snapshot_age[layer] = -1;
        look_ahead(self, layer);
    }
    *out = self;
    return SLUICE_OK;
}

void sl_chance_close(sl_chance **chance)
{
    sl_chance *closing = *chance;
    if (closing == NULL) {
        return;
    }
    void *owned[] = {closing->n_turns,   closing->n_last, closing->last,         closing->asked_at,
                     closing->lately,    closing->so_far, closing->features,     closing->next,
                     closing->later,     closing->errors, closing->snapshot_age, closing->snapshot,
                     closing->first_use, closing->pairs,  closing->n_followed};
    sl_memory *memory = closing->config.memory;
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        sl_free(memory, owned[i]);
    }
    sl_free(memory, closing);
    *chance = NULL;
}
