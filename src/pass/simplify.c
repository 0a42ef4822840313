/* Runs the passes. */
#include "pass/pass.h"

#include "core/context.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void qn__pass_options_init(qn_pass_options *options)
{
    *options = (qn_pass_options){.resolve = NULL,
                                 .resolve_max_bytes = (size_t)64 << 20,
                                 .fuse_activations = true,
                                 .fold_batch_norm = true};
}

typedef struct pass_info {
    const char *name, *summary;
    qn_status (*run)(qn_graph *graph, const qn_pass_options *options, qn_error *error);
} pass_info;

static const pass_info PASSES[] = {
#define QN_PASS(function, summary) {#function, summary, function},
#include "pass/pass_list.def"
#undef QN_PASS
};

enum { N_PASSES = sizeof(PASSES) / sizeof(PASSES[0]), PREFIX = sizeof("qn__pass_") - 1 };
static_assert(N_PASSES <= 32, "a bit for each in qn_pass_options.without");

const char *qn__pass_name(size_t index)
{
    return index < N_PASSES ? PASSES[index].name + PREFIX : NULL;
}

/* --- what each did, for the log ----------------------------------------------------------------*/
typedef struct census {
    size_t n_nodes;
    uint32_t of_op[QN_OP_COUNT];
} census;

static void count_nodes(const qn_graph *graph, census *out)
{
    *out = (census){.n_nodes = graph->n_nodes};
    for (size_t n = 0; n < graph->n_nodes; n++)
        out->of_op[graph->nodes[n]->op]++;
}

/* "fuse_act (Relu and Clip go into ...): 12 nodes -> 9: Relu -3" */
static void tell(const qn_graph *graph, const char *name, const char *summary, census *before)
{
    census after;
    char text[600] = "";
    size_t used = 0;
    if (graph->ctx->log == NULL)
        return;
    count_nodes(graph, &after);
    for (size_t op = 0; op < QN_OP_COUNT && used < sizeof(text); op++) {
        const long more = (long)after.of_op[op] - (long)before->of_op[op];
        if (more != 0)
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%s %s %+ld",
                                     used > 0 ? "," : ":", qn__op_name((qn_op)op), more);
    }
    if (text[0] == '\0')
        qn__log(graph->ctx, QN_LOG_DEBUG, "%s (%s): no node less or more", name, summary);
    else
        qn__log(graph->ctx, QN_LOG_DEBUG, "%s (%s): %zu nodes -> %zu%s", name, summary,
                before->n_nodes, after.n_nodes, text);
    *before = after;
}

qn_status qn__passes_simplify(qn_graph *graph, const qn_pass_options *options, qn_error *error)
{
    census nodes;
    count_nodes(graph, &nodes);
    if (options->resolve != NULL) {
        QN_TRY(options->resolve(graph, options->resolve_max_bytes, error));
        QN_TRY(qn__graph_verify(graph, error));
        tell(graph, "resolve", "what constants alone decide is computed", &nodes);
    } else {
        QN_TRY(qn__graph_infer(graph, error));
    }
    for (size_t i = 0; i < N_PASSES; i++) {
        if ((options->without >> i & 1) != 0)
            continue;
        QN_TRY(PASSES[i].run(graph, options, error));
        QN_TRY(qn__arena_check(&graph->arena, error));
        const qn_status status = qn__graph_verify(graph, error);
        /* The graph came in whole, so a pass that leaves it broken is our bug. */
        if (status == QN_NO_MEMORY)
            return status;
        if (status != QN_OK)
            return qn__error_prefix(error, status == QN_CORRUPT ? QN_INTERNAL : status, "%s",
                                    PASSES[i].name);
        tell(graph, qn__pass_name(i), PASSES[i].summary, &nodes);
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
