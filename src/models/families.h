/* The table of families. Internal to this folder. */
#ifndef SL_MODELS_FAMILIES_H
#define SL_MODELS_FAMILIES_H

#include "models/model.h"

/* One line per architecture, in alphabetical order. */
#define SL_FAMILIES(FAMILY)                                                                                            \
    FAMILY(llama)                                                                                                      \
    FAMILY(olmoe)                                                                                                      \
    FAMILY(qwen2moe)                                                                                                   \
    FAMILY(qwen3moe)

#define SL_DECLARE_FAMILY(name) extern const sl_family sl_family_##name;
SL_FAMILIES(SL_DECLARE_FAMILY)
#undef SL_DECLARE_FAMILY

#endif
