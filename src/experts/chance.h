/* The chances that an expert is asked for at its layer's next turn and at later ones, learned from the requests of this
 * run alone. Knows layers and experts, not slots. */
#ifndef SL_EXPERTS_CHANCE_H
#define SL_EXPERTS_CHANCE_H

#include <stdbool.h>

#include "base/error.h"
#include "base/memory.h"

typedef struct sl_chance_config {
    uint32_t n_layers;
    uint32_t n_experts; /* per layer */
    uint32_t n_used;    /* by one token in one layer; 1 to n_experts */
    bool with_pairs;    /* also learn who follows whom: n_layers * n_experts^2 * 4 bytes more */
    sl_memory *memory;  /* borrowed for its life */
} sl_chance_config;

/* thread: one at a time. */
typedef struct sl_chance sl_chance;

SLUICE_NODISCARD sluice_status sl_chance_open(sl_chance **out, const sl_chance_config *config, sluice_error *error);
void sl_chance_close(sl_chance **chance);
/* What open takes from the account, tag other. */
uint64_t sl_chance_cost(const sl_chance_config *config);

/* It was the layer's turn: `experts` [n_experts], distinct and within the layer, were asked for by `n_tokens` tokens
 * together, `tokens_of` [n_experts] of them each (NULL: one each). */
void sl_chance_turn(sl_chance *chance, uint32_t layer, const uint32_t *experts, const uint32_t *tokens_of,
                    uint32_t n_experts, uint32_t n_tokens);

/* At the layer's next turn. Strictly between 0 and 1. */
float sl_chance_of_next(const sl_chance *chance, uint32_t layer, uint32_t expert);
/* At any one turn after the next, given that it is not asked for at the next. Strictly between 0 and 1. */
float sl_chance_of_later(const sl_chance *chance, uint32_t layer, uint32_t expert);

/* What keeping an expert brings, in hits for each turn that it is kept. Keeping it for the next turn alone brings `next`;
 * keeping it until it is asked for brings one hit after 1 + (1 - next) / later turns. Whichever is more: who often sits
 * out one turn is not given away for that. From above 0 to 1. */
float sl_chance_worth(const sl_chance *chance, uint32_t layer, uint32_t expert);

#endif
