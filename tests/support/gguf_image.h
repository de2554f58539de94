/* Builds the bytes of a GGUF file by hand, field by field, so that tests of the reader depend on nothing but the
 * format. Every function here fails the running test when the C library refuses. Include after cmocka.h. */
#ifndef SL_TESTS_GGUF_IMAGE_H
#define SL_TESTS_GGUF_IMAGE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gguf/reader.h"

typedef struct gguf_image {
    unsigned char *bytes; /* owned */
    size_t length;
    size_t capacity;
} gguf_image;

static inline void image_put(gguf_image *image, const void *bytes, size_t length)
{
    if (image->length + length > image->capacity) {
        image->capacity = (image->length + length) * 2;
        image->bytes = realloc(image->bytes, image->capacity);
        assert_non_null(image->bytes);
    }
    if (length > 0) {
        memcpy(image->bytes + image->length, bytes, length);
    }
    image->length += length;
}

static inline void image_put_u8(gguf_image *image, uint8_t number)
{
    image_put(image, &number, sizeof number);
}

static inline void image_put_u16(gguf_image *image, uint16_t number)
{
    image_put(image, &number, sizeof number);
}

static inline void image_put_u32(gguf_image *image, uint32_t number)
{
    image_put(image, &number, sizeof number);
}

static inline void image_put_u64(gguf_image *image, uint64_t number)
{
    image_put(image, &number, sizeof number);
}

static inline void image_put_string(gguf_image *image, const char *text)
{
    image_put_u64(image, strlen(text));
    image_put(image, text, strlen(text));
}

static inline void image_put_header(gguf_image *image, uint32_t version, uint64_t n_tensors, uint64_t n_values)
{
    image_put(image, "GGUF", 4);
    image_put_u32(image, version);
    image_put_u64(image, n_tensors);
    image_put_u64(image, n_values);
}

static inline void image_put_key(gguf_image *image, const char *key, uint32_t type)
{
    image_put_string(image, key);
    image_put_u32(image, type);
}

static inline void image_put_key_u32(gguf_image *image, const char *key, uint32_t number)
{
    image_put_key(image, key, SL_GGUF_U32);
    image_put_u32(image, number);
}

static inline void image_put_key_string(gguf_image *image, const char *key, const char *text)
{
    image_put_key(image, key, SL_GGUF_STRING);
    image_put_string(image, text);
}

static inline void image_put_key_array(gguf_image *image, const char *key, uint32_t element_type, uint64_t count)
{
    image_put_key(image, key, SL_GGUF_ARRAY);
    image_put_u32(image, element_type);
    image_put_u64(image, count);
}

static inline void image_put_tensor(gguf_image *image, const char *name, uint32_t n_dims, const uint64_t *dims,
                                    uint32_t type, uint64_t offset)
{
    image_put_string(image, name);
    image_put_u32(image, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) {
        image_put_u64(image, dims[i]);
    }
    image_put_u32(image, type);
    image_put_u64(image, offset);
}

/* Zero bytes up to the next multiple. */
static inline void image_pad(gguf_image *image, size_t alignment)
{
    while (image->length % alignment != 0) {
        image_put_u8(image, 0);
    }
}

/* `length` bytes that differ from each other. */
static inline void image_put_data(gguf_image *image, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        image_put_u8(image, (uint8_t)(i * 7 + 1));
    }
}

static inline void image_free(gguf_image *image)
{
    free(image->bytes);
    *image = (gguf_image){0};
}

static inline void image_store_bytes(const char *path, const void *bytes, size_t length)
{
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_true(length == 0 || fwrite(bytes, 1, length, stream) == length);
    assert_int_equal(fclose(stream), 0);
}

/* Write the file and free the image. */
static inline void image_store(gguf_image *image, const char *path)
{
    image_store_bytes(path, image->bytes, image->length);
    image_free(image);
}

#endif
