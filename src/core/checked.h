/* Size arithmetic on numbers from files: every function returns false on overflow and then leaves
 * *out alone. */
#ifndef QN_CORE_CHECKED_H
#define QN_CORE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool qn_mul_size(size_t *out, size_t a, size_t b)
{
    if (a != 0 && b > SIZE_MAX / a)
        return false;
    *out = a * b;
    return true;
}

static inline bool qn_add_size(size_t *out, size_t a, size_t b)
{
    if (b > SIZE_MAX - a)
        return false;
    *out = a + b;
    return true;
}

static inline bool qn_align_size(size_t *out, size_t value, size_t alignment)
{
    size_t sum;
    if (!qn_add_size(&sum, value, alignment - 1))
        return false;
    *out = sum / alignment * alignment;
    return true;
}

static inline bool qn_size_from_i64(size_t *out, int64_t value)
{
    if (value < 0 || (uint64_t)value > SIZE_MAX)
        return false;
    *out = (size_t)value;
    return true;
}

/* How many times `by` reach n, for sizes that are known to be far from overflow. */
static inline size_t qn_div_up(size_t n, size_t by)
{
    return (n + by - 1) / by;
}

/* The next multiple of `to`, for such sizes. */
static inline size_t qn_round_up(size_t n, size_t to)
{
    return qn_div_up(n, to) * to;
}

/* Product of dims; the empty product is 1. False on a negative dimension or overflow. */
static inline bool qn_shape_count(size_t *out, const int64_t *dims, size_t rank)
{
    size_t count = 1;
    bool zero = false;
    for (size_t i = 0; i < rank; i++) {
        size_t dim;
        if (!qn_size_from_i64(&dim, dims[i]))
            return false;
        if (dim == 0)
            zero = true;
        else if (!qn_mul_size(&count, count, dim))
            return false;
    }
    *out = zero ? 0 : count;
    return true;
}

#endif
