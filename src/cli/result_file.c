/* Owns the descriptor of a result. A name that stands for a device, a pipe or an open descriptor, such as /dev/stderr,
 * must not be replaced by a file of that name, so it is written in place. */
#include "cli/result_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

sluice_status sl_result_file_open(sl_result_file *file, const char *path, sluice_error *error)
{
    *file = (sl_result_file){.path = path, .descriptor = -1, .writer = {.descriptor = -1}};
    if (path == NULL) {
        return SLUICE_OK;
    }
    struct stat information;
    bool exists = stat(path, &information) == 0;
    if (exists && S_ISDIR(information.st_mode)) {
        return sl_error_set(error, SLUICE_ERROR_IO,
                            "%s: cannot write results here: it is a directory; name a file in it", path);
    }
    bool is_special = strncmp(path, "/dev/", 5) == 0 || strncmp(path, "/proc/", 6) == 0;
    if (!exists || (S_ISREG(information.st_mode) && !is_special)) {
        return sl_file_writer_open(&file->writer, path, error);
    }
    file->descriptor = open(path, O_WRONLY | O_APPEND | O_NOCTTY | O_CLOEXEC);
    return file->descriptor >= 0
               ? SLUICE_OK
               : sl_error_set_system(error, SLUICE_ERROR_IO, errno, "%s: cannot open it for writing", path);
}

sluice_status sl_result_file_write(sl_result_file *file, const void *bytes, size_t length, sluice_error *error)
{
    if (file->path == NULL) {
        return SLUICE_OK;
    }
    if (file->descriptor < 0) {
        return sl_file_writer_write(&file->writer, bytes, length, error);
    }
    for (size_t done = 0; done < length;) {
        ssize_t written = write(file->descriptor, (const char *)bytes + done, length - done);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return sl_error_set_system(error, SLUICE_ERROR_IO, errno, "%s: cannot write", file->path);
        }
        done += (size_t)written;
    }
    return SLUICE_OK;
}

sluice_status sl_result_file_commit(sl_result_file *file, sluice_error *error)
{
    return file->path == NULL || file->descriptor >= 0 ? SLUICE_OK : sl_file_writer_commit(&file->writer, error);
}

void sl_result_file_close(sl_result_file *file)
{
    if (file->descriptor >= 0) {
        close(file->descriptor);
        file->descriptor = -1;
    }
    sl_file_writer_close(&file->writer);
}
