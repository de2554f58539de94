/* Memory in large pages, where the kernel has them to give. */
#ifndef SL_OS_PAGES_H
#define SL_OS_PAGES_H

#include <stddef.h>

enum { SL_HUGE_PAGE_BYTES = 2 * 1024 * 1024 };

/* Ask for huge pages for those that lie whole in the range, so that it never occupies more than its size. They make
 * memory cheaper to walk and to pin for direct reads. A kernel without them says no, and that is fine. */
void sl_pages_advise_huge(void *start, size_t bytes);

#endif
