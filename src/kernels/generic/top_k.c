/* Choosing the experts of a token.
 *
 * Owns: the order in which probabilities rank.
 * Invariants:
 *   1. A higher probability ranks first; of equal ones the lower index; NaN ranks below every number, -infinity
 * included, and is not equal to anything but another NaN.
 *   2. For k <= n_experts the ids are distinct and below n_experts, whatever the probabilities are.
 * Threads: pure functions; any thread. */
#include "kernels/table.h"

static bool ranks_above(float a, float b)
{
    return a > b || (a == a && b != b);
}

void sl_kernel_top_k(const float *p, uint32_t n_experts, uint32_t k, uint32_t *ids)
{
    /* ids[0, n_chosen) is the ranking of the experts before `expert`. */
    uint32_t n_chosen = 0;
    for (uint32_t expert = 0; expert < n_experts && k != 0; expert++) {
        if (n_chosen == k && !ranks_above(p[expert], p[ids[k - 1]])) {
            continue;
        }
        uint32_t place = n_chosen < k ? n_chosen++ : k - 1;
        while (place > 0 && ranks_above(p[expert], p[ids[place - 1]])) {
            ids[place] = ids[place - 1];
            place--;
        }
        ids[place] = expert;
    }
}
