/* Owns the descriptors of read-only model files and of files being written.
 *
 * Invariants
 *  (1) An open sl_file describes a regular file, and both descriptors describe the same inode.
 *  (2) direct_descriptor is valid only after a direct read returned the same bytes as a buffered one.
 *  (3) Both descriptors are in blocking mode with readahead off: what is cached is what was asked for, so that
 *      sl_file_forget can drop it again.
 *  (4) A writer's partial file is locked while it is open: a name left by a killed process is taken over, one that is
 *      being written is refused.
 *  (5) A writer replaces regular files only. A symbolic link stays one: the file it leads to is replaced.
 * States of a writer: open (descriptor >= 0) -> committed (descriptor -1, no temporary path) or failed (temporary path
 * kept until close removes it).
 * Threads: an sl_file never changes between open and close, so any thread may read; a writer belongs to one thread. */
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FALLBACK_DIRECT_ALIGNMENT = 4096, MAX_DIRECT_ALIGNMENT = 1 << 16, MAX_OPEN_ATTEMPTS = 8 };

enum { SYSTEM_CALL_CACHESTAT = 451 }; /* on every architecture */

/* One system call moves at most this much; the kernel's own limit is a page below 2 GiB. */
static const size_t max_transfer_bytes = (size_t)1 << 30;

static sl_file_identity identity_of(const struct stat *information)
{
    return (sl_file_identity){
        .device = (uint64_t)information->st_dev,
        .inode = (uint64_t)information->st_ino,
        .bytes = (uint64_t)information->st_size,
        .modified_ns = (int64_t)information->st_mtim.tv_sec * 1000000000 + (int64_t)information->st_mtim.tv_nsec,
    };
}

static const char *kind_of(const struct stat *information)
{
    return S_ISREG(information->st_mode)   ? "regular file"
           : S_ISDIR(information->st_mode) ? "directory"
                                           : "device, pipe or socket";
}

static int open_retrying(const char *path, int flags, mode_t mode)
{
    int descriptor;
    do {
        descriptor = open(path, flags | O_CLOEXEC, mode);
    } while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

/* Open without waiting for the writer of a pipe, then switch back to blocking mode: with O_NONBLOCK set, an io_uring
 * read of a regular file may fail with EAGAIN. */
static int open_for_reading(const char *path, int extra_flags, struct stat *information)
{
    int descriptor = open_retrying(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | extra_flags, 0);
    if (descriptor < 0) {
        return -1;
    }
    int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0 || fcntl(descriptor, F_SETFL, flags & ~O_NONBLOCK) != 0 || fstat(descriptor, information) != 0) {
        int saved_errno = errno;
        close(descriptor);
        errno = saved_errno;
        return -1;
    }
    return descriptor;
}

/* Up to `length` bytes at `offset`; less only at the end of the file. -1 with errno on failure. */
static ssize_t read_at(int descriptor, void *destination, size_t length, uint64_t offset)
{
    size_t done = 0;
    while (done < length) {
        size_t wanted = length - done < max_transfer_bytes ? length - done : max_transfer_bytes;
        ssize_t got = pread(descriptor, (char *)destination + done, wanted, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    return (ssize_t)done;
}

/* What the filesystem asks of direct reads; 0 when it says that it has none. */
static uint32_t direct_alignment_of(int descriptor)
{
#ifdef STATX_DIOALIGN
    struct statx information = {0};
    if (statx(descriptor, "", AT_EMPTY_PATH, STATX_DIOALIGN, &information) == 0 &&
        (information.stx_mask & STATX_DIOALIGN) != 0) {
        uint32_t alignment = information.stx_dio_offset_align;
        if (alignment != 0 && information.stx_dio_mem_align > alignment) {
            alignment = information.stx_dio_mem_align;
        }
        bool usable = (alignment & (alignment - 1)) == 0 && alignment <= MAX_DIRECT_ALIGNMENT;
        return usable ? alignment : 0;
    }
#else
    (void)descriptor;
#endif
    return FALLBACK_DIRECT_ALIGNMENT;
}

/* A direct read of the first block returns what a buffered one does. */
static bool direct_read_is_true(const sl_file *file, int direct_descriptor, uint32_t alignment)
{
    void *direct_block = NULL;
    if (posix_memalign(&direct_block, alignment < sizeof(void *) ? sizeof(void *) : alignment, (size_t)alignment * 2) !=
        0) {
        return false;
    }
    char *buffered_block = (char *)direct_block + alignment;
    ssize_t n_direct;
    do {
        n_direct = pread(direct_descriptor, direct_block, alignment, 0);
    } while (n_direct < 0 && errno == EINTR);
    ssize_t n_buffered = read_at(file->descriptor, buffered_block, alignment, 0);
    bool equal = n_direct > 0 && n_direct == n_buffered && memcmp(direct_block, buffered_block, (size_t)n_direct) == 0;
    sl_file_forget(file, 0, alignment);
    free(direct_block);
    return equal;
}

static void open_direct(sl_file *file, const char *path)
{
    struct stat information;
    int descriptor = open_for_reading(path, O_DIRECT, &information);
    if (descriptor < 0) {
        return;
    }
    sl_file_identity identity = identity_of(&information);
    bool same_file = identity.device == file->identity.device && identity.inode == file->identity.inode;
    uint32_t alignment = same_file ? direct_alignment_of(descriptor) : 0;
    if (alignment == 0 || !direct_read_is_true(file, descriptor, alignment)) {
        close(descriptor);
        return;
    }
    file->direct_descriptor = descriptor;
    file->direct_alignment = alignment;
}

sluice_status sl_file_open(sl_file *file, const char *path, bool want_direct, sluice_error *error)
{
    *file = (sl_file){.descriptor = -1, .direct_descriptor = -1, .direct_alignment = FALLBACK_DIRECT_ALIGNMENT};
    struct stat information;
    int descriptor = open_for_reading(path, 0, &information);
    if (descriptor < 0) {
        bool absent = errno == ENOENT || errno == ENOTDIR;
        return sl_error_set_system(error, absent ? SLUICE_ERROR_NOT_FOUND : SLUICE_ERROR_IO, errno,
                                   "%s: cannot open the file for reading; check the path and its permissions", path);
    }
    if (!S_ISREG(information.st_mode)) {
        close(descriptor);
        return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                            "%s: expected a regular file, found a %s; name a file on a disk", path,
                            kind_of(&information));
    }
    file->descriptor = descriptor;
    file->identity = identity_of(&information);
    (void)posix_fadvise(descriptor, 0, 0, POSIX_FADV_RANDOM);
    if (want_direct) {
        open_direct(file, path);
    }
    return SLUICE_OK;
}

void sl_file_close(sl_file *file)
{
    if (file->descriptor >= 0) {
        close(file->descriptor);
    }
    if (file->direct_descriptor >= 0) {
        close(file->direct_descriptor);
    }
    file->descriptor = -1;
    file->direct_descriptor = -1;
}

sluice_status sl_file_read(const sl_file *file, const char *path, void *destination, size_t length, uint64_t offset,
                           sluice_error *error)
{
    if (offset > INT64_MAX || length > INT64_MAX - offset) {
        return sl_error_set(error, SLUICE_ERROR_FORMAT,
                            "%s: cannot read %zu bytes at byte %" PRIu64 ": no file reaches that far", path, length,
                            offset);
    }
    ssize_t got = read_at(file->descriptor, destination, length, offset);
    if (got < 0) {
        return sl_error_set_system(error, SLUICE_ERROR_IO, errno,
                                   "%s: cannot read %zu bytes at byte %" PRIu64 "; check the disk and the system log",
                                   path, length, offset);
    }
    if ((size_t)got == length) {
        return SLUICE_OK;
    }
    struct stat information;
    if (fstat(file->descriptor, &information) == 0 && (uint64_t)information.st_size < file->identity.bytes) {
        return sl_error_set(error, SLUICE_ERROR_CHANGED,
                            "%s: the file shrank from %" PRIu64 " to %jd bytes while it was in use; %zu bytes at byte "
                            "%" PRIu64 " are gone; restore the file and open it again",
                            path, file->identity.bytes, (intmax_t)information.st_size, length, offset);
    }
    return sl_error_set(error, SLUICE_ERROR_FORMAT,
                        "%s: the file ends early: expected %zu bytes at byte %" PRIu64
                        ", found %zd; it is truncated, copy or download it again",
                        path, length, offset, got);
}

void sl_file_forget(const sl_file *file, uint64_t offset, uint64_t length)
{
    /* The kernel drops whole pages only, and takes a length of 0 for "to the end". */
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    if (length == 0 || offset > INT64_MAX || length > INT64_MAX - offset - page_bytes) {
        return;
    }
    uint64_t start = offset & ~(page_bytes - 1);
    uint64_t end = (offset + length + page_bytes - 1) & ~(page_bytes - 1);
    (void)posix_fadvise(file->descriptor, (off_t)start, (off_t)(end - start), POSIX_FADV_DONTNEED);
}

bool sl_file_is_cached(const sl_file *file, uint64_t offset, uint64_t length)
{
    /* The kernel's structures, which no C library declares yet. */
    struct {
        uint64_t offset, length;
    } range = {offset, length};
    struct {
        uint64_t n_cached, n_dirty, n_writeback, n_evicted, n_recently_evicted; /* pages */
    } found = {0};
    if (offset >= file->identity.bytes || length == 0) {
        return false;
    }
    uint64_t left = file->identity.bytes - offset;
    uint64_t end = offset + (length < left ? length : left);
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    range.length = end - offset;
    return syscall(SYSTEM_CALL_CACHESTAT, file->descriptor, &range, &found, 0) == 0 &&
           found.n_cached == (end - 1) / page_bytes - offset / page_bytes + 1;
}

sluice_status sl_file_check_unchanged(const sl_file *file, const char *path, sluice_error *error)
{
    struct stat information;
    if (stat(path, &information) != 0) {
        return sl_error_set_system(error, SLUICE_ERROR_CHANGED, errno,
                                   "%s: the file can no longer be found while it is in use; restore it and open it "
                                   "again",
                                   path);
    }
    sl_file_identity now = identity_of(&information);
    const sl_file_identity *then = &file->identity;
    if (now.device != then->device || now.inode != then->inode) {
        return sl_error_set(error, SLUICE_ERROR_CHANGED,
                            "%s: another file has taken this name since it was opened; open the model again", path);
    }
    if (now.bytes != then->bytes) {
        return sl_error_set(error, SLUICE_ERROR_CHANGED,
                            "%s: the file had %" PRIu64 " bytes when it was opened and has %" PRIu64
                            " now; open the model again",
                            path, then->bytes, now.bytes);
    }
    if (now.modified_ns != then->modified_ns) {
        return sl_error_set(error, SLUICE_ERROR_CHANGED,
                            "%s: the file was modified after it was opened; open the model again", path);
    }
    return SLUICE_OK;
}

bool sl_file_is_at(const sl_file *file, const char *path)
{
    struct stat named;
    if (stat(path, &named) != 0) {
        return false;
    }
    sl_file_identity identity = identity_of(&named);
    return identity.device == file->identity.device && identity.inode == file->identity.inode;
}

static bool same_inode(int descriptor, const char *path)
{
    struct stat opened;
    struct stat named;
    return fstat(descriptor, &opened) == 0 && lstat(path, &named) == 0 && opened.st_dev == named.st_dev &&
           opened.st_ino == named.st_ino;
}

/* Create or take over the partial file and lock it. A filesystem without locks is not a reason to refuse. The name is
 * checked again under the lock, because its last owner may have renamed or removed it in between. -1 with errno. */
static int open_partial(const char *path)
{
    for (int i_attempt = 0; i_attempt < MAX_OPEN_ATTEMPTS; i_attempt++) {
        int descriptor = open_retrying(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NOCTTY, 0666);
        if (descriptor < 0) {
            return -1;
        }
        bool busy = flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
        if (!busy && same_inode(descriptor, path)) {
            if (ftruncate(descriptor, 0) == 0) {
                return descriptor;
            }
            int saved_errno = errno;
            close(descriptor);
            errno = saved_errno;
            return -1;
        }
        close(descriptor);
        if (busy) {
            break;
        }
    }
    errno = EBUSY;
    return -1;
}

/* A file that is renamed to the name of a device would take its place. */
static sluice_status check_final_name(const char *path, sluice_error *error)
{
    struct stat information;
    if (stat(path, &information) == 0 && !S_ISREG(information.st_mode)) {
        return sl_error_set(error, SLUICE_ERROR_IO,
                            "%s: expected a regular file or a free name to write to, found a %s; name another", path,
                            kind_of(&information));
    }
    return SLUICE_OK;
}

sluice_status sl_file_writer_open(sl_file_writer *writer, const char *path, sluice_error *error)
{
    *writer = (sl_file_writer){.descriptor = -1};
    SL_TRY(check_final_name(path, error));
    char *final_path = realpath(path, NULL);
    final_path = final_path != NULL ? final_path : strdup(path);
    size_t capacity = strlen(final_path != NULL ? final_path : path) + 32;
    char *temporary_path = malloc(capacity);
    if (final_path == NULL || temporary_path == NULL) {
        free(final_path);
        free(temporary_path);
        return sl_error_no_memory(error, capacity, "the name of a file");
    }
    snprintf(temporary_path, capacity, "%s.partial-%jd", final_path, (intmax_t)getpid());
    int descriptor = open_partial(temporary_path);
    if (descriptor < 0) {
        int open_errno = errno;
        bool absent = open_errno == ENOENT || open_errno == ENOTDIR;
        sluice_status status = sl_error_set_system(
            error, absent ? SLUICE_ERROR_NOT_FOUND : SLUICE_ERROR_IO, open_errno,
            "%s: cannot create the file; check that its directory exists and is writable", temporary_path);
        free(final_path);
        free(temporary_path);
        return status;
    }
    *writer = (sl_file_writer){.descriptor = descriptor, .final_path = final_path, .temporary_path = temporary_path};
    return SLUICE_OK;
}

static sluice_status check_open(const sl_file_writer *writer, sluice_error *error)
{
    if (writer->descriptor < 0) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "the file is not open for writing; open it first");
    }
    return SLUICE_OK;
}

static sluice_status write_failed(const sl_file_writer *writer, int system_errno, sluice_error *error)
{
    return sl_error_set_system(error, SLUICE_ERROR_IO, system_errno,
                               "%s: cannot write; check the free space of the disk", writer->temporary_path);
}

sluice_status sl_file_writer_write(sl_file_writer *writer, const void *bytes, size_t length, sluice_error *error)
{
    SL_TRY(check_open(writer, error));
    const char *source = bytes;
    while (length > 0) {
        ssize_t written = write(writer->descriptor, source, length < max_transfer_bytes ? length : max_transfer_bytes);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return write_failed(writer, written < 0 ? errno : ENOSPC, error);
        }
        source += written;
        length -= (size_t)written;
    }
    return SLUICE_OK;
}

sluice_status sl_file_writer_write_at(sl_file_writer *writer, const void *bytes, size_t length, uint64_t offset,
                                      sluice_error *error)
{
    SL_TRY(check_open(writer, error));
    struct stat information;
    if (fstat(writer->descriptor, &information) != 0) {
        return write_failed(writer, errno, error);
    }
    uint64_t written_bytes = (uint64_t)information.st_size;
    if (offset > written_bytes || length > written_bytes - offset) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "%s: cannot overwrite %zu bytes at byte %" PRIu64 ": only %" PRIu64 " are written",
                            writer->temporary_path, length, offset, written_bytes);
    }
    const char *source = bytes;
    while (length > 0) {
        ssize_t written = pwrite(writer->descriptor, source, length < max_transfer_bytes ? length : max_transfer_bytes,
                                 (off_t)offset);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return write_failed(writer, written < 0 ? errno : ENOSPC, error);
        }
        source += written;
        offset += (uint64_t)written;
        length -= (size_t)written;
    }
    return SLUICE_OK;
}

static int flush_descriptor(int descriptor)
{
    int result;
    do {
        result = fsync(descriptor);
    } while (result != 0 && errno == EINTR);
    return result;
}

/* Make the new name durable. A directory that cannot be flushed on this filesystem (EINVAL) is as durable as it gets.
 */
static int flush_directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *directory = slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (directory == NULL) {
        errno = ENOMEM;
        return -1;
    }
    int descriptor = open_retrying(directory, O_RDONLY | O_DIRECTORY, 0);
    free(directory);
    if (descriptor < 0) {
        return -1;
    }
    int result = flush_descriptor(descriptor);
    int flush_errno = errno;
    close(descriptor);
    errno = flush_errno;
    return result != 0 && flush_errno != EINVAL ? -1 : 0;
}

sluice_status sl_file_writer_commit(sl_file_writer *writer, sluice_error *error)
{
    SL_TRY(check_open(writer, error));
    if (flush_descriptor(writer->descriptor) != 0) {
        return write_failed(writer, errno, error);
    }
    (void)posix_fadvise(writer->descriptor, 0, 0, POSIX_FADV_DONTNEED);
    /* The lock goes with the descriptor, so the rename comes first: until then nobody may take the partial file over.
     */
    if (rename(writer->temporary_path, writer->final_path) != 0) {
        return sl_error_set_system(error, SLUICE_ERROR_IO, errno,
                                   "%s: cannot give the finished file this name; check the directory's permissions",
                                   writer->final_path);
    }
    free(writer->temporary_path);
    writer->temporary_path = NULL;
    int close_result = close(writer->descriptor);
    int close_errno = errno;
    writer->descriptor = -1;
    if (close_result != 0 && close_errno != EINTR) {
        return sl_error_set_system(error, SLUICE_ERROR_IO, close_errno,
                                   "%s: the system reported a write error when the file was closed; write it again",
                                   writer->final_path);
    }
    if (flush_directory_of(writer->final_path) != 0) {
        return sl_error_set_system(error, SLUICE_ERROR_IO, errno,
                                   "%s: the file is complete, but its directory cannot be flushed to the disk; a power "
                                   "failure may lose it, write it again",
                                   writer->final_path);
    }
    return SLUICE_OK;
}

void sl_file_writer_close(sl_file_writer *writer)
{
    if (writer->temporary_path != NULL) {
        unlink(writer->temporary_path);
    }
    if (writer->descriptor >= 0) {
        close(writer->descriptor);
    }
    free(writer->temporary_path);
    free(writer->final_path);
    *writer = (sl_file_writer){.descriptor = -1};
}
