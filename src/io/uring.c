/* Owns an io_uring and the one thread that submits to it and reaps from it.
 *
 * Invariants
 *  (1) Only the reader thread touches the ring, the pieces and everything below "reader's own"; it also makes the ring,
 *      so the kernel may assume a single issuer. Other threads hand it reads through the queue.
 *  (2) A read is in exactly one place: in the queue, in its device's lane, in pieces in flight, or with its owner;
 *      `next` links the queue and the lane. The first of a lane is being split: n_unfinished counts all its pieces
 *      from the start, so it cannot be finished early.
 *  (3) Devices take turns, and each has pieces that no other can take (lanes.h). Pieces of one device start in the
 *      order in which their reads were submitted, and within a read from front to back. A piece that has to go on
 *      (partial, interrupted, refused) keeps its place and goes before new ones.
 *  (4) At most one entry of the ring belongs to a piece, and one to the wake-up; the ring has depth + 1 entries at
 *      least, so an entry is always free when one is needed, and completions cannot overflow.
 *  (5) `sleeping` is true only when the reader found the queue empty and has a free piece; who submits then clears it
 *      and writes the wake-up descriptor. So a sleeping reader is woken once for a batch, a busy one never. What then
 *      waits in a lane waits for a piece of that device, whose completion wakes the reader too.
 *  (6) The kernel writes a destination only between the submission of a piece and its completion; a read is reported
 *      after all its pieces completed, without the lock, exactly once.
 *  (7) The reader ends only when the engine is closing, queue and lanes are empty and nothing is in flight, the wake-up
 *      included; a read that is submitted from on_done while the engine closes is still done.
 *  (8) A ring that stops taking work is given up: what it took is waited for, everything else is done with pread by the
 *      reader. A read never depends on the ring alone.
 *  (9) Memory is registered only while has_memory is true and the ring is there (registered.h). A read that the kernel
 *      refuses only because of that is done without.
 *
 * Life of a read:  QUEUED [uring_submit] -> in a lane [take_queue] -> pieces in flight [start_piece] -> reported
 * [finish_piece].
 * Life of a piece: free -> in flight [start_piece] -> free [finish_piece]; partial, interrupted or refused ones are
 * submitted again [complete_piece].
 * Threads: "guarded" belongs to whoever holds the lock, "reader's own" to the reader; the rest never changes after
 * open. No lock of a caller is needed; a caller may hold its own while it submits. */
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "io/backends.h"
#include "io/lanes.h"
#include "io/registered.h"
#include "os/thread.h"

enum {
    DEFAULT_DEPTH = 64,
    DEFAULT_PIECE_BYTES = 1024 * 1024,
    MAX_AGAIN = 8,              /* EAGAIN of one piece, before that is its result */
    MAX_STALLS = 200,           /* submissions in a row that the kernel refuses, before the ring is given up */
    STALL_NS = 1000 * 1000,     /* pause after each */
    MAX_KERNEL_WORKERS = 4,     /* threads of the kernel for reads that cannot go on without blocking */
    KERNEL_REQUEST_BYTES = 256, /* what a memory cgroup is charged for each piece in flight, as measured */
    KERNEL_FIXED_BYTES = 8192,  /* and for a ring beside its pages */
    WAKE_UP = 0                 /* as user data of a completion; pieces count from 1 */
};

#define NO_PIECE UINT32_MAX

typedef struct uring_piece {
    sl_read *read; /* borrowed; NULL: free */
    sl_stretch stretch;
    bool direct;
    bool cached;     /* not direct, because the page cache has it: which stays as it is */
    bool blocking;   /* let a thread of the kernel wait for it */
    bool in_range;   /* submitted as a read into registered memory */
    int range_errno; /* why that failed, so that it is done without; 0: it did not */
    uint32_t n_again;
    uint32_t next_free; /* NO_PIECE at the end */
} uring_piece;

typedef enum ring_state { RING_STARTING, RING_RUNNING, RING_REFUSED } ring_state;

typedef struct uring {
    sl_memory *memory; /* borrowed */
    void (*on_done)(void *user, sl_read *read);
    void *user; /* borrowed */
    sl_refusals refusals;
    uint32_t depth;
    uint32_t piece_bytes;
    int wake_descriptor; /* owned */
    sl_thread reader;
    pthread_mutex_t lock;
    pthread_cond_t answered; /* the reader has tried to make its ring, or has done what wants_memory says */

    /* Guarded by `lock`. */
    sl_read *first; /* borrowed; oldest of the queue */
    sl_read *last;  /* borrowed */
    bool closing;
    bool sleeping;
    bool wants_memory; /* memory is to be registered */
    bool has_memory;   /* the reader has seen to that */
    ring_state state;
    int ring_errno; /* RING_REFUSED: why */

    /* Reader's own. */
    struct io_uring ring;
    sl_registered registered;
    bool given_up;     /* the ring is closed */
    bool ending;       /* closing, and the queue was empty when last seen */
    bool wake_armed;   /* a read of the wake-up descriptor is in flight */
    uint64_t n_wakes;  /* where that read goes */
    uint32_t n_stalls; /* refused submissions in a row */
    sl_lanes lanes;    /* what came through the queue and is not started whole */
    uint32_t n_in_flight;
    uint32_t first_free;
    uring_piece pieces[]; // [depth]
} uring;

/* What the thread sanitizer cannot see: writes of the kernel, and memory that is mapped without the C library.
 * Announced at submission and at completion, a write finds an owner of the destination who touches it in between. That
 * each ring's end comes before the next one's start tells the sanitizer that memory at the same address is another
 * ring's. */
#if defined(__has_feature)
#define SANITIZES_THREADS __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define SANITIZES_THREADS 1
#else
#define SANITIZES_THREADS 0
#endif
#if SANITIZES_THREADS
void __tsan_write_range(void *address, long bytes);
void __tsan_acquire(void *address);
void __tsan_release(void *address);
static const char ring_memory; /* an address, never touched */
static void announce_write(void *address, uint64_t bytes)
{
    __tsan_write_range(address, (long)bytes);
}
static void announce_ring_start(void)
{
    __tsan_acquire((void *)(uintptr_t)&ring_memory);
}
static void announce_ring_end(void)
{
    __tsan_release((void *)(uintptr_t)&ring_memory);
}
#else
static void announce_write(void *address, uint64_t bytes)
{
    (void)address;
    (void)bytes;
}
static void announce_ring_start(void)
{
}
static void announce_ring_end(void)
{
}
#endif

/* --- The ring --- */

static uint32_t entries_of(uint32_t depth)
{
    uint32_t n_entries = 1;
    while (n_entries < depth + 1) {
        n_entries *= 2;
    }
    return n_entries;
}

static void close_ring(struct io_uring *ring)
{
    announce_ring_end();
    io_uring_queue_exit(ring);
}

/* Whether reads work at all: kernels and sandboxes may allow the set-up and refuse the rest. Returns an errno or 0. */
static int try_read(struct io_uring *ring, int wake_descriptor)
{
    uint64_t value = 1;
    if (write(wake_descriptor, &value, sizeof value) != (ssize_t)sizeof value) {
        return errno;
    }
    struct io_uring_sqe *entry = io_uring_get_sqe(ring);
    io_uring_prep_read(entry, wake_descriptor, &value, sizeof value, 0);
    int submitted;
    do {
        submitted = io_uring_submit_and_wait(ring, 1);
    } while (submitted == -EINTR);
    struct io_uring_cqe *completion = NULL;
    if (submitted < 0 || io_uring_peek_cqe(ring, &completion) != 0) {
        return submitted < 0 ? -submitted : EIO;
    }
    int result = completion->res;
    io_uring_cqe_seen(ring, completion);
    return result == (int)sizeof value ? 0 : result < 0 ? -result : EIO;
}

/* From the richest set of flags to none: older kernels refuse the newer ones. Returns an errno or 0. */
static int open_ring(struct io_uring *ring, uint32_t n_entries, int wake_descriptor)
{
    static const unsigned flags[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
        0,
    };
    int failed = EINVAL;
    for (size_t i_set = 0; i_set < sizeof flags / sizeof flags[0] && failed == EINVAL; i_set++) {
        struct io_uring_params parameters = {.flags = flags[i_set]};
        failed = -io_uring_queue_init_params(n_entries, ring, &parameters);
    }
    if (failed != 0) {
        return failed;
    }
    announce_ring_start();
    failed = try_read(ring, wake_descriptor);
    if (failed != 0) {
        close_ring(ring);
        return failed;
    }
    unsigned n_workers[2] = {MAX_KERNEL_WORKERS, 1};
    (void)io_uring_register_iowq_max_workers(ring, n_workers);
    return 0;
}

static sluice_status refused(int system_errno, sluice_error *error)
{
    return sl_error_set_system(
        error, SLUICE_ERROR_UNSUPPORTED, system_errno,
        "the system gives this process no io_uring; allow it (the container's system call filter, "
        "or sysctl kernel.io_uring_disabled) or use --io pread");
}

/* --- Pieces --- */

static void finish_read(uring *self, sl_read *read)
{
    sl_read_conclude(read, read->system_errno);
    self->on_done(self->user, read);
}

static void finish_piece(uring *self, uring_piece *piece, int failed)
{
    sl_read *read = piece->read;
    read->bytes_read += piece->stretch.arrived;
    if (read->system_errno == 0) {
        read->system_errno = failed;
    }
    read->cut = read->cut || piece->stretch.arrived < piece->stretch.required;
    piece->read = NULL;
    piece->next_free = self->first_free;
    self->first_free = (uint32_t)(piece - self->pieces);
    self->n_in_flight--;
    sl_lanes_of(&self->lanes, read)->n_in_flight--;
    if (--read->n_unfinished == 0) {
        finish_read(self, read);
    }
}

/* Queue what has not arrived of a piece; it reaches the kernel with the next submission. */
static void submit_piece(uring *self, uring_piece *piece)
{
    const sl_read *read = piece->read;
    if (self->given_up) {
        finish_piece(self, piece, sl_stretch_perform(&piece->stretch, read, &self->refusals));
        return;
    }
    uint64_t place = piece->stretch.start + piece->stretch.arrived;
    unsigned bytes = (unsigned)(piece->stretch.length - piece->stretch.arrived);
    int descriptor = piece->direct ? read->file->direct_descriptor : read->file->descriptor;
    unsigned char *destination = (unsigned char *)read->destination + place;
    int file = piece->direct ? sl_registered_file(&self->registered, read->file) : SL_NOT_REGISTERED;
    int range = piece->direct && !piece->blocking && piece->range_errno == 0
                    ? sl_registered_range(&self->registered, destination, bytes)
                    : SL_NOT_REGISTERED;
    piece->in_range = range != SL_NOT_REGISTERED;
    struct io_uring_sqe *entry = io_uring_get_sqe(&self->ring);
    io_uring_prep_read(entry, file != SL_NOT_REGISTERED ? file : descriptor, destination, bytes, read->offset + place);
    if (piece->in_range) {
        entry->opcode = IORING_OP_READ_FIXED;
        entry->buf_index = (uint16_t)range;
    }
    io_uring_sqe_set_data64(entry, (uint64_t)(piece - self->pieces) + 1);
    io_uring_sqe_set_flags(entry,
                           (piece->blocking ? IOSQE_ASYNC : 0u) | (file != SL_NOT_REGISTERED ? IOSQE_FIXED_FILE : 0u));
    announce_write(destination, bytes);
}

/* A completion of a piece: `result` is a count or a negative errno. */
static void complete_piece(uring *self, uring_piece *piece, int result)
{
    const sl_read *read = piece->read;
    sl_stretch *stretch = &piece->stretch;
    if (result == -EINTR) {
        submit_piece(self, piece);
    } else if (result == -EAGAIN && piece->n_again < MAX_AGAIN) {
        piece->n_again++;
        piece->blocking = true;
        submit_piece(self, piece);
    } else if (piece->in_range && (result == -EINVAL || result == -EFAULT || result == -EOPNOTSUPP)) {
        piece->range_errno = -result;
        submit_piece(self, piece);
    } else if (result == -EINVAL && piece->direct) {
        sl_refusals_add(&self->refusals, read);
        piece->direct = false;
        piece->range_errno = 0;
        submit_piece(self, piece);
    } else if (result < 0) {
        finish_piece(self, piece, -result);
    } else {
        uint64_t place = stretch->start + stretch->arrived;
        if (piece->range_errno != 0) {
            sl_registered_refuse_ranges(&self->registered, piece->range_errno);
        }
        announce_write((unsigned char *)read->destination + place, (uint64_t)result);
        stretch->arrived += (uint64_t)result;
        if (!piece->direct && !piece->cached) {
            sl_file_forget(read->file, read->offset + place, (uint64_t)result);
        }
        bool file_ended = result == 0 && !piece->direct;
        if (stretch->arrived >= stretch->required || file_ended) {
            finish_piece(self, piece, 0);
            return;
        }
        piece->direct = piece->direct && result > 0 && (uint64_t)result % read->file->direct_alignment == 0;
        submit_piece(self, piece);
    }
}

static uint64_t step_of(const uring *self, const sl_read *read)
{
    uint64_t alignment = read->file->direct_alignment;
    return self->piece_bytes > alignment ? self->piece_bytes : alignment;
}

/* Do as wants_memory says. */
static void register_memory(uring *self, bool registered)
{
    if (!self->given_up && registered) {
        sl_registered_allow_ranges(&self->registered);
    } else if (!self->given_up) {
        sl_registered_drop_ranges(&self->registered);
    }
    pthread_mutex_lock(&self->lock);
    self->has_memory = registered;
    pthread_cond_broadcast(&self->answered);
    pthread_mutex_unlock(&self->lock);
}

/* Move what was submitted into the lanes; a read that asks for nothing is done. false when there was nothing: the
 * reader may sleep or end. */
static bool take_queue(uring *self)
{
    pthread_mutex_lock(&self->lock);
    sl_read *read = self->first;
    self->first = NULL;
    self->last = NULL;
    self->sleeping = read == NULL && self->first_free != NO_PIECE;
    self->ending = read == NULL && self->closing;
    bool wants_memory = self->wants_memory;
    bool has_memory = self->has_memory;
    pthread_mutex_unlock(&self->lock);
    if (wants_memory != has_memory) {
        register_memory(self, wants_memory);
    }
    if (read == NULL) {
        return false;
    }
    while (read != NULL) {
        sl_read *next = read->next;
        uint64_t step = step_of(self, read);
        read->n_unfinished = (uint32_t)((read->required + step - 1) / step);
        if (read->n_unfinished == 0) {
            finish_read(self, read);
        } else {
            sl_lanes_add(&self->lanes, read);
        }
        read = next;
    }
    return true;
}

/* Start the next piece of the first read of a lane. */
static void start_piece(uring *self, sl_lane *lane)
{
    sl_read *read = lane->first;
    uring_piece *piece = &self->pieces[self->first_free];
    self->first_free = piece->next_free;
    self->n_in_flight++;
    lane->n_in_flight++;
    uint64_t start = lane->split_bytes;
    uint64_t step = step_of(self, read);
    uint64_t length = read->length - start < step ? read->length - start : step;
    uint64_t required = read->required - start < length ? read->required - start : length;
    sl_stretch stretch = {.start = start, .length = length, .required = required};
    bool cached = sl_stretch_is_cached(&stretch, read, &self->refusals);
    *piece = (uring_piece){.read = read,
                           .stretch = stretch,
                           .cached = cached,
                           .direct = !cached && sl_refusals_allow(&self->refusals, read)};
    lane->split_bytes += length;
    if (lane->split_bytes >= read->required) {
        lane->split_bytes = 0;
        (void)sl_lane_take(lane);
    }
    submit_piece(self, piece);
}

/* The queue is looked at last, and always: what waits in it may be for a device that has free places. */
static void start_pieces(uring *self)
{
    do {
        sl_lane *lane = NULL;
        while (self->first_free != NO_PIECE && (lane = sl_lanes_next(&self->lanes)) != NULL) {
            start_piece(self, lane);
        }
    } while (take_queue(self));
}

/* --- The reader --- */

static void wake_reader(uring *self)
{
    uint64_t one = 1;
    (void)!write(self->wake_descriptor, &one, sizeof one);
}

static void pause_briefly(void)
{
    struct timespec pause = {.tv_nsec = STALL_NS};
    (void)nanosleep(&pause, NULL);
}

static void handle(uring *self, const struct io_uring_cqe *completion)
{
    if (completion->user_data != WAKE_UP) {
        complete_piece(self, &self->pieces[completion->user_data - 1], completion->res);
        return;
    }
    self->wake_armed = false;
    if (completion->res != (int)sizeof self->n_wakes) {
        self->n_stalls++;
        pause_briefly();
    }
}

static void reap(uring *self)
{
    unsigned place;
    unsigned n_completions = 0;
    struct io_uring_cqe *completion;
    io_uring_for_each_cqe(&self->ring, place, completion)
    {
        handle(self, completion);
        n_completions++;
    }
    io_uring_cq_advance(&self->ring, n_completions);
}

/* Note the pieces that the kernel did not take. Returns how many completions are still to come. */
static uint32_t find_untaken(uring *self, bool untaken[SL_READS_MAX_DEPTH])
{
    const struct io_uring_sq *queue = &self->ring.sq;
    uint32_t n_to_come = self->n_in_flight + (self->wake_armed ? 1 : 0);
    for (unsigned place = *queue->khead; place != queue->sqe_tail; place++) {
        uint64_t data = queue->sqes[place & queue->ring_mask].user_data;
        if (data == WAKE_UP) {
            self->wake_armed = false;
        } else {
            untaken[data - 1] = true;
        }
        n_to_come--;
    }
    return n_to_come;
}

/* Close a ring that takes no more work: wait for what it took, do the rest without it. */
static void give_up(uring *self, int system_errno)
{
    sluice_error reason;
    (void)sl_error_set_system(&reason, SLUICE_ERROR_SYSTEM, system_errno,
                              "the system stopped taking reads through io_uring; reading goes on with pread");
    sl_log_line(self->refusals.log, SL_LOG_WARNING, "%s", reason.message);
    bool untaken[SL_READS_MAX_DEPTH] = {false};
    uint32_t n_to_come = find_untaken(self, untaken);
    self->given_up = true;
    wake_reader(self);
    while (n_to_come > 0) {
        struct io_uring_cqe *completion = NULL;
        if (io_uring_wait_cqe(&self->ring, &completion) == 0) {
            handle(self, completion);
            io_uring_cqe_seen(&self->ring, completion);
            n_to_come--;
        } else {
            pause_briefly();
        }
    }
    sl_registered_close(&self->registered);
    close_ring(&self->ring);
    for (uint32_t i_piece = 0; i_piece < self->depth; i_piece++) {
        if (untaken[i_piece]) {
            submit_piece(self, &self->pieces[i_piece]);
        }
    }
}

static void arm_wake_up(uring *self)
{
    if (!self->wake_armed && !self->ending) {
        struct io_uring_sqe *entry = io_uring_get_sqe(&self->ring);
        io_uring_prep_read(entry, self->wake_descriptor, &self->n_wakes, sizeof self->n_wakes, 0);
        io_uring_sqe_set_data64(entry, WAKE_UP);
        self->wake_armed = true;
    }
}

/* Hand over what was prepared and sleep until something completes or somebody submits. */
static void submit_and_wait(uring *self)
{
    if (self->given_up) {
        if (!self->ending) {
            (void)!read(self->wake_descriptor, &self->n_wakes, sizeof self->n_wakes);
        }
        return;
    }
    arm_wake_up(self);
    int submitted = io_uring_submit_and_wait(&self->ring, 1);
    if (submitted >= 0) {
        self->n_stalls = 0;
    } else if (submitted != -EINTR) {
        self->n_stalls++;
        pause_briefly();
    }
    reap(self);
    if (self->n_stalls > MAX_STALLS) {
        give_up(self, submitted < 0 ? -submitted : EIO);
    }
}

static void *run(void *argument)
{
    uring *self = argument;
    int failed = open_ring(&self->ring, entries_of(self->depth), self->wake_descriptor);
    if (failed == 0) {
        sl_registered_open(&self->registered, &self->ring);
    }
    pthread_mutex_lock(&self->lock);
    self->state = failed == 0 ? RING_RUNNING : RING_REFUSED;
    self->ring_errno = failed;
    pthread_cond_signal(&self->answered);
    pthread_mutex_unlock(&self->lock);
    if (failed != 0) {
        return NULL;
    }
    for (;;) {
        start_pieces(self);
        if (self->ending && self->n_in_flight == 0) {
            if (!self->wake_armed) {
                break;
            }
            wake_reader(self); /* the one from closing may have been taken before all pieces were done */
        }
        submit_and_wait(self);
    }
    if (!self->given_up) {
        sl_registered_close(&self->registered);
        close_ring(&self->ring);
    }
    return NULL;
}

/* --- The backend --- */

static void uring_submit(void *own, sl_read *read)
{
    uring *self = own;
    sl_read_begin(read);
    pthread_mutex_lock(&self->lock);
    if (self->last == NULL) {
        self->first = read;
    } else {
        self->last->next = read;
    }
    self->last = read;
    bool wake = self->sleeping;
    self->sleeping = false;
    pthread_mutex_unlock(&self->lock);
    if (wake) {
        wake_reader(self);
    }
}

static void uring_perform(void *own, sl_read *read)
{
    uring *self = own;
    sl_read_begin(read);
    sl_read_perform(read, &self->refusals);
    self->on_done(self->user, read);
}

static void uring_redirect(void *own, void (*on_done)(void *user, sl_read *read), void *user)
{
    uring *self = own;
    self->on_done = on_done;
    self->user = user;
}

static void uring_register_memory(void *own, bool registered)
{
    uring *self = own;
    pthread_mutex_lock(&self->lock);
    self->wants_memory = registered;
    wake_reader(self);
    while (self->has_memory != registered) {
        pthread_cond_wait(&self->answered, &self->lock);
    }
    pthread_mutex_unlock(&self->lock);
}

static void uring_describe(void *own, char *text, size_t capacity)
{
    const uring *self = own;
    snprintf(text, capacity, "uring, %u pieces of up to %u KiB in flight", self->depth, self->piece_bytes / 1024);
    sl_registered_describe(&self->registered, text, capacity);
}

static void free_all(uring *self)
{
    pthread_cond_destroy(&self->answered);
    pthread_mutex_destroy(&self->lock);
    close(self->wake_descriptor);
    sl_free(self->memory, self);
}

static void uring_close(void *own)
{
    uring *self = own;
    pthread_mutex_lock(&self->lock);
    self->closing = true;
    wake_reader(self);
    pthread_mutex_unlock(&self->lock);
    sl_thread_join(&self->reader);
    free_all(self);
}

static const sl_reads_backend uring_backend = {.name = "uring",
                                               .submit = uring_submit,
                                               .perform = uring_perform,
                                               .redirect = uring_redirect,
                                               .register_memory = uring_register_memory,
                                               .describe = uring_describe,
                                               .close = uring_close};

static uint32_t depth_of(const sl_reads_options *options)
{
    return options->depth == 0 ? DEFAULT_DEPTH : options->depth;
}

static size_t engine_bytes(uint32_t depth)
{
    return sizeof(uring) + (size_t)depth * sizeof(uring_piece);
}

static uint64_t whole_pages(uint64_t bytes)
{
    return (bytes + 4095) & ~UINT64_C(4095);
}

sl_reads_cost sl_reads_uring_cost(const sl_reads_options *options)
{
    uint32_t depth = depth_of(options);
    uint64_t n_entries = entries_of(depth);
    uint64_t ring_bytes = whole_pages(n_entries * sizeof(struct io_uring_sqe)) +
                          whole_pages(2 * n_entries * sizeof(struct io_uring_cqe) + n_entries * sizeof(uint32_t));
    return (sl_reads_cost){.account_bytes = sl_memory_cost(engine_bytes(depth), 16),
                           .kernel_bytes = ring_bytes + depth * KERNEL_REQUEST_BYTES + KERNEL_FIXED_BYTES +
                                           sl_registered_kernel_bytes(options),
                           .n_threads = 1};
}

sluice_status sl_reads_check_uring(sluice_error *error)
{
    int wake_descriptor = eventfd(0, EFD_CLOEXEC);
    if (wake_descriptor < 0) {
        return sl_error_set_system(error, SLUICE_ERROR_SYSTEM, errno, "cannot open a descriptor to wake a thread with");
    }
    struct io_uring ring;
    int failed = open_ring(&ring, 1, wake_descriptor);
    close(wake_descriptor);
    if (failed != 0) {
        return refused(failed, error);
    }
    close_ring(&ring);
    return SLUICE_OK;
}

/* What must be there before the reader starts. */
static sluice_status init(uring *self, sluice_error *error)
{
    self->first_free = NO_PIECE;
    for (uint32_t i_piece = self->depth; i_piece-- > 0;) {
        self->pieces[i_piece].next_free = self->first_free;
        self->first_free = i_piece;
    }
    self->wake_descriptor = eventfd(0, EFD_CLOEXEC);
    if (self->wake_descriptor < 0) {
        return sl_error_set_system(error, SLUICE_ERROR_SYSTEM, errno, "cannot open a descriptor to wake a thread with");
    }
    int failed = pthread_mutex_init(&self->lock, NULL);
    if (failed == 0) {
        failed = pthread_cond_init(&self->answered, NULL);
        if (failed != 0) {
            pthread_mutex_destroy(&self->lock);
        }
    }
    if (failed != 0) {
        close(self->wake_descriptor);
        return sl_error_set_system(error, SLUICE_ERROR_SYSTEM, failed, "cannot set up the lock of the reader thread");
    }
    return SLUICE_OK;
}

/* Start the reader and wait until it has its ring. */
static sluice_status start(uring *self, sluice_error *error)
{
    SL_TRY(sl_thread_start(&self->reader, "sluice-read", run, self, error));
    pthread_mutex_lock(&self->lock);
    while (self->state == RING_STARTING) {
        pthread_cond_wait(&self->answered, &self->lock);
    }
    ring_state state = self->state;
    pthread_mutex_unlock(&self->lock);
    if (state == RING_REFUSED) {
        sl_thread_join(&self->reader);
        return refused(self->ring_errno, error);
    }
    return SLUICE_OK;
}

sluice_status sl_reads_open_uring(sl_reads *reads, const sl_reads_options *options, sl_memory *memory,
                                  const sl_log *log, void (*on_done)(void *user, sl_read *read), void *user,
                                  sluice_error *error)
{
    uint32_t depth = depth_of(options);
    uring *self = sl_alloc(memory, SL_MEMORY_IO, 1, engine_bytes(depth));
    if (self == NULL) {
        return sl_error_no_memory(error, engine_bytes(depth), "the reader thread");
    }
    self->memory = memory;
    self->on_done = on_done;
    self->user = user;
    self->refusals.log = log;
    self->refusals.from_cache = options->from_cache;
    sl_registered_init(&self->registered, options, log);
    self->wants_memory = self->has_memory = true;
    self->depth = depth;
    sl_lanes_init(&self->lanes, depth);
    self->piece_bytes = options->piece_bytes == 0 ? DEFAULT_PIECE_BYTES : options->piece_bytes;
    sluice_status status = init(self, error);
    if (status != SLUICE_OK) {
        sl_free(memory, self);
        return status;
    }
    status = start(self, error);
    if (status != SLUICE_OK) {
        free_all(self);
        return status;
    }
    *reads = (sl_reads){.backend = &uring_backend, .self = self, .on_done = on_done, .user = user};
    return SLUICE_OK;
}
