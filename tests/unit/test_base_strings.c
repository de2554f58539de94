/* Spans, growing texts, and the sizes that people type. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <string.h>

#include "base/strings.h"

static void expect_size(const char *text, uint64_t expected)
{
    uint64_t bytes = 0;
    if (!sl_parse_size(text, &bytes)) {
        fail_msg("\"%s\" is refused", text);
    }
    assert_int_equal(bytes, expected);
}

static void expect_no_size(const char *text)
{
    uint64_t bytes = 0;
    if (sl_parse_size(text, &bytes)) {
        fail_msg("\"%s\" is taken for %llu bytes", text, (unsigned long long)bytes);
    }
}

static void sizes_are_binary_whatever_their_unit(void **state)
{
    (void)state;
    expect_size("0", 0);
    expect_size("12345", 12345);
    expect_size("1K", 1024);
    expect_size("1k", 1024);
    expect_size("1KiB", 1024);
    expect_size("3M", 3U << 20);
    expect_size("3MiB", 3U << 20);
    expect_size("1.5G", 1536U << 20);
    expect_size("0.5KiB", 512);
    expect_size("13.3M", 13946060);
    expect_size("2T", (uint64_t)2 << 40);
}

static void what_is_no_size_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",      " 1",  "-1",  "+1",  "1 G", "1GB",   "1KB", "G",    "0x10", "0X10",
                                        "1e400", "inf", "nan", "1.5", "1GG", "1KiBx", "1Ki", "1,5G", "1_000"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        expect_no_size(texts[i]);
    }
}

static void sizes_beyond_64_bits_are_refused(void **state)
{
    (void)state;
    expect_no_size("18446744073709551616");
    expect_no_size("99999999T");
    expect_no_size("10000000000000000000000000G");
}

static void sizes_are_shown_with_three_digits(void **state)
{
    (void)state;
    char buffer[24];
    assert_string_equal(sl_format_size(12, buffer, sizeof buffer), "12 B");
    assert_string_equal(sl_format_size(1536, buffer, sizeof buffer), "1.50 KiB");
    assert_string_equal(sl_format_size(864U << 10, buffer, sizeof buffer), "864 KiB");
    assert_string_equal(sl_format_size((uint64_t)25 << 29, buffer, sizeof buffer), "12.5 GiB");
    assert_string_equal(sl_format_size(UINT64_MAX, buffer, sizeof buffer), "16777216 TiB");
}

static void spans_compare_by_bytes(void **state)
{
    (void)state;
    sl_span empty = {.data = NULL, .length = 0};
    sl_span with_nul = {.data = "a\0b", .length = 3};
    assert_true(sl_span_equal(empty, sl_span_of("")));
    assert_true(sl_span_equal_text(sl_span_of("expert"), "expert"));
    assert_false(sl_span_equal_text(sl_span_of("expert"), "experts"));
    assert_false(sl_span_equal_text(with_nul, "a"));
    assert_true(sl_span_equal(with_nul, (sl_span){.data = "a\0b", .length = 3}));
}

static void a_text_grows_and_stays_terminated(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_text text;
    sl_text_init(&text, &memory, SL_MEMORY_TEXT);
    for (int i = 0; i < 1000; i++) {
        assert_true(sl_text_format(&text, "%d,", i));
    }
    assert_true(sl_text_append(&text, "a\0b", 3));
    assert_int_equal(text.length, 10 * 2 + 90 * 3 + 900 * 4 + 3);
    assert_memory_equal(text.data, "0,1,2,3,", 8);
    assert_int_equal(text.data[text.length - 2], '\0');
    assert_int_equal(text.data[text.length], '\0');
    sl_text_fini(&text);
    assert_int_equal(memory.n_live, 0);
}

static void *refuse(void *user, size_t bytes, size_t alignment)
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

static void a_refused_append_changes_nothing(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_text text;
    sl_text_init(&text, &memory, SL_MEMORY_TEXT);
    assert_true(sl_text_append(&text, "kept", 4));
    sl_memory_source original = memory.source;
    memory.source = (sl_memory_source){.allocate = refuse, .release = release_nothing};
    char long_text[500];
    memset(long_text, 'x', sizeof long_text);
    assert_false(sl_text_append(&text, long_text, sizeof long_text));
    assert_false(sl_text_format(&text, "%500d", 1));
    assert_string_equal(text.data, "kept");
    memory.source = original;
    sl_text_fini(&text);
    assert_int_equal(memory.n_live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_binary_whatever_their_unit),
        cmocka_unit_test(what_is_no_size_is_refused),
        cmocka_unit_test(sizes_beyond_64_bits_are_refused),
        cmocka_unit_test(sizes_are_shown_with_three_digits),
        cmocka_unit_test(spans_compare_by_bytes),
        cmocka_unit_test(a_text_grows_and_stays_terminated),
        cmocka_unit_test(a_refused_append_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
