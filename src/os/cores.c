/* How many physical cores this process may keep busy.
 *
 * Owns nothing: reads affinity, /sys/devices/system/cpu and the cgroup quotas on every call.
 * Invariants
 *  (1) A core counts once, by the lowest of its hardware threads among the allowed ones.
 *  (2) A CPU whose topology cannot be read counts as a core of its own.
 *  (3) A quota is time: q microseconds of every period. A group that uses more is stopped for the rest of the period,
 * so the number of cores is q / period rounded down; the smallest of all ancestors counts. 0 becomes 1. Threads: any.
 */
#include "os/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "os/cgroup.h"
#include "os/cpu_root.h"
#include "os/kernel_text.h"

enum { CPU_COUNT_MAX = SL_CPU_MASK_WORDS * 64 };

static bool is_allowed(const uint64_t allowed[SL_CPU_MASK_WORDS], uint64_t cpu)
{
    return cpu < CPU_COUNT_MAX && ((allowed[cpu / 64] >> (cpu % 64)) & 1) != 0;
}

/* The lowest allowed CPU of a list such as "0-3,64-67"; `otherwise` when it names none. */
static uint64_t lowest_allowed(const char *list, const uint64_t allowed[SL_CPU_MASK_WORDS], uint64_t otherwise)
{
    uint64_t lowest = otherwise;
    for (;;) {
        uint64_t first;
        if (!sl_kernel_text_number(list, &first, &list)) {
            return lowest;
        }
        uint64_t last = first;
        if (*list == '-' && !sl_kernel_text_number(list + 1, &last, &list)) {
            return lowest;
        }
        for (uint64_t cpu = first; cpu <= last && cpu < lowest; cpu++) {
            if (is_allowed(allowed, cpu)) {
                lowest = cpu;
            }
        }
        if (*list != ',') {
            return lowest;
        }
        list++;
    }
}

/* Whether `cpu` is the one that its core is counted by. */
static bool represents_core(const char *root, const uint64_t allowed[SL_CPU_MASK_WORDS], uint32_t cpu)
{
    /* The second is the older name of the first. */
    static const char *const names[] = {"core_cpus_list", "thread_siblings_list"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/%s", cpu, names[i]);
        sl_kernel_text text;
        sl_kernel_text_open(&text, root, path);
        const char *line = sl_kernel_text_line(&text);
        bool found = line != NULL;
        bool represents = found && lowest_allowed(line, allowed, cpu) == cpu;
        sl_kernel_text_close(&text);
        if (found) {
            return represents;
        }
    }
    return true;
}

/* Lower `*cores` to what a quota grants. */
static void apply_quota(uint64_t quota, uint64_t period, uint64_t *cores)
{
    if (period != 0 && quota / period < *cores) {
        *cores = quota / period;
    }
}

static bool read_numbers(const char *root, const char *path, uint64_t *first, uint64_t *second)
{
    sl_kernel_text text;
    sl_kernel_text_open(&text, root, path);
    const char *rest = NULL;
    const char *line = sl_kernel_text_line(&text);
    bool found = line != NULL && sl_kernel_text_number(line, first, &rest) &&
                 (second == NULL || sl_kernel_text_number(rest, second, NULL));
    sl_kernel_text_close(&text);
    return found;
}

/* "QUOTA PERIOD" or "max PERIOD" in cpu.max; two files under version 1, where -1 is no quota. */
static void apply_cgroup(void *user, const char *root, const char *directory, bool is_v2)
{
    uint64_t *cores = user;
    uint64_t quota;
    uint64_t period;
    char path[3 * SL_KERNEL_PATH_BYTES];
    if (is_v2) {
        snprintf(path, sizeof path, "%s/cpu.max", directory);
        if (read_numbers(root, path, &quota, &period)) {
            apply_quota(quota, period, cores);
        }
        return;
    }
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", directory);
    if (!read_numbers(root, path, &quota, NULL)) {
        return;
    }
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", directory);
    if (read_numbers(root, path, &period, NULL)) {
        apply_quota(quota, period, cores);
    }
}

uint32_t sl_cpu_usable_cores_under(const char *root, const uint64_t allowed[SL_CPU_MASK_WORDS])
{
    uint64_t cores = 0;
    for (uint32_t cpu = 0; cpu < CPU_COUNT_MAX; cpu++) {
        if (is_allowed(allowed, cpu) && represents_core(root, allowed, cpu)) {
            cores++;
        }
    }
    sl_cgroup_visit(root, "cpu", apply_cgroup, &cores);
    return cores == 0 ? 1 : (uint32_t)cores;
}

uint32_t sl_cpu_usable_cores(void)
{
    uint64_t allowed[SL_CPU_MASK_WORDS] = {0};
    _Static_assert(sizeof(unsigned long) == sizeof allowed[0], "the kernel's mask is made of 64-bit words");
    if (sched_getaffinity(0, sizeof allowed, (cpu_set_t *)allowed) != 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        for (long cpu = 0; cpu < online && cpu < CPU_COUNT_MAX; cpu++) {
            allowed[cpu / 64] |= (uint64_t)1 << (cpu % 64);
        }
    }
    return sl_cpu_usable_cores_under("", allowed);
}
