/* Types of graphs whose file has records of tensors. */
#ifndef QN_FORMAT_MNN_QUANT_READ_H
#define QN_FORMAT_MNN_QUANT_READ_H

#include "format/mnn/mnn_format.h"

/* Gives the float graph of source the types MNN computes with: rules of its CPU backend. Shapes and
 * types are inferred already. CORRUPT: a record that no int8 tensor can have. */
qn_status qn__mnn_quant_types(qn_graph *graph, const qn_mnn_source *source, qn_error *error);

#endif
