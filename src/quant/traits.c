/* The table of element types.
 *
 * Owns: name, sizes, activation partner and row functions of every type.
 * Invariants:
 *   1. Indexed by type number; a number that is not in use has block_elements 0 and is reported as NULL.
 *   2. Sizes come from the block structs where there is one.
 *   3. A type with a decoder has a kernel partner: activation_type names it.
 * Threads: constant data; any thread. */
#include "quant/traits.h"

#include <strings.h>

#include "base/checked.h"
#include "quant/blocks.h"
#include "quant/rows.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF blocks are read in place, as little-endian");
_Static_assert(SL_TYPE_FILE_COUNT == SL_TYPE_ACT_Q8_32, "file types end where activation types begin");

/* A block of which only the size is needed. */
#define OPAQUE(type_name, elements, bytes, activation)                                                                 \
    {                                                                                                                  \
        .name = (type_name), .block_elements = (elements), .block_bytes = (bytes), .activation_type = (activation)     \
    }

static const sl_type_traits types[SL_TYPE_COUNT] = {
    [SL_TYPE_F32] = {"F32", 1, sizeof(float), SL_TYPE_F32, sl_decode_row_f32, sl_encode_row_f32},
    [SL_TYPE_F16] = {"F16", 1, sizeof(uint16_t), SL_TYPE_F32, sl_decode_row_f16, sl_encode_row_f16},
    [SL_TYPE_BF16] = {"BF16", 1, sizeof(uint16_t), SL_TYPE_F32, sl_decode_row_bf16, sl_encode_row_bf16},

    [SL_TYPE_Q4_0] = {"Q4_0", SL_QK, sizeof(sl_block_q4_0), SL_TYPE_ACT_Q8_32, sl_decode_row_q4_0, sl_encode_row_q4_0},
    [SL_TYPE_Q4_1] = {"Q4_1", SL_QK, sizeof(sl_block_q4_1), SL_TYPE_ACT_Q8_32, sl_decode_row_q4_1, sl_encode_row_q4_1},
    [SL_TYPE_Q5_0] = {"Q5_0", SL_QK, sizeof(sl_block_q5_0), SL_TYPE_ACT_Q8_32, sl_decode_row_q5_0, sl_encode_row_q5_0},
    [SL_TYPE_Q5_1] = {"Q5_1", SL_QK, sizeof(sl_block_q5_1), SL_TYPE_ACT_Q8_32, sl_decode_row_q5_1, sl_encode_row_q5_1},
    [SL_TYPE_Q8_0] = {"Q8_0", SL_QK, sizeof(sl_block_q8_0), SL_TYPE_ACT_Q8_32, sl_decode_row_q8_0, sl_encode_row_q8_0},
    [SL_TYPE_IQ4_NL] = {"IQ4_NL", SL_QK, sizeof(sl_block_iq4_nl), SL_TYPE_ACT_Q8_32, sl_decode_row_iq4_nl,
                        sl_encode_row_iq4_nl},
    [SL_TYPE_MXFP4] = {"MXFP4", SL_QK, sizeof(sl_block_mxfp4), SL_TYPE_ACT_Q8_32, sl_decode_row_mxfp4,
                       sl_encode_row_mxfp4},

    [SL_TYPE_Q2_K] = {"Q2_K", SL_QK_K, sizeof(sl_block_q2_k), SL_TYPE_ACT_Q8_256, sl_decode_row_q2_k, NULL},
    [SL_TYPE_Q3_K] = {"Q3_K", SL_QK_K, sizeof(sl_block_q3_k), SL_TYPE_ACT_Q8_256, sl_decode_row_q3_k, NULL},
    [SL_TYPE_Q4_K] = {"Q4_K", SL_QK_K, sizeof(sl_block_q4_k), SL_TYPE_ACT_Q8_256, sl_decode_row_q4_k,
                      sl_encode_row_q4_k},
    [SL_TYPE_Q5_K] = {"Q5_K", SL_QK_K, sizeof(sl_block_q5_k), SL_TYPE_ACT_Q8_256, sl_decode_row_q5_k,
                      sl_encode_row_q5_k},
    [SL_TYPE_Q6_K] = {"Q6_K", SL_QK_K, sizeof(sl_block_q6_k), SL_TYPE_ACT_Q8_256, sl_decode_row_q6_k,
                      sl_encode_row_q6_k},
    [SL_TYPE_IQ4_XS] = {"IQ4_XS", SL_QK_K, sizeof(sl_block_iq4_xs), SL_TYPE_ACT_Q8_256, sl_decode_row_iq4_xs, NULL},
    [SL_TYPE_IQ2_XXS] = {"IQ2_XXS", SL_QK_K, sizeof(sl_block_iq2_xxs), SL_TYPE_ACT_Q8_256, sl_decode_row_iq2_xxs, NULL},
    [SL_TYPE_IQ2_XS] = {"IQ2_XS", SL_QK_K, sizeof(sl_block_iq2_xs), SL_TYPE_ACT_Q8_256, sl_decode_row_iq2_xs, NULL},
    [SL_TYPE_IQ2_S] = {"IQ2_S", SL_QK_K, sizeof(sl_block_iq2_s), SL_TYPE_ACT_Q8_256, sl_decode_row_iq2_s, NULL},
    [SL_TYPE_IQ3_XXS] = {"IQ3_XXS", SL_QK_K, sizeof(sl_block_iq3_xxs), SL_TYPE_ACT_Q8_256, sl_decode_row_iq3_xxs, NULL},
    [SL_TYPE_IQ3_S] = {"IQ3_S", SL_QK_K, sizeof(sl_block_iq3_s), SL_TYPE_ACT_Q8_256, sl_decode_row_iq3_s, NULL},
    [SL_TYPE_IQ1_S] = {"IQ1_S", SL_QK_K, sizeof(sl_block_iq1_s), SL_TYPE_ACT_Q8_256, sl_decode_row_iq1_s, NULL},
    [SL_TYPE_IQ1_M] = {"IQ1_M", SL_QK_K, sizeof(sl_block_iq1_m), SL_TYPE_ACT_Q8_256, sl_decode_row_iq1_m, NULL},

    [SL_TYPE_Q8_1] = OPAQUE("Q8_1", SL_QK, 36, SL_TYPE_ACT_Q8_32),
    [SL_TYPE_Q8_K] = OPAQUE("Q8_K", SL_QK_K, 292, SL_TYPE_ACT_Q8_256),
    [SL_TYPE_I8] = OPAQUE("I8", 1, 1, SL_TYPE_F32),
    [SL_TYPE_I16] = OPAQUE("I16", 1, 2, SL_TYPE_F32),
    [SL_TYPE_I32] = OPAQUE("I32", 1, 4, SL_TYPE_F32),
    [SL_TYPE_I64] = OPAQUE("I64", 1, 8, SL_TYPE_F32),
    [SL_TYPE_F64] = OPAQUE("F64", 1, 8, SL_TYPE_F32),

    [SL_TYPE_ACT_Q8_32] = OPAQUE("ACT_Q8_32", SL_QK, sizeof(sl_block_act_q8_32), SL_TYPE_ACT_Q8_32),
    [SL_TYPE_ACT_Q8_256] = OPAQUE("ACT_Q8_256", SL_QK_K, sizeof(sl_block_act_q8_256), SL_TYPE_ACT_Q8_256),
};

const sl_type_traits *sl_type_traits_of(int type)
{
    if (type < 0 || type >= SL_TYPE_COUNT || types[type].block_elements == 0) {
        return NULL;
    }
    return &types[type];
}

bool sl_type_parse(const char *name, sl_type *type)
{
    for (int number = 0; number < SL_TYPE_FILE_COUNT; number++) {
        if (types[number].name != NULL && strcasecmp(types[number].name, name) == 0) {
            *type = (sl_type)number;
            return true;
        }
    }
    return false;
}

uint64_t sl_type_row_bytes(sl_type type, uint64_t n_elements)
{
    const sl_type_traits *traits = sl_type_traits_of((int)type);
    uint64_t bytes;
    if (traits == NULL || n_elements % traits->block_elements != 0 ||
        !sl_checked_multiply(n_elements / traits->block_elements, traits->block_bytes, &bytes)) {
        return 0;
    }
    return bytes;
}
