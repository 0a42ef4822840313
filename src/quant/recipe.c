/* Replaying a recipe: what it says goes into the plan. qn__recipe_check has looked at everything
 * that does not depend on the model. */
#include "core/base64.h"
#include "core/io.h"
#include "core/nearest.h"
#include "quant/quant.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

qn_status qn__recipe_load(const qn_context *ctx, const char *path, qn_recipe *out, qn_error *error)
{
    qn_file_view view;
    json_error_t where;
    QN_TRY(qn__file_open(ctx, path, &view, error));
    *out = (qn_recipe){.ctx = ctx, .path = qn__strdup(ctx, path)};
    if (out->path != NULL)
        out->root =
            json_loadb((const char *)view.data, view.size_bytes, JSON_REJECT_DUPLICATES, &where);
    qn__file_close(ctx, &view);
    qn_status status = QN_OK;
    if (out->path == NULL)
        status = QN_NOMEM(error);
    else if (out->root == NULL)
        status = qn__error_set(error, QN_CORRUPT, "%s:%d:%d: %s", path, where.line, where.column,
                               where.text);
    else
        status = qn__recipe_check(out, error);
    if (status != QN_OK)
        qn__recipe_free(out);
    return status;
}

void qn__recipe_free(qn_recipe *recipe)
{
    if (recipe->ctx == NULL)
        return;
    json_decref(recipe->root);
    qn__free(recipe->ctx, recipe->path);
    *recipe = (qn_recipe){0};
}

const char *qn__recipe_setting(const qn_recipe *recipe, const char *key)
{
    return json_string_value(json_object_get(recipe->root, key));
}

uint32_t qn__recipe_number(const qn_recipe *recipe, const char *key)
{
    return (uint32_t)json_integer_value(json_object_get(recipe->root, key));
}

int64_t qn__recipe_batch(const qn_recipe *recipe, int64_t fallback)
{
    const json_t *value = json_object_get(recipe->root, "batch");
    return value == NULL ? fallback : (int64_t)json_integer_value(value);
}

size_t qn__recipe_n_overrides(const qn_recipe *recipe)
{
    return json_array_size(json_object_get(recipe->root, "overrides"));
}

void qn__recipe_override(const qn_recipe *recipe, size_t index, qn_override *out)
{
    const json_t *o = json_array_get(json_object_get(recipe->root, "overrides"), index);
    *out = (qn_override){json_string_value(json_object_get(o, "name")),
                         json_string_value(json_object_get(o, "key")),
                         json_string_value(json_object_get(o, "value"))};
}

qn_status qn__recipe_ranges(const qn_recipe *recipe, qn_quant_plan *plan, qn_error *error)
{
    json_t *const ranges = json_object_get(recipe->root, "ranges");
    const char *name;
    json_t *value;
    json_object_foreach(ranges, name, value)
    {
        const qn_tensor *t = qn__graph_find_tensor(plan->graph, name);
        if (t == NULL) {
            char guess[256];
            qn_nearest nearest;
            qn__nearest_init(&nearest, name, strlen(name));
            for (size_t i = 0; i < plan->graph->n_tensors; i++)
                qn__nearest_try(&nearest, plan->graph->tensors[i]->name);
            QN_FAIL(error, QN_INVALID_ARGUMENT, "%s: ranges[\"%s\"]: no such tensor in the model%s",
                    recipe->path, name, qn__nearest_text(&nearest, guess, sizeof(guess)));
        }
        qn_tensor_plan *p = &plan->tensors[t->id];
        p->has_range = true;
        p->lo = (float)json_number_value(json_array_get(value, 0));
        p->hi = (float)json_number_value(json_array_get(value, 1));
    }
    return QN_OK;
}

/* A list of one float for each output channel of a quantized node, in the plan's arena. */
static qn_status read_channels(const qn_recipe *recipe, qn_quant_plan *plan, const char *section,
                               size_t position, const json_t *list, float **out, qn_error *error)
{
    const qn_node *node = plan->graph->nodes[position];
    qn_weight_view view;
    const size_t count = json_array_size(list);
    QN_FAIL_IF(!plan->nodes[position].quantized || plan->nodes[position].rule != QN_RULE_WEIGHTS ||
                   !qn__weight_view(node, &view),
               error, QN_INVALID_ARGUMENT, "%s: %s[\"%s\"]: the node has no integer weights",
               recipe->path, section, node->name);
    QN_FAIL_IF(count != view.channels, error, QN_INVALID_ARGUMENT,
               "%s: %s[\"%s\"]: expected %zu numbers, one per output channel, found %zu",
               recipe->path, section, node->name, view.channels, count);
    float *values = qn__arena_calloc(&plan->arena, count, sizeof(*values));
    if (values == NULL)
        return QN_NOMEM(error);
    for (size_t c = 0; c < count; c++)
        values[c] = (float)json_number_value(json_array_get(list, c));
    *out = values;
    return QN_OK;
}

static qn_status find_position(const qn_recipe *recipe, const qn_graph *graph, const char *section,
                               const char *name, size_t *out, qn_error *error)
{
    size_t n = 0;
    while (n < graph->n_nodes && strcmp(graph->nodes[n]->name, name) != 0)
        n++;
    if (n == graph->n_nodes) {
        char guess[256];
        qn_nearest nearest;
        qn__nearest_init(&nearest, name, strlen(name));
        for (size_t i = 0; i < graph->n_nodes; i++)
            qn__nearest_try(&nearest, graph->nodes[i]->name);
        QN_FAIL(error, QN_INVALID_ARGUMENT, "%s: %s[\"%s\"]: no such node in the model%s",
                recipe->path, section, name, qn__nearest_text(&nearest, guess, sizeof(guess)));
    }
    *out = n;
    return QN_OK;
}

static qn_status read_integers(const qn_recipe *recipe, qn_quant_plan *plan, size_t position,
                               const json_t *text, qn_error *error)
{
    const qn_node *node = plan->graph->nodes[position];
    qn_weight_view view;
    QN_FAIL_IF(!plan->nodes[position].quantized || plan->nodes[position].rule != QN_RULE_WEIGHTS ||
                   !qn__weight_view(node, &view),
               error, QN_INVALID_ARGUMENT, "%s: integers[\"%s\"]: the node has no integer weights",
               recipe->path, node->name);
    const size_t count = view.channels * view.k;
    int8_t *integers = qn__arena_alloc(&plan->arena, count);
    if (integers == NULL)
        return QN_NOMEM(error);
    bool good =
        qn__base64_decode(json_string_value(text), json_string_length(text), integers, count);
    const qn_levels *levels = &plan->nodes[position].weights.levels;
    for (size_t i = 0; good && i < count; i++)
        good = qn__levels_round_one(levels, (float)integers[i], 1.0f) == integers[i];
    QN_FAIL_IF(!good, error, QN_CORRUPT,
               "%s: integers[\"%s\"]: expected %zu %s levels within -%d..%d in base64",
               recipe->path, node->name, count, qn__level_set_name(levels->set), (int)levels->qmax,
               (int)levels->qmax);
    plan->nodes[position].integers = integers;
    return QN_OK;
}

/* Scales that belong to the integers read. */
static qn_status read_scales(const qn_recipe *recipe, qn_quant_plan *plan, qn_error *error)
{
    json_t *const scales = json_object_get(recipe->root, "scales");
    const char *name;
    json_t *value;
    json_object_foreach(scales, name, value)
    {
        size_t n = 0;
        float *list = NULL;
        QN_TRY(find_position(recipe, plan->graph, "scales", name, &n, error));
        QN_TRY(read_channels(recipe, plan, "scales", n, value, &list, error));
        if (plan->nodes[n].integers != NULL) /* removed to have them chosen again */
            plan->nodes[n].scales = list;
    }
    return QN_OK;
}

qn_status qn__recipe_integers(const qn_recipe *recipe, qn_quant_plan *plan, qn_error *error)
{
    json_t *const integers = json_object_get(recipe->root, "integers");
    const char *name;
    json_t *value;
    json_object_foreach(integers, name, value)
    {
        size_t n = 0;
        QN_TRY(find_position(recipe, plan->graph, "integers", name, &n, error));
        QN_TRY(read_integers(recipe, plan, n, value, error));
    }
    return read_scales(recipe, plan, error);
}

qn_status qn__recipe_biases(const qn_recipe *recipe, qn_quant_plan *plan, float **shifts,
                            bool *found, qn_error *error)
{
    json_t *const biases = json_object_get(recipe->root, "biases");
    const char *name;
    json_t *value;
    *found = biases != NULL;
    json_object_foreach(biases, name, value)
    {
        size_t n = 0;
        QN_TRY(find_position(recipe, plan->graph, "biases", name, &n, error));
        QN_TRY(read_channels(recipe, plan, "biases", n, value, &shifts[n], error));
    }
    return QN_OK;
}

qn_status qn__recipe_equalization(const qn_recipe *recipe, qn_graph *graph, qn_equalization *list,
                                  bool *found, qn_error *error)
{
    json_t *const all = json_object_get(recipe->root, "equalization");
    const char *name;
    json_t *value;
    *found = all != NULL;
    json_object_foreach(all, name, value)
    {
        size_t n = 0;
        QN_TRY(find_position(recipe, graph, "equalization", name, &n, error));
        const size_t count = json_array_size(value);
        int32_t *e = qn__arena_calloc(&graph->arena, count, sizeof(*e));
        if (e == NULL)
            return QN_NOMEM(error);
        for (size_t c = 0; c < count; c++)
            e[c] = (int32_t)json_integer_value(json_array_get(value, c));
        list->exponents[n] = e;
        list->n_exponents[n] = count;
    }
    return QN_OK;
}
