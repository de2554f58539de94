/* Filling the kernel table.
 *
 * Owns: which function runs for which operation.
 * Invariants:
 *   1. Generic fills every entry; a better set replaces entries only when the processor has it, so no instruction of a
 *      set runs on a machine without it.
 *   2. Embedding rows are decoded by quant's reference: a row is a few kilobytes per token.
 * Threads: a table is immutable after sl_kernel_table_init. */
#include "kernels/table.h"

#include <string.h>

#include "kernels/arm/neon.h"
#include "kernels/generic/generic.h"
#include "kernels/x86/amx.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx512.h"

static sl_matmul_fn *const generic_matmul[SL_TYPE_COUNT] = {
    [SL_TYPE_F32] = sl_generic_matmul_f32,         [SL_TYPE_F16] = sl_generic_matmul_f16,
    [SL_TYPE_BF16] = sl_generic_matmul_bf16,       [SL_TYPE_Q4_0] = sl_generic_matmul_q4_0,
    [SL_TYPE_Q4_1] = sl_generic_matmul_q4_1,       [SL_TYPE_Q5_0] = sl_generic_matmul_q5_0,
    [SL_TYPE_Q5_1] = sl_generic_matmul_q5_1,       [SL_TYPE_Q8_0] = sl_generic_matmul_q8_0,
    [SL_TYPE_IQ4_NL] = sl_generic_matmul_iq4_nl,   [SL_TYPE_MXFP4] = sl_generic_matmul_mxfp4,
    [SL_TYPE_Q2_K] = sl_generic_matmul_q2_k,       [SL_TYPE_Q3_K] = sl_generic_matmul_q3_k,
    [SL_TYPE_Q4_K] = sl_generic_matmul_q4_k,       [SL_TYPE_Q5_K] = sl_generic_matmul_q5_k,
    [SL_TYPE_Q6_K] = sl_generic_matmul_q6_k,       [SL_TYPE_IQ4_XS] = sl_generic_matmul_iq4_xs,
    [SL_TYPE_IQ1_S] = sl_generic_matmul_iq1_s,     [SL_TYPE_IQ1_M] = sl_generic_matmul_iq1_m,
    [SL_TYPE_IQ2_XXS] = sl_generic_matmul_iq2_xxs, [SL_TYPE_IQ2_XS] = sl_generic_matmul_iq2_xs,
    [SL_TYPE_IQ2_S] = sl_generic_matmul_iq2_s,     [SL_TYPE_IQ3_XXS] = sl_generic_matmul_iq3_xxs,
    [SL_TYPE_IQ3_S] = sl_generic_matmul_iq3_s,
};

static void fill_generic(sl_kernel_table *table)
{
    memcpy(table->matmul, generic_matmul, sizeof table->matmul);
    table->quantize_row[SL_TYPE_ACT_Q8_32] = sl_generic_quantize_row_q8_32;
    table->quantize_row[SL_TYPE_ACT_Q8_256] = sl_generic_quantize_row_q8_256;
    for (int type = 0; type < SL_TYPE_FILE_COUNT; type++) {
        const sl_type_traits *traits = sl_type_traits_of(type);
        table->decode_row[type] = traits == NULL ? NULL : traits->decode_row;
    }
    table->rms_norm = sl_generic_rms_norm;
    table->add = sl_generic_add;
    table->multiply = sl_generic_multiply;
    table->swiglu = sl_generic_swiglu;
    table->silu = sl_generic_silu;
    table->gelu = sl_generic_gelu;
    table->clamp = sl_generic_clamp;
    table->sigmoid_scale = sl_generic_sigmoid_scale;
    table->accumulate = sl_generic_accumulate;
    table->softmax = sl_generic_softmax;
    table->rope_table = sl_generic_rope_table;
    table->rope = sl_generic_rope;
    table->store_kv = sl_generic_store_kv;
    table->attention = sl_generic_attention;
}

#if defined(__x86_64__)

static void fill_better_sets(sl_kernel_table *table)
{
    if (table->isa >= SL_ISA_AVX2) {
        sl_avx2_fill(table);
    }
    if (table->isa >= SL_ISA_AVX512) {
        sl_avx512_fill(table);
    }
    if (table->isa >= SL_ISA_AMX) {
        sl_amx_fill(table);
    }
}

#elif defined(__aarch64__)

static void fill_better_sets(sl_kernel_table *table)
{
    if (table->isa >= SL_ISA_NEON) {
        sl_neon_fill(table);
    }
}

#else

static void fill_better_sets(sl_kernel_table *table)
{
    table->isa = SL_ISA_GENERIC;
}

#endif

void sl_kernel_table_init(sl_kernel_table *table, sl_isa isa)
{
    sl_isa best = sl_cpu_best_isa();
    *table = (sl_kernel_table){.isa = isa < best ? isa : best};
    fill_generic(table);
    fill_better_sets(table);
}

bool sl_kernel_table_falls_back(const sl_kernel_table *table, sl_type type)
{
    if (table->isa == SL_ISA_GENERIC || (unsigned)type >= SL_TYPE_COUNT || table->matmul[type] == NULL) {
        return false;
    }
    return table->matmul[type] == generic_matmul[type];
}
