/* What the kernel says about memory, laid out as files under a directory of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/limits.h"
#include "os/limits_root.h"

static char root[64];

static int set_up(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "%s/sluice-limits-XXXXXX", P_tmpdir);
    assert_non_null(mkdtemp(root));
    return 0;
}

static int remove_entry(const char *path, const struct stat *information, int kind, struct FTW *walk)
{
    (void)information;
    (void)kind;
    (void)walk;
    return remove(path);
}

static int tear_down(void **state)
{
    (void)state;
    return nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Create `path` under the root, with its directories. */
static void put(const char *path, const char *text)
{
    char full[6000];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(full, 0777);
        *slash = '/';
    }
    FILE *stream = fopen(full, "w");
    assert_non_null(stream);
    assert_true(fputs(text, stream) >= 0);
    assert_int_equal(fclose(stream), 0);
}

static void expect_limit(uint64_t expected)
{
    uint64_t limit = sl_cgroup_memory_limit_under(root);
    if (limit != expected) {
        fail_msg("expected a limit of %llu, found %llu", (unsigned long long)expected, (unsigned long long)limit);
    }
}

static const char v2_mount[] = "22 1 259:1 / / rw,relatime - ext4 /dev/root rw\n"
                               "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

static const char hybrid_mounts[] =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 master:2 - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

static const char v1_none[] = "9223372036854771712\n";

static void process_figures_are_in_bytes(void **state)
{
    (void)state;
    put("/proc/self/status", "Name:\tsluice\nVmPeak:\t  999 kB\nVmHWM:\t    1944 kB\nVmRSS:\t      17 kB\n");
    assert_int_equal(sl_process_resident_bytes_under(root), 17 * 1024);
    assert_int_equal(sl_process_peak_bytes_under(root), 1944 * 1024);
}

static void machine_figures_are_in_bytes(void **state)
{
    (void)state;
    put("/proc/meminfo", "MemTotal:       24684084 kB\nMemFree: 1 kB\nMemAvailable:   24298432 kB\n");
    assert_int_equal(sl_machine_physical_bytes_under(root), 24684084ull * 1024);
    assert_int_equal(sl_machine_available_bytes_under(root), 24298432ull * 1024);
    assert_int_equal(sl_machine_free_bytes_under(root), 1024);
}

static void silence_is_unknown_and_no_limit(void **state)
{
    (void)state;
    assert_int_equal(sl_process_resident_bytes_under(root), 0);
    assert_int_equal(sl_machine_available_bytes_under(root), 0);
    expect_limit(UINT64_MAX);
    put("/proc/self/status", "VmRSS:\t many kB\nVmHWM: 99999999999999999999999 kB\n");
    put("/proc/meminfo", "MemTotal: 18014398509481985 kB");
    assert_int_equal(sl_process_resident_bytes_under(root), 0);
    assert_int_equal(sl_process_peak_bytes_under(root), 0);
    assert_int_equal(sl_machine_physical_bytes_under(root), 0);
    put("/proc/self/mountinfo",
        "30 23 - \n - cgroup2\n\n30 23 0:26 - cgroup2 a rw\n30 23 0:26 / - cgroup2 cgroup2 rw\n");
    put("/proc/self/cgroup", "0\n:::\n0::relative\n0::");
    expect_limit(UINT64_MAX);
}

static void the_v2_limit_of_the_own_cgroup_counts(void **state)
{
    (void)state;
    put("/proc/self/mountinfo", v2_mount);
    put("/proc/self/cgroup", "0::/user.slice/job\n");
    put("/sys/fs/cgroup/user.slice/job/memory.max", "max\n");
    expect_limit(UINT64_MAX);
    put("/sys/fs/cgroup/user.slice/job/memory.max", "6442450944\n");
    expect_limit(6442450944);
}

static void the_smallest_limit_of_all_v2_ancestors_counts(void **state)
{
    (void)state;
    put("/proc/self/mountinfo", v2_mount);
    put("/proc/self/cgroup", "0::/a/b/c\n");
    put("/sys/fs/cgroup/a/b/c/memory.max", "5000000\n");
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    put("/sys/fs/cgroup/a/memory.max", "4000000\n");
    expect_limit(4000000);
    put("/sys/fs/cgroup/memory.max", "3000000\n"); /* the top of a container's own name space */
    expect_limit(3000000);
    put("/sys/fs/cgroup/a/b/memory.high", "2000000\n");
    expect_limit(2000000);
    put("/sys/fs/cgroup/other/memory.max", "1\n");
    expect_limit(2000000);
}

static void the_smallest_limit_of_all_v1_ancestors_counts(void **state)
{
    (void)state;
    put("/proc/self/mountinfo", hybrid_mounts);
    put("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/jobs/x\n3:cpuset:/\n0::/\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", v1_none);
    put("/sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", v1_none);
    put("/sys/fs/cgroup/memory/jobs/x/memory.limit_in_bytes", v1_none);
    expect_limit(UINT64_MAX);
    put("/sys/fs/cgroup/memory/jobs/x/memory.limit_in_bytes", "8589934592\n");
    expect_limit(8589934592);
    put("/sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", "7000000000\n");
    expect_limit(7000000000);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "6000000000\n");
    expect_limit(6000000000);
}

static void both_versions_count_where_both_are_mounted(void **state)
{
    (void)state;
    put("/proc/self/mountinfo", hybrid_mounts);
    put("/proc/self/cgroup", "4:cpu,memory:/one\n0::/two\n");
    put("/sys/fs/cgroup/memory/one/memory.limit_in_bytes", "9000000\n");
    put("/sys/fs/cgroup/unified/two/memory.max", "8000000\n");
    expect_limit(8000000);
    put("/sys/fs/cgroup/memory/one/memory.limit_in_bytes", "7000000\n");
    expect_limit(7000000);
}

static void a_v1_ancestor_outside_the_mount_counts_through_the_statistics(void **state)
{
    (void)state;
    put("/proc/self/mountinfo",
        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro,nosuid master:15 - cgroup cgroup rw,memory\n");
    put("/proc/self/cgroup", "4:memory:/docker/abc\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", v1_none);
    put("/sys/fs/cgroup/memory/memory.stat",
        "cache 4096\nrss 5\nhierarchical_memory_limit 123456789\nhierarchical_memsw_limit 5\n");
    expect_limit(123456789);
}

static void a_mount_of_a_part_of_the_hierarchy_is_the_top_of_what_is_seen(void **state)
{
    (void)state;
    put("/proc/self/mountinfo", "35 31 0:32 /docker/abc /cgroup rw - cgroup2 none rw\n");
    put("/proc/self/cgroup", "0::/docker/abc/inner\n");
    put("/cgroup/inner/memory.max", "5000\n");
    put("/cgroup/memory.max", "6000\n");
    put("/cgroup/docker/abc/inner/memory.max", "1\n");
    expect_limit(5000);
    put("/proc/self/cgroup", "0::/docker/abcdef\n"); /* elsewhere: only the top is known */
    expect_limit(6000);
    put("/proc/self/cgroup", "0::/aaaaa/bbbb/inner\n");
    expect_limit(6000);
    put("/proc/self/cgroup", "0::/docker/abc\n");
    expect_limit(6000);
}

static void a_mount_point_with_blanks_is_found(void **state)
{
    (void)state;
    put("/proc/self/mountinfo", "35 31 0:32 / /my\\040groups\\134here rw - cgroup2 none rw\n");
    put("/proc/self/cgroup", "0::/job:with:colons\n");
    put("/my groups\\here/job:with:colons/memory.max", "4242\n");
    expect_limit(4242);
}

static void long_lines_are_skipped_whole(void **state)
{
    (void)state;
    char *text = malloc(100000);
    assert_non_null(text);
    /* A mount of more than a buffer that holds what looks like a limit, before the true one. */
    memset(text, 'x', 50000);
    int used = 50000;
    used += snprintf(text + used, 1000, "\n%s", v2_mount);
    assert_true(used < 100000);
    put("/proc/self/mountinfo", text);
    memset(text, 'y', 40000);
    snprintf(text + 40000, 100, "\n0::/job\n");
    put("/proc/self/cgroup", text);
    put("/sys/fs/cgroup/job/memory.max", "31337\n");
    expect_limit(31337);
    memset(text, 'z', 60000);
    text[60000] = '\0';
    put("/proc/self/cgroup", text);
    expect_limit(UINT64_MAX);
    free(text);
}

static void many_mounts_are_read_to_the_end(void **state)
{
    (void)state;
    enum { N_MOUNTS = 2000, MOUNT_BYTES = 80 };
    char *text = malloc((size_t)N_MOUNTS * MOUNT_BYTES + sizeof v2_mount);
    assert_non_null(text);
    size_t used = 0;
    for (int i_mount = 0; i_mount < N_MOUNTS; i_mount++) {
        used +=
            (size_t)snprintf(text + used, MOUNT_BYTES, "%d 1 0:5 / /mnt/%d rw - ext4 /dev/vda rw\n", i_mount, i_mount);
    }
    memcpy(text + used, v2_mount, sizeof v2_mount);
    text[used + sizeof v2_mount - 2] = '\0'; /* no newline at the end */
    put("/proc/self/mountinfo", text);
    put("/proc/self/cgroup", "0::/job");
    put("/sys/fs/cgroup/job/memory.max", "777");
    expect_limit(777);
    free(text);
}

static void this_machine_has_plausible_figures(void **state)
{
    (void)state;
    uint64_t resident = sl_process_resident_bytes();
    uint64_t physical = sl_machine_physical_bytes();
    assert_true(resident > 100 * 1024);
    assert_true(sl_process_peak_bytes() >= resident / 2);
    assert_true(physical > resident);
    assert_true(sl_machine_available_bytes() <= physical);
    assert_true(sl_cgroup_memory_limit() > resident);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(process_figures_are_in_bytes),
        TEST(machine_figures_are_in_bytes),
        TEST(silence_is_unknown_and_no_limit),
        TEST(the_v2_limit_of_the_own_cgroup_counts),
        TEST(the_smallest_limit_of_all_v2_ancestors_counts),
        TEST(the_smallest_limit_of_all_v1_ancestors_counts),
        TEST(both_versions_count_where_both_are_mounted),
        TEST(a_v1_ancestor_outside_the_mount_counts_through_the_statistics),
        TEST(a_mount_of_a_part_of_the_hierarchy_is_the_top_of_what_is_seen),
        TEST(a_mount_point_with_blanks_is_found),
        TEST(long_lines_are_skipped_whole),
        TEST(many_mounts_are_read_to_the_end),
        cmocka_unit_test(this_machine_has_plausible_figures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
