/* The operations on rows, on every instruction set of this machine against the definition. */
#include "support.h"

#include <math.h>
#include <string.h>

#include "quant/blocks.h"
#include "quant/half.h"

enum { LONGEST_ROW = 700 };

/* One operation, applied to inputs a and b of n floats; writes n floats. `variant` selects parameters. */
typedef void row_operation(const sl_kernel_table *table, const float *a, const float *b, uint32_t n, int variant,
                           float *out);

static void apply_rms_norm(const sl_kernel_table *table, const float *a, const float *b, uint32_t n, int variant,
                           float *out)
{
    table->rms_norm(a, variant % 2 ? NULL : b, n, 1e-5f, out);
}

static void apply_add(const sl_kernel_table *table, const float *a, const float *b, uint32_t n, int variant, float *out)
{
    (void)variant;
    table->add(a, b, n, out);
}

static void apply_multiply(const sl_kernel_table *table, const float *a, const float *b, uint32_t n, int variant,
                           float *out)
{
    (void)variant;
    table->multiply(a, b, n, out);
}

static void apply_swiglu(const sl_kernel_table *table, const float *a, const float *b, uint32_t n, int variant,
                         float *out)
{
    (void)variant;
    table->swiglu(a, b, n, out);
}

static void apply_silu(const sl_kernel_table *table, const float *a, const float *b, uint32_t n, int variant,
                       float *out)
{
    (void)b;
    (void)variant;
    table->silu(a, n, out);
}

static void apply_gelu(const sl_kernel_table *table, const float *a, const float *b, uint32_t n, int variant,
                       float *out)
{
    (void)b;
    (void)variant;
    table->gelu(a, n, out);
}

static void apply_clamp(const sl_kernel_table *table, const float *a, const float *b, uint32_t n, int variant,
                        float *out)
{
    static const float limits[] = {1.0f, 0.0f, -1.0f};
    (void)b;
    table->clamp(a, n, limits[variant % 3], out);
}

static void apply_sigmoid_scale(const sl_kernel_table *table, const float *a, const float *b, uint32_t n, int variant,
                                float *out)
{
    (void)variant;
    table->sigmoid_scale(a, b[0], n, out);
}

static void apply_accumulate(const sl_kernel_table *table, const float *a, const float *b, uint32_t n, int variant,
                             float *out)
{
    memcpy(out, b, n * sizeof *out);
    table->accumulate(a, 0.37f, variant % 2, n, out);
}

static void apply_softmax(const sl_kernel_table *table, const float *a, const float *b, uint32_t n, int variant,
                          float *out)
{
    (void)b;
    (void)variant;
    memcpy(out, a, n * sizeof *out);
    table->softmax(out, n);
}

static void apply_store_kv(const sl_kernel_table *table, const float *a, const float *b, uint32_t n, int variant,
                           float *out)
{
    (void)b;
    /* The upper half of the output is written too when halves are stored, so that all of it is compared. */
    memset(out, 0, n * sizeof *out);
    table->store_kv(a, n,
                    variant % 3 != 2       ? (sl_kv_type)(variant % 3)
                    : n % SL_KV_BLOCK == 0 ? SL_KV_Q8_0
                                           : SL_KV_F16,
                    out);
}

static const struct {
    const char *name;
    row_operation *apply;
    bool in_place; /* out may be a */
} operations[] = {
    {"rms_norm", apply_rms_norm, true},
    {"add", apply_add, true},
    {"multiply", apply_multiply, true},
    {"swiglu", apply_swiglu, true},
    {"silu", apply_silu, true},
    {"gelu", apply_gelu, true},
    {"clamp", apply_clamp, true},
    {"sigmoid_scale", apply_sigmoid_scale, true},
    {"accumulate", apply_accumulate, false},
    {"softmax", apply_softmax, false},
    {"store_kv", apply_store_kv, false},
};

static void compare_operation(const sl_kernel_table *table, size_t operation, uint32_t n, float_fill fill,
                              random_source *random)
{
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    guarded a = guarded_allocate(n * sizeof(float));
    guarded b = guarded_allocate(n * sizeof(float));
    guarded expected = guarded_allocate(n * sizeof(float));
    guarded actual = guarded_allocate(n * sizeof(float));
    fill_floats(fill, a.data, n, random);
    fill_floats(fill, b.data, n, random);
    int variant = (int)random_below(random, 6);
    operations[operation].apply(&generic, a.data, b.data, n, variant, expected.data);
    operations[operation].apply(table, a.data, b.data, n, variant, actual.data);
    assert_same_floats(actual.data, expected.data, n, "%s %s, %u elements, fill %d, variant %d",
                       sl_isa_name(table->isa), operations[operation].name, n, (int)fill, variant);
    if (operations[operation].in_place) {
        operations[operation].apply(table, a.data, b.data, n, variant, a.data);
        assert_same_floats(a.data, expected.data, n, "%s %s in place, %u elements", sl_isa_name(table->isa),
                           operations[operation].name, n);
    }
    guarded_release(&a);
    guarded_release(&b);
    guarded_release(&expected);
    guarded_release(&actual);
}

static void row_operations_give_the_bits_of_generic(void **state)
{
    (void)state;
    for (int isa = SL_ISA_GENERIC; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        random_source random = {(uint64_t)isa};
        for (size_t operation = 0; operation < sizeof operations / sizeof operations[0]; operation++) {
            for (int fill = 0; fill < FLOATS_FILL_COUNT; fill++) {
                for (uint32_t n = 1; n <= 40; n++) {
                    compare_operation(&table, operation, n, (float_fill)fill, &random);
                }
                compare_operation(&table, operation, 41 + random_below(&random, LONGEST_ROW - 40), (float_fill)fill,
                                  &random);
            }
        }
    }
}

/* Activation functions over the whole range of floats, and softmax over a wide one. */
static void exponentials_agree_over_all_floats(void **state)
{
    (void)state;
    skip_without_other_sets();
    enum { STEP = 65537, ROW = 512 };
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    for (int isa = SL_ISA_GENERIC + 1; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        uint64_t bits = 0;
        while (bits <= UINT32_MAX) {
            float x[ROW], up[ROW], expected[ROW], actual[ROW];
            for (int i = 0; i < ROW; i++, bits += STEP) {
                uint32_t pattern = (uint32_t)bits;
                memcpy(&x[i], &pattern, sizeof pattern);
                up[i] = 1.0f;
            }
            generic.swiglu(x, up, ROW, expected);
            table.swiglu(x, up, ROW, actual);
            assert_same_floats(actual, expected, ROW, "%s swiglu", sl_isa_name(table.isa));
            generic.gelu(x, ROW, expected);
            table.gelu(x, ROW, actual);
            assert_same_floats(actual, expected, ROW, "%s gelu", sl_isa_name(table.isa));
        }
    }
}

static void halves_agree_over_all_floats(void **state)
{
    (void)state;
    skip_without_other_sets();
    enum { STEP = 4099, ROW = 1024 };
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    for (int isa = SL_ISA_GENERIC + 1; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        for (uint64_t bits = 0; bits <= UINT32_MAX;) {
            float x[ROW];
            uint16_t expected[ROW], actual[ROW];
            for (int i = 0; i < ROW; i++, bits += STEP) {
                uint32_t pattern = (uint32_t)bits;
                memcpy(&x[i], &pattern, sizeof pattern);
            }
            generic.store_kv(x, ROW, SL_KV_F16, expected);
            table.store_kv(x, ROW, SL_KV_F16, actual);
            assert_memory_equal(actual, expected, sizeof expected);
        }
    }
}

/* Blocks of every size of number, of numbers of very different size, and of what is no number. */
static void fill_block(float *x, int kind, random_source *random)
{
    for (int i = 0; i < SL_KV_BLOCK; i++) {
        float scale = ldexpf(1.0f, kind - 150);
        x[i] = random_between(random, -1.0f, 1.0f) * scale;
        if (random_below(random, 8) == 0) {
            x[i] = 0.5f * scale * (float)(1 + random_below(random, 254)) / 127.0f;
        }
    }
    if (kind % 9 == 0) {
        x[random_below(random, SL_KV_BLOCK)] = kind % 2 ? NAN : -INFINITY;
    }
}

static void stored_blocks_give_the_bits_of_generic(void **state)
{
    (void)state;
    skip_without_other_sets();
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    random_source random = {41};
    for (int isa = SL_ISA_GENERIC + 1; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        for (int kind = 0; kind < 270; kind++) {
            float x[2 * SL_KV_BLOCK];
            uint8_t expected[2 * SL_KV_BLOCK_BYTES];
            uint8_t actual[2 * SL_KV_BLOCK_BYTES];
            fill_block(x, kind, &random);
            fill_block(x + SL_KV_BLOCK, kind, &random);
            generic.store_kv(x, 2 * SL_KV_BLOCK, SL_KV_Q8_0, expected);
            table.store_kv(x, 2 * SL_KV_BLOCK, SL_KV_Q8_0, actual);
            assert_memory_equal(actual, expected, sizeof expected);
        }
    }
}

static void stored_blocks_come_near_what_they_hold(void **state)
{
    (void)state;
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    random_source random = {43};
    for (int kind = 0; kind < 270; kind++) {
        float x[SL_KV_BLOCK];
        sl_block_q8_0 block;
        fill_block(x, kind, &random);
        generic.store_kv(x, SL_KV_BLOCK, SL_KV_Q8_0, &block);
        float d = sl_f16_to_f32(block.d);
        float largest = 0.0f;
        bool is_finite = true;
        for (int i = 0; i < SL_KV_BLOCK; i++) {
            largest = fmaxf(largest, fabsf(x[i]));
            is_finite = is_finite && isfinite(x[i]);
        }
        assert_int_equal(isnan(d), !is_finite || largest / 127.0f >= 65520.0f);
        for (int i = 0; i < SL_KV_BLOCK && !isnan(d); i++) {
            /* Half a step, and what rounding d may cut off at the top. */
            float cut = fabsf(largest / 127.0f - d) * 127.001f;
            assert_true(d == 0.0f ? largest < 0x1p-17f : fabsf(d * block.q[i] - x[i]) <= 0.5001f * d + cut);
        }
    }
}

static void rotations_give_the_bits_of_generic(void **state)
{
    (void)state;
    skip_without_other_sets();
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    random_source random = {17};
    for (int isa = SL_ISA_GENERIC + 1; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        for (int i = 0; i < 600; i++) {
            uint32_t n_rot = 2 * (1 + random_below(&random, 64));
            uint32_t head_dim = n_rot + random_below(&random, 40);
            uint32_t n_heads = 1 + random_below(&random, 4);
            sl_rope_pairing pairing = i % 2 ? SL_ROPE_NORM : SL_ROPE_NEOX;
            sl_rope_config config = {.n_rot = n_rot, .base = i % 3 ? 1e6f : 1e4f, .scale = i % 5 ? 1.0f : 0.25f};
            guarded table_floats = guarded_allocate(n_rot * sizeof(float));
            guarded expected_table = guarded_allocate(n_rot * sizeof(float));
            uint32_t position = random_below(&random, 1000000);
            generic.rope_table(&config, position, expected_table.data);
            table.rope_table(&config, position, table_floats.data);
            assert_same_floats(table_floats.data, expected_table.data, n_rot, "%s rope_table of %u at %u",
                               sl_isa_name(table.isa), n_rot, position);
            guarded expected = guarded_allocate((size_t)n_heads * head_dim * sizeof(float));
            guarded actual = guarded_allocate(expected.bytes);
            fill_floats((float_fill)(i % FLOATS_FILL_COUNT), expected.data, (size_t)n_heads * head_dim, &random);
            memcpy(actual.data, expected.data, expected.bytes);
            generic.rope(expected.data, n_heads, head_dim, n_rot, pairing, expected_table.data);
            table.rope(actual.data, n_heads, head_dim, n_rot, pairing, expected_table.data);
            assert_same_floats(actual.data, expected.data, (size_t)n_heads * head_dim, "%s rope %d, %u of %u",
                               sl_isa_name(table.isa), (int)pairing, n_rot, head_dim);
            guarded_release(&table_floats);
            guarded_release(&expected_table);
            guarded_release(&expected);
            guarded_release(&actual);
        }
    }
}

int run_row_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(row_operations_give_the_bits_of_generic),
        cmocka_unit_test(exponentials_agree_over_all_floats),
        cmocka_unit_test(halves_agree_over_all_floats),
        cmocka_unit_test(stored_blocks_give_the_bits_of_generic),
        cmocka_unit_test(stored_blocks_come_near_what_they_hold),
        cmocka_unit_test(rotations_give_the_bits_of_generic),
    };
    return cmocka_run_group_tests_name("rows", tests, NULL, NULL);
}
