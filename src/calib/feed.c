/* From a sample's floats to what the executor wants of each graph input. */
#include "calib/calib.h"

#include <math.h>

qn_status qn__feed_create(const qn_graph *graph, const int64_t (*dims)[QN_MAX_RANK], qn_feed *out,
                          qn_error *error)
{
    const qn_context *ctx = graph->ctx;
    const size_t n = graph->n_inputs;
    *out = (qn_feed){.ctx = ctx};
    out->values = qn__calloc(ctx, n, sizeof(*out->values));
    out->n_values = qn__calloc(ctx, n, sizeof(*out->n_values));
    out->dtypes = qn__calloc(ctx, n, sizeof(*out->dtypes));
    out->converted = qn__calloc(ctx, n, sizeof(*out->converted));
    out->pointers = qn__calloc(ctx, n, sizeof(*out->pointers));
    if (out->values == NULL || out->n_values == NULL || out->dtypes == NULL ||
        out->converted == NULL || out->pointers == NULL)
        goto nomem;
    out->count = n;
    for (size_t i = 0; i < n; i++) {
        const qn_tensor *t = graph->inputs[i];
        size_t bytes;
        out->dtypes[i] = t->type.dtype;
        if (!qn_shape_count(&out->n_values[i], dims[i], t->rank) ||
            !qn_mul_size(&bytes, out->n_values[i], sizeof(double))) {
            qn__feed_free(out);
            QN_FAIL(error, QN_LIMIT, "input \"%s\" is too large", t->name);
        }
        out->values[i] = qn__alloc_aligned(ctx, out->n_values[i] * sizeof(float));
        if (out->values[i] == NULL)
            goto nomem;
        if (t->type.dtype != QN_DTYPE_F32) {
            out->converted[i] = qn__alloc_aligned(ctx, bytes);
            if (out->converted[i] == NULL)
                goto nomem;
        }
    }
    return QN_OK;
nomem:
    qn__feed_free(out);
    return QN_NOMEM(error);
}

void qn__feed_free(qn_feed *feed)
{
    if (feed->ctx == NULL)
        return;
    for (size_t i = 0; i < feed->count; i++) {
        qn__free_aligned(feed->ctx, feed->values[i]);
        qn__free_aligned(feed->ctx, feed->converted[i]);
    }
    qn__free(feed->ctx, feed->values);
    qn__free(feed->ctx, feed->n_values);
    qn__free(feed->ctx, feed->dtypes);
    qn__free(feed->ctx, feed->converted);
    qn__free(feed->ctx, (void *)feed->pointers);
    *feed = (qn_feed){0};
}

/* Nearest integer the type holds. */
static int64_t to_int(float value, qn_dtype dtype)
{
    const uint32_t bits = qn__dtype_bits(dtype);
    const bool is_signed = qn__dtype_is_signed(dtype);
    const double hi = ldexp(1.0, (int)(bits > 62 ? 62 : bits) - (is_signed ? 1 : 0)) - 1;
    const double lo = is_signed ? -hi - 1 : 0;
    const double v = rint((double)value);
    return (int64_t)(v < lo ? lo : v > hi ? hi : v);
}

void qn__feed_convert(qn_feed *feed, const float *const *src)
{
    for (size_t i = 0; i < feed->count; i++) {
        feed->pointers[i] = src[i];
        if (feed->converted[i] == NULL)
            continue;
        const qn_dtype dtype = feed->dtypes[i];
        for (size_t j = 0; j < feed->n_values[i]; j++) {
            if (qn__dtype_is_float(dtype))
                qn__store_real(feed->converted[i], dtype, j, (double)src[i][j]);
            else if (dtype == QN_DTYPE_BOOL)
                ((uint8_t *)feed->converted[i])[j] = src[i][j] != 0.0f;
            else
                qn__store_int(feed->converted[i], dtype, j, to_int(src[i][j], dtype));
        }
        feed->pointers[i] = feed->converted[i];
    }
}
