/* Read-only files that are checked for having changed, and files that appear whole or not at all. */
#ifndef SL_OS_FILE_H
#define SL_OS_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* What makes a file the same file. */
typedef struct sl_file_identity {
    uint64_t device;
    uint64_t inode;
    uint64_t bytes;
    int64_t modified_ns;
} sl_file_identity;

/* thread: immutable after open; reads may come from any thread. */
typedef struct sl_file {
    int descriptor;            /* owned; buffered; -1 when closed */
    int direct_descriptor;     /* owned; O_DIRECT; -1 where the filesystem refuses it */
    uint32_t direct_alignment; /* offsets, lengths and addresses of direct reads are multiples of this */
    sl_file_identity identity; /* at open */
} sl_file;

/* Open a regular file read-only. `want_direct` also opens it for direct reads; where that is refused, or a probe read
 * returns other bytes than a buffered one, direct_descriptor stays -1 and that is no error. */
SLUICE_NODISCARD sluice_status sl_file_open(sl_file *file, const char *path, bool want_direct, sluice_error *error);
void sl_file_close(sl_file *file);

/* Buffered read of exactly `length` bytes at `offset`. `path` names the file in the error. A file that ends early is
 * SLUICE_ERROR_CHANGED when it shrank since open, else SLUICE_ERROR_FORMAT. */
SLUICE_NODISCARD sluice_status sl_file_read(const sl_file *file, const char *path, void *destination, size_t length,
                                            uint64_t offset, sluice_error *error);

/* Drop the page cache of a range, so that buffered reads do not grow the process's memory account. */
void sl_file_forget(const sl_file *file, uint64_t offset, uint64_t length);

/* Whether a range lies in the page cache as a whole, up to the end of the file; false where the kernel (before Linux 6.5)
 * or the file's permissions do not let it be asked. */
bool sl_file_is_cached(const sl_file *file, uint64_t offset, uint64_t length);

/* SLUICE_ERROR_CHANGED when the file at `path` is no longer the one that was opened. */
SLUICE_NODISCARD sluice_status sl_file_check_unchanged(const sl_file *file, const char *path, sluice_error *error);

/* Whether `path` names the open file. */
bool sl_file_is_at(const sl_file *file, const char *path);

/* A file that is written beside its final name and gets that name only when complete. thread: owner only. */
typedef struct sl_file_writer {
    int descriptor;       /* owned; -1 when closed */
    char *final_path;     /* owned (C library) */
    char *temporary_path; /* owned (C library) */
} sl_file_writer;

/* Create `path`.partial-<pid> in the same directory. A symbolic link is followed: what it leads to will be replaced.
 * IO when the name is taken by something that is no regular file, such as a device: that must not be replaced. */
SLUICE_NODISCARD sluice_status sl_file_writer_open(sl_file_writer *writer, const char *path, sluice_error *error);
SLUICE_NODISCARD sluice_status sl_file_writer_write(sl_file_writer *writer, const void *bytes, size_t length,
                                                    sluice_error *error);
/* Overwrite bytes that were written before. */
SLUICE_NODISCARD sluice_status sl_file_writer_write_at(sl_file_writer *writer, const void *bytes, size_t length,
                                                       uint64_t offset, sluice_error *error);
/* Flush to the disk, rename to the final name, flush the directory. */
SLUICE_NODISCARD sluice_status sl_file_writer_commit(sl_file_writer *writer, sluice_error *error);
/* Remove the partial file unless it was committed. Safe to call always, also after a failed open. */
void sl_file_writer_close(sl_file_writer *writer);

#endif
