/* Greedy merging of neighbours, best pair first: the loop that BPE and SentencePiece share. */
#ifndef SL_TEXT_MERGE_H
#define SL_TEXT_MERGE_H

#include "base/memory.h"
#include "base/strings.h"

/* No neighbour, or no merge. */
#define SL_MERGE_NONE UINT32_MAX

/* One run of the piece's bytes. Live symbols form a list in text order that covers the piece. */
typedef struct sl_symbol {
    uint32_t start;    /* in the piece */
    uint32_t length;   /* 0: merged into its left neighbour */
    int32_t id;        /* of the token, or -1 */
    uint32_t previous; /* SL_MERGE_NONE at the ends */
    uint32_t next;
    uint32_t rank;     /* of merging with `next`, lower is better; SL_MERGE_NONE: never */
    int32_t merged_id; /* the token of that merge */
} sl_symbol;

/* Scratch of one encoding; grows to the largest piece. thread: owner only. */
typedef struct sl_merger {
    sl_memory *memory;  /* borrowed: outlives the merger */
    sl_symbol *symbols; /* owned; [capacity] */
    uint64_t *queue;    /* owned; [2 * capacity], a heap of rank << 32 | index of the left symbol */
    size_t n_queued;
    size_t capacity;
} sl_merger;

void sl_merger_init(sl_merger *merger, sl_memory *memory);
void sl_merger_fini(sl_merger *merger);

/* Room for `n_symbols`; the contents of `symbols` are lost. false when memory is refused. */
SLUICE_NODISCARD bool sl_merger_reserve(sl_merger *merger, size_t n_symbols);

/* The rank of merging two neighbours, below SL_MERGE_NONE, and the token it gives; SL_MERGE_NONE when they don't. */
typedef uint32_t (*sl_merge_rank)(const void *context, const sl_symbol *left, const sl_symbol *right,
                                  int32_t *merged_id);

/* Merge symbols[0..n_symbols), whose start, length and id are set, until no pair merges: always the pair of the lowest
 * rank, the leftmost of several. Symbol 0 stays the head of the list. Time O(n log n). */
void sl_merger_run(sl_merger *merger, size_t n_symbols, sl_merge_rank rank_of, const void *context);

#endif
