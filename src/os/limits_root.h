/* The questions of os/limits.h asked under another root directory, so that tests can lay out a kernel's files. */
#ifndef SL_OS_LIMITS_ROOT_H
#define SL_OS_LIMITS_ROOT_H

#include <stdint.h>

/* `root` is put before every absolute path, "" for the real machine. */
uint64_t sl_process_resident_bytes_under(const char *root);
uint64_t sl_process_peak_bytes_under(const char *root);
uint64_t sl_cgroup_memory_limit_under(const char *root);
uint64_t sl_machine_available_bytes_under(const char *root);
uint64_t sl_machine_free_bytes_under(const char *root);
uint64_t sl_machine_physical_bytes_under(const char *root);

#endif
