/* Operators that compute each value by itself, and binary ones with broadcasting. */
#include <inttypes.h>
#include <math.h>

#include "format/mnn/mnn_read.h"

/* --- binary -----------------------------------------------------------------------------------*/
/* MNN's comparisons are integers 0 and 1; where such a tensor is computed with, it becomes int64.
 */
static qn_status number(qn_mnn_reader *r, qn_tensor *x, qn_tensor **out, qn_error *error)
{
    *out = x;
    if (x->type.dtype == QN_DTYPE_BOOL)
        return qn__mnn_cast(r, x, QN_DTYPE_I64, out, error);
    return QN_OK;
}

static qn_status negated(qn_mnn_reader *r, qn_tensor *x, qn_tensor **out, qn_error *error)
{
    QN_TRY(qn__mnn_cast(r, x, QN_DTYPE_I64, &x, error));
    return qn__mnn_op2(r, QN_OP_EQUAL, x, qn__mnn_int_constant(r, "zero", 0), out, error);
}

static qn_status either(qn_mnn_reader *r, qn_tensor *a, qn_tensor *b, bool exclusive,
                        qn_tensor **out, qn_error *error)
{
    QN_TRY(qn__mnn_cast(r, a, QN_DTYPE_BOOL, &a, error));
    QN_TRY(qn__mnn_cast(r, b, QN_DTYPE_BOOL, &b, error));
    QN_TRY(qn__mnn_cast(r, a, QN_DTYPE_I64, &a, error));
    QN_TRY(qn__mnn_cast(r, b, QN_DTYPE_I64, &b, error));
    if (!exclusive)
        return qn__mnn_op2(r, QN_OP_MAX, a, b, out, error);
    QN_TRY(qn__mnn_op2(r, QN_OP_EQUAL, a, b, out, error));
    return negated(r, *out, out, error);
}

/* a - floor(a / b) * b */
static qn_status floor_mod(qn_mnn_reader *r, qn_tensor *a, qn_tensor *b, qn_tensor **out,
                           qn_error *error)
{
    qn_tensor *q;
    QN_TRY(qn__mnn_op2(r, QN_OP_DIV, a, b, &q, error));
    if (a->type.dtype == QN_DTYPE_F32)
        QN_TRY(qn__mnn_op1(r, QN_OP_FLOOR, q, &q, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_MUL, q, b, &q, error));
    return qn__mnn_op2(r, QN_OP_SUB, a, q, out, error);
}

static qn_status binary(qn_mnn_reader *r, int64_t kind, qn_tensor *a, qn_tensor *b, qn_tensor **out,
                        qn_error *error)
{
    static const struct {
        int64_t kind;
        qn_op op;
        bool negate;
    } PLAIN[] = {{QN_MNN_BinaryOpOperation_ADD, QN_OP_ADD, false},
                 {QN_MNN_BinaryOpOperation_SUB, QN_OP_SUB, false},
                 {QN_MNN_BinaryOpOperation_MUL, QN_OP_MUL, false},
                 {QN_MNN_BinaryOpOperation_DIV, QN_OP_DIV, false},
                 {QN_MNN_BinaryOpOperation_REALDIV, QN_OP_DIV, false},
                 {QN_MNN_BinaryOpOperation_MAX_TEMP, QN_OP_MAX, false},
                 {QN_MNN_BinaryOpOperation_MAXIMUM, QN_OP_MAX, false},
                 {QN_MNN_BinaryOpOperation_MIN_TEMP, QN_OP_MIN, false},
                 {QN_MNN_BinaryOpOperation_MINIMUM, QN_OP_MIN, false},
                 {QN_MNN_BinaryOpOperation_POW, QN_OP_POW, false},
                 {QN_MNN_BinaryOpOperation_GREATER, QN_OP_GREATER, false},
                 {QN_MNN_BinaryOpOperation_LESS, QN_OP_LESS, false},
                 {QN_MNN_BinaryOpOperation_EQUAL, QN_OP_EQUAL, false},
                 {QN_MNN_BinaryOpOperation_NOTEQUAL, QN_OP_EQUAL, true},
                 {QN_MNN_BinaryOpOperation_GREATER_EQUAL, QN_OP_GREATER_OR_EQUAL, false},
                 {QN_MNN_BinaryOpOperation_LESS_EQUAL, QN_OP_LESS_OR_EQUAL, false},
                 {QN_MNN_BinaryOpOperation_BITWISE_AND, QN_OP_BITWISE_AND, false},
                 {QN_MNN_BinaryOpOperation_BITWISE_OR, QN_OP_BITWISE_OR, false},
                 {QN_MNN_BinaryOpOperation_BITWISE_XOR, QN_OP_BITWISE_XOR, false}};
    QN_TRY(number(r, a, &a, error));
    QN_TRY(number(r, b, &b, error));
    if (a->type.dtype != b->type.dtype)
        return qn__mnn_fail(r, error, QN_CORRUPT, "inputs are %s and %s",
                            qn__dtype_name(a->type.dtype), qn__dtype_name(b->type.dtype));
    for (size_t i = 0; i < sizeof(PLAIN) / sizeof(PLAIN[0]); i++) {
        if (PLAIN[i].kind != kind)
            continue;
        QN_TRY(qn__mnn_op2(r, PLAIN[i].op, a, b, out, error));
        return PLAIN[i].negate ? negated(r, *out, out, error) : QN_OK;
    }
    const bool integers = a->type.dtype != QN_DTYPE_F32;
    switch (kind) {
    case QN_MNN_BinaryOpOperation_FLOORDIV:
        QN_TRY(qn__mnn_op2(r, QN_OP_DIV, a, b, out, error));
        return integers ? QN_OK : qn__mnn_op1(r, QN_OP_FLOOR, *out, out, error);
    case QN_MNN_BinaryOpOperation_FLOORMOD:
        return floor_mod(r, a, b, out, error);
    case QN_MNN_BinaryOpOperation_SquaredDifference:
        QN_TRY(qn__mnn_op2(r, QN_OP_SUB, a, b, out, error));
        return qn__mnn_op2(r, QN_OP_MUL, *out, *out, out, error);
    case QN_MNN_BinaryOpOperation_LOGICALOR:
        return either(r, a, b, false, out, error);
    case QN_MNN_BinaryOpOperation_LOGICALXOR:
        return either(r, a, b, true, out, error);
    case QN_MNN_BinaryOpOperation_MOD: /* of the divisor's sign; in operators that shapes can have
                                        */
        if (!integers)
            break;
        QN_TRY(floor_mod(r, a, b, out, error));
        QN_TRY(qn__mnn_op2(r, QN_OP_ADD, *out, b, out, error));
        return floor_mod(r, *out, b, out, error);
    case QN_MNN_BinaryOpOperation_MUL_SILU: /* a * b * sigmoid(b) */
        if (integers)
            break;
        QN_TRY(qn__mnn_op1(r, QN_OP_SIGMOID, b, out, error));
        QN_TRY(qn__mnn_op2(r, QN_OP_MUL, b, *out, out, error));
        return qn__mnn_op2(r, QN_OP_MUL, a, *out, out, error);
    default:
        break;
    }
    return qn__mnn_fail(r, error, QN_UNSUPPORTED, "binary operation %" PRId64, kind);
}

qn_status qn__mnn_lower_binary(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 2, 2, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_BinaryOp, error));
    qn_tensor *a = qn__mnn_in(r, 0), *b = qn__mnn_in(r, 1), *out;
    QN_TRY(binary(r, qn_mnn_int(r, QN_MNN_BinaryOp_opType), a, b, &out, error));
    const int64_t act = qn_mnn_int(r, QN_MNN_BinaryOp_activationType);
    if (act == 1)
        QN_TRY(qn__mnn_op1(r, QN_OP_RELU, out, &out, error));
    else if (act != 0)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "activation %" PRId64, act);
    /* The axes are those of the tensor that has more of them. */
    const bool second = a->has_shape && b->has_shape && a->rank < b->rank;
    return qn__mnn_put(r, 0, out, qn__mnn_in_format(r, second ? 1 : 0), error);
}

qn_status qn__mnn_lower_eltwise(qn_mnn_reader *r, qn_error *error)
{
    static const int64_t KINDS[] = {[QN_MNN_EltwiseType_PROD] = QN_MNN_BinaryOpOperation_MUL,
                                    [QN_MNN_EltwiseType_SUM] = QN_MNN_BinaryOpOperation_ADD,
                                    [QN_MNN_EltwiseType_MAXIMUM] = QN_MNN_BinaryOpOperation_MAXIMUM,
                                    [QN_MNN_EltwiseType_SUB] = QN_MNN_BinaryOpOperation_SUB};
    QN_TRY(qn__mnn_need_inputs(r, 2, SIZE_MAX, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Eltwise, error));
    const int64_t kind = qn_mnn_int(r, QN_MNN_Eltwise_type);
    size_t n_coeff = 0;
    qn__fb_bytes(r->main, QN_MNN_Eltwise_coeff, &n_coeff);
    if (kind < 0 || kind > QN_MNN_EltwiseType_SUB)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "kind %" PRId64, kind);
    bool ones = true;
    for (size_t i = 0; i < n_coeff; i++)
        ones &= qn__fb_real_at(r->doc, r->main, QN_MNN_Eltwise_coeff, i) == 1.0;
    if (!ones && (kind != QN_MNN_EltwiseType_SUM || n_coeff != r->n_in))
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "%zu coefficients", n_coeff);
    qn_tensor *sum = NULL;
    for (size_t i = 0; i < r->n_in; i++) {
        qn_tensor *x = qn__mnn_in(r, i);
        const float by =
            ones ? 1.0f : (float)qn__fb_real_at(r->doc, r->main, QN_MNN_Eltwise_coeff, i);
        if (by == 0.0f)
            continue;
        if (by != 1.0f)
            QN_TRY(qn__mnn_op2(r, QN_OP_MUL, x, qn__mnn_float_constant(r, "coeff", by), &x, error));
        if (sum)
            QN_TRY(binary(r, KINDS[kind], sum, x, &sum, error));
        else
            sum = x;
    }
    if (!sum)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "every coefficient is 0");
    return qn__mnn_put_like(r, sum, error);
}

/* --- unary ------------------------------------------------------------------------------------*/
static qn_status gelu(qn_mnn_reader *r, qn_tensor *x, const char *approximate, qn_tensor **out,
                      qn_error *error)
{
    qn_node *node = qn__mnn_node(r, QN_OP_GELU, &x, 1);
    if (!node || !qn__node_set_string(r->graph, node, "approximate", approximate))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    *out = node->outputs[0];
    return QN_OK;
}

static qn_status unary(qn_mnn_reader *r, int64_t kind, qn_tensor *x, qn_tensor **out,
                       qn_error *error)
{
    static const struct {
        int64_t kind;
        qn_op op;
    } PLAIN[] = {{QN_MNN_UnaryOpOperation_ABS, QN_OP_ABS},
                 {QN_MNN_UnaryOpOperation_NEG, QN_OP_NEG},
                 {QN_MNN_UnaryOpOperation_FLOOR, QN_OP_FLOOR},
                 {QN_MNN_UnaryOpOperation_CEIL, QN_OP_CEIL},
                 {QN_MNN_UnaryOpOperation_SQRT, QN_OP_SQRT},
                 {QN_MNN_UnaryOpOperation_EXP, QN_OP_EXP},
                 {QN_MNN_UnaryOpOperation_LOG, QN_OP_LOG},
                 {QN_MNN_UnaryOpOperation_RECIPROCAL, QN_OP_RECIPROCAL},
                 {QN_MNN_UnaryOpOperation_BNLL, QN_OP_SOFTPLUS},
                 {QN_MNN_UnaryOpOperation_ROUND, QN_OP_ROUND},
                 {QN_MNN_UnaryOpOperation_ERF, QN_OP_ERF},
                 {QN_MNN_UnaryOpOperation_SIGMOID, QN_OP_SIGMOID},
                 {QN_MNN_UnaryOpOperation_TANH, QN_OP_TANH},
                 {QN_MNN_UnaryOpOperation_HARDSWISH, QN_OP_HARD_SWISH},
                 {QN_MNN_UnaryOpOperation_SIN, QN_OP_SIN},
                 {QN_MNN_UnaryOpOperation_COS, QN_OP_COS},
                 {QN_MNN_UnaryOpOperation_TAN, QN_OP_TAN},
                 {QN_MNN_UnaryOpOperation_ASIN, QN_OP_ASIN},
                 {QN_MNN_UnaryOpOperation_ACOS, QN_OP_ACOS},
                 {QN_MNN_UnaryOpOperation_ATAN, QN_OP_ATAN},
                 {QN_MNN_UnaryOpOperation_SINH, QN_OP_SINH},
                 {QN_MNN_UnaryOpOperation_COSH, QN_OP_COSH},
                 {QN_MNN_UnaryOpOperation_ASINH, QN_OP_ASINH},
                 {QN_MNN_UnaryOpOperation_ACOSH, QN_OP_ACOSH},
                 {QN_MNN_UnaryOpOperation_ATANH, QN_OP_ATANH},
                 {QN_MNN_UnaryOpOperation_SIGN, QN_OP_SIGN}};
    for (size_t i = 0; i < sizeof(PLAIN) / sizeof(PLAIN[0]); i++)
        if (PLAIN[i].kind == kind)
            return qn__mnn_op1(r, PLAIN[i].op, x, out, error);
    qn_tensor *one;
    switch (kind) {
    case QN_MNN_UnaryOpOperation_SQUARE:
        return qn__mnn_op2(r, QN_OP_MUL, x, x, out, error);
    case QN_MNN_UnaryOpOperation_RSQRT:
        QN_TRY(qn__mnn_op1(r, QN_OP_SQRT, x, &x, error));
        return qn__mnn_op1(r, QN_OP_RECIPROCAL, x, out, error);
    case QN_MNN_UnaryOpOperation_SILU:
        QN_TRY(qn__mnn_op1(r, QN_OP_SIGMOID, x, out, error));
        return qn__mnn_op2(r, QN_OP_MUL, x, *out, out, error);
    case QN_MNN_UnaryOpOperation_LOG1P:
        one = qn__mnn_float_constant(r, "one", 1.0f);
        QN_TRY(qn__mnn_op2(r, QN_OP_ADD, x, one, &x, error));
        return qn__mnn_op1(r, QN_OP_LOG, x, out, error);
    case QN_MNN_UnaryOpOperation_EXPM1:
        one = qn__mnn_float_constant(r, "one", 1.0f);
        QN_TRY(qn__mnn_op1(r, QN_OP_EXP, x, &x, error));
        return qn__mnn_op2(r, QN_OP_SUB, x, one, out, error);
    case QN_MNN_UnaryOpOperation_ERFC:
        one = qn__mnn_float_constant(r, "one", 1.0f);
        QN_TRY(qn__mnn_op1(r, QN_OP_ERF, x, &x, error));
        return qn__mnn_op2(r, QN_OP_SUB, one, x, out, error);
    case QN_MNN_UnaryOpOperation_GELU:
        return gelu(r, x, "tanh", out, error);
    case QN_MNN_UnaryOpOperation_GELU_STANDARD:
        return gelu(r, x, "none", out, error);
    default:
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "unary operation %" PRId64, kind);
    }
}

qn_status qn__mnn_lower_unary(qn_mnn_reader *r, qn_error *error)
{
    qn_tensor *out;
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_UnaryOp, error));
    QN_TRY(unary(r, qn_mnn_int(r, QN_MNN_UnaryOp_opType), qn__mnn_in(r, 0), &out, error));
    return qn__mnn_put_like(r, out, error);
}

/* Operators that are one node and have no parameters. */
qn_status qn__mnn_lower_simple(qn_mnn_reader *r, qn_error *error)
{
    static const struct {
        int64_t type, kind;
    } ROWS[] = {{QN_MNN_OpType_AbsVal, QN_MNN_UnaryOpOperation_ABS},
                {QN_MNN_OpType_Exp, QN_MNN_UnaryOpOperation_EXP},
                {QN_MNN_OpType_Log, QN_MNN_UnaryOpOperation_LOG},
                {QN_MNN_OpType_Sigmoid, QN_MNN_UnaryOpOperation_SIGMOID},
                {QN_MNN_OpType_TanH, QN_MNN_UnaryOpOperation_TANH},
                {QN_MNN_OpType_Bnll, QN_MNN_UnaryOpOperation_BNLL}};
    qn_tensor *out;
    int64_t kind = -1;
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++)
        if (ROWS[i].type == r->type)
            kind = ROWS[i].kind;
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(unary(r, kind, qn__mnn_in(r, 0), &out, error));
    return qn__mnn_put_like(r, out, error);
}

/* --- activations ------------------------------------------------------------------------------*/
static qn_status with_floats(qn_mnn_reader *r, qn_op op, const char *a, float a_value,
                             const char *b, float b_value, qn_error *error)
{
    qn_tensor *x = qn__mnn_in(r, 0);
    qn_node *node = qn__mnn_node(r, op, &x, 1);
    if (!node || !qn__node_set_float(r->graph, node, a, a_value) ||
        (b && !qn__node_set_float(r->graph, node, b, b_value)))
        return QN_NOMEM(error);
    QN_TRY(qn__mnn_infer(r, node, error));
    return qn__mnn_put_like(r, node->outputs[0], error);
}

qn_status qn__mnn_lower_relu(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    float slope = 0.0f;
    if (r->main) {
        QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Relu, error));
        slope = qn_mnn_real(r, QN_MNN_Relu_slope);
    }
    if (slope != 0.0f)
        return with_floats(r, QN_OP_LEAKY_RELU, "alpha", slope, NULL, 0.0f, error);
    qn_tensor *out;
    QN_TRY(qn__mnn_op1(r, QN_OP_RELU, qn__mnn_in(r, 0), &out, error));
    return qn__mnn_put_like(r, out, error);
}

qn_status qn__mnn_lower_relu6(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    float low = 0.0f, high = 6.0f;
    if (r->main) {
        QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Relu6, error));
        low = qn_mnn_real(r, QN_MNN_Relu6_minValue);
        high = qn_mnn_real(r, QN_MNN_Relu6_maxValue);
    }
    if (!(low <= high))
        return qn__mnn_fail(r, error, QN_CORRUPT, "clamps to %g..%g", (double)low, (double)high);
    qn_tensor *out;
    QN_TRY(qn__mnn_clip(r, qn__mnn_in(r, 0), low, high, &out, error));
    return qn__mnn_put_like(r, out, error);
}

qn_status qn__mnn_lower_prelu(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_PRelu, error));
    qn_tensor *x = qn__mnn_in(r, 0), *slope, *out;
    size_t n = 0;
    qn__fb_bytes(r->main, QN_MNN_PRelu_slope, &n);
    QN_TRY(qn__mnn_need_rank(r, x, 2, QN_MAX_RANK, error));
    const size_t channel = qn_mnn_is_nhwc(qn__mnn_in_format(r, 0)) ? (size_t)x->rank - 1 : 1;
    const qn_dim channels = x->dims[channel];
    if (n == 0 || (n > 1 && channels.kind == QN_DIM_CONST && channels.value != (int64_t)n))
        return qn__mnn_fail(r, error, QN_CORRUPT, "%zu slopes", n);
    int64_t dims[QN_MAX_RANK];
    for (size_t i = 0; i < x->rank; i++)
        dims[i] = i == channel ? (int64_t)n : 1;
    QN_TRY(qn__mnn_vector_constant(r, r->main, QN_MNN_PRelu_slope, "slope", (size_t)x->rank - 1,
                                   dims + 1, &slope, error));
    QN_TRY(qn__mnn_op2(r, QN_OP_PRELU, x, slope, &out, error));
    return qn__mnn_put_like(r, out, error);
}

qn_status qn__mnn_lower_elu(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_ELU, error));
    return with_floats(r, QN_OP_ELU, "alpha", qn_mnn_real(r, QN_MNN_ELU_alpha), NULL, 0.0f, error);
}

qn_status qn__mnn_lower_selu(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_Selu, error));
    return with_floats(r, QN_OP_SELU, "gamma", qn_mnn_real(r, QN_MNN_Selu_scale), "alpha",
                       qn_mnn_real(r, QN_MNN_Selu_alpha), error);
}

/* --- types ------------------------------------------------------------------------------------*/
qn_status qn__mnn_lower_cast(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 1, 1, error));
    QN_TRY(qn__mnn_need_main(r, QN_MNN_REC_CastParam, error));
    const int64_t type = qn_mnn_int(r, QN_MNN_CastParam_dstT);
    const qn_dtype dtype = qn__mnn_dtype(type);
    if (dtype == QN_DTYPE_NONE)
        return qn__mnn_fail(r, error, QN_UNSUPPORTED, "to data type %" PRId64, type);
    qn_tensor *out;
    QN_TRY(qn__mnn_cast(r, qn__mnn_in(r, 0), dtype, &out, error));
    return qn__mnn_put_like(r, out, error);
}

static bool is_zeros(const qn_mnn_reader *r, const qn_tensor *t)
{
    size_t n;
    const int64_t *values = t->constant ? qn__tensor_ints(r->graph, t, &n) : NULL;
    for (size_t i = 0; values && i < n; i++)
        if (values[i] != 0)
            return false;
    return values != NULL;
}

/* MNN copies words whatever they are: the integer 0 stands for 0.0. */
static qn_status same_type(qn_mnn_reader *r, qn_tensor **a, const qn_tensor *b, qn_error *error)
{
    if (b->type.dtype == QN_DTYPE_F32 && (*a)->type.dtype == QN_DTYPE_I64 && is_zeros(r, *a))
        return qn__mnn_cast(r, *a, QN_DTYPE_F32, a, error);
    return QN_OK;
}

qn_status qn__mnn_lower_select(qn_mnn_reader *r, qn_error *error)
{
    QN_TRY(qn__mnn_need_inputs(r, 3, 3, error));
    qn_tensor *condition, *a, *b, *out;
    QN_TRY(qn__mnn_cast(r, qn__mnn_in(r, 0), QN_DTYPE_BOOL, &condition, error));
    QN_TRY(number(r, qn__mnn_in(r, 1), &a, error));
    QN_TRY(number(r, qn__mnn_in(r, 2), &b, error));
    QN_TRY(same_type(r, &a, b, error));
    QN_TRY(same_type(r, &b, a, error));
    QN_TRY(qn__mnn_op3(r, QN_OP_WHERE, condition, a, b, &out, error));
    return qn__mnn_put(r, 0, out, qn__mnn_in_format(r, 1), error);
}
