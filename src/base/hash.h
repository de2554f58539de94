/* 64-bit hashing (XXH64): map keys and the logits hash. */
#ifndef SL_BASE_HASH_H
#define SL_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* The same value on every machine for the same bytes and seed. */
uint64_t sl_hash64(const void *bytes, size_t length, uint64_t seed);

#endif
