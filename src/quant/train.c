/* Feature methods that measure the whole network in a procedure of their own (calib/train.h). */
#include "quant/quant.h"

#include <math.h>

#define LEVELS 127     /* of the weights' rounding */
#define SMALLEST 1e-6f /* a channel's largest weight counts at least this much */

bool qn__has_batch_norm(const qn_graph *graph)
{
    for (size_t n = 0; n < graph->n_nodes; n++)
        if (graph->nodes[n]->op == QN_OP_BATCH_NORMALIZATION)
            return true;
    return false;
}

static void round_channel(const qn_weight_view *view, size_t c, const float *w, float *out)
{
    float largest = SMALLEST;
    for (size_t k = 0; k < view->k; k++)
        largest = fmaxf(largest, fabsf(w[c * view->stride_c + k * view->stride_k]));
    const float scale = largest / LEVELS;
    for (size_t k = 0; k < view->k; k++) {
        const size_t i = c * view->stride_c + k * view->stride_k;
        out[i] = fminf(fmaxf(roundf(w[i] / scale), -LEVELS), LEVELS) * scale;
    }
}

static qn_status round_weights(qn_graph *graph, qn_node *node, qn_error *error)
{
    qn_weight_view view;
    qn_tensor *old = node->inputs[1];
    size_t count;
    int64_t dims[QN_MAX_RANK];
    void *data = NULL;
    QN_FAIL_IF(!qn__weight_view(node, &view) || !qn__tensor_static_dims(old, dims), error,
               QN_INTERNAL, "%s \"%s\": weights changed", qn__op_name(node->op), node->name);
    const float *w = qn__tensor_floats(graph, old, &count);
    qn_blob *blob = w == NULL ? NULL : qn__blob_create(graph->ctx, count * sizeof(*w), &data);
    if (blob == NULL)
        return QN_NOMEM(error);
    for (size_t c = 0; c < view.channels; c++)
        round_channel(&view, c, w, data);
    qn_tensor *rounded = qn__graph_add_constant(graph, old->name, old->type, old->rank, dims, blob);
    qn__blob_unref(blob);
    if (rounded == NULL)
        return QN_NOMEM(error);
    node->inputs[1] = rounded;
    return QN_OK;
}

static qn_status round_all_weights(const qn_quant_plan *plan, qn_graph *graph, qn_error *error)
{
    for (size_t n = 0; n < plan->graph->n_nodes; n++) {
        const qn_node_plan *p = &plan->nodes[n];
        if (!p->quantized || p->rule != QN_RULE_WEIGHTS)
            continue;
        qn_node *node = qn__graph_find_node(graph, plan->graph->nodes[n]->name);
        QN_FAIL_IF(node == NULL, error, QN_INTERNAL, "no node \"%s\" before folding",
                   plan->graph->nodes[n]->name);
        QN_TRY(round_weights(graph, node, error));
    }
    return QN_OK;
}

/* Keeps the items of methods that train, with ids of `graph`. */
static qn_status choose_items(const qn_quant_plan *plan, const qn_graph *graph,
                              qn_calib_item *items, size_t *n_items, qn_error *error)
{
    size_t kept = 0;
    for (size_t i = 0; i < *n_items; i++) {
        if (items[i].method->train == NULL)
            continue;
        const qn_tensor *t = plan->graph->tensors[items[i].tensor_id];
        const qn_tensor *same = qn__graph_find_tensor(graph, t->name);
        QN_FAIL_IF(same == NULL, error, QN_INTERNAL, "no tensor \"%s\" before folding", t->name);
        items[kept] = items[i];
        items[kept++].tensor_id = same->id;
    }
    *n_items = kept;
    return QN_OK;
}

qn_status qn__quant_train(const qn_quant_plan *plan, const qn_graph *graph,
                          const qn_dataset *dataset, const qn_quantize_options *options,
                          qn_train_result *out, qn_error *error)
{
    qn_calib_item *items = NULL;
    qn_graph *rounded = NULL;
    qn_status status = QN_OK;
    qn_calib_options o = {.batch = plan->settings->batch,
                          .progress = options->progress,
                          .progress_ctx = options->progress_ctx};
    *out = (qn_train_result){0};
    QN_TRY(qn__quant_plan_items(plan, &items, &o.n_items, error));
    QN_TRY_GOTO(choose_items(plan, graph, items, &o.n_items, error));
    o.items = items;
    if (o.n_items == 0)
        goto done;
    if (dataset == NULL)
        QN_FAIL_GOTO(error, QN_INVALID_ARGUMENT,
                     "no calibration data, and no recipe with a range for tensor \"%s\"",
                     graph->tensors[items[0].tensor_id]->name);
    QN_TRY_GOTO(qn__graph_clone(graph, &rounded, error));
    QN_TRY_GOTO(round_all_weights(plan, rounded, error));
    QN_TRY_GOTO(plan->settings->features->train(rounded, dataset, &o, out, error));
    for (size_t i = 0; i < out->n_norms; i++) { /* names of a graph that lives on */
        const qn_node *node = qn__graph_find_node(graph, out->norms[i].name);
        out->norms[i].name = node->name;
    }
done:
    qn__graph_destroy(rounded);
    qn__free(graph->ctx, items);
    return status;
}

void qn__train_take(const qn_train_result *result, const qn_graph *from, const qn_graph *graph,
                    qn_ranges *ranges)
{
    if (result->ctx == NULL || result->ranges.items == NULL)
        return;
    for (size_t t = 0; t < graph->n_tensors; t++) {
        const qn_tensor *same = qn__graph_find_tensor(from, graph->tensors[t]->name);
        if (same != NULL && same->id < result->ranges.count && result->ranges.items[same->id].valid)
            ranges->items[t] = result->ranges.items[same->id];
    }
}
