/* The quantization of activations in an exported document. */
#include "format/mnn/mnn_export.h"
#include "format/mnn/mnn_guard.h"

#include <math.h>

/* The level of the output for each level -127..127 of the input: what the runtime looks results up
 * in instead of computing them. */
void qn__mnx_table(qn_mnx_exporter *x, qn_fb_object *unary, const qn_mnn_tensor_quant *in,
                   const qn_mnn_tensor_quant *out, double (*function)(double))
{
    enum { LEVELS = 255 };
    int8_t table[LEVELS];
    for (int32_t i = 0; i < LEVELS; i++) {
        const double y = function((i - 127 - in->zero) * (double)in->scale);
        const double q = rint(y / (double)out->scale) + out->zero;
        table[i] = (int8_t)(q < out->min ? out->min : q > out->max ? out->max : q);
    }
    if (!qn__fb_set_vector(x->doc, unary, QN_MNN_UnaryOp_tableInt8, table, LEVELS))
        x->doc->arena.failed = true;
}

/* --- what the runtime must not run in integers -------------------------------------------------*/
static qn_mnn_passing passes(int64_t type)
{
    switch (type) {
    case QN_MNN_OpType_ConvertTensor:
    case QN_MNN_OpType_Reshape:
    case QN_MNN_OpType_Permute:
        return QN_MNN_PASSES_VALUES;
    case QN_MNN_OpType_Pooling:
    case QN_MNN_OpType_ReLU:
    case QN_MNN_OpType_ReLU6:
    case QN_MNN_OpType_Padding:
    case QN_MNN_OpType_Interp:
    case QN_MNN_OpType_Slice:
    case QN_MNN_OpType_StridedSlice:
    case QN_MNN_OpType_GatherV2:
    case QN_MNN_OpType_BroadcastTo:
    case QN_MNN_OpType_Tile:
    case QN_MNN_OpType_DepthToSpace:
    case QN_MNN_OpType_SpaceToDepth:
        return QN_MNN_PASSES_RANGE;
    default:
        return QN_MNN_PASSES_NONE;
    }
}

/* Is the operator right in int8? The maximum is not on x86 where a window has levels below and
 * above zero: there levels are kept with 128 added, and compared as if they were not. The mean
 * rounds down, half a step too low on average. Padding fills with the level 0. */
static bool is_exact(const qn_mnx_exporter *x, const qn_fb_object *op, const qn_mnn_record *in)
{
    const int64_t type = qn__fb_int(x->doc, op, QN_MNN_Op_type);
    const qn_fb_object *pool = qn__fb_table(op, QN_MNN_Op_main);
    if (type == QN_MNN_OpType_Padding)
        return false;
    if (type != QN_MNN_OpType_Pooling || pool == NULL || pool->record != QN_MNN_REC_Pool)
        return true;
    return qn__fb_int(x->doc, pool, QN_MNN_Pool_type) == QN_MNN_PoolType_MAXPOOL &&
           (in->min >= 0 || in->max <= 0);
}

qn_status qn__mnx_export_quants(qn_mnx_exporter *x, qn_error *error)
{
    size_t count = 0;
    qn_mnn_record *records = qn__arena_calloc(&x->graph->arena, x->n_ids + 1, sizeof(*records));
    qn_mnn_tensor_quant *quants = qn__arena_calloc(&x->graph->arena, x->n_ids + 1, sizeof(*quants));
    if (records == NULL || quants == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < x->n_ids; i++) {
        const qn_mnx_value *value = x->described[i];
        if (value == NULL || !value->has_quant)
            continue;
        const qn_mnn_tensor_quant *q = &value->quant;
        records[i] = (qn_mnn_record){
            .known = true, .scale = q->scale, .zero = q->zero, .min = q->min, .max = q->max};
        count++;
    }
    if (count == 0)
        return QN_OK;
    QN_TRY(qn__arena_check(&x->doc->arena, error)); /* all operators are what they say */
    for (size_t k = 0; k < 2 * x->n_ops; k++) {     /* backwards, then forwards */
        const qn_fb_object *op = x->ops[k < x->n_ops ? x->n_ops - 1 - k : k - x->n_ops];
        const qn_mnn_passing kind = passes(qn__fb_int(x->doc, op, QN_MNN_Op_type));
        size_t n_in, n_out;
        qn__fb_bytes(op, QN_MNN_Op_inputIndexes, &n_in);
        qn__fb_bytes(op, QN_MNN_Op_outputIndexes, &n_out);
        if (n_in == 0)
            continue;
        qn_mnn_record *in = &records[qn__fb_int_at(x->doc, op, QN_MNN_Op_inputIndexes, 0)];
        for (size_t i = 0; i < n_out; i++) {
            qn_mnn_record *out = &records[qn__fb_int_at(x->doc, op, QN_MNN_Op_outputIndexes, i)];
            qn__mnn_guard_backwards(kind, in, out);
            if (k >= x->n_ops)
                qn__mnn_guard_forwards(kind, is_exact(x, op, in), in, out);
        }
    }
    count = 0;
    for (size_t i = 0; i < x->n_ids; i++) {
        const qn_mnn_record *r = &records[i];
        if (r->known)
            quants[count++] = (qn_mnn_tensor_quant){(uint32_t)i, r->scale, r->zero, r->min, r->max};
    }
    return qn__mnn_edit_quants(x->doc, quants, count, error);
}
