/* Operators that MNN's runtime no longer has, by ones that it has: EltwiseInt8 of 2019 adds
 * integers with scales of their own; its parts still exist. */
#include "format/mnn/mnn_format.h"

enum { PARTS = 4 };

typedef struct upgrade {
    qn_fb_document *d;
    qn_fb_object **ops; /* of the new list */
    size_t n_ops;
    const char **names; /* of tensors */
    size_t n_names;
} upgrade;

static int32_t new_tensor(upgrade *u, const char *op, const char *what)
{
    const char *name = qn__arena_printf(&u->d->arena, "%s:%s", op, what);
    u->names[u->n_names] = name ? name : "";
    return (int32_t)u->n_names++;
}

static bool add_op(upgrade *u, int64_t type, const char *name, qn_fb_object *main,
                   const int32_t *inputs, size_t n_inputs, int32_t output)
{
    qn_fb_document *d = u->d;
    qn_fb_object *op = qn__fb_new(d, QN_MNN_REC_Op);
    if (!op || !main || !name ||
        !qn__fb_set_vector(d, op, QN_MNN_Op_inputIndexes, inputs, n_inputs) ||
        !qn__fb_set_vector(d, op, QN_MNN_Op_outputIndexes, &output, 1) ||
        !qn__fb_set_string(d, op, QN_MNN_Op_name, name))
        return false;
    qn__fb_set_int(op, QN_MNN_Op_type, type);
    qn__fb_set_int(op, QN_MNN_Op_defaultDimentionFormat, QN_MNN_MNN_DATA_FORMAT_NC4HW4);
    qn__fb_set_union(d, op, QN_MNN_Op_main, main);
    u->ops[u->n_ops++] = op;
    return true;
}

static bool add_float(upgrade *u, const char *op, const char *what, qn_fb_object *quan,
                      int32_t from, int32_t *to)
{
    *to = new_tensor(u, op, what);
    return add_op(u, QN_MNN_OpType_Int8ToFloat, u->names[*to], quan, &from, 1, *to);
}

/* Both inputs as floats, their sum, its integers. */
static qn_status split_sum(upgrade *u, qn_fb_object *op, qn_error *error)
{
    qn_fb_document *d = u->d;
    const char *name = qn__fb_string(op, QN_MNN_Op_name);
    const qn_fb_object *main = qn__fb_table(op, QN_MNN_Op_main);
    size_t n_in = 0, n_out = 0;
    (void)qn__fb_bytes(op, QN_MNN_Op_inputIndexes, &n_in);
    (void)qn__fb_bytes(op, QN_MNN_Op_outputIndexes, &n_out);
    qn_fb_object *quan[3] = {NULL, NULL, NULL};
    if (main && main->record == QN_MNN_REC_EltwiseInt8) {
        quan[0] = qn__fb_table(main, QN_MNN_EltwiseInt8_inputQuan0);
        quan[1] = qn__fb_table(main, QN_MNN_EltwiseInt8_inputQuan1);
        quan[2] = qn__fb_table(main, QN_MNN_EltwiseInt8_outputQuan);
    }
    QN_FAIL_IF(n_in != 2 || n_out != 1 || !quan[0] || !quan[1] || !quan[2], error, QN_CORRUPT,
               "operator \"%s\" EltwiseInt8: has no scales", name ? name : "");
    name = name ? name : "EltwiseInt8";
    int32_t x[2];
    const int32_t out = (int32_t)qn__fb_int_at(d, op, QN_MNN_Op_outputIndexes, 0);
    qn_fb_object *add = qn__fb_new(d, QN_MNN_REC_BinaryOp);
    if (!add)
        return QN_NOMEM(error);
    qn__fb_set_int(add, QN_MNN_BinaryOp_opType, QN_MNN_BinaryOpOperation_ADD);
    qn__fb_set_int(add, QN_MNN_BinaryOp_T, QN_MNN_DataType_DT_FLOAT);
    for (size_t i = 0; i < 2; i++)
        if (!add_float(u, name, i == 0 ? "input0" : "input1", qn__fb_copy(d, quan[i]),
                       (int32_t)qn__fb_int_at(d, op, QN_MNN_Op_inputIndexes, i), &x[i]))
            return QN_NOMEM(error);
    const int32_t sum = new_tensor(u, name, "sum");
    if (!add_op(u, QN_MNN_OpType_BinaryOp, u->names[sum], add, x, 2, sum) ||
        !add_op(u, QN_MNN_OpType_FloatToInt8, name, qn__fb_copy(d, quan[2]), &sum, 1, out))
        return QN_NOMEM(error);
    return QN_OK;
}

qn_status qn__mnn_upgrade(qn_fb_document *d, bool *changed, qn_error *error)
{
    size_t n_ops = 0, n_old = 0;
    const qn_fb_value *names = &d->root->values[QN_MNN_Net_tensorName];
    const size_t n_names = names->present ? names->count : 0;
    qn_fb_object **ops = qn__fb_tables(d->root, QN_MNN_Net_oplists, &n_ops);
    for (size_t i = 0; i < n_ops; i++)
        n_old += qn__fb_int(d, ops[i], QN_MNN_Op_type) == QN_MNN_OpType_EltwiseInt8;
    *changed = n_old > 0;
    if (n_old == 0)
        return QN_OK;
    QN_FAIL_IF(n_names > (size_t)INT32_MAX - PARTS * n_old, error, QN_UNSUPPORTED,
               "%zu tensors are too many", n_names);
    upgrade u = {.d = d, .n_names = n_names};
    u.ops = qn__arena_calloc(&d->arena, n_ops + PARTS * n_old, sizeof(*u.ops));
    u.names = qn__arena_calloc(&d->arena, n_names + PARTS * n_old, sizeof(*u.names));
    if (!u.ops || !u.names)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n_names; i++) {
        const char *name = qn__fb_string_at(d->root, QN_MNN_Net_tensorName, i);
        u.names[i] = name ? name : "";
    }
    for (size_t i = 0; i < n_ops; i++)
        if (qn__fb_int(d, ops[i], QN_MNN_Op_type) == QN_MNN_OpType_EltwiseInt8)
            QN_TRY(split_sum(&u, ops[i], error));
        else
            u.ops[u.n_ops++] = ops[i];
    if (!qn__fb_set_tables(d, d->root, QN_MNN_Net_oplists, u.ops, u.n_ops) ||
        !qn__fb_set_strings(d, d->root, QN_MNN_Net_tensorName, u.names, u.n_names))
        return QN_NOMEM(error);
    if (qn__fb_has(d->root, QN_MNN_Net_tensorNumber))
        qn__fb_set_int(d->root, QN_MNN_Net_tensorNumber, (int64_t)u.n_names);
    return QN_OK;
}
