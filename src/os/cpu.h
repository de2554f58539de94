/* What the processor can do, what the user allows it to do, and how many cores this process may use. */
#ifndef SL_OS_CPU_H
#define SL_OS_CPU_H

#include <stdbool.h>
#include <stdint.h>

/* The sets of this build's architecture come first, each including the ones before it; those of another architecture
 * follow, so that they are above everything a processor can have. */
typedef enum sl_isa {
    SL_ISA_GENERIC, /* plain C, the definition */
#if defined(__aarch64__)
    SL_ISA_NEON,
#endif
    SL_ISA_AVX2,   /* AVX2, FMA and F16C */
    SL_ISA_AVX512, /* AVX2 and AVX-512 F, BW, DQ, VL, VNNI */
    SL_ISA_AMX,    /* these, AMX tiles of int8, and VBMI and GFNI, which come with them */
#if !defined(__aarch64__)
    SL_ISA_NEON, /* AArch64's Advanced SIMD with dot products of bytes (asimddp) */
#endif
    SL_ISA_COUNT
} sl_isa;

/* "generic", "avx2", "avx512", "amx", "neon". */
const char *sl_isa_name(sl_isa isa);
/* Also "auto": the best the processor has. false for an unknown name. */
bool sl_isa_parse(const char *name, sl_isa *isa);
/* The best set that the processor and the operating system support. On a processor with AMX this asks the kernel to let
 * the process use tiles, as it must be asked; threads save a few kilobytes more from then on. A kernel that refuses is one
 * without support for them. */
sl_isa sl_cpu_best_isa(void);

/* Physical cores among the CPUs this process may run on, at most what the cgroup quota (v1 and v2, all ancestors)
 * grants, rounded down; at least 1. */
uint32_t sl_cpu_usable_cores(void);

#endif
