/* The operator table, made from ops.def. */
#include "ir/graph.h"

#include <string.h>

static const qn_op_info NO_OP = {QN_OP_NONE, "", "(unknown)", 0};

static const qn_op_info OPS[QN_OP_COUNT] = {
    [QN_OP_NONE] = {QN_OP_NONE, "", "(unknown)", 0},
#define QN_OP(id, domain, name, infer, flags) [QN_OP_##id] = {QN_OP_##id, domain, name, flags},
#include "ir/ops.def"
#undef QN_OP
};

const qn_op_info *qn__op_info(qn_op op)
{
    return (unsigned)op < QN_OP_COUNT ? &OPS[op] : &NO_OP;
}

qn_op qn__op_find(const char *domain, const char *name)
{
    /* "ai.onnx" is the long form of the default domain. */
    if (strcmp(domain, "ai.onnx") == 0)
        domain = "";
    for (int op = QN_OP_NONE + 1; op < QN_OP_COUNT; op++)
        if (strcmp(OPS[op].name, name) == 0 && strcmp(OPS[op].domain, domain) == 0)
            return (qn_op)op;
    return QN_OP_NONE;
}
