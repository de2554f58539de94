/* Writing a GGUF v3 file: metadata, then tensor descriptions, then tensor data in the order described. The file appears
 * under its final name only when complete (os/file.h). */
#ifndef SL_GGUF_WRITER_H
#define SL_GGUF_WRITER_H

#include "gguf/reader.h"

typedef struct sl_gguf_writer sl_gguf_writer;

/* thread: owner only, for every function here. */
SLUICE_NODISCARD sluice_status sl_gguf_writer_open(sl_gguf_writer **out, const char *path, sl_memory *memory,
                                                   sluice_error *error);

/* Add a metadata entry; the value's bytes are copied. Keys must be unique. Not after the first tensor data. */
SLUICE_NODISCARD sluice_status sl_gguf_writer_add_value(sl_gguf_writer *writer, const sl_gguf_value *value,
                                                        sluice_error *error);
SLUICE_NODISCARD sluice_status sl_gguf_writer_add_u32(sl_gguf_writer *writer, const char *key, uint32_t number,
                                                      sluice_error *error);
SLUICE_NODISCARD sluice_status sl_gguf_writer_add_string(sl_gguf_writer *writer, const char *key, const char *text,
                                                         sluice_error *error);

/* Describe a tensor: only name, type, n_dims and dims are read; the writer assigns offsets. */
SLUICE_NODISCARD sluice_status sl_gguf_writer_add_tensor(sl_gguf_writer *writer, const sl_gguf_tensor *tensor,
                                                         sluice_error *error);

/* Append bytes of the tensors' data, in the order they were added; padding between tensors is the writer's business.
 * The first call writes the header. More bytes than described is ARGUMENT. */
SLUICE_NODISCARD sluice_status sl_gguf_writer_write(sl_gguf_writer *writer, const void *bytes, uint64_t length,
                                                    sluice_error *error);

/* Complete the file and give it its name. ARGUMENT when tensor bytes are missing. */
SLUICE_NODISCARD sluice_status sl_gguf_writer_commit(sl_gguf_writer *writer, sluice_error *error);

/* Free; removes the partial file unless committed. */
void sl_gguf_writer_close(sl_gguf_writer **writer);

#endif
