/* Targets and their operators, from targets.def and op_rules.def. */
#include "quant/quant.h"

#include <string.h>

static const qn_target targets[] = {
#define QN_TARGET(bit, name, activation, symmetric, float_bias, x86_pairs, summary)                \
    {name, summary, 1u << (bit), activation, symmetric, float_bias, x86_pairs},
#include "quant/targets.def"
#undef QN_TARGET
};

static const struct {
    qn_op op;
    qn_rule rule;
    uint32_t mask;
} rules[] = {
#define QN_OP_RULE(op, rule, targets) {QN_OP_##op, QN_RULE_##rule, targets},
#include "quant/op_rules.def"
#undef QN_OP_RULE
};

const qn_target *qn__target_at(size_t index)
{
    return index < sizeof(targets) / sizeof(targets[0]) ? &targets[index] : NULL;
}

const qn_target *qn__target_find(const char *name)
{
    for (size_t i = 0; qn__target_at(i) != NULL; i++)
        if (strcmp(targets[i].name, name) == 0)
            return &targets[i];
    return NULL;
}

qn_rule qn__target_rule(const qn_target *target, qn_op op, const char **reason)
{
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        if (rules[i].op == op && (rules[i].mask & target->mask) != 0)
            return rules[i].rule;
    if (op == QN_OP_RELU || op == QN_OP_CLIP)
        *reason = "not behind an operator that could absorb it";
    else
        *reason = "the target has no integer form of it";
    return QN_RULE_FLOAT;
}

const char *qn_target_name(size_t index)
{
    const qn_target *t = qn__target_at(index);
    return t == NULL ? NULL : t->name;
}

const char *qn_target_summary(size_t index)
{
    const qn_target *t = qn__target_at(index);
    return t == NULL ? NULL : t->summary;
}
