/* Instruction set names, and counting cores on laid-out kernels: hyperthreads, affinity and quotas of both cgroup
 * versions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/cpu.h"
#include "os/cpu_root.h"

static const char v2_mounts[] = "25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
static const char v1_mounts[] = "24 20 0:21 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
                                "26 24 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
                                "27 24 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

/* A directory that stands for "/". */
typedef struct fake_machine {
    char root[64];
    uint64_t allowed[SL_CPU_MASK_WORDS];
} fake_machine;

static void write_file(const fake_machine *machine, const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", machine->root, path);
    for (char *slash = full + strlen(machine->root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void write_siblings(const fake_machine *machine, unsigned cpu, const char *list)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/core_cpus_list", cpu);
    write_file(machine, path, list);
}

static int remove_entry(const char *path, const struct stat *status, int flag, struct FTW *walk)
{
    (void)status;
    (void)flag;
    (void)walk;
    return remove(path);
}

/* 8 CPUs, all allowed, without topology and without cgroups. */
static int set_up(void **state)
{
    fake_machine *machine = calloc(1, sizeof *machine);
    if (machine == NULL) {
        return -1;
    }
    strcpy(machine->root, "/tmp/sluice-cpu-XXXXXX");
    machine->allowed[0] = 0xff;
    *state = machine;
    return mkdtemp(machine->root) == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    fake_machine *machine = *state;
    nftw(machine->root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    free(machine);
    return 0;
}

static uint32_t cores_of(const fake_machine *machine)
{
    return sl_cpu_usable_cores_under(machine->root, machine->allowed);
}

static void cpus_without_topology_are_cores(void **state)
{
    assert_int_equal(cores_of(*state), 8);
}

static void hyperthreads_share_a_core(void **state)
{
    fake_machine *machine = *state;
    for (unsigned cpu = 0; cpu < 8; cpu++) {
        char list[16];
        snprintf(list, sizeof list, "%u,%u\n", cpu % 4, cpu % 4 + 4);
        write_siblings(machine, cpu, list);
    }
    assert_int_equal(cores_of(machine), 4);
}

static void a_core_counts_when_only_its_second_thread_is_allowed(void **state)
{
    fake_machine *machine = *state;
    for (unsigned cpu = 0; cpu < 8; cpu++) {
        char list[16];
        snprintf(list, sizeof list, "%u-%u\n", cpu / 2 * 2, cpu / 2 * 2 + 1);
        write_siblings(machine, cpu, list);
    }
    machine->allowed[0] = 0x0e; /* 1 of the first core, 2 and 3 of the second */
    assert_int_equal(cores_of(machine), 2);
}

static void the_older_topology_file_is_read(void **state)
{
    fake_machine *machine = *state;
    machine->allowed[0] = 0x03;
    write_file(machine, "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-1\n");
    write_file(machine, "/sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-1\n");
    assert_int_equal(cores_of(machine), 1);
}

static void cpus_beyond_the_first_thousand_count(void **state)
{
    fake_machine *machine = *state;
    machine->allowed[SL_CPU_MASK_WORDS - 1] = UINT64_C(3) << 62;
    assert_int_equal(cores_of(machine), 10);
}

static void malformed_topology_does_no_harm(void **state)
{
    fake_machine *machine = *state;
    machine->allowed[0] = 0x0f;
    write_siblings(machine, 0, "garbage\n");
    write_siblings(machine, 1, "1-\n");
    write_siblings(machine, 2, "2-18446744073709551615,\n");
    write_siblings(machine, 3, "");
    assert_int_equal(cores_of(machine), 4);
}

static void a_v2_quota_is_rounded_down(void **state)
{
    fake_machine *machine = *state;
    write_file(machine, "/proc/self/mountinfo", v2_mounts);
    write_file(machine, "/proc/self/cgroup", "0::/service\n");
    write_file(machine, "/sys/fs/cgroup/service/cpu.max", "765000 100000\n");
    assert_int_equal(cores_of(machine), 7);
}

static void the_smallest_quota_of_all_v2_ancestors_counts(void **state)
{
    fake_machine *machine = *state;
    write_file(machine, "/proc/self/mountinfo", v2_mounts);
    write_file(machine, "/proc/self/cgroup", "0::/slice/service/job\n");
    write_file(machine, "/sys/fs/cgroup/slice/service/job/cpu.max", "max 100000\n");
    write_file(machine, "/sys/fs/cgroup/slice/service/cpu.max", "600000 100000\n");
    write_file(machine, "/sys/fs/cgroup/slice/cpu.max", "150000 50000\n");
    assert_int_equal(cores_of(machine), 3);
}

static void a_v1_quota_counts_with_its_period(void **state)
{
    fake_machine *machine = *state;
    write_file(machine, "/proc/self/mountinfo", v1_mounts);
    write_file(machine, "/proc/self/cgroup", "4:memory:/elsewhere\n3:cpu,cpuacct:/docker/abc\n0::/\n");
    write_file(machine, "/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
    write_file(machine, "/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
    write_file(machine, "/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "250000\n");
    write_file(machine, "/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cores_of(machine), 2);
}

static void a_container_that_sees_its_hosts_names_reads_its_own_mount(void **state)
{
    fake_machine *machine = *state;
    write_file(machine, "/proc/self/mountinfo",
               "26 24 0:23 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n");
    write_file(machine, "/proc/self/cgroup", "3:cpu:/docker/abc\n");
    write_file(machine, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n");
    write_file(machine, "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cores_of(machine), 4);
}

static void less_than_one_core_is_one(void **state)
{
    fake_machine *machine = *state;
    write_file(machine, "/proc/self/mountinfo", v2_mounts);
    write_file(machine, "/proc/self/cgroup", "0::/\n");
    write_file(machine, "/sys/fs/cgroup/cpu.max", "50000 100000\n");
    assert_int_equal(cores_of(machine), 1);
}

static void malformed_quotas_are_no_quotas(void **state)
{
    fake_machine *machine = *state;
    write_file(machine, "/proc/self/mountinfo", v2_mounts);
    write_file(machine, "/proc/self/cgroup", "0::/a/b/c\n");
    write_file(machine, "/sys/fs/cgroup/a/b/c/cpu.max", "200000 0\n");
    write_file(machine, "/sys/fs/cgroup/a/b/cpu.max", "200000\n");
    write_file(machine, "/sys/fs/cgroup/a/cpu.max", "99999999999999999999999 100000\n");
    assert_int_equal(cores_of(machine), 8);
}

static void this_machine_has_a_core(void **state)
{
    (void)state;
    uint32_t cores = sl_cpu_usable_cores();
    assert_true(cores >= 1);
    assert_true((long)cores <= sysconf(_SC_NPROCESSORS_CONF));
}

static void every_set_is_parsed_by_its_name(void **state)
{
    (void)state;
    for (int i = 0; i < SL_ISA_COUNT; i++) {
        sl_isa isa;
        assert_true(sl_isa_parse(sl_isa_name((sl_isa)i), &isa));
        assert_int_equal(isa, i);
    }
    assert_string_equal(sl_isa_name(SL_ISA_COUNT), "unknown");
}

static void auto_is_the_best_the_processor_has(void **state)
{
    (void)state;
    sl_isa isa;
    assert_true(sl_isa_parse("auto", &isa));
    assert_int_equal(isa, sl_cpu_best_isa());
}

static void unknown_sets_are_refused(void **state)
{
    (void)state;
    sl_isa isa;
    assert_false(sl_isa_parse("", &isa));
    assert_false(sl_isa_parse("AVX2", &isa));
    assert_false(sl_isa_parse("avx", &isa));
    assert_false(sl_isa_parse("avx22", &isa));
}

#define ON_A_MACHINE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_A_MACHINE(cpus_without_topology_are_cores),
        ON_A_MACHINE(hyperthreads_share_a_core),
        ON_A_MACHINE(a_core_counts_when_only_its_second_thread_is_allowed),
        ON_A_MACHINE(the_older_topology_file_is_read),
        ON_A_MACHINE(cpus_beyond_the_first_thousand_count),
        ON_A_MACHINE(malformed_topology_does_no_harm),
        ON_A_MACHINE(a_v2_quota_is_rounded_down),
        ON_A_MACHINE(the_smallest_quota_of_all_v2_ancestors_counts),
        ON_A_MACHINE(a_v1_quota_counts_with_its_period),
        ON_A_MACHINE(a_container_that_sees_its_hosts_names_reads_its_own_mount),
        ON_A_MACHINE(less_than_one_core_is_one),
        ON_A_MACHINE(malformed_quotas_are_no_quotas),
        cmocka_unit_test(this_machine_has_a_core),
        cmocka_unit_test(every_set_is_parsed_by_its_name),
        cmocka_unit_test(auto_is_the_best_the_processor_has),
        cmocka_unit_test(unknown_sets_are_refused),
    };
    return cmocka_run_group_tests_name("os_cpu", tests, NULL, NULL);
}
