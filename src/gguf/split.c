/* Joins the parts of a split set into one reader.
 *
 * Invariants
 *  (1) Parts are taken in order; part i says split.no = i and the same split.count and split.tensors.count as part 0.
 *  (2) The joined reader has the metadata of part 0 and the tensors of all parts, each name once.
 *  (3) A part is wholly its own reader until it is joined, and wholly the set's afterwards.
 * Threads: part of one call of sl_gguf_open. */
#include "gguf/parse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A name has five digits for the number of a part. */
enum { MAX_PARTS = 99999, PART_SUFFIX_BYTES = 64 };

#define UNSTATED UINT64_MAX

static const char count_key[] = "split.count";
static const char number_key[] = "split.no";
static const char n_tensors_key[] = "split.tensors.count";

/* What a part says about its set. */
typedef struct split_keys {
    uint32_t number;
    uint32_t count;     /* 0 or 1: belongs to no set */
    uint64_t n_tensors; /* of the whole set; UNSTATED when it does not say */
} split_keys;

static sluice_status read_keys(const sl_gguf *part, split_keys *keys, sluice_error *error)
{
    *keys = (split_keys){.n_tensors = UNSTATED};
    if (sl_gguf_find_value(part, count_key) == NULL) {
        return SLUICE_OK;
    }
    SL_TRY(sl_gguf_get_u32(part, count_key, &keys->count, error));
    if (keys->count <= 1) {
        return SLUICE_OK;
    }
    if (sl_gguf_find_value(part, number_key) == NULL) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: expected key \"split.no\" beside split.count %" PRIu32
                            ", found no such key; the file is damaged, download it again",
                            part->files[0].path, keys->count);
    }
    SL_TRY(sl_gguf_get_u32(part, number_key, &keys->number, error));
    if (keys->count > MAX_PARTS || keys->number >= keys->count) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: expected split.no below split.count and that at most %d, found part %" PRIu32
                            " of %" PRIu32 "; the file is damaged, download it again",
                            part->files[0].path, MAX_PARTS, keys->number, keys->count);
    }
    if (sl_gguf_find_value(part, n_tensors_key) != NULL) {
        uint32_t n_tensors = 0;
        SL_TRY(sl_gguf_get_u32(part, n_tensors_key, &n_tensors, error));
        keys->n_tensors = n_tensors;
    }
    return SLUICE_OK;
}

static size_t format_suffix(char *buffer, uint32_t number, uint32_t count)
{
    return (size_t)snprintf(buffer, PART_SUFFIX_BYTES, "-%05" PRIu32 "-of-%05" PRIu32 ".gguf", number + 1, count);
}

/* The bytes of `path` before its part suffix. FORMAT when the path does not end in the suffix that the keys call for.
 */
static sluice_status find_prefix(const char *path, const split_keys *keys, size_t *prefix_bytes, sluice_error *error)
{
    char suffix[PART_SUFFIX_BYTES];
    size_t suffix_bytes = format_suffix(suffix, keys->number, keys->count);
    size_t path_bytes = strlen(path);
    if (path_bytes < suffix_bytes || strcmp(path + path_bytes - suffix_bytes, suffix) != 0) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: the file says that it is part %" PRIu32 " of %" PRIu32
                            ", so its name is expected to end in %s; give all parts their names back",
                            path, keys->number + 1, keys->count, suffix);
    }
    *prefix_bytes = path_bytes - suffix_bytes;
    return SLUICE_OK;
}

/* Open part `number` of the set that `path` belongs to. */
static sluice_status open_numbered(sl_gguf **part, const char *path, size_t prefix_bytes, uint32_t number,
                                   uint32_t count, sl_memory *memory, sluice_error *error)
{
    *part = NULL;
    size_t path_bytes = prefix_bytes + PART_SUFFIX_BYTES;
    char *part_path = sl_alloc(memory, SL_MEMORY_OTHER, path_bytes, 1);
    if (part_path == NULL) {
        return sl_error_no_memory(error, path_bytes, "the name of a model file");
    }
    memcpy(part_path, path, prefix_bytes);
    format_suffix(part_path + prefix_bytes, number, count);
    sluice_status status = sl_gguf_open_part(part, part_path, memory, error);
    if (status == SLUICE_ERROR_NOT_FOUND) {
        status = sl_error_set(error, status,
                              "%s: this is part %" PRIu32 " of %" PRIu32
                              " of the model and does not exist; put all parts, or links to them, into one directory",
                              part_path, number + 1, count);
    }
    sl_free(memory, part_path);
    return status;
}

static sluice_status check_keys(const sl_gguf *part, const split_keys *expected, sluice_error *error)
{
    split_keys found;
    SL_TRY(read_keys(part, &found, error));
    if (found.number != expected->number || found.count != expected->count) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: expected part %" PRIu32 " of %" PRIu32 " as its name says, found part %" PRIu32
                            " of %" PRIu32 "; give the parts their own names back or download them again",
                            part->files[0].path, expected->number + 1, expected->count, found.number + 1, found.count);
    }
    if (found.n_tensors != expected->n_tensors) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: expected the split.tensors.count of the other parts, %" PRId64 ", found %" PRId64
                            " (-1: none); the parts are not of one set, download them again",
                            part->files[0].path, (int64_t)expected->n_tensors, (int64_t)found.n_tensors);
    }
    return SLUICE_OK;
}

static sluice_status add_names(sl_gguf *set, const sl_gguf *part, sluice_error *error)
{
    for (uint64_t i = 0; i < part->n_tensors; i++) {
        const sl_gguf_tensor *tensor = &part->tensors[i];
        bool existing = false;
        if (!sl_map_insert(&set->index->tensor_positions, tensor->name, (uint32_t)(set->n_tensors + i), &existing)) {
            return sl_error_no_memory(error, sizeof(sl_map_entry), "the tensor names of a model file");
        }
        if (existing) {
            char quoted[SL_GGUF_QUOTED_BYTES];
            return sl_error_set(error, SLUICE_ERROR_FORMAT,
                                "%s: tensor %s at byte %" PRIu64
                                ": expected each tensor in one part, found it in an earlier one too; the parts are not "
                                "of one set, download them again",
                                part->files[0].path, sl_gguf_quote(tensor->name, quoted), tensor->offset);
        }
    }
    return SLUICE_OK;
}

/* Move the file and the tensors of `part` behind those of `set`. On success the part is an empty shell. On failure the
 * set's map may name tensors that it does not have; it must be closed. */
static sluice_status join(sl_gguf *set, sl_gguf *part, sluice_error *error)
{
    uint64_t n_tensors = set->n_tensors + part->n_tensors;
    if (n_tensors > SL_GGUF_MAX_TENSORS) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: expected a set of at most %d tensors, found %" PRIu64
                            " up to this part; the file is damaged, download it again",
                            part->files[0].path, SL_GGUF_MAX_TENSORS, n_tensors);
    }
    if (part->n_tensors > 0) {
        sl_gguf_tensor *tensors =
            sl_realloc(set->memory, SL_MEMORY_OTHER, set->tensors, (size_t)n_tensors, sizeof *tensors);
        if (tensors == NULL) {
            return sl_error_no_memory(error, n_tensors * sizeof *tensors, "the tensor list of a model file");
        }
        set->tensors = tensors;
        SL_TRY(add_names(set, part, error));
        for (uint64_t i = 0; i < part->n_tensors; i++) {
            tensors[set->n_tensors + i] = part->tensors[i];
            tensors[set->n_tensors + i].file = set->n_files;
        }
        set->n_tensors = n_tensors;
    }
    sl_gguf_storage_adopt(&set->index->storage, &part->index->storage);
    set->files[set->n_files++] = part->files[0];
    part->n_files = 0;
    return SLUICE_OK;
}

static sluice_status join_all(sl_gguf *set, const char *path, size_t prefix_bytes, split_keys keys, sluice_error *error)
{
    for (keys.number = 1; keys.number < keys.count; keys.number++) {
        sl_gguf *part = NULL;
        SL_TRY(open_numbered(&part, path, prefix_bytes, keys.number, keys.count, set->memory, error));
        sluice_status status = check_keys(part, &keys, error);
        sl_gguf_file *files = NULL;
        if (status == SLUICE_OK) {
            files = sl_realloc(set->memory, SL_MEMORY_OTHER, set->files, set->n_files + 1, sizeof *files);
            status = files != NULL ? SLUICE_OK : sl_error_no_memory(error, sizeof *files, "the parts of a model");
        }
        if (status == SLUICE_OK) {
            set->files = files;
            status = join(set, part, error);
        }
        sl_gguf_close(&part);
        SL_TRY(status);
    }
    if (keys.n_tensors != UNSTATED && set->n_tensors != keys.n_tensors) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: expected %" PRIu64 " tensors in all parts (split.tensors.count), found %" PRIu64
                            "; a part is damaged or of another set, download the set again",
                            path, keys.n_tensors, set->n_tensors);
    }
    return SLUICE_OK;
}

sluice_status sl_gguf_open_other_parts(sl_gguf **reader, const char *path, const sl_log *log, sluice_error *error)
{
    split_keys keys;
    SL_TRY(read_keys(*reader, &keys, error));
    if (keys.count <= 1) {
        return SLUICE_OK;
    }
    size_t prefix_bytes = 0;
    SL_TRY(find_prefix(path, &keys, &prefix_bytes, error));
    sl_log_line(log, SL_LOG_DEBUG, "%s: part %" PRIu32 " of %" PRIu32, path, keys.number + 1, keys.count);
    if (keys.number != 0) {
        sl_memory *memory = (*reader)->memory;
        sl_gguf_close(reader);
        SL_TRY(open_numbered(reader, path, prefix_bytes, 0, keys.count, memory, error));
        keys.number = 0;
        SL_TRY(check_keys(*reader, &keys, error));
    }
    return join_all(*reader, path, prefix_bytes, keys, error);
}
