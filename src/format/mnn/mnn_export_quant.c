/* The quantization of activations in an exported document. */
#include "format/mnn/mnn_export.h"

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
