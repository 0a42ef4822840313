/* Float ConvTranspose, channels-last, as a gather: output (oy, ox) takes the taps whose input
 * position is whole: oy + pt - ky * dh a multiple of sh, and so in x. That is the indirect GEMM
 * with taps that miss pointing at zeros; outputs of one residue (oy % sh, ox % sw) hit the same
 * taps, so each residue is a GEMM over only those. */
#include "run/ops/igemm_run.h"
#include "run/ops/window.h"
#include "run/ops/window_nd.h"
#include "run/prepacked.h"

#include "core/alloc.h"
#include "core/checked.h"

/* The taps that outputs of one residue may hit. Residue (ry, rx): outputs oy = ry + i * sh. */
typedef struct residue {
    size_t ry, rx, rows, columns; /* first output and how many */
    size_t ks;
    uint32_t *ky, *kx; /* [ks], in the node's storage */
    const float *packed;
} residue;

typedef struct transpose_state {
    qn_window window;
    size_t groups, group_c, group_oc;
    size_t n_residues, max_ks;
    residue *residues;
    uint32_t *taps;
    qn_prepacked packed; /* residue by residue */
    float *zeros;
    qn_f32_igemm igemm;
    qn_clamp_f32 clamp;
    size_t tile_at, rows_at; /* scratch */
    bool has_rows;
} transpose_state;

static void transpose_release(const qn_context *ctx, qn_step *step)
{
    transpose_state *const s = step->state;
    if (s == NULL)
        return;
    qn__free(ctx, s->residues);
    qn__free(ctx, s->taps);
    qn__free(ctx, s->zeros);
    qn__free_aligned(ctx, s->packed.own);
    qn__free(ctx, s);
    step->state = NULL;
}

static qn_status read_node(const qn_step *step, transpose_state *s, qn_error *error)
{
    const qn_tensor *const x = step->node->inputs[0], *const w = qn__step_input(step, 1);
    if (w == NULL || x->type.dtype != QN_DTYPE_F32)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "input \"%s\" is %s, not float32",
                             x->name, qn__dtype_name(x->type.dtype));
    int64_t dims[QN_MAX_RANK] = {0};
    if (w->rank != x->rank)
        return qn__step_fail(step, error, QN_CORRUPT, "weights of rank %u, input of rank %u",
                             w->rank, x->rank);
    qn__tensor_dims(w, dims);
    QN_TRY(qn__window_read(step, dims + 2, true, false, &s->window, error));
    const int64_t groups = qn__attr_int(step->node, "group", 1);
    const size_t c = s->window.c, oc = s->window.oc;
    if (groups < 1 || (uint64_t)groups > c || c % (size_t)groups != 0 || oc % (size_t)groups != 0 ||
        dims[0] != (int64_t)c || dims[1] != (int64_t)(oc / (size_t)groups))
        return qn__step_fail(
            step, error, QN_CORRUPT,
            "weights for %lld x %lld channels, %lld groups; input has %zu, output %zu",
            (long long)dims[0], (long long)dims[1], (long long)groups, c, oc);
    s->groups = (size_t)groups;
    s->group_c = c / s->groups;
    s->group_oc = oc / s->groups;
    return QN_OK;
}

/* Does an output at `o` (o + pad counted) meet tap k? Then o + pad - k * dilation is divisible. */
static bool meets(size_t o, size_t pad, size_t k, size_t dilation, size_t stride)
{
    return (o + pad) % stride == k * dilation % stride;
}

static qn_status find_residues(const qn_plan *plan, transpose_state *s, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const qn_window *const w = &s->window;
    const size_t ny = w->sh < w->oh ? w->sh : w->oh, nx = w->sw < w->ow ? w->sw : w->ow;
    /* Each tap belongs to at most one residue of the output. */
    s->residues = qn__calloc(ctx, ny * nx, sizeof *s->residues);
    s->taps = qn__calloc(ctx, 2 * w->kh * w->kw, sizeof *s->taps);
    if (s->residues == NULL || s->taps == NULL)
        return QN_NOMEM(error);
    uint32_t *next = s->taps;
    for (size_t ry = 0; ry < ny; ry++) {
        for (size_t rx = 0; rx < nx; rx++) {
            residue *const r = &s->residues[s->n_residues++];
            *r = (residue){.ry = ry,
                           .rx = rx,
                           .rows = (w->oh - ry + w->sh - 1) / w->sh,
                           .columns = (w->ow - rx + w->sw - 1) / w->sw};
            for (size_t pass = 0; pass < 2; pass++) {
                size_t at = 0;
                for (size_t ky = 0; ky < w->kh; ky++) {
                    if (!meets(ry, w->pt, ky, w->dh, w->sh))
                        continue;
                    for (size_t kx = 0; kx < w->kw; kx++) {
                        if (!meets(rx, w->pl, kx, w->dw, w->sw))
                            continue;
                        if (pass == 1) {
                            r->ky[at] = (uint32_t)ky;
                            r->kx[at] = (uint32_t)kx;
                        }
                        at++;
                    }
                }
                r->ks = at; /* counted first, then filled */
                r->ky = next;
                r->kx = next + at;
            }
            next += 2 * r->ks;
            s->max_ks = r->ks > s->max_ks ? r->ks : s->max_ks;
        }
    }
    return QN_OK;
}

/* Weights are [c][group_oc][kh][kw]; ordered: room for those of a residue. */
static void fill(const transpose_state *s, const float *weights, const float *bias, float *ordered)
{
    const size_t nr = s->igemm.nr, taps = s->window.kh * s->window.kw;
    float *to = s->packed.own;
    for (size_t i = 0; i < s->n_residues; i++) {
        const residue *const r = &s->residues[i];
        for (size_t g = 0; g < s->groups; g++) {
            for (size_t o = 0; o < s->group_oc; o++)
                for (size_t p = 0; p < r->ks; p++)
                    for (size_t c = 0; c < s->group_c; c++)
                        ordered[(o * r->ks + p) * s->group_c + c] =
                            weights[((g * s->group_c + c) * s->group_oc + o) * taps +
                                    r->ky[p] * s->window.kw + r->kx[p]];
            qn__f32_gemm_pack(to, ordered, bias == NULL ? NULL : bias + g * s->group_oc,
                              s->group_oc, s->group_c, r->ks, r->ks * s->group_c, s->group_c, 1,
                              nr);
            to += qn__f32_gemm_packed_count(s->group_oc, s->group_c, r->ks, nr);
        }
    }
}

static qn_status pack_residues(const qn_plan *plan, qn_step *step, transpose_state *s,
                               const float *bias, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    const qn_window *const w = &s->window;
    const size_t nr = s->igemm.nr;
    const uint32_t layout = qn_packing_id(QN_PACKED_F32_GEMM, QN_F32_GEMM_LAYOUT_VERSION, nr, 1);
    /* All that says which taps a residue has, more numbers than others have. */
    const size_t *const numbers = (const size_t *)w;
    size_t columns, total = 0, bytes;
    bool ok = qn_align_size(&columns, s->group_oc, nr) && qn_mul_size(&columns, columns, s->groups);
    for (size_t i = 0; i < s->n_residues && ok; i++)
        ok = qn_mul_size(&bytes, columns, s->residues[i].ks * s->group_c + 1) &&
             qn_add_size(&total, total, bytes);
    if (!ok || !qn_mul_size(&bytes, total, sizeof(float)))
        return qn__step_fail(step, error, QN_LIMIT, "packed weights are too large");
    step->kernel_name = s->igemm.name;
    s->zeros = qn__calloc(ctx, s->group_c, sizeof(float));
    if (s->zeros == NULL)
        return QN_NOMEM(error);
    QN_TRY(qn__packed_begin(plan, step, layout, numbers, sizeof(*w) / sizeof(*numbers), bias, w->oc,
                            bytes, &s->packed, error));
    const float *at = s->packed.data;
    for (size_t i = 0; i < s->n_residues; i++) {
        s->residues[i].packed = at;
        at += s->groups * qn__f32_gemm_packed_count(s->group_oc, s->group_c, s->residues[i].ks, nr);
    }
    if (s->packed.own == NULL)
        return QN_OK;
    float *weights = NULL;
    QN_TRY(qn__step_const_f32(plan, step, 1, &weights, NULL, error));
    float *const ordered = qn__alloc(ctx, s->group_oc * s->max_ks * s->group_c * sizeof(float));
    if (ordered != NULL)
        fill(s, weights, bias, ordered);
    qn__free(ctx, ordered);
    qn__free(ctx, weights);
    return ordered != NULL ? qn__prepacked_keep(plan, step, &s->packed.entry, error)
                           : QN_NOMEM(error);
}

/* One residue's output is dense in scratch, then spread over the output. */
static bool reserve_scratch(qn_step *step, transpose_state *s)
{
    const qn_window *const w = &s->window;
    const size_t m = w->n * s->residues[0].rows * s->residues[0].columns;
    size_t tile, rows;
    if (!qn__igemm_buffer_bytes(&rows, &s->igemm, m, s->max_ks, s->groups) ||
        !qn_mul_size(&tile, m, w->oc) || !qn_mul_size(&tile, tile, sizeof(float)) ||
        !qn_align_size(&tile, tile, 64))
        return false;
    s->has_rows = rows != 0;
    s->tile_at = 0;
    s->rows_at = tile;
    return qn_add_size(&step->scratch_bytes, tile, rows);
}

static qn_status prepare_state(const qn_plan *plan, qn_step *step, void *state, qn_error *error)
{
    transpose_state *const s = state;
    const qn_context *const ctx = qn__plan_context(plan);
    float *bias = NULL;
    size_t n_bias = 0;
    qn_status status;
    QN_TRY_GOTO(read_node(step, s, error));
    s->clamp = qn__step_clamp(step);
    s->igemm = step->kernels->f32_igemm;
    QN_TRY_GOTO(qn__step_const_f32(plan, step, 2, &bias, &n_bias, error));
    if (bias != NULL && n_bias != s->window.oc) {
        status = qn__step_fail(step, error, QN_CORRUPT, "bias of %zu values for %zu channels",
                               n_bias, s->window.oc);
        goto done;
    }
    QN_TRY_GOTO(find_residues(plan, s, error));
    QN_TRY_GOTO(pack_residues(plan, step, s, bias, error));
    if (!reserve_scratch(step, s))
        status = qn__step_fail(step, error, QN_LIMIT, "scratch memory is too large");
    step->in_layout[0] = step->out_layout[0] = QN_LAYOUT_CHANNELS_LAST;
done:
    qn__free(ctx, bias);
    return status;
}

static qn_status transpose_prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    const qn_tensor *const x = qn__step_input(step, 0), *const weight = qn__step_input(step, 1);
    if (x != NULL && weight != NULL && (x->rank > 4 || weight->constant == NULL))
        return qn_prepare_as(&qn__op_conv_nd, plan, step, error);
    return qn__step_make_state(plan, step, sizeof(transpose_state), prepare_state,
                               transpose_release, error);
}

typedef struct transpose_call {
    const transpose_state *s;
    const residue *r;
    const float *in;
} transpose_call;

static void residue_rows(const qn_igemm_job *job, size_t group, size_t m0, size_t mr,
                         const float **a)
{
    const transpose_call *const call = job->ctx;
    const transpose_state *const s = call->s;
    const residue *const r = call->r;
    const qn_window *const w = &s->window;
    const size_t mr_max = job->kernel->mr;
    for (size_t i = 0; i < mr_max; i++) {
        const size_t m = m0 + (i < mr ? i : mr - 1);
        const size_t ox = r->rx + m % r->columns * w->sw, q = m / r->columns;
        const size_t oy = r->ry + q % r->rows * w->sh;
        const float *const image = call->in + q / r->rows * w->h * w->w * w->c + group * s->group_c;
        for (size_t p = 0; p < r->ks; p++) {
            const size_t y = oy + w->pt, x = ox + w->pl;
            const size_t dy = r->ky[p] * w->dh, dx = r->kx[p] * w->dw;
            const bool inside =
                y >= dy && (y - dy) / w->sh < w->h && x >= dx && (x - dx) / w->sw < w->w;
            a[p * mr_max + i] =
                inside ? image + ((y - dy) / w->sh * w->w + (x - dx) / w->sw) * w->c : s->zeros;
        }
    }
}

static void spread(const transpose_call *call, const float *tile, float *out)
{
    const qn_window *const w = &call->s->window;
    const residue *const r = call->r;
    for (size_t n = 0; n < w->n; n++)
        for (size_t i = 0; i < r->rows; i++)
            for (size_t j = 0; j < r->columns; j++, tile += w->oc) {
                float *const to =
                    out + ((n * w->oh + r->ry + i * w->sh) * w->ow + r->rx + j * w->sw) * w->oc;
                for (size_t c = 0; c < w->oc; c++)
                    to[c] = tile[c];
            }
}

static qn_status transpose_run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                               const qn_view *out, qn_error *error)
{
    (void)error;
    const transpose_state *const s = step->state;
    const qn_window *const w = &s->window;
    uint8_t *const scratch = env->scratch;
    float *const tile = (float *)(void *)(scratch + s->tile_at);
    if (out[0].count == 0)
        return QN_OK;
    for (size_t i = 0; i < s->n_residues; i++) {
        const residue *const r = &s->residues[i];
        const transpose_call call = {s, r, in[0].data};
        const qn_igemm_job job = {
            .kernel = &s->igemm,
            .m = w->n * r->rows * r->columns,
            .n = s->group_oc,
            .kc = s->group_c,
            .ks = r->ks,
            .groups = s->groups,
            .packed_stride = qn__f32_gemm_packed_count(s->group_oc, s->group_c, r->ks, s->igemm.nr),
            .c_group = s->group_oc,
            .packed = r->packed,
            .c = tile,
            .c_stride = w->oc,
            .clamp = s->clamp,
            .rows = residue_rows,
            .ctx = &call,
            .row_buffer = s->has_rows ? (const float **)(void *)(scratch + s->rows_at) : NULL,
        };
        qn__igemm_run(&job, env->pool);
        spread(&call, tile, out[0].data);
    }
    return QN_OK;
}

const qn_run_op qn__op_conv_transpose = {QN_OP_CONV_TRANSPOSE, transpose_prepare, transpose_run,
                                         transpose_release};
