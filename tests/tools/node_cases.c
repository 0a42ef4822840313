/* node_cases LIST: runs many small models in one process. A line of LIST is MODEL OUT INPUT...,
 * separated by tabs: the model is read, simplified, planned for the inputs' dimensions and run; its
 * outputs go to OUT. Every array in a file is: int64 dtype (ONNX's code), int64 rank, int64 dims,
 * row-major elements, to a multiple of 8 bytes. Prints MODEL, status and message for each line. */
#include "core/alloc.h"
#include "core/context.h"
#include "core/io.h"
#include "core/threads.h"
#include "format/format.h"
#include "pass/pass.h"
#include "run/nd.h"
#include "run/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FIELDS = 64 };

typedef struct run_case {
    qn_graph *graph;
    qn_plan *plan;
    qn_exec *exec;
    qn_file_view views[MAX_FIELDS];
    const void *inputs[MAX_FIELDS];
    int64_t dims[MAX_FIELDS][QN_MAX_RANK];
    size_t opened;
} run_case;

static qn_status open_inputs(qn_context *ctx, run_case *c, char **paths, size_t n, qn_error *error)
{
    QN_FAIL_IF(c->graph->n_inputs != n, error, QN_INVALID_ARGUMENT, "%zu inputs are needed",
               c->graph->n_inputs);
    for (; c->opened < n; c->opened++) {
        const size_t i = c->opened;
        const qn_tensor *const t = c->graph->inputs[i];
        QN_TRY(qn__file_open(ctx, paths[i], &c->views[i], error));
        const int64_t *const head = (const void *)c->views[i].data;
        QN_FAIL_IF(qn__dtype_of_onnx(head[0]) != t->type.dtype ||
                       (t->has_shape && head[1] != t->rank),
                   error, QN_INVALID_ARGUMENT, "input %zu: dtype %d or rank %d does not fit", i,
                   (int)head[0], (int)head[1]);
        for (int64_t k = 0; k < head[1]; k++)
            c->dims[i][k] = head[2 + k];
        c->inputs[i] = head + 2 + head[1];
    }
    return QN_OK;
}

static qn_status write_outputs(qn_context *ctx, const run_case *c, const char *path,
                               qn_error *error)
{
    FILE *const file = fopen(path, "wb");
    QN_FAIL_IF(file == NULL, error, QN_IO, "%s: cannot be written", path);
    qn_status status = QN_OK;
    for (size_t i = 0; i < c->graph->n_outputs && status == QN_OK; i++) {
        const qn_view *const view = qn__exec_output(c->exec, i);
        const qn_dtype dtype = view->tensor->type.dtype;
        size_t bytes = 0;
        qn__dtype_bytes(&bytes, dtype, view->count);
        const size_t padded = (bytes + 7) & ~(size_t)7;
        const int64_t head[2] = {qn__dtype_onnx(dtype), view->rank};
        uint8_t *const data = qn__calloc(ctx, padded + 8, 1);
        if (data == NULL) {
            status = QN_NOMEM(error);
            break;
        }
        if (qn__dtype_bits(dtype) < 8)
            memcpy(data, view->data, bytes);
        else
            qn__convert_layout(NULL, data, QN_LAYOUT_ROW_MAJOR, view->data, view->layout,
                               view->rank, view->dims, qn__dtype_bits(dtype) / 8);
        fwrite(head, sizeof(head), 1, file);
        fwrite(view->dims, sizeof(int64_t), view->rank, file);
        fwrite(data, 1, padded, file);
        qn__free(ctx, data);
    }
    fclose(file);
    return status;
}

static qn_status run(qn_context *ctx, char **fields, size_t n, qn_error *error)
{
    static run_case c;
    memset(&c, 0, sizeof(c));
    qn_pass_options passes;
    qn__pass_options_init(&passes);
    passes.resolve = qn__graph_resolve;
    qn_plan_options options;
    qn__plan_options_init(&options, ctx);
    options.input_dims = (const int64_t(*)[QN_MAX_RANK])c.dims;
    qn_status status;
    QN_TRY_GOTO(qn__format_read(ctx, fields[0], &c.graph, error));
    QN_TRY_GOTO(qn__passes_simplify(c.graph, &passes, error));
    QN_TRY_GOTO(open_inputs(ctx, &c, fields + 2, n - 2, error));
    QN_TRY_GOTO(qn__plan_create(c.graph, &options, &c.plan, error));
    QN_TRY_GOTO(qn__exec_create(c.plan, NULL, &c.exec, error));
    QN_TRY_GOTO(qn__exec_run(c.exec, c.inputs, error));
    QN_TRY_GOTO(write_outputs(ctx, &c, fields[1], error));
done:
    while (c.opened > 0)
        qn__file_close(ctx, &c.views[--c.opened]);
    qn__exec_destroy(c.exec);
    qn__plan_destroy(c.plan);
    qn__graph_destroy(c.graph);
    return status;
}

int main(int argc, char **argv)
{
    FILE *const list = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (list == NULL) {
        fprintf(stderr, "usage: node_cases LIST\n");
        return 2;
    }
    qn_context_options options;
    qn_context_options_init(&options);
    qn_context *ctx = NULL;
    qn_error error = {0};
    if (qn_context_create(&options, &ctx, &error) != QN_OK) {
        fprintf(stderr, "error: %s\n", error.message);
        return 1;
    }
    static char line[1 << 16];
    while (fgets(line, sizeof(line), list) != NULL) {
        char *fields[MAX_FIELDS], *rest = NULL;
        size_t n = 0;
        line[strcspn(line, "\n")] = '\0';
        for (char *at = strtok_r(line, "\t", &rest); at != NULL && n < MAX_FIELDS;
             at = strtok_r(NULL, "\t", &rest))
            fields[n++] = at;
        if (n < 2)
            continue;
        error = (qn_error){0};
        const qn_status status = run(ctx, fields, n, &error);
        printf("%s\t%s\t%s\n", fields[0], qn_status_name(status), error.message);
        fflush(stdout);
    }
    qn_context_destroy(ctx);
    fclose(list);
    return 0;
}
