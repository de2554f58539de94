/* Owns nothing: sizes and places, computed with overflow in mind.
 *
 * Invariants
 *  (1) A range that passed check_range ends inside its file, and no file is larger than INT64_MAX less an alignment;
 *      so after the check no sum of offsets can overflow.
 *  (2) Ranges of one expert that are read with the same or touching blocks of a file are one piece: no block is read
 *      twice for one expert.
 *  (3) Pieces start at multiples of piece_alignment in the slot, and in the file at multiples of what direct reads of
 *      it ask.
 * Threads: any. */
#include "experts/geometry.h"

#include <inttypes.h>

#include "base/checked.h"

enum {
    MIN_PIECE_ALIGNMENT = 64, /* a cache line, where nothing asks for more */
    SLOT_ALIGNMENT = 4096,
    MAX_DIRECT_ALIGNMENT = 1024 * 1024
};

static const uint64_t max_experts = (uint64_t)1 << 28;

static bool reads_directly(const sl_file *file)
{
    return file->direct_descriptor >= 0;
}

static uint64_t alignment_of(const sl_file *file)
{
    return reads_directly(file) ? file->direct_alignment : 1;
}

static uint64_t minimum(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t round_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

/* The places of the ranges that have bytes, by file and then by offset. Returns how many there are. */
static uint32_t sort_ranges(const sl_expert_range *ranges, uint32_t n_ranges, uint32_t order[SL_EXPERT_MAX_RANGES])
{
    uint32_t n_sorted = 0;
    for (uint32_t i_range = 0; i_range < n_ranges; i_range++) {
        const sl_expert_range *range = &ranges[i_range];
        if (range->bytes == 0) {
            continue;
        }
        uint32_t place = n_sorted++;
        while (place > 0) {
            const sl_expert_range *before = &ranges[order[place - 1]];
            if (before->file < range->file || (before->file == range->file && before->offset <= range->offset)) {
                break;
            }
            order[place] = order[place - 1];
            place--;
        }
        order[place] = i_range;
    }
    return n_sorted;
}

void sl_expert_layout_of(const sl_store_file *files, uint64_t piece_alignment, const sl_expert_range *ranges,
                         uint32_t n_ranges, sl_expert_layout *layout)
{
    *layout = (sl_expert_layout){0};
    for (uint32_t i_range = 0; i_range < n_ranges; i_range++) {
        layout->matrix_offsets[i_range] = SL_NO_MATRIX;
    }
    uint32_t order[SL_EXPERT_MAX_RANGES];
    uint32_t n_sorted = sort_ranges(ranges, n_ranges, order);
    sl_expert_piece *piece = NULL;
    for (uint32_t i_sorted = 0; i_sorted < n_sorted; i_sorted++) {
        const sl_expert_range *range = &ranges[order[i_sorted]];
        const sl_file *file = files[range->file].file;
        uint64_t alignment = alignment_of(file);
        uint64_t start = range->offset & ~(alignment - 1);
        uint64_t end = round_up(range->offset + range->bytes, alignment);
        if (piece == NULL || piece->file != range->file || start > piece->offset + piece->length) {
            piece = &layout->pieces[layout->n_pieces++];
            uint64_t slot_offset = round_up(layout->slot_bytes, piece_alignment);
            *piece = (sl_expert_piece){.file = range->file, .offset = start, .slot_offset = slot_offset};
        }
        if (end > piece->offset + piece->length) {
            piece->length = end - piece->offset;
            piece->required = minimum(end, file->identity.bytes) - piece->offset;
        }
        layout->slot_bytes = piece->slot_offset + piece->length;
        layout->matrix_offsets[order[i_sorted]] = piece->slot_offset + (range->offset - piece->offset);
        layout->expert_bytes += range->bytes;
    }
}

static sluice_status check_files(const sl_store_config *config, sl_store_geometry *geometry, sluice_error *error)
{
    geometry->piece_alignment = MIN_PIECE_ALIGNMENT;
    for (uint32_t i_file = 0; i_file < config->n_files; i_file++) {
        const sl_file *file = config->files[i_file].file;
        if (file->identity.bytes > INT64_MAX - MAX_DIRECT_ALIGNMENT) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "%s: a file of %" PRIu64 " bytes cannot be addressed",
                                config->files[i_file].path, file->identity.bytes);
        }
        uint32_t alignment = reads_directly(file) ? file->direct_alignment : 1;
        if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > MAX_DIRECT_ALIGNMENT) {
            return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                                "%s: expected a power of two up to %d as alignment of direct reads, found %" PRIu32,
                                config->files[i_file].path, MAX_DIRECT_ALIGNMENT, alignment);
        }
        if (alignment > geometry->piece_alignment) {
            geometry->piece_alignment = alignment;
        }
    }
    return SLUICE_OK;
}

static sluice_status check_range(const sl_store_config *config, uint64_t place, uint32_t i_range, sluice_error *error)
{
    const sl_expert_range *range = &config->ranges[place * config->n_ranges + i_range];
    if (range->bytes == 0) {
        return SLUICE_OK;
    }
    uint64_t layer = place / config->n_experts;
    uint64_t expert = place % config->n_experts;
    if (range->file >= config->n_files) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "expert %" PRIu64 " of MoE layer %" PRIu64 ": matrix %" PRIu32 " names file %" PRIu32
                            ", but there are %" PRIu32,
                            expert, layer, i_range, range->file, config->n_files);
    }
    const sl_store_file *file = &config->files[range->file];
    if (range->offset > file->file->identity.bytes || range->bytes > file->file->identity.bytes - range->offset) {
        return sl_error_set(
            error, SLUICE_ERROR_FORMAT,
            "%s: expert %" PRIu64 " of MoE layer %" PRIu64 ": matrix %" PRIu32 " has %" PRIu64 " bytes at byte %" PRIu64
            ", but the file ends at %" PRIu64 "; it is truncated, copy or download it again",
            file->path, expert, layer, i_range, range->bytes, range->offset, file->file->identity.bytes);
    }
    return SLUICE_OK;
}

/* The largest expert decides the size of all slots. */
static sluice_status measure_experts(const sl_store_config *config, sl_store_geometry *geometry, sluice_error *error)
{
    uint64_t largest = 0;
    for (uint64_t place = 0; place < geometry->n_total; place++) {
        uint64_t sum = 0;
        for (uint32_t i_range = 0; i_range < config->n_ranges; i_range++) {
            SL_TRY(check_range(config, place, i_range, error));
            if (!sl_checked_add(sum, config->ranges[place * config->n_ranges + i_range].bytes, &sum) ||
                sum > INT64_MAX / 2) {
                return sl_error_set(error, SLUICE_ERROR_FORMAT,
                                    "expert %" PRIu64 " of MoE layer %" PRIu64
                                    ": the matrices are too large to be true; the file is damaged",
                                    place % config->n_experts, place / config->n_experts);
            }
        }
        sl_expert_layout layout;
        sl_expert_layout_of(config->files, geometry->piece_alignment, &config->ranges[place * config->n_ranges],
                            config->n_ranges, &layout);
        if (layout.slot_bytes > largest) {
            largest = layout.slot_bytes;
        }
    }
    uint64_t alignment = geometry->piece_alignment > SLOT_ALIGNMENT ? geometry->piece_alignment : SLOT_ALIGNMENT;
    geometry->slot_bytes = round_up(largest == 0 ? 1 : largest, alignment);
    return SLUICE_OK;
}

sluice_status sl_store_geometry_of(const sl_store_config *config, uint64_t n_slots, sl_store_geometry *geometry,
                                   sluice_error *error)
{
    *geometry = (sl_store_geometry){.n_total = (uint64_t)config->n_layers * config->n_experts};
    if (geometry->n_total < 1 || geometry->n_total > max_experts) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "expected 1 to %" PRIu64 " experts in all, found %" PRIu32 " layers with %" PRIu32
                            " experts each",
                            max_experts, config->n_layers, config->n_experts);
    }
    if (config->n_ranges < 1 || config->n_ranges > SL_EXPERT_MAX_RANGES) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT, "expected 1 to %d matrices per expert, found %" PRIu32,
                            SL_EXPERT_MAX_RANGES, config->n_ranges);
    }
    SL_TRY(check_files(config, geometry, error));
    SL_TRY(measure_experts(config, geometry, error));
    uint64_t arena_bytes = 0;
    if (n_slots < 1 || n_slots >= UINT32_MAX || !sl_checked_multiply(n_slots, geometry->slot_bytes, &arena_bytes) ||
        arena_bytes > INT64_MAX / 2) {
        return sl_error_set(error, SLUICE_ERROR_ARGUMENT,
                            "expected 1 or more expert slots that fit into memory, found %" PRIu64 " of %" PRIu64
                            " bytes",
                            n_slots, geometry->slot_bytes);
    }
    return SLUICE_OK;
}
