/* Tensors whose scale is made at run time (QN_TYPE_DYNAMIC): unsigned bytes, row-major, and behind
 * them, on the next multiple of 64 bytes, the scale and zero point of this run. By rows: a scale
 * for each row along the last axis, whose bytes are signed integers -127 .. 127 plus 128.
 *
 * They are made by QuantizeLinear and read by MatMul and Gemm only, whose third input may then be a
 * float bias of one value per column. */
#ifndef QN_RUN_DYNAMIC_H
#define QN_RUN_DYNAMIC_H

#include "core/checked.h"
#include "run/op.h"

typedef struct qn_dynamic_params {
    float scale;
    int32_t zero;
} qn_dynamic_params;

enum { QN_DYNAMIC_ROW_ZERO = 128 };

static inline bool qn_dynamic_by_rows(qn_type type)
{
    return type.quant->axis == 0;
}
static inline bool qn_dynamic_is_bytes(qn_type type)
{
    return type.kind == QN_TYPE_DYNAMIC && type.quant->bits == 8 &&
           (type.quant->axis < 0 ? type.dtype == QN_DTYPE_U8
                                 : type.quant->axis == 0 && type.dtype == QN_DTYPE_I8);
}
/* Rows along the last axis. */
static inline size_t qn_dynamic_rows(size_t count, size_t rank, const int64_t *dims)
{
    return rank == 0 || dims[rank - 1] <= 0 ? count : count / (size_t)dims[rank - 1];
}
/* Bytes of a tensor of so many elements in so many rows (1: one scale); false on overflow. */
static inline bool qn_dynamic_bytes(size_t *out, size_t count, size_t rows)
{
    size_t scales;
    return qn_align_size(out, count, 64) && qn_mul_size(&scales, rows, sizeof(qn_dynamic_params)) &&
           qn_align_size(&scales, scales, 64) && qn_add_size(out, *out, scales);
}
static inline qn_dynamic_params *qn_dynamic_params_of(const qn_view *view)
{
    const size_t at = (view->count + 63) / 64 * 64;
    return (qn_dynamic_params *)(void *)((uint8_t *)view->data + at);
}

/* Of by rows: the scale of each row. */
static inline float *qn_dynamic_scales_of(const qn_view *view)
{
    return &qn_dynamic_params_of(view)->scale;
}

/* The scale of a row whose values are between lo and hi. */
float qn__dynamic_row_scale(float lo, float hi);
/* Scale and zero point of values between lo and hi, as ONNX's DynamicQuantizeLinear has them. */
qn_dynamic_params qn__dynamic_params(float lo, float hi);
void qn__dynamic_quantize(const qn_q8_quantize *kernel, qn_pool *pool, const float *x, size_t count,
                          qn_dynamic_params params, uint8_t *q);
void qn__dynamic_to_f32(const qn_view *view, float *dst);
void qn__dynamic_from_f32(const qn_view *view, const float *src);

/* Does the node make or read such a tensor? Its implementation then, or NULL. */
bool qn__dynamic_applies(const qn_node *node);
const qn_run_op *qn__dynamic_op_find(const qn_node *node);

#endif
