/* The GPT-2 byte alphabet: every byte has a printable character that stands for it in byte-level vocabularies. */
#ifndef SL_TEXT_BYTE_MAP_H
#define SL_TEXT_BYTE_MAP_H

#include "base/strings.h"

/* The code point that stands for `byte`; all are below 0x800, so one or two bytes of UTF-8. */
uint32_t sl_byte_map_character(unsigned char byte);

/* The byte that `code_point` stands for, or -1. */
int sl_byte_map_byte(uint32_t code_point);

/* Append the bytes that the characters of `text` stand for; what is no character of the alphabet is kept as it is. */
SLUICE_NODISCARD bool sl_byte_map_decode(sl_span text, sl_text *out);

#endif
