/* Operators that pick elements axis by axis: Slice, Pad, Tile, Expand, nearest Resize, and Gather
 * along an axis. Each is a table of source positions per axis, made once. */
#include "core/checked.h"
#include "run/nd.h"
#include "run/ops/resample.h"

#include <math.h>
#include <string.h>

typedef struct index_state {
    qn_gather gather;
} index_state;

/* Per graph axis of the output: source positions (-1: fill), in one allocation. */
typedef struct tables {
    int64_t *storage;
    int64_t *axis[QN_MAX_RANK];
    int64_t in_dims[QN_MAX_RANK], out_dims[QN_MAX_RANK];
    size_t rank;
} tables;

static qn_status tables_make(const qn_plan *plan, const qn_step *step, tables *t, qn_error *error)
{
    const qn_tensor *const x = qn__step_input(step, 0);
    const qn_tensor *const y = step->node->outputs[0];
    if (x == NULL || x->rank > y->rank || x->type.dtype != y->type.dtype)
        return qn__step_fail(step, error, QN_CORRUPT, "input and output do not fit");
    *t = (tables){.rank = y->rank};
    size_t total = 0;
    for (size_t i = 0; i < t->rank; i++) {
        const size_t missing = (size_t)(y->rank - x->rank);
        t->in_dims[i] = i < missing ? 1 : x->dims[i - missing].value;
        t->out_dims[i] = y->dims[i].value;
        /* a tensor without elements may have any other dimension */
        if (!qn_add_size(&total, total, (size_t)t->out_dims[i]) ||
            total > qn__plan_context(plan)->limits.tensor_bytes)
            return qn__step_fail(step, error, QN_LIMIT,
                                 "axis %zu of %lld elements is above the limit of a tensor", i,
                                 (long long)t->out_dims[i]);
    }
    t->storage = qn__calloc(qn__plan_context(plan), total + 1, sizeof(int64_t));
    if (t->storage == NULL)
        return QN_NOMEM(error);
    int64_t *next = t->storage;
    for (size_t i = 0; i < t->rank; i++) {
        t->axis[i] = next;
        next += t->out_dims[i];
        for (int64_t k = 0; k < t->out_dims[i]; k++)
            t->axis[i][k] = k;
    }
    return QN_OK;
}

/* Positions become offsets in memory order; the state is made; the tables are freed. */
static qn_status tables_finish(const qn_plan *plan, qn_step *step, tables *t, const void *fill,
                               qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const bool same_rank = step->node->inputs[0]->rank == t->rank;
    qn_status status = QN_OK;
    if (!same_rank)
        step->in_layout[0] = QN_LAYOUT_ROW_MAJOR;
    for (uint32_t i = 1; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    const qn_layout layout = step->in_layout[0];
    step->out_layout[0] = layout;
    int64_t strides[QN_MAX_RANK], dims[QN_MAX_RANK] = {1};
    const int64_t *maps[QN_MAX_RANK];
    size_t order[QN_MAX_RANK];
    static const int64_t origin[1] = {0};
    index_state *state = NULL;
    qn__layout_strides(t->rank, t->in_dims, layout, strides);
    qn__layout_order(t->rank, layout, order);
    maps[0] = origin;
    for (size_t i = 0; i < t->rank; i++) {
        int64_t *const map = t->axis[order[i]];
        dims[i] = t->out_dims[order[i]];
        maps[i] = map;
        for (int64_t k = 0; k < dims[i]; k++) {
            if (map[k] >= t->in_dims[order[i]]) {
                status = qn__step_fail(step, error, QN_CORRUPT, "reads outside its input");
                goto done;
            }
            map[k] = map[k] < 0 ? -1 : map[k] * strides[order[i]];
        }
    }
    state = qn__calloc(ctx, 1, sizeof(*state));
    if (state == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    status = qn__gather_create(ctx, &state->gather, t->rank == 0 ? 1 : t->rank, dims, maps,
                               qn__dtype_bits(step->node->inputs[0]->type.dtype) / 8, fill, error);
    if (status == QN_OK)
        step->state = state;
    else
        qn__free(ctx, state);
done:
    qn__free(ctx, t->storage);
    return status;
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const index_state *const state = step->state;
    qn__gather_run(env->pool, &state->gather, out[0].data, in[0].data);
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    index_state *const state = step->state;
    if (state != NULL)
        qn__gather_free(ctx, &state->gather);
    qn__free(ctx, state);
    step->state = NULL;
}

/* --- Slice ----------------------------------------------------------------------------------- */
static int64_t clamp_index(int64_t value, int64_t lo, int64_t hi)
{
    return value < lo ? lo : value > hi ? hi : value;
}

static qn_status slice_axis(const qn_step *step, tables *t, int64_t axis, int64_t start,
                            int64_t end, int64_t by, qn_error *error)
{
    axis += axis < 0 ? (int64_t)t->rank : 0;
    if (axis < 0 || axis >= (int64_t)t->rank || by == 0 || by == INT64_MIN)
        return qn__step_fail(step, error, QN_CORRUPT, "axis or step out of range");
    const int64_t dim = t->in_dims[axis];
    start += start < 0 ? dim : 0;
    end += end < 0 ? dim : 0;
    start = by > 0 ? clamp_index(start, 0, dim) : clamp_index(start, 0, dim - 1);
    end = by > 0 ? clamp_index(end, 0, dim) : clamp_index(end, -1, dim - 1);
    int64_t count = 0;
    if (by > 0 && end > start)
        count = (end - start - 1) / by + 1;
    else if (by < 0 && start > end)
        count = (start - end - 1) / -by + 1;
    if (count != t->out_dims[axis])
        return qn__step_fail(step, error, QN_CORRUPT, "axis %lld has %lld elements, not %lld",
                             (long long)axis, (long long)count, (long long)t->out_dims[axis]);
    for (int64_t i = 0; i < count; i++)
        t->axis[axis][i] = start + i * by;
    return QN_OK;
}

static qn_status prepare_slice(const qn_plan *plan, qn_step *step, qn_error *error)
{
    static const char *const NAMES[4] = {"starts", "ends", "axes", "steps"};
    const qn_context *const ctx = qn__plan_context(plan);
    int64_t *lists[4] = {NULL};
    size_t counts[4] = {0};
    tables t = {0};
    qn_status status = QN_OK;
    for (uint32_t i = 0; i < 4 && status == QN_OK; i++)
        status = qn__step_ints_param(plan, step, i + 1, NAMES[i], &lists[i], &counts[i], error);
    if (status == QN_OK && (lists[0] == NULL || counts[1] != counts[0] ||
                            (lists[2] != NULL && counts[2] != counts[0]) ||
                            (lists[3] != NULL && counts[3] != counts[0])))
        status = qn__step_fail(step, error, QN_CORRUPT, "lists of different lengths");
    if (status == QN_OK)
        status = tables_make(plan, step, &t, error);
    for (size_t i = 0; status == QN_OK && i < counts[0]; i++)
        status = slice_axis(step, &t, lists[2] != NULL ? lists[2][i] : (int64_t)i, lists[0][i],
                            lists[1][i], lists[3] != NULL ? lists[3][i] : 1, error);
    for (size_t i = 0; i < 4; i++)
        qn__free(ctx, lists[i]);
    if (status == QN_OK)
        return tables_finish(plan, step, &t, NULL, error);
    qn__free(ctx, t.storage);
    return status;
}

/* --- Pad ------------------------------------------------------------------------------------- */
static int64_t pad_source(int64_t at, int64_t dim, char mode)
{
    if (at >= 0 && at < dim)
        return at;
    if (mode == 'c' || dim == 0)
        return -1;
    if (mode == 'e')
        return at < 0 ? 0 : dim - 1;
    if (mode == 'w')
        return ((at % dim) + dim) % dim;
    if (dim == 1)
        return 0;
    const int64_t period = 2 * (dim - 1);
    at = ((at % period) + period) % period;
    return at < dim ? at : period - at;
}

static void pad_fill(const qn_tensor *x, float value, uint8_t fill[8])
{
    qn_tensor scalar = *x;
    scalar.rank = 0;
    qn_view view = {.tensor = &scalar, .count = 1, .data = fill};
    qn__view_from_f32(&view, &value);
}

static qn_status pad_value(const qn_plan *plan, const qn_step *step, uint8_t fill[8],
                           qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0];
    float *value;
    size_t count;
    memset(fill, 0, 8);
    QN_TRY(qn__step_const_f32(plan, step, 2, &value, &count, error));
    pad_fill(x, count > 0 ? value[0] : qn__attr_float(step->node, "value", 0.0f), fill);
    qn__free(qn__plan_context(plan), value);
    return QN_OK;
}

static qn_status pad_tables(const qn_step *step, tables *t, const int64_t *pads, size_t n_pads,
                            const int64_t *axes, size_t n_axes, char mode, qn_error *error)
{
    const size_t n = axes != NULL ? n_axes : t->rank;
    if (n_pads != 2 * n)
        return qn__step_fail(step, error, QN_CORRUPT, "%zu pads for %zu axes", n_pads, n);
    for (size_t i = 0; i < n; i++) {
        int64_t axis = axes != NULL ? axes[i] : (int64_t)i;
        axis += axis < 0 ? (int64_t)t->rank : 0;
        if (axis < 0 || axis >= (int64_t)t->rank || pads[i] < -(1LL << 40) || pads[i] > 1LL << 40)
            return qn__step_fail(step, error, QN_CORRUPT, "axis or pad out of range");
        for (int64_t k = 0; k < t->out_dims[axis]; k++)
            t->axis[axis][k] = pad_source(k - pads[i], t->in_dims[axis], mode);
    }
    return QN_OK;
}

static qn_status prepare_pad(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const char *const mode = qn__attr_string(step->node, "mode", "constant");
    int64_t *pads = NULL, *axes = NULL;
    size_t n_pads = 0, n_axes = 0;
    uint8_t fill[8];
    tables t = {0};
    if (strcmp(mode, "constant") != 0 && strcmp(mode, "edge") != 0 &&
        strcmp(mode, "reflect") != 0 && strcmp(mode, "wrap") != 0)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "mode \"%s\"", mode);
    qn_status status = qn__step_ints_param(plan, step, 1, "pads", &pads, &n_pads, error);
    if (status == QN_OK)
        status = qn__step_ints_param(plan, step, 3, "axes", &axes, &n_axes, error);
    if (status == QN_OK)
        status = tables_make(plan, step, &t, error);
    if (status == QN_OK)
        status = pad_tables(step, &t, pads, n_pads, axes, n_axes, mode[0], error);
    if (status == QN_OK)
        status = pad_value(plan, step, fill, error);
    qn__free(ctx, pads);
    qn__free(ctx, axes);
    if (status == QN_OK)
        return tables_finish(plan, step, &t, fill, error);
    qn__free(ctx, t.storage);
    return status;
}

/* --- Tile, Expand ---------------------------------------------------------------------------- */
static qn_status prepare_repeat(const qn_plan *plan, qn_step *step, qn_error *error)
{
    tables t = {0};
    QN_TRY(tables_make(plan, step, &t, error));
    for (size_t i = 0; i < t.rank; i++) {
        if (t.in_dims[i] == 0 ||
            (step->node->op == QN_OP_EXPAND && t.in_dims[i] != 1 &&
             t.in_dims[i] != t.out_dims[i]) ||
            t.out_dims[i] % t.in_dims[i] != 0) {
            qn__free(qn__plan_context(plan), t.storage);
            return qn__step_fail(step, error, QN_CORRUPT, "axis %zu: %lld elements become %lld", i,
                                 (long long)t.in_dims[i], (long long)t.out_dims[i]);
        }
        for (int64_t k = 0; k < t.out_dims[i]; k++)
            t.axis[i][k] = k % t.in_dims[i];
    }
    return tables_finish(plan, step, &t, NULL, error);
}

/* --- nearest Resize -------------------------------------------------------------------------- */
qn_status qn__prepare_resize_nearest(const qn_plan *plan, qn_step *step, const qn_resize *resize,
                                     qn_error *error)
{
    tables t = {0};
    QN_TRY(tables_make(plan, step, &t, error));
    for (size_t i = 0; i < t.rank; i++)
        for (int64_t k = 0; k < t.out_dims[i] && resize->changes[i]; k++)
            t.axis[i][k] = qn__resize_nearest(resize, i, k);
    return tables_finish(plan, step, &t, NULL, error);
}

/* --- Gather ---------------------------------------------------------------------------------- */
static qn_status gather_axis(const qn_step *step, size_t *axis, qn_error *error)
{
    const qn_tensor *const x = qn__step_input(step, 0);
    const qn_tensor *const index = qn__step_input(step, 1);
    if (x == NULL || index == NULL || x->rank == 0 || index->type.kind == QN_TYPE_QUANT ||
        (index->type.dtype != QN_DTYPE_I64 && index->type.dtype != QN_DTYPE_I32))
        return qn__step_fail(step, error, QN_CORRUPT, "needs data and integer indices");
    int64_t a = qn__attr_int(step->node, "axis", 0);
    a += a < 0 ? x->rank : 0;
    if (a < 0 || a >= x->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "axis out of range");
    *axis = (size_t)a;
    return QN_OK;
}

/* Rank-1 constant indices keep the rank: a table, and any layout. */
static qn_status prepare_gather(const qn_plan *plan, qn_step *step, qn_error *error)
{
    size_t axis;
    QN_TRY(gather_axis(step, &axis, error));
    const qn_tensor *const x = step->node->inputs[0], *const index = step->node->inputs[1];
    const size_t expected =
        qn__tensor_elements(index) *
        (qn__tensor_elements(x) / (x->dims[axis].value > 0 ? (size_t)x->dims[axis].value : 1));
    if (qn__tensor_elements(step->node->outputs[0]) != expected)
        return qn__step_fail(step, error, QN_CORRUPT, "output shape does not fit");
    if (index->constant == NULL || index->rank != 1) {
        step->in_layout[0] = step->in_layout[1] = QN_LAYOUT_ROW_MAJOR;
        return QN_OK;
    }
    tables t = {0};
    int64_t *indices = NULL;
    size_t count;
    QN_TRY(qn__step_const_ints(plan, step, 1, &indices, &count, error));
    qn_status status = tables_make(plan, step, &t, error);
    for (size_t i = 0; status == QN_OK && i < count; i++) {
        const int64_t at = indices[i] < 0 ? indices[i] + t.in_dims[axis] : indices[i];
        if (at < 0 || at >= t.in_dims[axis])
            status = qn__step_fail(step, error, QN_CORRUPT, "index %lld of %lld",
                                   (long long)indices[i], (long long)t.in_dims[axis]);
        else
            t.axis[axis][i] = at;
    }
    qn__free(qn__plan_context(plan), indices);
    if (status == QN_OK)
        return tables_finish(plan, step, &t, NULL, error);
    qn__free(qn__plan_context(plan), t.storage);
    return status;
}

static qn_status run_gather(const qn_step *step, const qn_run_env *env, const qn_view *in,
                            const qn_view *out, qn_error *error)
{
    if (step->state != NULL)
        return run(step, env, in, out, error);
    size_t axis;
    QN_TRY(gather_axis(step, &axis, error));
    const qn_axis_view v = qn__axis_view(in[0].rank, in[0].dims, QN_LAYOUT_ROW_MAJOR, axis);
    const size_t bytes = v.inner * (qn__dtype_bits(in[0].tensor->type.dtype) / 8);
    const uint8_t *const src = in[0].data;
    uint8_t *dst = out[0].data;
    for (size_t o = 0; o < v.outer; o++) {
        for (size_t i = 0; i < in[1].count; i++, dst += bytes) {
            int64_t at = qn__load_int(in[1].data, in[1].tensor->type.dtype, i);
            at += at < 0 ? (int64_t)v.axis : 0;
            if (at < 0 || at >= (int64_t)v.axis)
                return qn__step_fail(step, error, QN_CORRUPT, "index %lld of %zu", (long long)at,
                                     v.axis);
            memcpy(dst, src + (o * v.axis + (size_t)at) * bytes, bytes);
        }
    }
    return QN_OK;
}

const qn_run_op qn__op_slice = {QN_OP_SLICE, prepare_slice, run, release};
const qn_run_op qn__op_pad = {QN_OP_PAD, prepare_pad, run, release};
const qn_run_op qn__op_repeat = {QN_OP_NONE, prepare_repeat, run, release};
const qn_run_op qn__op_gather = {QN_OP_GATHER, prepare_gather, run_gather, release};
void qn__release_index(const qn_context *ctx, qn_step *step)
{
    release(ctx, step);
}
qn_status qn__run_index(const qn_step *step, const qn_run_env *env, const qn_view *in,
                        const qn_view *out, qn_error *error)
{
    return run(step, env, in, out, error);
}
