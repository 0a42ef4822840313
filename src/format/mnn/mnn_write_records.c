/* Records of tensors that the graph does not speak of, and those that keep MNN from int8
 * (mnn_guard.h). Two of its int8 kernels must not be used: the average is cut down instead of
 * rounded, and on x86 the maximum compares the bytes as if they had no sign, so that level -1 is
 * above level 127 (measured). */
#include "format/mnn/mnn_write.h"

static bool is_move(int64_t type)
{
    return qn__mnn_move(type) == QN_MNN_MOVE_ALL;
}

static bool is_choice(int64_t type)
{
    return qn__mnn_move(type) == QN_MNN_MOVE_SOME;
}

void qn__mnn_hand_records_on(qn_mnn_writer *w)
{
    const size_t n = w->source->n_ops;
    for (size_t i = 0; i < 2 * n; i++) { /* forwards, then backwards */
        const size_t op = i < n ? i : 2 * n - 1 - i;
        const int64_t type = qn__mnn_written_type(w, op);
        const int64_t in = qn__mnn_op_input(w, op, 0), out = qn__mnn_op_output(w, op, 0);
        const bool same = is_move(type) || type == QN_MNN_OpType_Identity ||
                          type == QN_MNN_OpType_Dropout || type == QN_MNN_OpType_Copy;
        if (w->ops[op].dropped || w->ops[op].n_nodes > 0 || !same || in < 0 || out < 0)
            continue;
        const int64_t from = i < n ? in : out, to = i < n ? out : in;
        if (!w->in_graph[to] && w->records[from].known && !w->records[to].known)
            w->records[to] = w->records[from];
    }
}

/* Operators that MNN hands records over; those of a range of their own need not have the same on
 * both sides. */
static qn_mnn_passing passing(int64_t type)
{
    if (is_move(type))
        return QN_MNN_PASSES_VALUES;
    return type == QN_MNN_OpType_Pooling || type == QN_MNN_OpType_Pooling3D ||
                   type == QN_MNN_OpType_ReLU || type == QN_MNN_OpType_ReLU6 || is_choice(type)
               ? QN_MNN_PASSES_RANGE
               : QN_MNN_PASSES_NONE;
}

void qn__mnn_guard_records(qn_mnn_writer *w)
{
    const size_t n = w->source->n_ops;
    for (size_t i = 0; i < 2 * n; i++) {
        const size_t op = i < n ? n - 1 - i : i - n;
        const int64_t in = qn__mnn_op_input(w, op, 0), out = qn__mnn_op_output(w, op, 0);
        if (w->ops[op].dropped || in < 0 || out < 0)
            continue;
        const int64_t type = qn__mnn_written_type(w, op);
        const bool pool = type == QN_MNN_OpType_Pooling || type == QN_MNN_OpType_Pooling3D;
        if (i < n)
            qn__mnn_guard_backwards(passing(type), &w->records[in], &w->records[out]);
        else
            qn__mnn_guard_forwards(passing(type), !pool, &w->records[in], &w->records[out]);
    }
}
