/* Memory by pages: large ones, where the kernel has them to give, and address space that holds memory only in part. */
#ifndef SL_OS_PAGES_H
#define SL_OS_PAGES_H

#include <stdbool.h>
#include <stddef.h>

enum { SL_HUGE_PAGE_BYTES = 2 * 1024 * 1024 };

/* Ask for huge pages for those that lie whole in the range, so that it never occupies more than its size. They make
 * memory cheaper to walk and to pin for direct reads. A kernel without them says no, and that is fine. */
void sl_pages_advise_huge(void *start, size_t bytes);

/* Address space that holds memory only in part. Ranges are rounded up at both ends to whole pages of the system. */

/* Addresses that nothing else will get, aligned to SL_HUGE_PAGE_BYTES. They cost no memory, and touching them is a
 * fault. NULL when the system refuses so many. */
void *sl_pages_reserve(size_t bytes);
/* Make a range of them readable, writable and zero. The kernel gives a page when it is touched. false, with nothing
 * changed, when the system refuses. */
bool sl_pages_commit(void *start, size_t bytes);
/* Have the kernel give the pages of a committed range now; what they hold stays, new ones are zero. false when it does not:
 * they come when they are touched. */
bool sl_pages_populate(void *start, size_t bytes);
/* Give the memory of a committed range back to the kernel at once; the addresses stay reserved. false when the kernel
 * keeps it. */
bool sl_pages_release(void *start, size_t bytes);
/* Give up all addresses of one sl_pages_reserve, with what memory they hold. NULL is ignored. */
void sl_pages_unreserve(void *start, size_t bytes);

#endif
