/* Transpose, DepthToSpace and SpaceToDepth: one strided copy, whatever the input's layout. */
#include "run/nd.h"
#include "run/op.h"

#include <string.h>

typedef struct transpose_state {
    size_t rank, elem_bytes;
    int64_t dims[QN_MAX_RANK], strides[QN_MAX_RANK]; /* of the output's memory order */
} transpose_state;

static qn_status make_state(const qn_plan *plan, qn_step *step, const transpose_state *s,
                            qn_error *error)
{
    transpose_state *const state = qn__alloc(qn__plan_context(plan), sizeof(*state));
    if (state == NULL)
        return QN_NOMEM(error);
    *state = *s;
    step->state = state;
    return QN_OK;
}

static qn_status read_perm(const qn_step *step, size_t rank, int64_t perm[QN_MAX_RANK],
                           qn_error *error)
{
    size_t count;
    const int64_t *const given = qn__attr_ints(step->node, "perm", &count);
    uint32_t seen = 0;
    for (size_t i = 0; i < rank; i++)
        perm[i] = (int64_t)(rank - 1 - i);
    if (given == NULL)
        return QN_OK;
    if (count != rank)
        return qn__step_fail(step, error, QN_CORRUPT, "perm has %zu entries for rank %zu", count,
                             rank);
    for (size_t i = 0; i < rank; i++) {
        const int64_t axis = given[i] < 0 ? given[i] + (int64_t)rank : given[i];
        if (axis < 0 || axis >= (int64_t)rank || (seen & (1u << axis)) != 0)
            return qn__step_fail(step, error, QN_CORRUPT, "perm is not a permutation");
        seen |= 1u << axis;
        perm[i] = axis;
    }
    return QN_OK;
}

static qn_status prepare_transpose(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_tensor *const x = qn__step_input(step, 0);
    if (x == NULL || x->rank != step->node->outputs[0]->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "ranks differ");
    int64_t perm[QN_MAX_RANK], dims[QN_MAX_RANK], by_axis[QN_MAX_RANK];
    QN_TRY(read_perm(step, x->rank, perm, error));
    qn__tensor_dims(x, dims);
    qn__layout_strides(x->rank, dims, step->in_layout[0], by_axis);
    transpose_state s = {.rank = x->rank, .elem_bytes = qn__dtype_bits(x->type.dtype) / 8};
    /* NHWC -> NCHW and back are free when the other side is channels-last. */
    if (x->rank == 4 && step->in_layout[0] == QN_LAYOUT_ROW_MAJOR && perm[0] == 0 && perm[1] == 3 &&
        perm[2] == 1 && perm[3] == 2)
        step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
    size_t order[QN_MAX_RANK];
    qn__layout_order(x->rank, step->out_layout[0], order);
    int64_t dense = 1;
    bool same = true;
    for (size_t i = s.rank; i-- > 0;) {
        const size_t from = (size_t)perm[order[i]];
        s.dims[i] = dims[from];
        s.strides[i] = by_axis[from];
        same = same && (s.dims[i] == 1 || s.strides[i] == dense);
        dense *= s.dims[i];
    }
    step->alias = same;
    step->kernel_name = same ? "transpose_view" : "transpose";
    return make_state(plan, step, &s, error);
}

/* Both are transposes of a 6-D view [N, a, b, c, d, e] of the image. */
static qn_status prepare_block(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_node *const node = step->node;
    const qn_tensor *const x = qn__step_input(step, 0);
    const int64_t block = qn__attr_int(node, "blocksize", 0);
    if (x == NULL || x->rank != 4 || block < 1 || block > 65536)
        return qn__step_fail(step, error, QN_CORRUPT, "needs rank 4 and a block size");
    int64_t d[QN_MAX_RANK], st[QN_MAX_RANK];
    qn__tensor_dims(x, d);
    qn__layout_strides(4, d, step->in_layout[0], st);
    step->out_layout[0] = step->in_layout[0];
    transpose_state s = {.rank = 6, .elem_bytes = qn__dtype_bits(x->type.dtype) / 8};
    int64_t dims[6], strides[6]; /* output axes: n, c parts, h parts, w parts in NCHW order */
    size_t channels[2] = {1, 1}; /* how many of the six belong to C; H and W share the rest */
    if (node->op == QN_OP_DEPTH_TO_SPACE) {
        const int64_t depth = d[1] / (block * block);
        if (d[1] % (block * block) != 0)
            return qn__step_fail(step, error, QN_CORRUPT, "%lld channels in blocks of %lld",
                                 (long long)d[1], (long long)block);
        const bool crd = strcmp(qn__attr_string(node, "mode", "DCR"), "CRD") == 0;
        const int64_t c_of_c = crd ? block * block * st[1] : st[1];
        const int64_t h_of_c = crd ? block * st[1] : block * depth * st[1];
        const int64_t w_of_c = crd ? st[1] : depth * st[1];
        const int64_t ds[6] = {d[0], depth, d[2], block, d[3], block};
        const int64_t ss[6] = {st[0], c_of_c, st[2], h_of_c, st[3], w_of_c};
        memcpy(dims, ds, sizeof(ds));
        memcpy(strides, ss, sizeof(ss));
    } else {
        if (d[2] % block != 0 || d[3] % block != 0)
            return qn__step_fail(step, error, QN_CORRUPT, "%lld x %lld in blocks of %lld",
                                 (long long)d[2], (long long)d[3], (long long)block);
        const bool crd = strcmp(qn__attr_string(node, "mode", "DCR"), "CRD") == 0;
        const int64_t ds[6] = {d[0],         crd ? d[1] : block, block, crd ? block : d[1],
                               d[2] / block, d[3] / block};
        const int64_t ss[6] = {
            st[0],         crd ? st[1] : st[2], crd ? st[2] : st[3], crd ? st[3] : st[1],
            st[2] * block, st[3] * block};
        memcpy(dims, ds, sizeof(ds));
        memcpy(strides, ss, sizeof(ss));
        channels[0] = 3;
    }
    /* Memory order: channels-last moves the C parts behind the rest. */
    size_t n = 0;
    const bool last = step->out_layout[0] == QN_LAYOUT_CHANNELS_LAST;
    const size_t c_end = 1 + channels[0];
    s.dims[n] = dims[0];
    s.strides[n++] = strides[0];
    for (size_t i = last ? c_end : 1; i < 6; i++, n++) {
        s.dims[n] = dims[i];
        s.strides[n] = strides[i];
    }
    for (size_t i = 1; last && i < c_end; i++, n++) {
        s.dims[n] = dims[i];
        s.strides[n] = strides[i];
    }
    size_t count = 1;
    for (size_t i = 0; i < 6; i++)
        count *= (size_t)s.dims[i];
    if (count != qn__tensor_elements(node->outputs[0]))
        return qn__step_fail(step, error, QN_CORRUPT, "output shape does not fit");
    return make_state(plan, step, &s, error);
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const transpose_state *const s = step->state;
    qn__strided_copy(env->pool, out[0].data, in[0].data, s->rank, s->dims, s->strides,
                     s->elem_bytes);
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_transpose = {QN_OP_NONE, prepare_transpose, run, release};
const qn_run_op qn__op_block = {QN_OP_NONE, prepare_block, run, release};
