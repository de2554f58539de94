/* Text of every kind, the same for the same seed: prose, code, digits, scripts, emoji, odd white space, bytes that are
 * no UTF-8. Include after cmocka.h. */
#ifndef SL_TESTS_MIXED_TEXT_H
#define SL_TESTS_MIXED_TEXT_H

#include <string.h>

#include "base/strings.h"

static inline uint32_t next_number(uint64_t *state, uint32_t below)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*state >> 33) % below;
}

static inline void append_digits(sl_text *text, uint64_t *state)
{
    for (uint32_t n = next_number(state, 12) + 1; n > 0; n--) {
        char digit = (char)('0' + next_number(state, 10));
        assert_true(sl_text_append(text, &digit, 1));
    }
}

static inline void append_invalid_bytes(sl_text *text, uint64_t *state)
{
    static const char *const broken[] = {"\x80",
                                         "\xbf\xbf",
                                         "\xc3",
                                         "\xe4\xb8",
                                         "\xf0\x9f\x98",
                                         "\xc0\x80",
                                         "\xc1\xbf",
                                         "\xe0\x80\x80",
                                         "\xed\xa0\x80",
                                         "\xed\xbf\xbf",
                                         "\xf0\x80\x80\x80",
                                         "\xf4\x90\x80\x80",
                                         "\xf5",
                                         "\xf8\x88\x80\x80\x80",
                                         "\xfe",
                                         "\xff\xff"};
    const char *bytes = broken[next_number(state, sizeof broken / sizeof broken[0])];
    assert_true(sl_text_append(text, bytes, strlen(bytes)));
}

static inline void append_random_characters(sl_text *text, uint64_t *state)
{
    static const struct {
        uint32_t first;
        uint32_t count;
    } blocks[] = {{0x20, 95},     {0xa0, 96},      {0x100, 384},   {0x370, 144},  {0x400, 256},  {0x590, 112},
                  {0x600, 256},   {0x900, 128},    {0x1780, 128},  {0x1e00, 256}, {0x2000, 112}, {0x2190, 112},
                  {0x2500, 129},  {0x3040, 192},   {0x4e00, 9000}, {0xac00, 999}, {0xff00, 240}, {0x10400, 80},
                  {0x1f300, 768}, {0x20000, 4000}, {0x10fff0, 16}};
    uint32_t block = next_number(state, sizeof blocks / sizeof blocks[0]);
    for (uint32_t n = next_number(state, 9) + 1; n > 0; n--) {
        uint32_t code_point = blocks[block].first + next_number(state, blocks[block].count);
        unsigned char bytes[4] = {(unsigned char)code_point};
        size_t length = code_point < 0x80 ? 1 : code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
        for (size_t i = length; i > 1; i--) {
            bytes[i - 1] = (unsigned char)(0x80 | (code_point & 0x3f));
            code_point >>= 6;
        }
        bytes[0] = (unsigned char)(length == 1 ? bytes[0] : (0xf00u >> length & 0xf0u) | code_point);
        assert_true(sl_text_append(text, bytes, length));
    }
}

/* Append at least `n_bytes`. U+2581 does not occur. */
static inline void append_mixed_text(sl_text *text, size_t n_bytes, uint64_t seed)
{
    static const char *const phrases[] = {
        "In the beginning God created the heaven and the earth. ",
        "I've told 'em: we'll see, he'D say THEY'RE right, don't you? ",
        "for (int i = 0; i < n; i++) {\n\t\tsum += values[i] * 0x1F;\n\t}\n",
        "def f(x):\n    return {'a': [1, 2.5e-3], \"b\": None}  # done\n",
        "<|im_start|>user <s>[INST] <|endoftext|></s> ",
        "    ",
        "\t\t",
        "\r\n\r\n",
        "\n\n\n",
        " \xc2\xa0\xe3\x80\x80 ",
        "\xe2\x80\xa8\xc2\x85\x0b\x0c",
        "\xe1\xa0\x8e ",
        "\xe6\x88\x91\xe6\x83\xb3\xe5\x9c\xa8"
        "apple\xe5\xb7\xa5\xe4\xbd\x9c"
        "1314151\xe5\xa4\xa9\xef\xbd\x9e",
        "\xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7 \xd8\xa8\xd8\xa7\xd9\x84\xd8\xb9\xd8\xa7\xd9\x84\xd9\x85 "
        "\xd9\xa1\xd9\xa2\xd9\xa3 ",
        "\xf0\x9f\x98\xb6\xe2\x80\x8d\xf0\x9f\x8c\xab\xef\xb8\x8f \xf0\x9f\x9a\x80\xf0\x9f\x9a\x80 ",
        "\xed\x95\x9c\xea\xb5\xad\xec\x96\xb4 \xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1\xe3\x81\xaf ",
        "\xe0\xa4\xa8\xe0\xa4\xae\xe0\xa4\xb8\xe0\xa5\x8d\xe0\xa4\xa4\xe0\xa5\x87 e\xcc\x81\xcc\xa3 "
        "\xc3\xb5\xc3\xa9\xef\xac\x81 ",
        "!!!???...---===```'''\"\"\"$$$ ~~~ ((([[[{{{ ",
    };
    uint64_t state = seed;
    size_t end = text->length + n_bytes;
    while (text->length < end) {
        uint32_t kind = next_number(&state, 10);
        if (kind == 0) {
            append_invalid_bytes(text, &state);
        } else if (kind == 1) {
            append_digits(text, &state);
        } else if (kind < 5) {
            append_random_characters(text, &state);
        } else {
            const char *phrase = phrases[next_number(&state, sizeof phrases / sizeof phrases[0])];
            assert_true(sl_text_append(text, phrase, strlen(phrase)));
        }
    }
}

#endif
