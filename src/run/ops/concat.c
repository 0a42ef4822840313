/* Concat and Split along any axis in either layout. Bytes whose scales are not the whole's go
 * through a table for each part. */
#include "run/nd.h"
#include "run/ops/qweights.h"

#include <string.h>

static bool read_axis(const qn_node *node, size_t rank, size_t *axis)
{
    int64_t a = qn__attr_int(node, "axis", 0);
    a += a < 0 ? (int64_t)rank : 0;
    if (a < 0 || a >= (int64_t)rank)
        return false;
    *axis = (size_t)a;
    return true;
}

typedef struct part_table {
    uint8_t bytes[256]; /* by the part's byte */
    bool same;          /* every byte stays what it is */
} part_table;

/* parts: tensors that together make `whole` along the axis, of any type where `any`. */
static __attribute__((cold)) qn_status check_parts(const qn_step *step, const qn_tensor *whole,
                                                   qn_tensor *const *parts, uint32_t n, size_t axis,
                                                   bool any, qn_error *error)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        bool fits = parts[i] != NULL && parts[i]->rank == whole->rank &&
                    (any || parts[i]->type.dtype == whole->type.dtype);
        for (size_t d = 0; d < whole->rank && fits; d++)
            fits = d == axis || parts[i]->dims[d].value == whole->dims[d].value;
        if (!fits)
            return qn__step_fail(step, error, QN_CORRUPT, "part %u does not fit", (unsigned)i);
        sum += parts[i]->dims[axis].value;
    }
    if (sum != whole->dims[axis].value)
        return qn__step_fail(step, error, QN_CORRUPT, "parts have %lld of %lld along axis %zu",
                             (long long)sum, (long long)whole->dims[axis].value, axis);
    return QN_OK;
}

static __attribute__((cold)) qn_status prepare_join(qn_step *step, bool any, qn_error *error)
{
    const qn_node *const node = step->node;
    size_t axis;
    if (!read_axis(node, node->outputs[0]->rank, &axis))
        return qn__step_fail(step, error, QN_CORRUPT, "axis out of range");
    QN_TRY(check_parts(step, node->outputs[0], node->inputs, node->n_inputs, axis, any, error));
    /* The layout that most of the bytes already have. */
    size_t last = 0, total = 0;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const size_t count = qn__tensor_elements(node->inputs[i]);
        total += count;
        last += step->in_layout[i] == QN_LAYOUT_CHANNELS_LAST ? count : 0;
    }
    const qn_layout layout = last * 2 > total ? QN_LAYOUT_CHANNELS_LAST : QN_LAYOUT_ROW_MAJOR;
    for (uint32_t i = 0; i < node->n_inputs; i++)
        step->in_layout[i] = layout;
    step->out_layout[0] = layout;
    step->joins = ~(uint64_t)0;
    step->join_axis = (uint8_t)axis;
    return QN_OK;
}

static __attribute__((cold)) qn_status prepare_concat(const qn_plan *plan, qn_step *step,
                                                      qn_error *error)
{
    (void)plan;
    return prepare_join(step, false, error);
}

/* Which checks that all are bytes. */
static __attribute__((cold)) qn_status make_tables(const qn_plan *plan, qn_step *step, void *state,
                                                   qn_error *error)
{
    part_table *const tables = state;
    const qn_node *const node = step->node;
    qn_qparams to, from;
    QN_TRY(qn__qparams_read(step, node->outputs[0], &to, error));
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        QN_TRY(qn__qparams_read(step, node->inputs[i], &from, error));
        if (!qn__table_requantize(tables[i].bytes, &from, &to, qn__plan_requantize(plan)))
            return qn__qfixed(plan, step, (double)from.scale / (double)to.scale, NULL, error);
        tables[i].same = true;
        for (size_t k = 0; k < 256; k++)
            tables[i].same &= tables[i].bytes[k] == k;
        if (!tables[i].same)
            step->joins &= ~((uint64_t)1 << i);
    }
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

static __attribute__((cold)) qn_status prepare_qconcat(const qn_plan *plan, qn_step *step,
                                                       qn_error *error)
{
    QN_TRY(prepare_join(step, true, error));
    return qn__step_make_state(plan, step, step->node->n_inputs * sizeof(part_table), make_tables,
                               release, error);
}

static __attribute__((cold)) qn_status prepare_split(const qn_plan *plan, qn_step *step,
                                                     qn_error *error)
{
    (void)plan;
    const qn_node *const node = step->node;
    const qn_tensor *const x = qn__step_input(step, 0);
    size_t axis;
    if (x == NULL || !read_axis(node, x->rank, &axis))
        return qn__step_fail(step, error, QN_CORRUPT, "axis out of range");
    QN_TRY(check_parts(step, x, node->outputs, node->n_outputs, axis, false, error));
    for (uint32_t i = 0; i < node->n_outputs; i++)
        step->out_layout[i] = step->in_layout[0];
    if (node->n_inputs > 1)
        step->in_layout[1] = QN_LAYOUT_ROW_MAJOR;
    return QN_OK;
}

typedef struct parts_job {
    const qn_view *parts;
    const part_table *tables; /* NULL: nothing changes */
    qn_q8_table_fn table;
    uint32_t n;
    uint8_t *whole;
    size_t axis, row_bytes, elem_bytes;
    bool split;
} parts_job;

/* n runs of `bytes`, a constant after inlining where they are short. */
static inline __attribute__((always_inline)) void copy_runs(uint8_t *to, size_t to_step,
                                                            const uint8_t *from, size_t from_step,
                                                            size_t n, const size_t bytes)
{
    for (; n > 0; n--, to += to_step, from += from_step)
        memcpy(to, from, bytes);
}

static void move_rows(void *arg, size_t begin, size_t end)
{
    const parts_job *const job = arg;
    size_t at = 0;
    for (uint32_t i = 0; i < job->n; i++) {
        const qn_view *const part = &job->parts[i];
        const qn_axis_view v = qn__axis_view(part->rank, part->dims, part->layout, job->axis);
        const size_t bytes = v.axis * v.inner * job->elem_bytes;
        uint8_t *const whole = job->whole + at;
        at += bytes;
        if (bytes == 0 || part->data == whole) /* a part of Concat may lie in its place */
            continue;
        uint8_t *const mine = (uint8_t *)part->data + begin * bytes;
        uint8_t *const row = whole + begin * job->row_bytes;
        uint8_t *const to = job->split ? mine : row, *const from = job->split ? row : mine;
        const size_t to_step = job->split ? bytes : job->row_bytes;
        const size_t from_step = job->split ? job->row_bytes : bytes;
        if (job->tables != NULL && !job->tables[i].same)
            for (size_t k = 0; k < end - begin; k++)
                job->table(job->tables[i].bytes, mine + k * bytes, row + k * job->row_bytes, bytes);
        else if (bytes == 4)
            copy_runs(to, to_step, from, from_step, end - begin, 4);
        else if (bytes == 8)
            copy_runs(to, to_step, from, from_step, end - begin, 8);
        else
            copy_runs(to, to_step, from, from_step, end - begin, bytes);
    }
}

static void run_parts(const qn_step *step, qn_pool *pool, const qn_view *whole,
                      const qn_view *parts, uint32_t n, bool split)
{
    parts_job job = {.parts = parts,
                     .tables = step->state,
                     .table = step->kernels->q8_table.fn,
                     .n = n,
                     .whole = whole->data,
                     .split = split};
    read_axis(step->node, whole->rank, &job.axis);
    job.elem_bytes = qn__dtype_bits(whole->tensor->type.dtype) / 8;
    const qn_axis_view v = qn__axis_view(whole->rank, whole->dims, whole->layout, job.axis);
    job.row_bytes = v.axis * v.inner * job.elem_bytes;
    qn__parallel_ranges(pool, move_rows, &job, v.outer, job.row_bytes);
}

static qn_status run_concat(const qn_step *step, const qn_run_env *env, const qn_view *in,
                            const qn_view *out, qn_error *error)
{
    (void)error;
    run_parts(step, env->pool, &out[0], in, step->node->n_inputs, false);
    return QN_OK;
}

static qn_status run_split(const qn_step *step, const qn_run_env *env, const qn_view *in,
                           const qn_view *out, qn_error *error)
{
    (void)error;
    run_parts(step, env->pool, &in[0], out, step->node->n_outputs, true);
    return QN_OK;
}

const qn_run_op qn__op_concat = {QN_OP_CONCAT, prepare_concat, run_concat, NULL};
const qn_run_op qn__op_qconcat = {QN_OP_CONCAT, prepare_qconcat, run_concat, release};
const qn_run_op qn__op_split = {QN_OP_SPLIT, prepare_split, run_split, NULL};
