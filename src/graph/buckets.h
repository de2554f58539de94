/* Batch-size buckets: half-open ranges of row counts, each compiled for its largest. */
#ifndef SL_GRAPH_BUCKETS_H
#define SL_GRAPH_BUCKETS_H

#include <stdint.h>

#include "base/error.h"

typedef struct sl_bucket {
    uint64_t begin, end; /* begin <= rows < end; compiled for end - 1 */
} sl_bucket;

enum { SL_MAX_BUCKETS = 64 };

/* Powers of two from `minimum` to `maximum`: [1, p + 1), [p + 1, 2p + 1), ... where p is the smallest power of two >=
 * minimum and the last extent is the smallest power of two >= maximum. Example (8, 256): first range [1, 9), then [9,
 * 17), ... Returns the count, 0 when minimum is 0 or above maximum. */
uint32_t sl_bucket_ladder(uint64_t minimum, uint64_t maximum, sl_bucket buckets[SL_MAX_BUCKETS]);

/* ARGUMENT for an empty list, an empty range or ranges that overlap. */
SLUICE_NODISCARD sluice_status sl_buckets_check(const sl_bucket *buckets, uint32_t n_buckets, sluice_error *error);

/* Index of the bucket that holds `rows`, or UINT32_MAX. */
uint32_t sl_buckets_find(const sl_bucket *buckets, uint32_t n_buckets, uint64_t rows);

#endif
