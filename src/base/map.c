/* Owns the cell array. Invariants: (1) capacity is 0 or a power of two above twice the count; (2) a key sits in the
 * first free cell after its hash, so a search may stop at the first empty cell; (3) nothing is ever removed; (4) where
 * keys sit depends on a random seed, what a caller sees does not. */
#include "base/map.h"

#include <sys/random.h>

#include "base/hash.h"

static const char empty_key[1] = "";

void sl_map_init(sl_map *map, sl_memory *memory, sl_memory_tag tag)
{
    *map = (sl_map){.memory = memory, .tag = tag};
    if (getrandom(&map->seed, sizeof map->seed, GRND_NONBLOCK) != (ssize_t)sizeof map->seed) {
        /* Early at boot: the address is hard to guess as well. */
        map->seed = (uint64_t)(uintptr_t)map;
    }
}

void sl_map_fini(sl_map *map)
{
    sl_free(map->memory, map->entries);
    *map = (sl_map){.memory = map->memory, .tag = map->tag, .seed = map->seed};
}

static uint32_t hash_key(const sl_map *map, sl_span key)
{
    uint64_t hash = sl_hash64(key.data, key.length, map->seed);
    return (uint32_t)(hash ^ (hash >> 32));
}

/* The cell that holds `key`, or the empty one where it belongs. */
static sl_map_entry *find_cell(const sl_map *map, sl_span key, uint32_t hash)
{
    size_t mask = map->capacity - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        sl_map_entry *entry = &map->entries[i];
        if (entry->key.data == NULL || (entry->hash == hash && sl_span_equal(entry->key, key))) {
            return entry;
        }
    }
}

bool sl_map_reserve(sl_map *map, size_t count)
{
    if (count > SIZE_MAX / 8) {
        return false;
    }
    size_t capacity = 16;
    while (capacity <= count * 2) {
        capacity *= 2;
    }
    if (capacity <= map->capacity) {
        return true;
    }
    sl_map grown = *map;
    grown.capacity = capacity;
    grown.entries = sl_alloc(map->memory, map->tag, capacity, sizeof *grown.entries);
    if (grown.entries == NULL) {
        return false;
    }
    for (size_t i = 0; i < map->capacity; i++) {
        if (map->entries[i].key.data != NULL) {
            *find_cell(&grown, map->entries[i].key, map->entries[i].hash) = map->entries[i];
        }
    }
    sl_free(map->memory, map->entries);
    *map = grown;
    return true;
}

bool sl_map_insert(sl_map *map, sl_span key, uint32_t value, bool *existing)
{
    if (!sl_map_reserve(map, map->count + 1)) {
        return false;
    }
    if (key.data == NULL) {
        key.data = empty_key;
    }
    uint32_t hash = hash_key(map, key);
    sl_map_entry *entry = find_cell(map, key, hash);
    bool found = entry->key.data != NULL;
    if (!found) {
        *entry = (sl_map_entry){.key = key, .hash = hash, .value = value};
        map->count++;
    }
    if (existing != NULL) {
        *existing = found;
    }
    return true;
}

bool sl_map_find(const sl_map *map, sl_span key, uint32_t *value)
{
    if (map->capacity == 0) {
        return false;
    }
    const sl_map_entry *entry = find_cell(map, key, hash_key(map, key));
    if (entry->key.data == NULL) {
        return false;
    }
    *value = entry->value;
    return true;
}
