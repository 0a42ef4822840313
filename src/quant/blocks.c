/* Weights of a product in blocks along its sums, each with a scale of its own and, for unsigned
 * integers, a zero point. */
#include "core/threads.h"
#include "quant/quant.h"

#include <float.h>
#include <math.h>

enum { CANDIDATES = 24 };

typedef struct block_job {
    const qn_context *ctx;
    qn_weight_view view;
    const float *w;
    const qn_weights_plan *plan;
    size_t block, n_blocks;
    bool zero_points, search;
    bool blocks_inside; /* scales are [channels][n_blocks], else [n_blocks][channels] */
    float *scales;
    int32_t *zeros;
    uint8_t *q;           /* [channels][k] */
    double *lost, *power; /* [channels] */
    uint8_t *failed;      /* [channels] out of memory */
} block_job;

static double round_unsigned(const float *w, size_t count, float scale, int32_t zero, int32_t qmax,
                             uint8_t *q)
{
    double lost = 0;
    for (size_t i = 0; i < count; i++) {
        float v = rintf(w[i] / scale) + (float)zero;
        v = v > 0.0f ? v : 0.0f;
        v = v < (float)qmax ? v : (float)qmax;
        const double e = (double)w[i] - ((double)v - zero) * (double)scale;
        lost += e * e;
        q[i] = (uint8_t)v;
    }
    return lost;
}

/* The range of the block, or the part of it that loses least. */
static double fit_unsigned(const block_job *j, const float *w, size_t count, float *scale,
                           int32_t *zero, uint8_t *q)
{
    const int32_t qmax = (1 << j->plan->levels.bits) - 1;
    float lo = 0, hi = 0;
    double best = INFINITY;
    uint8_t tried[256];
    for (size_t i = 0; i < count; i++) {
        lo = fminf(lo, w[i]);
        hi = fmaxf(hi, w[i]);
    }
    for (int c = 0; c < (j->search ? CANDIDATES : 1); c++) {
        const float part = 1.0f - 0.5f * (float)c / CANDIDATES;
        float s = (hi - lo) * part / (float)qmax;
        if (!(s >= FLT_MIN))
            s = 1.0f;
        const float z = rintf(-lo * part / s);
        const int32_t point = (int32_t)(z < (float)qmax ? z : (float)qmax);
        const double lost = round_unsigned(w, count, s, point, qmax, tried);
        if (lost >= best)
            continue;
        best = lost;
        *scale = s;
        *zero = point;
        for (size_t i = 0; i < count; i++)
            q[i] = tried[i];
    }
    return best;
}

static double fit_signed(const block_job *j, const float *w, size_t count, float *scale, uint8_t *q,
                         bool *ok)
{
    float s = 0;
    *ok = j->plan->method->scale(j->ctx, w, count, &j->plan->levels, &s);
    if (!(s >= FLT_MIN) || !isfinite(s))
        s = 1.0f;
    *scale = s;
    qn__levels_round(&j->plan->levels, w, count, s, (int8_t *)q);
    return qn__levels_error(&j->plan->levels, w, count, s);
}

static void quantize_channel(void *arg, size_t c)
{
    const block_job *const j = arg;
    const qn_weight_view *const v = &j->view;
    float values[256];
    for (size_t b = 0; b < j->n_blocks; b++) {
        const size_t first = b * j->block;
        const size_t count = v->k - first < j->block ? v->k - first : j->block;
        const size_t at = j->blocks_inside ? c * j->n_blocks + b : b * v->channels + c;
        uint8_t *const q = j->q + c * v->k + first;
        bool ok = true;
        for (size_t i = 0; i < count; i++) {
            values[i] = j->w[c * v->stride_c + (first + i) * v->stride_k];
            j->power[c] += (double)values[i] * (double)values[i];
        }
        j->lost[c] += j->zero_points
                          ? fit_unsigned(j, values, count, &j->scales[at], &j->zeros[at], q)
                          : fit_signed(j, values, count, &j->scales[at], q, &ok);
        j->failed[c] |= !ok;
    }
}

/* Integers in the constant's own order and storage. */
static qn_blob *store(const block_job *j, qn_dtype dtype)
{
    const qn_weight_view *const v = &j->view;
    size_t bytes;
    void *data = NULL;
    if (!qn__dtype_bytes(&bytes, dtype, v->channels * v->k))
        return NULL;
    qn_blob *blob = qn__blob_create(j->ctx, bytes, &data);
    for (size_t c = 0; blob != NULL && c < v->channels; c++)
        for (size_t i = 0; i < v->k; i++) {
            const uint8_t q = j->q[c * v->k + i];
            qn__store_int(data, dtype, c * v->stride_c + i * v->stride_k,
                          j->zero_points ? q : (int8_t)q);
        }
    return blob;
}

static qn_status finish(const block_job *j, qn_graph *graph, qn_weights_plan *plan, qn_type *type,
                        qn_blob **blob, qn_error *error)
{
    double lost = 0, power = 0;
    for (size_t c = 0; c < j->view.channels; c++) {
        QN_FAIL_IF(j->failed[c], error, QN_NO_MEMORY, "out of memory");
        lost += j->lost[c];
        power += j->power[c];
    }
    plan->error = power > 0 ? lost / power : 0;
    plan->bits = plan->levels.bits;
    const bool four = plan->levels.bits == 4, u = j->zero_points;
    const qn_dtype dtype = four ? (u ? QN_DTYPE_U4 : QN_DTYPE_I4) : u ? QN_DTYPE_U8 : QN_DTYPE_I8;
    const int32_t reach = 1 << plan->levels.bits;
    const qn_quant quant = {.bits = (uint8_t)plan->levels.bits,
                            .is_signed = !u,
                            .axis = (int8_t)(j->blocks_inside ? 1 : 0),
                            .block = (int64_t)j->block,
                            .qmin = u ? 0 : -reach / 2,
                            .qmax = u ? reach - 1 : reach / 2 - 1,
                            .n_scales = j->n_blocks * j->view.channels,
                            .scales = j->scales,
                            .zero_points = u ? j->zeros : NULL};
    const qn_quant *kept = qn__graph_quant(graph, &quant);
    *blob = store(j, dtype);
    if (kept == NULL || *blob == NULL)
        return QN_NOMEM(error);
    *type = qn_type_quant_make(dtype, kept);
    return QN_OK;
}

qn_status qn__quantize_blocks(qn_graph *graph, const qn_node *node, const qn_settings *settings,
                              const float *w, qn_weights_plan *plan, qn_type *type, qn_blob **blob,
                              qn_error *error)
{
    const qn_context *ctx = graph->ctx;
    block_job j = {.ctx = ctx,
                   .w = w,
                   .plan = plan,
                   .block = settings->block,
                   .zero_points = settings->zero_points,
                   .search = plan->method != &qn__weight_max_abs,
                   .blocks_inside = node->op == QN_OP_GEMM && qn__attr_int(node, "transB", 0) != 0};
    qn_status status = QN_OK;
    *blob = NULL;
    QN_FAIL_IF(!qn__weight_view(node, &j.view), error, QN_INTERNAL, "%s \"%s\": weights changed",
               qn__op_name(node->op), node->name);
    j.n_blocks = (j.view.k + j.block - 1) / j.block;
    const size_t n = j.n_blocks * j.view.channels;
    j.scales = qn__calloc(ctx, n, sizeof(*j.scales));
    j.zeros = qn__calloc(ctx, n, sizeof(*j.zeros));
    j.q = qn__calloc(ctx, j.view.channels, j.view.k);
    j.lost = qn__calloc(ctx, j.view.channels, sizeof(*j.lost));
    j.power = qn__calloc(ctx, j.view.channels, sizeof(*j.power));
    j.failed = qn__calloc(ctx, j.view.channels, 1);
    if (j.scales == NULL || j.zeros == NULL || j.q == NULL || j.lost == NULL || j.power == NULL ||
        j.failed == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    qn__parallel(ctx->pool, quantize_channel, &j, j.view.channels);
    status = finish(&j, graph, plan, type, blob, error);
    if (status != QN_OK) {
        qn__blob_unref(*blob);
        *blob = NULL;
    }
done:
    qn__free(ctx, j.scales);
    qn__free(ctx, j.zeros);
    qn__free(ctx, j.q);
    qn__free(ctx, j.lost);
    qn__free(ctx, j.power);
    qn__free(ctx, j.failed);
    return status;
}
