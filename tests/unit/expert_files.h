/* Expert files that tests write: every byte follows from layer, expert, matrix and place, so contents can be checked.
 */
#ifndef TESTS_UNIT_EXPERT_FILES_H
#define TESTS_UNIT_EXPERT_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "experts/store.h"
#include "reads_kinds.h"

enum { EXPERT_PATH_BYTES = 128, EXPERT_MAX_FILES = 2, FILE_HEADER_BYTES = 1237 };

typedef struct expert_shape {
    uint32_t n_layers, n_experts, n_ranges;
    uint64_t matrix_bytes; /* of matrix 0; each further one has 777 bytes more */
    uint32_t n_files;      /* 2: the last matrix of each expert lies in the second file */
    bool one_block;        /* the matrices of an expert lie side by side, else each matrix of all experts does */
    bool uneven;           /* layer l has 501 * l bytes more per matrix; matrix 1 of expert 1 has none at all */
    bool buffered;         /* no direct reads */
    const char *directory; /* NULL: the usual one for temporary files */
    const char *second;    /* directory of the second file; NULL: beside the first */
} expert_shape;

typedef struct expert_files {
    expert_shape shape;
    char directory[EXPERT_PATH_BYTES];
    char paths[EXPERT_MAX_FILES][EXPERT_PATH_BYTES + 32];
    uint64_t file_bytes[EXPERT_MAX_FILES];
    sl_file files[EXPERT_MAX_FILES];
    sl_store_file store_files[EXPERT_MAX_FILES];
    sl_expert_range *ranges; // [n_layers][n_experts][n_ranges]
    sl_memory memory;
} expert_files;

static inline unsigned char expert_byte(uint32_t layer, uint32_t expert, uint32_t matrix, uint64_t place)
{
    uint32_t seed = layer * 73856093u ^ expert * 19349663u ^ matrix * 83492791u;
    return (unsigned char)((seed + (uint32_t)place * 2654435761u) >> 23);
}

static inline sl_expert_range *expert_range(const expert_files *set, uint32_t layer, uint32_t expert, uint32_t matrix)
{
    return &set->ranges[((size_t)layer * set->shape.n_experts + expert) * set->shape.n_ranges + matrix];
}

static inline uint64_t expert_matrix_bytes(const expert_shape *shape, uint32_t layer, uint32_t expert, uint32_t matrix)
{
    if (shape->uneven && expert == 1 && matrix == 1) {
        return 0;
    }
    return shape->matrix_bytes + 777 * (uint64_t)matrix + (shape->uneven ? 501 * (uint64_t)layer : 0);
}

static inline void expert_place(expert_files *set, uint32_t layer, uint32_t expert, uint32_t matrix)
{
    const expert_shape *shape = &set->shape;
    sl_expert_range *range = expert_range(set, layer, expert, matrix);
    range->file = shape->n_files == 2 && matrix + 1 == shape->n_ranges ? 1 : 0;
    range->bytes = expert_matrix_bytes(shape, layer, expert, matrix);
    range->offset = set->file_bytes[range->file];
    set->file_bytes[range->file] += range->bytes;
}

static inline void expert_place_all(expert_files *set)
{
    const expert_shape *shape = &set->shape;
    for (uint32_t layer = 0; layer < shape->n_layers; layer++) {
        uint32_t n_outer = shape->one_block ? shape->n_experts : shape->n_ranges;
        uint32_t n_inner = shape->one_block ? shape->n_ranges : shape->n_experts;
        for (uint32_t outer = 0; outer < n_outer; outer++) {
            for (uint32_t inner = 0; inner < n_inner; inner++) {
                expert_place(set, layer, shape->one_block ? outer : inner, shape->one_block ? inner : outer);
            }
        }
    }
}

static inline void expert_write_file(const expert_files *set, uint32_t i_file)
{
    unsigned char *bytes = malloc(set->file_bytes[i_file]);
    assert_non_null(bytes);
    memset(bytes, 0xEE, set->file_bytes[i_file]);
    for (uint32_t layer = 0; layer < set->shape.n_layers; layer++) {
        for (uint32_t expert = 0; expert < set->shape.n_experts; expert++) {
            for (uint32_t matrix = 0; matrix < set->shape.n_ranges; matrix++) {
                const sl_expert_range *range = expert_range(set, layer, expert, matrix);
                for (uint64_t place = 0; range->file == i_file && place < range->bytes; place++) {
                    bytes[range->offset + place] = expert_byte(layer, expert, matrix, place);
                }
            }
        }
    }
    FILE *stream = fopen(set->paths[i_file], "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, set->file_bytes[i_file], stream), set->file_bytes[i_file]);
    assert_int_equal(fclose(stream), 0);
    free(bytes);
}

static inline expert_files *expert_files_open(const expert_shape *shape)
{
    expert_files *set = calloc(1, sizeof *set);
    assert_non_null(set);
    set->shape = *shape;
    sl_memory_init(&set->memory, NULL);
    snprintf(set->directory, sizeof set->directory, "%s/sluice-experts-XXXXXX",
             shape->directory == NULL ? P_tmpdir : shape->directory);
    assert_non_null(mkdtemp(set->directory));
    set->ranges = calloc((size_t)shape->n_layers * shape->n_experts * shape->n_ranges, sizeof *set->ranges);
    assert_non_null(set->ranges);
    for (uint32_t i_file = 0; i_file < shape->n_files; i_file++) {
        snprintf(set->paths[i_file], sizeof set->paths[i_file], "%s/part-%u.bin", set->directory, i_file);
        if (i_file == 1 && shape->second != NULL) {
            snprintf(set->paths[i_file], sizeof set->paths[i_file], "%s/%s.bin", shape->second,
                     strrchr(set->directory, '/') + 1);
        }
        set->file_bytes[i_file] = FILE_HEADER_BYTES;
    }
    expert_place_all(set);
    for (uint32_t i_file = 0; i_file < shape->n_files; i_file++) {
        expert_write_file(set, i_file);
        sluice_error error = {0};
        if (sl_file_open(&set->files[i_file], set->paths[i_file], !shape->buffered, &error) != SLUICE_OK) {
            fail_msg("%s", error.message);
        }
        set->store_files[i_file] = (sl_store_file){.file = &set->files[i_file], .path = set->paths[i_file]};
    }
    return set;
}

static inline void expert_files_close(expert_files *set)
{
    for (uint32_t i_file = 0; i_file < set->shape.n_files; i_file++) {
        sl_file_close(&set->files[i_file]);
        unlink(set->paths[i_file]);
    }
    rmdir(set->directory);
    assert_int_equal(set->memory.total_bytes, 0);
    free(set->ranges);
    free(set);
}

/* A small file, and as many experts as wanted that are one and the same place in it: for arenas larger than files should be. */
static inline expert_files *expert_files_open_repeated(sl_expert_range *ranges, uint32_t n_experts)
{
    const expert_shape shape = {.n_layers = 1, .n_experts = 1, .n_ranges = 1, .matrix_bytes = 4000000, .n_files = 1};
    expert_files *set = expert_files_open(&shape);
    for (uint32_t place = 0; place < n_experts; place++) {
        ranges[place] = set->ranges[0];
    }
    return set;
}

static inline sl_store_config expert_config(expert_files *set, uint64_t n_slots)
{
    return (sl_store_config){
        .n_layers = set->shape.n_layers,
        .n_experts = set->shape.n_experts,
        .n_ranges = set->shape.n_ranges,
        .ranges = set->ranges,
        .files = set->store_files,
        .n_files = set->shape.n_files,
        .n_slots = n_slots,
        .reads = {.kind = tested_kind, .n_threads = 3},
        .memory = &set->memory,
    };
}

static inline sl_store *expert_store_open(expert_files *set, uint64_t n_slots)
{
    sl_store_config config = expert_config(set, n_slots);
    sluice_error error = {0};
    sl_store *store = NULL;
    if (sl_store_open(&store, &config, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    return store;
}

/* Whether every byte of a delivered expert is its own. Safe from any thread. */
static inline bool expert_is_true(const expert_files *set, uint32_t layer, const sl_expert_view *view)
{
    for (uint32_t matrix = 0; matrix < set->shape.n_ranges; matrix++) {
        const sl_expert_range *range = expert_range(set, layer, view->expert, matrix);
        const unsigned char *bytes = view->matrices[matrix];
        if ((bytes == NULL) != (range->bytes == 0)) {
            return false;
        }
        for (uint64_t place = 0; place < range->bytes; place++) {
            if (bytes[place] != expert_byte(layer, view->expert, matrix, place)) {
                return false;
            }
        }
    }
    return true;
}

/* Ask for experts, check and release each, up to `capacity` at a time. Stops at the first error. */
static inline sluice_status expert_fetch(const expert_files *set, sl_store *store, uint32_t layer,
                                         const uint32_t *experts, uint32_t n_experts, uint32_t capacity,
                                         sluice_error *error)
{
    sl_store_request request;
    uint64_t progress[256];
    sl_expert_view views[64];
    uint32_t n_seen = 0;
    bool all_true = true;
    sluice_status status = sl_store_begin(store, &request, layer, experts, n_experts, progress, error);
    while (status == SLUICE_OK) {
        uint32_t n_ready = 0;
        status = sl_store_wait(store, &request, views, capacity, &n_ready, error);
        if (status != SLUICE_OK || n_ready == 0) {
            break;
        }
        for (uint32_t i_view = 0; i_view < n_ready; i_view++) {
            all_true = all_true && views[i_view].expert == experts[views[i_view].index];
            all_true = all_true && expert_is_true(set, layer, &views[i_view]);
            sl_store_release(store, &request, &views[i_view]);
        }
        n_seen += n_ready;
    }
    sl_store_end(store, &request);
    if (status == SLUICE_OK && (!all_true || n_seen != n_experts)) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT, "%u of %u experts delivered, bytes %s", n_seen, n_experts,
                            all_true ? "true" : "wrong");
    }
    return status;
}

#endif
