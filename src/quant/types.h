/* Tensor element types: the numbers of the GGUF format, and the int8 forms that activations take inside the engine. */
#ifndef SL_QUANT_TYPES_H
#define SL_QUANT_TYPES_H

typedef enum sl_type {
    SL_TYPE_F32 = 0,
    SL_TYPE_F16 = 1,
    SL_TYPE_Q4_0 = 2,
    SL_TYPE_Q4_1 = 3,
    SL_TYPE_Q5_0 = 6,
    SL_TYPE_Q5_1 = 7,
    SL_TYPE_Q8_0 = 8,
    SL_TYPE_Q8_1 = 9, /* size known; no decoder */
    SL_TYPE_Q2_K = 10,
    SL_TYPE_Q3_K = 11,
    SL_TYPE_Q4_K = 12,
    SL_TYPE_Q5_K = 13,
    SL_TYPE_Q6_K = 14,
    SL_TYPE_Q8_K = 15, /* size known; no decoder */
    SL_TYPE_IQ2_XXS = 16,
    SL_TYPE_IQ2_XS = 17,
    SL_TYPE_IQ3_XXS = 18,
    SL_TYPE_IQ1_S = 19,
    SL_TYPE_IQ4_NL = 20,
    SL_TYPE_IQ3_S = 21,
    SL_TYPE_IQ2_S = 22,
    SL_TYPE_IQ4_XS = 23,
    SL_TYPE_I8 = 24,
    SL_TYPE_I16 = 25,
    SL_TYPE_I32 = 26,
    SL_TYPE_I64 = 27,
    SL_TYPE_F64 = 28,
    SL_TYPE_IQ1_M = 29,
    SL_TYPE_BF16 = 30,
    SL_TYPE_MXFP4 = 39,
    SL_TYPE_FILE_COUNT = 40, /* numbers a file may hold are below this */

    /* Activations only, never in a file: one int8 block of 32 or 256 with its float scale and integer sums. */
    SL_TYPE_ACT_Q8_32 = 40,
    SL_TYPE_ACT_Q8_256 = 41,
    SL_TYPE_COUNT = 42
} sl_type;

#endif
