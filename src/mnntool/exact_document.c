/* The document that MNN's tool writes after KL or ADMM: convolutions in integers where the tensors
 * on both sides have scales, a record for every scale, tables for unary operators. A convolution
 * that has no scales on one side keeps float weights, but rounded ones: the tool rounds them before
 * it knows. */
#include "mnntool/exact.h"
#include "mnntool/exact_weights.h"

#include <math.h>
#include <string.h>

enum { TABLE_HALF = 127, TABLE_SIZE = 2 * TABLE_HALF + 1 };

typedef struct editor {
    const qn_mnn_run *run;
    const qn_mnn_source *source;
    const qn_mnn_scales *scales;
    qn_fb_document *d;
    qn_fb_object **ops;    /* copies made so far replace the source's */
    const qn_node **nodes; /* [n_ops] convolutions of the graph with constant weights */
    int32_t clamp;         /* of weights */
    bool exact_bits, exact_admm;
} editor;

/* A copy of the operator that may be changed. */
static qn_fb_object *own_op(editor *e, size_t op)
{
    if (e->ops[op] == e->source->ops[op]) {
        qn_fb_object *copy = qn__fb_copy(e->d, e->ops[op]);
        if (copy == NULL)
            return NULL;
        e->ops[op] = copy;
    }
    return e->ops[op];
}

static const qn_mnn_tensor_quant *quant_of(const editor *e, size_t op, bool output)
{
    if (qn__mnn_op_count(e->source, op, output) == 0)
        return NULL;
    const int64_t id = qn__mnn_op_tensor(e->source, op, output, 0);
    if (id < 0 || !(e->scales->items[id].scale > 0))
        return NULL;
    return &e->scales->items[id];
}

/* --- weights ----------------------------------------------------------------------------------*/

static int32_t level_limit(uint32_t bits)
{
    return (1 << (bits - 1)) - 1;
}

static bool has_float_weights(const qn_fb_object *main)
{
    return qn__fb_has(main, QN_MNN_Convolution2D_weight) ||
           (!qn__fb_has(main, QN_MNN_Convolution2D_quanParameter) &&
            qn__fb_has(main, QN_MNN_Convolution2D_external));
}

static qn_status keep_rounded(editor *e, size_t op, const qn_mnn_packed *w, qn_error *error)
{
    qn_fb_object *copy = own_op(e, op);
    qn_fb_object *main =
        copy != NULL ? qn__fb_copy(e->d, qn__fb_table(copy, QN_MNN_Op_main)) : NULL;
    if (main == NULL || !qn__fb_set_vector(e->d, main, QN_MNN_Convolution2D_weight, w->values,
                                           w->rows * w->columns))
        return QN_NOMEM(error);
    qn__fb_set_union(e->d, copy, QN_MNN_Op_main, main);
    return QN_OK;
}

static qn_status store_integers(editor *e, size_t op, const qn_mnn_packed *w, int64_t channels,
                                const float *original, qn_error *error)
{
    const qn_context *ctx = e->run->ctx;
    const qn_mnn_config *config = e->run->config;
    const uint32_t bits = (uint32_t)config->bits;
    const float *values = w->values;
    float *scales = qn__calloc(ctx, w->rows, sizeof(*scales));
    int8_t *q = qn__calloc(ctx, w->rows, w->columns);
    qn_fb_object *copy = own_op(e, op);
    qn_status status = QN_OK;
    if (scales == NULL || q == NULL || copy == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    if (config->weight == QN_MNN_WEIGHT_ADMM) {
        if (!e->exact_admm)
            values = original;
        const float diff = qn__mnn_scales_admm(values, w->rows, w->columns, e->clamp, scales);
        qn__mnn_log(e->run, 100, "iter: 1000 with diff %g", (double)diff);
    } else {
        qn__mnn_scales_max_abs(values, w->rows, w->columns, e->clamp, scales);
    }
    qn__mnn_round_weights(values, w->rows, w->columns, bits, scales, q);
    qn__mnn_fill_scales(scales, w->rows);
    const qn_mnn_conv_edit edit = {.q = q,
                                   .scales = scales,
                                   .rows = w->rows,
                                   .columns = w->columns,
                                   .bits = bits,
                                   .nbits = e->exact_bits ? bits : 8,
                                   .linear = e->exact_bits || bits == 8,
                                   .sparse = bits >= 8,
                                   .clamp_min = e->exact_bits ? -level_limit(bits) : 0,
                                   .clamp_max = e->exact_bits ? level_limit(bits) : 0,
                                   .scale_in = quant_of(e, op, false)->scale,
                                   .scale_out = quant_of(e, op, true)->scale,
                                   .input_channels = channels};
    QN_TRY_GOTO(qn__mnn_edit_conv(e->d, copy, &edit, error));
done:
    qn__free(ctx, scales);
    qn__free(ctx, q);
    return status;
}

static qn_status edit_convolution(editor *e, size_t op, qn_error *error)
{
    const qn_context *ctx = e->run->ctx;
    const qn_fb_object *main = qn__fb_table(e->source->ops[op], QN_MNN_Op_main);
    const int64_t type = qn__mnn_op_type(e->source, op);
    const char *name = qn__mnn_op_title(e->source, op);
    const bool deconvolution = type == QN_MNN_OpType_Deconvolution;
    const bool integers = qn__mnn_op_count(e->source, op, false) == 1 &&
                          quant_of(e, op, false) != NULL && quant_of(e, op, true) != NULL;
    QN_FAIL_IF(main == NULL || main->record != QN_MNN_REC_Convolution2D, error, QN_CORRUPT,
               "operator \"%s\": a convolution without its parameters", name);
    const bool floats = has_float_weights(main);
    const qn_node *node = e->nodes[op];
    if (node == NULL || (!integers && (!floats || deconvolution)))
        return QN_OK;
    /* The graph knows what the file may leave open: how many weights there are. */
    int64_t dims[QN_MAX_RANK];
    size_t count;
    const qn_tensor *weights = node->inputs[1];
    QN_FAIL_IF(!qn__tensor_static_dims(weights, dims) || !qn__tensor_count(weights, &count) ||
                   weights->rank < 2,
               error, QN_UNSUPPORTED, "operator \"%s\": the shape of its weights is not known",
               name);
    const int64_t group = qn__attr_int(node, "group", 1);
    const int64_t rows = deconvolution ? dims[1] * group : dims[0];
    qn_mnn_packed w;
    QN_TRY(qn__mnn_unpack(e->source, op, (size_t)rows, count, &w, error));
    float *original = NULL;
    qn_status status = QN_OK;
    if (floats && !deconvolution) {
        original = qn__calloc(ctx, count, sizeof(*original));
        if (original == NULL)
            QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
        memcpy(original, w.values, count * sizeof(*original));
        qn__mnn_fake_quantize(w.values, w.rows, w.columns, e->clamp);
    }
    if (integers)
        QN_TRY_GOTO(store_integers(e, op, &w, deconvolution ? dims[0] : dims[1] * group,
                                   original != NULL ? original : w.values, error));
    else
        QN_TRY_GOTO(keep_rounded(e, op, &w, error));
done:
    qn__free(ctx, original);
    qn__mnn_packed_free(ctx, &w);
    return status;
}

/* --- unary operators --------------------------------------------------------------------------*/

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* *known false: no such function. */
static double unary(int64_t type, double x, bool *known)
{
    switch (type) {
    case QN_MNN_UnaryOpOperation_FLOOR:
        return floor(x);
    case QN_MNN_UnaryOpOperation_CEIL:
        return ceil(x);
    case QN_MNN_UnaryOpOperation_SQUARE:
        return x * x;
    case QN_MNN_UnaryOpOperation_SQRT:
        return sqrt(x);
    case QN_MNN_UnaryOpOperation_RSQRT:
        return 1 / sqrt(x);
    case QN_MNN_UnaryOpOperation_EXP:
        return exp(x);
    case QN_MNN_UnaryOpOperation_LOG:
        return log(x);
    case QN_MNN_UnaryOpOperation_SIN:
        return sin(x);
    case QN_MNN_UnaryOpOperation_COS:
        return cos(x);
    case QN_MNN_UnaryOpOperation_TAN:
        return tan(x);
    case QN_MNN_UnaryOpOperation_ASIN:
        return asin(x);
    case QN_MNN_UnaryOpOperation_ACOS:
        return acos(x);
    case QN_MNN_UnaryOpOperation_ATAN:
        return atan(x);
    case QN_MNN_UnaryOpOperation_RECIPROCAL:
        return 1 / x;
    case QN_MNN_UnaryOpOperation_LOG1P:
        return log1p(x);
    case QN_MNN_UnaryOpOperation_BNLL:
        return fmax(x, 0) + log1p(exp(-fabs(x)));
    case QN_MNN_UnaryOpOperation_ACOSH:
        return acosh(x);
    case QN_MNN_UnaryOpOperation_SINH:
        return sinh(x);
    case QN_MNN_UnaryOpOperation_ASINH:
        return asinh(x);
    case QN_MNN_UnaryOpOperation_ATANH:
        return atanh(x);
    case QN_MNN_UnaryOpOperation_ROUND:
        return round(x);
    case QN_MNN_UnaryOpOperation_COSH:
        return cosh(x);
    case QN_MNN_UnaryOpOperation_ERF:
        return erf(x);
    case QN_MNN_UnaryOpOperation_ERFC:
        return erfc(x);
    case QN_MNN_UnaryOpOperation_EXPM1:
        return expm1(x);
    case QN_MNN_UnaryOpOperation_SIGMOID:
        return sigmoid(x);
    case QN_MNN_UnaryOpOperation_TANH:
        return tanh(x);
    case QN_MNN_UnaryOpOperation_HARDSWISH:
        return x * fmin(fmax(x + 3, 0), 6) / 6;
    case QN_MNN_UnaryOpOperation_GELU:
        return 0.5 * x * (1 + tanh(0.79788458 * (x + 0.044715 * x * x * x)));
    case QN_MNN_UnaryOpOperation_GELU_STANDARD:
        return 0.5 * x * (1 + erf(x * M_SQRT1_2));
    case QN_MNN_UnaryOpOperation_SILU:
        return x * sigmoid(x);
    default:
        *known = false;
        return 0;
    }
}

/* Output levels for the input levels -127 .. 127. Not a number gives the level of 0. */
static bool fill_table(int64_t type, const qn_mnn_tensor_quant *in, const qn_mnn_tensor_quant *out,
                       int8_t table[TABLE_SIZE])
{
    bool known = true;
    for (int32_t i = -TABLE_HALF; known && i <= TABLE_HALF; i++) {
        const double y = unary(type, (i - in->zero) * (double)in->scale, &known);
        const double level = isnan(y) ? out->zero : round(y / (double)out->scale) + out->zero;
        table[i + TABLE_HALF] = (int8_t)fmax(-TABLE_HALF, fmin(TABLE_HALF, level));
    }
    return known;
}

static qn_status edit_unary(editor *e, size_t op, qn_error *error)
{
    const int64_t type = qn__mnn_op_type(e->source, op);
    const qn_mnn_tensor_quant *in = quant_of(e, op, false), *out = quant_of(e, op, true);
    const qn_fb_object *main = qn__fb_table(e->source->ops[op], QN_MNN_Op_main);
    const bool renamed = type != QN_MNN_OpType_UnaryOp;
    int8_t table[TABLE_SIZE];
    int64_t function = type == QN_MNN_OpType_Sigmoid ? QN_MNN_UnaryOpOperation_SIGMOID
                                                     : QN_MNN_UnaryOpOperation_TANH;
    if (!renamed) {
        if (main == NULL || main->record != QN_MNN_REC_UnaryOp)
            return QN_OK;
        function = qn__fb_int(&e->source->doc, main, QN_MNN_UnaryOp_opType);
    }
    const bool tabled = in != NULL && out != NULL && fill_table(function, in, out, table);
    if (!renamed && !tabled)
        return QN_OK;
    qn_fb_object *copy = own_op(e, op);
    if (copy == NULL)
        return QN_NOMEM(error);
    qn_fb_object *changed =
        renamed ? qn__fb_new(e->d, QN_MNN_REC_UnaryOp) : qn__fb_copy(e->d, main);
    if (changed == NULL)
        return QN_NOMEM(error);
    if (renamed) {
        qn__fb_set_int(copy, QN_MNN_Op_type, QN_MNN_OpType_UnaryOp);
        qn__fb_set_int(changed, QN_MNN_UnaryOp_opType, function);
        qn__fb_set_int(changed, QN_MNN_UnaryOp_T, QN_MNN_DataType_DT_FLOAT);
    }
    if (tabled && !qn__fb_set_vector(e->d, changed, QN_MNN_UnaryOp_tableInt8, table, TABLE_SIZE))
        return QN_NOMEM(error);
    qn__fb_set_union(e->d, copy, QN_MNN_Op_main, changed);
    return QN_OK;
}

/* --- everything -------------------------------------------------------------------------------*/

static qn_status edit_operator(editor *e, size_t op, qn_error *error)
{
    switch (qn__mnn_op_type(e->source, op)) {
    case QN_MNN_OpType_Convolution:
    case QN_MNN_OpType_ConvolutionDepthwise:
    case QN_MNN_OpType_Deconvolution:
        return qn__mnn_op_skipped(e->run, op) ? QN_OK : edit_convolution(e, op, error);
    case QN_MNN_OpType_Sigmoid:
    case QN_MNN_OpType_TanH:
    case QN_MNN_OpType_UnaryOp:
        return edit_unary(e, op, error);
    default:
        return QN_OK;
    }
}

static qn_status edit_records(editor *e, qn_error *error)
{
    const qn_mnn_scales *s = e->scales;
    qn_mnn_tensor_quant *quants = qn__calloc(e->run->ctx, s->n_tensors, sizeof(*quants));
    size_t n = 0;
    if (quants == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < s->n_tensors; i++)
        if (s->items[i].scale > 0)
            quants[n++] = s->items[i];
    const qn_status status = qn__mnn_edit_quants(e->d, quants, n, error);
    qn__free(e->run->ctx, quants);
    return status;
}

/* Fewer bits lower the largest weight level. The tool does so only when weight_clamp_value is
 * given, whatever it is; otherwise it cuts what it scaled for 127. */
static int32_t weight_clamp(const qn_mnn_config *config)
{
    const int32_t limit = level_limit((uint32_t)config->bits);
    if (config->bits >= 8)
        return config->weight_clamp;
    if ((config->exact & QN_MNN_EXACT_BITS) != 0)
        return config->has_weight_clamp ? limit : config->weight_clamp;
    return config->weight_clamp < limit ? config->weight_clamp : limit;
}

static void find_convolutions(editor *e)
{
    const qn_graph *graph = e->run->graph;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const qn_node *node = graph->nodes[i];
        const bool convolution = node->op == QN_OP_CONV || node->op == QN_OP_CONV_TRANSPOSE;
        if (!convolution || node->n_inputs < 2 || node->inputs[1] == NULL ||
            node->inputs[1]->constant == NULL || node->n_sources == 0 ||
            node->sources[0] >= e->source->n_ops)
            continue;
        e->nodes[node->sources[0]] = node;
    }
}

qn_status qn__mnn_exact_document(const qn_mnn_run *run, const qn_mnn_scales *scales,
                                 qn_fb_document *out, qn_error *error)
{
    const qn_mnn_source *source = run->source;
    qn_status status = QN_OK;
    QN_TRY(qn__fb_edit(&source->doc, out, error));
    editor e = {.run = run,
                .source = source,
                .scales = scales,
                .d = out,
                .ops = qn__calloc(run->ctx, source->n_ops, sizeof(*e.ops)),
                .nodes = qn__calloc(run->ctx, source->n_ops, sizeof(*e.nodes)),
                .clamp = weight_clamp(run->config),
                .exact_bits = (run->config->exact & QN_MNN_EXACT_BITS) != 0,
                .exact_admm = (run->config->exact & QN_MNN_EXACT_ADMM) != 0};
    if (e.ops == NULL || e.nodes == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    if (source->n_ops > 0)
        memcpy(e.ops, source->ops, source->n_ops * sizeof(*e.ops));
    find_convolutions(&e);
    for (size_t op = 0; op < source->n_ops; op++)
        QN_TRY_GOTO(qn__mnn_take_inside(run->source, out, &e.ops[op], error));
    for (size_t op = 0; op < source->n_ops; op++)
        QN_TRY_GOTO(edit_operator(&e, op, error));
    if (!qn__fb_set_tables(out, out->root, QN_MNN_Net_oplists, e.ops, source->n_ops))
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    QN_TRY_GOTO(edit_records(&e, error));
done:
    qn__free(run->ctx, e.ops);
    qn__free(run->ctx, e.nodes);
    if (status != QN_OK)
        qn__fb_free(out);
    return status;
}
