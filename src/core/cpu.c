#include "core/cpu.h"

#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* clang before 15 does not know the name for __builtin_cpu_supports. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

/* Leaf 7.1; not in __builtin_cpu_supports of older compilers either. */
static bool has_avxvnni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && a >= 1 &&
           __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 4)) != 0;
}

/* AMX-TILE and AMX-INT8, and Linux gives the process the state of the tiles on request. */
static bool has_amx(void)
{
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    const unsigned wanted = (1u << 24) | (1u << 25);
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & wanted) == wanted &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

uint32_t qn__cpu_detect(void)
{
    uint32_t flags = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
        flags |= QN_CPU_AVX2;
    if ((flags & QN_CPU_AVX2) != 0 && has_avxvnni())
        flags |= QN_CPU_AVX_VNNI;
    if ((flags & QN_CPU_AVX2) != 0 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        flags |= QN_CPU_AVX512;
    if ((flags & QN_CPU_AVX512) != 0 && __builtin_cpu_supports("avx512vnni"))
        flags |= QN_CPU_AVX512_VNNI;
    if ((flags & QN_CPU_AVX512_VNNI) != 0 && has_amx())
        flags |= QN_CPU_AMX;
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
    };
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (strcmp(levels[i].name, mask) == 0) {
            *flags &= levels[i].allowed;
            return true;
        }
    }
    return false;
}
