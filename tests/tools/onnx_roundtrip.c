/* onnx_roundtrip IN OUT [qdq|qoperator|dedicated|bare|simplified] [dump]: reads a model and writes
 * it again; "bare" forgets the source document first, "simplified" runs the passes on it. */
#include <stdio.h>
#include <string.h>

#include "core/context.h"
#include "core/strbuf.h"
#include "format/format.h"
#include "pass/pass.h"

int main(int argc, char **argv)
{
    qn_error error;
    qn_context *ctx = NULL;
    qn_graph *graph = NULL;
    if (argc < 3)
        return 2;
    const char *mode = argc > 3 ? argv[3] : "qdq";
    qn_write_options options = {.dedicated_pairs = strcmp(mode, "dedicated") == 0};
    options.format = strcmp(mode, "qoperator") == 0 ? QN_WRITE_QOPERATOR : QN_WRITE_QDQ;
    qn_status status = qn_context_create(NULL, &ctx, &error);
    if (status == QN_OK)
        status = qn__format_read(ctx, argv[1], &graph, &error);
    if (status == QN_OK && strcmp(mode, "bare") == 0) {
        qn__source_unref(graph->source);
        graph->source = NULL;
        for (size_t i = 0; i < graph->n_tensors; i++)
            graph->tensors[i]->source = -1;
        for (size_t i = 0; i < graph->n_nodes; i++) {
            graph->nodes[i]->n_sources = 0;
            graph->nodes[i]->act_source = -1;
        }
    }
    if (status == QN_OK && strcmp(mode, "simplified") == 0) {
        qn_pass_options passes;
        qn__pass_options_init(&passes);
        status = qn__passes_simplify(graph, &passes, &error);
    }
    if (status == QN_OK && argc > 4) {
        qn_strbuf text;
        qn__strbuf_init(&text, ctx, 1u << 26);
        qn__graph_dump(graph, &text);
        if (text.data)
            fputs(text.data, stdout);
        qn__strbuf_free(&text);
    }
    if (status == QN_OK)
        status = qn__format_write(graph, argv[2], &options, NULL, &error);
    if (status != QN_OK)
        fprintf(stderr, "error: %s: %s\n", qn_status_name(status), error.message);
    qn__graph_destroy(graph);
    qn_context_destroy(ctx);
    return status == QN_OK ? 0 : 1;
}
