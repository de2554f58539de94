/* Owns nothing: reads the kernel's text files through a buffer on the stack.
 *
 * Invariants
 *  (1) Nothing is allocated and nothing is kept: every call asks the kernel again.
 *  (2) A file that is missing, unreadable or oddly formed counts as silence, never as an error: "unknown" for a figure,
 *      "no limit" for a limit.
 *  (3) A cgroup binds a process through its own limit and through those of all its ancestors, so the smallest counts.
 *      Under v1 an ancestor may lie outside what is mounted here; hierarchical_memory_limit of memory.stat knows it.
 * Threads: any. */
#include "os/limits.h"

#include <stdbool.h>
#include <stdio.h>

#include "os/cgroup.h"
#include "os/kernel_text.h"
#include "os/limits_root.h"

/* Version 1 says "no limit" with the largest page-aligned signed number; anything that large is none. */
static const uint64_t no_limit_from = (uint64_t)1 << 62;

/* A figure that the kernel writes as "key: 123 kB". */
static uint64_t find_kilobytes(const char *root, const char *path, const char *key)
{
    uint64_t kilobytes = 0;
    uint64_t bytes = 0;
    if (!sl_kernel_text_find(root, path, key, &kilobytes) ||
        __builtin_mul_overflow(kilobytes, (uint64_t)1024, &bytes)) {
        return 0;
    }
    return bytes;
}

uint64_t sl_process_resident_bytes_under(const char *root)
{
    return find_kilobytes(root, "/proc/self/status", "VmRSS:");
}

uint64_t sl_process_peak_bytes_under(const char *root)
{
    return find_kilobytes(root, "/proc/self/status", "VmHWM:");
}

uint64_t sl_machine_available_bytes_under(const char *root)
{
    return find_kilobytes(root, "/proc/meminfo", "MemAvailable:");
}

uint64_t sl_machine_free_bytes_under(const char *root)
{
    return find_kilobytes(root, "/proc/meminfo", "MemFree:");
}

uint64_t sl_machine_physical_bytes_under(const char *root)
{
    return find_kilobytes(root, "/proc/meminfo", "MemTotal:");
}

/* Lower `*limit` to the number in the file `name` of a cgroup's directory. */
static void apply_limit(const char *root, const char *directory, const char *name, const char *key, uint64_t *limit)
{
    char path[3 * SL_KERNEL_PATH_BYTES];
    uint64_t value = 0;
    int length = snprintf(path, sizeof path, "%s/%s", directory, name);
    if (length > 0 && (size_t)length < sizeof path && sl_kernel_text_find(root, path, key, &value) &&
        value < no_limit_from && value < *limit) {
        *limit = value;
    }
}

static void apply_cgroup(void *user, const char *root, const char *directory, bool is_v2)
{
    uint64_t *limit = user;
    if (is_v2) {
        apply_limit(root, directory, "memory.max", "", limit);
        /* Above memory.high the kernel reclaims and throttles: not killed, but not runnable either. */
        apply_limit(root, directory, "memory.high", "", limit);
    } else {
        apply_limit(root, directory, "memory.limit_in_bytes", "", limit);
        apply_limit(root, directory, "memory.stat", "hierarchical_memory_limit", limit);
    }
}

uint64_t sl_cgroup_memory_limit_under(const char *root)
{
    uint64_t limit = UINT64_MAX;
    sl_cgroup_visit(root, "memory", apply_cgroup, &limit);
    return limit;
}

uint64_t sl_process_resident_bytes(void)
{
    return sl_process_resident_bytes_under("");
}

uint64_t sl_process_peak_bytes(void)
{
    return sl_process_peak_bytes_under("");
}

uint64_t sl_cgroup_memory_limit(void)
{
    return sl_cgroup_memory_limit_under("");
}

uint64_t sl_machine_available_bytes(void)
{
    return sl_machine_available_bytes_under("");
}

uint64_t sl_machine_free_bytes(void)
{
    return sl_machine_free_bytes_under("");
}

uint64_t sl_machine_physical_bytes(void)
{
    return sl_machine_physical_bytes_under("");
}
