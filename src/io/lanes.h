/* The reads that wait for their turn, in one lane for each device, so that a slow one does not hold up another: every
 * device has places in flight that no other can take. For the backends, which lock. */
#ifndef SL_IO_LANES_H
#define SL_IO_LANES_H

#include "io/reads.h"

enum { SL_MAX_LANES = 8 };

typedef struct sl_lane {
    uint64_t device;      /* of its files */
    sl_read *first;       /* borrowed; oldest of the lane */
    sl_read *last;        /* borrowed */
    uint64_t split_bytes; /* of `first`: has been started; the backend's own */
    uint32_t n_in_flight; /* counted by the backend */
} sl_lane;

typedef struct sl_lanes {
    uint32_t capacity; /* in flight, all lanes together */
    uint32_t n_lanes;
    uint32_t i_next; /* whose turn it is */
    sl_lane lanes[SL_MAX_LANES];
} sl_lanes;

void sl_lanes_init(sl_lanes *lanes, uint32_t capacity);
/* The lane of a read; a device beyond the table shares the last one. */
sl_lane *sl_lanes_of(sl_lanes *lanes, const sl_read *read);
/* Put a read at the end of its lane. */
void sl_lanes_add(sl_lanes *lanes, sl_read *read);
/* The next lane, in turn, that has a read and a place for it; NULL when there is none. Fewer than `capacity` must be in
 * flight. */
sl_lane *sl_lanes_next(sl_lanes *lanes);
bool sl_lanes_are_empty(const sl_lanes *lanes);

/* Take the oldest read off its lane. */
sl_read *sl_lane_take(sl_lane *lane);

#endif
