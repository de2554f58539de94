/* The question of os/cpu.h asked under another root directory, so that tests can lay out a kernel's files. */
#ifndef SL_OS_CPU_ROOT_H
#define SL_OS_CPU_ROOT_H

#include <stdint.h>

enum { SL_CPU_MASK_WORDS = 256 }; /* 64 CPUs each: more than any kernel is built for */

/* `allowed` has bit n of word n / 64 set for each CPU this process may run on; `root` is put before every absolute
 * path. */
uint32_t sl_cpu_usable_cores_under(const char *root, const uint64_t allowed[SL_CPU_MASK_WORDS]);

#endif
