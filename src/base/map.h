/* A hash map from byte strings to 32-bit numbers: vocabulary, metadata keys, tensor names. */
#ifndef SL_BASE_MAP_H
#define SL_BASE_MAP_H

#include "base/strings.h"

typedef struct sl_map_entry {
    sl_span key; /* borrowed: outlives the map; data is NULL in an empty cell */
    uint32_t hash;
    uint32_t value;
} sl_map_entry;

/* Open addressing, at most half full. Iteration order is never exposed, and differs between
 * maps. thread: readers may share a map that nobody
 * changes. */
typedef struct sl_map {
    sl_memory *memory; /* borrowed: outlives the map */
    sl_memory_tag tag;
    uint64_t seed;         /* of the hash; random, so that no file can be written whose names all collide */
    sl_map_entry *entries; /* owned; [capacity], a power of two */
    size_t capacity;
    size_t count;
} sl_map;

void sl_map_init(sl_map *map, sl_memory *memory, sl_memory_tag tag);
void sl_map_fini(sl_map *map);

/* Room for `count` keys without another allocation. */
SLUICE_NODISCARD bool sl_map_reserve(sl_map *map, size_t count);

/* Add a key that borrows its bytes. false when memory is refused. When the key is there already nothing changes and
 * `*existing` (may be NULL) says so. */
SLUICE_NODISCARD bool sl_map_insert(sl_map *map, sl_span key, uint32_t value, bool *existing);

bool sl_map_find(const sl_map *map, sl_span key, uint32_t *value);

#endif
