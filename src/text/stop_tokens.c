/* Owns nothing. Files often name only the base model's end of text, so the texts that chat models end a turn with stop
 * too, whichever of them a vocabulary has. Threads: immutable after set-up. */
#include "text/stop_tokens.h"

static const char *const stop_texts[] = {
    /* end of turn, message or text */
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "\xe2\x96\x81<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    ("<\xef\xbd\x9c"
     "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"),
    "<|eot|>",
    "<|eom|>",
    /* fill in the middle: padding, next repository, next file */
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
};

enum { N_STOP_TEXTS = sizeof stop_texts / sizeof stop_texts[0], MAX_NAMED = 8 };
_Static_assert(2 * N_STOP_TEXTS + MAX_NAMED <= SL_STOP_TOKENS_MAX, "each text may be a plain and a special token");

bool sl_stop_tokens_contain(const sl_stop_tokens *stops, int32_t token)
{
    for (uint32_t i = 0; i < stops->n_ids; i++) {
        if (stops->ids[i] == token) {
            return true;
        }
    }
    return false;
}

static void add(sl_stop_tokens *stops, int32_t token)
{
    if (token >= 0 && stops->n_ids < SL_STOP_TOKENS_MAX && !sl_stop_tokens_contain(stops, token)) {
        stops->ids[stops->n_ids++] = token;
    }
}

static void drop(sl_stop_tokens *stops, int32_t token)
{
    for (uint32_t i = 0; i < stops->n_ids; i++) {
        if (stops->ids[i] == token) {
            stops->ids[i] = stops->ids[--stops->n_ids];
            return;
        }
    }
}

static int32_t find(const sl_vocabulary *vocabulary, const char *text)
{
    int32_t special = sl_vocabulary_find_special(vocabulary, sl_span_of(text));
    return special >= 0 ? special : sl_vocabulary_find_plain(vocabulary, sl_span_of(text));
}

void sl_stop_tokens_collect(sl_stop_tokens *stops, const sl_vocabulary *vocabulary, const int32_t *named,
                            size_t n_named)
{
    *stops = (sl_stop_tokens){0};
    for (size_t i = 0; i < n_named && i < MAX_NAMED; i++) {
        add(stops, named[i]);
    }
    for (size_t i = 0; i < N_STOP_TEXTS; i++) {
        add(stops, sl_vocabulary_find_special(vocabulary, sl_span_of(stop_texts[i])));
        add(stops, sl_vocabulary_find_plain(vocabulary, sl_span_of(stop_texts[i])));
    }
    /* gpt-oss ends a channel with <|end|> and goes on; only <|return|> and <|call|> end its answer. */
    if (find(vocabulary, "<|return|>") >= 0 && find(vocabulary, "<|call|>") >= 0) {
        drop(stops, find(vocabulary, "<|end|>"));
    }
    /* Gemma 4 has </s> as the text of an HTML tag. */
    if (find(vocabulary, "<|tool_response>") >= 0) {
        drop(stops, find(vocabulary, "</s>"));
    }
}
