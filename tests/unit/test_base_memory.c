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

typedef struct limited_source {
    uint64_t charged_bytes, most_bytes;
} limited_source;

static void *allocate_nothing(void *user, size_t bytes, size_t alignment)
{
    (void)user;
    (void)bytes;
    (void)alignment;
    return NULL;
}

static void release_nothing(void *user, void *pointer)
{
    (void)user;
    (void)pointer;
}

static bool charge_within(void *user, size_t bytes)
{
    limited_source *source = user;
    if (source->charged_bytes + bytes > source->most_bytes) {
        return false;
    }
    source->charged_bytes += bytes;
    return true;
}

static void discharge(void *user, size_t bytes)
{
    limited_source *source = user;
    source->charged_bytes -= bytes;
}

static void mapped_memory_is_counted_as_far_as_the_source_allows(void **state)
{
    (void)state;
    limited_source limited = {.most_bytes = 10000};
    sl_memory_source source = {.allocate = allocate_nothing,
                               .release = release_nothing,
                               .charge = charge_within,
                               .discharge = discharge,
                               .user = &limited};
    sl_memory memory;
    sl_memory_init(&memory, &source);
    assert_true(sl_memory_charge(&memory, SL_MEMORY_EXPERTS, 7000));
    assert_false(sl_memory_charge(&memory, SL_MEMORY_EXPERTS, 3001));
    assert_int_equal(memory.bytes[SL_MEMORY_EXPERTS], 7000);
    assert_true(sl_memory_charge(&memory, SL_MEMORY_EXPERTS, 3000));
    sl_memory_discharge(&memory, SL_MEMORY_EXPERTS, 9000);
    assert_int_equal(memory.bytes[SL_MEMORY_EXPERTS], 1000);
    assert_int_equal(memory.total_bytes, 1000);
    assert_int_equal(memory.peak_bytes, 10000);
    assert_int_equal(limited.charged_bytes, 1000);
    sl_memory_discharge(&memory, SL_MEMORY_EXPERTS, 1000);
    assert_int_equal(limited.charged_bytes + memory.total_bytes + memory.n_live + memory.n_allocations, 0);

    sl_memory_init(&memory, NULL); /* nobody to ask */
    assert_true(sl_memory_charge(&memory, SL_MEMORY_EXPERTS, 1 << 20));
    sl_memory_discharge(&memory, SL_MEMORY_EXPERTS, 1 << 20);
    assert_int_equal(memory.total_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sum_of_the_tags_is_the_total),
        cmocka_unit_test(a_product_that_overflows_is_refused),
        cmocka_unit_test(growing_keeps_the_bytes),
        cmocka_unit_test(mapped_memory_is_counted_as_far_as_the_source_allows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
