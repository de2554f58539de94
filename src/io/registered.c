/* Owns the tables of registered memory and files of one ring.
 *
 * Invariants
 *  (1) A bit of `registered` is set exactly while the kernel has that range in its table; its pages are then pinned, and
 *      the addresses must keep those pages: who changes that has the ranges dropped before.
 *  (2) An entry names a range only while its bit is set, up to its submission; from there on the kernel keeps what the
 *      read needs until it is done.
 *  (3) A registered file stays open in the kernel until the ring is closed, whatever its owner does. So no other file
 *      can get its inode, and one that agrees in identity and descriptors is the same file.
 *  (4) Whatever the kernel refuses costs nothing but the saving: the read is done without.
 * Threads: the reader's alone, but for sl_registered_describe. */
#include "io/registered.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The kernel's limit for one range. */
static const uint64_t max_range_bytes = (uint64_t)1 << 30;
/* A pointer for each place, and in kernels before 6.13 a number beside. */
enum { KERNEL_PLACE_BYTES = 16 };

static uint32_t places_of(const sl_reads_memory *memory)
{
    if (memory->range_bytes == 0 || memory->range_bytes > max_range_bytes) {
        return 0;
    }
    return memory->n_ranges < SL_MAX_REGISTERED_RANGES ? memory->n_ranges : SL_MAX_REGISTERED_RANGES;
}

/* Entries that are prepared and not submitted become reads of the same bytes by their address. */
static void unname_ranges(struct io_uring_sq *queue)
{
    for (unsigned place = *queue->khead; place != queue->sqe_tail; place++) {
        struct io_uring_sqe *entry = &queue->sqes[place & queue->ring_mask];
        if (entry->opcode == IORING_OP_READ_FIXED) {
            entry->opcode = IORING_OP_READ;
            entry->buf_index = 0;
        }
    }
}

void sl_registered_drop_ranges(sl_registered *registered)
{
    if (!registered->has_ranges) {
        return;
    }
    unname_ranges(&registered->ring->sq);
    while (io_uring_unregister_buffers(registered->ring) == -EINTR) {
    }
    memset(registered->registered, 0, sizeof registered->registered);
    memset(registered->used, 0, sizeof registered->used);
    registered->has_ranges = false;
}

void sl_registered_refuse_ranges(sl_registered *registered, int system_errno)
{
    sl_registered_drop_ranges(registered);
    if (registered->refused_errno != 0) {
        return;
    }
    registered->refused_errno = system_errno;
    sluice_error reason;
    (void)sl_error_set_system(&reason, SLUICE_ERROR_UNSUPPORTED, system_errno,
                              "reading goes on without registered memory");
    sl_log_line(registered->log, SL_LOG_INFO, "%s", reason.message);
}

void sl_registered_allow_ranges(sl_registered *registered)
{
    uint32_t n_places = places_of(&registered->memory);
    if (n_places == 0 || registered->refused_errno != 0) {
        return;
    }
    int failed = -io_uring_register_buffers_sparse(registered->ring, n_places);
    registered->has_ranges = failed == 0;
    if (failed != 0) {
        sl_registered_refuse_ranges(registered, failed);
    }
}

void sl_registered_init(sl_registered *registered, const sl_reads_options *options, const sl_log *log)
{
    registered->log = log;
    registered->memory = options->memory;
    registered->plain_files = options->plain_files;
}

void sl_registered_open(sl_registered *registered, struct io_uring *ring)
{
    registered->ring = ring;
    registered->has_files =
        !registered->plain_files && io_uring_register_files_sparse(ring, SL_MAX_REGISTERED_FILES) == 0;
    sl_registered_allow_ranges(registered);
}

void sl_registered_close(sl_registered *registered)
{
    sl_registered_drop_ranges(registered);
    if (registered->has_files) {
        while (io_uring_unregister_files(registered->ring) == -EINTR) {
        }
        registered->has_files = false;
    }
}

static bool is_set(const uint64_t *bits, uint64_t place)
{
    return (bits[place / 64] >> (place % 64) & 1u) != 0;
}

static void set(uint64_t *bits, uint64_t place)
{
    bits[place / 64] |= (uint64_t)1 << (place % 64);
}

static bool add_range(sl_registered *registered, uint32_t i_range)
{
    const sl_reads_memory *memory = &registered->memory;
    struct iovec range = {.iov_base = memory->start + i_range * memory->range_bytes, .iov_len = memory->range_bytes};
    int n_added = io_uring_register_buffers_update_tag(registered->ring, i_range, &range, NULL, 1);
    if (n_added != 1) {
        sl_registered_refuse_ranges(registered, n_added < 0 ? -n_added : EIO);
        return false;
    }
    set(registered->registered, i_range);
    return true;
}

int sl_registered_range(sl_registered *registered, const void *destination, uint64_t bytes)
{
    const sl_reads_memory *memory = &registered->memory;
    uint64_t place = (uintptr_t)destination - (uintptr_t)memory->start;
    if (!registered->has_ranges || (uintptr_t)destination < (uintptr_t)memory->start) {
        return SL_NOT_REGISTERED;
    }
    uint64_t i_range = place / memory->range_bytes;
    if (i_range >= places_of(memory) || place % memory->range_bytes + bytes > memory->range_bytes) {
        return SL_NOT_REGISTERED;
    }
    if (is_set(registered->registered, i_range)) {
        return (int)i_range;
    }
    bool reused = place % memory->range_bytes == 0 && is_set(registered->used, i_range);
    if (place % memory->range_bytes == 0) {
        set(registered->used, i_range);
    }
    return reused && add_range(registered, (uint32_t)i_range) ? (int)i_range : SL_NOT_REGISTERED;
}

static bool are_same(const sl_file *one, const sl_file *other)
{
    return one->direct_descriptor == other->direct_descriptor && one->identity.device == other->identity.device &&
           one->identity.inode == other->identity.inode && one->identity.bytes == other->identity.bytes &&
           one->identity.modified_ns == other->identity.modified_ns;
}

int sl_registered_file(sl_registered *registered, const sl_file *file)
{
    if (!registered->has_files) {
        return SL_NOT_REGISTERED;
    }
    uint32_t i_file = 0;
    while (i_file < registered->n_files && !are_same(&registered->files[i_file], file)) {
        i_file++;
    }
    if (i_file == registered->n_files) {
        int descriptor = file->direct_descriptor;
        if (i_file == SL_MAX_REGISTERED_FILES || registered->refused_file) {
            return SL_NOT_REGISTERED;
        }
        if (io_uring_register_files_update(registered->ring, i_file, &descriptor, 1) != 1) {
            registered->refused_file = true;
            return SL_NOT_REGISTERED;
        }
        registered->files[registered->n_files++] = *file;
    }
    return (int)i_file;
}

void sl_registered_describe(const sl_registered *registered, char *text, size_t capacity)
{
    static const char *const words[2][2] = {{"", ", registered files"},
                                            {", registered memory", ", registered memory and files"}};
    size_t length = strlen(text);
    sluice_error reason = {0};
    if (registered->refused_errno != 0) {
        (void)sl_error_set_system(&reason, SLUICE_ERROR_UNSUPPORTED, registered->refused_errno,
                                  "; memory is not registered");
    }
    snprintf(text + length, capacity - length, "%s%s", words[registered->has_ranges][registered->has_files],
             reason.message);
}

static uint64_t whole_pages(uint64_t bytes)
{
    return (bytes + 4095) & ~UINT64_C(4095);
}

uint64_t sl_registered_kernel_bytes(const sl_reads_options *options)
{
    return whole_pages((uint64_t)places_of(&options->memory) * KERNEL_PLACE_BYTES) +
           (options->plain_files ? 0 : whole_pages((uint64_t)SL_MAX_REGISTERED_FILES * KERNEL_PLACE_BYTES));
}
