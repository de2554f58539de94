/* A file that the user named for results: it appears whole or not at all, and is tried before the work begins. */
#ifndef SL_CLI_RESULT_FILE_H
#define SL_CLI_RESULT_FILE_H

#include "os/file.h"

/* thread: owner only. */
typedef struct sl_result_file {
    const char *path;      /* borrowed; NULL: no file was asked for, and every call does nothing */
    int descriptor;        /* owned; of a device or pipe, which is written directly; else -1 */
    sl_file_writer writer; /* of a regular file */
} sl_result_file;

/* `path` may be NULL. */
SLUICE_NODISCARD sluice_status sl_result_file_open(sl_result_file *file, const char *path, sluice_error *error);
SLUICE_NODISCARD sluice_status sl_result_file_write(sl_result_file *file, const void *bytes, size_t length,
                                                    sluice_error *error);
SLUICE_NODISCARD sluice_status sl_result_file_commit(sl_result_file *file, sluice_error *error);
/* What was not committed vanishes. Safe to call always after open, whatever it returned. */
void sl_result_file_close(sl_result_file *file);

#endif
