#include "calib/scan.h"

#include <string.h>

/* Independent lanes: minimum and maximum may be reordered freely, which the compiler must not
 * assume by itself. */
enum { LANES = 16 };

static uint32_t scan_block(const float *values, float *lo, float *hi)
{
    uint32_t bad = 0;
    for (size_t j = 0; j < LANES; j++) {
        uint32_t bits;
        memcpy(&bits, values + j, sizeof(bits));
        bad |= (uint32_t) - ((bits & 0x7F800000u) == 0x7F800000u);
    }
    for (size_t j = 0; j < LANES; j++)
        lo[j] = values[j] < lo[j] ? values[j] : lo[j];
    for (size_t j = 0; j < LANES; j++)
        hi[j] = values[j] > hi[j] ? values[j] : hi[j];
    return bad;
}

qn_status qn__scan_range(const float *values, size_t count, float *lo, float *hi, qn_error *error)
{
    if (count == 0)
        return QN_OK;
    float los[LANES], his[LANES], tail[LANES];
    for (size_t j = 0; j < LANES; j++) {
        los[j] = *lo;
        his[j] = *hi;
        tail[j] = values[0];
    }
    uint32_t bad = 0;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        bad |= scan_block(values + i, los, his);
    if (i < count) {
        memcpy(tail, values + i, (count - i) * sizeof(float));
        bad |= scan_block(tail, los, his);
    }
    if (bad != 0) {
        for (i = 0; i < count; i++)
            QN_FAIL_IF(!(values[i] - values[i] == 0.0f), error, QN_NONFINITE, "value %zu is %g", i,
                       (double)values[i]);
    }
    for (size_t j = 0; j < LANES; j++) {
        *lo = los[j] < *lo ? los[j] : *lo;
        *hi = his[j] > *hi ? his[j] : *hi;
    }
    *lo += 0.0f; /* -0 + 0 = +0 */
    *hi += 0.0f;
    return QN_OK;
}
