/* Monotonic time. */
#ifndef SL_OS_CLOCK_H
#define SL_OS_CLOCK_H

#include <stdint.h>

/* Nanoseconds since an arbitrary start; never goes back. */
uint64_t sl_clock_ns(void);

#endif
