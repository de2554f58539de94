/* Owns nothing. The alphabet: the bytes of visible Latin-1 characters stand for themselves; the 68 others, in rising
 * order, get U+0100 to U+0143. Threads: pure functions. */
#include "text/byte_map.h"

#include "text/utf8.h"

enum {
    FIRST_REPLACED = 0x100,
    /* Replaced bytes come in three runs. */
    LOW_RUN_END = 0x20,      /* 0x00 to 0x20 */
    MIDDLE_RUN_FIRST = 0x7f, /* 0x7f to 0xa0 */
    MIDDLE_RUN_END = 0xa0,
    SOFT_HYPHEN = 0xad,
    MIDDLE_REPLACED = FIRST_REPLACED + LOW_RUN_END + 1,
    HYPHEN_REPLACED = MIDDLE_REPLACED + MIDDLE_RUN_END - MIDDLE_RUN_FIRST + 1
};

uint32_t sl_byte_map_character(unsigned char byte)
{
    if (byte <= LOW_RUN_END) {
        return (uint32_t)FIRST_REPLACED + byte;
    }
    if (byte >= MIDDLE_RUN_FIRST && byte <= MIDDLE_RUN_END) {
        return (uint32_t)MIDDLE_REPLACED + (byte - (uint32_t)MIDDLE_RUN_FIRST);
    }
    return byte == SOFT_HYPHEN ? (uint32_t)HYPHEN_REPLACED : byte;
}

int sl_byte_map_byte(uint32_t code_point)
{
    if (code_point < FIRST_REPLACED) {
        return sl_byte_map_character((unsigned char)code_point) == code_point ? (int)code_point : -1;
    }
    if (code_point < MIDDLE_REPLACED) {
        return (int)(code_point - FIRST_REPLACED);
    }
    if (code_point < HYPHEN_REPLACED) {
        return (int)(code_point - MIDDLE_REPLACED + MIDDLE_RUN_FIRST);
    }
    return code_point == HYPHEN_REPLACED ? SOFT_HYPHEN : -1;
}

bool sl_byte_map_decode(sl_span text, sl_text *out)
{
    size_t offset = 0;
    while (offset < text.length) {
        uint32_t code_point = 0;
        size_t length = sl_utf8_decode(text.data + offset, text.length - offset, &code_point);
        int byte = length == 0 ? -1 : sl_byte_map_byte(code_point);
        char decoded = (char)byte;
        length = length == 0 ? 1 : length;
        if (!(byte >= 0 ? sl_text_append(out, &decoded, 1) : sl_text_append(out, text.data + offset, length))) {
            return false;
        }
        offset += length;
    }
    return true;
}
