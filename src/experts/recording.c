/* Owns the file of a recording while it is written or read.
 *
 * Invariants
 *  (1) A recording that has its name is complete: it ends with the line "end".
 *  (2) Whatever a file holds, the reader hands out numbers within the shape it states, or an error that names the line.
 *  (3) Neither direction allocates anything but what opening a file takes.
 * Threads: owner only. */
#include "experts/recording.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

enum { MAX_LAYERS = 4096, MAX_EXPERTS = 65536, MAX_USED = 1024, MAX_LINE_BYTES = 64 };

/* ---- Writing ---- */

static sluice_status flush(sl_recording_writer *writer, sluice_error *error)
{
    size_t n_bytes = writer->n_buffered;
    writer->n_buffered = 0;
    return sl_file_writer_write(&writer->file, writer->buffer, n_bytes, error);
}

static sluice_status put(sl_recording_writer *writer, sluice_error *error, const char *format, ...) SL_PRINTF(3, 4);

static sluice_status put(sl_recording_writer *writer, sluice_error *error, const char *format, ...)
{
    if (SL_RECORDING_BUFFER_BYTES - writer->n_buffered < MAX_LINE_BYTES) {
        SL_TRY(flush(writer, error));
    }
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(writer->buffer + writer->n_buffered, MAX_LINE_BYTES, format, arguments);
    va_end(arguments);
    writer->n_buffered += length > 0 ? (size_t)length : 0;
    return SLUICE_OK;
}

static sluice_status check_shape(const sl_recording_shape *shape, const char *path, sluice_error *error)
{
    if (shape->n_layers < 1 || shape->n_layers > MAX_LAYERS || shape->n_experts < 1 || shape->n_experts > MAX_EXPERTS ||
        shape->n_used < 1 || shape->n_used > MAX_USED || shape->n_used > shape->n_experts) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: a recording of %" PRIu32 " layers with %" PRIu32 " experts of which %" PRIu32
                            " are used: expected up to %d layers and %d experts, and no more than %d used",
                            path, shape->n_layers, shape->n_experts, shape->n_used, MAX_LAYERS, MAX_EXPERTS, MAX_USED);
    }
    return SLUICE_OK;
}

sluice_status sl_recording_create(sl_recording_writer *writer, const char *path, const sl_recording_shape *shape,
                                  sluice_error *error)
{
    writer->shape = *shape;
    writer->n_buffered = 0;
    writer->file = (sl_file_writer){.descriptor = -1};
    SL_TRY(check_shape(shape, path, error));
    SL_TRY(sl_file_writer_open(&writer->file, path, error));
    return put(writer, error, "sluice-routing 1 layers %" PRIu32 " experts %" PRIu32 " used %" PRIu32 "\n",
               shape->n_layers, shape->n_experts, shape->n_used);
}

sluice_status sl_recording_append(sl_recording_writer *writer, const uint32_t *experts, size_t layer_stride,
                                  uint32_t n_tokens, sluice_error *error)
{
    SL_TRY(put(writer, error, "chunk %" PRIu32 "\n", n_tokens));
    size_t n_pairs = (size_t)n_tokens * writer->shape.n_used;
    for (uint32_t layer = 0; layer < writer->shape.n_layers; layer++) {
        const uint32_t *row = experts + layer * layer_stride;
        for (size_t pair = 0; pair < n_pairs; pair++) {
            SL_TRY(put(writer, error, "%" PRIu32 "%c", row[pair], pair + 1 < n_pairs ? ' ' : '\n'));
        }
    }
    return SLUICE_OK;
}

sluice_status sl_recording_commit(sl_recording_writer *writer, sluice_error *error)
{
    SL_TRY(put(writer, error, "end\n"));
    SL_TRY(flush(writer, error));
    return sl_file_writer_commit(&writer->file, error);
}

void sl_recording_discard(sl_recording_writer *writer)
{
    sl_file_writer_close(&writer->file);
}

/* ---- Reading ---- */

static sluice_status refuse(const sl_recording_reader *reader, sluice_error *error, const char *expected)
{
    if (ferror(reader->stream)) {
        return sl_error_set_system(error, SLUICE_ERROR_IO, errno, "%s: cannot read line %" PRIu64, reader->path,
                                   reader->line);
    }
    return sl_error_set(error, SLUICE_ERROR_FORMAT,
                        "%s: line %" PRIu64 " is no part of a recording of routing: expected %s; the file is damaged, "
                        "cut short or something else",
                        reader->path, reader->line, expected);
}

/* A decimal number of at most `maximum` and the one character after it. */
static bool read_number(sl_recording_reader *reader, uint32_t maximum, uint32_t *number, int *after)
{
    uint64_t value = 0;
    uint32_t n_digits = 0;
    int c = getc(reader->stream);
    while (c >= '0' && c <= '9' && value <= maximum) {
        value = value * 10 + (uint64_t)(c - '0');
        n_digits++;
        c = getc(reader->stream);
    }
    *after = c;
    *number = (uint32_t)value;
    return n_digits > 0 && value <= maximum;
}

/* Exactly these characters. */
static bool read_word(sl_recording_reader *reader, const char *word)
{
    for (; *word != '\0'; word++) {
        if (getc(reader->stream) != *word) {
            return false;
        }
    }
    return true;
}

static bool read_header(sl_recording_reader *reader)
{
    int after[3] = {0, 0, 0};
    sl_recording_shape *shape = &reader->shape;
    return read_word(reader, "sluice-routing 1 layers ") &&
           read_number(reader, UINT32_MAX, &shape->n_layers, &after[0]) && after[0] == ' ' &&
           read_word(reader, "experts ") && read_number(reader, UINT32_MAX, &shape->n_experts, &after[1]) &&
           after[1] == ' ' && read_word(reader, "used ") &&
           read_number(reader, UINT32_MAX, &shape->n_used, &after[2]) && after[2] == '\n';
}

sluice_status sl_recording_open(sl_recording_reader *reader, const char *path, sluice_error *error)
{
    *reader = (sl_recording_reader){.path = path, .line = 1, .stream = fopen(path, "re")};
    if (reader->stream == NULL) {
        return sl_error_set_system(error, errno == ENOENT ? SLUICE_ERROR_NOT_FOUND : SLUICE_ERROR_IO, errno,
                                   "%s: cannot open this recording of routing", path);
    }
    if (!read_header(reader)) {
        return refuse(reader, error, "\"sluice-routing 1 layers N experts N used N\"");
    }
    return check_shape(&reader->shape, path, error);
}

sluice_status sl_recording_next_chunk(sl_recording_reader *reader, uint32_t *n_tokens, sluice_error *error)
{
    *n_tokens = 0;
    reader->line++;
    int first = getc(reader->stream);
    if (first == 'e') {
        return read_word(reader, "nd\n") && getc(reader->stream) == EOF ? SLUICE_OK : refuse(reader, error, "the end");
    }
    int after = 0;
    if (first != 'c' || !read_word(reader, "hunk ") ||
        !read_number(reader, SL_RECORDING_MAX_TOKENS, n_tokens, &after) || after != '\n' || *n_tokens == 0) {
        *n_tokens = 0;
        return refuse(reader, error, "\"chunk N\" or \"end\"");
    }
    return SLUICE_OK;
}

sluice_status sl_recording_next_layer(sl_recording_reader *reader, uint32_t n_tokens, uint32_t *experts,
                                      sluice_error *error)
{
    reader->line++;
    size_t n_used = reader->shape.n_used;
    size_t n_pairs = n_tokens * n_used;
    for (size_t pair = 0; pair < n_pairs; pair++) {
        int after = 0;
        if (!read_number(reader, reader->shape.n_experts - 1, &experts[pair], &after) ||
            after != (pair + 1 < n_pairs ? ' ' : '\n')) {
            return refuse(reader, error, "the experts of each token, each below the number of experts");
        }
        for (size_t earlier = pair / n_used * n_used; earlier < pair; earlier++) {
            if (experts[earlier] == experts[pair]) {
                return refuse(reader, error, "different experts for a token");
            }
        }
    }
    return SLUICE_OK;
}

/* The rest, with a row of experts that grows with the chunks. */
static sluice_status count_chunks(sl_recording_reader *reader, uint32_t *uses, uint32_t **row, sl_memory *memory,
                                  sluice_error *error)
{
    const sl_recording_shape *shape = &reader->shape;
    size_t room = 0;
    for (;;) {
        uint32_t n_tokens = 0;
        SL_TRY(sl_recording_next_chunk(reader, &n_tokens, error));
        size_t n_pairs = (size_t)n_tokens * shape->n_used;
        if (n_pairs == 0) {
            return SLUICE_OK;
        }
        if (n_pairs > room) {
            uint32_t *grown = sl_realloc(memory, SL_MEMORY_OTHER, *row, n_pairs, sizeof *grown);
            if (grown == NULL) {
                return sl_error_no_memory(error, n_pairs * sizeof *grown, "a chunk of the recording");
            }
            *row = grown;
            room = n_pairs;
        }
        for (uint32_t layer = 0; layer < shape->n_layers; layer++) {
            SL_TRY(sl_recording_next_layer(reader, n_tokens, *row, error));
            for (size_t pair = 0; pair < n_pairs; pair++) {
                uint32_t *count = &uses[(size_t)layer * shape->n_experts + (*row)[pair]];
                *count += *count < UINT32_MAX ? 1 : 0;
            }
        }
    }
}

sluice_status sl_recording_count_uses(sl_recording_reader *reader, uint32_t *uses, sl_memory *memory,
                                      sluice_error *error)
{
    uint32_t *row = NULL;
    sluice_status status = count_chunks(reader, uses, &row, memory, error);
    sl_free(memory, row);
    return status;
}

void sl_recording_favourites(const sl_recording_shape *shape, uint32_t *uses, uint64_t n_wanted, uint64_t *mask)
{
    size_t n_total = (size_t)shape->n_layers * shape->n_experts;
    uint32_t n_mask_words = (shape->n_experts - 1) / 64 + 1;
    memset(mask, 0, (size_t)shape->n_layers * n_mask_words * sizeof *mask);
    for (uint64_t n_taken = 0; n_taken < n_wanted && n_taken < n_total; n_taken++) {
        size_t most = 0;
        for (size_t place = 1; place < n_total; place++) {
            most = uses[place] > uses[most] ? place : most;
        }
        if (uses[most] == 0) {
            return;
        }
        uses[most] = 0;
        mask[most / shape->n_experts * n_mask_words + most % shape->n_experts / 64] |=
            (uint64_t)1 << (most % shape->n_experts % 64);
    }
}

void sl_recording_close(sl_recording_reader *reader)
{
    if (reader->stream != NULL) {
        fclose(reader->stream);
        reader->stream = NULL;
    }
}
