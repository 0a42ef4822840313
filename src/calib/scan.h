/* Smallest and largest value of an array in one fast pass. */
#ifndef QN_CALIB_SCAN_H
#define QN_CALIB_SCAN_H

#include "core/context.h"

/* lo and hi are only widened. NONFINITE when a value is NaN or infinite. A negative zero counts as
 * zero, so that the result does not depend on the order of the values. */
qn_status qn__scan_range(const qn_context *ctx, const float *values, size_t count, float *lo,
                         float *hi, qn_error *error);

#endif
