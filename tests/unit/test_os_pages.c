/* Address space that holds memory only in part, by the kernel's own figures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "os/kernel_text.h"
#include "os/limits.h"
#include "os/pages.h"

static const size_t mib = (size_t)1 << 20;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const int resident_says_nothing = 1; /* the sanitizer has memory of its own for ours */
#else
static const int resident_says_nothing = 0;
#endif

static uint64_t resident(void)
{
    if (resident_says_nothing) {
        print_message("the sanitizer has memory of its own for ours\n");
        skip();
    }
    return sl_process_resident_bytes();
}

static void reserved_addresses_hold_no_memory_until_they_are_touched(void **state)
{
    (void)state;
    uint64_t before = resident();
    unsigned char *start = sl_pages_reserve(4096 * mib);
    assert_non_null(start);
    assert_int_equal((uintptr_t)start % SL_HUGE_PAGE_BYTES, 0);
    assert_true(sl_pages_commit(start, 64 * mib));
    assert_true(resident() < before + 4 * mib);
    memset(start, 1, 64 * mib);
    assert_true(resident() > before + 60 * mib);
    sl_pages_unreserve(start, 4096 * mib);
    assert_true(resident() < before + 4 * mib);
}

static void populated_memory_is_there_and_keeps_what_it_held(void **state)
{
    (void)state;
    uint64_t before = resident();
    unsigned char *start = sl_pages_reserve(64 * mib);
    assert_non_null(start);
    assert_false(sl_pages_populate(start, 64 * mib)); /* not committed */
    assert_true(sl_pages_commit(start, 64 * mib));
    start[5] = 7;
    if (!sl_pages_populate(start, 64 * mib)) {
        print_message("the kernel does not populate memory when asked\n");
        skip();
    }
    assert_true(resident() > before + 60 * mib);
    assert_int_equal(start[5], 7);
    assert_int_equal(start[40 * mib], 0);
    sl_pages_unreserve(start, 64 * mib);
}

static void released_memory_goes_back_and_comes_again_as_zeros(void **state)
{
    (void)state;
    uint64_t before = resident();
    unsigned char *start = sl_pages_reserve(256 * mib);
    assert_non_null(start);
    for (int i_round = 0; i_round < 3; i_round++) {
        assert_true(sl_pages_commit(start, 96 * mib));
        sl_pages_advise_huge(start, 96 * mib);
        for (size_t place = 0; place < 96 * mib; place += 4096) {
            assert_true(place < 31 * mib && i_round > 0 ? start[place] == 7 : start[place] == 0);
        }
        memset(start, 7, 96 * mib);
        assert_true(resident() > before + 90 * mib);
        assert_true(sl_pages_release(start + 31 * mib, 65 * mib));
        assert_true(resident() < before + 36 * mib);
        assert_int_equal(start[31 * mib - 1], 7);
    }
    sl_pages_unreserve(start, 256 * mib);
}

static void ranges_are_whole_pages_of_the_system(void **state)
{
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *start = sl_pages_reserve(10 * page - 5);
    assert_non_null(start);
    assert_true(sl_pages_commit(start, 2 * page + 1));
    start[3 * page - 1] = 1;
    assert_true(sl_pages_commit(start + 2 * page + 1, page));
    start[4 * page - 1] = 2;
    assert_true(sl_pages_release(start + 2 * page + 1, page));
    assert_int_equal(start[3 * page - 1], 1);
    assert_true(sl_pages_commit(start + 2 * page + 1, 5));
    assert_true(sl_pages_release(start + page / 2, 0));
    sl_pages_unreserve(start, 10 * page - 5);
}

/* A part of a huge page that is only unmapped stays with the kernel as if it were in use. */
static void a_huge_page_that_is_released_in_part_is_split(void **state)
{
    (void)state;
    enum { N_PAGES = 16 };
    size_t bytes = (size_t)N_PAGES * SL_HUGE_PAGE_BYTES;
    unsigned char *start = sl_pages_reserve(bytes);
    assert_non_null(start);
    assert_true(sl_pages_commit(start, bytes));
    sl_pages_advise_huge(start, bytes);
    uint64_t n_before = 0;
    uint64_t n_after = 0;
    uint64_t n_huge_before = 0;
    uint64_t n_huge_after = 0;
    bool known = sl_kernel_text_find("", "/proc/vmstat", "thp_split_page ", &n_before) &&
                 sl_kernel_text_find("", "/proc/self/smaps_rollup", "AnonHugePages:", &n_huge_before);
    memset(start, 1, bytes);
    known = known && sl_kernel_text_find("", "/proc/self/smaps_rollup", "AnonHugePages:", &n_huge_after);
    if (!known || n_huge_after < n_huge_before + bytes / 1024) {
        sl_pages_unreserve(start, bytes);
        print_message("the kernel gives no huge pages now\n");
        skip();
    }
    for (int i_page = 0; i_page < N_PAGES; i_page++) {
        unsigned char *page = start + (size_t)i_page * SL_HUGE_PAGE_BYTES;
        assert_true(sl_pages_release(page + mib, mib));
        assert_int_equal(page[mib - 1], 1);
    }
    assert_true(sl_kernel_text_find("", "/proc/vmstat", "thp_split_page ", &n_after));
    assert_true(n_after >= n_before + N_PAGES);
    sl_pages_unreserve(start, bytes);
}

static void more_addresses_than_there_are_is_refused(void **state)
{
    (void)state;
    assert_null(sl_pages_reserve(SIZE_MAX));
    assert_null(sl_pages_reserve(SIZE_MAX / 4));
    assert_null(sl_pages_reserve(0));
    sl_pages_unreserve(NULL, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reserved_addresses_hold_no_memory_until_they_are_touched),
        cmocka_unit_test(populated_memory_is_there_and_keeps_what_it_held),
        cmocka_unit_test(released_memory_goes_back_and_comes_again_as_zeros),
        cmocka_unit_test(ranges_are_whole_pages_of_the_system),
        cmocka_unit_test(a_huge_page_that_is_released_in_part_is_split),
        cmocka_unit_test(more_addresses_than_there_are_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
