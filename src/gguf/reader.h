/* Reading GGUF files (v2 and v3, little endian), one file or a split set, as one model. Trusts nothing in the file. */
#ifndef SL_GGUF_READER_H
#define SL_GGUF_READER_H

#include <stdbool.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/strings.h"
#include "os/file.h"
#include "quant/types.h"

enum { SL_GGUF_MAX_DIMS = 4, SL_GGUF_MAX_NAME_BYTES = 127 };

/* The value types of the format, with their numbers. */
typedef enum sl_gguf_type {
    SL_GGUF_U8 = 0,
    SL_GGUF_I8 = 1,
    SL_GGUF_U16 = 2,
    SL_GGUF_I16 = 3,
    SL_GGUF_U32 = 4,
    SL_GGUF_I32 = 5,
    SL_GGUF_F32 = 6,
    SL_GGUF_BOOL = 7,
    SL_GGUF_STRING = 8,
    SL_GGUF_ARRAY = 9,
    SL_GGUF_U64 = 10,
    SL_GGUF_I64 = 11,
    SL_GGUF_F64 = 12,
    SL_GGUF_TYPE_COUNT = 13
} sl_gguf_type;

/* One metadata entry. */
typedef struct sl_gguf_value {
    sl_span key;               /* borrowed from the reader */
    sl_gguf_type type;         /* of the value; SL_GGUF_ARRAY for arrays */
    sl_gguf_type element_type; /* of an array's elements (not ARRAY: nested arrays are refused); else equals type */
    uint64_t count;            /* of an array's elements; 1 for a scalar */
    const void *numbers;       /* borrowed: [count] packed little-endian numbers, any alignment; NULL for strings */
    const sl_span *strings;    /* borrowed: [count]; NULL unless the element type is STRING */
} sl_gguf_value;

typedef struct sl_gguf_tensor {
    sl_span name; /* borrowed from the reader */
    sl_type type;
    uint32_t n_dims;                 /* 1 to 4 */
    uint64_t dims[SL_GGUF_MAX_DIMS]; /* dims[0] is contiguous; unused ones are 1 */
    uint32_t file;                   /* index into the reader's files */
    uint64_t offset;                 /* absolute, in that file */
    uint64_t bytes;                  /* checked to lie inside that file */
} sl_gguf_tensor;

typedef struct sl_gguf_file {
    char *path;   /* owned */
    sl_file file; /* owned; open, with a direct descriptor where possible */
} sl_gguf_file;

/* A parsed model. Everything in it is immutable after open, so any thread may read it. */
typedef struct sl_gguf {
    sl_memory *memory;   /* borrowed: outlives the reader */
    uint32_t version;    /* 2 or 3 */
    uint64_t alignment;  /* of tensor data: general.alignment, 32 without it */
    sl_gguf_file *files; /* owned; [n_files]; more than one for a split set, in order */
    uint32_t n_files;
    sl_gguf_value *values; /* owned; [n_values], in file order, of the first file */
    uint64_t n_values;
    sl_gguf_tensor *tensors; /* owned; [n_tensors], in file order, file by file */
    uint64_t n_tensors;
    struct sl_gguf_index *index; /* owned: names to positions, and the backing bytes */
} sl_gguf;

/* Open `path`; when it is a part of a split set (split.count > 1), open the whole set from the files named
 * <prefix>-00001-of-000NN.gguf beside it, whichever part was named. Metadata memory is tagged OTHER. The page cache
 * that reading the header caused is dropped. On failure `*out` is NULL and nothing stays open. Errors: NOT_FOUND, IO,
 * FORMAT (what, at which byte, expected, found), UNSUPPORTED, NO_MEMORY. */
SLUICE_NODISCARD sluice_status sl_gguf_open(sl_gguf **out, const char *path, sl_memory *memory, const sl_log *log,
                                            sluice_error *error);
/* Close and free; `*reader` may be NULL and becomes NULL. */
void sl_gguf_close(sl_gguf **reader);

/* NULL when there is none. */
const sl_gguf_value *sl_gguf_find_value(const sl_gguf *reader, const char *key);
const sl_gguf_tensor *sl_gguf_find_tensor(const sl_gguf *reader, const char *name);

/* Read a scalar with conversion between integer widths and signs when the value fits. NOT_FOUND when the key is
 * missing, FORMAT when the type or the range is wrong; the sentence names key, expected and found. */
SLUICE_NODISCARD sluice_status sl_gguf_get_u32(const sl_gguf *reader, const char *key, uint32_t *out,
                                               sluice_error *error);
SLUICE_NODISCARD sluice_status sl_gguf_get_f32(const sl_gguf *reader, const char *key, float *out, sluice_error *error);
SLUICE_NODISCARD sluice_status sl_gguf_get_bool(const sl_gguf *reader, const char *key, bool *out, sluice_error *error);
SLUICE_NODISCARD sluice_status sl_gguf_get_string(const sl_gguf *reader, const char *key, sl_span *out,
                                                  sluice_error *error);
/* One element of a numeric array, converted. `index` must be below value->count. */
SLUICE_NODISCARD sluice_status sl_gguf_element_u64(const sl_gguf_value *value, uint64_t index, uint64_t *out,
                                                   sluice_error *error);
SLUICE_NODISCARD sluice_status sl_gguf_element_f32(const sl_gguf_value *value, uint64_t index, float *out,
                                                   sluice_error *error);

/* "u32", "string", "array", ... for messages and dumps. */
const char *sl_gguf_type_name(sl_gguf_type type);

#endif
