/* Pow of any two number types: integers exactly, everything else in double. */
#include "run/ops/broadcast.h"

#include <math.h>

static bool is_plain(const qn_tensor *t)
{
    return t != NULL && t->type.kind == QN_TYPE_PLAIN && t->type.dtype != QN_DTYPE_BOOL &&
           qn__dtype_bits(t->type.dtype) >= 8;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    const qn_tensor *const a = qn__step_input(step, 0), *const b = qn__step_input(step, 1);
    if (a != NULL && b != NULL && qn__dtype_is_float(a->type.dtype) &&
        a->type.dtype == b->type.dtype) {
        step->impl = &qn__op_binary;
        return qn__op_binary.prepare(plan, step, error);
    }
    if (!is_plain(a) || !is_plain(b) || a->type.dtype != node->outputs[0]->type.dtype)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "needs two tensors of numbers");
    qn__broadcast_layouts(step);
    qn_broadcast *const s = qn__calloc(qn__plan_context(plan), 1, sizeof(*s));
    if (s == NULL)
        return QN_NOMEM(error);
    const qn_tensor *const tensors[2] = {a, b};
    if (!qn__broadcast_make(s, node->outputs[0], step->out_layout[0], tensors, step->in_layout,
                            2)) {
        qn__free(qn__plan_context(plan), s);
        return qn__step_fail(step, error, QN_CORRUPT, "shapes do not broadcast");
    }
    step->state = s;
    return QN_OK;
}

/* Modulo 2^64, which every integer type is a part of. */
static int64_t whole_power(int64_t base, uint64_t exponent)
{
    uint64_t result = 1, factor = (uint64_t)base;
    for (; exponent > 0; exponent >>= 1) {
        result *= (exponent & 1) != 0 ? factor : 1;
        factor *= factor;
    }
    return (int64_t)result;
}

static void power(const qn_view *a, int64_t at, const qn_view *b, int64_t bt, const qn_view *out,
                  size_t index)
{
    const qn_dtype x = a->tensor->type.dtype, y = b->tensor->type.dtype;
    const int64_t exponent = qn__dtype_is_float(y) ? -1 : qn__load_int(b->data, y, (size_t)bt);
    if (!qn__dtype_is_float(x) && !qn__dtype_is_float(y) && (exponent >= 0 || y == QN_DTYPE_U64)) {
        qn__store_int(out->data, x, index,
                      whole_power(qn__load_int(a->data, x, (size_t)at), (uint64_t)exponent));
        return;
    }
    double r = pow(qn__load_real(a->data, x, (size_t)at), qn__load_real(b->data, y, (size_t)bt));
    if (!qn__dtype_is_float(x))
        r = trunc(r);
    qn__store_real(out->data, x, index, r);
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)env;
    (void)error;
    const qn_broadcast *const s = step->state;
    const size_t axis = s->rank - 1;
    size_t index = 0;
    for (size_t row = 0; row < s->rows; row++) {
        int64_t at[QN_BROADCAST_MAX];
        qn__broadcast_row(s, row, at);
        for (size_t i = 0; i < s->row; i++) {
            power(&in[0], at[0], &in[1], at[1], out, index++);
            at[0] += s->strides[0][axis];
            at[1] += s->strides[1][axis];
        }
    }
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_pow = {QN_OP_POW, prepare, run, release};
