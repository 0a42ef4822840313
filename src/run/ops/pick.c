/* GatherElements and ScatterElements, GatherND and ScatterND: indices are read while running and
 * checked there. */
#include "run/nd.h"
#include "run/op.h"

#include <string.h>

typedef enum reduction { REPLACE = 0, ADD = 1, MUL = 2, MAX = 3, MIN = 4 } reduction;

static bool is_index(const qn_tensor *t)
{
    return t != NULL && t->type.kind == QN_TYPE_PLAIN &&
           (t->type.dtype == QN_DTYPE_I64 || t->type.dtype == QN_DTYPE_I32);
}

static int find_reduction(const qn_node *node)
{
    static const char *const NAMES[] = {"none", "add", "mul", "max", "min"};
    const char *const name = qn__attr_string(node, "reduction", "none");
    for (int i = 0; i < 5; i++)
        if (strcmp(NAMES[i], name) == 0)
            return i;
    return -1;
}

/* What all four need: data, integer indices, for the scattering ones updates like the data. */
static qn_status check(qn_step *step, bool scatters, qn_error *error)
{
    const qn_node *const node = step->node;
    const qn_tensor *const x = qn__step_input(step, 0), *const index = qn__step_input(step, 1);
    const qn_tensor *const updates = qn__step_input(step, 2);
    if (x == NULL || x->rank == 0 || !is_index(index) || (scatters && updates == NULL))
        return qn__step_fail(step, error, QN_CORRUPT, "needs data and integer indices");
    if (x->type.dtype != node->outputs[0]->type.dtype || qn__dtype_bits(x->type.dtype) < 8 ||
        (scatters && (updates->type.dtype != x->type.dtype || updates->type.kind == QN_TYPE_QUANT)))
        return qn__step_fail(step, error, QN_CORRUPT, "element types do not fit");
    const int how = find_reduction(node);
    if (how < 0 || (how != REPLACE && x->type.dtype != QN_DTYPE_F32 &&
                    x->type.dtype != QN_DTYPE_I64 && x->type.dtype != QN_DTYPE_I32))
        return qn__step_fail(step, error, QN_UNSUPPORTED, "reduction \"%s\" of %s",
                             qn__attr_string(node, "reduction", "none"),
                             qn__dtype_name(x->type.dtype));
    for (uint32_t i = 0; i < node->n_inputs && i < QN_STEP_MAX_IO; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    return QN_OK;
}

/* dst[i] = dst[i] (reduction) src[i], n elements */
static void combine(reduction how, qn_dtype dtype, void *dst, const void *src, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (dtype == QN_DTYPE_F32) {
            float *const d = (float *)dst + i;
            const float s = ((const float *)src)[i];
            *d = how == ADD                       ? *d + s
                 : how == MUL                     ? *d * s
                 : (how == MAX ? s > *d : s < *d) ? s
                                                  : *d;
            continue;
        }
        const int64_t d = qn__load_int(dst, dtype, i), s = qn__load_int(src, dtype, i);
        const int64_t r = how == ADD                     ? (int64_t)((uint64_t)d + (uint64_t)s)
                          : how == MUL                   ? (int64_t)((uint64_t)d * (uint64_t)s)
                          : (how == MAX ? s > d : s < d) ? s
                                                         : d;
        qn__store_int(dst, dtype, i, r);
    }
}

static void place(reduction how, qn_dtype dtype, uint8_t *dst, const uint8_t *src, size_t n)
{
    if (how == REPLACE)
        memcpy(dst, src, n * (qn__dtype_bits(dtype) / 8));
    else
        combine(how, dtype, dst, src, n);
}

static qn_status wrap(const qn_step *step, int64_t *at, int64_t dim, qn_error *error)
{
    if (*at < -dim || *at >= dim)
        return qn__step_fail(step, error, QN_CORRUPT, "index %lld of %lld", (long long)*at,
                             (long long)dim);
    *at += *at < 0 ? dim : 0;
    return QN_OK;
}

/* --- along one axis -------------------------------------------------------------------------- */
static qn_status prepare_elements(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    const bool scatters = step->node->op == QN_OP_SCATTER_ELEMENTS;
    QN_TRY(check(step, scatters, error));
    const qn_tensor *const x = step->node->inputs[0], *const index = step->node->inputs[1];
    int64_t axis = qn__attr_int(step->node, "axis", 0);
    axis += axis < 0 ? x->rank : 0;
    if (axis < 0 || axis >= x->rank || index->rank != x->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "axis or rank of the indices does not fit");
    for (size_t i = 0; i < x->rank; i++)
        if ((int64_t)i != axis && index->dims[i].value > x->dims[i].value)
            return qn__step_fail(step, error, QN_CORRUPT, "%lld indices for %lld elements",
                                 (long long)index->dims[i].value, (long long)x->dims[i].value);
    const qn_tensor *const like = scatters ? step->node->inputs[2] : step->node->outputs[0];
    if (like->rank != index->rank || qn__tensor_elements(like) != qn__tensor_elements(index))
        return qn__step_fail(step, error, QN_CORRUPT, "indices do not fit \"%s\"", like->name);
    for (size_t i = 0; i < index->rank; i++)
        if (like->dims[i].value != index->dims[i].value)
            return qn__step_fail(step, error, QN_CORRUPT, "indices do not fit \"%s\"", like->name);
    return QN_OK;
}

static qn_status run_elements(const qn_step *step, const qn_run_env *env, const qn_view *in,
                              const qn_view *out, qn_error *error)
{
    (void)env;
    const bool scatters = step->node->op == QN_OP_SCATTER_ELEMENTS;
    const qn_dtype dtype = in[0].tensor->type.dtype;
    const size_t bytes = qn__dtype_bits(dtype) / 8;
    const reduction how = (reduction)find_reduction(step->node);
    int64_t axis = qn__attr_int(step->node, "axis", 0), strides[QN_MAX_RANK];
    axis += axis < 0 ? in[0].rank : 0;
    qn__layout_strides(in[0].rank, in[0].dims, QN_LAYOUT_ROW_MAJOR, strides);
    if (scatters && in[0].count > 0)
        memcpy(out[0].data, in[0].data, in[0].count * bytes);
    for (size_t i = 0; i < in[1].count; i++) {
        size_t rest = i;
        int64_t at = 0, picked = qn__load_int(in[1].data, in[1].tensor->type.dtype, i);
        QN_TRY(wrap(step, &picked, in[0].dims[axis], error));
        for (size_t k = in[1].rank; k-- > 0;) {
            const int64_t here = (int64_t)(rest % (size_t)in[1].dims[k]);
            rest /= (size_t)in[1].dims[k];
            at += ((int64_t)k == axis ? picked : here) * strides[k];
        }
        if (scatters)
            place(how, dtype, (uint8_t *)out[0].data + (size_t)at * bytes,
                  (const uint8_t *)in[2].data + i * bytes, 1);
        else
            memcpy((uint8_t *)out[0].data + i * bytes,
                   (const uint8_t *)in[0].data + (size_t)at * bytes, bytes);
    }
    return QN_OK;
}

/* --- by tuples of indices -------------------------------------------------------------------- */
typedef struct tuples {
    size_t batches, per_batch, tuple, slice; /* slices of `slice` elements */
    size_t batch_dims;
} tuples;

/* Tuples of the indices over the data; sizes of what is read or written must agree. */
static bool make_tuples(const qn_step *step, tuples *t)
{
    const bool scatters = step->node->op == QN_OP_SCATTER_ND;
    const qn_tensor *const x = step->node->inputs[0], *const index = step->node->inputs[1];
    const int64_t batch = scatters ? 0 : qn__attr_int(step->node, "batch_dims", 0);
    if (index->rank == 0 || batch < 0 || batch >= x->rank || batch >= index->rank)
        return false;
    const int64_t tuple = index->dims[index->rank - 1].value;
    if (tuple < 1 || tuple > x->rank - batch)
        return false;
    *t = (tuples){.batches = 1, .per_batch = 1, .tuple = (size_t)tuple, .slice = 1};
    t->batch_dims = (size_t)batch;
    for (size_t i = 0; i + 1 < index->rank; i++)
        *(i < t->batch_dims ? &t->batches : &t->per_batch) *= (size_t)index->dims[i].value;
    for (size_t i = 0; i < t->batch_dims; i++)
        if (x->dims[i].value != index->dims[i].value)
            return false;
    for (size_t i = t->batch_dims + t->tuple; i < x->rank; i++)
        t->slice *= (size_t)x->dims[i].value;
    const qn_tensor *const like = scatters ? step->node->inputs[2] : step->node->outputs[0];
    return qn__tensor_elements(like) == t->batches * t->per_batch * t->slice &&
           (!scatters || qn__tensor_elements(x) == qn__tensor_elements(step->node->outputs[0]));
}

static qn_status prepare_nd(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    tuples t;
    QN_TRY(check(step, step->node->op == QN_OP_SCATTER_ND, error));
    if (!make_tuples(step, &t))
        return qn__step_fail(step, error, QN_CORRUPT, "shapes of data and indices do not fit");
    return QN_OK;
}

static qn_status run_nd(const qn_step *step, const qn_run_env *env, const qn_view *in,
                        const qn_view *out, qn_error *error)
{
    (void)env;
    const bool scatters = step->node->op == QN_OP_SCATTER_ND;
    const qn_dtype dtype = in[0].tensor->type.dtype;
    const size_t bytes = qn__dtype_bits(dtype) / 8;
    const reduction how = (reduction)find_reduction(step->node);
    int64_t strides[QN_MAX_RANK];
    tuples t;
    if (!make_tuples(step, &t))
        return qn__step_fail(step, error, QN_INTERNAL, "shapes changed");
    qn__layout_strides(in[0].rank, in[0].dims, QN_LAYOUT_ROW_MAJOR, strides);
    if (scatters && in[0].count > 0)
        memcpy(out[0].data, in[0].data, in[0].count * bytes);
    const size_t batch_size = t.batches > 0 ? in[0].count / t.batches : 0;
    for (size_t i = 0; i < t.batches * t.per_batch; i++) {
        size_t at = i / t.per_batch * batch_size;
        for (size_t k = 0; k < t.tuple; k++) {
            int64_t picked = qn__load_int(in[1].data, in[1].tensor->type.dtype, i * t.tuple + k);
            QN_TRY(wrap(step, &picked, in[0].dims[t.batch_dims + k], error));
            at += (size_t)(picked * strides[t.batch_dims + k]);
        }
        if (scatters)
            place(how, dtype, (uint8_t *)out[0].data + at * bytes,
                  (const uint8_t *)in[2].data + i * t.slice * bytes, t.slice);
        else
            memcpy((uint8_t *)out[0].data + i * t.slice * bytes,
                   (const uint8_t *)in[0].data + at * bytes, t.slice * bytes);
    }
    return QN_OK;
}

const qn_run_op qn__op_gather_elements = {QN_OP_NONE, prepare_elements, run_elements, NULL};
const qn_run_op qn__op_gather_nd = {QN_OP_NONE, prepare_nd, run_nd, NULL};
