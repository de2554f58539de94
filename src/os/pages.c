/* Owns nothing. Threads: any. */
#include "os/pages.h"

#include <stdint.h>
#include <sys/mman.h>

void sl_pages_advise_huge(void *start, size_t bytes)
{
    uintptr_t mask = SL_HUGE_PAGE_BYTES - 1;
    uintptr_t first = ((uintptr_t)start + mask) & ~mask;
    uintptr_t end = ((uintptr_t)start + bytes) & ~mask;
    if (end > first) {
        (void)madvise((void *)first, end - first, MADV_HUGEPAGE);
    }
}
