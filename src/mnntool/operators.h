/* Operators of the document as the parts of the tool look at them, by their index in the file. */
#ifndef QN_MNNTOOL_OPERATORS_H
#define QN_MNNTOOL_OPERATORS_H

#include "mnntool/tool.h"

/* Operators: type, name ("" when it has none), tensor ids; -1 where there is none. */
int64_t qn__mnn_op_type(const qn_mnn_source *source, size_t op);
const char *qn__mnn_op_title(const qn_mnn_source *source, size_t op);
size_t qn__mnn_op_count(const qn_mnn_source *source, size_t op, bool outputs);
int64_t qn__mnn_op_tensor(const qn_mnn_source *source, size_t op, bool outputs, size_t index);
/* Is the operator named in skip_quant_op_names? */
bool qn__mnn_op_skipped(const qn_mnn_run *run, size_t op);

#endif
