/* Run a program below a process of next to no memory, so that the kernel's peak for it is its own.
 *
 *     launch REPORT_FD PROCS_FILE PROGRAM ARGUMENT...
 *
 * The peak that wait4 reports begins with what the process held before exec: a direct child of a test runner would
 * carry the runner's memory. PROCS_FILE is the cgroup.procs file of the cgroup to run in, or "-". The report is one
 * line: wait status, peak in KiB, this launcher's own peak in KiB. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SETUP_FAILED = 125 };

/* Writing 0 moves the writer. */
static int enter_cgroup(const char *procs)
{
    int file = open(procs, O_WRONLY | O_CLOEXEC);
    if (file < 0) {
        return -1;
    }
    int result = write(file, "0", 1) == 1 ? 0 : -1;
    close(file);
    return result;
}

static long own_peak_kib(void)
{
    long kib = -1;
    char line[256];
    FILE *file = fopen("/proc/self/status", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "VmHWM: %ld", &kib) == 1) {
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return kib;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: launch REPORT_FD PROCS_FILE PROGRAM ARGUMENT...\n");
        return 2;
    }
    int report = atoi(argv[1]);
    if (fcntl(report, F_SETFD, FD_CLOEXEC) != 0) {
        perror("launch: the report");
        return SETUP_FAILED;
    }
    long own = own_peak_kib();
    pid_t child = fork();
    if (child == 0) {
        if (strcmp(argv[2], "-") != 0 && enter_cgroup(argv[2]) != 0) {
            perror(argv[2]);
            _exit(SETUP_FAILED);
        }
        execv(argv[3], argv + 3);
        perror(argv[3]);
        _exit(SETUP_FAILED);
    }
    int status = 0;
    struct rusage usage;
    if (child < 0 || wait4(child, &status, 0, &usage) != child) {
        perror("launch: the program");
        return SETUP_FAILED;
    }
    return dprintf(report, "%d %ld %ld\n", status, usage.ru_maxrss, own) > 0 ? 0 : SETUP_FAILED;
}
