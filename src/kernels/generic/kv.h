/* One element of a cached key or value. */
#ifndef SL_KERNELS_GENERIC_KV_H
#define SL_KERNELS_GENERIC_KV_H

#include "kernels/table.h"
#include "quant/blocks.h"
#include "quant/half.h"

static inline float sl_kv_element(const void *elements, size_t index, sl_kv_type kv_type)
{
    if (kv_type == SL_KV_Q8_0) {
        const sl_block_q8_0 *block = (const sl_block_q8_0 *)elements + index / SL_KV_BLOCK;
        return sl_f16_to_f32(block->d) * (float)block->q[index % SL_KV_BLOCK];
    }
    return kv_type == SL_KV_F32 ? ((const float *)elements)[index] : sl_f16_to_f32(((const uint16_t *)elements)[index]);
}

#endif
