/* Owns nothing: what is common to all backends of the read engine. Threads: any. */
#include "io/reads.h"

#include <inttypes.h>
#include <sys/stat.h>

sluice_status sl_read_describe(const sl_read *read, sluice_error *error)
{
    if (read->status == SLUICE_OK) {
        return SLUICE_OK;
    }
    if (read->status != SLUICE_ERROR_CHANGED) {
        return sl_error_set_system(error, read->status, read->system_errno,
                                   "%s: cannot read %" PRIu64 " bytes at byte %" PRIu64
                                   "; check the disk and the system log",
                                   read->path, read->required, read->offset);
    }
    struct stat now;
    uint64_t bytes_now = fstat(read->file->descriptor, &now) == 0 ? (uint64_t)now.st_size : 0;
    if (read->bytes_read < read->required) {
        return sl_error_set(
            error, SLUICE_ERROR_CHANGED,
            "%s: the file shrank while it was in use: expected %" PRIu64 " bytes at byte %" PRIu64 ", found %" PRIu64
            " (file size when opened %" PRIu64 ", now %" PRIu64 "); restore the file and open it again",
            read->path, read->required, read->offset, read->bytes_read, read->file->identity.bytes, bytes_now);
    }
    return sl_error_set(error, SLUICE_ERROR_CHANGED,
                        "%s: the file was modified while it was in use, seen after reading %" PRIu64
                        " bytes at byte %" PRIu64 " (file size when opened %" PRIu64 ", now %" PRIu64
                        "); restore the file and open it again",
                        read->path, read->bytes_read, read->offset, read->file->identity.bytes, bytes_now);
}

void sl_reads_close(sl_reads *reads)
{
    if (reads->backend != NULL) {
        reads->backend->close(reads->self);
    }
    *reads = (sl_reads){0};
}
