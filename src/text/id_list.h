/* A growing list of token ids: what encoding produces. */
#ifndef SL_TEXT_ID_LIST_H
#define SL_TEXT_ID_LIST_H

#include "base/memory.h"
#include "base/strings.h"

/* thread: owner only. */
typedef struct sl_id_list {
    sl_memory *memory; /* borrowed: outlives the list */
    int32_t *ids;      /* owned; [capacity], tag TEXT */
    size_t count;
    size_t capacity;
} sl_id_list;

/* false when memory is refused; the list is then unchanged. */
SLUICE_NODISCARD bool sl_id_list_reserve(sl_id_list *list, size_t capacity);
SLUICE_NODISCARD bool sl_id_list_append(sl_id_list *list, int32_t id);

#endif
