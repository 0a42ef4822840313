/* Floats of 16 bits and less as doubles, and doubles rounded to them. */
#include "ir/type.h"

#include <math.h>
#include <string.h>

/* What the bit patterns at the top of the range mean. */
typedef enum top {
    TOP_IEEE,   /* the largest exponent is infinity and NaN */
    TOP_FN,     /* no infinity; all ones is NaN */
    TOP_FNUZ,   /* no infinity; minus zero is NaN */
    TOP_FINITE, /* neither */
} top;

typedef struct minifloat {
    uint32_t exponent_bits, mantissa_bits;
    int bias;
    top kind;
} minifloat;

static minifloat format_of(qn_dtype dtype)
{
    switch (dtype) {
    case QN_DTYPE_F16:
        return (minifloat){5, 10, 15, TOP_IEEE};
    case QN_DTYPE_BF16:
        return (minifloat){8, 7, 127, TOP_IEEE};
    case QN_DTYPE_F8E4M3FN:
        return (minifloat){4, 3, 7, TOP_FN};
    case QN_DTYPE_F8E4M3FNUZ:
        return (minifloat){4, 3, 8, TOP_FNUZ};
    case QN_DTYPE_F8E5M2:
        return (minifloat){5, 2, 15, TOP_IEEE};
    case QN_DTYPE_F8E5M2FNUZ:
        return (minifloat){5, 2, 16, TOP_FNUZ};
    default:
        return (minifloat){2, 1, 1, TOP_FINITE};
    }
}

static uint32_t load_code(const void *data, qn_dtype dtype, size_t index)
{
    const uint8_t *const bytes = data;
    if (qn__dtype_bits(dtype) == 4)
        return (uint32_t)(bytes[index / 2] >> (index % 2 * 4)) & 15u;
    if (qn__dtype_bits(dtype) == 8)
        return bytes[index];
    uint16_t code;
    memcpy(&code, bytes + index * sizeof(code), sizeof(code));
    return code;
}

static void store_code(void *data, qn_dtype dtype, size_t index, uint32_t code)
{
    uint8_t *const bytes = data;
    if (qn__dtype_bits(dtype) == 4) {
        const uint32_t shift = (uint32_t)(index % 2) * 4;
        bytes[index / 2] =
            (uint8_t)((bytes[index / 2] & ~(15u << shift)) | ((code & 15u) << shift));
    } else if (qn__dtype_bits(dtype) == 8) {
        bytes[index] = (uint8_t)code;
    } else {
        const uint16_t half = (uint16_t)code;
        memcpy(bytes + index * sizeof(half), &half, sizeof(half));
    }
}

double qn__load_minifloat(const void *data, qn_dtype dtype, size_t index)
{
    const uint32_t code = load_code(data, dtype, index);
    if (dtype == QN_DTYPE_F8E8M0)
        return code == 255 ? (double)NAN : ldexp(1.0, (int)code - 127);
    const minifloat f = format_of(dtype);
    const uint32_t width = f.exponent_bits + f.mantissa_bits, ones = (1u << f.exponent_bits) - 1;
    const uint32_t exponent = code >> f.mantissa_bits & ones;
    const uint32_t mantissa = code & ((1u << f.mantissa_bits) - 1);
    const bool negative = (code >> width & 1) != 0;
    double x;
    if (f.kind == TOP_IEEE && exponent == ones)
        x = mantissa != 0 ? (double)NAN : (double)INFINITY;
    else if (f.kind == TOP_FN && (code & ((1u << width) - 1)) == (1u << width) - 1)
        x = (double)NAN;
    else if (f.kind == TOP_FNUZ && code == 1u << width)
        x = (double)NAN;
    else if (exponent == 0)
        x = ldexp((double)mantissa, 1 - f.bias - (int)f.mantissa_bits);
    else
        x = ldexp((double)(mantissa + (1u << f.mantissa_bits)),
                  (int)exponent - f.bias - (int)f.mantissa_bits);
    return negative ? -x : x;
}

/* Codes of the largest finite value, infinity and NaN without their signs. */
static uint32_t largest(const minifloat *f)
{
    const uint32_t all = (1u << (f->exponent_bits + f->mantissa_bits)) - 1;
    return f->kind == TOP_IEEE ? all - (1u << f->mantissa_bits) : f->kind == TOP_FN ? all - 1 : all;
}

static uint32_t not_a_number(const minifloat *f)
{
    const uint32_t width = f->exponent_bits + f->mantissa_bits;
    switch (f->kind) {
    case TOP_IEEE: /* quiet */
        return largest(f) + 1 + (1u << (f->mantissa_bits - 1));
    case TOP_FN:
        return (1u << width) - 1;
    case TOP_FNUZ:
        return 1u << width;
    case TOP_FINITE:
        break;
    }
    return 0;
}

/* Powers of two, rounded up when above the next lower one, as ONNX's Cast does by default. */
static uint32_t power_code(double x, bool saturate)
{
    if (!(x >= 0.0))
        return 255;
    int exponent;
    const double fraction = isinf(x) ? 0.0 : frexp(x, &exponent);
    if (isinf(x))
        return saturate ? 254 : 255;
    if (x == 0.0)
        return 0;
    const int code = exponent - 1 + 127 + (fraction > 0.5);
    return code < 0 ? 0u : code <= 254 ? (uint32_t)code : saturate ? 254u : 255u;
}

static uint32_t code_of(const minifloat *f, double x, bool saturate)
{
    const uint32_t width = f->exponent_bits + f->mantissa_bits, max = largest(f);
    const uint32_t sign = signbit(x) ? 1u << width : 0;
    const double a = fabs(x);
    if (x != x)
        return f->kind == TOP_FNUZ ? not_a_number(f) : sign | not_a_number(f);
    uint32_t code = max + 1;
    if (a == 0.0) {
        code = 0;
    } else if (!isinf(a)) {
        int exponent;
        frexp(a, &exponent);
        const int lowest = 1 - f->bias;
        const int scale = exponent - 1 > lowest ? exponent - 1 : lowest;
        const double steps = rint(ldexp(a, (int)f->mantissa_bits - scale));
        if (scale + f->bias < 1 << (f->exponent_bits + 1)) /* a carry reaches the exponent */
            code = ((uint32_t)(scale + f->bias - 1) << f->mantissa_bits) + (uint32_t)steps;
    }
    if (code > max && (saturate || f->kind == TOP_FINITE))
        code = max;
    else if (code > max && f->kind != TOP_IEEE)
        return f->kind == TOP_FN ? sign | not_a_number(f) : not_a_number(f);
    else if (code > max)
        code = max + 1;
    return code == 0 && f->kind == TOP_FNUZ ? 0 : sign | code;
}

void qn__store_minifloat(void *data, qn_dtype dtype, size_t index, double value, bool saturate)
{
    if (dtype == QN_DTYPE_F8E8M0) {
        store_code(data, dtype, index, power_code(value, saturate));
        return;
    }
    const minifloat f = format_of(dtype);
    const bool wide = dtype == QN_DTYPE_F16 || dtype == QN_DTYPE_BF16;
    store_code(data, dtype, index, code_of(&f, value, saturate && !wide));
}

static int64_t saturated(double x, qn_dtype dtype)
{
    if (x != x)
        return 0;
    if (dtype == QN_DTYPE_BOOL)
        return x != 0.0;
    const int bits = (int)qn__dtype_bits(dtype) - (qn__dtype_is_signed(dtype) ? 1 : 0);
    const double limit = ldexp(1.0, bits), v = rint(x);
    if (v >= limit)
        return bits == 64 ? -1 : (int64_t)((UINT64_C(1) << bits) - 1); /* -1: all ones */
    if (!qn__dtype_is_signed(dtype))
        return v <= 0.0 ? 0 : (int64_t)(uint64_t)v;
    return v <= -limit ? (int64_t)-limit : (int64_t)v;
}

void qn__store_real(void *data, qn_dtype dtype, size_t index, double value)
{
    if (dtype == QN_DTYPE_F32) {
        const float narrow = (float)value;
        memcpy((uint8_t *)data + index * sizeof(narrow), &narrow, sizeof(narrow));
    } else if (dtype == QN_DTYPE_F64) {
        memcpy((uint8_t *)data + index * sizeof(value), &value, sizeof(value));
    } else if (qn__dtype_is_float(dtype)) {
        qn__store_minifloat(data, dtype, index, value, true);
    } else {
        qn__store_int(data, dtype, index, saturated(value, dtype));
    }
}
