/* Limit of plain C: a product of the machine's integers and a sum. */
#define PEAK qn__q8_peak_scalar
#define V uint32_t
#define LANES 1
#define ONES8 1
#define ONES16 1
#define STEP(sum, ones8, ones16)                                                                   \
    do {                                                                                           \
        V a_ = ones8, b_ = ones16;                                                                 \
        __asm__ volatile("" : "+r"(a_), "+r"(b_));                                                 \
        sum += a_ * b_;                                                                            \
        __asm__ volatile("" : "+r"(sum));                                                          \
    } while (0)
#include "kernel/q8_peak_tmpl.h"
