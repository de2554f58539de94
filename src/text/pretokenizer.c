/* Owns the compiled patterns of one pre-tokenizer.
 *
 * Invariants
 *  (1) The matcher sees well-formed UTF-8 only, so it runs without its own check, which would cost the whole rest of
 *      the text for every piece.
 *  (2) Every match is longer than nothing, so splitting advances.
 *  (3) One call of the matcher may take a number of steps proportional to the text, no more: a text on which a pattern
 *      would do worse is an error value.
 * Threads: immutable after open; each splitting has its own match data. */
#include "text/pretokenizer.h"

#include <stdio.h>
#include <string.h>

#include "text/utf8.h"

enum {
    STEPS_PER_BYTE = 8,
    MINIMUM_STEPS = 10000,
    MAX_DEPTH = 1000,    /* nested groups; the patterns need a handful */
    MAX_HEAP_KIB = 16384 /* of the matcher's frames */
};

static void *allocate_for_pcre2(size_t bytes, void *user)
{
    return sl_alloc_aligned(user, SL_MEMORY_TEXT, bytes, 16);
}

static void free_for_pcre2(void *pointer, void *user)
{
    sl_free(user, pointer);
}

/* Append a name to a list of names; what does not fit is left out. */
static void list_name(char *list, size_t capacity, const char *name)
{
    size_t used = strlen(list);
    if (*name != '\0') {
        snprintf(list + used, capacity - used, "%s%s", used == 0 ? "" : ", ", name);
    }
}

static sluice_status unknown_pretokenizer(sl_span name, sluice_error *error)
{
    char known[700] = "";
    for (size_t i = 0; sl_pretokenizer_rule_at(i) != NULL; i++) {
        list_name(known, sizeof known, sl_pretokenizer_rule_at(i)->name);
    }
    for (size_t i = 0; sl_pretokenizer_alias_at(i) != NULL; i++) {
        list_name(known, sizeof known, sl_pretokenizer_alias_at(i));
    }
    return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                        "tokenizer: the pre-tokenizer \"%.*s\" is not supported; known: %s", SL_SPAN_ARGUMENTS(name),
                        known);
}

static sluice_status compile_pattern(sl_pretokenizer *pretokenizer, const char *pattern, pcre2_compile_context *context,
                                     sluice_error *error)
{
    int code = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code *compiled =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &offset, context);
    if (compiled == NULL) {
        if (code == PCRE2_ERROR_HEAP_FAILED) {
            return sl_error_no_memory(error, 0, "a compiled tokenizer pattern");
        }
        PCRE2_UCHAR reason[128] = "";
        pcre2_get_error_message(code, reason, sizeof reason);
        return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                            "tokenizer: the pattern of pre-tokenizer \"%s\" does not compile at byte %zu: %s; this "
                            "PCRE2 lacks something the engine needs",
                            pretokenizer->rule->name, (size_t)offset, (const char *)reason);
    }
    pretokenizer->codes[pretokenizer->n_codes++] = compiled;
    return SLUICE_OK;
}

static sluice_status compile_patterns(sl_pretokenizer *pretokenizer, sluice_error *error)
{
    pcre2_compile_context *context = pcre2_compile_context_create(pretokenizer->general);
    if (context == NULL) {
        return sl_error_no_memory(error, 0, "the tokenizer's pattern compiler");
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    sluice_status status = SLUICE_OK;
    for (uint32_t i = 0; i < SL_PRETOKENIZER_MAX_PATTERNS && status == SLUICE_OK; i++) {
        if (pretokenizer->rule->patterns[i] == NULL) {
            break;
        }
        status = compile_pattern(pretokenizer, pretokenizer->rule->patterns[i], context, error);
    }
    pcre2_compile_context_free(context);
    return status;
}

sluice_status sl_pretokenizer_open(sl_pretokenizer *pretokenizer, sl_span name, sl_memory *memory, sluice_error *error)
{
    *pretokenizer = (sl_pretokenizer){.rule = sl_pretokenizer_rule_find(name)};
    if (pretokenizer->rule == NULL) {
        return unknown_pretokenizer(name, error);
    }
    pretokenizer->general = pcre2_general_context_create(allocate_for_pcre2, free_for_pcre2, memory);
    if (pretokenizer->general == NULL) {
        return sl_error_no_memory(error, 0, "the tokenizer's pattern matcher");
    }
    sluice_status status = compile_patterns(pretokenizer, error);
    if (status != SLUICE_OK) {
        sl_pretokenizer_fini(pretokenizer);
    }
    return status;
}

void sl_pretokenizer_fini(sl_pretokenizer *pretokenizer)
{
    for (uint32_t i = 0; i < pretokenizer->n_codes; i++) {
        pcre2_code_free(pretokenizer->codes[i]);
    }
    pcre2_general_context_free(pretokenizer->general);
    *pretokenizer = (sl_pretokenizer){0};
}

/* One splitting: what the levels of recursion share. */
typedef struct splitting {
    const sl_pretokenizer *pretokenizer; /* borrowed */
    pcre2_match_data *match;             /* owned by sl_pretokenizer_split */
    pcre2_match_context *limits;         /* owned by sl_pretokenizer_split */
    sl_piece_function take_piece;
    void *user; /* borrowed */
} splitting;

static sluice_status match_failed(const splitting *split, int code, sl_span text, sluice_error *error)
{
    if (code == PCRE2_ERROR_NOMEMORY) {
        return sl_error_no_memory(error, 0, "matching a tokenizer pattern");
    }
    return sl_error_set(
        error, SLUICE_ERROR_UNSUPPORTED,
        "tokenizer: pre-tokenizer \"%s\" gave up on a piece of %zu bytes (matcher's code %d); split the "
        "text into shorter parts",
        split->pretokenizer->rule->name, text.length, code);
}

static sluice_status split_with(const splitting *split, uint32_t level, sl_span text, sluice_error *error)
{
    if (level == split->pretokenizer->n_codes) {
        return split->take_piece(split->user, text, error);
    }
    size_t offset = 0;
    while (offset < text.length) {
        int code = pcre2_match(split->pretokenizer->codes[level], (PCRE2_SPTR)text.data, text.length, offset,
                               PCRE2_NO_UTF_CHECK, split->match, split->limits);
        if (code < 0 && code != PCRE2_ERROR_NOMATCH) {
            return match_failed(split, code, text, error);
        }
        /* The deeper levels overwrite the match data. */
        const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(split->match);
        size_t start = code == PCRE2_ERROR_NOMATCH ? text.length : bounds[0];
        size_t end = code == PCRE2_ERROR_NOMATCH ? text.length : bounds[1];
        if (end <= offset) {
            return match_failed(split, PCRE2_ERROR_INTERNAL, text, error);
        }
        if (start > offset) {
            SL_TRY(split_with(split, level + 1, (sl_span){text.data + offset, start - offset}, error));
        }
        if (end > start) {
            SL_TRY(split_with(split, level + 1, (sl_span){text.data + start, end - start}, error));
        }
        offset = end;
    }
    return SLUICE_OK;
}

static size_t length_of_invalid_run(sl_span text)
{
    size_t length = 0;
    while (length < text.length && sl_utf8_decode(text.data + length, text.length - length, NULL) == 0) {
        length++;
    }
    return length;
}

static sluice_status split_by_validity(const splitting *split, sl_span text, sluice_error *error)
{
    while (text.length > 0) {
        size_t valid = sl_utf8_valid_prefix(text);
        if (valid > 0) {
            SL_TRY(split_with(split, 0, (sl_span){text.data, valid}, error));
        }
        text = (sl_span){text.data + valid, text.length - valid};
        size_t invalid = length_of_invalid_run(text);
        if (invalid > 0) {
            SL_TRY(split->take_piece(split->user, (sl_span){text.data, invalid}, error));
        }
        text = (sl_span){text.data + invalid, text.length - invalid};
    }
    return SLUICE_OK;
}

sluice_status sl_pretokenizer_split(const sl_pretokenizer *pretokenizer, sl_span text, sl_piece_function take_piece,
                                    void *user, sluice_error *error)
{
    splitting split = {.pretokenizer = pretokenizer, .take_piece = take_piece, .user = user};
    split.match = pcre2_match_data_create(1, pretokenizer->general);
    split.limits = pcre2_match_context_create(pretokenizer->general);
    sluice_status status;
    if (split.match == NULL || split.limits == NULL) {
        status = sl_error_no_memory(error, 0, "matching a tokenizer pattern");
    } else {
        uint64_t steps = (uint64_t)MINIMUM_STEPS + (uint64_t)STEPS_PER_BYTE * text.length;
        pcre2_set_match_limit(split.limits, steps > UINT32_MAX ? UINT32_MAX : (uint32_t)steps);
        pcre2_set_depth_limit(split.limits, MAX_DEPTH);
        pcre2_set_heap_limit(split.limits, MAX_HEAP_KIB);
        status = split_by_validity(&split, text, error);
    }
    pcre2_match_context_free(split.limits);
    pcre2_match_data_free(split.match);
    return status;
}
