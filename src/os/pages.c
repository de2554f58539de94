/* Owns nothing.
 *
 * Invariants
 *  (1) Only whole huge pages inside a committed range are advised, and what is released or was never committed is mapped
 *      apart from what is committed; so the kernel never puts a huge page where a part of it is not to be used.
 *  (2) Reserved addresses are never free in between: commit changes their protection, release maps over them.
 * Threads: any, on ranges that do not overlap. */
#include "os/pages.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE /* headers older than the kernel */
#define MADV_POPULATE_WRITE 23
#endif

static uintptr_t huge_page_of(const void *address)
{
    return (uintptr_t)address & ~(uintptr_t)(SL_HUGE_PAGE_BYTES - 1);
}

void sl_pages_advise_huge(void *start, size_t bytes)
{
    uintptr_t first = huge_page_of((char *)start + SL_HUGE_PAGE_BYTES - 1);
    uintptr_t end = huge_page_of((char *)start + bytes);
    if (end > first) {
        (void)madvise((void *)first, end - first, MADV_HUGEPAGE);
    }
}

static size_t round_up(size_t value)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    return (value + page_bytes - 1) & ~(page_bytes - 1);
}

/* Whole pages. */
typedef struct page_range {
    char *start;
    size_t bytes;
} page_range;

static page_range pages_of(void *start, size_t bytes)
{
    size_t lead = round_up((uintptr_t)start) - (uintptr_t)start;
    size_t end = round_up((uintptr_t)start + bytes) - (uintptr_t)start;
    return (page_range){.start = (char *)start + lead, .bytes = end - lead};
}

/* Without access a private mapping counts towards no limit of memory, only of addresses. */
static char *map_nothing(void *where, size_t bytes, int flags)
{
    void *mapped = mmap(where, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    return mapped == MAP_FAILED ? NULL : mapped;
}

void *sl_pages_reserve(size_t bytes)
{
    if (bytes == 0 || bytes > SIZE_MAX / 2) {
        return NULL;
    }
    size_t reserved = round_up(bytes);
    char *mapped = map_nothing(NULL, reserved + SL_HUGE_PAGE_BYTES, 0);
    if (mapped == NULL) {
        return NULL;
    }
    char *start = (char *)huge_page_of(mapped + SL_HUGE_PAGE_BYTES - 1);
    if (start > mapped) {
        (void)munmap(mapped, (size_t)(start - mapped));
    }
    (void)munmap(start + reserved, (size_t)(mapped + SL_HUGE_PAGE_BYTES - start));
    return start;
}

bool sl_pages_commit(void *start, size_t bytes)
{
    page_range range = pages_of(start, bytes);
    return range.bytes == 0 || mprotect(range.start, range.bytes, PROT_READ | PROT_WRITE) == 0;
}

bool sl_pages_populate(void *start, size_t bytes)
{
    page_range range = pages_of(start, bytes);
    return range.bytes == 0 || madvise(range.start, range.bytes, MADV_POPULATE_WRITE) == 0;
}

/* A range may begin inside a huge page of which the rest stays in use. Unmapping that part would only note that it is
 * free, and keep the memory until the kernel is short of it. Told first that its content does not matter, the kernel
 * splits the page. */
static void split_first_huge_page(page_range range)
{
    size_t left = huge_page_of(range.start) + SL_HUGE_PAGE_BYTES - (uintptr_t)range.start;
    if (left < SL_HUGE_PAGE_BYTES) {
        (void)madvise(range.start, left < range.bytes ? left : range.bytes, MADV_FREE);
    }
}

bool sl_pages_release(void *start, size_t bytes)
{
    page_range range = pages_of(start, bytes);
    if (range.bytes == 0) {
        return true;
    }
    split_first_huge_page(range);
    return map_nothing(range.start, range.bytes, MAP_FIXED) != NULL ||
           madvise(range.start, range.bytes, MADV_DONTNEED) == 0;
}

void sl_pages_unreserve(void *start, size_t bytes)
{
    if (start != NULL) {
        (void)munmap(start, round_up(bytes));
    }
}
