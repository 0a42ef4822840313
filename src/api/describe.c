/* What is in a model, as text for people or as JSON: inputs, outputs, nodes with shapes,
 * quantization, multiply-accumulates and bytes. */
#include "core/strbuf.h"
#include "quant/model.h"
#include "quench/quantize.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#define MAX_TEXT_BYTES ((size_t)512 << 20)

/* jansson takes the reference; out of memory makes *ok false. */
static void put(json_t *object, const char *key, json_t *value, bool *ok)
{
    *ok &= json_object_set_new(object, key, value) == 0;
}

static uint64_t constant_bytes(const qn_tensor *t)
{
    return t->constant != NULL ? t->constant->size_bytes : 0;
}

static uint64_t node_bytes(const qn_node *node)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < node->n_inputs; i++)
        if (node->inputs[i] != NULL)
            total += constant_bytes(node->inputs[i]);
    return total;
}

static bool is_quantized(const qn_node *node)
{
    for (uint32_t i = 0; i < node->n_inputs; i++)
        if (node->inputs[i] != NULL && node->inputs[i]->type.kind == QN_TYPE_QUANT)
            return node->op != QN_OP_DEQUANTIZE_LINEAR;
    return false;
}

/* --- JSON --------------------------------------------------------------------------------------*/
static json_t *shape_json(const qn_tensor *t, bool *ok)
{
    json_t *list = json_array();
    for (uint32_t i = 0; t->has_shape && i < t->rank; i++) {
        const qn_dim d = t->dims[i];
        json_t *value = d.kind == QN_DIM_CONST    ? json_integer((json_int_t)d.value)
                        : d.kind == QN_DIM_SYMBOL ? json_string(d.symbol)
                                                  : json_null();
        *ok &= json_array_append_new(list, value) == 0;
    }
    return list;
}

static json_t *quant_json(const qn_quant *q, bool *ok)
{
    json_t *o = json_object();
    put(o, "bits", json_integer(q->bits), ok);
    put(o, "signed", json_boolean(q->is_signed), ok);
    put(o, "axis", json_integer(q->axis), ok);
    json_t *scales = json_array(), *zeros = json_array();
    for (size_t i = 0; i < q->n_scales && q->scales != NULL; i++) {
        *ok &= json_array_append_new(scales, json_real((double)q->scales[i])) == 0;
        *ok &= json_array_append_new(
                   zeros, json_integer(q->zero_points != NULL ? q->zero_points[i] : 0)) == 0;
    }
    put(o, "scales", scales, ok);
    put(o, "zero_points", zeros, ok);
    return o;
}

static json_t *tensor_json(const qn_tensor *t, bool *ok)
{
    json_t *o = json_object();
    put(o, "name", json_string(t->name), ok);
    put(o, "dtype", json_string(qn__dtype_name(t->type.dtype)), ok);
    put(o, "shape", t->has_shape ? shape_json(t, ok) : json_null(), ok);
    if (t->constant != NULL)
        put(o, "bytes", json_integer((json_int_t)t->constant->size_bytes), ok);
    if (t->type.kind == QN_TYPE_QUANT)
        put(o, "quantization", quant_json(t->type.quant, ok), ok);
    return o;
}

static json_t *names_json(qn_tensor *const *list, size_t count, bool *ok)
{
    json_t *names = json_array();
    for (size_t i = 0; i < count; i++)
        *ok &= json_array_append_new(names, list[i] != NULL ? json_string(list[i]->name)
                                                            : json_null()) == 0;
    return names;
}

static json_t *node_json(const qn_node *node, uint64_t macs, bool *ok)
{
    json_t *o = json_object();
    put(o, "name", json_string(node->name), ok);
    put(o, "op", json_string(qn__op_name(node->op)), ok);
    put(o, "inputs", names_json(node->inputs, node->n_inputs, ok), ok);
    put(o, "outputs", names_json(node->outputs, node->n_outputs, ok), ok);
    put(o, "int8", json_boolean(is_quantized(node)), ok);
    put(o, "macs", json_integer((json_int_t)macs), ok);
    put(o, "bytes", json_integer((json_int_t)node_bytes(node)), ok);
    return o;
}

static int append(const char *data, size_t size, void *arg)
{
    qn__strbuf_append(arg, data, size);
    return 0;
}

static bool describe_json(const qn_graph *g, const qn_graph *bound, qn_strbuf *out)
{
    bool ok = true;
    json_t *root = json_object();
    json_t *inputs = json_array(), *outputs = json_array(), *nodes = json_array(),
           *tensors = json_array();
    for (size_t i = 0; i < g->n_inputs; i++)
        ok &= json_array_append_new(inputs, tensor_json(g->inputs[i], &ok)) == 0;
    for (size_t i = 0; i < g->n_outputs; i++)
        ok &= json_array_append_new(outputs, tensor_json(g->outputs[i], &ok)) == 0;
    for (size_t i = 0; i < g->n_nodes; i++)
        ok &= json_array_append_new(
                  nodes, node_json(g->nodes[i], qn__node_macs(bound->nodes[i]), &ok)) == 0;
    for (size_t i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->constant != NULL || g->tensors[i]->producer != NULL)
            ok &= json_array_append_new(tensors, tensor_json(g->tensors[i], &ok)) == 0;
    put(root, "inputs", inputs, &ok);
    put(root, "outputs", outputs, &ok);
    put(root, "nodes", nodes, &ok);
    put(root, "tensors", tensors, &ok);
    ok = ok && json_dump_callback(root, append, out, JSON_REAL_PRECISION(9)) == 0;
    json_decref(root);
    return ok;
}

/* --- text --------------------------------------------------------------------------------------*/
static void shape_text(const qn_tensor *t, qn_strbuf *out)
{
    if (!t->has_shape) {
        qn__strbuf_puts(out, "[?]");
        return;
    }
    qn__strbuf_puts(out, "[");
    for (uint32_t i = 0; i < t->rank; i++) {
        const qn_dim d = t->dims[i];
        if (i > 0)
            qn__strbuf_puts(out, "x");
        if (d.kind == QN_DIM_CONST)
            qn__strbuf_printf(out, "%" PRId64, d.value);
        else
            qn__strbuf_puts(out, d.kind == QN_DIM_SYMBOL ? d.symbol : "?");
    }
    qn__strbuf_puts(out, "]");
}

static void quant_text(const qn_tensor *t, qn_strbuf *out)
{
    const qn_quant *q = t->type.quant;
    if (t->type.kind != QN_TYPE_QUANT)
        return;
    if (q->n_scales == 1)
        qn__strbuf_printf(out, " scale %.6g zero %d", (double)q->scales[0],
                          q->zero_points != NULL ? q->zero_points[0] : 0);
    else
        qn__strbuf_printf(out, " %zu scales, axis %d", q->n_scales, q->axis);
}

static void value_text(const char *what, const qn_tensor *t, qn_strbuf *out)
{
    qn__strbuf_printf(out, "%s %s %s ", what, t->name, qn__dtype_name(t->type.dtype));
    shape_text(t, out);
    quant_text(t, out);
    qn__strbuf_puts(out, "\n");
}

static void node_text(const qn_node *node, const qn_node *bound, qn_strbuf *out)
{
    qn__strbuf_printf(out, "%-20s %-32s ", qn__op_name(node->op), node->name);
    const qn_tensor *t = bound->n_outputs > 0 ? bound->outputs[0] : NULL;
    if (t != NULL) {
        qn__strbuf_printf(out, "%s ", qn__dtype_name(t->type.dtype));
        shape_text(t, out);
        quant_text(t, out);
    }
    for (uint32_t i = 1; i < node->n_inputs && i < 2; i++) {
        const qn_tensor *w = node->inputs[i];
        if (w == NULL || w->constant == NULL)
            continue;
        qn__strbuf_printf(out, "  weights %s ", qn__dtype_name(w->type.dtype));
        shape_text(w, out);
        quant_text(w, out);
    }
    const uint64_t macs = qn__node_macs(bound), bytes = node_bytes(node);
    if (macs > 0)
        qn__strbuf_printf(out, "  %.3f MMAC", (double)macs * 1e-6);
    if (bytes > 0)
        qn__strbuf_printf(out, "  %" PRIu64 " bytes", bytes);
    qn__strbuf_puts(out, "\n");
}

static void describe_text(const qn_model *model, const qn_graph *bound, qn_strbuf *out)
{
    const qn_graph *g = model->graph;
    uint64_t macs = 0, macs_int8 = 0, bytes = 0;
    for (size_t i = 0; i < g->n_inputs; i++)
        value_text("input ", g->inputs[i], out);
    for (size_t i = 0; i < g->n_outputs; i++)
        value_text("output", g->outputs[i], out);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const uint64_t m = qn__node_macs(bound->nodes[i]);
        node_text(g->nodes[i], bound->nodes[i], out);
        macs += m;
        macs_int8 += is_quantized(g->nodes[i]) ? m : 0;
    }
    for (size_t i = 0; i < g->n_tensors; i++)
        bytes += constant_bytes(g->tensors[i]);
    qn__strbuf_printf(out, "%zu nodes, %.3f million multiply-accumulates (%.1f %% int8), ",
                      g->n_nodes, (double)macs * 1e-6,
                      macs > 0 ? 100.0 * (double)macs_int8 / (double)macs : 0.0);
    qn__strbuf_printf(out, "%" PRIu64 " bytes of constants, file %" PRIu64 " bytes\n", bytes,
                      model->file_bytes);
}

qn_status qn_model_describe(const qn_model *model, bool json, char **text, qn_error *error)
{
    qn_graph *bound = NULL;
    qn_strbuf out;
    QN_FAIL_IF(model == NULL || text == NULL, error, QN_INVALID_ARGUMENT,
               "qn_model_describe: NULL argument");
    QN_TRY(qn__graph_bound(model->graph, NULL, 1, &bound, error));
    qn__strbuf_init(&out, model->ctx, MAX_TEXT_BYTES);
    bool ok = true;
    if (json)
        ok = describe_json(model->graph, bound, &out);
    else
        describe_text(model, bound, &out);
    qn__graph_destroy(bound);
    if (!ok || out.failed || out.data == NULL) {
        qn__strbuf_free(&out);
        return QN_NOMEM(error);
    }
    *text = out.data;
    return QN_OK;
}

void qn_text_destroy(const qn_context *ctx, char *text)
{
    if (ctx != NULL)
        qn__free(ctx, text);
}

qn_status qn_text_save(const qn_context *ctx, const char *path, const char *text, qn_error *error)
{
    QN_FAIL_IF(ctx == NULL || path == NULL || text == NULL, error, QN_INVALID_ARGUMENT,
               "qn_text_save: NULL argument");
    return qn__file_write_all(ctx, path, text, strlen(text), error);
}
