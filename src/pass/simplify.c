/* Runs the passes. */
#include "pass/pass.h"

#include "core/context.h"

void qn__pass_options_init(qn_pass_options *options)
{
    *options = (qn_pass_options){.resolve = NULL,
                                 .resolve_max_bytes = (size_t)64 << 20,
                                 .fuse_activations = true,
                                 .fold_batch_norm = true};
}

typedef struct pass_info {
    const char *name;
    qn_status (*run)(qn_graph *graph, const qn_pass_options *options, qn_error *error);
} pass_info;

static const pass_info PASSES[] = {
#define QN_PASS(function, summary) {#function, function},
#include "pass/pass_list.def"
#undef QN_PASS
};

qn_status qn__passes_simplify(qn_graph *graph, const qn_pass_options *options, qn_error *error)
{
    if (options->resolve != NULL) {
        QN_TRY(options->resolve(graph, options->resolve_max_bytes, error));
        QN_TRY(qn__graph_verify(graph, error));
    } else {
        QN_TRY(qn__graph_infer(graph, error));
    }
    for (size_t i = 0; i < sizeof(PASSES) / sizeof(PASSES[0]); i++) {
        QN_TRY(PASSES[i].run(graph, options, error));
        QN_TRY(qn__arena_check(&graph->arena, error));
        const qn_status status = qn__graph_verify(graph, error);
        /* The graph came in whole, so a pass that leaves it broken is our bug. */
        if (status == QN_NO_MEMORY)
            return status;
        if (status != QN_OK)
            return qn__error_prefix(error, status == QN_CORRUPT ? QN_INTERNAL : status, "%s",
                                    PASSES[i].name);
    }
    return qn__graph_infer(graph, error);
}

qn_node *qn__pass_sole_producer(const qn_uses *uses, const qn_tensor *tensor)
{
    if (tensor == NULL || tensor->producer == NULL || uses->is_output[tensor->id] ||
        qn_uses_count(uses, tensor) != 1)
        return NULL;
    return tensor->producer;
}

void qn__pass_take_output(qn_node *node, qn_node *next)
{
    qn_tensor *result = next->outputs[0];
    qn__node_set_output(next, 0, NULL);
    qn__node_set_output(node, 0, result);
}
