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

static float rounded(float x, qn_dtype precision)
{
    uint16_t bits;
    if (precision != QN_DTYPE_F16 && precision != QN_DTYPE_BF16)
        return x;
    qn__store_real(&bits, precision, 0, (double)x);
    return (float)qn__load_real(&bits, precision, 0);
}

static int64_t quantize(const qn_quant *q, float x, size_t s, qn_dtype precision)
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
    float v = rounded(x / q->scales[s], precision);
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

void qn__view_from_f32(const qn_view *view, const float *src)
{
    qn__view_quantize(view, src, QN_DTYPE_F32);
}

void qn__view_quantize(const qn_view *view, const float *src, qn_dtype precision)
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
    size_t bytes;
    if (qn__dtype_bits(type->dtype) < 8 && qn__dtype_bytes(&bytes, type->dtype, view->count))
        memset(view->data, 0, bytes); /* the last byte may not be full */
    for (size_t i = 0; i < view->count; i++) {
        if (quant)
            qn__store_int(view->data, type->dtype, c.offset,
                          quantize(type->quant, src[i], scale_index(type->quant, &c), precision));
        else
            qn__store_real(view->data, type->dtype, c.offset, src[i]);
        cursor_next(&c);
    }
}
