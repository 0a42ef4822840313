/* Shape arithmetic and constants; Cast; Where. */
#include "run/ops/broadcast.h"

#include <math.h>
#include <string.h>

static qn_status prepare_plain(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    (void)error;
    for (uint32_t i = 0; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    return QN_OK;
}

/* --- Shape, Size: only the dims matter, the layout stays as it is ---------------------------- */
static qn_status prepare_shape(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    if (qn__step_input(step, 0) == NULL || step->node->outputs[0]->type.dtype != QN_DTYPE_I64)
        return qn__step_fail(step, error, QN_CORRUPT, "needs an input and an int64 output");
    return QN_OK;
}

static qn_status run_shape(const qn_step *step, const qn_run_env *env, const qn_view *in,
                           const qn_view *out, qn_error *error)
{
    (void)env;
    int64_t *const dst = out[0].data;
    if (step->node->op == QN_OP_SIZE) {
        dst[0] = (int64_t)in[0].count;
        return QN_OK;
    }
    int64_t start = qn__attr_int(step->node, "start", 0);
    int64_t end = qn__attr_int(step->node, "end", in[0].rank);
    start += start < 0 ? in[0].rank : 0;
    end += end < 0 ? in[0].rank : 0;
    start = start < 0 ? 0 : start;
    end = end > in[0].rank ? in[0].rank : end;
    if ((size_t)(end > start ? end - start : 0) != out[0].count)
        return qn__step_fail(step, error, QN_CORRUPT, "output shape does not fit");
    for (int64_t i = start; i < end; i++)
        dst[i - start] = in[0].dims[i];
    return QN_OK;
}

/* --- ConstantOfShape, Constant --------------------------------------------------------------- */
static qn_status run_constant_of_shape(const qn_step *step, const qn_run_env *env,
                                       const qn_view *in, const qn_view *out, qn_error *error)
{
    (void)env;
    (void)in;
    const qn_attr *const value = qn__node_attr(step->node, "value");
    const size_t bytes = qn__dtype_bits(out[0].tensor->type.dtype) / 8;
    uint8_t *const dst = out[0].data;
    if (value == NULL || value->t == NULL) {
        memset(dst, 0, out[0].count * bytes);
        return QN_OK;
    }
    if (value->t_dtype != out[0].tensor->type.dtype || value->t->size_bytes < bytes)
        return qn__step_fail(step, error, QN_CORRUPT, "value does not fit the output");
    for (size_t i = 0; i < out[0].count; i++)
        memcpy(dst + i * bytes, value->t->data, bytes);
    return QN_OK;
}

static qn_status run_constant(const qn_step *step, const qn_run_env *env, const qn_view *in,
                              const qn_view *out, qn_error *error)
{
    (void)env;
    (void)in;
    const qn_node *const node = step->node;
    const qn_attr *const value = qn__node_attr(node, "value");
    const qn_attr *const floats = qn__node_attr(node, "value_floats");
    const qn_attr *const ints = qn__node_attr(node, "value_ints");
    const qn_attr *const f = qn__node_attr(node, "value_float");
    const qn_attr *const i = qn__node_attr(node, "value_int");
    const qn_dtype dtype = out[0].tensor->type.dtype;
    const void *from = NULL;
    size_t bytes = 0;
    qn_dtype have = QN_DTYPE_NONE;
    if (value != NULL && value->t != NULL) {
        from = value->t->data;
        bytes = value->t->size_bytes;
        have = value->t_dtype;
    } else if (floats != NULL || f != NULL) {
        from = f != NULL ? (const void *)&f->f : (const void *)floats->floats;
        bytes = (f != NULL ? 1 : floats->count) * sizeof(float);
        have = QN_DTYPE_F32;
    } else if (ints != NULL || i != NULL) {
        from = i != NULL ? (const void *)&i->i : (const void *)ints->ints;
        bytes = (i != NULL ? 1 : ints->count) * sizeof(int64_t);
        have = QN_DTYPE_I64;
    }
    const size_t need = out[0].count * (qn__dtype_bits(dtype) / 8);
    if (have != dtype || bytes < need)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "value does not fit the output");
    if (need > 0)
        memcpy(out[0].data, from, need);
    return QN_OK;
}

/* --- Range ----------------------------------------------------------------------------------- */
static qn_status run_range(const qn_step *step, const qn_run_env *env, const qn_view *in,
                           const qn_view *out, qn_error *error)
{
    (void)step;
    (void)env;
    (void)error;
    const qn_dtype dtype = out[0].tensor->type.dtype;
    for (size_t i = 0; i < out[0].count; i++) {
        if (qn__dtype_is_float(dtype))
            qn__store_real(out[0].data, dtype, i,
                           qn__load_real(in[0].data, dtype, 0) +
                               (double)i * qn__load_real(in[2].data, dtype, 0));
        else
            qn__store_int(out[0].data, dtype, i,
                          (int64_t)((uint64_t)qn__load_int(in[0].data, dtype, 0) +
                                    i * (uint64_t)qn__load_int(in[2].data, dtype, 0)));
    }
    return QN_OK;
}

static qn_status prepare_range(const qn_plan *plan, qn_step *step, qn_error *error)
{
    if (step->node->n_inputs != 3)
        return qn__step_fail(step, error, QN_CORRUPT, "needs start, limit and delta");
    for (uint32_t i = 0; i < 3; i++)
        if (step->node->inputs[i] == NULL || qn__tensor_elements(step->node->inputs[i]) != 1 ||
            step->node->inputs[i]->type.dtype != step->node->outputs[0]->type.dtype)
            return qn__step_fail(step, error, QN_CORRUPT, "input %u does not fit", (unsigned)i);
    return prepare_plain(plan, step, error);
}

/* --- Cast ------------------------------------------------------------------------------------ */
static qn_status prepare_cast(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    if (qn__step_input(step, 0) == NULL ||
        qn__tensor_elements(step->node->inputs[0]) != qn__tensor_elements(step->node->outputs[0]))
        return qn__step_fail(step, error, QN_CORRUPT, "input and output do not fit");
    if (qn__dtype_bits(step->node->inputs[0]->type.dtype) < 8 ||
        qn__dtype_bits(step->node->outputs[0]->type.dtype) < 8)
        step->in_layout[0] = QN_LAYOUT_ROW_MAJOR;
    step->out_layout[0] = step->in_layout[0];
    for (uint32_t i = 1; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->alias = step->node->inputs[0]->type.dtype == step->node->outputs[0]->type.dtype;
    return QN_OK;
}

/* Towards zero, as C does; what does not fit saturates instead of being undefined. */
static int64_t truncate_real(double x)
{
    if (x != x)
        return 0;
    if (x >= 9223372036854775807.0)
        return INT64_MAX;
    return x <= -9223372036854775808.0 ? INT64_MIN : (int64_t)x;
}

static qn_status run_cast(const qn_step *step, const qn_run_env *env, const qn_view *in,
                          const qn_view *out, qn_error *error)
{
    (void)env;
    (void)error;
    const qn_dtype from = in[0].tensor->type.dtype, to = out[0].tensor->type.dtype;
    if (from == to) {
        size_t bytes;
        if (qn__dtype_bytes(&bytes, from, in[0].count))
            memmove(out[0].data, in[0].data, bytes);
        return QN_OK;
    }
    if (from == QN_DTYPE_I32 && to == QN_DTYPE_F32) { /* sums of integer products */
        for (size_t i = 0; i < in[0].count; i++)
            ((float *)out[0].data)[i] = (float)((const int32_t *)in[0].data)[i];
        return QN_OK;
    }
    size_t packed;
    if (qn__dtype_bits(to) < 8 && qn__dtype_bytes(&packed, to, in[0].count))
        memset(out[0].data, 0, packed); /* the last byte may not be full */
    const bool saturates = qn__attr_int(step->node, "saturate", 1) != 0;
    for (size_t i = 0; i < in[0].count; i++) {
        if (qn__dtype_bits(to) <= 8 && qn__dtype_is_float(to)) {
            qn__store_minifloat(out[0].data, to, i, qn__load_real(in[0].data, from, i), saturates);
        } else if (qn__dtype_is_float(to)) {
            qn__store_real(out[0].data, to, i, qn__load_real(in[0].data, from, i));
        } else if (qn__dtype_is_float(from)) {
            const double x = qn__load_real(in[0].data, from, i);
            qn__store_int(out[0].data, to, i, to == QN_DTYPE_BOOL ? x != 0.0 : truncate_real(x));
        } else {
            qn__store_int(out[0].data, to, i, qn__load_int(in[0].data, from, i));
        }
    }
    return QN_OK;
}

/* --- Where ----------------------------------------------------------------------------------- */
static qn_status prepare_where(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    if (node->n_inputs != 3 || node->inputs[0] == NULL || node->inputs[1] == NULL ||
        node->inputs[2] == NULL || node->inputs[0]->type.dtype != QN_DTYPE_BOOL ||
        node->inputs[1]->type.dtype != node->outputs[0]->type.dtype ||
        node->inputs[2]->type.dtype != node->outputs[0]->type.dtype ||
        node->inputs[1]->type.kind == QN_TYPE_QUANT || node->inputs[2]->type.kind == QN_TYPE_QUANT)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "needs a condition and two equal types");
    qn__broadcast_layouts(step);
    qn_broadcast *const b = qn__calloc(qn__plan_context(plan), 1, sizeof(*b));
    if (b == NULL)
        return QN_NOMEM(error);
    const qn_tensor *const tensors[3] = {node->inputs[0], node->inputs[1], node->inputs[2]};
    if (!qn__broadcast_make(b, node->outputs[0], step->out_layout[0], tensors, step->in_layout,
                            3)) {
        qn__free(qn__plan_context(plan), b);
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not broadcast");
    }
    step->state = b;
    return QN_OK;
}

static qn_status run_where(const qn_step *step, const qn_run_env *env, const qn_view *in,
                           const qn_view *out, qn_error *error)
{
    (void)env;
    (void)error;
    const qn_broadcast *const b = step->state;
    const size_t bytes = qn__dtype_bits(out[0].tensor->type.dtype) / 8, axis = b->rank - 1;
    uint8_t *dst = out[0].data;
    for (size_t row = 0; row < b->rows; row++) {
        int64_t at[QN_BROADCAST_MAX];
        qn__broadcast_row(b, row, at);
        for (size_t i = 0; i < b->row; i++, dst += bytes) {
            const bool c = ((const uint8_t *)in[0].data)[at[0]] != 0;
            memcpy(dst, (const uint8_t *)in[c ? 1 : 2].data + (size_t)at[c ? 1 : 2] * bytes, bytes);
            for (size_t k = 0; k < 3; k++)
                at[k] += b->strides[k][axis];
        }
    }
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_shape = {QN_OP_NONE, prepare_shape, run_shape, NULL};
const qn_run_op qn__op_constant_of_shape = {QN_OP_CONSTANT_OF_SHAPE, prepare_plain,
                                            run_constant_of_shape, NULL};
const qn_run_op qn__op_constant = {QN_OP_CONSTANT, prepare_plain, run_constant, NULL};
const qn_run_op qn__op_range = {QN_OP_RANGE, prepare_range, run_range, NULL};
const qn_run_op qn__op_cast = {QN_OP_NONE, prepare_cast, run_cast, NULL};
const qn_run_op qn__op_where = {QN_OP_WHERE, prepare_where, run_where, release};
