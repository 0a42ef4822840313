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

qn_status qn__mnx_export_quants(qn_mnx_exporter *x, qn_error *error)
{
    size_t count = 0;
    qn_mnn_tensor_quant *quants = qn__arena_calloc(&x->graph->arena, x->n_ids + 1, sizeof(*quants));
    if (quants == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < x->n_ids; i++) {
        if (x->described[i] == NULL || !x->described[i]->has_quant)
            continue;
        quants[count] = x->described[i]->quant;
        quants[count++].index = (uint32_t)i;
    }
    return count == 0 ? QN_OK : qn__mnn_edit_quants(x->doc, quants, count, error);
}
