/* Owns an open model: its files, metadata and tensor list.
 *
 * Invariants
 *  (1) A reader that sl_gguf_open returned is complete and checked; it never changes until it is closed.
 *  (2) Every byte that keys, names, strings and numbers point at lies in index->storage.
 *  (3) tensor->file < n_files, and [offset, offset + bytes) lies inside that file as it was at open.
 * States: being built (inside sl_gguf_open, owned by that call) -> open -> closed.
 * Threads: an open reader may be read from any thread; closing it needs that nobody reads any more. */
#include "gguf/reader.h"

#include <inttypes.h>
#include <string.h>

#include "gguf/parse.h"

enum { MAGIC_BYTES = 4 };

void sl_gguf_close(sl_gguf **reader)
{
    sl_gguf *closing = *reader;
    *reader = NULL;
    if (closing == NULL) {
        return;
    }
    sl_memory *memory = closing->memory;
    for (uint32_t i = 0; i < closing->n_files; i++) {
        sl_file_close(&closing->files[i].file);
        sl_free(memory, closing->files[i].path);
    }
    sl_free(memory, closing->files);
    sl_free(memory, closing->values);
    sl_free(memory, closing->tensors);
    if (closing->index != NULL) {
        sl_map_fini(&closing->index->value_positions);
        sl_map_fini(&closing->index->tensor_positions);
        sl_gguf_storage_fini(&closing->index->storage);
        sl_free(memory, closing->index);
    }
    sl_free(memory, closing);
}

/* An empty reader with room for one file; NULL when memory is refused. */
static sl_gguf *create_reader(const char *path, sl_memory *memory)
{
    sl_gguf *reader = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizeof *reader);
    if (reader == NULL) {
        return NULL;
    }
    reader->memory = memory;
    reader->index = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizeof *reader->index);
    if (reader->index != NULL) {
        sl_map_init(&reader->index->value_positions, memory, SL_MEMORY_OTHER);
        sl_map_init(&reader->index->tensor_positions, memory, SL_MEMORY_OTHER);
        sl_gguf_storage_init(&reader->index->storage, memory);
        reader->files = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizeof *reader->files);
    }
    if (reader->files != NULL) {
        size_t path_bytes = strlen(path) + 1;
        reader->n_files = 1;
        reader->files[0].file = (sl_file){.descriptor = -1, .direct_descriptor = -1};
        reader->files[0].path = sl_alloc(memory, SL_MEMORY_OTHER, path_bytes, 1);
        if (reader->files[0].path != NULL) {
            memcpy(reader->files[0].path, path, path_bytes);
            return reader;
        }
    }
    sl_gguf_close(&reader);
    return NULL;
}

static sluice_status take_magic(sl_gguf_cursor *cursor)
{
    char magic[MAGIC_BYTES];
    SL_TRY(sl_gguf_cursor_take(cursor, magic, sizeof magic, "the letters \"GGUF\""));
    if (memcmp(magic, "FUGG", sizeof magic) == 0) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_UNSUPPORTED, 0,
                                   "expected the letters \"GGUF\", found them reversed; this is a big-endian file, get "
                                   "the little-endian one");
    }
    if (memcmp(magic, "GGUF", sizeof magic) != 0) {
        char quoted[SL_GGUF_QUOTED_BYTES];
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, 0,
                                   "expected the letters \"GGUF\", found %s; this is not a GGUF file, check that the "
                                   "download brought the model and not a page or a pointer to it",
                                   sl_gguf_quote((sl_span){.data = magic, .length = sizeof magic}, quoted));
    }
    return SLUICE_OK;
}

static sluice_status take_version(sl_gguf_cursor *cursor, uint32_t *version)
{
    uint64_t start = cursor->position;
    SL_TRY(sl_gguf_cursor_take_u32(cursor, version, "the version"));
    if (*version == 2 || *version == 3) {
        return SLUICE_OK;
    }
    uint32_t swapped = __builtin_bswap32(*version);
    if (swapped >= 1 && swapped <= 3) {
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_UNSUPPORTED, start,
                                   "expected version 2 or 3, found version %" PRIu32 " in big-endian order; this is a "
                                   "big-endian file, get the little-endian one",
                                   swapped);
    }
    return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_UNSUPPORTED, start,
                               "expected version 2 or 3, found %" PRIu32 "; get the file in a current version",
                               *version);
}

bool sl_gguf_alignment_is_valid(uint64_t alignment)
{
    return alignment != 0 && (alignment & (alignment - 1)) == 0 && alignment <= SL_GGUF_MAX_ALIGNMENT;
}

static sluice_status find_alignment(sl_gguf *reader, sl_gguf_cursor *cursor)
{
    reader->alignment = SL_GGUF_DEFAULT_ALIGNMENT;
    const sl_gguf_value *value = sl_gguf_find_value(reader, "general.alignment");
    if (value == NULL) {
        return SLUICE_OK;
    }
    uint32_t alignment = 0;
    SL_TRY(sl_gguf_get_u32(reader, "general.alignment", &alignment, cursor->error));
    if (!sl_gguf_alignment_is_valid(alignment)) {
        sl_gguf_cursor_set_subject(cursor, "key \"general.alignment\"");
        return sl_gguf_cursor_fail(cursor, SLUICE_ERROR_FORMAT, cursor->position,
                                   "expected a power of two from 1 to %d before this byte, found %" PRIu32
                                   "; the file is damaged, download it again",
                                   SL_GGUF_MAX_ALIGNMENT, alignment);
    }
    reader->alignment = alignment;
    return SLUICE_OK;
}

static sluice_status parse_header(sl_gguf *reader, sl_gguf_cursor *cursor)
{
    uint64_t n_tensors = 0;
    uint64_t n_values = 0;
    SL_TRY(take_magic(cursor));
    SL_TRY(take_version(cursor, &reader->version));
    SL_TRY(sl_gguf_cursor_take_u64(cursor, &n_tensors, "the number of tensors"));
    SL_TRY(sl_gguf_cursor_take_u64(cursor, &n_values, "the number of metadata entries"));
    SL_TRY(sl_gguf_parse_values(reader, cursor, n_values));
    SL_TRY(find_alignment(reader, cursor));
    SL_TRY(sl_gguf_parse_tensors(reader, cursor, n_tensors));
    return sl_gguf_place_tensors(reader, cursor);
}

sluice_status sl_gguf_open_part(sl_gguf **out, const char *path, sl_memory *memory, sluice_error *error)
{
    *out = NULL;
    sl_gguf *reader = create_reader(path, memory);
    if (reader == NULL) {
        return sl_error_no_memory(error, sizeof *reader, "opening a model file");
    }
    sl_gguf_cursor cursor;
    sluice_status status = sl_file_open(&reader->files[0].file, path, true, error);
    if (status == SLUICE_OK) {
        status = sl_gguf_cursor_init(&cursor, &reader->files[0].file, path, memory, error);
        if (status == SLUICE_OK) {
            status = parse_header(reader, &cursor);
            sl_gguf_cursor_fini(&cursor);
        }
    }
    if (status != SLUICE_OK) {
        sl_gguf_close(&reader);
        return status;
    }
    *out = reader;
    return SLUICE_OK;
}

sluice_status sl_gguf_open(sl_gguf **out, const char *path, sl_memory *memory, const sl_log *log, sluice_error *error)
{
    *out = NULL;
    sl_gguf *reader = NULL;
    SL_TRY(sl_gguf_open_part(&reader, path, memory, error));
    sluice_status status = sl_gguf_open_other_parts(&reader, path, log, error);
    if (status != SLUICE_OK) {
        sl_gguf_close(&reader);
        return status;
    }
    sl_log_line(log, SL_LOG_INFO,
                "%s: GGUF v%" PRIu32 ", %" PRIu64 " metadata entries, %" PRIu64 " tensors, %" PRIu32 " file%s", path,
                reader->version, reader->n_values, reader->n_tensors, reader->n_files, reader->n_files == 1 ? "" : "s");
    *out = reader;
    return SLUICE_OK;
}

const sl_gguf_value *sl_gguf_find_value(const sl_gguf *reader, const char *key)
{
    uint32_t position = 0;
    return sl_map_find(&reader->index->value_positions, sl_span_of(key), &position) ? &reader->values[position] : NULL;
}

const sl_gguf_tensor *sl_gguf_find_tensor(const sl_gguf *reader, const char *name)
{
    uint32_t position = 0;
    return sl_map_find(&reader->index->tensor_positions, sl_span_of(name), &position) ? &reader->tensors[position]
                                                                                      : NULL;
}
