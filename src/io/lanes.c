/* Owns nothing: queues of reads that are linked through the reads themselves.
 *
 * Invariants
 *  (1) A read is in one lane at most, that of its file's device; within a lane reads keep the order in which they came.
 *  (2) Half of the places in flight are divided among the lanes, 1 at least for each, and kept free for them; the rest
 *      goes to who comes first. So devices whose reads do not come back leave the others half of an equal share; only
 *      what they had in flight before a further device was met can be more, and with fewer places than devices there is
 *      not one for each.
 *  (3) Lanes are never given up: a device once met keeps its places. An engine reads few files, on few devices.
 * Threads: the caller's lock, or the one thread that owns the lanes. */
#include "io/lanes.h"

void sl_lanes_init(sl_lanes *lanes, uint32_t capacity)
{
    *lanes = (sl_lanes){.capacity = capacity};
}

sl_lane *sl_lanes_of(sl_lanes *lanes, const sl_read *read)
{
    uint64_t device = read->file->identity.device;
    for (uint32_t i_lane = 0; i_lane < lanes->n_lanes; i_lane++) {
        if (lanes->lanes[i_lane].device == device) {
            return &lanes->lanes[i_lane];
        }
    }
    if (lanes->n_lanes == SL_MAX_LANES) {
        return &lanes->lanes[SL_MAX_LANES - 1];
    }
    lanes->lanes[lanes->n_lanes].device = device;
    return &lanes->lanes[lanes->n_lanes++];
}

void sl_lanes_add(sl_lanes *lanes, sl_read *read)
{
    sl_lane *lane = sl_lanes_of(lanes, read);
    read->next = NULL;
    if (lane->first == NULL) {
        lane->first = read;
    } else {
        lane->last->next = read;
    }
    lane->last = read;
}

/* Places that are kept free for a lane and that it does not use. */
static uint32_t unused_places(const sl_lanes *lanes, const sl_lane *lane)
{
    uint32_t n_kept = lanes->capacity / (2 * lanes->n_lanes);
    n_kept = n_kept > 0 ? n_kept : 1;
    return lane->n_in_flight < n_kept ? n_kept - lane->n_in_flight : 0;
}

sl_lane *sl_lanes_next(sl_lanes *lanes)
{
    uint32_t n_spoken_for = 0; /* in flight, or kept free */
    for (uint32_t i_lane = 0; i_lane < lanes->n_lanes; i_lane++) {
        n_spoken_for += lanes->lanes[i_lane].n_in_flight + unused_places(lanes, &lanes->lanes[i_lane]);
    }
    for (uint32_t n_tried = 0; n_tried < lanes->n_lanes; n_tried++) {
        sl_lane *lane = &lanes->lanes[lanes->i_next];
        lanes->i_next = (lanes->i_next + 1) % lanes->n_lanes;
        if (lane->first != NULL && (unused_places(lanes, lane) > 0 || n_spoken_for < lanes->capacity)) {
            return lane;
        }
    }
    return NULL;
}

bool sl_lanes_are_empty(const sl_lanes *lanes)
{
    for (uint32_t i_lane = 0; i_lane < lanes->n_lanes; i_lane++) {
        if (lanes->lanes[i_lane].first != NULL) {
            return false;
        }
    }
    return true;
}

sl_read *sl_lane_take(sl_lane *lane)
{
    sl_read *read = lane->first;
    lane->first = read->next;
    read->next = NULL;
    return read;
}
