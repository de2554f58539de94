/* The tokenizer on small vocabularies made by hand: special tokens, BOS and EOS, stop tokens, refusals, memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "../support/failing_memory.h"
#include "../support/mixed_text.h"
#include "../support/tokenizer_file.h"
#include "text/byte_map.h"
#include "text/pretokenizer_rules.h"
#include "text/utf8.h"

enum { MAX_TOKENS = 400, MAX_TEXT = 40 };

/* A vocabulary under construction. */
typedef struct builder {
    sl_vocabulary_spec spec;
    sl_span tokens[MAX_TOKENS];
    int32_t types[MAX_TOKENS];
    float scores[MAX_TOKENS];
    sl_span merges[MAX_TOKENS];
    char texts[MAX_TOKENS][MAX_TEXT];
    sl_memory memory;
    sluice_error error;
    sl_tokenizer *tokenizer;
} builder;

static int32_t add_token(builder *build, const char *text, sl_token_type type, float score)
{
    uint32_t id = build->spec.n_tokens++;
    assert_true(id < MAX_TOKENS && strlen(text) < MAX_TEXT);
    snprintf(build->texts[id], MAX_TEXT, "%s", text);
    build->tokens[id] = sl_span_of(build->texts[id]);
    build->types[id] = type;
    build->scores[id] = score;
    return (int32_t)id;
}

static void start(builder *build, const char *model)
{
    memset(build, 0, sizeof *build);
    sl_memory_init(&build->memory, NULL);
    build->spec = (sl_vocabulary_spec){.model = sl_span_of(model),
                                       .bos_id = -1,
                                       .eos_id = -1,
                                       .eot_id = -1,
                                       .eom_id = -1,
                                       .unknown_id = -1,
                                       .padding_id = -1};
    build->spec.tokens = build->tokens;
    build->spec.types = build->types;
    build->spec.scores = build->scores;
    build->spec.merges = build->merges;
}

/* The byte alphabet with id == byte. */
static void start_bpe(builder *build)
{
    start(build, "gpt2");
    for (int byte = 0; byte < 256; byte++) {
        char text[MAX_TEXT] = "";
        sl_utf8_encode(sl_byte_map_character((unsigned char)byte), text);
        add_token(build, text, SL_TOKEN_NORMAL, 0);
    }
}

/* "a b" becomes a token "ab" and a merge. */
static int32_t add_merge(builder *build, const char *merge)
{
    build->merges[build->spec.n_merges++] = sl_span_of(merge);
    char text[MAX_TEXT] = "";
    const char *space = strchr(merge, ' ');
    snprintf(text, sizeof text, "%.*s%s", (int)(space - merge), merge, space + 1);
    return add_token(build, text, SL_TOKEN_NORMAL, 0);
}

/* <unk> 0, <s> 1, </s> 2, then the 256 byte tokens from 3. */
static void start_spm(builder *build)
{
    start(build, "llama");
    add_token(build, "<unk>", SL_TOKEN_UNKNOWN, 0);
    add_token(build, "<s>", SL_TOKEN_CONTROL, 0);
    add_token(build, "</s>", SL_TOKEN_CONTROL, 0);
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[MAX_TEXT];
        snprintf(text, sizeof text, "<0x%02X>", byte);
        add_token(build, text, SL_TOKEN_BYTE, 0);
    }
}

static void open_tokenizer(builder *build)
{
    if (sl_tokenizer_open(&build->tokenizer, &build->spec, &build->memory, &build->error) != SLUICE_OK) {
        fail_msg("%s", build->error.message);
    }
}

static void close_tokenizer(builder *build)
{
    sl_tokenizer_close(&build->tokenizer);
    assert_null(build->tokenizer);
    assert_int_equal(build->memory.n_live, 0);
}

static void expect_refusal(builder *build, sluice_status status, const char *mentioned)
{
    assert_int_equal(sl_tokenizer_open(&build->tokenizer, &build->spec, &build->memory, &build->error), status);
    assert_null(build->tokenizer);
    if (strstr(build->error.message, mentioned) == NULL) {
        fail_msg("\"%s\" does not mention \"%s\"", build->error.message, mentioned);
    }
    assert_int_equal(build->memory.n_live, 0);
}

static void expect_ids(builder *build, const char *text, unsigned flags, const int32_t *expected, size_t n_expected)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    if (sl_tokenizer_encode(build->tokenizer, sl_span_of(text), flags, &ids, &n_ids, &build->error) != SLUICE_OK) {
        fail_msg("%s", build->error.message);
    }
    assert_non_null(ids);
    for (size_t i = 0; i < n_ids && i < n_expected; i++) {
        if (ids[i] != expected[i]) {
            fail_msg("\"%s\": id %zu is %d, expected %d", text, i, ids[i], expected[i]);
        }
    }
    assert_int_equal(n_ids, n_expected);
    sl_free(&build->memory, ids);
}
#define EXPECT_IDS(build, text, flags, ...)                                                                            \
    expect_ids(build, text, flags, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / 4)

static void expect_text(builder *build, const int32_t *ids, size_t n_ids, bool show_special, const char *expected)
{
    sl_text out;
    sl_text_init(&out, &build->memory, SL_MEMORY_TEXT);
    assert_int_equal(sl_tokenizer_decode(build->tokenizer, ids, n_ids, show_special, &out, &build->error), SLUICE_OK);
    assert_true(sl_span_equal_text((sl_span){out.data, out.length}, expected));
    sl_text_fini(&out);
}
#define EXPECT_TEXT(build, show_special, expected, ...)                                                                \
    expect_text(build, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / 4, show_special,       \
                expected)

static void pairs_merge_in_the_order_of_the_list_and_from_the_left(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    int32_t bc = add_merge(&build, "b c");
    int32_t ab = add_merge(&build, "a b");
    int32_t aa = add_merge(&build, "a a");
    int32_t bcbc = add_merge(&build, "bc bc");
    open_tokenizer(&build);
    EXPECT_IDS(&build, "abc", SL_ENCODE_PLAIN, 'a', bc);
    EXPECT_IDS(&build, "abab", SL_ENCODE_PLAIN, ab, ab);
    EXPECT_IDS(&build, "aaa", SL_ENCODE_PLAIN, aa, 'a');
    EXPECT_IDS(&build, "aaaa", SL_ENCODE_PLAIN, aa, aa);
    EXPECT_IDS(&build, "abcbc", SL_ENCODE_PLAIN, 'a', bcbc);
    EXPECT_IDS(&build, "bcbcbc", SL_ENCODE_PLAIN, bcbc, bc);
    close_tokenizer(&build);
}

static void a_merge_of_what_is_no_plain_token_never_applies(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    build.merges[build.spec.n_merges++] = sl_span_of("x y");
    int32_t control = add_token(&build, "ab", SL_TOKEN_CONTROL, 0);
    build.merges[build.spec.n_merges++] = sl_span_of("a b");
    open_tokenizer(&build);
    EXPECT_IDS(&build, "xyab", SL_ENCODE_PLAIN, 'x', 'y', 'a', 'b');
    EXPECT_IDS(&build, "xyab", SL_ENCODE_PARSE_SPECIAL, 'x', 'y', control);
    close_tokenizer(&build);
}

static void a_whole_piece_is_taken_as_it_is_only_where_the_family_does(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    int32_t word = add_token(&build, "word", SL_TOKEN_NORMAL, 0);
    open_tokenizer(&build);
    EXPECT_IDS(&build, "word", SL_ENCODE_PLAIN, 'w', 'o', 'r', 'd');
    close_tokenizer(&build);
    build.spec.pre = sl_span_of("llama-bpe");
    open_tokenizer(&build);
    EXPECT_IDS(&build, "word", SL_ENCODE_PLAIN, word);
    close_tokenizer(&build);
}

static void bytes_without_a_token_become_the_replacement_character(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    build.tokens[0xff] = sl_span_of("taken out");
    open_tokenizer(&build);
    EXPECT_IDS(&build, "a\xff", SL_ENCODE_PLAIN, 'a', 0xef, 0xbf, 0xbd);
    close_tokenizer(&build);
    build.tokens[0xbd] = sl_span_of("taken out too");
    open_tokenizer(&build);
    int32_t *ids = NULL;
    size_t n_ids = 0;
    assert_int_equal(
        sl_tokenizer_encode(build.tokenizer, sl_span_of("a\xff"), SL_ENCODE_PLAIN, &ids, &n_ids, &build.error),
        SLUICE_ERROR_UNSUPPORTED);
    assert_non_null(strstr(build.error.message, "0xff"));
    assert_null(ids);
    close_tokenizer(&build);
}

static void special_texts_match_by_type_and_the_longest_first(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    int32_t user = add_token(&build, "<u>", SL_TOKEN_USER_DEFINED, 0);
    int32_t control = add_token(&build, "<c>", SL_TOKEN_CONTROL, 0);
    int32_t longer = add_token(&build, "<c>!", SL_TOKEN_CONTROL, 0);
    int32_t unknown = add_token(&build, "<k>", SL_TOKEN_UNKNOWN, 0);
    int32_t longer_user = add_token(&build, "<u>>", SL_TOKEN_USER_DEFINED, 0);
    open_tokenizer(&build);
    EXPECT_IDS(&build, "<u><c>", SL_ENCODE_PLAIN, user, '<', 'c', '>');
    EXPECT_IDS(&build, "<u><c>", SL_ENCODE_PARSE_SPECIAL, user, control);
    EXPECT_IDS(&build, "<c>!<c>", SL_ENCODE_PARSE_SPECIAL, longer, control);
    EXPECT_IDS(&build, "<u>><u", SL_ENCODE_PLAIN, longer_user, '<', 'u');
    EXPECT_IDS(&build, "<k>", SL_ENCODE_PLAIN, '<', 'k', '>');
    EXPECT_IDS(&build, "<k>", SL_ENCODE_PARSE_SPECIAL, unknown);
    close_tokenizer(&build);
}

static void control_tokens_show_only_when_asked_for(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    int32_t user = add_token(&build, "<u>", SL_TOKEN_USER_DEFINED, 0);
    int32_t control = add_token(&build, "<c>", SL_TOKEN_CONTROL, 0);
    open_tokenizer(&build);
    EXPECT_TEXT(&build, false, "a<u>b", 'a', control, user, 'b');
    EXPECT_TEXT(&build, true, "a<c><u>b", 'a', control, user, 'b');
    close_tokenizer(&build);
}

static void ids_outside_the_vocabulary_are_refused(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    open_tokenizer(&build);
    sl_text out;
    sl_text_init(&out, &build.memory, SL_MEMORY_TEXT);
    const int32_t outside[] = {-1, 256, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(sl_tokenizer_piece(build.tokenizer, outside[i], true, &out, &build.error),
                         SLUICE_ERROR_ARGUMENT);
        assert_false(sl_tokenizer_is_stop(build.tokenizer, outside[i]));
    }
    assert_int_equal(sl_tokenizer_size(build.tokenizer), 256);
    sl_text_fini(&out);
    close_tokenizer(&build);
}

static void bos_and_eos_follow_the_family_unless_the_file_says_otherwise(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        const char *pre;
        sl_rule add_bos;
        sl_rule add_eos;
        bool adds_bos;
        bool adds_eos;
    } cases[] = {
        {"gpt2", "gpt-2", SL_RULE_DEFAULT, SL_RULE_DEFAULT, false, false},
        {"gpt2", "gpt-2", SL_RULE_YES, SL_RULE_YES, true, true},
        {"gpt2", "llama-bpe", SL_RULE_DEFAULT, SL_RULE_DEFAULT, true, false},
        {"gpt2", "llama-bpe", SL_RULE_NO, SL_RULE_DEFAULT, false, false},
        {"llama", "", SL_RULE_DEFAULT, SL_RULE_DEFAULT, true, false},
        {"llama", "", SL_RULE_NO, SL_RULE_YES, false, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        builder build;
        start_bpe(&build);
        build.spec.model = sl_span_of(cases[i].model);
        build.spec.pre = sl_span_of(cases[i].pre);
        build.spec.bos_id = add_token(&build, "[B]", SL_TOKEN_CONTROL, 0);
        build.spec.eos_id = add_token(&build, "[E]", SL_TOKEN_CONTROL, 0);
        build.spec.add_bos = cases[i].add_bos;
        build.spec.add_eos = cases[i].add_eos;
        open_tokenizer(&build);
        assert_int_equal(sl_tokenizer_adds_bos(build.tokenizer), cases[i].adds_bos);
        assert_int_equal(sl_tokenizer_adds_eos(build.tokenizer), cases[i].adds_eos);
        int32_t expected[2];
        size_t n_expected = 0;
        if (cases[i].adds_bos) {
            expected[n_expected++] = build.spec.bos_id;
        }
        if (cases[i].adds_eos) {
            expected[n_expected++] = build.spec.eos_id;
        }
        expect_ids(&build, "", SL_ENCODE_ADD_SPECIAL, expected, n_expected);
        expect_ids(&build, "", SL_ENCODE_PLAIN, NULL, 0);
        close_tokenizer(&build);
    }
}

static void a_rule_without_its_token_adds_nothing(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    build.spec.add_bos = SL_RULE_YES;
    build.spec.add_eos = SL_RULE_YES;
    open_tokenizer(&build);
    assert_int_equal(sl_tokenizer_bos(build.tokenizer), -1);
    assert_int_equal(sl_tokenizer_eos(build.tokenizer), -1);
    EXPECT_IDS(&build, "a", SL_ENCODE_ADD_SPECIAL, 'a');
    close_tokenizer(&build);
}

static void generation_stops_at_named_ids_and_known_texts(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    build.spec.eos_id = add_token(&build, "first", SL_TOKEN_CONTROL, 0);
    build.spec.eot_id = add_token(&build, "second", SL_TOKEN_CONTROL, 0);
    build.spec.eom_id = add_token(&build, "third", SL_TOKEN_CONTROL, 0);
    int32_t turn = add_token(&build, "<|im_end|>", SL_TOKEN_CONTROL, 0);
    int32_t plain = add_token(&build, "</s>", SL_TOKEN_NORMAL, 0);
    int32_t sentence = add_token(&build,
                                 "<\xef\xbd\x9c"
                                 "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
                                 SL_TOKEN_CONTROL, 0);
    int32_t end = add_token(&build, "<|end|>", SL_TOKEN_CONTROL, 0);
    int32_t other = add_token(&build, "<|im_start|>", SL_TOKEN_CONTROL, 0);
    open_tokenizer(&build);
    const int32_t stops[] = {build.spec.eos_id, build.spec.eot_id, build.spec.eom_id, turn, plain, sentence, end};
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        assert_true(sl_tokenizer_is_stop(build.tokenizer, stops[i]));
    }
    assert_false(sl_tokenizer_is_stop(build.tokenizer, other));
    assert_false(sl_tokenizer_is_stop(build.tokenizer, 'a'));
    close_tokenizer(&build);
}

static void the_end_of_a_channel_is_no_stop_where_return_and_call_are(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    int32_t end = add_token(&build, "<|end|>", SL_TOKEN_CONTROL, 0);
    int32_t give_back = add_token(&build, "<|return|>", SL_TOKEN_CONTROL, 0);
    open_tokenizer(&build);
    assert_true(sl_tokenizer_is_stop(build.tokenizer, end));
    close_tokenizer(&build);
    int32_t call = add_token(&build, "<|call|>", SL_TOKEN_CONTROL, 0);
    open_tokenizer(&build);
    assert_false(sl_tokenizer_is_stop(build.tokenizer, end));
    assert_true(sl_tokenizer_is_stop(build.tokenizer, give_back));
    assert_true(sl_tokenizer_is_stop(build.tokenizer, call));
    close_tokenizer(&build);
}

static void a_closing_tag_is_no_stop_where_tool_responses_are(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    int32_t tag = add_token(&build, "</s>", SL_TOKEN_NORMAL, 0);
    int32_t response = add_token(&build, "<|tool_response>", SL_TOKEN_CONTROL, 0);
    open_tokenizer(&build);
    assert_false(sl_tokenizer_is_stop(build.tokenizer, tag));
    assert_true(sl_tokenizer_is_stop(build.tokenizer, response));
    close_tokenizer(&build);
}

static void higher_scores_merge_first_and_the_rest_falls_back_to_bytes(void **state)
{
    (void)state;
    builder build;
    start_spm(&build);
    int32_t a = add_token(&build, "a", SL_TOKEN_NORMAL, -9);
    int32_t b = add_token(&build, "b", SL_TOKEN_NORMAL, -9);
    int32_t c = add_token(&build, "c", SL_TOKEN_NORMAL, -9);
    int32_t ab = add_token(&build, "ab", SL_TOKEN_NORMAL, -2);
    int32_t bc = add_token(&build, "bc", SL_TOKEN_NORMAL, -1);
    int32_t space = add_token(&build, "\xe2\x96\x81", SL_TOKEN_NORMAL, -9);
    open_tokenizer(&build);
    EXPECT_IDS(&build, "abc", SL_ENCODE_PLAIN, space, a, bc);
    EXPECT_IDS(&build, "aba", SL_ENCODE_PLAIN, space, ab, a);
    EXPECT_IDS(&build,
               "b\xc3\xa9"
               "c\xff",
               SL_ENCODE_PLAIN, space, b, 3 + 0xc3, 3 + 0xa9, c, 3 + 0xff);
    EXPECT_IDS(&build, "a<s>b", SL_ENCODE_ADD_SPECIAL | SL_ENCODE_PARSE_SPECIAL, 1, space, a, 1, space, b);
    EXPECT_TEXT(&build, false, "ab", 1, space, a, 1, space, b);
    EXPECT_TEXT(&build, true, "<s>a<s>b", 1, space, a, 1, space, b);
    close_tokenizer(&build);
    build.spec.add_space_prefix = SL_RULE_NO;
    open_tokenizer(&build);
    EXPECT_IDS(&build, " ab", SL_ENCODE_PLAIN, space, ab);
    EXPECT_IDS(&build, "ab", SL_ENCODE_PLAIN, ab);
    EXPECT_TEXT(&build, false, " ab", space, ab);
    close_tokenizer(&build);
}

static void the_text_of_a_byte_token_is_ordinary_text(void **state)
{
    (void)state;
    builder build;
    start_spm(&build);
    add_token(&build, "<0x4", SL_TOKEN_NORMAL, -1);
    build.spec.add_space_prefix = SL_RULE_NO;
    open_tokenizer(&build);
    EXPECT_IDS(&build, "<0x41>", SL_ENCODE_PARSE_SPECIAL, 3 + '<', 3 + '0', 3 + 'x', 3 + '4', 3 + '1', 3 + '>');
    EXPECT_TEXT(&build, false, "A", 3 + 'A');
    close_tokenizer(&build);
}

static void a_space_without_a_piece_of_its_own_is_the_space_byte(void **state)
{
    (void)state;
    builder build;
    start_spm(&build);
    open_tokenizer(&build);
    EXPECT_IDS(&build, "a b", SL_ENCODE_PLAIN, 3 + ' ', 3 + 'a', 3 + ' ', 3 + 'b');
    EXPECT_TEXT(&build, false, "a b", 3 + ' ', 3 + 'a', 3 + ' ', 3 + 'b');
    close_tokenizer(&build);
}

static void without_byte_tokens_a_run_of_unknown_characters_is_one_unknown_token(void **state)
{
    (void)state;
    builder build;
    start(&build, "llama");
    int32_t unknown = add_token(&build, "<unk>", SL_TOKEN_UNKNOWN, 0);
    int32_t a = add_token(&build, "a", SL_TOKEN_NORMAL, -1);
    int32_t space = add_token(&build, "\xe2\x96\x81", SL_TOKEN_NORMAL, -1);
    open_tokenizer(&build);
    EXPECT_IDS(&build, "xyaz", SL_ENCODE_PLAIN, space, unknown, a, unknown);
    close_tokenizer(&build);
    build.types[unknown] = SL_TOKEN_NORMAL;
    open_tokenizer(&build);
    int32_t *ids = NULL;
    size_t n_ids = 0;
    assert_int_equal(
        sl_tokenizer_encode(build.tokenizer, sl_span_of("ax"), SL_ENCODE_PLAIN, &ids, &n_ids, &build.error),
        SLUICE_ERROR_UNSUPPORTED);
    close_tokenizer(&build);
}

static void extra_spaces_are_removed_where_the_file_says_so(void **state)
{
    (void)state;
    builder build;
    start_spm(&build);
    int32_t a = add_token(&build, "a", SL_TOKEN_NORMAL, -1);
    int32_t space = add_token(&build, "\xe2\x96\x81", SL_TOKEN_NORMAL, -1);
    build.spec.remove_extra_whitespaces = SL_RULE_YES;
    open_tokenizer(&build);
    EXPECT_IDS(&build, "  a   a ", SL_ENCODE_PLAIN, space, a, space, a);
    close_tokenizer(&build);
}

static void unknown_models_and_pretokenizers_are_refused_with_the_known_ones(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    build.spec.model = sl_span_of("rwkv");
    expect_refusal(&build, SLUICE_ERROR_UNSUPPORTED, "gpt2");
    build.spec.model = sl_span_of("gpt2");
    build.spec.pre = sl_span_of("never-heard-of");
    expect_refusal(&build, SLUICE_ERROR_UNSUPPORTED, "qwen2");
    expect_refusal(&build, SLUICE_ERROR_UNSUPPORTED, "never-heard-of");
}

static void a_vocabulary_that_contradicts_itself_is_refused(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    build.spec.bos_id = 256;
    expect_refusal(&build, SLUICE_ERROR_FORMAT, "BOS");
    build.spec.bos_id = -2;
    expect_refusal(&build, SLUICE_ERROR_FORMAT, "BOS");
    build.spec.bos_id = -1;
    build.spec.eot_id = INT32_MAX;
    expect_refusal(&build, SLUICE_ERROR_FORMAT, "EOT");
    build.spec.eot_id = -1;
    build.types[7] = 9;
    expect_refusal(&build, SLUICE_ERROR_FORMAT, "token 7");
    build.types[7] = SL_TOKEN_NORMAL;
    static const char *const broken[] = {"", " ", "ab", "a ", " b", "  "};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        build.merges[0] = sl_span_of(broken[i]);
        build.spec.n_merges = 1;
        expect_refusal(&build, SLUICE_ERROR_FORMAT, "merge 0");
    }
    build.spec.n_merges = 0;
    build.spec.n_tokens = 0;
    expect_refusal(&build, SLUICE_ERROR_FORMAT, "0 tokens");
    start_spm(&build);
    build.scores[5] = 0.0f / (float)build.spec.n_merges;
    expect_refusal(&build, SLUICE_ERROR_FORMAT, "token 5");
}

/* Texts on which a careless pattern or merge would need a square of their length: the matcher's step limit, which is
 * linear, would turn that into an error. */
static void long_runs_of_one_kind_are_encoded_by_every_pretokenizer(void **state)
{
    (void)state;
    static const char *const units[] = {" ",
                                        "\n",
                                        "\r\n",
                                        "a",
                                        "A",
                                        "1",
                                        "'",
                                        ".",
                                        "\t ",
                                        " x",
                                        "\xff",
                                        "\xe4\xb8\xad",
                                        ("\xe4\xb8\xad"
                                         "A"),
                                        "\xcc\x81",
                                        "\x01",
                                        "aA",
                                        "\xc2\xa0"};
    enum { RUN_BYTES = 100000 };
    static char run[RUN_BYTES + 8];
    for (size_t i = 0; sl_pretokenizer_rule_at(i) != NULL; i++) {
        builder build;
        start_bpe(&build);
        build.spec.pre = sl_span_of(sl_pretokenizer_rule_at(i)->name);
        add_merge(&build, "a a");
        add_merge(&build, "aa aa");
        open_tokenizer(&build);
        for (size_t unit = 0; unit < sizeof units / sizeof units[0]; unit++) {
            size_t length = 0;
            while (length < RUN_BYTES) {
                memcpy(run + length, units[unit], strlen(units[unit]));
                length += strlen(units[unit]);
            }
            /* Something else at the end keeps the run from matching as a tail. */
            run[length++] = 'x';
            int32_t *ids = NULL;
            size_t n_ids = 0;
            if (sl_tokenizer_encode(build.tokenizer, (sl_span){run, length}, SL_ENCODE_PLAIN, &ids, &n_ids,
                                    &build.error) != SLUICE_OK) {
                fail_msg("%s, a run of \"%s\": %s", sl_pretokenizer_rule_at(i)->name, units[unit], build.error.message);
            }
            assert_true(n_ids > 0);
            sl_free(&build.memory, ids);
        }
        close_tokenizer(&build);
    }
}

static void every_pretokenizer_reads_a_mixed_text_back(void **state)
{
    (void)state;
    for (size_t i = 0; sl_pretokenizer_rule_at(i) != NULL; i++) {
        tokenizer_file file;
        tokenizer_file_open_as(&file, "tests/golden/text/bible-bpe.gguf", sl_pretokenizer_rule_at(i)->name);
        sl_text mixed;
        sl_text decoded;
        sl_text_init(&mixed, &file.memory, SL_MEMORY_TEXT);
        sl_text_init(&decoded, &file.memory, SL_MEMORY_TEXT);
        append_mixed_text(&mixed, 30000, 10 + i);
        int32_t *ids = NULL;
        size_t n_ids = 0;
        assert_int_equal(sl_tokenizer_encode(file.tokenizer, (sl_span){mixed.data, mixed.length}, SL_ENCODE_PLAIN, &ids,
                                             &n_ids, &file.error),
                         SLUICE_OK);
        assert_int_equal(sl_tokenizer_decode(file.tokenizer, ids, n_ids, false, &decoded, &file.error), SLUICE_OK);
        assert_int_equal(decoded.length, mixed.length);
        assert_memory_equal(decoded.data, mixed.data, mixed.length);
        sl_free(&file.memory, ids);
        sl_text_fini(&decoded);
        sl_text_fini(&mixed);
        tokenizer_file_close(&file);
    }
}

/* Open, encode, decode and close with the n-th allocation failing; the status of what failed first. */
static sluice_status use_everything(builder *build, const char *text)
{
    sl_text out;
    sl_text_init(&out, &build->memory, SL_MEMORY_TEXT);
    int32_t *ids = NULL;
    size_t n_ids = 0;
    sluice_status status = sl_tokenizer_open(&build->tokenizer, &build->spec, &build->memory, &build->error);
    if (status == SLUICE_OK) {
        status =
            sl_tokenizer_encode(build->tokenizer, sl_span_of(text), SL_ENCODE_ADD_SPECIAL, &ids, &n_ids, &build->error);
    }
    if (status == SLUICE_OK) {
        status = sl_tokenizer_decode(build->tokenizer, ids, n_ids, true, &out, &build->error);
    }
    sl_free(&build->memory, ids);
    sl_text_fini(&out);
    sl_tokenizer_close(&build->tokenizer);
    return status;
}

static void expect_no_leak_for_any_failed_allocation(builder *build)
{
    const char *text = "many words and 1234 numbers <u> in many words, so that every list has to grow at least once";
    uint64_t n_failures = 0;
    for (;; n_failures++) {
        failing_source source;
        failing_memory_init(&build->memory, &source, n_failures);
        sluice_status status = use_everything(build, text);
        assert_int_equal(build->memory.n_live, 0);
        if (source.n_calls <= n_failures) {
            assert_int_equal(status, SLUICE_OK);
            break;
        }
        assert_int_equal(status, SLUICE_ERROR_NO_MEMORY);
        assert_int_equal(build->error.status, SLUICE_ERROR_NO_MEMORY);
    }
    assert_true(n_failures > 10);
}

static void a_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    builder build;
    start_bpe(&build);
    build.spec.pre = sl_span_of("llama-bpe");
    add_token(&build, "<u>", SL_TOKEN_USER_DEFINED, 0);
    add_merge(&build, "a n");
    build.spec.bos_id = 1;
    expect_no_leak_for_any_failed_allocation(&build);
    build.spec.pre = sl_span_of("deepseek-llm");
    expect_no_leak_for_any_failed_allocation(&build);
    start_spm(&build);
    add_token(&build, "<u>", SL_TOKEN_USER_DEFINED, 0);
    add_token(&build, "an", SL_TOKEN_NORMAL, -1);
    expect_no_leak_for_any_failed_allocation(&build);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_merge_in_the_order_of_the_list_and_from_the_left),
        cmocka_unit_test(a_merge_of_what_is_no_plain_token_never_applies),
        cmocka_unit_test(a_whole_piece_is_taken_as_it_is_only_where_the_family_does),
        cmocka_unit_test(bytes_without_a_token_become_the_replacement_character),
        cmocka_unit_test(special_texts_match_by_type_and_the_longest_first),
        cmocka_unit_test(control_tokens_show_only_when_asked_for),
        cmocka_unit_test(ids_outside_the_vocabulary_are_refused),
        cmocka_unit_test(bos_and_eos_follow_the_family_unless_the_file_says_otherwise),
        cmocka_unit_test(a_rule_without_its_token_adds_nothing),
        cmocka_unit_test(generation_stops_at_named_ids_and_known_texts),
        cmocka_unit_test(the_end_of_a_channel_is_no_stop_where_return_and_call_are),
        cmocka_unit_test(a_closing_tag_is_no_stop_where_tool_responses_are),
        cmocka_unit_test(higher_scores_merge_first_and_the_rest_falls_back_to_bytes),
        cmocka_unit_test(the_text_of_a_byte_token_is_ordinary_text),
        cmocka_unit_test(a_space_without_a_piece_of_its_own_is_the_space_byte),
        cmocka_unit_test(without_byte_tokens_a_run_of_unknown_characters_is_one_unknown_token),
        cmocka_unit_test(extra_spaces_are_removed_where_the_file_says_so),
        cmocka_unit_test(unknown_models_and_pretokenizers_are_refused_with_the_known_ones),
        cmocka_unit_test(a_vocabulary_that_contradicts_itself_is_refused),
        cmocka_unit_test(long_runs_of_one_kind_are_encoded_by_every_pretokenizer),
        cmocka_unit_test(every_pretokenizer_reads_a_mixed_text_back),
        cmocka_unit_test(a_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
