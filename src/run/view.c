/* Real values of a tensor in any type and layout, and back. */
#include "run/dynamic.h"
#include "run/nd.h"

#include <math.h>
#include <string.h>

/* Calls for each element: row-major index and where it lies. */
typedef struct cursor {
    int64_t dims[QN_MAX_RANK], strides[QN_MAX_RANK], at[QN_MAX_RANK];
    size_t rank;
    size_t offset;
} cursor;

static cursor cursor_start(const qn_view *view)
{
    cursor c = {.rank = view->rank};
    memcpy(c.dims, view->dims, sizeof(c.dims));
    qn__layout_strides(view->rank, view->dims, view->layout, c.strides);
    return c;
}

static void cursor_next(cursor *c)
{
    for (size_t i = c->rank; i-- > 0;) {
        c->offset += (size_t)c->strides[i];
        if (++c->at[i] < c->dims[i])
            return;
        c->offset -= (size_t)(c->strides[i] * c->dims[i]);
        c->at[i] = 0;
    }
}

/* Which scale belongs to the element the cursor is at. */
static size_t scale_index(const qn_quant *q, const cursor *c)
{
    if (q->axis < 0)
        return 0;
    const size_t axis = (size_t)q->axis;
    if (q->block == 0)
        return (size_t)c->at[axis];
    size_t index = 0;
    for (size_t i = 0; i < c->rank; i++) {
        const int64_t blocks = (c->dims[i] + q->block - 1) / q->block;
        index = i == axis ? index * (size_t)blocks + (size_t)(c->at[i] / q->block)
                          : index * (size_t)c->dims[i] + (size_t)c->at[i];
    }
    return index;
}

static float dequantize(const qn_quant *q, int64_t value, size_t s)
{
    if (q->n_codebook > 0) {
        const int64_t entry = value - q->qmin;
        return entry >= 0 && (size_t)entry < q->n_codebook ? q->codebook[entry] * q->scales[s]
                                                           : 0.0f;
    }
    const int32_t zero = q->zero_points != NULL ? q->zero_points[s] : 0;
    return (float)(value - zero) * q->scales[s];
}

static int64_t quantize(const qn_quant *q, float x, size_t s)
{
    if (q->n_codebook > 0) {
        size_t best = 0;
        const float target = x / q->scales[s];
        for (size_t i = 1; i < q->n_codebook; i++)
            if (fabsf(q->codebook[i] - target) < fabsf(q->codebook[best] - target))
                best = i;
        return (int64_t)best + q->qmin;
    }
    const int32_t zero = q->zero_points != NULL ? q->zero_points[s] : 0;
    const float lo = (float)((int64_t)q->qmin - zero), hi = (float)((int64_t)q->qmax - zero);
    float v = x / q->scales[s];
    v = v > lo ? v : lo;
    v = v < hi ? v : hi;
    return (int64_t)rintf(v) + zero;
}

void qn__view_to_f32(const qn_view *view, float *dst)
{
    const qn_type *const type = &view->tensor->type;
    const bool quant = type->kind == QN_TYPE_QUANT;
    if (type->dtype == QN_DTYPE_F32 && !quant &&
        (view->layout == QN_LAYOUT_ROW_MAJOR || qn__layout_trivial(view->rank, view->dims))) {
        memcpy(dst, view->data, view->count * sizeof(float));
        return;
    }
    if (type->dtype == QN_DTYPE_F32 && !quant) {
        qn__convert_layout(NULL, dst, QN_LAYOUT_ROW_MAJOR, view->data, view->layout, view->rank,
                           view->dims, sizeof(float));
        return;
    }
    if (type->kind == QN_TYPE_DYNAMIC) {
        qn__dynamic_to_f32(view, dst);
        return;
    }
    cursor c = cursor_start(view);
    for (size_t i = 0; i < view->count; i++) {
        dst[i] = quant ? dequantize(type->quant, qn__load_int(view->data, type->dtype, c.offset),
                                    scale_index(type->quant, &c))
                       : (float)qn__load_real(view->data, type->dtype, c.offset);
        cursor_next(&c);
    }
}

/* Bits of the nearest half, ties to even. */
static uint16_t half_bits(float x, bool bf16)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    if (bf16) {
        if (x != x)
            return 0x7FC0;
        return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    }
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    const float magnitude = fabsf(x);
    if (x != x)
        return sign | 0x7E00;
    if (magnitude >= 65520.0f)
        return sign | 0x7C00;
    if (magnitude < 6.103515625e-05f)
        return sign | (uint16_t)rintf(magnitude * 16777216.0f);
    int exponent;
    const float fraction = frexpf(magnitude, &exponent);
    const uint32_t mantissa = (uint32_t)rintf(fraction * 2048.0f);
    return sign | (uint16_t)(((uint32_t)(exponent + 13) << 10) + mantissa);
}

static int64_t saturate(float x, qn_dtype dtype)
{
    if (x != x)
        return 0;
    if (dtype == QN_DTYPE_BOOL)
        return x != 0.0f;
    const uint32_t bits = qn__dtype_bits(dtype);
    const bool is_signed = qn__dtype_is_signed(dtype);
    const double hi = ldexp(1.0, (int)bits - (is_signed ? 1 : 0)) - 1.0;
    const double lo = is_signed ? -ldexp(1.0, (int)bits - 1) : 0.0;
    const double v = rint((double)x);
    if (v <= lo)
        return bits == 64 ? (is_signed ? INT64_MIN : 0) : (int64_t)lo;
    if (v >= hi)
        return bits == 64 ? INT64_MAX : (int64_t)hi;
    return v >= 9223372036854775808.0 ? INT64_MAX : (int64_t)v;
}

static void store_real(void *data, qn_dtype dtype, size_t index, float value)
{
    if (dtype == QN_DTYPE_F32) {
        memcpy((uint8_t *)data + index * sizeof(value), &value, sizeof(value));
    } else if (dtype == QN_DTYPE_F64) {
        const double wide = value;
        memcpy((uint8_t *)data + index * sizeof(wide), &wide, sizeof(wide));
    } else if (dtype == QN_DTYPE_F16 || dtype == QN_DTYPE_BF16) {
        const uint16_t bits = half_bits(value, dtype == QN_DTYPE_BF16);
        memcpy((uint8_t *)data + index * sizeof(bits), &bits, sizeof(bits));
    } else {
        qn__store_int(data, dtype, index, saturate(value, dtype));
    }
}

void qn__view_from_f32(const qn_view *view, const float *src)
{
    const qn_type *const type = &view->tensor->type;
    const bool quant = type->kind == QN_TYPE_QUANT;
    if (type->dtype == QN_DTYPE_F32 && !quant) {
        qn__convert_layout(NULL, view->data, view->layout, src, QN_LAYOUT_ROW_MAJOR, view->rank,
                           view->dims, sizeof(float));
        return;
    }
    if (type->kind == QN_TYPE_DYNAMIC) {
        qn__dynamic_from_f32(view, src);
        return;
    }
    cursor c = cursor_start(view);
    for (size_t i = 0; i < view->count; i++) {
        if (quant)
            qn__store_int(view->data, type->dtype, c.offset,
                          quantize(type->quant, src[i], scale_index(type->quant, &c)));
        else
            store_real(view->data, type->dtype, c.offset, src[i]);
        cursor_next(&c);
    }
}
