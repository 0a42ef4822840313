/* A float to a byte, for loops that compilers vectorize. */
#ifndef QN_KERNEL_Q8_ROUND_H
#define QN_KERNEL_Q8_ROUND_H

#include <stdint.h>
#include <string.h>

/* Rounds half to even by pushing the fraction out of the significand, whose low byte is the result.
 */
static inline uint8_t qn_rounded_byte(float v, int32_t zero)
{
    uint32_t bits;
    v += 12582912.0f;
    memcpy(&bits, &v, sizeof(bits));
    return (uint8_t)(bits + (uint32_t)zero);
}

static inline uint8_t qn_round_byte(float v, float lo, float hi, int32_t zero)
{
    v = v > lo ? v : lo;
    v = v < hi ? v : hi;
    return qn_rounded_byte(v, zero);
}

#endif
