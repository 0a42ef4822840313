/* Twelve chains of multiply-adds: enough for two units of six cycles. The including file defines
 * PEAK (the function), V (a register), LANES (of 32 bits), ONES8 and ONES16 (registers of ones) and
 * STEP(sum, ones8, ones16), which the compiler cannot take apart. */
#include "kernel/kernel.h"

#include <string.h>

static uint32_t add_lanes(V sum)
{
    uint32_t lanes[LANES], total = 0;
    memcpy(lanes, &sum, sizeof(sum));
    for (size_t i = 0; i < LANES; i++)
        total += lanes[i];
    return total;
}

#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define DECLARE(c) V s##c = {0};
#define ADVANCE(c) STEP(s##c, ones8, ones16);
#define ADD(c) total += add_lanes(s##c);

uint32_t PEAK(size_t n)
{
    const V ones8 = ONES8, ones16 = ONES16;
    uint32_t total = 0;
    EACH(DECLARE)
    for (size_t i = 0; i < n; i++) {
        EACH(ADVANCE)
    }
    EACH(ADD)
    return total;
}
