/* Steps that put their inputs one after another (Concat) have nothing to do where the inputs are
 * computed in their places in the output. Nor has a QuantizeLinear before a convolution that copies
 * its input: it quantizes instead. */
#include "run/nd.h"
#include "run/plan.h"

uint32_t qn__plan_root(qn_plan *plan, uint32_t value)
{
    qn_value *const values = plan->values;
    size_t at = 0;
    uint32_t root = value;
    for (; values[root].root != root; root = values[root].root)
        at += values[root].at;
    while (value != root) { /* whoever comes by again has one step to go */
        qn_value *const v = &values[value];
        const size_t rest = at - v->at;
        value = v->root;
        v->root = root;
        v->at = at;
        at = rest;
    }
    return root;
}

static bool producer_strides(const qn_plan *plan, uint32_t part)
{
    const qn_plan_step *const step = &plan->steps[plan->values[part].first - 1];
    return step->op.strides_output && step->n_out > 0 && step->out[0] == part;
}

/* The memory of `root` becomes that at `at` in the memory of `whole`. */
static void move_into(qn_plan *plan, uint32_t root, uint32_t whole, size_t at)
{
    qn_value *const to = &plan->values[whole], *const from = &plan->values[root];
    to->first = from->first < to->first ? from->first : to->first;
    to->shares = true;
    from->root = whole;
    from->at = at;
}

void qn__plan_join(qn_plan *plan, qn_plan_step *step, uint32_t now, const uint32_t *uses)
{
    const uint32_t whole = step->out[0];
    const qn_view *const view = &plan->values[whole].view;
    const size_t bits = qn__dtype_bits(view->tensor->type.dtype);
    size_t at = 0;
    bool all = true;
    if (step->op.joins == 0 || bits < 8 || plan->options.keep_all || view->count == 0)
        return;
    const qn_axis_view v = qn__axis_view(view->rank, view->dims, view->layout, step->op.join_axis);
    for (uint32_t i = 0; i < step->n_in; i++) {
        qn_value *const part = &plan->values[step->in[i]];
        const uint32_t root = qn__plan_root(plan, step->in[i]);
        const qn_value *const memory = &plan->values[root];
        const size_t bytes = part->view.count * (bits / 8);
        /* Inputs of the graph, which begin at 0, are the caller's. */
        bool fits = (step->op.joins >> i & 1) != 0 && !memory->is_constant && root != whole &&
                    memory->first > 0 && memory->last == now && memory->bytes == bytes &&
                    part->bytes == bytes;
        if (fits && v.outer > 1) {
            /* Written by one step, read by no other than this one, in memory of its own. */
            fits = v.inner == 1 && view->layout == QN_LAYOUT_CHANNELS_LAST && root == step->in[i] &&
                   uses[root] == 1 && !memory->shares && producer_strides(plan, root);
            if (fits)
                part->view.pitch = v.axis;
        }
        if (fits)
            move_into(plan, root, whole, at);
        all = all && fits;
        at += bytes / v.outer;
    }
    step->skip = all;
}

void qn__plan_fuse(qn_plan *plan, qn_plan_step *step, uint32_t now, const uint32_t *uses)
{
    if (!step->op.takes_rows || plan->options.keep_all || now < 2)
        return;
    qn_plan_step *const from = step - 1;
    qn_value *const value = &plan->values[step->in[0]];
    /* Floats then live beside the output instead of the bytes: a tenth more at most. Larger outputs
     * would push each other out of the second-level cache, too. */
    if (!from->op.makes_rows || from->out[0] != step->in[0] || value->last != now ||
        uses[step->in[0]] != 1 ||
        plan->values[step->out[0]].bytes > value->bytes + value->bytes / 2)
        return;
    qn_value *const memory = &plan->values[qn__plan_root(plan, from->in[0])];
    if (memory->last < now)
        memory->last = now;
    value->view.absent = true;
    value->bytes = 0;
    step->in[0] = from->in[0];
    step->op.quantizer = &from->op;
    from->skip = true;
}
