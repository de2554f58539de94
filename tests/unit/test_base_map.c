/* The map from byte strings to numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/map.h"

enum { N_KEYS = 5000 };

/* Keys live as long as the map that borrows them. */
static char keys[N_KEYS][16];

static void fill_keys(void)
{
    for (int i = 0; i < N_KEYS; i++) {
        snprintf(keys[i], sizeof keys[i], "key-%d", i);
    }
}

static void every_key_is_found_while_the_map_grows(void **state)
{
    (void)state;
    fill_keys();
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_map map;
    sl_map_init(&map, &memory, SL_MEMORY_TEXT);
    for (uint32_t i = 0; i < N_KEYS; i++) {
        bool existing = true;
        assert_true(sl_map_insert(&map, sl_span_of(keys[i]), i, &existing));
        assert_false(existing);
    }
    assert_int_equal(map.count, N_KEYS);
    for (uint32_t i = 0; i < N_KEYS; i++) {
        uint32_t value = 0;
        assert_true(sl_map_find(&map, sl_span_of(keys[i]), &value));
        assert_int_equal(value, i);
    }
    uint32_t value = 0;
    assert_false(sl_map_find(&map, sl_span_of("key-5000"), &value));
    sl_map_fini(&map);
    assert_int_equal(memory.n_live, 0);
}

static void a_second_insert_keeps_the_first_value(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_map map;
    sl_map_init(&map, &memory, SL_MEMORY_TEXT);
    bool existing = true;
    uint32_t value = 0;
    assert_true(sl_map_insert(&map, sl_span_of("a"), 1, &existing));
    assert_false(existing);
    assert_true(sl_map_insert(&map, sl_span_of("a"), 2, &existing));
    assert_true(existing);
    assert_true(sl_map_find(&map, sl_span_of("a"), &value));
    assert_int_equal(value, 1);
    sl_map_fini(&map);
}

static void the_empty_string_and_nul_bytes_are_keys(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_map map;
    sl_map_init(&map, &memory, SL_MEMORY_TEXT);
    uint32_t value = 0;
    assert_false(sl_map_find(&map, (sl_span){0}, &value));
    assert_true(sl_map_insert(&map, (sl_span){0}, 7, NULL));
    assert_true(sl_map_insert(&map, (sl_span){.data = "a\0b", .length = 3}, 8, NULL));
    assert_true(sl_map_insert(&map, (sl_span){.data = "a\0c", .length = 3}, 9, NULL));
    assert_true(sl_map_find(&map, sl_span_of(""), &value));
    assert_int_equal(value, 7);
    assert_true(sl_map_find(&map, (sl_span){.data = "a\0c", .length = 3}, &value));
    assert_int_equal(value, 9);
    assert_false(sl_map_find(&map, sl_span_of("a"), &value));
    sl_map_fini(&map);
}

static void reserving_makes_room_without_another_allocation(void **state)
{
    (void)state;
    fill_keys();
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_map map;
    sl_map_init(&map, &memory, SL_MEMORY_TEXT);
    assert_true(sl_map_reserve(&map, N_KEYS));
    uint64_t n_allocations = memory.n_allocations;
    for (uint32_t i = 0; i < N_KEYS; i++) {
        assert_true(sl_map_insert(&map, sl_span_of(keys[i]), i, NULL));
    }
    assert_int_equal(memory.n_allocations, n_allocations);
    assert_false(sl_map_reserve(&map, SIZE_MAX / 2));
    assert_int_equal(map.count, N_KEYS);
    sl_map_fini(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_is_found_while_the_map_grows),
        cmocka_unit_test(a_second_insert_keeps_the_first_value),
        cmocka_unit_test(the_empty_string_and_nul_bytes_are_keys),
        cmocka_unit_test(reserving_makes_room_without_another_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
