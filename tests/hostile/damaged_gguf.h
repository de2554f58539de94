/* Opens files that may be damaged and checks what must hold whether they are refused or not; and damages images at
 * random. Include after cmocka.h. */
#ifndef SL_TESTS_DAMAGED_GGUF_H
#define SL_TESTS_DAMAGED_GGUF_H

#include <dirent.h>

#include "../support/gguf_image.h"
#include "walk_gguf.h"

/* The largest image here is a few KiB; a slice, a chunk and the tables come on top. */
enum { MAX_MEMORY_BYTES = 512 * 1024 };

static inline int count_descriptors(void)
{
    int n_entries = 0;
    DIR *stream = opendir("/proc/self/fd");
    assert_non_null(stream);
    while (readdir(stream) != NULL) {
        n_entries++;
    }
    closedir(stream);
    return n_entries;
}

/* Open `path`, which may be good only if `may_be_good`, and check everything that must hold either way. */
static inline sluice_status check_open(const char *path, bool may_be_good, const char *what)
{
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_gguf *reader = NULL;
    sluice_error error = {0};
    sluice_status status = sl_gguf_open(&reader, path, &memory, NULL, &error);
    if (status == SLUICE_OK) {
        if (!may_be_good) {
            fail_msg("%s was accepted", what);
        }
        if (!walk_model(reader)) {
            fail_msg("%s was accepted and breaks a promise", what);
        }
    } else {
        if (status != SLUICE_ERROR_FORMAT && status != SLUICE_ERROR_UNSUPPORTED && status != SLUICE_ERROR_NOT_FOUND) {
            fail_msg("%s: status %s: %s", what, sluice_status_name(status), error.message);
        }
        if (error.status != status || strlen(error.message) < 20 || reader != NULL) {
            fail_msg("%s: no sentence, or a reader: \"%s\"", what, error.message);
        }
        for (const char *letter = error.message; *letter != '\0'; letter++) {
            if (*letter < 0x20 || *letter > 0x7e) {
                fail_msg("%s: the sentence has an unprintable byte: %s", what, error.message);
            }
        }
    }
    sl_gguf_close(&reader);
    if (memory.n_live != 0 || memory.peak_bytes > MAX_MEMORY_BYTES) {
        fail_msg("%s: %d blocks leaked, peak of %d bytes", what, (int)memory.n_live, (int)memory.peak_bytes);
    }
    return status;
}

static inline uint64_t next_random(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

static inline void put_random_number(gguf_image *image, size_t offset, uint64_t *random)
{
    static const uint64_t numbers[] = {
        0,          1,          2,          3,         8,          9,          31,
        32,         255,        256,        65535,     65536,      INT32_MAX,  1u << 31,
        UINT32_MAX, 1ull << 32, 1ull << 62, INT64_MAX, 1ull << 63, UINT64_MAX, UINT64_MAX - 31};
    uint64_t number = numbers[next_random(random) % (sizeof numbers / sizeof numbers[0])];
    size_t bytes = (size_t)1 << (next_random(random) % 4);
    if (offset + bytes <= image->length) {
        memcpy(image->bytes + offset, &number, bytes);
    }
}

static inline void mutate_once(gguf_image *image, uint64_t *random)
{
    size_t offset = next_random(random) % image->length;
    size_t length = next_random(random) % 24;
    length = length < image->length - offset ? length : image->length - offset;
    switch (next_random(random) % 8) {
    case 0:
    case 1: image->bytes[offset] ^= (unsigned char)(1u << (next_random(random) % 8)); break;
    case 2: image->bytes[offset] = (unsigned char)next_random(random); break;
    case 3:
    case 4: put_random_number(image, offset, random); break;
    case 5: /* cut out */
        if (length < image->length) {
            memmove(image->bytes + offset, image->bytes + offset + length, image->length - offset - length);
            image->length -= length;
        }
        break;
    case 6: /* copy over another place */
        memmove(image->bytes + next_random(random) % (image->length - length + 1), image->bytes + offset, length);
        break;
    default: /* cut off, rarely much */
        image->length -= next_random(random) % (1 + (next_random(random) % 16 == 0 ? image->length : 4));
        image->length = image->length == 0 ? 1 : image->length;
    }
}

/* A mutated copy of `source`; the caller frees it. */
static inline gguf_image mutate(const gguf_image *source, uint64_t *random)
{
    gguf_image image = {0};
    image_put(&image, source->bytes, source->length);
    uint64_t n_steps = 1 + next_random(random) % 4;
    for (uint64_t i = 0; i < n_steps; i++) {
        mutate_once(&image, random);
    }
    return image;
}

#endif
