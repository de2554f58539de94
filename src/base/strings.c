/* Owns the buffers of sl_text. Invariant: capacity is 0, or data[length] is a NUL inside it. */
#include "base/strings.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

sl_span sl_span_of(const char *text)
{
    return (sl_span){.data = text, .length = strlen(text)};
}

bool sl_span_equal(sl_span a, sl_span b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

bool sl_span_equal_text(sl_span span, const char *text)
{
    return sl_span_equal(span, sl_span_of(text));
}

void sl_text_init(sl_text *text, sl_memory *memory, sl_memory_tag tag)
{
    *text = (sl_text){.memory = memory, .tag = tag};
}

void sl_text_fini(sl_text *text)
{
    sl_free(text->memory, text->data);
    *text = (sl_text){.memory = text->memory, .tag = text->tag};
}

static bool reserve(sl_text *text, size_t extra)
{
    if (extra > SIZE_MAX / 4 - text->length) {
        return false;
    }
    size_t needed = text->length + extra + 1;
    if (needed <= text->capacity) {
        return true;
    }
    size_t capacity = text->capacity * 2 > needed ? text->capacity * 2 : needed;
    if (capacity < 64) {
        capacity = 64;
    }
    char *data = sl_realloc(text->memory, text->tag, text->data, capacity, 1);
    if (data == NULL) {
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

bool sl_text_append(sl_text *text, const void *bytes, size_t length)
{
    if (!reserve(text, length)) {
        return false;
    }
    if (length > 0) {
        memcpy(text->data + text->length, bytes, length);
    }
    text->length += length;
    text->data[text->length] = '\0';
    return true;
}

bool sl_text_format(sl_text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0 || !reserve(text, (size_t)length)) {
        return false;
    }
    va_start(arguments, format);
    vsnprintf(text->data + text->length, (size_t)length + 1, format, arguments);
    va_end(arguments);
    text->length += (size_t)length;
    return true;
}

bool sl_parse_size(const char *text, uint64_t *bytes)
{
    if (!isdigit((unsigned char)text[0])) {
        return false;
    }
    char *end = NULL;
    errno = 0;
    double number = strtod(text, &end);
    if (errno != 0 || !isfinite(number) || memchr("xX", text[1], 2) != NULL) {
        return false;
    }
    static const char units[] = "KMGT";
    double scale = 1.0;
    const char *unit = *end == '\0' ? NULL : strchr(units, toupper((unsigned char)*end));
    if (unit != NULL) {
        scale = ldexp(1.0, 10 * (int)(unit - units + 1));
        end++;
        if (strcasecmp(end, "iB") == 0) {
            end += 2;
        }
    }
    number *= scale;
    bool is_whole = unit != NULL || number == floor(number);
    if (*end != '\0' || !is_whole || number >= 9.2e18) {
        return false;
    }
    *bytes = (uint64_t)number;
    return true;
}

const char *sl_format_size(uint64_t bytes, char *buffer, size_t capacity)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double number = (double)bytes;
    size_t i_unit = 0;
    while (number >= 1024.0 && i_unit + 1 < sizeof units / sizeof units[0]) {
        number /= 1024.0;
        i_unit++;
    }
    snprintf(buffer, capacity,
             number < 10.0 && i_unit > 0    ? "%.2f %s"
             : number < 100.0 && i_unit > 0 ? "%.1f %s"
                                            : "%.0f %s",
             number, units[i_unit]);
    return buffer;
}
