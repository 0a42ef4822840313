/* float_run MODEL THREADS CPU_MASK INPUT...: reads, simplifies and runs a float model; each INPUT
 * is a file of raw float32 in graph input order. Writes the outputs' raw float32 to stdout, one
 * after the other. */
#include "core/alloc.h"
#include "core/context.h"
#include "core/io.h"
#include "core/threads.h"
#include "format/format.h"
#include "pass/pass.h"
#include "run/run.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_INPUTS = 16 };

static qn_status run(qn_context *ctx, qn_pool *pool, const char *path, size_t n_inputs,
                     char **input_paths, qn_error *error)
{
    qn_graph *graph = NULL;
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    qn_file_view views[MAX_INPUTS];
    const void *inputs[MAX_INPUTS];
    size_t opened = 0;
    qn_pass_options passes;
    qn__pass_options_init(&passes);
    passes.resolve = qn__graph_resolve;
    qn_plan_options options;
    qn__plan_options_init(&options, ctx);
    qn_status status;
    QN_TRY_GOTO(qn__format_read(ctx, path, &graph, error));
    QN_TRY_GOTO(qn__passes_simplify(graph, &passes, error));
    QN_TRY_GOTO(qn__plan_create(graph, &options, &plan, error));
    QN_TRY_GOTO(qn__exec_create(plan, pool, &exec, error));
    if (graph->n_inputs != n_inputs)
        QN_FAIL_GOTO(error, QN_INVALID_ARGUMENT, "%zu inputs are needed", graph->n_inputs);
    for (; opened < n_inputs; opened++) {
        QN_TRY_GOTO(qn__file_open(ctx, input_paths[opened], &views[opened], error));
        inputs[opened] = views[opened].data;
    }
    QN_TRY_GOTO(qn__exec_run(exec, inputs, error));
    for (size_t i = 0; i < graph->n_outputs; i++) {
        const qn_view *const view = qn__exec_output(exec, i);
        float *const values = qn__alloc(ctx, view->count * sizeof *values);
        if (values == NULL) {
            status = QN_NOMEM(error);
            goto done;
        }
        qn__view_to_f32(view, values);
        fwrite(values, sizeof *values, view->count, stdout);
        qn__free(ctx, values);
    }
done:
    while (opened > 0)
        qn__file_close(ctx, &views[--opened]);
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    qn__graph_destroy(graph);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 5 || argc > 4 + MAX_INPUTS) {
        fprintf(stderr, "usage: float_run MODEL THREADS CPU_MASK INPUT...\n");
        return 2;
    }
    qn_context_options options;
    qn_context_options_init(&options);
    options.n_threads = (uint32_t)strtoul(argv[2], NULL, 10);
    options.cpu_mask = argv[3];
    qn_context *ctx = NULL;
    qn_pool *pool = NULL;
    qn_error error = {0};
    qn_status status = qn_context_create(&options, &ctx, &error);
    if (status == QN_OK)
        status = qn__pool_create(ctx, options.n_threads, &pool, &error);
    if (status == QN_OK)
        status = run(ctx, pool, argv[1], (size_t)argc - 4, argv + 4, &error);
    if (ctx != NULL)
        qn__pool_destroy(ctx, pool);
    qn_context_destroy(ctx);
    if (status != QN_OK)
        fprintf(stderr, "error: %s\n", error.message);
    return status == QN_OK ? 0 : 1;
}
