/* Limit of NEON without dot products: smlal. */
#include <arm_neon.h>

#define PEAK qn__q8_peak_neon
#define V int32x4_t
#define LANES 4
#define ONES8 vdupq_n_s32(0)
#define ONES16 vreinterpretq_s32_s16(vdupq_n_s16(1))
#define STEP(sum, ones8, ones16)                                                                   \
    __asm__ volatile("smlal %0.4s, %2.4h, %2.4h" : "+w"(sum) : "w"(ones8), "w"(ones16))
#include "kernel/q8_peak_tmpl.h"
