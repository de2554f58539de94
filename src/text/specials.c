/* Owns the lengths of special texts.
 *
 * Invariant: lengths[first_of_byte[b] .. first_of_byte[b + 1]) are the distinct lengths of special texts that start
 * with byte b, falling. So a place in a text costs one look-up per distinct length, however many tokens share it.
 * Threads: immutable after open. */
#include "text/specials.h"

/* Sorts by first byte, then longest first. */
static uint64_t key_of(sl_span text)
{
    uint64_t length = text.length > UINT32_MAX ? UINT32_MAX : text.length;
    return (uint64_t)(unsigned char)text.data[0] << 32 | (UINT32_MAX - length);
}

/* Insert `key` into the rising list unless it is there. `keys` has room. */
static void insert_key(uint64_t *keys, size_t *n_keys, uint64_t key)
{
    size_t place = *n_keys;
    while (place > 0 && keys[place - 1] > key) {
        place--;
    }
    if (place > 0 && keys[place - 1] == key) {
        return;
    }
    for (size_t i = *n_keys; i > place; i--) {
        keys[i] = keys[i - 1];
    }
    keys[place] = key;
    (*n_keys)++;
}

static bool is_matched(const sl_vocabulary *vocabulary, uint32_t id)
{
    return sl_token_type_is_special(vocabulary->types[id]) && vocabulary->tokens[id].length > 0;
}

sluice_status sl_specials_open(sl_specials *specials, const sl_vocabulary *vocabulary, sluice_error *error)
{
    *specials = (sl_specials){.vocabulary = vocabulary};
    size_t n_specials = 0;
    for (uint32_t id = 0; id < vocabulary->n_tokens; id++) {
        n_specials += is_matched(vocabulary, id);
    }
    size_t n_keys = 0;
    uint64_t *keys = sl_alloc(vocabulary->memory, SL_MEMORY_TEXT, n_specials, sizeof *keys);
    if (keys != NULL) {
        for (uint32_t id = 0; id < vocabulary->n_tokens; id++) {
            if (is_matched(vocabulary, id)) {
                insert_key(keys, &n_keys, key_of(vocabulary->tokens[id]));
            }
        }
        specials->lengths = sl_alloc(vocabulary->memory, SL_MEMORY_TEXT, n_keys, sizeof *specials->lengths);
    }
    if (specials->lengths == NULL) {
        sl_free(vocabulary->memory, keys);
        *specials = (sl_specials){0};
        return sl_error_no_memory(error, n_specials * sizeof *keys, "the special tokens");
    }
    for (size_t i = 0; i < n_keys; i++) {
        specials->lengths[i] = UINT32_MAX - (uint32_t)keys[i];
        specials->first_of_byte[(keys[i] >> 32) + 1]++;
    }
    for (size_t byte = 1; byte <= 256; byte++) {
        specials->first_of_byte[byte] += specials->first_of_byte[byte - 1];
    }
    sl_free(vocabulary->memory, keys);
    return SLUICE_OK;
}

void sl_specials_fini(sl_specials *specials)
{
    if (specials->vocabulary != NULL) {
        sl_free(specials->vocabulary->memory, specials->lengths);
    }
    *specials = (sl_specials){0};
}

static int32_t match_at(const sl_specials *specials, sl_span rest, bool parse_special, sl_span *found)
{
    unsigned char first = (unsigned char)rest.data[0];
    for (uint32_t i = specials->first_of_byte[first]; i < specials->first_of_byte[first + 1]; i++) {
        if (specials->lengths[i] > rest.length) {
            continue;
        }
        sl_span candidate = {rest.data, specials->lengths[i]};
        int32_t id = sl_vocabulary_find_special(specials->vocabulary, candidate);
        if (id >= 0 && (parse_special || specials->vocabulary->types[id] == SL_TOKEN_USER_DEFINED)) {
            *found = candidate;
            return id;
        }
    }
    return -1;
}

int32_t sl_specials_find(const sl_specials *specials, sl_span text, size_t from, bool parse_special, sl_span *found)
{
    for (size_t offset = from; offset < text.length; offset++) {
        int32_t id = match_at(specials, (sl_span){text.data + offset, text.length - offset}, parse_special, found);
        if (id >= 0) {
            return id;
        }
    }
    return -1;
}
