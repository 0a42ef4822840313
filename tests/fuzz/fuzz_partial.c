/* Bytes as an ONNX file of which what cannot be run is set aside: what is left verifies, is written
 * with what was set aside, and read the same way again. With clang's libFuzzer (QN_FUZZ) this is a
 * fuzzer; otherwise replay.c calls it. */
#include "property/onnx_try.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static onnx_place place;
static qn_context *ctx;

static void leave(void)
{
    onnx_leave(&place, ctx);
}

static void demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static qn_status read_bytes(const uint8_t *data, size_t size, qn_graph **graph, qn_error *error)
{
    qn_blob *const blob = qn__blob_copy(ctx, data, size);
    demand(blob != NULL, "no memory");
    const qn_status status = qn__onnx_read_partial(ctx, place.path, blob, graph, error);
    qn__blob_unref(blob);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (ctx == NULL) {
        ctx = onnx_enter(&place);
        demand(ctx != NULL && atexit(leave) == 0, "no context");
    }
    qn_graph *graph = NULL, *again = NULL;
    qn_error error = {0};
    const qn_status status = read_bytes(data, size, &graph, &error);
    if (status != QN_OK) {
        const char *const wrong = onnx_refusal(status, &error);
        demand(graph == NULL && wrong == NULL, wrong != NULL ? wrong : "a graph with an error");
        return 0;
    }
    demand(qn__graph_verify(graph, NULL) == QN_OK, "the graph does not verify");
    const qn_status wrote = qn__format_write(graph, "o.onnx", NULL, NULL, &error);
    demand(wrote != QN_INTERNAL && wrote != QN_NO_MEMORY, error.message);
    if (wrote == QN_OK) {
        const qn_status read = read_bytes(place.written.data, place.written.size, &again, &error);
        demand(read == QN_OK, error.message);
        demand(again->source->n_aside == graph->source->n_aside, "other nodes were set aside");
        qn__graph_destroy(again);
    }
    qn__graph_destroy(graph);
    return 0;
}
