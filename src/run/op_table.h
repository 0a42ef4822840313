/* The two tables of a library's executable operators, made from ops.def. Included once, by a file
 * that says with QN_TABLE_FOLDED whether operators that planning folds away are among them, and the
 * larger ones of several. */
#include "run/op.h"

#define QN_RUN_OP(id, impl) extern const qn_run_op impl;
#define QN_RUN_QOP(id, impl) extern const qn_run_op impl;
#define QN_RUN_FOLDED(id, impl) extern const qn_run_op impl;
#define QN_RUN_QFOLDED(id, impl) extern const qn_run_op impl;
#define QN_RUN_QLARGE(id, impl, small) extern const qn_run_op impl, small;
#include "run/ops.def"
#undef QN_RUN_OP
#undef QN_RUN_QOP
#undef QN_RUN_FOLDED
#undef QN_RUN_QFOLDED
#undef QN_RUN_QLARGE

#if QN_TABLE_FOLDED
#define QN_FOLDED_ROW(id, impl) [QN_OP_##id] = &impl,
#define QN_LARGE_ROW(id, impl, small) [QN_OP_##id] = &impl,
#else
#define QN_FOLDED_ROW(id, impl)
#define QN_LARGE_ROW(id, impl, small) [QN_OP_##id] = &small,
#endif

static const qn_run_op *const RUN_OPS[QN_OP_COUNT] = {
#define QN_RUN_OP(id, impl) [QN_OP_##id] = &impl,
#define QN_RUN_QOP(id, impl)
#define QN_RUN_FOLDED(id, impl) QN_FOLDED_ROW(id, impl)
#define QN_RUN_QFOLDED(id, impl)
#define QN_RUN_QLARGE(id, impl, small)
#include "run/ops.def"
#undef QN_RUN_OP
#undef QN_RUN_QOP
#undef QN_RUN_FOLDED
#undef QN_RUN_QFOLDED
#undef QN_RUN_QLARGE
};
static const qn_run_op *const RUN_QOPS[QN_OP_COUNT] = {
#define QN_RUN_OP(id, impl)
#define QN_RUN_QOP(id, impl) [QN_OP_##id] = &impl,
#define QN_RUN_FOLDED(id, impl)
#define QN_RUN_QFOLDED(id, impl) QN_FOLDED_ROW(id, impl)
#define QN_RUN_QLARGE(id, impl, small) QN_LARGE_ROW(id, impl, small)
#include "run/ops.def"
#undef QN_RUN_OP
#undef QN_RUN_QOP
#undef QN_RUN_FOLDED
#undef QN_RUN_QFOLDED
#undef QN_RUN_QLARGE
};
#undef QN_FOLDED_ROW
#undef QN_LARGE_ROW

const qn_run_op *qn__run_op_find(qn_op op)
{
    return (unsigned)op < QN_OP_COUNT ? RUN_OPS[op] : NULL;
}

const qn_run_op *qn__run_qop_find(qn_op op)
{
    return (unsigned)op < QN_OP_COUNT ? RUN_QOPS[op] : NULL;
}

#if QN_TABLE_FOLDED
extern const qn_run_op qn__op_qconv_simulated, qn__op_qconv_transpose_simulated,
    qn__op_qgemm_simulated;
#endif

const qn_run_op *qn__run_simulated_find(qn_op op)
{
#if QN_TABLE_FOLDED
    return op == QN_OP_CONV             ? &qn__op_qconv_simulated
           : op == QN_OP_CONV_TRANSPOSE ? &qn__op_qconv_transpose_simulated
                                        : &qn__op_qgemm_simulated;
#else
    (void)op;
    return NULL;
#endif
}
