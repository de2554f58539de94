/* Owns nothing. Invariant: a character is accepted exactly when table 3-7 of the Unicode standard lists its bytes; the
 * pattern matcher runs unchecked on what this file calls well-formed. Threads: pure functions. */
#include "text/utf8.h"

size_t sl_utf8_length_of_lead(unsigned char lead)
{
    if (lead < 0x80) {
        return 1;
    }
    if (lead < 0xc2 || lead > 0xf4) {
        return 0;
    }
    return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

bool sl_utf8_may_continue(unsigned char lead, size_t position, unsigned char byte)
{
    unsigned char lowest = 0x80;
    unsigned char highest = 0xbf;
    if (position == 1) {
        switch (lead) {
        case 0xe0: lowest = 0xa0; break;  /* below: overlong */
        case 0xed: highest = 0x9f; break; /* above: surrogates */
        case 0xf0: lowest = 0x90; break;  /* below: overlong */
        case 0xf4: highest = 0x8f; break; /* above: beyond U+10FFFF */
        default: break;
        }
    }
    return byte >= lowest && byte <= highest;
}

size_t sl_utf8_decode(const char *bytes, size_t available, uint32_t *code_point)
{
    if (available == 0) {
        return 0;
    }
    unsigned char lead = (unsigned char)bytes[0];
    size_t length = sl_utf8_length_of_lead(lead);
    if (length == 0 || length > available) {
        return 0;
    }
    static const unsigned char lead_mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t value = lead & lead_mask[length];
    for (size_t position = 1; position < length; position++) {
        unsigned char byte = (unsigned char)bytes[position];
        if (!sl_utf8_may_continue(lead, position, byte)) {
            return 0;
        }
        value = value << 6 | (byte & 0x3fu);
    }
    if (code_point != NULL) {
        *code_point = value;
    }
    return length;
}

size_t sl_utf8_encode(uint32_t code_point, char *bytes)
{
    if (code_point < 0x80) {
        bytes[0] = (char)code_point;
        return 1;
    }
    size_t length = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
    static const unsigned char lead_bits[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t position = length - 1; position > 0; position--) {
        bytes[position] = (char)(0x80 | (code_point & 0x3f));
        code_point >>= 6;
    }
    bytes[0] = (char)(lead_bits[length] | code_point);
    return length;
}

size_t sl_utf8_valid_prefix(sl_span text)
{
    size_t offset = 0;
    while (offset < text.length) {
        size_t length = sl_utf8_decode(text.data + offset, text.length - offset, NULL);
        if (length == 0) {
            break;
        }
        offset += length;
    }
    return offset;
}
