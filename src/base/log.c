/* Owns nothing; formats on the caller's stack and hands the line on. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void sl_log_line(const sl_log *log, sl_log_level level, const char *format, ...)
{
    if (log == NULL || log->write == NULL || level > log->level) {
        return;
    }
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    log->write(log->user, level, line);
}
