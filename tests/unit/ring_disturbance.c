/* Owns nothing: stands between the read engine and its io_uring. Each read of a file that is being submitted is
 * answered by the test, and goes to the kernel as an operation that does nothing, whose result is then the test's
 * answer. Threads: the ring's. */
#include "ring_disturbance.h"

#include <liburing.h>
#include <stdint.h>

int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned n_wanted);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned n_wanted);

enum { MAX_USER_DATA = 1024 };

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned n_wanted)
{
    int answers[MAX_USER_DATA + 1];
    bool answered[MAX_USER_DATA + 1] = {false};
    for (unsigned place = ring->sq.sqe_head; place != ring->sq.sqe_tail; place++) {
        struct io_uring_sqe *entry = &ring->sq.sqes[place & ring->sq.ring_mask];
        bool reads = entry->opcode == IORING_OP_READ || entry->opcode == IORING_OP_READ_FIXED;
        if (!reads || entry->user_data == 0 || entry->user_data > MAX_USER_DATA) {
            continue; /* not of a file */
        }
        if (!answers_reads()) {
            break;
        }
        uint64_t user_data = entry->user_data;
        int descriptor = (entry->flags & IOSQE_FIXED_FILE) != 0 ? registered_descriptor() : entry->fd;
        answers[user_data] =
            (int)disturbed_read(descriptor, (void *)(uintptr_t)entry->addr, entry->len, (off_t)entry->off);
        answered[user_data] = true;
        io_uring_prep_nop(entry);
        entry->user_data = user_data;
    }
    int submitted = __real_io_uring_submit_and_wait(ring, n_wanted);
    unsigned place;
    struct io_uring_cqe *completion;
    io_uring_for_each_cqe(ring, place, completion)
    {
        if (completion->user_data <= MAX_USER_DATA && answered[completion->user_data]) {
            completion->res = answers[completion->user_data];
        }
    }
    return submitted;
}
