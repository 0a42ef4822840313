/* Operators of the document as the parts of the tool look at them. */
#include "mnntool/operators.h"

#include <string.h>

int64_t qn__mnn_op_type(const qn_mnn_source *source, size_t op)
{
    return qn__fb_int(&source->doc, source->ops[op], QN_MNN_Op_type);
}

const char *qn__mnn_op_title(const qn_mnn_source *source, size_t op)
{
    const char *name = qn__fb_string(source->ops[op], QN_MNN_Op_name);
    return name != NULL ? name : "";
}

static uint32_t list_of(bool outputs)
{
    return outputs ? QN_MNN_Op_outputIndexes : QN_MNN_Op_inputIndexes;
}

size_t qn__mnn_op_count(const qn_mnn_source *source, size_t op, bool outputs)
{
    size_t count;
    (void)qn__fb_bytes(source->ops[op], list_of(outputs), &count);
    return count;
}

int64_t qn__mnn_op_tensor(const qn_mnn_source *source, size_t op, bool outputs, size_t index)
{
    if (index >= qn__mnn_op_count(source, op, outputs))
        return -1;
    const int64_t id = qn__fb_int_at(&source->doc, source->ops[op], list_of(outputs), index);
    return id >= 0 && (uint64_t)id < source->n_tensors ? id : -1;
}

bool qn__mnn_op_skipped(const qn_mnn_run *run, size_t op)
{
    const char *name = qn__mnn_op_title(run->source, op);
    for (size_t i = 0; i < run->config->n_skips; i++)
        if (strcmp(run->config->skips[i], name) == 0)
            return true;
    return false;
}
