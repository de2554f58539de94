/* Reads tests/golden/quant/vectors.bin (tools/make_quant_vectors.py says what is in it). Every function fails the
 * running test when the file is missing or malformed. Include after cmocka.h. */
#ifndef SL_TESTS_QUANT_VECTORS_H
#define SL_TESTS_QUANT_VECTORS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct quant_vectors {
    unsigned char *bytes; /* owned */
    size_t length;
    size_t position;
} quant_vectors;

typedef struct quant_record {
    char type[9];
    char kind[9];
    uint32_t n_elements;
    uint32_t n_bytes;
    const unsigned char *blocks; /* borrowed, any alignment */
    float *values;               /* owned, [n_elements]: what the reference decodes */
} quant_record;

static inline quant_vectors quant_vectors_open(void)
{
    quant_vectors vectors = {0};
    FILE *file = fopen("tests/golden/quant/vectors.bin", "rb");
    if (file == NULL) {
        fail_msg("tests/golden/quant/vectors.bin does not open: run the test in the repository's root");
        return vectors;
    }
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    vectors.length = (size_t)ftell(file);
    rewind(file);
    vectors.bytes = malloc(vectors.length);
    assert_non_null(vectors.bytes);
    assert_int_equal(fread(vectors.bytes, 1, vectors.length, file), vectors.length);
    fclose(file);
    assert_true(vectors.length > 4);
    assert_memory_equal(vectors.bytes, "SLQV", 4);
    vectors.position = 4;
    return vectors;
}

static inline const unsigned char *quant_vectors_take(quant_vectors *vectors, size_t length)
{
    assert_true(length <= vectors->length - vectors->position);
    const unsigned char *taken = vectors->bytes + vectors->position;
    vectors->position += length;
    return taken;
}

/* The next record, or 0 at the end. */
static inline int quant_vectors_next(quant_vectors *vectors, quant_record *record)
{
    if (vectors->position == vectors->length) {
        return 0;
    }
    memset(record, 0, sizeof *record);
    memcpy(record->type, quant_vectors_take(vectors, 8), 8);
    memcpy(record->kind, quant_vectors_take(vectors, 8), 8);
    memcpy(&record->n_elements, quant_vectors_take(vectors, 4), 4);
    memcpy(&record->n_bytes, quant_vectors_take(vectors, 4), 4);
    record->blocks = quant_vectors_take(vectors, record->n_bytes);
    record->values = malloc(record->n_elements * sizeof *record->values);
    assert_non_null(record->values);
    memcpy(record->values, quant_vectors_take(vectors, record->n_elements * sizeof *record->values),
           record->n_elements * sizeof *record->values);
    return 1;
}

static inline void quant_vectors_close(quant_vectors *vectors)
{
    free(vectors->bytes);
    vectors->bytes = NULL;
}

#endif
