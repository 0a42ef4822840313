/* mnn_kl FILE POSITIONS: the KL threshold that MNN's method finds for a file of raw float32 values,
 * as "LARGEST THRESHOLD" (bins of 2,048, from the limit it returns). */
#include "calib/calib.h"
#include "core/io.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static qn_status search(const qn_context *ctx, const float *values, size_t count,
                        uint64_t positions, qn_error *error)
{
    const qn_feature_method *m = qn__feature_method_find("kl-mnn");
    const qn_range_format format = {
        .qmin = -127, .qmax = 127, .symmetric = true, .positions = positions};
    qn_range range;
    qn_status status = QN_OK;
    void *state = qn__alloc(ctx, m->state_bytes());
    if (state == NULL)
        return QN_NOMEM(error);
    m->init(state);
    QN_TRY_GOTO(m->observe(ctx, state, 0, 0, values, count, error));
    QN_TRY_GOTO(m->between_passes(ctx, state, error));
    QN_TRY_GOTO(m->observe(ctx, state, 1, 0, values, count, error));
    QN_TRY_GOTO(m->finish(ctx, state, &format, 1, &range, error));
    const double largest = fmax(-(double)range.seen_lo, (double)range.seen_hi);
    printf("%.9g %.9g\n", largest, (double)range.hi * 2048 / largest - 0.5);
done:
    m->release(ctx, state);
    qn__free(ctx, state);
    return status;
}

int main(int argc, char **argv)
{
    qn_context *ctx = NULL;
    qn_error error = {0};
    qn_file_view view;
    if (argc != 3) {
        fprintf(stderr, "usage: mnn_kl FILE POSITIONS\n");
        return 2;
    }
    qn_status status = qn_context_create(NULL, &ctx, &error);
    if (status == QN_OK)
        status = qn__file_open(ctx, argv[1], &view, &error);
    if (status == QN_OK) {
        status = search(ctx, (const float *)view.data, view.size_bytes / sizeof(float),
                        strtoull(argv[2], NULL, 10), &error);
        qn__file_close(ctx, &view);
    }
    qn_context_destroy(ctx);
    if (status != QN_OK)
        fprintf(stderr, "error: %s\n", error.message);
    return status == QN_OK ? 0 : 1;
}
