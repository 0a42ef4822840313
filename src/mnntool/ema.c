/* MNN's EMA: statistics in training mode (calib/train.h) of the blocks around convolutions. */
#include "mnntool/ema.h"
#include "mnntool/operators.h"

#include <math.h>
#include <string.h>

#define SMALLEST 1e-6f /* a row's largest weight counts at least this much */

/* --- finding blocks ----------------------------------------------------------------------------*/
/* By MNN tensor id. */
typedef struct topology {
    size_t *readers; /* number of operators' inputs that are the tensor, graph outputs included */
    size_t *reader;  /* the last of them */
    const qn_tensor **tensors;
} topology;

static qn_status read_topology(qn_ema *e, topology *t, qn_error *error)
{
    const qn_mnn_source *s = e->run->source;
    const qn_graph *g = e->run->graph;
    t->readers = qn__arena_calloc(&e->arena, s->n_tensors, sizeof(*t->readers));
    t->reader = qn__arena_calloc(&e->arena, s->n_tensors, sizeof(*t->reader));
    t->tensors = qn__arena_calloc(&e->arena, s->n_tensors, sizeof(*t->tensors));
    if (t->readers == NULL || t->reader == NULL || t->tensors == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < s->n_ops; i++)
        for (size_t k = 0; k < qn__mnn_op_count(s, i, false); k++) {
            const int64_t id = qn__mnn_op_tensor(s, i, false, k);
            if (id < 0)
                continue;
            t->readers[id]++;
            t->reader[id] = i;
        }
    for (size_t i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->source >= 0 && (size_t)g->tensors[i]->source < s->n_tensors)
            t->tensors[g->tensors[i]->source] = g->tensors[i];
    for (size_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i]->source >= 0 && (size_t)g->outputs[i]->source < s->n_tensors)
            t->readers[g->outputs[i]->source] += 2; /* no operator reads it alone */
    return QN_OK;
}

static const qn_node *node_of(const qn_graph *g, size_t op, qn_op kind)
{
    for (size_t n = 0; n < g->n_nodes; n++)
        if (g->nodes[n]->op == kind && g->nodes[n]->n_sources > 0 && g->nodes[n]->sources[0] == op)
            return g->nodes[n];
    return NULL;
}

/* The only operator that reads tensor id, if it is of this kind. */
static size_t sole_reader(const qn_ema *e, const topology *t, uint32_t id, int64_t kind)
{
    const qn_mnn_source *s = e->run->source;
    if (t->readers[id] != 1)
        return QN_EMA_NO_OP;
    const size_t op = t->reader[id];
    return qn__mnn_op_type(s, op) == kind && qn__mnn_op_count(s, op, false) == 1 ? op
                                                                                 : QN_EMA_NO_OP;
}

static bool has_activation(const qn_mnn_source *s, const qn_fb_object *op)
{
    const qn_fb_object *main = qn__fb_table(op, QN_MNN_Op_main);
    const qn_fb_object *common = qn__fb_table(main, QN_MNN_Convolution2D_common);
    return common != NULL && (qn__fb_int(&s->doc, common, QN_MNN_Convolution2DCommon_relu) != 0 ||
                              qn__fb_int(&s->doc, common, QN_MNN_Convolution2DCommon_relu6) != 0);
}

/* Plain ReLU: no slope below zero. */
static bool is_relu(const qn_mnn_source *s, size_t op)
{
    const qn_fb_object *main = qn__fb_table(s->ops[op], QN_MNN_Op_main);
    return main == NULL || main->record != QN_MNN_REC_Relu ||
           qn__fb_real(&s->doc, main, QN_MNN_Relu_slope) == 0.0;
}

static void extend_block(const qn_ema *e, const topology *t, qn_ema_block *b)
{
    const qn_mnn_source *s = e->run->source;
    if (has_activation(s, s->ops[b->conv]))
        return;
    const size_t norm = sole_reader(e, t, b->out, QN_MNN_OpType_BatchNorm);
    if (norm != QN_EMA_NO_OP) {
        const int64_t id = qn__mnn_op_tensor(s, norm, true, 0);
        b->norm_node = node_of(e->run->graph, norm, QN_OP_BATCH_NORMALIZATION);
        if (id < 0 || b->norm_node == NULL || t->tensors[id] == NULL) {
            b->norm_node = NULL;
            return;
        }
        b->norm = norm;
        b->out = (uint32_t)id;
    }
    size_t act = sole_reader(e, t, b->out, QN_MNN_OpType_ReLU);
    if (act != QN_EMA_NO_OP && !is_relu(s, act))
        return;
    if (act == QN_EMA_NO_OP)
        act = sole_reader(e, t, b->out, QN_MNN_OpType_ReLU6);
    const int64_t id = act == QN_EMA_NO_OP ? -1 : qn__mnn_op_tensor(s, act, true, 0);
    if (id >= 0 && t->tensors[id] != NULL) {
        b->act = act;
        b->out = (uint32_t)id;
    }
}

/* A block that begins at operator op; false: none. */
static bool find_block(const qn_ema *e, const topology *t, size_t op, qn_ema_block *b)
{
    const qn_mnn_source *s = e->run->source;
    const qn_fb_object *main = qn__fb_table(s->ops[op], QN_MNN_Op_main);
    const int64_t type = qn__mnn_op_type(s, op);
    if ((type != QN_MNN_OpType_Convolution && type != QN_MNN_OpType_ConvolutionDepthwise) ||
        qn__mnn_op_count(s, op, false) != 1 || main == NULL ||
        main->record != QN_MNN_REC_Convolution2D || qn__mnn_op_skipped(e->run, op))
        return false;
    const int64_t in = qn__mnn_op_tensor(s, op, false, 0);
    const int64_t out = qn__mnn_op_tensor(s, op, true, 0);
    const qn_node *node = node_of(e->run->graph, op, QN_OP_CONV);
    if (in < 0 || out < 0 || t->tensors[out] == NULL || node == NULL || node->n_inputs < 2)
        return false;
    const qn_tensor *w = node->inputs[1];
    int64_t dims[QN_MAX_RANK];
    size_t count;
    if (w == NULL || w->constant == NULL || w->type.kind != QN_TYPE_PLAIN ||
        w->type.dtype != QN_DTYPE_F32 || w->rank < 3 || !qn__tensor_static_dims(w, dims) ||
        !qn__tensor_count(w, &count) || count == 0 ||
        count > w->constant->size_bytes / sizeof(float))
        return false;
    *b = (qn_ema_block){.conv = op,
                        .norm = QN_EMA_NO_OP,
                        .act = QN_EMA_NO_OP,
                        .node = node,
                        .in = (uint32_t)in,
                        .out = (uint32_t)out,
                        .rows = (size_t)dims[0],
                        .columns = count / (size_t)dims[0]};
    extend_block(e, t, b);
    return true;
}

static qn_status find_blocks(qn_ema *e, qn_error *error)
{
    const qn_mnn_source *s = e->run->source;
    topology t;
    QN_TRY(read_topology(e, &t, error));
    e->blocks = qn__arena_calloc(&e->arena, s->n_ops, sizeof(*e->blocks));
    if (e->blocks == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < s->n_ops; i++) {
        qn_ema_block *b = &e->blocks[e->n_blocks];
        if (!find_block(e, &t, i, b))
            continue;
        const qn_tensor *w = b->node->inputs[1];
        float *copy = qn__arena_alloc(&e->arena, b->rows * b->columns * sizeof(*copy));
        if (copy == NULL)
            return QN_NOMEM(error);
        memcpy(copy, w->constant->data, b->rows * b->columns * sizeof(*copy));
        b->weights = copy;
        e->n_blocks++;
    }
    QN_FAIL_IF(e->n_blocks == 0, error, QN_UNSUPPORTED,
               "%s: no convolution that EMA could quantize", e->run->graph->file);
    return QN_OK;
}

/* --- training ----------------------------------------------------------------------------------*/
void qn__ema_round_rows(const float *weights, size_t rows, size_t columns, int32_t levels,
                        float *scales, int8_t *q)
{
    const float most = (float)levels;
    for (size_t r = 0; r < rows; r++) {
        const float *w = weights + r * columns;
        float largest = SMALLEST;
        for (size_t k = 0; k < columns; k++)
            largest = fmaxf(largest, fabsf(w[k]));
        scales[r] = largest * (1.0f / most);
        const float inverse = 1.0f / scales[r];
        for (size_t k = 0; k < columns; k++)
            q[r * columns + k] = (int8_t)fminf(fmaxf(roundf(w[k] * inverse), -most), most);
    }
}

static qn_status round_weights(const qn_ema *e, const qn_ema_block *b, qn_graph *g, qn_node *node,
                               qn_error *error)
{
    const qn_context *ctx = g->ctx;
    const qn_tensor *old = node->inputs[1];
    const size_t count = b->rows * b->columns;
    int64_t dims[QN_MAX_RANK];
    void *data = NULL;
    qn_status status = QN_OK;
    float *scales = qn__calloc(ctx, b->rows, sizeof(*scales));
    int8_t *q = qn__alloc(ctx, count);
    qn_blob *blob = qn__blob_create(ctx, count * sizeof(float), &data);
    if (scales == NULL || q == NULL || blob == NULL || !qn__tensor_static_dims(old, dims))
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    qn__ema_round_rows(b->weights, b->rows, b->columns, e->levels, scales, q);
    for (size_t i = 0; i < count; i++)
        ((float *)data)[i] = (float)q[i] * scales[i / b->columns];
    node->inputs[1] = qn__graph_add_constant(g, old->name, old->type, old->rank, dims, blob);
    if (node->inputs[1] == NULL)
        status = QN_NOMEM(error);
done:
    qn__blob_unref(blob);
    qn__free(ctx, q);
    qn__free(ctx, scales);
    return status;
}

/* The convolution reads a copy of its input, so that rounding it changes nothing for others. */
static qn_status own_input(qn_graph *g, qn_node *node, uint32_t *id, qn_error *error)
{
    size_t at = 0;
    while (at < g->n_nodes && g->nodes[at] != node)
        at++;
    qn_tensor *x = node->inputs[0];
    qn_tensor *own = qn__graph_add_tensor(g, x->name, x->type);
    qn_node *copy = qn__graph_add_node(g, at, QN_OP_IDENTITY, x->name, 1, 1);
    if (own == NULL || copy == NULL)
        return QN_NOMEM(error);
    own->has_shape = x->has_shape;
    own->rank = x->rank;
    memcpy(own->dims, x->dims, sizeof(own->dims));
    copy->inputs[0] = x;
    qn__node_set_output(copy, 0, own);
    node->inputs[0] = own;
    *id = own->id;
    return QN_OK;
}

static const qn_tensor *tensor_of(const qn_graph *g, uint32_t id)
{
    for (size_t i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->source == (int32_t)id && g->tensors[i]->constant == NULL)
            return g->tensors[i];
    return NULL;
}

/* items: input and output of block i at 2i and 2i + 1. */
static qn_status prepare_graph(const qn_ema *e, qn_graph *g, qn_calib_item *items, qn_error *error)
{
    for (size_t i = 0; i < e->n_blocks; i++) {
        const qn_ema_block *b = &e->blocks[i];
        qn_node *node = qn__graph_find_node(g, b->node->name);
        const qn_tensor *out = tensor_of(g, b->out);
        QN_FAIL_IF(node == NULL || out == NULL, error, QN_INTERNAL, "node \"%s\" was lost",
                   b->node->name);
        const qn_range_format format = {.qmin = -127, .qmax = 127, .positions = 1};
        items[2 * i].format = items[2 * i + 1].format = format;
        items[2 * i + 1].tensor_id = out->id;
        if (b->winograd != NULL)
            items[2 * i].look = qn__ema_winograd_look(b->winograd);
        QN_TRY(own_input(g, node, &items[2 * i].tensor_id, error));
        QN_TRY(round_weights(e, b, g, node, error));
    }
    return qn__graph_verify(g, error);
}

/* With winogradOpt: which blocks MNN simulates in Winograd's form. */
static qn_status find_winograd(qn_ema *e, qn_error *error)
{
    const qn_mnn_config *c = e->run->config;
    const size_t n = qn_dataset_count(e->run->dataset);
    const size_t batch = (uint64_t)c->batch < n ? (size_t)c->batch : n;
    bool other_pads = false;
    if (!c->winograd || (c->exact & QN_MNN_EXACT_WINOGRAD) == 0)
        return QN_OK;
    for (size_t i = 0; i < e->n_blocks; i++)
        QN_TRY(qn__ema_winograd(e, &e->blocks[i], batch, &other_pads, error));
    if (other_pads)
        qn__log(e->run->ctx, QN_LOG_WARNING,
                "%s: the error in pads that winogradOpt makes is not restored", c->file);
    return QN_OK;
}

static bool progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    (void)phase;
    qn__mnn_progress(arg, "quantize with EMA", (size_t)done, (size_t)total);
    return true;
}

static qn_status train(qn_ema *e, qn_error *error)
{
    const qn_mnn_run *run = e->run;
    const size_t n_samples = qn_dataset_count(run->dataset);
    qn_graph *g = NULL;
    qn_status status = QN_OK;
    QN_FAIL_IF(n_samples == 0, error, QN_INVALID_ARGUMENT, "no calibration samples");
    qn_calib_item *items = qn__arena_calloc(&e->arena, e->n_blocks, 2 * sizeof(*items));
    if (items == NULL)
        return QN_NOMEM(error);
    qn_calib_options o = {.items = items,
                          .n_items = 2 * e->n_blocks,
                          .batch = run->config->batch,
                          .progress = progress,
                          .progress_ctx = (void *)run};
    QN_TRY(qn__graph_clone(run->graph, &g, error));
    QN_TRY_GOTO(prepare_graph(e, g, items, error));
    QN_TRY_GOTO(qn__train(g, run->dataset, &o, &e->result, error));
    for (size_t i = 0; i < e->n_blocks; i++) {
        e->blocks[i].range_in = &e->result.ranges.items[items[2 * i].tensor_id];
        e->blocks[i].range_out = &e->result.ranges.items[items[2 * i + 1].tensor_id];
        if (!e->blocks[i].range_in->valid || !e->blocks[i].range_out->valid)
            QN_FAIL_GOTO(error, QN_STATE, "operator \"%s\" has no range", e->blocks[i].node->name);
    }
    for (size_t i = 0; i < e->result.n_norms; i++) { /* names of a graph that lives on */
        const qn_node *node = qn__graph_find_node(run->graph, e->result.norms[i].name);
        e->result.norms[i].name = node->name;
    }
done:
    qn__graph_destroy(g);
    return status;
}

/* --- scales ------------------------------------------------------------------------------------*/
static void set_scale(qn_mnn_scales *scales, uint32_t id, const qn_range *range)
{
    const qn_range_format format = {.qmin = -127, .qmax = 127};
    float lo = range->lo, hi = range->hi;
    const qn_train_grid grid = qn__train_grid(&lo, &hi, &format);
    scales->tracked[id] = true;
    scales->items[id] = (qn_mnn_tensor_quant){id, grid.scale, (int32_t)grid.zero, -127, 127};
}

static qn_status fill_scales(const qn_ema *e, qn_mnn_scales *scales, qn_error *error)
{
    const qn_context *ctx = e->run->ctx;
    const size_t n = e->run->source->n_tensors;
    *scales = (qn_mnn_scales){.ctx = ctx, .n_tensors = n};
    scales->items = qn__calloc(ctx, n, sizeof(*scales->items));
    scales->tracked = qn__calloc(ctx, n, sizeof(*scales->tracked));
    if (scales->items == NULL || scales->tracked == NULL)
        return QN_NOMEM(error);
    /* what a tensor's producer leaves is what its readers see */
    for (size_t i = 0; i < e->n_blocks; i++)
        set_scale(scales, e->blocks[i].in, e->blocks[i].range_in);
    for (size_t i = 0; i < e->n_blocks; i++)
        set_scale(scales, e->blocks[i].out, e->blocks[i].range_out);
    return QN_OK;
}

qn_status qn__mnn_ema(const qn_mnn_run *run, qn_mnn_scales *scales, qn_fb_document *out,
                      qn_error *error)
{
    qn_status status = QN_OK;
    qn_ema e = {.run = run, .levels = (1 << (run->config->bits - 1)) - 1};
    *scales = (qn_mnn_scales){0};
    qn__arena_init(&e.arena, run->ctx);
    QN_TRY_GOTO(find_blocks(&e, error));
    QN_TRY_GOTO(find_winograd(&e, error));
    QN_TRY_GOTO(train(&e, error));
    QN_TRY_GOTO(fill_scales(&e, scales, error));
    status = qn__ema_document(&e, scales, out, error);
done:
    if (status != QN_OK)
        qn__mnn_scales_free(scales);
    qn__train_free(&e.result);
    qn__arena_free(&e.arena);
    return status;
}
