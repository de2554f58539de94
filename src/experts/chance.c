/* Owns what is known of every expert, and the weights by which that becomes a chance.
 *
 * The chance is a logistic model, p = 1 / (1 + exp(-sum of weight * feature)), of an expert's features:
 *
 *   CONSTANT   1
 *   LATELY     the share of the layer's last 50 or so turns that asked for it, as log odds over those of an average one
 *   SO_FAR     the same over the last 500
 *   JUST       1 when the last turn asked for it
 *   BEFORE     1 when the last but one did, and not the last
 *   FOLLOWS    with pairs: how much more often it was asked for after each of the experts of the last turn than
 *              otherwise, as the sum of the logarithms of these ratios
 *
 * After every turn of a single token the weights move against the error of what was predicted for it, each at its own
 * pace (AdaGrad: J. Duchi, E. Hazan, Y. Singer, 2011). So a model without locality loses its weight on JUST, one without
 * favourites that on SO_FAR, within some tens of tokens.
 *
 * Invariants
 *  (1) `features` and `chance` of a layer are those of its next turn, given all turns so far.
 *  (2) A turn of several tokens counts as that many for the shares; nothing is learned from it, and it has no last turn
 *      that a next one could follow.
 *  (3) All numbers are finite: shares lie between 0 and 1, features and weights are bounded.
 *  (4) Nothing is allocated after open.
 * Threads: one at a time. */
#include "experts/chance.h"

#include <math.h>
#include <string.h>

enum { CONSTANT, LATELY, SO_FAR, JUST, BEFORE, FOLLOWS, N_FEATURES };

static const float first_weights[N_FEATURES] = {
    [LATELY] = 0.3f, [SO_FAR] = 0.5f, [JUST] = 0.2f, [BEFORE] = 0.1f, [FOLLOWS] = 0.15f};

static const float pace = 0.05f;         /* of learning */
static const float lately_gain = 0.02f;  /* of a turn in the share of the last turns */
static const float so_far_gain = 0.002f; /* likewise */
static const float pair_prior = 8.0f; /* turns that every pair is taken to have been seen as often as chance has it */
static const float largest_share = 0.98f;
static const uint16_t largest_count = 60000;

struct sl_chance {
    sl_chance_config config;
    float average; /* share of an average expert */
    float weights[N_FEATURES];
    float squares[N_FEATURES]; /* of the gradients so far */
    uint32_t *n_turns;         /* owned; [n_layers]: in tokens, saturating */
    uint32_t *n_last;          /* owned; [n_layers]: experts of the last turn; 0: not of a single token */
    uint32_t *last;            /* owned; [n_layers][n_used] */
    uint32_t *asked_at;        /* owned; [n_layers][n_experts]: n_turns of the last turn that asked for it; 0: none */
    float *lately, *so_far;    /* owned; [n_layers][n_experts] */
    float *features;           /* owned; [n_layers][n_experts][N_FEATURES] */
    float *chance;             /* owned; [n_layers][n_experts] */
    uint16_t *pairs;           /* owned; [n_layers][n_experts][n_experts]: turns that had the second after the first */
    uint16_t *n_followed;      /* owned; [n_layers][n_experts]: turns after ones that had the expert */
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
    return log_odds(mixed < largest_share ? mixed : largest_share) - log_odds(self->average);
}

static float follows_feature(const sl_chance *self, uint32_t layer, uint32_t expert)
{
    size_t first = (size_t)layer * self->config.n_experts;
    float expected = (self->so_far[first + expert] + 0.01f * self->average) / 1.01f;
    float sum = 0.0f;
    for (uint32_t i = 0; i < self->n_last[layer]; i++) {
        size_t before = first + self->last[(size_t)layer * self->config.n_used + i];
        float seen = (float)self->pairs[before * self->config.n_experts + expert] + pair_prior * expected;
        sum += logf(seen / (((float)self->n_followed[before] + pair_prior) * expected));
    }
    return sum;
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
        features[FOLLOWS] = self->pairs != NULL ? follows_feature(self, layer, expert) : 0.0f;
        float sum = 0.0f;
        for (int i = 0; i < N_FEATURES; i++) {
            sum += self->weights[i] * features[i];
        }
        sum = sum < -15.0f ? -15.0f : sum > 15.0f ? 15.0f : sum;
        self->chance[place] = 1.0f / (1.0f + expf(-sum));
    }
}

/* ---- Learning ---- */

static bool is_among(const uint32_t *experts, uint32_t n_experts, uint32_t expert)
{
    for (uint32_t i = 0; i < n_experts; i++) {
        if (experts[i] == expert) {
            return true;
        }
    }
    return false;
}

/* Move the weights by how the chances missed what came. */
static void correct_weights(sl_chance *self, uint32_t layer, const uint32_t *experts, uint32_t n_experts)
{
    size_t first = (size_t)layer * self->config.n_experts;
    float gradient[N_FEATURES] = {0};
    for (uint32_t expert = 0; expert < self->config.n_experts; expert++) {
        float error = (is_among(experts, n_experts, expert) ? 1.0f : 0.0f) - self->chance[first + expert];
        for (int i = 0; i < N_FEATURES; i++) {
            gradient[i] += error * self->features[(first + expert) * N_FEATURES + (size_t)i];
        }
    }
    for (int i = 0; i < N_FEATURES; i++) {
        self->squares[i] += gradient[i] * gradient[i];
        self->weights[i] += pace * gradient[i] / sqrtf(self->squares[i]);
    }
}

static void halve_pairs(sl_chance *self, size_t before)
{
    for (uint32_t expert = 0; expert < self->config.n_experts; expert++) {
        self->pairs[before * self->config.n_experts + expert] /= 2;
    }
    self->n_followed[before] /= 2;
}

static void count_pairs(sl_chance *self, uint32_t layer, const uint32_t *experts, uint32_t n_experts)
{
    size_t first = (size_t)layer * self->config.n_experts;
    for (uint32_t i = 0; i < self->n_last[layer]; i++) {
        size_t before = first + self->last[(size_t)layer * self->config.n_used + i];
        if (self->n_followed[before] >= largest_count) {
            halve_pairs(self, before);
        }
        self->n_followed[before]++;
        for (uint32_t j = 0; j < n_experts; j++) {
            self->pairs[before * self->config.n_experts + experts[j]]++;
        }
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
        correct_weights(self, layer, experts, n_experts);
        if (self->pairs != NULL) {
            count_pairs(self, layer, experts, n_experts);
        }
    }
    count_shares(self, layer, experts, tokens_of, n_experts, n_tokens == 0 ? 1 : n_tokens);
    self->n_last[layer] = single ? n_experts : 0;
    if (single) {
        memcpy(&self->last[(size_t)layer * self->config.n_used], experts, n_experts * sizeof *experts);
    }
    look_ahead(self, layer);
}

float sl_chance_of(const sl_chance *self, uint32_t layer, uint32_t expert)
{
    return self->chance[(size_t)layer * self->config.n_experts + expert];
}

/* ---- Open and close ---- */

typedef struct chance_sizes {
    uint64_t per_layer, last, counts, numbers, features, pairs, followed; /* bytes */
} chance_sizes;

static chance_sizes sizes_of(const sl_chance_config *config)
{
    uint64_t n_total = (uint64_t)config->n_layers * config->n_experts;
    return (chance_sizes){.per_layer = config->n_layers * sizeof(uint32_t),
                          .last = (uint64_t)config->n_layers * config->n_used * sizeof(uint32_t),
                          .counts = n_total * sizeof(uint32_t),
                          .numbers = n_total * sizeof(float),
                          .features = n_total * N_FEATURES * sizeof(float),
                          .pairs = n_total * config->n_experts * sizeof(uint16_t),
                          .followed = n_total * sizeof(uint16_t)};
}

uint64_t sl_chance_cost(const sl_chance_config *config)
{
    chance_sizes sizes = sizes_of(config);
    uint64_t pairs = config->with_pairs ? sl_memory_cost(sizes.pairs, 16) + sl_memory_cost(sizes.followed, 16) : 0;
    return sl_memory_cost(sizeof(sl_chance), 16) + 2 * sl_memory_cost(sizes.per_layer, 16) +
           sl_memory_cost(sizes.last, 16) + sl_memory_cost(sizes.counts, 16) + 3 * sl_memory_cost(sizes.numbers, 16) +
           sl_memory_cost(sizes.features, 16) + pairs;
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
    self->chance = take(self, sizes.numbers, &complete);
    self->features = take(self, sizes.features, &complete);
    if (self->config.with_pairs) {
        self->pairs = take(self, sizes.pairs, &complete);
        self->n_followed = take(self, sizes.followed, &complete);
    }
    return complete;
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
    memcpy(self->weights, first_weights, sizeof self->weights);
    self->weights[CONSTANT] = log_odds(self->average);
    for (int i = 0; i < N_FEATURES; i++) {
        self->squares[i] = 1.0f;
    }
    size_t n_total = (size_t)config->n_layers * config->n_experts;
    for (size_t place = 0; place < n_total; place++) {
        self->lately[place] = self->average;
        self->so_far[place] = self->average;
    }
    for (uint32_t layer = 0; layer < config->n_layers; layer++) {
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
    void *owned[] = {closing->n_turns, closing->n_last,   closing->last,   closing->asked_at, closing->lately,
                     closing->so_far,  closing->features, closing->chance, closing->pairs,    closing->n_followed};
    sl_memory *memory = closing->config.memory;
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        sl_free(memory, owned[i]);
    }
    sl_free(memory, closing);
    *chance = NULL;
}
