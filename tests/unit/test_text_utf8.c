/* What counts as UTF-8, the byte alphabet, and the stream that never shows half a character. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <string.h>

#include "../support/failing_memory.h"
#include "../support/mixed_text.h"
#include "text/byte_map.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

/* The matcher runs unchecked on what this room calls well-formed, so the two must agree on every sequence. Lead bytes
 * take all values, followers the borders between what different leads allow. */
static void the_matcher_agrees_on_what_is_well_formed(void **state)
{
    (void)state;
    static const unsigned char followers[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    enum { N = sizeof followers };
    int code = 0;
    PCRE2_SIZE where = 0;
    pcre2_code *anything = pcre2_compile((PCRE2_SPTR) "", 0, PCRE2_UTF, &code, &where, NULL);
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    assert_non_null(anything);
    assert_non_null(match);
    for (unsigned lead = 0; lead < 256; lead++) {
        for (unsigned i = 0; i < N * N * N; i++) {
            unsigned char bytes[4] = {(unsigned char)lead, followers[i % N], followers[i / N % N],
                                      followers[i / N / N]};
            for (size_t length = 1; length <= 4; length++) {
                bool is_valid = pcre2_match(anything, bytes, length, 0, 0, match, NULL) >= 0;
                bool is_ours = sl_utf8_valid_prefix((sl_span){(const char *)bytes, length}) == length;
                if (is_valid != is_ours) {
                    fail_msg("%02x %02x %02x %02x, first %zu: the matcher says %d", bytes[0], bytes[1], bytes[2],
                             bytes[3], length, is_valid);
                }
            }
        }
    }
    pcre2_match_data_free(match);
    pcre2_code_free(anything);
}

static void every_character_is_decoded_as_it_was_encoded(void **state)
{
    (void)state;
    for (uint32_t code_point = 0; code_point <= 0x10ffff; code_point++) {
        if (code_point == 0xd800) {
            code_point = 0xe000;
        }
        char bytes[4];
        uint32_t decoded = 0;
        size_t length = sl_utf8_encode(code_point, bytes);
        if (sl_utf8_decode(bytes, length, &decoded) != length || decoded != code_point) {
            fail_msg("U+%04X comes back as U+%04X", code_point, decoded);
        }
    }
}

static void every_byte_has_a_printable_character_of_its_own(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        uint32_t character = sl_byte_map_character((unsigned char)byte);
        assert_true(character > 0x20 && character != 0x7f && (character < 0x80 || character > 0xa0));
        assert_int_equal(sl_byte_map_byte(character), byte);
    }
    assert_int_equal(sl_byte_map_character(' '), 0x120);
    assert_int_equal(sl_byte_map_character('\n'), 0x10a);
    assert_int_equal(sl_byte_map_character(0xad), 0x143);
    assert_int_equal(sl_byte_map_byte(0x144), -1);
    assert_int_equal(sl_byte_map_byte(' '), -1);
    assert_int_equal(sl_byte_map_byte(0x10ffff), -1);
}

static void what_is_not_in_the_byte_alphabet_is_kept(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_text out;
    sl_text_init(&out, &memory, SL_MEMORY_TEXT);
    assert_true(sl_byte_map_decode(sl_span_of("\xc4\xa0"
                                              "a\xe2\x96\x81 \xff"),
                                   &out));
    assert_string_equal(out.data, " a\xe2\x96\x81 \xff");
    sl_text_fini(&out);
}

static void expect_stream(const char *pushed, const char *shown, const char *flushed)
{
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_text out;
    sl_text_init(&out, &memory, SL_MEMORY_TEXT);
    sl_utf8_stream stream = {.n_pending = 0};
    assert_true(sl_utf8_stream_push(&stream, pushed, strlen(pushed), &out));
    assert_true(sl_span_equal_text((sl_span){out.data, out.length}, shown));
    assert_true(sl_utf8_stream_flush(&stream, &out));
    assert_true(sl_span_equal_text((sl_span){out.data, out.length}, flushed));
    sl_text_fini(&out);
}

static void an_unfinished_character_is_held_back_until_flushed(void **state)
{
    (void)state;
    expect_stream("abc", "abc", "abc");
    expect_stream("a\xf0\x9f\x98", "a", "a\xf0\x9f\x98");
    expect_stream("a\xf0\x9f\x98\x80", "a\xf0\x9f\x98\x80", "a\xf0\x9f\x98\x80");
    expect_stream("\xc3", "", "\xc3");
}

static void bytes_that_cannot_become_a_character_are_shown_at_once(void **state)
{
    (void)state;
    expect_stream("\x80", "\x80", "\x80");
    expect_stream("\xff", "\xff", "\xff");
    expect_stream("\xc0", "\xc0", "\xc0");
    expect_stream("\xe0\x80", "\xe0\x80", "\xe0\x80");
    expect_stream("\xed\xa0", "\xed\xa0", "\xed\xa0");
    expect_stream("\xf0\x9f"
                  "a",
                  "\xf0\x9f"
                  "a",
                  "\xf0\x9f"
                  "a");
    expect_stream("\xe4\xb8\xe4", "\xe4\xb8", "\xe4\xb8\xe4");
}

static void a_stream_shows_whole_characters_and_loses_nothing(void **state)
{
    (void)state;
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_text mixed;
    sl_text shown;
    sl_text_init(&mixed, &memory, SL_MEMORY_TEXT);
    sl_text_init(&shown, &memory, SL_MEMORY_TEXT);
    append_mixed_text(&mixed, 50000, 3);
    sl_utf8_stream stream = {.n_pending = 0};
    uint64_t state_of_numbers = 5;
    for (size_t offset = 0; offset < mixed.length;) {
        size_t length = 1 + next_number(&state_of_numbers, 5);
        length = length < mixed.length - offset ? length : mixed.length - offset;
        assert_true(sl_utf8_stream_push(&stream, mixed.data + offset, length, &shown));
        offset += length;
        /* What is held back is the start of a character, and nothing else is. */
        assert_int_equal(shown.length + stream.n_pending, offset);
        assert_int_equal(sl_utf8_decode((const char *)stream.pending, stream.n_pending, NULL), 0);
        assert_true(stream.n_pending < 4);
    }
    assert_true(sl_utf8_stream_flush(&stream, &shown));
    assert_int_equal(shown.length, mixed.length);
    assert_memory_equal(shown.data, mixed.data, mixed.length);
    sl_text_fini(&shown);
    sl_text_fini(&mixed);
}

static void a_stream_without_memory_says_so(void **state)
{
    (void)state;
    sl_memory memory;
    failing_source source;
    failing_memory_init(&memory, &source, 0);
    sl_text out;
    sl_text_init(&out, &memory, SL_MEMORY_TEXT);
    sl_utf8_stream stream = {.n_pending = 0};
    assert_false(sl_utf8_stream_push(&stream, "a", 1, &out));
    sl_text_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_matcher_agrees_on_what_is_well_formed),
        cmocka_unit_test(every_character_is_decoded_as_it_was_encoded),
        cmocka_unit_test(every_byte_has_a_printable_character_of_its_own),
        cmocka_unit_test(what_is_not_in_the_byte_alphabet_is_kept),
        cmocka_unit_test(an_unfinished_character_is_held_back_until_flushed),
        cmocka_unit_test(bytes_that_cannot_become_a_character_are_shown_at_once),
        cmocka_unit_test(a_stream_shows_whole_characters_and_loses_nothing),
        cmocka_unit_test(a_stream_without_memory_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
