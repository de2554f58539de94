/* Owns the symbols and the queue of a merger.
 *
 * Invariants
 *  (1) symbol.rank is the rank of (symbol, next) as the list stands now.
 *  (2) Every live symbol with a rank has an entry (rank, index) in the queue. Entries that don't equal their symbol's
 *      present rank are stale and skipped.
 *  (3) The queue holds at most 2n entries: n - 1 at first, and a merge removes one and adds at most two.
 * Threads: owner only. */
#include "text/merge.h"

void sl_merger_init(sl_merger *merger, sl_memory *memory)
{
    *merger = (sl_merger){.memory = memory};
}

void sl_merger_fini(sl_merger *merger)
{
    sl_free(merger->memory, merger->queue);
    sl_free(merger->memory, merger->symbols);
    sl_merger_init(merger, merger->memory);
}

bool sl_merger_reserve(sl_merger *merger, size_t n_symbols)
{
    if (n_symbols <= merger->capacity) {
        return true;
    }
    size_t capacity = n_symbols < 64 ? 64 : n_symbols + n_symbols / 2;
    sl_merger_fini(merger);
    merger->symbols = sl_alloc(merger->memory, SL_MEMORY_TEXT, capacity, sizeof *merger->symbols);
    merger->queue = sl_alloc(merger->memory, SL_MEMORY_TEXT, capacity, 2 * sizeof *merger->queue);
    if (merger->symbols == NULL || merger->queue == NULL) {
        sl_merger_fini(merger);
        return false;
    }
    merger->capacity = capacity;
    return true;
}

static void push(sl_merger *merger, uint64_t entry)
{
    uint64_t *queue = merger->queue;
    size_t hole = merger->n_queued++;
    while (hole > 0 && entry < queue[(hole - 1) / 2]) {
        queue[hole] = queue[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    queue[hole] = entry;
}

static uint64_t pop(sl_merger *merger)
{
    uint64_t *queue = merger->queue;
    uint64_t lowest = queue[0];
    uint64_t last = queue[--merger->n_queued];
    size_t hole = 0;
    for (size_t child = 1; child < merger->n_queued; child = 2 * hole + 1) {
        if (child + 1 < merger->n_queued && queue[child + 1] < queue[child]) {
            child++;
        }
        if (last <= queue[child]) {
            break;
        }
        queue[hole] = queue[child];
        hole = child;
    }
    queue[hole] = last;
    return lowest;
}

/* Bring the rank of (symbol, next) up to date after either changed. */
static void rank_pair(sl_merger *merger, uint32_t index, sl_merge_rank rank_of, const void *context)
{
    sl_symbol *symbol = &merger->symbols[index];
    symbol->rank = SL_MERGE_NONE;
    if (symbol->next != SL_MERGE_NONE) {
        symbol->rank = rank_of(context, symbol, &merger->symbols[symbol->next], &symbol->merged_id);
    }
    if (symbol->rank != SL_MERGE_NONE) {
        push(merger, (uint64_t)symbol->rank << 32 | index);
    }
}

void sl_merger_run(sl_merger *merger, size_t n_symbols, sl_merge_rank rank_of, const void *context)
{
    sl_symbol *symbols = merger->symbols;
    merger->n_queued = 0;
    for (size_t i = 0; i < n_symbols; i++) {
        symbols[i].previous = i == 0 ? SL_MERGE_NONE : (uint32_t)(i - 1);
        symbols[i].next = i + 1 == n_symbols ? SL_MERGE_NONE : (uint32_t)(i + 1);
    }
    for (size_t i = 0; i < n_symbols; i++) {
        rank_pair(merger, (uint32_t)i, rank_of, context);
    }
    while (merger->n_queued > 0) {
        uint64_t entry = pop(merger);
        uint32_t index = (uint32_t)entry;
        sl_symbol *left = &symbols[index];
        if (left->length == 0 || left->rank != (uint32_t)(entry >> 32)) {
            continue;
        }
        sl_symbol *right = &symbols[left->next];
        left->id = left->merged_id;
        left->length += right->length;
        left->next = right->next;
        right->length = 0;
        if (left->next != SL_MERGE_NONE) {
            symbols[left->next].previous = index;
        }
        rank_pair(merger, index, rank_of, context);
        if (left->previous != SL_MERGE_NONE) {
            rank_pair(merger, left->previous, rank_of, context);
        }
    }
}
