/* From a graph with symbolic dimensions to one that can be planned: bind the inputs' dims in a
 * clone, infer shapes and fold what is constant. */
#include "run/plan.h"

static qn_status bind_dim(const qn_plan_options *options, const qn_tensor *input, size_t axis,
                          const char *batch_symbol, int64_t *out, qn_error *error)
{
    const qn_dim dim = input->dims[axis];
    const bool is_batch = axis == 0 || (dim.kind == QN_DIM_SYMBOL && dim.symbol == batch_symbol);
    const int64_t bound = is_batch ? options->batch : options->symbol;
    if (dim.kind == QN_DIM_CONST) {
        *out = dim.value;
        return QN_OK;
    }
    QN_FAIL_IF(bound <= 0, error, QN_INVALID_ARGUMENT,
               "input \"%s\": dimension %zu%s%s has no size; give the input's dimensions",
               input->name, axis, dim.kind == QN_DIM_SYMBOL ? " " : "",
               dim.kind == QN_DIM_SYMBOL ? dim.symbol : "");
    const int64_t factor = dim.kind == QN_DIM_SYMBOL ? dim.value : 1;
    QN_FAIL_IF(factor <= 0 || bound > INT64_MAX / factor, error, QN_LIMIT,
               "input \"%s\": dimension %zu is too large", input->name, axis);
    *out = bound * factor;
    return QN_OK;
}

static qn_status bind_input(qn_graph *graph, const qn_plan_options *options, size_t index,
                            qn_error *error)
{
    qn_tensor *const input = graph->inputs[index];
    const int64_t(*const given)[QN_MAX_RANK] = options->input_dims;
    QN_FAIL_IF(!input->has_shape, error, QN_UNSUPPORTED, "input \"%s\" has no known rank",
               input->name);
    const char *batch_symbol = NULL;
    for (size_t i = 0; i < graph->n_inputs && batch_symbol == NULL; i++) {
        const qn_tensor *const t = graph->inputs[i];
        if (t->has_shape && t->rank > 0 && t->dims[0].kind == QN_DIM_SYMBOL)
            batch_symbol = t->dims[0].symbol;
    }
    int64_t dims[QN_MAX_RANK] = {0};
    for (size_t i = 0; i < input->rank; i++) {
        if (given == NULL) {
            QN_TRY(bind_dim(options, input, i, batch_symbol, &dims[i], error));
            continue;
        }
        dims[i] = given[index][i];
        QN_FAIL_IF(dims[i] < 0 ||
                       (input->dims[i].kind == QN_DIM_CONST && input->dims[i].value != dims[i]),
                   error, QN_INVALID_ARGUMENT,
                   "input \"%s\": dimension %zu cannot be %lld (the model says %lld)", input->name,
                   i, (long long)dims[i], (long long)input->dims[i].value);
    }
    qn__tensor_set_shape(input, input->rank, dims);
    return QN_OK;
}

/* Shapes found with symbols in them are found again from the bound inputs. */
static void forget_shapes(qn_graph *graph)
{
    for (size_t i = 0; i < graph->n_nodes; i++) {
        for (uint32_t o = 0; o < graph->nodes[i]->n_outputs; o++) {
            qn_tensor *const t = graph->nodes[i]->outputs[o];
            if (t == NULL)
                continue;
            t->has_shape = false;
            t->value_dims = NULL;
            t->n_value_dims = 0;
        }
    }
}

static qn_status bind(qn_graph *graph, const qn_plan_options *options, qn_error *error)
{
    for (size_t i = 0; i < graph->n_inputs; i++)
        QN_TRY(bind_input(graph, options, i, error));
    forget_shapes(graph);
    return qn__graph_resolve(graph, (size_t)1 << 28, error);
}

static qn_status create(const qn_graph *graph, const qn_plan_options *options, qn_graph **bound,
                        qn_plan **out, qn_error *error)
{
    QN_TRY(qn__graph_clone(graph, bound, error));
    QN_TRY(bind(*bound, options, error));
    QN_TRY(qn__arena_check(&(*bound)->arena, error));
    return qn__plan_make(*bound, graph, options, out, error);
}

qn_status qn__plan_create(const qn_graph *graph, const qn_plan_options *options, qn_plan **out,
                          qn_error *error)
{
    qn_plan_options defaults;
    qn_graph *bound = NULL;
    if (options == NULL) {
        qn__plan_options_init(&defaults, graph->ctx);
        options = &defaults;
    }
    const qn_status status = create(graph, options, &bound, out, error);
    if (status != QN_OK) {
        qn__graph_destroy(bound);
        return graph->file != NULL ? qn__error_prefix(error, status, "%s", graph->file) : status;
    }
    (*out)->bound = bound;
    return QN_OK;
}
