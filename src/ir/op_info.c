/* The operator table, made from ops.def. Names lie one behind another and are found by their
 * offset: a pointer for each would be twice as much, and a relocation when the library is loaded.
 */
#include "ir/graph.h"

#include <stddef.h>
#include <string.h>

/* Name and domain, each with its end. */
#define ROW(domain, name) name "\0" domain
typedef struct names {
    char none[sizeof(ROW("", "(unknown)"))];
#define QN_OP(id, domain, name, infer, flags) char id[sizeof(ROW(domain, name))];
#include "ir/ops.def"
#undef QN_OP
} names;
static const names NAMES = {
    .none = ROW("", "(unknown)"),
#define QN_OP(id, domain, name, infer, flags) .id = ROW(domain, name),
#include "ir/ops.def"
#undef QN_OP
};
static const uint16_t AT[QN_OP_COUNT] = {
#define QN_OP(id, domain, name, infer, flags) [QN_OP_##id] = offsetof(names, id),
#include "ir/ops.def"
#undef QN_OP
};
_Static_assert(sizeof(names) <= UINT16_MAX, "offsets of 16 bits");
static const uint8_t FLAGS[QN_OP_COUNT] = {
#define QN_OP(id, domain, name, infer, flags) [QN_OP_##id] = flags,
#include "ir/ops.def"
#undef QN_OP
};

const char *qn__op_name(qn_op op)
{
    return (const char *)&NAMES + ((unsigned)op < QN_OP_COUNT ? AT[op] : 0);
}

const char *qn__op_domain(qn_op op)
{
    const char *const name = qn__op_name(op);
    return name + strlen(name) + 1;
}

uint32_t qn__op_flags(qn_op op)
{
    return (unsigned)op < QN_OP_COUNT ? FLAGS[op] : 0;
}

qn_op qn__op_find(const char *domain, const char *name)
{
    /* "ai.onnx" is the long form of the default domain. */
    if (strcmp(domain, "ai.onnx") == 0)
        domain = "";
    for (int op = QN_OP_NONE + 1; op < QN_OP_COUNT; op++)
        if (strcmp(qn__op_name((qn_op)op), name) == 0 &&
            strcmp(qn__op_domain((qn_op)op), domain) == 0)
            return (qn_op)op;
    return QN_OP_NONE;
}

const char *qn__requantize_name(qn_requantize kind)
{
    static const char KINDS[][16] = {"float", "float", "gemmlowp", "gemmlowp-single", "shift"};
    return (unsigned)kind < QN_REQUANTIZE_COUNT ? KINDS[kind] : "";
}
