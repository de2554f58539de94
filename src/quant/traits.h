/* One row per element type: block size, bytes, reference decoder and encoder, and the form that activations take when
 * they meet it in a matrix product. */
#ifndef SL_QUANT_TRAITS_H
#define SL_QUANT_TRAITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/types.h"

/* Decode `n_elements` (a multiple of block_elements) from `source`, which may have any alignment. */
typedef void sl_decode_row_fn(const void *source, float *destination, size_t n_elements);
/* Encode `n_elements` (a multiple of block_elements) into `destination`, which may have any alignment. Every input is
 * finite. Deterministic. */
typedef void sl_encode_row_fn(const float *source, void *destination, size_t n_elements);

typedef struct sl_type_traits {
    const char *name;        /* "Q4_K"; NULL where the number is not in use */
    uint32_t block_elements; /* elements in one block; 0 where the number is not in use */
    uint32_t block_bytes;
    sl_type activation_type;      /* F32, ACT_Q8_32 or ACT_Q8_256: what x is turned into for W x */
    sl_decode_row_fn *decode_row; /* NULL: the size is known, the contents are not readable yet */
    sl_encode_row_fn *encode_row; /* NULL: cannot be written */
} sl_type_traits;

/* The row of a type, or NULL for a number that names no type. Any int is accepted. */
const sl_type_traits *sl_type_traits_of(int type);

/* "Q4_K", "F16", ... in either case: the types a file may hold, readable or not. false for an unknown name. */
bool sl_type_parse(const char *name, sl_type *type);

/* Bytes of a row of `n_elements`; 0 when the type is not in use, when that is not a whole number of blocks, and when it
 * overflows. */
uint64_t sl_type_row_bytes(sl_type type, uint64_t n_elements);

#endif
