/* The recipe's "batch_norm": running statistics that a training method left in BatchNormalization
 * nodes before they were folded; node name -> [means, variances]. */
#include "quant/quant.h"

#include <jansson.h>

static qn_status read_list(const qn_recipe *recipe, const char *name, size_t which,
                           const json_t *list, size_t count, float *out, qn_error *error)
{
    QN_FAIL_IF(json_array_size(list) != count, error, QN_INVALID_ARGUMENT,
               "%s: batch_norm[\"%s\"][%zu]: expected %zu numbers, one per channel, found %zu",
               recipe->path, name, which, count, json_array_size(list));
    for (size_t c = 0; c < count; c++)
        out[c] = (float)json_number_value(json_array_get(list, c));
    return QN_OK;
}

static qn_status read_norm(const qn_recipe *recipe, const qn_graph *graph, const char *name,
                           const json_t *value, qn_train_result *out, qn_error *error)
{
    const qn_node *node = qn__graph_find_node(graph, name);
    size_t channels;
    QN_FAIL_IF(node == NULL || node->op != QN_OP_BATCH_NORMALIZATION || node->n_inputs < 5 ||
                   node->inputs[1] == NULL || !qn__tensor_count(node->inputs[1], &channels),
               error, QN_INVALID_ARGUMENT,
               "%s: batch_norm[\"%s\"]: no such BatchNormalization in the model", recipe->path,
               name);
    float *values = qn__calloc(graph->ctx, channels, 2 * sizeof(*values));
    if (values == NULL)
        return QN_NOMEM(error);
    out->norms[out->n_norms++] = (qn_train_norm){.node_id = node->id,
                                                 .name = node->name,
                                                 .channels = channels,
                                                 .mean = values,
                                                 .variance = values + channels};
    QN_TRY(read_list(recipe, name, 0, json_array_get(value, 0), channels, values, error));
    return read_list(recipe, name, 1, json_array_get(value, 1), channels, values + channels, error);
}

qn_status qn__recipe_norms(const qn_recipe *recipe, const qn_graph *graph, qn_train_result *out,
                           qn_error *error)
{
    json_t *const all = json_object_get(recipe->root, "batch_norm");
    const char *name;
    json_t *value;
    *out = (qn_train_result){.ctx = graph->ctx};
    out->norms = qn__calloc(graph->ctx, json_object_size(all), sizeof(*out->norms));
    qn_status status = out->norms == NULL ? QN_NOMEM(error) : QN_OK;
    json_object_foreach(all, name, value)
    {
        if (status == QN_OK)
            status = read_norm(recipe, graph, name, value, out, error);
    }
    if (status != QN_OK)
        qn__train_free(out);
    return status;
}

static json_t *values_json(const float *values, size_t count, bool *ok)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        *ok &= json_array_append_new(list, json_real((double)values[i])) == 0;
    return list;
}

struct json_t *qn__recipe_norms_json(const qn_train_norm *norms, size_t n_norms, bool *ok)
{
    json_t *all = json_object();
    for (size_t i = 0; i < n_norms; i++) {
        json_t *pair = json_array();
        *ok &= json_array_append_new(pair, values_json(norms[i].mean, norms[i].channels, ok)) == 0;
        *ok &=
            json_array_append_new(pair, values_json(norms[i].variance, norms[i].channels, ok)) == 0;
        *ok &= json_object_set_new(all, norms[i].name, pair) == 0;
    }
    return all;
}
