/* Where the bytes of an expert go inside a slot, and how large everything is. */
#ifndef SL_EXPERTS_GEOMETRY_H
#define SL_EXPERTS_GEOMETRY_H

#include "experts/store.h"

/* One read that brings in one or more ranges of an expert. */
typedef struct sl_expert_piece {
    uint32_t file;
    uint64_t offset;      /* a multiple of the file's direct alignment where the file is read directly */
    uint64_t length;      /* likewise */
    uint64_t required;    /* less than `length` only at the end of the file */
    uint64_t slot_offset; /* where it lands in the slot */
} sl_expert_piece;

typedef struct sl_expert_layout {
    uint32_t n_pieces;
    sl_expert_piece pieces[SL_EXPERT_MAX_RANGES];  // [n_pieces]
    uint64_t matrix_offsets[SL_EXPERT_MAX_RANGES]; // [n_ranges] in the slot; SL_NO_MATRIX for a range of no bytes
    uint64_t expert_bytes;                         /* of the ranges alone */
    uint64_t slot_bytes;                           /* end of the last piece */
} sl_expert_layout;

#define SL_NO_MATRIX UINT64_MAX

/* Every size the store needs, checked. Valid as long as the configuration it came from. */
typedef struct sl_store_geometry {
    uint64_t piece_alignment; /* of pieces within a slot: a power of two */
    uint64_t slot_bytes;      /* of the largest expert, a multiple of piece_alignment and of 4096 */
    uint64_t n_total;         /* n_layers * n_experts */
} sl_store_geometry;

/* Check the whole configuration but for what the read engine checks, and that `n_slots` slots have a size. */
SLUICE_NODISCARD sluice_status sl_store_geometry_of(const sl_store_config *config, uint64_t n_slots,
                                                    sl_store_geometry *geometry, sluice_error *error);

/* Lay one expert out. `ranges` is [n_ranges] and was checked. */
void sl_expert_layout_of(const sl_store_file *files, uint64_t piece_alignment, const sl_expert_range *ranges,
                         uint32_t n_ranges, sl_expert_layout *layout);

#endif
