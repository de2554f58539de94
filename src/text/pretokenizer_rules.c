/* The table of pre-tokenizers and the names that files use for them. Constant data.
 *
 * The patterns are those of the published tokenizers, with two things spelled out: white space is Unicode's White_Space
 * property (PCRE2's own \s has U+180E too), and no pattern needs more steps than a small multiple of the text's length.
 * Every pattern ends its matches where the original ends them. */
#include "text/pretokenizer_rules.h"

#include <stddef.h>

/* White space as the contents of a character class, and the class and its complement. */
#define SPACE_SET "\\x09-\\x0d\\x{85}\\p{Z}"
#define SPACE "[" SPACE_SET "]"
#define NOT_SPACE "[^" SPACE_SET "]"

/* Runs of white space leave the last one to the word that follows. */
#define SPACE_RUNS SPACE "+(?!" NOT_SPACE ")|" SPACE "+"

#define ENGLISH_ENDINGS "'(?:[sdmt]|ll|ve|re)"
#define ENGLISH_ENDINGS_ANY_CASE "(?i:'s|'t|'re|'ve|'m|'ll|'d)"

#define GPT2_WORDS ENGLISH_ENDINGS "| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE_SET "\\p{L}\\p{N}]+|" SPACE_RUNS

/* The cl100k shape: `letters` make words, the class `others` makes the rest, `digits` says how many go together. */
#define CL100K_SHAPE(letters, others, digits)                                                                          \
    ENGLISH_ENDINGS_ANY_CASE "|[^\\r\\n\\p{L}\\p{N}]?" letters "+|" digits "| ?" others "+[\\r\\n]*|" SPACE            \
                             "*[\\r\\n]+|" SPACE_RUNS
#define NO_WORD "[^" SPACE_SET "\\p{L}\\p{N}]"
#define CL100K_WORDS(digits) CL100K_SHAPE("\\p{L}", NO_WORD, digits)

/* The o200k shape: a word is capitals, then small letters; letters without case count as both. */
#define O200K_SHAPE(capitals, small, after_marks)                                                                      \
    "[^\\r\\n\\p{L}\\p{N}]?" capitals "*" small "+" ENGLISH_ENDINGS_ANY_CASE "?|[^\\r\\n\\p{L}\\p{N}]?" capitals       \
    "+" small "*" ENGLISH_ENDINGS_ANY_CASE "?|\\p{N}{1,3}| ?" NO_WORD "+" after_marks "*|" SPACE                       \
    "*[\\r\\n]+|" SPACE_RUNS
#define O200K_WORDS O200K_SHAPE("[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]", "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]", "[\\r\\n/]")

/* The same without Han, which makes words of its own: everything but the categories that are no letters or marks. */
#define KIMI_WORDS                                                                                                     \
    "\\p{sc:Han}+|" O200K_SHAPE("[^\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}\\p{Ll}\\p{sc:Han}]",                                 \
                                "[^\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}\\p{Lu}\\p{Lt}\\p{sc:Han}]", "[\\r\\n]")

#define DEEPSEEK_V3_WORDS                                                                                              \
    "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACE          \
    "*[\\r\\n]+|" SPACE_RUNS

/* Letters with case of the scripts that have it, as DeepSeek-LLM lists them. */
#define CASED_LETTERS                                                                                                  \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}"                    \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}"             \
    "\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}"                    \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"                  \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}"                  \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}"          \
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}"         \
    "\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}"                   \
    "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}"                    \
    "\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}"                    \
    "\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}"                   \
    "\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}"                  \
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"                \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"                             \
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

#define DEEPSEEK_CJK "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
#define DEEPSEEK_MARKS "[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+"
/* White space that ends the piece; the look-behind keeps the search linear. */
#define SPACE_AT_END "(?<!" SPACE ")" SPACE "++\\z"

static const sl_pretokenizer_rule rules[] = {
    {.name = "gpt-2", .patterns = {GPT2_WORDS}},
    {.name = "llama-bpe", .patterns = {CL100K_WORDS("\\p{N}{1,3}")}, .ignore_merges = true, .adds_bos = true},
    {.name = "glm4", .patterns = {CL100K_WORDS("\\p{N}{1,3}")}},
    {.name = "qwen2", .patterns = {CL100K_WORDS("\\p{N}")}},
    {.name = "qwen35", .patterns = {CL100K_SHAPE("[\\p{L}\\p{M}]", "[^" SPACE_SET "\\p{L}\\p{M}\\p{N}]", "\\p{N}")}},
    {.name = "gpt-4o", .patterns = {O200K_WORDS}},
    {.name = "kimi-k2", .patterns = {KIMI_WORDS}, .ignore_merges = true},
    {.name = "deepseek-llm",
     .patterns = {"[\\r\\n]", SPACE "?[" CASED_LETTERS "]+", SPACE "?" DEEPSEEK_MARKS, SPACE_AT_END, DEEPSEEK_CJK,
                  "\\p{N}"}},
    {.name = "deepseek-coder", .patterns = {"[\\r\\n]", SPACE "?\\p{L}+", SPACE "?\\p{P}+", DEEPSEEK_CJK, "\\p{N}"}},
    {.name = "deepseek-v3",
     .patterns = {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]+", DEEPSEEK_V3_WORDS}},
    /* The original also cuts between digits and others after the byte mapping; its vocabulary has no token that joins
     * them. */
    {.name = "falcon", .patterns = {"[\\p{P}$+<=>^~|`]+", GPT2_WORDS, "[0-9][0-9][0-9]"}},
    {.name = "starcoder", .patterns = {"\\p{N}", GPT2_WORDS}},
};

/* Names in files, beside the canonical ones. */
static const struct {
    const char *alias;
    const char *name;
} aliases[] = {
    {"", "gpt-2"},
    {"default", "gpt-2"},
    {"gpt2", "gpt-2"},
    {"gpt-neox", "gpt-2"},
    {"mpt", "gpt-2"},
    {"olmo", "gpt-2"},
    {"phi-2", "gpt-2"},
    {"llama3", "llama-bpe"},
    {"llama-v3", "llama-bpe"},
    {"lfm2", "llama-bpe"},
    {"pixtral", "llama-bpe"},
    {"falcon3", "llama-bpe"},
    {"chatglm-bpe", "glm4"},
    {"dbrx", "glm4"},
    {"smaug-bpe", "glm4"},
    {"deepseek-r1-qwen", "qwen2"},
    {"hunyuan", "qwen2"},
    {"stablelm2", "qwen2"},
    {"grok-2", "qwen2"},
    {"llama4", "gpt-4o"},
    {"minimax-m2", "gpt-4o"},
    {"bailingmoe", "qwen2"},
    {"bailingmoe2", "qwen2"},
    {"llada-moe", "qwen2"},
    {"hunyuan-dense", "deepseek-v3"},
    {"joyai-llm", "deepseek-v3"},
    {"refact", "starcoder"},
    {"command-r", "starcoder"},
    {"smollm", "starcoder"},
    {"codeshell", "starcoder"},
};

enum { N_RULES = sizeof rules / sizeof rules[0], N_ALIASES = sizeof aliases / sizeof aliases[0] };

const sl_pretokenizer_rule *sl_pretokenizer_rule_at(size_t index)
{
    return index < N_RULES ? &rules[index] : NULL;
}

const char *sl_pretokenizer_alias_at(size_t index)
{
    return index < N_ALIASES ? aliases[index].alias : NULL;
}

const sl_pretokenizer_rule *sl_pretokenizer_rule_find(sl_span name)
{
    for (size_t i = 0; i < N_ALIASES; i++) {
        if (sl_span_equal_text(name, aliases[i].alias)) {
            name = sl_span_of(aliases[i].name);
            break;
        }
    }
    for (size_t i = 0; i < N_RULES; i++) {
        if (sl_span_equal_text(name, rules[i].name)) {
            return &rules[i];
        }
    }
    return NULL;
}
