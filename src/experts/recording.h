/* A recording of routing: which experts the router chose, chunk by chunk, as text that people can read and tools can
 * take apart.
 *
 *     sluice-routing 1 layers 4 experts 32 used 4
 *     chunk 2                       two tokens were evaluated together
 *     3 7 12 30 7 3 1 9             first layer: four experts of the first token, then four of the second
 *     ...                           one line for each layer
 *     end
 *
 * Layers are those that have experts, counted without the others. */
#ifndef SL_EXPERTS_RECORDING_H
#define SL_EXPERTS_RECORDING_H

#include <stdio.h>

#include "base/memory.h"
#include "os/file.h"

enum {
    SL_RECORDING_MAX_TOKENS = 65536, /* of a chunk */
    SL_RECORDING_BUFFER_BYTES = 4096
};

typedef struct sl_recording_shape {
    uint32_t n_layers;
    uint32_t n_experts; /* per layer */
    uint32_t n_used;    /* by each token in each layer */
} sl_recording_shape;

/* Writes a recording; the file appears when it is complete. thread: owner only. */
typedef struct sl_recording_writer {
    sl_recording_shape shape;
    sl_file_writer file;
    size_t n_buffered;
    char buffer[SL_RECORDING_BUFFER_BYTES];
} sl_recording_writer;

SLUICE_NODISCARD sluice_status sl_recording_create(sl_recording_writer *writer, const char *path,
                                                   const sl_recording_shape *shape, sluice_error *error);
/* Layer l's choices are at experts[l * layer_stride], [n_tokens][n_used]. A failure ends the recording for good. */
SLUICE_NODISCARD sluice_status sl_recording_append(sl_recording_writer *writer, const uint32_t *experts,
                                                   size_t layer_stride, uint32_t n_tokens, sluice_error *error);
/* The file gets its name. */
SLUICE_NODISCARD sluice_status sl_recording_commit(sl_recording_writer *writer, sluice_error *error);
/* What was not committed vanishes. Safe to call always after create, whatever it returned. */
void sl_recording_discard(sl_recording_writer *writer);

/* Reads one from its beginning. thread: owner only. */
typedef struct sl_recording_reader {
    sl_recording_shape shape;
    FILE *stream;     /* owned */
    const char *path; /* borrowed */
    uint64_t line;    /* being read, from 1 */
} sl_recording_reader;

/* IO, or FORMAT for a file that is no recording. `path` is borrowed until close. */
SLUICE_NODISCARD sluice_status sl_recording_open(sl_recording_reader *reader, const char *path, sluice_error *error);
/* The next chunk: its number of tokens, or 0 at the end. Its layers are then to be read, every one. */
SLUICE_NODISCARD sluice_status sl_recording_next_chunk(sl_recording_reader *reader, uint32_t *n_tokens,
                                                       sluice_error *error);
/* One layer of the chunk: [n_tokens][n_used]. Every number is below n_experts, and no token has one twice. */
SLUICE_NODISCARD sluice_status sl_recording_next_layer(sl_recording_reader *reader, uint32_t n_tokens,
                                                       uint32_t *experts, sluice_error *error);
/* Read all that is left and add to uses [n_layers][n_experts] how many tokens chose each expert. Takes memory for one
 * layer of the largest chunk while it reads. */
SLUICE_NODISCARD sluice_status sl_recording_count_uses(sl_recording_reader *reader, uint32_t *uses, sl_memory *memory,
                                                       sluice_error *error);
/* The `n_wanted` experts with the most uses, then lower layers, then lower numbers, as bits: mask [n_layers][(n_experts -
 * 1) / 64 + 1], which is overwritten. None without uses. Spends the uses. */
void sl_recording_favourites(const sl_recording_shape *shape, uint32_t *uses, uint64_t n_wanted, uint64_t *mask);
/* Safe to call always after open, whatever it returned. */
void sl_recording_close(sl_recording_reader *reader);

#endif
