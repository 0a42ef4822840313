/* Drift of the means (calib/drift.h) of what the layers of a plan read, under the plan's integers.
 */
#include "calib/drift.h"

#include "quant/quant.h"

enum { FEWEST = 4, MOST = 32, VALUES = 1 << 19 /* of the inputs of all samples together */ };

qn_status qn__drift_samples(const qn_graph *graph, const qn_dataset *dataset, size_t *out,
                            qn_error *error)
{
    int64_t(*dims)[QN_MAX_RANK] = NULL;
    size_t values = 1;
    QN_TRY(qn__dataset_input_dims(graph, dataset, &dims, error));
    for (size_t i = 0; i < graph->n_inputs; i++) {
        size_t count;
        if (!qn_shape_count(&count, dims[i], graph->inputs[i]->rank) ||
            !qn_add_size(&values, values, count))
            values = VALUES; /* refused when it is loaded */
    }
    qn__free(graph->ctx, dims);
    const size_t n = VALUES / values;
    *out = n < FEWEST ? FEWEST : n > MOST ? MOST : n;
    return QN_OK;
}

/* Values that pass through have the integers of what they pass through from. */
static bool is_rounded(const qn_quant_plan *plan, const size_t *position_of, uint32_t id)
{
    const qn_node *producer = plan->graph->tensors[id]->producer;
    if (!plan->tensors[id].wanted || plan->graph->tensors[id]->constant != NULL)
        return false;
    return producer == NULL || !plan->tensors[id].integer ||
           plan->nodes[position_of[producer->id]].rule != QN_RULE_SAME;
}

static void list_inputs(const qn_quant_plan *plan, float *const *shifts, uint8_t *corrected,
                        uint32_t *ids, size_t *n_ids)
{
    for (size_t n = 0; n < plan->graph->n_nodes; n++) {
        const qn_node *node = plan->graph->nodes[n];
        const qn_node_plan *p = &plan->nodes[n];
        if (!p->quantized || p->rule != QN_RULE_WEIGHTS || node->op == QN_OP_MATMUL ||
            shifts[n] != NULL)
            continue;
        const uint32_t id = node->inputs[0]->id;
        bool known = false;
        for (size_t i = 0; i < *n_ids; i++)
            known |= ids[i] == id;
        if (!known)
            ids[(*n_ids)++] = id;
        corrected[node->id] = 1;
    }
}

qn_status qn__quant_drift(const qn_quant_plan *plan, const qn_graph *g, const qn_dataset *dataset,
                          double *const *means, size_t n_samples, float *const *shifts,
                          float ***drifts, qn_error *error)
{
    qn_status status = QN_OK;
    qn_drift_grid *grids = qn__calloc(g->ctx, g->n_tensors, sizeof(*grids));
    uint32_t *ids = qn__calloc(g->ctx, g->n_nodes, sizeof(*ids));
    uint8_t *corrected = qn__calloc(g->ctx, g->next_node_id, 1);
    size_t *position_of = qn__calloc(g->ctx, g->next_node_id, sizeof(*position_of));
    qn_drift_options o = {
        .grids = grids, .ids = ids, .corrected = corrected, .means = means, .limit = n_samples};
    if (grids == NULL || ids == NULL || corrected == NULL || position_of == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    for (size_t n = 0; n < g->n_nodes; n++)
        position_of[g->nodes[n]->id] = n;
    for (uint32_t t = 0; t < g->n_tensors; t++) {
        qn_drift_grid *grid = &grids[t];
        if (!is_rounded(plan, position_of, t))
            continue;
        qn__activation_limits(plan->settings, 0, &grid->qmin, &grid->qmax);
        qn__activation_params(plan, t, &grid->scale, &grid->zero_point);
    }
    list_inputs(plan, shifts, corrected, ids, &o.n_ids);
    if (o.n_ids > 0)
        status = qn__drift(g, dataset, &o, drifts, error);
done:
    qn__free(g->ctx, grids);
    qn__free(g->ctx, ids);
    qn__free(g->ctx, corrected);
    qn__free(g->ctx, position_of);
    return status;
}
