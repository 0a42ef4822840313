/* mnn_values SRC CONFIG [ID | FOLDER]: the float values of tensor ID of an .mnn network over all
 * samples of the configuration, raw to stdout; of every tensor, for the first sample, row-major, to
 * FOLDER/ID; or else the largest magnitude of every tensor, "ID VALUE". In exact mode, as the
 * statistics of `quantized.out --exact-mnn` see them. */
#include "calib/calib.h"
#include "mnntool/exact.h"
#include "mnntool/float_conv.h"
#include "quant/model.h"
#include "run/run.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct reader {
    int64_t wanted;     /* -1: largest magnitudes */
    float *largest;     /* [tensors] */
    const char *folder; /* NULL: none */
} reader;

static qn_status write_values(const reader *r, const qn_view *view, qn_error *error)
{
    char path[4096];
    float *values = malloc((view->count + 1) * sizeof(*values));
    snprintf(path, sizeof(path), "%s/%d", r->folder, view->tensor->source);
    FILE *f = values != NULL ? fopen(path, "wb") : NULL;
    bool written = f != NULL;
    if (written) {
        qn__view_to_f32(view, values);
        written = fwrite(values, sizeof(*values), view->count, f) == view->count;
        written = fclose(f) == 0 && written;
    }
    free(values);
    QN_FAIL_IF(!written, error, QN_IO, "%s cannot be written", path);
    return QN_OK;
}

static qn_status on_tensor(void *arg, const qn_view *view, qn_error *error)
{
    reader *r = arg;
    const int32_t id = view->tensor->source;
    const float *values = view->data;
    (void)error;
    if (id < 0 || view->tensor->type.dtype != QN_DTYPE_F32)
        return QN_OK;
    if (r->folder != NULL)
        return write_values(r, view, error);
    if (id == r->wanted)
        fwrite(values, sizeof(*values), view->count, stdout);
    for (size_t i = 0; r->wanted < 0 && i < view->count; i++)
        r->largest[id] = fmaxf(r->largest[id], fabsf(values[i]));
    return QN_OK;
}

static qn_status read_values(const qn_context *ctx, const qn_graph *graph,
                             const qn_mnn_config *config, reader *r, qn_error *error)
{
    int64_t(*dims)[QN_MAX_RANK] = qn__calloc(ctx, graph->n_inputs, sizeof(*dims));
    qn_dataset *dataset = NULL;
    qn_graph *bound = NULL;
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    qn_feed feed = {0};
    bool changed;
    qn_plan_options options;
    qn_status status;
    if (dims == NULL)
        return QN_NOMEM(error);
    QN_TRY_GOTO(qn__mnn_input_dims(graph, config, dims, &changed, error));
    QN_TRY_GOTO(
        qn__mnn_dataset(ctx, graph, config, (const int64_t(*)[QN_MAX_RANK])dims, &dataset, error));
    qn__free(ctx, dims);
    dims = NULL;
    QN_TRY_GOTO(qn__dataset_input_dims(graph, dataset, &dims, error));
    QN_TRY_GOTO(qn__graph_bound(graph, (const int64_t(*)[QN_MAX_RANK])dims, 1, &bound, error));
    qn__plan_options_init(&options, ctx);
    options.keep_all = true;
    options.instead = qn__mnn_float_op;
    QN_TRY_GOTO(qn__plan_create(bound, &options, &plan, error));
    QN_TRY_GOTO(qn__exec_create(plan, NULL, &exec, error));
    QN_TRY_GOTO(qn__feed_create(bound, (const int64_t(*)[QN_MAX_RANK])dims, &feed, error));
    qn__exec_set_hook(exec, on_tensor, r);
    for (size_t i = 0; i < (r->folder != NULL ? 1 : qn_dataset_count(dataset)); i++) {
        QN_TRY_GOTO(qn_dataset_load(dataset, i, feed.values, error));
        qn__feed_convert(&feed, (const float *const *)feed.values);
        QN_TRY_GOTO(qn__exec_run(exec, feed.pointers, error));
    }
done:
    qn__feed_free(&feed);
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    qn__graph_destroy(bound);
    qn_dataset_destroy(dataset);
    qn__free(ctx, dims);
    return status;
}

static qn_status run(const qn_context *ctx, char **argv, int argc, qn_error *error)
{
    qn_mnn_config config = {0};
    qn_model *model = NULL;
    reader r = {.wanted = -1};
    if (argc > 3 && isdigit((unsigned char)argv[3][0]))
        r.wanted = atoll(argv[3]);
    else if (argc > 3)
        r.folder = argv[3];
    qn_status status;
    QN_TRY(qn__mnn_config_read(ctx, argv[2], QN_MNN_EXACT_ALL, &config, error));
    QN_TRY_GOTO(qn_model_load(ctx, argv[1], &model, error));
    const qn_mnn_source *source = qn__mnn_source_of(model->graph);
    if (source == NULL)
        QN_FAIL_GOTO(error, QN_UNSUPPORTED, "%s: not an MNN model", argv[1]);
    r.largest = qn__calloc(ctx, source->n_tensors, sizeof(*r.largest));
    if (r.largest == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(read_values(ctx, model->graph, &config, &r, error));
    for (size_t i = 0; argc == 3 && i < source->n_tensors; i++)
        printf("%zu %.9g\n", i, (double)r.largest[i]);
done:
    qn__free(ctx, r.largest);
    qn_model_destroy(model);
    qn__mnn_config_free(&config);
    return status;
}

int main(int argc, char **argv)
{
    qn_context *ctx = NULL;
    qn_error error = {0};
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: mnn_values SRC CONFIG [ID | FOLDER]\n");
        return 2;
    }
    qn_status status = qn_context_create(NULL, &ctx, &error);
    if (status == QN_OK)
        status = run(ctx, argv, argc, &error);
    qn_context_destroy(ctx);
    if (status != QN_OK)
        fprintf(stderr, "error: %s\n", error.message);
    return status == QN_OK ? 0 : 1;
}
