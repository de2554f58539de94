/* Owns the candidates, the penalty's window and the generator of one sampler.
 *
 * Invariants
 *  (1) Every sum has a stated order and every number comes from IEEE addition, subtraction, multiplication, division or
 *      the exponential below, so a draw is the same on every machine.
 *  (2) Candidates are ordered by falling logit, then rising id: a strict order, so nothing depends on how they are
 *      sorted. A logit that is no number counts as minus infinity.
 *  (3) counts[t] is how often t is in the window.
 * Threads: owner only. */
#include "text/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

typedef struct candidate {
    float logit;
    float weight; /* exp of the logit's distance to the best over the temperature: the best has exactly 1 */
    int32_t id;
} candidate;

struct sl_sampler {
    sl_memory *memory; /* borrowed: outlives the sampler */
    sl_sampler_options options;
    uint32_t n_vocab;
    candidate *candidates; /* owned; [n_vocab] */
    uint32_t *counts;      /* owned; [n_vocab]; NULL without a penalty */
    int32_t *window;       /* owned; [penalty_window], a ring; NULL without a penalty */
    uint32_t n_window;
    uint32_t window_next;
    uint64_t generator[4];
};

/* exp for x <= 0: x = k ln 2 + r with |r| <= ln 2 / 2, then the series of exp(r) to the 13th power. The error is below
 * 2^-50 of the result; what is below 2^-995 becomes 0. */
static double exponential(double x)
{
    static const double log2_of_e = 0x1.71547652b82fep+0;
    static const double ln2_high = 0x1.62e42fee00000p-1; /* few bits: k * ln2_high is exact */
    static const double ln2_low = 0x1.a39ef35793c76p-33;
    if (!(x > -690.0)) {
        return 0.0;
    }
    int k = (int)(x * log2_of_e - 0.5);
    double r = (x - k * ln2_high) - k * ln2_low;
    double sum = 1.0;
    for (int power = 13; power > 0; power--) {
        sum = 1.0 + sum * r / power;
    }
    uint64_t bits = (uint64_t)(1023 + k) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return sum * scale;
}

/* splitmix64: spreads one seed over the generator's state. */
static uint64_t next_seed(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint64_t rotate_left(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

/* xoshiro256**; the upper 53 bits as a number in [0, 1). */
static double next_uniform(uint64_t state[4])
{
    uint64_t result = rotate_left(state[1] * 5, 7) * 9;
    uint64_t shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate_left(state[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

static sluice_status check_options(const sl_sampler_options *options, uint32_t n_vocab, sluice_error *error)
{
    if (!(options->temperature >= 0) || isinf(options->temperature)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "sampler: temperature is %g, expected 0 or more",
                            (double)options->temperature);
    }
    if (!(options->top_p > 0 && options->top_p <= 1)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "sampler: top-p is %g, expected above 0 and at most 1",
                            (double)options->top_p);
    }
    if (!(options->min_p >= 0 && options->min_p <= 1)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "sampler: min-p is %g, expected 0 to 1",
                            (double)options->min_p);
    }
    if (!(options->repetition_penalty > 0) || isinf(options->repetition_penalty)) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "sampler: the repetition penalty is %g, expected above 0",
                            (double)options->repetition_penalty);
    }
    if (n_vocab == 0 || n_vocab > INT32_MAX) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "sampler: %u tokens to draw from, expected 1 to %d", n_vocab,
                            INT32_MAX);
    }
    return SLUICE_OK;
}

sluice_status sl_sampler_open(sl_sampler **out, const sl_sampler_options *options, uint32_t n_vocab, sl_memory *memory,
                              sluice_error *error)
{
    *out = NULL;
    SL_TRY(check_options(options, n_vocab, error));
    sl_sampler *sampler = sl_alloc(memory, SL_MEMORY_TEXT, 1, sizeof *sampler);
    if (sampler == NULL) {
        return sl_error_no_memory(error, sizeof *sampler, "a sampler");
    }
    *sampler = (sl_sampler){.memory = memory, .options = *options, .n_vocab = n_vocab};
    uint64_t seed = options->seed;
    for (size_t i = 0; i < 4; i++) {
        sampler->generator[i] = next_seed(&seed);
    }
    bool has_penalty = options->repetition_penalty != 1.0f && options->penalty_window > 0;
    sampler->candidates = sl_alloc(memory, SL_MEMORY_TEXT, n_vocab, sizeof *sampler->candidates);
    if (has_penalty) {
        sampler->counts = sl_alloc(memory, SL_MEMORY_TEXT, n_vocab, sizeof *sampler->counts);
        sampler->window = sl_alloc(memory, SL_MEMORY_TEXT, options->penalty_window, sizeof *sampler->window);
    }
    if (sampler->candidates == NULL || (has_penalty && (sampler->counts == NULL || sampler->window == NULL))) {
        sl_sampler_close(&sampler);
        return sl_error_no_memory(error, n_vocab * sizeof *sampler->candidates, "a sampler's candidates");
    }
    *out = sampler;
    return SLUICE_OK;
}

void sl_sampler_close(sl_sampler **sampler)
{
    sl_sampler *closing = *sampler;
    *sampler = NULL;
    if (closing == NULL) {
        return;
    }
    sl_free(closing->memory, closing->window);
    sl_free(closing->memory, closing->counts);
    sl_free(closing->memory, closing->candidates);
    sl_free(closing->memory, closing);
}

void sl_sampler_accept(sl_sampler *sampler, int32_t token)
{
    if (sampler->window == NULL || token < 0 || (uint32_t)token >= sampler->n_vocab) {
        return;
    }
    if (sampler->n_window == sampler->options.penalty_window) {
        sampler->counts[sampler->window[sampler->window_next]]--;
    } else {
        sampler->n_window++;
    }
    sampler->window[sampler->window_next] = token;
    sampler->window_next = (sampler->window_next + 1) % sampler->options.penalty_window;
    sampler->counts[token]++;
}

static float penalised(const sl_sampler *sampler, float logit, uint32_t id)
{
    if (isnan(logit)) {
        return -INFINITY;
    }
    if (sampler->counts == NULL || sampler->counts[id] == 0) {
        return logit;
    }
    float penalty = sampler->options.repetition_penalty;
    return logit > 0 ? logit / penalty : logit * penalty;
}

/* The highest of n logits, -infinity if none is a number: in lanes, which compilers turn into vectors. */
static float highest_of(const float *logits, uint32_t n)
{
    enum { LANES = 32 };
    float lanes[LANES];
    for (uint32_t j = 0; j < LANES; j++) {
        lanes[j] = -INFINITY;
    }
    uint32_t i = 0;
    for (; n - i >= LANES; i += LANES) {
        for (uint32_t j = 0; j < LANES; j++) {
            lanes[j] = logits[i + j] > lanes[j] ? logits[i + j] : lanes[j];
        }
    }
    float highest = -INFINITY;
    for (; i < n; i++) {
        highest = logits[i] > highest ? logits[i] : highest;
    }
    for (uint32_t j = 0; j < LANES; j++) {
        highest = lanes[j] > highest ? lanes[j] : highest;
    }
    return highest;
}

static uint32_t find_best_unpenalised(const float *logits, uint32_t n_vocab)
{
    enum { BLOCK = 1024 };
    uint32_t best = 0; /* where the block begins that has the highest so far */
    float best_logit = -INFINITY;
    for (uint32_t first = 0; first < n_vocab; first += BLOCK) {
        float highest = highest_of(logits + first, n_vocab - first < BLOCK ? n_vocab - first : BLOCK);
        if (highest > best_logit) {
            best_logit = highest;
            best = first;
        }
    }
    while (best_logit > -INFINITY && logits[best] != best_logit) {
        best++;
    }
    return best;
}

/* The lowest id of the highest logit. */
static uint32_t find_best(const sl_sampler *sampler, const float *logits)
{
    if (sampler->counts == NULL) {
        return find_best_unpenalised(logits, sampler->n_vocab);
    }
    uint32_t best = 0;
    float best_logit = -INFINITY;
    for (uint32_t id = 0; id < sampler->n_vocab; id++) {
        float logit = penalised(sampler, logits[id], id);
        if (logit > best_logit) {
            best_logit = logit;
            best = id;
        }
    }
    return best;
}

/* In id order. */
static void load_candidates(sl_sampler *sampler, const float *logits)
{
    for (uint32_t id = 0; id < sampler->n_vocab; id++) {
        sampler->candidates[id] = (candidate){.logit = penalised(sampler, logits[id], id), .id = (int32_t)id};
    }
}

static float weight_of(const sl_sampler *sampler, float logit, float best_logit)
{
    if (logit == best_logit) {
        return 1.0f;
    }
    return (float)exponential(((double)logit - (double)best_logit) / (double)sampler->options.temperature);
}

static bool goes_before(const candidate *a, const candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void sift_down(candidate *heap, uint32_t count, uint32_t hole)
{
    candidate moving = heap[hole];
    for (uint64_t child = 2ull * hole + 1; child < count; child = 2ull * hole + 1) {
        if (child + 1 < count && goes_before(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!goes_before(&heap[child], &moving)) {
            break;
        }
        heap[hole] = heap[child];
        hole = (uint32_t)child;
    }
    heap[hole] = moving;
}

/* The candidates that are left, best first, stored from the end of the array backwards: the n-th best is at
 * candidates[n_vocab - 1 - n]. The rest of the array is a heap. */
typedef struct ranking {
    candidate *candidates; /* borrowed */
    uint32_t n_vocab;
    uint32_t n_ranked;
} ranking;

static const candidate *ranked(const ranking *order, uint32_t place)
{
    return &order->candidates[order->n_vocab - 1 - place];
}

static const candidate *rank_next(ranking *order)
{
    uint32_t last = order->n_vocab - 1 - order->n_ranked;
    candidate best = order->candidates[0];
    order->candidates[0] = order->candidates[last];
    order->candidates[last] = best;
    sift_down(order->candidates, last, 0);
    return ranked(order, order->n_ranked++);
}

/* The first candidate at which the running sum passes a uniformly drawn part of the total. `stride` is 1 or -1. */
static int32_t draw_by_weight(sl_sampler *sampler, const candidate *first, uint32_t count, int stride)
{
    double total = 0;
    for (uint32_t i = 0; i < count; i++) {
        total += (double)first[(int64_t)i * stride].weight;
    }
    double target = next_uniform(sampler->generator) * total;
    double sum = 0;
    int32_t drawn = first->id;
    for (uint32_t i = 0; i < count; i++) {
        const candidate *next = &first[(int64_t)i * stride];
        if (next->weight > 0) {
            drawn = next->id;
        }
        sum += (double)next->weight;
        if (sum > target) {
            break;
        }
    }
    return drawn;
}

/* Top-k or top-p is on: rank as many candidates as these leave, then cut by min-p. */
static int32_t draw_ranked(sl_sampler *sampler, double total)
{
    const sl_sampler_options *options = &sampler->options;
    uint32_t n_vocab = sampler->n_vocab;
    ranking order = {.candidates = sampler->candidates, .n_vocab = n_vocab};
    for (uint32_t hole = n_vocab / 2; hole > 0; hole--) {
        sift_down(order.candidates, n_vocab, hole - 1);
    }
    uint32_t limit = options->top_k > 0 && options->top_k < n_vocab ? options->top_k : n_vocab;
    if (limit < n_vocab) {
        total = 0;
        while (order.n_ranked < limit) {
            total += (double)rank_next(&order)->weight;
        }
    }
    double mass = 0;
    uint32_t n_kept = 0;
    while (n_kept < limit && (options->top_p == 1.0f || mass < (double)options->top_p * total)) {
        if (n_kept == order.n_ranked) {
            rank_next(&order);
        }
        mass += (double)ranked(&order, n_kept++)->weight;
    }
    while (n_kept > 1 && ranked(&order, n_kept - 1)->weight < options->min_p) {
        n_kept--;
    }
    return draw_by_weight(sampler, ranked(&order, 0), n_kept, -1);
}

int32_t sl_sampler_draw(sl_sampler *sampler, const float *logits)
{
    const sl_sampler_options *options = &sampler->options;
    uint32_t best = find_best(sampler, logits);
    float best_logit = penalised(sampler, logits[best], best);
    int32_t drawn = (int32_t)best;
    if (options->temperature > 0 && best_logit > -INFINITY) {
        bool is_ranked = options->top_p < 1.0f || (options->top_k > 0 && options->top_k < sampler->n_vocab);
        double total = 0;
        load_candidates(sampler, logits);
        for (uint32_t i = 0; i < sampler->n_vocab; i++) {
            candidate *next = &sampler->candidates[i];
            next->weight = weight_of(sampler, next->logit, best_logit);
            total += (double)next->weight;
            if (!is_ranked && next->weight < options->min_p) {
                next->weight = 0;
            }
        }
        drawn =
            is_ranked ? draw_ranked(sampler, total) : draw_by_weight(sampler, sampler->candidates, sampler->n_vocab, 1);
    }
    sl_sampler_accept(sampler, drawn);
    return drawn;
}
