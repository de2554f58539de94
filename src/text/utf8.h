/* UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef SL_TEXT_UTF8_H
#define SL_TEXT_UTF8_H

#include "base/strings.h"

/* The length, 1 to 4, of the well-formed character at `bytes`; 0 when there is none. `code_point` may be NULL. */
size_t sl_utf8_decode(const char *bytes, size_t available, uint32_t *code_point);

/* Write the character (at most 4 bytes) and return its length. `code_point` is a Unicode scalar value. */
size_t sl_utf8_encode(uint32_t code_point, char *bytes);

/* How many bytes the character that `lead` starts has by its first byte; 0 when no character starts with it. */
size_t sl_utf8_length_of_lead(unsigned char lead);

/* Whether `byte` may stand at `position` (1 to 3) of a character that starts with `lead`. */
bool sl_utf8_may_continue(unsigned char lead, size_t position, unsigned char byte);

/* The length of the longest prefix that is well-formed. */
size_t sl_utf8_valid_prefix(sl_span text);

#endif
