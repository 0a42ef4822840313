/* Records of tensors that the graph does not speak of, and records that keep MNN from running
 * operators in int8.
 *
 * MNN 3.6.1 hands the record of a tensor over Raster (what moves become), ReLU and Pooling to the
 * side that has none, and runs these in int8 when both sides have equal parameters. Two of its int8
 * kernels must not be used: the average is cut down instead of rounded, and on x86 the maximum
 * compares the bytes as if they had no sign, so that level -1 is above level 127 (measured). And
 * what feeds nothing but outputs should keep the precision of float. A record that differs in the
 * last digit of the scale prevents all of it: such an operator runs in float, and the levels of the
 * tensors stay what they are. */
#include <math.h>

#include "format/mnn/mnn_write.h"

enum { NEAR_STEPS = 64 }; /* scales so many last digits apart came from one */

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

static bool equal(const qn_mnn_record *a, const qn_mnn_record *b)
{
    return a->scale == b->scale && a->zero == b->zero;
}

static bool nearly_equal(const qn_mnn_record *a, const qn_mnn_record *b)
{
    return a->zero == b->zero &&
           fabsf(a->scale - b->scale) <= (float)NEAR_STEPS * 6e-8f * fabsf(a->scale);
}

static qn_mnn_record apart_from(const qn_mnn_record *r)
{
    qn_mnn_record other = *r;
    other.scale = nextafterf(r->scale, INFINITY);
    return other;
}

/* Operators that MNN hands records over though their two sides need not have the same range. */
static bool changes_range(int64_t type)
{
    return type == QN_MNN_OpType_Pooling || type == QN_MNN_OpType_Pooling3D ||
           type == QN_MNN_OpType_ReLU || type == QN_MNN_OpType_ReLU6 || is_choice(type);
}

/* From a tensor with a record back to float ones: the record would limit what they hold. */
static void guard_backwards(qn_mnn_writer *w, size_t op, qn_mnn_record *x, const qn_mnn_record *y)
{
    const int64_t type = qn__mnn_written_type(w, op);
    if (x->known || !y->known)
        return;
    if (changes_range(type))
        *x = apart_from(y);
    else if (is_move(type))
        *x = *y; /* as MNN does: moved or not, the same values */
}

static void guard_forwards(qn_mnn_writer *w, size_t op, const qn_mnn_record *x, qn_mnn_record *y)
{
    const int64_t type = qn__mnn_written_type(w, op);
    const bool pool = type == QN_MNN_OpType_Pooling || type == QN_MNN_OpType_Pooling3D;
    if (!x->known || !(is_move(type) || changes_range(type)))
        return;
    if (!y->known || (pool && equal(x, y)))
        *y = apart_from(x);
    else if ((is_move(type) || is_choice(type)) && nearly_equal(x, y))
        y->scale = x->scale; /* behind a pool the levels go on with the pool's record */
}

void qn__mnn_guard_records(qn_mnn_writer *w)
{
    const size_t n = w->source->n_ops;
    for (size_t i = 0; i < 2 * n; i++) {
        const size_t op = i < n ? n - 1 - i : i - n;
        const int64_t in = qn__mnn_op_input(w, op, 0), out = qn__mnn_op_output(w, op, 0);
        if (w->ops[op].dropped || in < 0 || out < 0)
            continue;
        if (i < n)
            guard_backwards(w, op, &w->records[in], &w->records[out]);
        else
            guard_forwards(w, op, &w->records[in], &w->records[out]);
    }
}
