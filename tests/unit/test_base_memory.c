/* The accounts of tagged allocation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include "base/memory.h"

static void the_sum_of_the_tags_is_the_total(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    void *weights = sl_alloc_aligned(&memory, SL_MEMORY_WEIGHTS, 1000, 4096);
    void *text = sl_alloc(&memory, SL_MEMORY_TEXT, 10, 7);
    assert_int_equal(memory.bytes[SL_MEMORY_WEIGHTS], sl_memory_cost(1000, 4096));
    assert_int_equal(memory.bytes[SL_MEMORY_TEXT], sl_memory_cost(70, 16));
    assert_int_equal(memory.total_bytes, memory.bytes[SL_MEMORY_WEIGHTS] + memory.bytes[SL_MEMORY_TEXT]);
    assert_int_equal((uintptr_t)weights % 4096, 0);
    sl_free(&memory, weights);
    sl_free(&memory, text);
    assert_int_equal(memory.total_bytes, 0);
    assert_int_equal(memory.n_live, 0);
    assert_true(memory.peak_bytes >= 1070);
}

static void a_product_that_overflows_is_refused(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    assert_null(sl_alloc(&memory, SL_MEMORY_OTHER, SIZE_MAX / 2, 3));
    assert_null(sl_alloc_aligned(&memory, SL_MEMORY_OTHER, SIZE_MAX - 8, 4096));
    assert_int_equal(memory.total_bytes, 0);
}

static void growing_keeps_the_bytes(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    unsigned char *bytes = sl_alloc(&memory, SL_MEMORY_IO, 3, 1);
    bytes[2] = 42;
    bytes = sl_realloc(&memory, SL_MEMORY_IO, bytes, 100000, 1);
    assert_int_equal(bytes[2], 42);
    assert_int_equal(memory.bytes[SL_MEMORY_IO], sl_memory_cost(100000, 16));
    sl_free(&memory, bytes);
    assert_int_equal(memory.bytes[SL_MEMORY_IO], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sum_of_the_tags_is_the_total),
        cmocka_unit_test(a_product_that_overflows_is_refused),
        cmocka_unit_test(growing_keeps_the_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
