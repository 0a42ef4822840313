/* The processor that emulated kernels run on: it has every instruction set of x86. */
#include "core/cpu.h"

uint32_t qn__cpu_detect(void)
{
    return QN_CPU_AVX2 | QN_CPU_AVX_VNNI | QN_CPU_AVX512 | QN_CPU_AVX512_VNNI | QN_CPU_AMX;
}
