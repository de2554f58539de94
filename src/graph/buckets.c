/* Owns nothing. Threads: any. */
#include "graph/buckets.h"

#include <inttypes.h>

/* Smallest power of two >= n, for 1 <= n <= 2^63. */
static uint64_t power_of_two_from(uint64_t n)
{
    uint64_t power = 1;
    while (power < n) {
        power *= 2;
    }
    return power;
}

uint32_t sl_bucket_ladder(uint64_t minimum, uint64_t maximum, sl_bucket buckets[SL_MAX_BUCKETS])
{
    const uint64_t largest_extent = (uint64_t)1 << 63;
    if (minimum == 0 || minimum > maximum || maximum > largest_extent) {
        return 0;
    }
    uint64_t last_extent = power_of_two_from(maximum);
    uint64_t begin = 1;
    uint32_t n_buckets = 0;
    for (uint64_t extent = power_of_two_from(minimum);; extent *= 2) {
        buckets[n_buckets++] = (sl_bucket){.begin = begin, .end = extent + 1};
        if (extent == last_extent) {
            return n_buckets;
        }
        begin = extent + 1;
    }
}

sluice_status sl_buckets_check(const sl_bucket *buckets, uint32_t n_buckets, sluice_error *error)
{
    if (n_buckets == 0 || n_buckets > SL_MAX_BUCKETS) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "the list has %" PRIu32 " buckets: expected 1 to %d",
                            n_buckets, SL_MAX_BUCKETS);
    }
    for (uint32_t i = 0; i < n_buckets; i++) {
        const sl_bucket *a = &buckets[i];
        if (a->begin >= a->end || a->end == 1) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "bucket %" PRIu32 " [%" PRIu64 ", %" PRIu64 ") holds no number of rows above 0", i,
                                a->begin, a->end);
        }
        for (uint32_t j = 0; j < i; j++) {
            const sl_bucket *b = &buckets[j];
            if (a->begin < b->end && b->begin < a->end) {
                return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                    "buckets %" PRIu32 " [%" PRIu64 ", %" PRIu64 ") and %" PRIu32 " [%" PRIu64
                                    ", %" PRIu64 ") overlap",
                                    j, b->begin, b->end, i, a->begin, a->end);
            }
        }
    }
    return SLUICE_OK;
}

uint32_t sl_buckets_find(const sl_bucket *buckets, uint32_t n_buckets, uint64_t rows)
{
    for (uint32_t i = 0; i < n_buckets; i++) {
        if (rows >= buckets[i].begin && rows < buckets[i].end) {
            return i;
        }
    }
    return UINT32_MAX;
}
