/* What the kernel says about memory: this process's use, its limits, the machine's. */
#ifndef SL_OS_LIMITS_H
#define SL_OS_LIMITS_H

#include <stdint.h>

/* Resident bytes of this process now, and their highest value since it started (VmRSS, VmHWM); 0 when unknown. */
uint64_t sl_process_resident_bytes(void);
uint64_t sl_process_peak_bytes(void);

/* The smallest memory limit of this process's cgroup and all its ancestors (v1 and v2); UINT64_MAX without one. */
uint64_t sl_cgroup_memory_limit(void);

/* MemAvailable, MemFree and MemTotal of /proc/meminfo; 0 when unknown. */
uint64_t sl_machine_available_bytes(void);
uint64_t sl_machine_free_bytes(void);
uint64_t sl_machine_physical_bytes(void);

#endif
