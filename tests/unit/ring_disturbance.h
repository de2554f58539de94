/* Lets a test answer reads in place of the kernel, also those that go through an io_uring. */
#ifndef TESTS_UNIT_RING_DISTURBANCE_H
#define TESTS_UNIT_RING_DISTURBANCE_H

#include <stdbool.h>
#include <sys/types.h>

/* The test's own: answers a read with a count or a negative errno. Any thread. */
ssize_t disturbed_read(int descriptor, void *destination, size_t length, off_t offset);

/* The test's own: whether reads of files are to be answered so. Asked only while reads are being submitted. */
bool answers_reads(void);

/* The test's own: the descriptor of the only file that is registered with the ring. */
int registered_descriptor(void);

#endif
