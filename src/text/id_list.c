/* Owns the array of an sl_id_list. Invariant: count <= capacity, and ids has room for capacity. Threads: owner only. */
#include "text/id_list.h"

bool sl_id_list_reserve(sl_id_list *list, size_t capacity)
{
    if (capacity <= list->capacity && list->ids != NULL) {
        return true;
    }
    int32_t *ids = sl_realloc(list->memory, SL_MEMORY_TEXT, list->ids, capacity, sizeof *ids);
    if (ids == NULL) {
        return false;
    }
    list->ids = ids;
    list->capacity = capacity;
    return true;
}

bool sl_id_list_append(sl_id_list *list, int32_t id)
{
    if (list->count == list->capacity && !sl_id_list_reserve(list, list->capacity < 16 ? 32 : list->capacity * 2)) {
        return false;
    }
    list->ids[list->count++] = id;
    return true;
}
