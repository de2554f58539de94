/* Attention and the choice of experts: every instruction set against the definition, the definition against a plain
 * computation in double. */
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/blocks.h"
#include "quant/half.h"

typedef struct attention_case {
    uint32_t n_queries;
    uint32_t key_dim;
    uint32_t value_dim;
    uint32_t n_positions; /* of the first token */
    sl_kv_type kv_type;
    float_fill fill;
    uint32_t n_tokens;
    uint32_t window;
} attention_case;

typedef struct attention_data {
    guarded queries;
    guarded keys;
    guarded values;
} attention_data;

enum { GAP = 3 }; /* floats between tokens */

static uint32_t positions_of(const attention_case *shape)
{
    return shape->n_positions + shape->n_tokens - 1;
}

static size_t query_stride(const attention_case *shape)
{
    return (size_t)shape->n_queries * shape->key_dim + GAP;
}

static size_t out_stride(const attention_case *shape)
{
    return (size_t)shape->n_queries * shape->value_dim + GAP;
}

static guarded kv_rows(const attention_case *shape, uint32_t dim, random_source *random)
{
    size_t n = (size_t)positions_of(shape) * dim;
    guarded floats = guarded_allocate(n * sizeof(float));
    fill_floats(shape->fill, floats.data, n, random);
    guarded rows = guarded_allocate(positions_of(shape) * sl_kv_row_bytes(shape->kv_type, dim));
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    generic.store_kv(floats.data, (uint32_t)n, shape->kv_type, rows.data);
    guarded_release(&floats);
    return rows;
}

static attention_data attention_data_for(const attention_case *shape, random_source *random)
{
    attention_data data;
    size_t n = shape->n_tokens * query_stride(shape);
    data.queries = guarded_allocate(n * sizeof(float));
    fill_floats(shape->fill, data.queries.data, n, random);
    data.keys = kv_rows(shape, shape->key_dim, random);
    data.values = kv_rows(shape, shape->value_dim, random);
    return data;
}

static void attention_data_release(attention_data *data)
{
    guarded_release(&data->queries);
    guarded_release(&data->keys);
    guarded_release(&data->values);
}

static guarded attend(const sl_kernel_table *table, const attention_case *shape, const attention_data *data)
{
    size_t scratch_floats = sl_attention_scratch_floats(shape->n_queries, shape->key_dim, shape->value_dim);
    guarded out = guarded_allocate(shape->n_tokens * out_stride(shape) * sizeof(float));
    guarded scratch = guarded_allocate(scratch_floats * sizeof(float));
    assert_int_equal((uintptr_t)scratch.data % 64, 0);
    memset(out.data, 0, out.bytes);
    memset(scratch.data, 0xff, scratch.bytes);
    sl_attention_task task = {
        .queries = data->queries.data,
        .query_stride = query_stride(shape),
        .n_tokens = shape->n_tokens,
        .n_queries = shape->n_queries,
        .key_dim = shape->key_dim,
        .value_dim = shape->value_dim,
        .keys = data->keys.data,
        .values = data->values.data,
        .kv_type = shape->kv_type,
        .n_positions = shape->n_positions,
        .window = shape->window,
        .scale = 1.0f / sqrtf((float)shape->key_dim),
        .out = out.data,
        .out_stride = out_stride(shape),
        .scratch = scratch.data,
    };
    table->attention(&task);
    guarded_release(&scratch);
    return out;
}

static void compare_with_generic(const sl_kernel_table *table, const attention_case *shape, random_source *random)
{
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    attention_data data = attention_data_for(shape, random);
    guarded expected = attend(&generic, shape, &data);
    guarded actual = attend(table, shape, &data);
    assert_same_floats(
        actual.data, expected.data, actual.bytes / sizeof(float),
        "%s attention, %u queries of %u tokens, dims %u and %u, %u positions, window %u, type %d, fill %d",
        sl_isa_name(table->isa), shape->n_queries, shape->n_tokens, shape->key_dim, shape->value_dim,
        shape->n_positions, shape->window, (int)shape->kv_type, (int)shape->fill);
    attention_data_release(&data);
    guarded_release(&expected);
    guarded_release(&actual);
}

static void attention_gives_the_bits_of_generic(void **state)
{
    (void)state;
    skip_without_other_sets();
    static const uint32_t dims[][2] = {{64, 64}, {128, 128}, {80, 80}, {96, 64}, {192, 128}, {17, 5}, {1, 1}, {40, 36}};
    static const uint32_t positions[] = {1, 2, 3, 15, 16, 17, 33, 255, 256, 257, 300, 512, 513};
    for (int isa = SL_ISA_GENERIC + 1; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        random_source random = {23};
        for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
            for (size_t p = 0; p < sizeof positions / sizeof positions[0]; p++) {
                for (uint32_t n_queries = 1; n_queries <= 9; n_queries += n_queries < 5 ? 1 : 4) {
                    attention_case shape = {n_queries, dims[d][0],    dims[d][1], positions[p],
                                            SL_KV_F16, FLOATS_NORMAL, 1,          0};
                    compare_with_generic(&table, &shape, &random);
                    shape.kv_type = SL_KV_F32;
                    shape.fill = (float_fill)random_below(&random, FLOATS_FILL_COUNT);
                    compare_with_generic(&table, &shape, &random);
                    if (dims[d][0] % SL_KV_BLOCK == 0 && dims[d][1] % SL_KV_BLOCK == 0) {
                        shape.kv_type = SL_KV_Q8_0;
                        compare_with_generic(&table, &shape, &random);
                    }
                }
            }
        }
    }
}

/* Several tokens in one task, with windows that begin and end anywhere in a chunk. */
static void attention_over_tokens_gives_the_bits_of_generic(void **state)
{
    (void)state;
    skip_without_other_sets();
    static const uint32_t dims[][2] = {{128, 128}, {32, 96}, {64, 80}, {17, 5}};
    static const uint32_t windows[] = {0, 0, 1, 7, 16, 200, 256, 300};
    for (int isa = SL_ISA_GENERIC + 1; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        random_source random = {29};
        for (int i = 0; i < 288; i++) {
            uint32_t n_queries = 1 + random_below(&random, 9);
            uint32_t most = sl_attention_tile_tokens(n_queries) < 20 ? sl_attention_tile_tokens(n_queries) : 20;
            const uint32_t *dim = dims[i % 4];
            attention_case shape = {
                .n_queries = n_queries,
                .key_dim = dim[0],
                .value_dim = dim[1],
                .n_positions = 1 + random_below(&random, i % 2 == 0 ? 40 : 560),
                .kv_type = i % 4 < 2        ? (sl_kv_type)(i / 4 % 3)
                           : i / 4 % 2 == 0 ? SL_KV_F16
                                            : SL_KV_F32,
                .fill = i % 5 == 0 ? (float_fill)random_below(&random, FLOATS_FILL_COUNT) : FLOATS_NORMAL,
                .n_tokens = 1 + random_below(&random, most),
                .window = windows[random_below(&random, sizeof windows / sizeof windows[0])],
            };
            compare_with_generic(&table, &shape, &random);
        }
    }
}

/* One task of several tokens equals a task for each of them. */
static void a_token_does_not_depend_on_the_others_of_its_task(void **state)
{
    (void)state;
    for (int isa = SL_ISA_GENERIC; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        random_source random = {37};
        attention_case whole = {4, 64, 48, 250, SL_KV_F16, FLOATS_NORMAL, 13, 0};
        for (uint32_t window = 0; window <= 100; window += 50) {
            whole.window = window;
            attention_data data = attention_data_for(&whole, &random);
            guarded together = attend(&table, &whole, &data);
            for (uint32_t t = 0; t < whole.n_tokens; t++) {
                attention_case single = whole;
                attention_data view = data;
                single.n_tokens = 1;
                single.n_positions += t;
                view.queries.data = (float *)data.queries.data + t * query_stride(&whole);
                guarded alone = attend(&table, &single, &view);
                assert_same_floats((float *)together.data + t * out_stride(&whole), alone.data,
                                   (size_t)whole.n_queries * whole.value_dim, "%s, token %u, window %u",
                                   sl_isa_name(table.isa), t, window);
                guarded_release(&alone);
            }
            guarded_release(&together);
            attention_data_release(&data);
        }
    }
}

static double kv_element(const guarded *rows, sl_kv_type kv_type, size_t index)
{
    if (kv_type == SL_KV_Q8_0) {
        const sl_block_q8_0 *block = (const sl_block_q8_0 *)rows->data + index / SL_KV_BLOCK;
        return (double)sl_f16_to_f32(block->d) * block->q[index % SL_KV_BLOCK];
    }
    if (kv_type == SL_KV_F32) {
        return ((const float *)rows->data)[index];
    }
    return sl_f16_to_f32(((const uint16_t *)rows->data)[index]);
}

/* Softmax over all positions at once, in double. */
static void check_against_double(const attention_case *shape, const attention_data *data, const float *out)
{
    uint32_t first = shape->window == 0 || shape->window > shape->n_positions ? 0 : shape->n_positions - shape->window;
    double *p = malloc(shape->n_positions * sizeof *p);
    assert_non_null(p);
    for (uint32_t q = 0; q < shape->n_queries; q++) {
        const float *query = (const float *)data->queries.data + (size_t)q * shape->key_dim;
        double maximum = -INFINITY;
        double sum = 0;
        for (uint32_t i = first; i < shape->n_positions; i++) {
            p[i] = 0;
            for (uint32_t j = 0; j < shape->key_dim; j++) {
                p[i] += query[j] * kv_element(&data->keys, shape->kv_type, (size_t)i * shape->key_dim + j);
            }
            p[i] /= sqrt((double)shape->key_dim);
            maximum = fmax(maximum, p[i]);
        }
        for (uint32_t i = first; i < shape->n_positions; i++) {
            p[i] = exp(p[i] - maximum);
            sum += p[i];
        }
        for (uint32_t d = 0; d < shape->value_dim; d++) {
            double expected = 0;
            for (uint32_t i = first; i < shape->n_positions; i++) {
                expected += p[i] * kv_element(&data->values, shape->kv_type, (size_t)i * shape->value_dim + d);
            }
            assert_true(fabs(out[(size_t)q * shape->value_dim + d] - expected / sum) < 2e-6);
        }
    }
    free(p);
}

static void attention_is_right(void **state)
{
    (void)state;
    static const uint32_t positions[] = {1, 2, 255, 256, 257, 511, 513, 1000};
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    random_source random = {31};
    for (size_t p = 0; p < sizeof positions / sizeof positions[0]; p++) {
        for (int i = 0; i < 9; i++) {
            static const uint32_t windows[] = {0, 30, 300};
            attention_case shape = {4, 64, 32, positions[p], (sl_kv_type)(i % 3), FLOATS_NORMAL, 1, windows[i / 3]};
            attention_data data = attention_data_for(&shape, &random);
            guarded out = attend(&generic, &shape, &data);
            check_against_double(&shape, &data, out.data);
            guarded_release(&out);
            attention_data_release(&data);
        }
    }
}

static void top_k_ranks_by_probability_then_index(void **state)
{
    (void)state;
    const float p[] = {0.1f, 0.5f, 0.2f, 0.5f, 0.0f, 0.2f, 0.9f};
    const uint32_t expected[] = {6, 1, 3, 2, 5, 0, 4};
    for (uint32_t k = 0; k <= 7; k++) {
        uint32_t ids[8] = {77, 77, 77, 77, 77, 77, 77, 77};
        sl_kernel_top_k(p, 7, k, ids);
        assert_memory_equal(ids, expected, k * sizeof ids[0]);
        assert_int_equal(ids[k], 77);
    }
}

static void top_k_puts_nan_last(void **state)
{
    (void)state;
    const float p[] = {NAN, -INFINITY, NAN, 1.0f, INFINITY, -NAN};
    const uint32_t expected[] = {4, 3, 1, 0, 2, 5};
    uint32_t ids[6];
    sl_kernel_top_k(p, 6, 6, ids);
    assert_memory_equal(ids, expected, sizeof ids);
}

static void top_k_ids_are_distinct_and_in_range(void **state)
{
    (void)state;
    enum { EXPERTS = 64 };
    random_source random = {3};
    for (int i = 0; i < 2000; i++) {
        float p[EXPERTS];
        uint32_t ids[EXPERTS];
        fill_floats((float_fill)(i % FLOATS_FILL_COUNT), p, EXPERTS, &random);
        uint32_t n = 1 + random_below(&random, EXPERTS);
        uint32_t k = 1 + random_below(&random, n);
        sl_kernel_top_k(p, n, k, ids);
        uint64_t seen = 0;
        for (uint32_t j = 0; j < k; j++) {
            assert_in_range(ids[j], 0, n - 1);
            assert_int_equal((seen >> ids[j]) & 1, 0);
            seen |= UINT64_C(1) << ids[j];
        }
    }
}

int run_attention_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_gives_the_bits_of_generic),
        cmocka_unit_test(attention_over_tokens_gives_the_bits_of_generic),
        cmocka_unit_test(a_token_does_not_depend_on_the_others_of_its_task),
        cmocka_unit_test(attention_is_right),
        cmocka_unit_test(top_k_ranks_by_probability_then_index),
        cmocka_unit_test(top_k_puts_nan_last),
        cmocka_unit_test(top_k_ids_are_distinct_and_in_range),
    };
    return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
