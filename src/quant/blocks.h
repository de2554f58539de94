/* The byte layout of every block format. Blocks are packed: a weight may start at any address, because experts are read
 * in place from wherever the file has them. */
#ifndef SL_QUANT_BLOCKS_H
#define SL_QUANT_BLOCKS_H

#include <stdint.h>

#define SL_PACKED __attribute__((packed))
#define SL_BLOCK_SIZE_IS(type, bytes) _Static_assert(sizeof(type) == (bytes), "size of " #type)

enum { SL_QK = 32, SL_QK_K = 256, SL_K_SCALES_BYTES = 12 };

/* Scales `d`, `dmin`, `m` are F16 bit patterns unless a type says otherwise. */
typedef struct SL_PACKED sl_block_q4_0 {
    uint16_t d;
    uint8_t nibbles[SL_QK / 2]; /* low nibble: element j, high nibble: element j + 16; value = (q - 8) d */
} sl_block_q4_0;
SL_BLOCK_SIZE_IS(sl_block_q4_0, 18);

typedef struct SL_PACKED sl_block_q4_1 {
    uint16_t d;
    uint16_t m;
    uint8_t nibbles[SL_QK / 2]; /* value = q d + m */
} sl_block_q4_1;
SL_BLOCK_SIZE_IS(sl_block_q4_1, 20);

typedef struct SL_PACKED sl_block_q5_0 {
    uint16_t d;
    uint8_t high_bits[4];       /* bit j: fifth bit of element j */
    uint8_t nibbles[SL_QK / 2]; /* value = (q - 16) d */
} sl_block_q5_0;
SL_BLOCK_SIZE_IS(sl_block_q5_0, 22);

typedef struct SL_PACKED sl_block_q5_1 {
    uint16_t d;
    uint16_t m;
    uint8_t high_bits[4];
    uint8_t nibbles[SL_QK / 2]; /* value = q d + m */
} sl_block_q5_1;
SL_BLOCK_SIZE_IS(sl_block_q5_1, 24);

typedef struct SL_PACKED sl_block_q8_0 {
    uint16_t d;
    int8_t q[SL_QK];
} sl_block_q8_0;
SL_BLOCK_SIZE_IS(sl_block_q8_0, 34);

typedef struct SL_PACKED sl_block_q2_k {
    uint8_t scales[SL_QK_K / 16]; /* low nibble: scale, high nibble: minimum, per 16 elements */
    uint8_t q[SL_QK_K / 4];
    uint16_t d;
    uint16_t dmin;
} sl_block_q2_k;
SL_BLOCK_SIZE_IS(sl_block_q2_k, 84);

typedef struct SL_PACKED sl_block_q3_k {
    uint8_t high_mask[SL_QK_K / 8];
    uint8_t q[SL_QK_K / 4];
    uint8_t scales[SL_K_SCALES_BYTES]; /* 16 six-bit scales, offset 32 */
    uint16_t d;
} sl_block_q3_k;
SL_BLOCK_SIZE_IS(sl_block_q3_k, 110);

typedef struct SL_PACKED sl_block_q4_k {
    uint16_t d;
    uint16_t dmin;
    uint8_t scales[SL_K_SCALES_BYTES]; /* 8 six-bit scales and 8 six-bit minima */
    uint8_t q[SL_QK_K / 2];
} sl_block_q4_k;
SL_BLOCK_SIZE_IS(sl_block_q4_k, 144);

typedef struct SL_PACKED sl_block_q5_k {
    uint16_t d;
    uint16_t dmin;
    uint8_t scales[SL_K_SCALES_BYTES];
    uint8_t high_bits[SL_QK_K / 8];
    uint8_t q[SL_QK_K / 2];
} sl_block_q5_k;
SL_BLOCK_SIZE_IS(sl_block_q5_k, 176);

typedef struct SL_PACKED sl_block_q6_k {
    uint8_t low[SL_QK_K / 2];
    uint8_t high[SL_QK_K / 4];
    int8_t scales[SL_QK_K / 16];
    uint16_t d;
} sl_block_q6_k;
SL_BLOCK_SIZE_IS(sl_block_q6_k, 210);

typedef struct SL_PACKED sl_block_iq4_nl {
    uint16_t d;
    uint8_t nibbles[SL_QK / 2]; /* indices into a table of 16 int8 values */
} sl_block_iq4_nl;
SL_BLOCK_SIZE_IS(sl_block_iq4_nl, 18);

typedef struct SL_PACKED sl_block_iq4_xs {
    uint16_t d;
    uint16_t scales_high;
    uint8_t scales_low[SL_QK_K / 64];
    uint8_t nibbles[SL_QK_K / 2];
} sl_block_iq4_xs;
SL_BLOCK_SIZE_IS(sl_block_iq4_xs, 136);

typedef struct SL_PACKED sl_block_mxfp4 {
    uint8_t exponent;           /* E8M0: 2^(exponent - 127) */
    uint8_t nibbles[SL_QK / 2]; /* E2M1 */
} sl_block_mxfp4;
SL_BLOCK_SIZE_IS(sl_block_mxfp4, 17);

/* The grid formats: an index chooses a vector of magnitudes from a grid (grids.h), a bit set in `signs` makes an element
 * negative. Where signs take seven bits for eight elements, the eighth makes their number even. Scales s are odd. */
typedef struct SL_PACKED sl_block_iq2_xxs {
    uint16_t d;
    struct SL_PACKED {
        uint8_t indices[4];
        uint32_t signs_and_scale; /* 4 x 7 bits of signs, 4 bits of scale; value = d / 8 s m */
    } groups[SL_QK_K / 32];
} sl_block_iq2_xxs;
SL_BLOCK_SIZE_IS(sl_block_iq2_xxs, 66);

typedef struct SL_PACKED sl_block_iq2_xs {
    uint16_t d;
    uint16_t entries[SL_QK_K / 8]; /* 9 bits of index, 7 of signs */
    uint8_t scales[SL_QK_K / 32];  /* a nibble per 16 elements; value = d / 8 s m */
} sl_block_iq2_xs;
SL_BLOCK_SIZE_IS(sl_block_iq2_xs, 74);

typedef struct SL_PACKED sl_block_iq2_s {
    uint16_t d;
    uint8_t indices[SL_QK_K / 8];
    uint8_t signs[SL_QK_K / 8];
    uint8_t high_bits[SL_QK_K / 32]; /* two more bits for each of four indices */
    uint8_t scales[SL_QK_K / 32];    /* a nibble per 16 elements; value = d / 8 s m */
} sl_block_iq2_s;
SL_BLOCK_SIZE_IS(sl_block_iq2_s, 82);

typedef struct SL_PACKED sl_block_iq3_xxs {
    uint16_t d;
    uint8_t indices[SL_QK_K / 4];
    uint32_t signs_and_scales[SL_QK_K / 32]; /* 4 x 7 bits of signs, 4 bits of scale; value = d / 4 s m */
} sl_block_iq3_xxs;
SL_BLOCK_SIZE_IS(sl_block_iq3_xxs, 98);

typedef struct SL_PACKED sl_block_iq3_s {
    uint16_t d;
    uint8_t indices[SL_QK_K / 4];
    uint8_t high_bits[SL_QK_K / 32]; /* one more bit for each of eight indices */
    uint8_t signs[SL_QK_K / 8];
    uint8_t scales[SL_QK_K / 64]; /* a nibble per 32 elements; value = d s m */
} sl_block_iq3_s;
SL_BLOCK_SIZE_IS(sl_block_iq3_s, 110);

typedef struct SL_PACKED sl_block_iq1_s {
    uint16_t d;
    uint8_t indices[SL_QK_K / 8];
    uint16_t high_bits[SL_QK_K / 32]; /* 4 x 3 more bits of index, 3 bits of scale, 1 for a negative shift;
                                            value = d s (-1, 0 or 1, shifted by an eighth) */
} sl_block_iq1_s;
SL_BLOCK_SIZE_IS(sl_block_iq1_s, 50);

typedef struct SL_PACKED sl_block_iq1_m {
    uint8_t indices[SL_QK_K / 8];
    uint8_t high_bits[SL_QK_K / 16]; /* a nibble per 8 elements: 3 more bits of index, 1 for a negative shift */
    uint16_t scales[SL_QK_K / 64];   /* 4 x 3 bits of scale, one per 16 elements; 4 bits of d, lowest first */
} sl_block_iq1_m;
SL_BLOCK_SIZE_IS(sl_block_iq1_m, 56);

/* The int8 form of 32 activations: x = q d, q in [-127, 127]. */
typedef struct sl_block_act_q8_32 {
    float d;
    int32_t sum; /* of q */
    int8_t q[SL_QK];
} sl_block_act_q8_32;
SL_BLOCK_SIZE_IS(sl_block_act_q8_32, 40);

/* The int8 form of 256 activations. Where rows are aligned to lines of the cache, no load of q crosses one. */
typedef struct sl_block_act_q8_256 {
    float d;
    int16_t sums[SL_QK_K / 16]; /* of q, per 16 elements */
    uint8_t unused[28];
    int8_t q[SL_QK_K];
} sl_block_act_q8_256;
SL_BLOCK_SIZE_IS(sl_block_act_q8_256, 320);

#endif
