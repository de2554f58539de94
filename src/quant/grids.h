/* The grids: short vectors of weights that the IQ1, IQ2 and IQ3 formats choose from. An entry is a word whose byte j is
 * element j. */
#ifndef SL_QUANT_GRIDS_H
#define SL_QUANT_GRIDS_H

#include <stdint.h>

enum {
    SL_IQ2_XXS_ENTRIES = 256,
    SL_IQ2_XS_ENTRIES = 512,
    SL_IQ2_S_ENTRIES = 1024,
    SL_IQ3_XXS_ENTRIES = 256,
    SL_IQ3_S_ENTRIES = 512,
    SL_IQ1_ENTRIES = 2048
};

/* Eight magnitudes 8, 25 or 43. */
extern const uint64_t sl_iq2_xxs_grid[SL_IQ2_XXS_ENTRIES];
extern const uint64_t sl_iq2_xs_grid[SL_IQ2_XS_ENTRIES];
extern const uint64_t sl_iq2_s_grid[SL_IQ2_S_ENTRIES];

/* Four magnitudes 4, 12, 20, 28, 36, 44, 52 or 62. */
extern const uint32_t sl_iq3_xxs_grid[SL_IQ3_XXS_ENTRIES];

/* Four magnitudes 1, 3, 5, 7, 9, 11, 13 or 15. */
extern const uint32_t sl_iq3_s_grid[SL_IQ3_S_ENTRIES];

/* IQ1_S and IQ1_M: eight values 0, 8 or 16, which stand for -1, 0 and 1 in eighths, shifted to be unsigned. */
extern const uint64_t sl_iq1_grid[SL_IQ1_ENTRIES];

#endif
