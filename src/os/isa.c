/* Instruction sets: their names, and which of them this processor and this operating system support together.
 *
 * Owns: nothing; asks the processor on every call.
 * Invariants:
 *   1. A set counts as supported only when every extension in its description does and the operating system saves the
 *      registers it uses.
 *   2. The sets of one architecture are a chain: each includes the ones before it.
 *   3. Nothing of the process changes but that it may use AMX tiles, where there are any.
 * Threads: any. */
#include "os/cpu.h"

#include <string.h>

static const char *const isa_names[SL_ISA_COUNT] = {[SL_ISA_GENERIC] = "generic",
                                                    [SL_ISA_AVX2] = "avx2",
                                                    [SL_ISA_AVX512] = "avx512",
                                                    [SL_ISA_AMX] = "amx",
                                                    [SL_ISA_NEON] = "neon"};

const char *sl_isa_name(sl_isa isa)
{
    return (unsigned)isa < SL_ISA_COUNT ? isa_names[isa] : "unknown";
}

bool sl_isa_parse(const char *name, sl_isa *isa)
{
    if (strcmp(name, "auto") == 0) {
        *isa = sl_cpu_best_isa();
        return true;
    }
    for (unsigned i = 0; i < SL_ISA_COUNT; i++) {
        if (strcmp(name, isa_names[i]) == 0) {
            *isa = (sl_isa)i;
            return true;
        }
    }
    return false;
}

#if defined(__x86_64__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Bits of CPUID leaf 1 and leaf 7, and of the extended control register that tells what the system saves. */
enum {
    LEAF1_ECX_FMA = 12,
    LEAF1_ECX_OSXSAVE = 27,
    LEAF1_ECX_AVX = 28,
    LEAF1_ECX_F16C = 29,
    LEAF7_EBX_AVX2 = 5,
    LEAF7_EBX_AVX512F = 16,
    LEAF7_EBX_AVX512DQ = 17,
    LEAF7_EBX_AVX512BW = 30,
    LEAF7_EBX_AVX512VL = 31,
    LEAF7_ECX_AVX512VBMI = 1,
    LEAF7_ECX_GFNI = 8,
    LEAF7_ECX_AVX512VNNI = 11,
    LEAF7_EDX_AMX_TILE = 24,
    LEAF7_EDX_AMX_INT8 = 25,
    SAVES_YMM = 0x06,     /* XMM and YMM */
    SAVES_ZMM = 0xe6,     /* and mask, upper ZMM, ZMM16 to 31 */
    SAVES_TILES = 0x60000 /* tile configuration and data */
};

/* What the kernel calls them. */
enum { ARCH_REQUEST_STATE = 0x1023, STATE_TILE_DATA = 18 };

static bool has_bits(unsigned value, unsigned bits)
{
    return (value & bits) == bits;
}

static unsigned saved_state(void)
{
    unsigned low;
    unsigned high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* The kernel grants tiles on request only, because threads that use them have more to save. */
static bool may_use_tiles(void)
{
    return syscall(SYS_arch_prctl, ARCH_REQUEST_STATE, STATE_TILE_DATA) == 0;
}

sl_isa sl_cpu_best_isa(void)
{
    unsigned eax, ebx, ecx, edx;
    const unsigned leaf1 = 1u << LEAF1_ECX_FMA | 1u << LEAF1_ECX_OSXSAVE | 1u << LEAF1_ECX_AVX | 1u << LEAF1_ECX_F16C;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !has_bits(ecx, leaf1)) {
        return SL_ISA_GENERIC;
    }
    unsigned saved = saved_state();
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !has_bits(ebx, 1u << LEAF7_EBX_AVX2) ||
        !has_bits(saved, SAVES_YMM)) {
        return SL_ISA_GENERIC;
    }
    const unsigned leaf7_ebx =
        1u << LEAF7_EBX_AVX512F | 1u << LEAF7_EBX_AVX512DQ | 1u << LEAF7_EBX_AVX512BW | 1u << LEAF7_EBX_AVX512VL;
    if (!has_bits(ebx, leaf7_ebx) || !has_bits(ecx, 1u << LEAF7_ECX_AVX512VNNI) || !has_bits(saved, SAVES_ZMM)) {
        return SL_ISA_AVX2;
    }
    if (!has_bits(edx, 1u << LEAF7_EDX_AMX_TILE | 1u << LEAF7_EDX_AMX_INT8) ||
        !has_bits(ecx, 1u << LEAF7_ECX_AVX512VBMI | 1u << LEAF7_ECX_GFNI) || !has_bits(saved, SAVES_TILES) ||
        !may_use_tiles()) {
        return SL_ISA_AVX512;
    }
    return SL_ISA_AMX;
}

#elif defined(__aarch64__)

#include <asm/hwcap.h>
#include <sys/auxv.h>

/* The kernel lists what the processor has and what it saves. */
sl_isa sl_cpu_best_isa(void)
{
    const unsigned long needed = HWCAP_ASIMD | HWCAP_ASIMDDP;
    return (getauxval(AT_HWCAP) & needed) == needed ? SL_ISA_NEON : SL_ISA_GENERIC;
}

#else

sl_isa sl_cpu_best_isa(void)
{
    return SL_ISA_GENERIC;
}

#endif
