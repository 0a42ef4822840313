#include "core/cpu.h"

#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Not __builtin_cpu_supports: that brings 5 KB of names of processors, and compilers differ in
 * which names of features it knows. */
typedef struct leaf {
    unsigned a, b, c, d;
} leaf;

/* Zeros where the processor has no such leaf. */
static leaf cpuid(unsigned number, unsigned sub)
{
    leaf l = {0, 0, 0, 0};
    if (__get_cpuid_count(number, sub, &l.a, &l.b, &l.c, &l.d) == 0)
        return (leaf){0, 0, 0, 0};
    return l;
}

/* Registers whose state the operating system saves. */
static unsigned saved_state(void)
{
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* AMX-TILE and AMX-INT8, and Linux gives the process the state of the tiles on request. */
static bool has_amx(leaf seven)
{
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    const unsigned wanted = (1u << 24) | (1u << 25);
    return (seven.d & wanted) == wanted &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    (void)seven;
    return false;
#endif
}

uint32_t qn__cpu_detect(void)
{
    enum { YMM = 0x6, ZMM = 0xe6 };
    const unsigned avx = bit_FMA | bit_OSXSAVE | bit_AVX | bit_F16C;
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    const leaf one = cpuid(1, 0), seven = cpuid(7, 0);
    if ((one.c & avx) != avx || (seven.b & bit_AVX2) == 0)
        return 0;
    const unsigned saved = saved_state();
    if ((saved & YMM) != YMM)
        return 0;
    uint32_t flags = QN_CPU_AVX2;
    if (seven.a >= 1 && (cpuid(7, 1).a & (1u << 4)) != 0)
        flags |= QN_CPU_AVX_VNNI;
    if ((saved & ZMM) != ZMM || (seven.b & avx512) != avx512)
        return flags;
    flags |= QN_CPU_AVX512;
    if ((seven.c & bit_AVX512VNNI) != 0) {
        flags |= QN_CPU_AVX512_VNNI;
        if (has_amx(seven))
            flags |= QN_CPU_AMX;
    }
    return flags;
}
#elif defined(__aarch64__)
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
uint32_t qn__cpu_detect(void)
{
    uint32_t flags = QN_CPU_NEON; /* part of the AArch64 base */
#if defined(__linux__)
    if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0)
        flags |= QN_CPU_DOTPROD;
    if ((getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0)
        flags |= QN_CPU_I8MM;
#endif
    return flags;
}
#else
uint32_t qn__cpu_detect(void)
{
    return 0;
}
#endif

bool qn__cpu_mask(uint32_t *flags, const char *mask)
{
    static const struct {
        const char *name;
        uint32_t allowed;
    } levels[] = {
        {"", UINT32_MAX},
        {"scalar", 0},
        {"avx2", QN_CPU_AVX2},
        {"avx512", QN_CPU_AVX2 | QN_CPU_AVX512},
        {"avxvnni", QN_CPU_AVX2 | QN_CPU_AVX_VNNI},
        {"vnni", QN_CPU_AVX2 | QN_CPU_AVX512 | QN_CPU_AVX512_VNNI},
        {"amx", QN_CPU_AVX2 | QN_CPU_AVX512 | QN_CPU_AVX512_VNNI | QN_CPU_AMX},
        {"neon", QN_CPU_NEON},
        {"dotprod", QN_CPU_NEON | QN_CPU_DOTPROD},
        {"i8mm", QN_CPU_NEON | QN_CPU_DOTPROD | QN_CPU_I8MM},
    };
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (strcmp(levels[i].name, mask) == 0) {
            *flags &= levels[i].allowed;
            return true;
        }
    }
    return false;
}
