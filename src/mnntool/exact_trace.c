/* Which tensors MNN's tool takes statistics of, and which rasters it makes. Where the values of a
 * raster come from is found by running the network once with every computed tensor filled with a
 * number of its own: whatever moves values moves these numbers. */
#include "calib/calib.h"
#include "mnntool/exact.h"
#include "run/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Labels are exact in float32, and constants of a network are hardly ever among them. */
enum { FIRST_LABEL = 1 << 22, MAX_LABELS = 1 << 22 };
enum { NO_OP = -1 };

typedef enum role {
    ROLE_NONE = 0,
    ROLE_VALUE, /* made by an operator that computes, or an input */
    ROLE_MOVED, /* only moves values */
} role;

typedef struct tracer {
    const qn_mnn_run *run;
    const qn_mnn_source *source;
    qn_mnn_trace *trace;
    size_t n;
    int64_t *producer; /* [n] operator, or NO_OP */
    int32_t *id_of;    /* [graph tensors] MNN id, -1 */
    uint8_t *nhwc;     /* [n] */
    uint8_t *wanted;   /* [n] rasters: 1 made already */
    uint8_t *pinned;   /* [n] moved tensors that are copied before others move them on */
    uint8_t *stops;    /* [n] moved tensors that become memory, now or later: labelled */
    uint32_t *list;    /* [n] scratch of memory_of */
    uint32_t *stack;   /* [n] scratch of add_raster */
    uint32_t *stamps;  /* [n] last tensor that was found to contain the label */
    uint32_t stamp;
    size_t *n_origins;
    uint32_t **origins; /* [n] of moved tensors, in the arena */
} tracer;

/* Operators that MNN lowers to regions of other tensors. */
static bool only_moves(int64_t type)
{
    switch (type) {
    case QN_MNN_OpType_BatchToSpaceND:
    case QN_MNN_OpType_Copy:
    case QN_MNN_OpType_Dropout:
    case QN_MNN_OpType_Identity:
    case QN_MNN_OpType_Reverse:
    case QN_MNN_OpType_SpaceToBatchND:
        return true;
    default:
        return qn__mnn_move(type) != QN_MNN_MOVE_NONE;
    }
}

/* Operators that are done with when shapes are known: never executed. */
static bool not_executed(int64_t type)
{
    switch (type) {
    case QN_MNN_OpType_Const:
    case QN_MNN_OpType_Input:
    case QN_MNN_OpType_TrainableParam:
    case QN_MNN_OpType_Rank:
    case QN_MNN_OpType_Shape:
    case QN_MNN_OpType_Size:
        return true;
    default:
        return false;
    }
}

static bool is_constant(int64_t type)
{
    return type == QN_MNN_OpType_Const || type == QN_MNN_OpType_TrainableParam;
}

static role role_of(const tracer *t, int64_t id)
{
    if (id < 0 || t->producer[id] == NO_OP)
        return ROLE_NONE;
    const int64_t type = qn__mnn_op_type(t->source, (size_t)t->producer[id]);
    return is_constant(type) ? ROLE_NONE : only_moves(type) ? ROLE_MOVED : ROLE_VALUE;
}

/* --- formats ----------------------------------------------------------------------------------*/

static bool is_nhwc(int64_t format)
{
    return format == QN_MNN_MNN_DATA_FORMAT_NHWC || format == QN_MNN_MNN_DATA_FORMAT_NHWC4;
}

/* Whether MNN calls the last axis but one the width: NHWC and what is made from it. */
static bool output_is_nhwc(const tracer *t, size_t op)
{
    const qn_fb_document *d = &t->source->doc;
    const qn_fb_object *main = qn__fb_table(t->source->ops[op], QN_MNN_Op_main);
    const int64_t type = qn__mnn_op_type(t->source, op);
    if (main != NULL && main->record == QN_MNN_REC_Input)
        return is_nhwc(qn__fb_int(d, main, QN_MNN_Input_dformat));
    if (main != NULL && main->record == QN_MNN_REC_TensorConvertInfo)
        return is_nhwc(qn__fb_int(d, main, QN_MNN_TensorConvertInfo_dest));
    if (main != NULL && main->record == QN_MNN_REC_Blob)
        return is_nhwc(qn__fb_int(d, main, QN_MNN_Blob_dataFormat));
    if (type == QN_MNN_OpType_Convolution || type == QN_MNN_OpType_ConvolutionDepthwise)
        return false;
    const int64_t first = qn__mnn_op_count(t->source, op, false) > 0
                              ? qn__mnn_op_tensor(t->source, op, false, 0)
                              : -1;
    return first >= 0 && t->nhwc[first] != 0;
}

static uint64_t positions_of(bool nhwc, size_t rank, const int64_t *dims)
{
    const size_t height = nhwc ? 1 : 2, width = nhwc ? 2 : 3;
    const uint64_t h = height < rank ? (uint64_t)dims[height] : 1;
    const uint64_t w = width < rank ? (uint64_t)dims[width] : 1;
    return h * w;
}

/* --- running on labels ------------------------------------------------------------------------*/

static qn_status collect(tracer *t, uint32_t id, const float *values, size_t count, qn_error *error)
{
    size_t n = 0;
    t->stamp++;
    for (size_t i = 0; i < count; i++) {
        const float label = values[i] - FIRST_LABEL;
        if (!(label >= 0 && label < (float)t->n) || label != truncf(label) ||
            t->stamps[(size_t)label] == t->stamp)
            continue;
        t->stamps[(size_t)label] = t->stamp;
        n++;
    }
    if (n == 0)
        return QN_OK;
    t->origins[id] = qn__arena_calloc(&t->trace->arena, n, sizeof(uint32_t));
    if (t->origins[id] == NULL)
        return QN_NOMEM(error);
    for (size_t k = 0; k < t->n; k++)
        if (t->stamps[k] == t->stamp)
            t->origins[id][t->n_origins[id]++] = (uint32_t)k;
    return QN_OK;
}

static qn_status on_tensor(void *arg, const qn_view *view, qn_error *error)
{
    tracer *t = arg;
    const int32_t id = t->id_of[view->tensor->id];
    if (id < 0 || view->tensor->type.kind != QN_TYPE_PLAIN ||
        view->tensor->type.dtype != QN_DTYPE_F32)
        return QN_OK;
    qn_mnn_seen *seen = &t->trace->tensors[id];
    seen->positions = positions_of(t->nhwc[id] != 0, view->rank, view->dims);
    float *values = view->data;
    if (role_of(t, id) == ROLE_MOVED) {
        QN_TRY(collect(t, (uint32_t)id, values, view->count, error));
        if (t->stops[id] == 0)
            return QN_OK;
    }
    for (size_t i = 0; i < view->count; i++)
        values[i] = (float)(FIRST_LABEL + id);
    return QN_OK;
}

static qn_status run_on_labels(tracer *t, qn_error *error)
{
    const qn_graph *graph = t->run->graph;
    const qn_context *ctx = t->run->ctx;
    int64_t(*dims)[QN_MAX_RANK] = NULL;
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    qn_feed feed = {0};
    qn_status status = QN_OK;
    qn_plan_options options;
    QN_TRY_GOTO(qn__dataset_input_dims(graph, t->run->dataset, &dims, error));
    qn__plan_options_init(&options, ctx);
    options.input_dims = (const int64_t(*)[QN_MAX_RANK])dims;
    options.keep_all = true;
    QN_TRY_GOTO(qn__plan_create(graph, &options, &plan, error));
    QN_TRY_GOTO(qn__exec_create(plan, NULL, &exec, error));
    QN_TRY_GOTO(qn__feed_create(graph, (const int64_t(*)[QN_MAX_RANK])dims, &feed, error));
    for (size_t i = 0; i < feed.count; i++)
        memset(feed.values[i], 0, feed.n_values[i] * sizeof(float));
    qn__feed_convert(&feed, (const float *const *)feed.values);
    qn__exec_set_hook(exec, on_tensor, t);
    QN_TRY_GOTO(qn__exec_run(exec, feed.pointers, error));
done:
    qn__feed_free(&feed);
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    qn__free(ctx, dims);
    return status;
}

/* --- what is executed -------------------------------------------------------------------------*/

static bool is_float(const tracer *t, int64_t id)
{
    return id >= 0 && t->trace->tensors[id].graph_id != UINT32_MAX;
}

static bool meet(tracer *t, int64_t id, const char *who, const char *kind, size_t index,
                 bool raster_input)
{
    qn_mnn_seen *seen = &t->trace->tensors[id];
    if (seen->label != NULL)
        return true;
    seen->label = qn__arena_printf(&t->trace->arena, "%s %s_tensor_%zu", who, kind, index);
    seen->raster_input = raster_input;
    return seen->label != NULL;
}

/* Where a moved tensor's values lie in memory at this time: what was not copied yet is replaced by
 * where it comes from itself. */
static const uint32_t *memory_of(tracer *t, uint32_t id, size_t *count)
{
    uint32_t *list = t->list;
    size_t n = 0, kept = 0;
    t->stamp++;
    t->stamps[id] = t->stamp;
    list[n++] = id;
    for (size_t at = 0; at < n; at++) {
        const uint32_t from = list[at];
        if (from != id &&
            (role_of(t, from) != ROLE_MOVED || t->wanted[from] != 0 || t->pinned[from] != 0)) {
            list[kept++] = from; /* kept <= at: what is overwritten was read */
            continue;
        }
        for (size_t i = 0; i < t->n_origins[from]; i++) {
            const uint32_t next = t->origins[from][i];
            if (t->stamps[next] != t->stamp) {
                t->stamps[next] = t->stamp;
                list[n++] = next;
            }
        }
    }
    *count = kept;
    return list;
}

static bool emit_raster(tracer *t, uint32_t id, const uint32_t *inputs, size_t n_inputs,
                        const char *who, size_t *made)
{
    qn_mnn_trace *trace = t->trace;
    qn_mnn_raster *raster = &trace->rasters[trace->n_rasters++];
    uint32_t *copy = qn__arena_calloc(&trace->arena, n_inputs + 1, sizeof(*copy));
    raster->name = qn__arena_printf(&trace->arena, "%s_raster_%zu", who, (*made)++);
    raster->output = id;
    raster->inputs = copy;
    raster->n_inputs = n_inputs;
    if (raster->name == NULL || copy == NULL)
        return false;
    if (n_inputs > 0)
        memcpy(copy, inputs, n_inputs * sizeof(*copy));
    for (size_t i = 0; i < n_inputs; i++)
        if (!meet(t, inputs[i], raster->name, "input", i, true))
            return false;
    return meet(t, id, raster->name, "output", 0, false);
}

/* The copies that operator `who` needs to read a tensor that was only moved so far: pinned ones
 * that its values come through, then its own. *made counts those of the operator. */
static bool add_raster(tracer *t, int64_t id, const char *who, size_t *made)
{
    size_t depth = 0;
    if (t->wanted[id] != 0)
        return true;
    t->wanted[id] = 1; /* when it is pushed: constants that look like labels can make a circle */
    t->stack[depth++] = (uint32_t)id;
    while (depth > 0) {
        const uint32_t top = t->stack[depth - 1];
        size_t n, i = 0;
        const uint32_t *inputs = memory_of(t, top, &n);
        while (i < n && (t->pinned[inputs[i]] == 0 || t->wanted[inputs[i]] != 0))
            i++;
        if (i < n) {
            t->wanted[inputs[i]] = 1;
            t->stack[depth++] = inputs[i];
            continue;
        }
        if (!emit_raster(t, top, inputs, n, who, made))
            return false;
        depth--;
    }
    return true;
}

/* The input of a 2019 file is in MNN's own layout: what an operator reads is a copy of it, without
 * an id in the file. */
static bool is_packed_input(const tracer *t, int64_t id)
{
    const int64_t op = t->producer[id];
    if (op == NO_OP || qn__mnn_op_type(t->source, (size_t)op) != QN_MNN_OpType_Input)
        return false;
    const qn_fb_object *main = qn__fb_table(t->source->ops[op], QN_MNN_Op_main);
    return main == NULL || main->record != QN_MNN_REC_Input ||
           qn__fb_int(&t->source->doc, main, QN_MNN_Input_dformat) == QN_MNN_MNN_DATA_FORMAT_NC4HW4;
}

/* Inputs that are read when the operator runs; sizes to resize to were read before. */
static size_t run_inputs(const tracer *t, size_t op)
{
    const size_t n = qn__mnn_op_count(t->source, op, false);
    const int64_t type = qn__mnn_op_type(t->source, op);
    return n > 1 && (type == QN_MNN_OpType_Interp || type == QN_MNN_OpType_Resize) ? 1 : n;
}

static bool execute(tracer *t, size_t op)
{
    const char *name = qn__mnn_op_title(t->source, op);
    const bool skipped = qn__mnn_op_skipped(t->run, op);
    const size_t n_in = run_inputs(t, op);
    size_t made = 0;
    for (size_t i = 0; i < n_in; i++) {
        const int64_t id = qn__mnn_op_tensor(t->source, op, false, i);
        if (is_float(t, id) && role_of(t, id) == ROLE_MOVED && !add_raster(t, id, name, &made))
            return false;
    }
    if (skipped)
        return true;
    for (size_t i = 0; i < n_in; i++) {
        const int64_t id = qn__mnn_op_tensor(t->source, op, false, i);
        if (is_float(t, id) && !is_packed_input(t, id) && !meet(t, id, name, "input", i, false))
            return false;
    }
    /* A 3-D pool is a 2-D one between reshapes: the last of them makes its output. */
    const char *maker = name;
    if (qn__mnn_op_type(t->source, op) == QN_MNN_OpType_Pooling3D)
        maker = qn__arena_printf(&t->trace->arena, "%s_raster_%zu", name, made);
    if (maker == NULL)
        return false;
    for (size_t i = 0; i < qn__mnn_op_count(t->source, op, true); i++) {
        const int64_t id = qn__mnn_op_tensor(t->source, op, true, i);
        if (is_float(t, id) && !meet(t, id, maker, "output", i, false))
            return false;
    }
    return true;
}

static bool is_output(const qn_graph *graph, int64_t id)
{
    for (size_t i = 0; i < graph->n_outputs; i++)
        if (graph->outputs[i]->source == id)
            return true;
    return false;
}

static bool execute_all(tracer *t)
{
    for (size_t op = 0; op < t->source->n_ops; op++) {
        const int64_t type = qn__mnn_op_type(t->source, op);
        if (!not_executed(type) && !only_moves(type) && !execute(t, op))
            return false;
        size_t made = 0;
        for (size_t i = 0; only_moves(type) && i < qn__mnn_op_count(t->source, op, true); i++) {
            const int64_t id = qn__mnn_op_tensor(t->source, op, true, i);
            if (is_float(t, id) && is_output(t->run->graph, id) &&
                !add_raster(t, id, qn__mnn_op_title(t->source, op), &made))
                return false;
        }
    }
    return true;
}

/* --- setting up -------------------------------------------------------------------------------*/

static bool allocate(tracer *t, size_t n_graph_tensors)
{
    qn_arena *arena = &t->trace->arena;
    t->producer = qn__arena_calloc(arena, t->n, sizeof(*t->producer));
    t->id_of = qn__arena_calloc(arena, n_graph_tensors, sizeof(*t->id_of));
    t->nhwc = qn__arena_calloc(arena, t->n, 1);
    t->wanted = qn__arena_calloc(arena, t->n, 1);
    t->pinned = qn__arena_calloc(arena, t->n, 1);
    t->stops = qn__arena_calloc(arena, t->n, 1);
    t->list = qn__arena_calloc(arena, t->n + 1, sizeof(*t->list));
    t->stack = qn__arena_calloc(arena, t->n + 1, sizeof(*t->stack));
    t->stamps = qn__arena_calloc(arena, t->n, sizeof(*t->stamps));
    t->n_origins = qn__arena_calloc(arena, t->n, sizeof(*t->n_origins));
    t->origins = qn__arena_calloc(arena, t->n, sizeof(*t->origins));
    t->trace->tensors = qn__arena_calloc(arena, t->n, sizeof(*t->trace->tensors));
    t->trace->rasters = qn__arena_calloc(arena, t->n, sizeof(*t->trace->rasters));
    return !arena->failed;
}

/* Tensors of the graph that are tensors of the file; constants' positions. */
static void link_tensors(tracer *t)
{
    const qn_graph *graph = t->run->graph;
    int64_t dims[QN_MAX_RANK];
    for (size_t i = 0; i < t->n; i++) {
        t->producer[i] = NO_OP;
        t->trace->tensors[i] = (qn_mnn_seen){.graph_id = UINT32_MAX, .positions = 1};
    }
    for (size_t op = 0; op < t->source->n_ops; op++)
        for (size_t i = 0; i < qn__mnn_op_count(t->source, op, true); i++) {
            const int64_t id = qn__mnn_op_tensor(t->source, op, true, i);
            if (id < 0)
                continue;
            t->producer[id] = (int64_t)op;
            t->nhwc[id] = output_is_nhwc(t, op);
        }
    for (size_t i = 0; i < graph->n_tensors; i++) {
        const qn_tensor *tensor = graph->tensors[i];
        const int32_t id = tensor->source;
        t->id_of[i] = id >= 0 && (size_t)id < t->n ? id : -1;
        if (t->id_of[i] < 0 || tensor->type.kind != QN_TYPE_PLAIN ||
            tensor->type.dtype != QN_DTYPE_F32)
            continue;
        qn_mnn_seen *seen = &t->trace->tensors[id];
        seen->graph_id = tensor->id;
        if (tensor->has_shape && qn__tensor_static_dims(tensor, dims))
            seen->positions = positions_of(t->nhwc[id] != 0, tensor->rank, dims);
    }
}

/* MNN gathers from real memory: what it reads was copied, in front of the conversions between. */
static int64_t gathered(const tracer *t, size_t op)
{
    int64_t id = qn__mnn_op_tensor(t->source, op, false, 0);
    for (size_t k = 0; k < t->n && role_of(t, id) == ROLE_MOVED; k++) {
        const size_t from = (size_t)t->producer[id];
        if (qn__mnn_op_type(t->source, from) != QN_MNN_OpType_ConvertTensor ||
            qn__mnn_op_count(t->source, from, false) == 0)
            break;
        id = qn__mnn_op_tensor(t->source, from, false, 0);
    }
    return id;
}

static void mark_operator(tracer *t, size_t op)
{
    const int64_t type = qn__mnn_op_type(t->source, op);
    const bool moves = only_moves(type);
    const size_t n = run_inputs(t, op);
    for (size_t i = 0; !not_executed(type) && i < n; i++) {
        const int64_t id = qn__mnn_op_tensor(t->source, op, false, i);
        if (!is_float(t, id) || role_of(t, id) != ROLE_MOVED)
            continue;
        /* Zeros are written around a padded tensor before anything else is done with it. */
        const bool padded =
            qn__mnn_op_type(t->source, (size_t)t->producer[id]) == QN_MNN_OpType_Padding;
        t->stops[id] |= !moves || padded;
        t->pinned[id] |= moves && padded;
    }
    if ((type != QN_MNN_OpType_Gather && type != QN_MNN_OpType_GatherV2) || n == 0)
        return;
    const int64_t id = gathered(t, op);
    if (is_float(t, id) && role_of(t, id) == ROLE_MOVED)
        t->stops[id] = t->pinned[id] = 1;
}

/* Constants carry no labels: a moved tensor comes from those that the operators on its way read. */
static bool is_constant_input(const tracer *t, int64_t id)
{
    return is_float(t, id) && t->producer[id] != NO_OP &&
           is_constant(qn__mnn_op_type(t->source, (size_t)t->producer[id]));
}

static bool add_constants(tracer *t, size_t op, int64_t to)
{
    const size_t n_in = qn__mnn_op_count(t->source, op, false);
    size_t n = t->n_origins[to], n_constants = 0;
    for (size_t i = 0; i < n_in; i++)
        n_constants += is_constant_input(t, qn__mnn_op_tensor(t->source, op, false, i));
    if (n_constants == 0)
        return true;
    uint32_t *grown = qn__arena_calloc(&t->trace->arena, n + n_constants, sizeof(*grown));
    if (grown == NULL)
        return false;
    if (n > 0)
        memcpy(grown, t->origins[to], n * sizeof(*grown));
    for (size_t i = 0; i < n_in; i++) {
        const int64_t from = qn__mnn_op_tensor(t->source, op, false, i);
        if (is_constant_input(t, from))
            grown[n++] = (uint32_t)from;
    }
    t->origins[to] = grown;
    t->n_origins[to] = n;
    return true;
}

static bool add_constant_origins(tracer *t)
{
    for (size_t op = 0; op < t->source->n_ops; op++) {
        if (!only_moves(qn__mnn_op_type(t->source, op)))
            continue;
        for (size_t k = 0; k < qn__mnn_op_count(t->source, op, true); k++) {
            const int64_t to = qn__mnn_op_tensor(t->source, op, true, k);
            if (is_float(t, to) && !add_constants(t, op, to))
                return false;
        }
    }
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const qn_mnn_raster *)a)->name, ((const qn_mnn_raster *)b)->name);
}

qn_status qn__mnn_trace_create(const qn_mnn_run *run, qn_mnn_trace *out, qn_error *error)
{
    *out = (qn_mnn_trace){.n_tensors = run->source->n_tensors};
    qn__arena_init(&out->arena, run->ctx);
    tracer t = {.run = run, .source = run->source, .trace = out, .n = run->source->n_tensors};
    qn_status status = QN_OK;
    QN_FAIL_IF(t.n > MAX_LABELS, error, QN_LIMIT, "%zu tensors", t.n);
    if (!allocate(&t, run->graph->n_tensors))
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    link_tensors(&t);
    for (size_t op = 0; op < t.source->n_ops; op++)
        mark_operator(&t, op);
    QN_TRY_GOTO(run_on_labels(&t, error));
    if (!add_constant_origins(&t) || !execute_all(&t))
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    if (out->n_rasters > 1)
        qsort(out->rasters, out->n_rasters, sizeof(*out->rasters), by_name);
done:
    if (status != QN_OK)
        qn__mnn_trace_free(out);
    return status;
}

void qn__mnn_trace_free(qn_mnn_trace *trace)
{
    qn__arena_free(&trace->arena);
    *trace = (qn_mnn_trace){0};
}
