/* The quantization of activations in an exported document. */
#include "format/mnn/mnn_export.h"

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
/* MNN hands the record of a tensor over the operators below to the side that has none, and runs
 * them in int8 where both sides have equal scales and zero points. */
typedef enum passing {
    PASSES_NONE = 0,
    PASSES_VALUES, /* the output is the input, in another order */
    PASSES_OTHERS  /* the output has a range of its own */
} passing;

static passing passes(int64_t type)
{
    switch (type) {
    case QN_MNN_OpType_ConvertTensor:
    case QN_MNN_OpType_Reshape:
    case QN_MNN_OpType_Permute:
        return PASSES_VALUES;
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
        return PASSES_OTHERS;
    default:
        return PASSES_NONE;
    }
}

/* Is the operator right in int8? The maximum is not on x86 where a window has levels below and
 * above zero: there levels are kept with 128 added, and compared as if they were not. The mean
 * rounds down, half a step too low on average. Padding fills with the level 0. */
static bool is_exact(const qn_mnx_exporter *x, const qn_fb_object *op,
                     const qn_mnn_tensor_quant *in)
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

static bool nearly_equal(const qn_mnn_tensor_quant *a, const qn_mnn_tensor_quant *b)
{
    return a->zero == b->zero && fabsf(a->scale - b->scale) <= 4e-6f * a->scale;
}

/* A scale that differs in its last digit keeps the runtime from int8 and from handing over. */
static void guard(qn_mnx_exporter *x, const qn_fb_object *op, qn_mnn_tensor_quant *in, bool *in_has,
                  qn_mnn_tensor_quant *out, bool *out_has)
{
    const passing kind = passes(qn__fb_int(x->doc, op, QN_MNN_Op_type));
    if (kind == PASSES_NONE || (!*in_has && !*out_has))
        return;
    if (!*in_has || !*out_has) {
        qn_mnn_tensor_quant *to = *in_has ? out : in;
        *to = *in_has ? *in : *out;
        *in_has = *out_has = true;
        /* What only float operators read stays float: a mean over a window, for one. */
        if (kind == PASSES_OTHERS || to == out)
            to->scale = nextafterf(to->scale, INFINITY);
        return;
    }
    if (!is_exact(x, op, in)) {
        if (in->scale == out->scale && in->zero == out->zero)
            out->scale = nextafterf(in->scale, INFINITY);
    } else if (nearly_equal(in, out)) {
        out->scale = in->scale; /* behind a pool, what is moved keeps the pool's scale */
    }
}

qn_status qn__mnx_export_quants(qn_mnx_exporter *x, qn_error *error)
{
    size_t count = 0;
    qn_mnn_tensor_quant *quants = qn__arena_calloc(&x->graph->arena, x->n_ids + 1, sizeof(*quants));
    bool *has = qn__arena_calloc(&x->graph->arena, x->n_ids + 1, sizeof(*has));
    if (quants == NULL || has == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < x->n_ids; i++) {
        has[i] = x->described[i] != NULL && x->described[i]->has_quant;
        if (has[i])
            quants[i] = x->described[i]->quant;
        count += has[i];
    }
    if (count == 0)
        return QN_OK;
    QN_TRY(qn__arena_check(&x->doc->arena, error)); /* all operators are what they say */
    for (size_t k = 0; k < 2 * x->n_ops; k++) {     /* backwards, then forwards */
        const qn_fb_object *op = x->ops[k < x->n_ops ? x->n_ops - 1 - k : k - x->n_ops];
        size_t n_in, n_out;
        qn__fb_bytes(op, QN_MNN_Op_inputIndexes, &n_in);
        qn__fb_bytes(op, QN_MNN_Op_outputIndexes, &n_out);
        if (n_in == 0)
            continue;
        const int64_t in = qn__fb_int_at(x->doc, op, QN_MNN_Op_inputIndexes, 0);
        for (size_t i = 0; i < n_out; i++) {
            const int64_t out = qn__fb_int_at(x->doc, op, QN_MNN_Op_outputIndexes, i);
            if (k >= x->n_ops || (!has[in] && has[out]))
                guard(x, op, &quants[in], &has[in], &quants[out], &has[out]);
        }
    }
    count = 0;
    for (size_t i = 0; i < x->n_ids; i++) {
        if (!has[i])
            continue;
        quants[count] = quants[i];
        quants[count++].index = (uint32_t)i;
    }
    return qn__mnn_edit_quants(x->doc, quants, count, error);
}
