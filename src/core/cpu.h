/* CPU detection. */
#ifndef QN_CORE_CPU_H
#define QN_CORE_CPU_H

#include <stdbool.h>
#include <stdint.h>

enum {
    QN_CPU_AVX2 = 1u << 0,   /* AVX2 + FMA + F16C, and the OS saves ymm */
    QN_CPU_AVX512 = 1u << 1, /* F, BW, DQ, VL, and the OS saves zmm */
    QN_CPU_AVX512_VNNI = 1u << 2,
    QN_CPU_AVX_VNNI = 1u << 3, /* VNNI without AVX-512 */
    QN_CPU_AMX = 1u << 4,      /* 8-bit tiles, and the OS lets this process use them */
    QN_CPU_NEON = 1u << 8,
    QN_CPU_DOTPROD = 1u << 9,
    QN_CPU_I8MM = 1u << 10
};

/* Everything this CPU has. */
uint32_t qn__cpu_detect(void);
/* Flags at most at the named level ("", "scalar", "avx2", "avxvnni", "avx512", "vnni", "amx",
 * "neon", "dotprod", "i8mm"); false: unknown name. avxvnni is avx2 with VNNI, vnni is avx512 with
 * it, amx all of x86, i8mm all of AArch64. */
bool qn__cpu_mask(uint32_t *flags, const char *mask);

#endif
