/* Limit of NEON with products of matrices: usmmla. */
#include <arm_neon.h>

#define PEAK qn__q8_peak_i8mm
#define V int32x4_t
#define LANES 4
#define ONES8 vreinterpretq_s32_s8(vdupq_n_s8(1))
#define ONES16 ones8
#define STEP(sum, ones8, ones16)                                                                   \
    __asm__ volatile("usmmla %0.4s, %1.16b, %1.16b" : "+w"(sum) : "w"(ones8), "w"(ones16))
#include "kernel/q8_peak_tmpl.h"
