/* Owns nothing; a thin wall around the xxHash library. */
#include "base/hash.h"

#include <xxhash.h>

uint64_t sl_hash64(const void *bytes, size_t length, uint64_t seed)
{
    return XXH64(length > 0 ? bytes : "", length, seed);
}
