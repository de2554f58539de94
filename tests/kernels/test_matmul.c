/* Matrix products and the activation forms they take, on every instruction set of this machine against the definition.
 */
#include "support.h"

#include <math.h>
#include <string.h>

#include "quant/blocks.h"

enum { OUT_SENTINEL = 0x5a };

typedef struct matmul_case {
    sl_type type;
    uint32_t n_columns;
    uint32_t n_rows;
    uint32_t first_row;
    uint32_t end_row;
    uint32_t n_tokens;
    weight_fill weights;
    float_fill activations;
} matmul_case;

/* Activation rows in the form the type asks for, in memory that ends with them. */
static guarded activations_for(const matmul_case *shape, size_t *stride, random_source *random)
{
    const sl_type_traits *traits = sl_type_traits_of((int)shape->type);
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    *stride = (size_t)sl_type_row_bytes(traits->activation_type, shape->n_columns);
    guarded rows = guarded_allocate(*stride * shape->n_tokens);
    guarded floats = guarded_allocate(shape->n_columns * sizeof(float));
    for (uint32_t t = 0; t < shape->n_tokens; t++) {
        fill_floats(shape->activations, floats.data, shape->n_columns, random);
        uint8_t *row = (uint8_t *)rows.data + t * *stride;
        if (traits->activation_type == SL_TYPE_F32) {
            memcpy(row, floats.data, floats.bytes);
        } else {
            generic.quantize_row[traits->activation_type](floats.data, shape->n_columns, row);
        }
    }
    guarded_release(&floats);
    return rows;
}

/* The whole output, with a sentinel where nothing may be written. */
static guarded multiply(const sl_kernel_table *table, const matmul_case *shape, const guarded *weights,
                        const guarded *activations, size_t stride)
{
    size_t row_bytes = weights->bytes / shape->n_rows;
    guarded out = guarded_allocate((size_t)shape->n_tokens * shape->n_rows * sizeof(float));
    memset(out.data, OUT_SENTINEL, out.bytes);
    table->matmul[shape->type](weights->data, row_bytes, shape->n_columns, shape->first_row, shape->end_row,
                               activations->data, stride, shape->n_tokens, out.data, shape->n_rows);
    return out;
}

static void compare_with_generic(const sl_kernel_table *table, const matmul_case *shape, random_source *random)
{
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    size_t stride;
    guarded weights = guarded_allocate((size_t)sl_type_row_bytes(shape->type, shape->n_columns) * shape->n_rows);
    fill_weights(shape->type, shape->weights, weights.data, weights.bytes, random);
    guarded activations = activations_for(shape, &stride, random);
    guarded expected = multiply(&generic, shape, &weights, &activations, stride);
    guarded actual = multiply(table, shape, &weights, &activations, stride);
    assert_same_floats(actual.data, expected.data, actual.bytes / sizeof(float),
                       "%s %s, %u columns, rows %u to %u of %u, %u tokens, weights %d, activations %d",
                       sl_isa_name(table->isa), sl_type_traits_of((int)shape->type)->name, shape->n_columns,
                       shape->first_row, shape->end_row, shape->n_rows, shape->n_tokens, (int)shape->weights,
                       (int)shape->activations);
    guarded_release(&weights);
    guarded_release(&activations);
    guarded_release(&expected);
    guarded_release(&actual);
}

typedef void case_fn(const sl_kernel_table *table, matmul_case shape, random_source *random);

/* Every type on every set above generic that has a kernel of its own for it. */
static void for_each_kernel(case_fn *run)
{
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    for (int isa = SL_ISA_GENERIC + 1; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        for (int type = 0; type < SL_TYPE_COUNT; type++) {
            if (table.matmul[type] != generic.matmul[type]) {
                random_source random = {(uint64_t)(isa * 1000 + type)};
                run(&table, (matmul_case){.type = (sl_type)type}, &random);
            }
        }
    }
}

static uint32_t block_of(sl_type type)
{
    return sl_type_traits_of((int)type)->block_elements;
}

static void run_shapes(const sl_kernel_table *table, matmul_case shape, random_source *random)
{
    static const uint32_t rows[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33};
    static const uint32_t blocks[] = {1, 2, 3, 4, 5, 9};
    static const uint32_t columns[] = {1, 7, 15, 16, 17, 31, 33, 64, 100};
    bool is_float = block_of(shape.type) == 1;
    size_t n_widths = is_float ? sizeof columns / sizeof columns[0] : sizeof blocks / sizeof blocks[0];
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        for (size_t c = 0; c < n_widths; c++) {
            for (uint32_t n_tokens = 1; n_tokens <= 9; n_tokens++) {
                shape.n_rows = shape.end_row = rows[r];
                shape.n_columns = is_float ? columns[c] : blocks[c] * block_of(shape.type);
                shape.n_tokens = n_tokens;
                compare_with_generic(table, &shape, random);
            }
        }
    }
}

static void every_shape_gives_the_bits_of_generic(void **state)
{
    (void)state;
    skip_without_other_sets();
    for_each_kernel(run_shapes);
}

static void run_fills(const sl_kernel_table *table, matmul_case shape, random_source *random)
{
    static const uint32_t tokens[] = {1, 4, 9, 17};
    for (int weights = 0; weights < WEIGHTS_FILL_COUNT; weights++) {
        for (int activations = 0; activations < FLOATS_FILL_COUNT; activations++) {
            for (size_t t = 0; t < sizeof tokens / sizeof tokens[0]; t++) {
                shape.n_rows = shape.end_row = 11;
                shape.n_columns = block_of(shape.type) == 1 ? 107 : 3 * block_of(shape.type);
                shape.n_tokens = tokens[t];
                shape.weights = (weight_fill)weights;
                shape.activations = (float_fill)activations;
                compare_with_generic(table, &shape, random);
            }
        }
    }
}

static void hostile_bytes_give_the_bits_of_generic(void **state)
{
    (void)state;
    skip_without_other_sets();
    for_each_kernel(run_fills);
}

static void run_ranges(const sl_kernel_table *table, matmul_case shape, random_source *random)
{
    shape.n_rows = 40;
    shape.n_columns = block_of(shape.type) == 1 ? 48 : 2 * block_of(shape.type);
    for (int i = 0; i < 60; i++) {
        shape.first_row = random_below(random, shape.n_rows);
        shape.end_row = shape.first_row + random_below(random, shape.n_rows - shape.first_row + 1);
        shape.n_tokens = 1 + random_below(random, 40);
        compare_with_generic(table, &shape, random);
    }
}

static void ranges_of_rows_write_nothing_else(void **state)
{
    (void)state;
    skip_without_other_sets();
    for_each_kernel(run_ranges);
}

static void run_long_rows(const sl_kernel_table *table, matmul_case shape, random_source *random)
{
    shape.n_rows = shape.end_row = 19;
    shape.n_columns = 4096;
    shape.n_tokens = 21;
    compare_with_generic(table, &shape, random);
    /* Longer than what is prepared of the activations of a few tokens at once. */
    shape.n_rows = shape.end_row = 5;
    shape.n_columns = 20480;
    for (shape.n_tokens = 1; shape.n_tokens <= 4; shape.n_tokens++) {
        compare_with_generic(table, &shape, random);
    }
}

/* Kernels take tokens together in numbers of their own; blocks of 32 weights too. */
static void run_many_tokens(const sl_kernel_table *table, matmul_case shape, random_source *random)
{
    static const uint32_t tokens[] = {31, 32, 33, 48, 49, 63, 64, 65, 127, 128, 129, 130, 191, 257, 260};
    shape.n_rows = shape.end_row = 18;
    shape.n_columns = block_of(shape.type) == 1 ? 160 : 5 * block_of(shape.type);
    for (uint32_t n_tokens = 10; n_tokens <= 20; n_tokens++) {
        shape.n_tokens = n_tokens;
        compare_with_generic(table, &shape, random);
    }
    for (size_t t = 0; t < sizeof tokens / sizeof tokens[0]; t++) {
        shape.n_tokens = tokens[t];
        compare_with_generic(table, &shape, random);
    }
}

static void many_tokens_give_the_bits_of_generic(void **state)
{
    (void)state;
    skip_without_other_sets();
    for_each_kernel(run_many_tokens);
}

static void long_rows_give_the_bits_of_generic(void **state)
{
    (void)state;
    skip_without_other_sets();
    for_each_kernel(run_long_rows);
}

/* Any way of cutting rows and tokens into calls gives the same bits, on every set. */
static void bits_do_not_depend_on_the_split(void **state)
{
    (void)state;
    random_source random = {99};
    for (int isa = SL_ISA_GENERIC; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        for (int type = 0; type < SL_TYPE_COUNT; type++) {
            if (table.matmul[type] == NULL) {
                continue;
            }
            matmul_case shape = {.type = (sl_type)type, .n_columns = 512, .n_rows = 21, .end_row = 21, .n_tokens = 11};
            size_t stride;
            guarded weights = guarded_allocate((size_t)sl_type_row_bytes(shape.type, shape.n_columns) * shape.n_rows);
            fill_weights(shape.type, WEIGHTS_SANE, weights.data, weights.bytes, &random);
            guarded activations = activations_for(&shape, &stride, &random);
            guarded whole = multiply(&table, &shape, &weights, &activations, stride);
            guarded pieces = guarded_allocate(whole.bytes);
            for (uint32_t r = 0; r < shape.n_rows; r++) {
                for (uint32_t t = 0; t < shape.n_tokens; t++) {
                    table.matmul[type](weights.data, weights.bytes / shape.n_rows, shape.n_columns, r, r + 1,
                                       (uint8_t *)activations.data + t * stride, stride, 1,
                                       (float *)pieces.data + (size_t)t * shape.n_rows, shape.n_rows);
                }
            }
            assert_same_floats(pieces.data, whole.data, whole.bytes / sizeof(float), "%s %s one by one",
                               sl_isa_name(table.isa), sl_type_traits_of(type)->name);
            guarded_release(&weights);
            guarded_release(&activations);
            guarded_release(&whole);
            guarded_release(&pieces);
        }
    }
}

static void quantized_activations_have_the_bits_of_generic(void **state)
{
    (void)state;
    skip_without_other_sets();
    static const sl_type forms[] = {SL_TYPE_ACT_Q8_32, SL_TYPE_ACT_Q8_256};
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    random_source random = {5};
    for (int isa = SL_ISA_GENERIC + 1; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        for (int i = 0; i < 2 * FLOATS_FILL_COUNT * 40; i++) {
            sl_type form = forms[i % 2];
            uint32_t n = block_of(form) * (1 + random_below(&random, 5));
            guarded x = guarded_allocate(n * sizeof(float));
            fill_floats((float_fill)(i / 2 % FLOATS_FILL_COUNT), x.data, n, &random);
            guarded expected = guarded_allocate((size_t)sl_type_row_bytes(form, n));
            guarded actual = guarded_allocate(expected.bytes);
            generic.quantize_row[form](x.data, n, expected.data);
            table.quantize_row[form](x.data, n, actual.data);
            assert_memory_equal(actual.data, expected.data, actual.bytes);
            guarded_release(&x);
            guarded_release(&expected);
            guarded_release(&actual);
        }
    }
}

static void types_without_an_own_kernel_are_named_as_falling_back(void **state)
{
    (void)state;
    sl_kernel_table generic = table_of(SL_ISA_GENERIC);
    for (int isa = SL_ISA_GENERIC; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        /* A set that this build has no kernels for is lowered to one that it has. */
        assert_true((int)table.isa <= isa);
        assert_true(table.isa != SL_ISA_GENERIC || isa == SL_ISA_GENERIC);
        for (int type = 0; type < SL_TYPE_COUNT; type++) {
            bool is_generic = table.matmul[type] != NULL && table.matmul[type] == generic.matmul[type];
            assert_int_equal(sl_kernel_table_falls_back(&table, (sl_type)type), isa != SL_ISA_GENERIC && is_generic);
        }
    }
}

/* Else nothing would tell that the tests above passed over a set. */
static void the_best_set_of_the_architecture_was_tested(void **state)
{
    (void)state;
#if defined(__x86_64__)
    const sl_isa best = SL_ISA_AMX;
#elif defined(__aarch64__)
    const sl_isa best = SL_ISA_NEON;
#else
    const sl_isa best = SL_ISA_GENERIC;
#endif
    if (sl_cpu_best_isa() < best) {
        print_message("skipped: this processor has no %s, only %s was tested\n", sl_isa_name(best),
                      sl_isa_name(sl_cpu_best_isa()));
        skip();
    }
    assert_int_equal(table_of(best).isa, best);
}

static void every_set_has_a_product_of_its_own_for_every_type(void **state)
{
    (void)state;
    skip_without_other_sets();
    for (int isa = SL_ISA_GENERIC + 1; isa <= (int)sl_cpu_best_isa(); isa++) {
        sl_kernel_table table = table_of((sl_isa)isa);
        for (int type = 0; type < SL_TYPE_COUNT; type++) {
            if (sl_kernel_table_falls_back(&table, (sl_type)type)) {
                fail_msg("%s has no product for %s", sl_isa_name(table.isa), sl_type_traits_of(type)->name);
            }
        }
    }
}

static void every_readable_type_can_be_a_weight(void **state)
{
    (void)state;
    sl_kernel_table table = table_of(SL_ISA_GENERIC);
    for (int type = 0; type < SL_TYPE_COUNT; type++) {
        const sl_type_traits *traits = sl_type_traits_of(type);
        bool is_readable = traits != NULL && traits->decode_row != NULL;
        assert_int_equal(table.matmul[type] != NULL, is_readable);
        assert_int_equal(table.decode_row[type] != NULL, is_readable);
    }
}

int run_matmul_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_gives_the_bits_of_generic),
        cmocka_unit_test(hostile_bytes_give_the_bits_of_generic),
        cmocka_unit_test(ranges_of_rows_write_nothing_else),
        cmocka_unit_test(long_rows_give_the_bits_of_generic),
        cmocka_unit_test(many_tokens_give_the_bits_of_generic),
        cmocka_unit_test(bits_do_not_depend_on_the_split),
        cmocka_unit_test(quantized_activations_have_the_bits_of_generic),
        cmocka_unit_test(types_without_an_own_kernel_are_named_as_falling_back),
        cmocka_unit_test(the_best_set_of_the_architecture_was_tested),
        cmocka_unit_test(every_set_has_a_product_of_its_own_for_every_type),
        cmocka_unit_test(every_readable_type_can_be_a_weight),
    };
    return cmocka_run_group_tests_name("matmul", tests, NULL, NULL);
}
