/* Broadcasting: strides per input, merged axes, layouts. */
#include "run/ops/broadcast.h"

bool qn__same_dims(const qn_tensor *a, const qn_tensor *b)
{
    if (a->rank != b->rank)
        return false;
    for (size_t i = 0; i < a->rank; i++)
        if (a->dims[i].value != b->dims[i].value)
            return false;
    return true;
}

void qn__broadcast_layouts(qn_step *step)
{
    const qn_node *const node = step->node;
    qn_layout layout = QN_LAYOUT_ROW_MAJOR;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const qn_tensor *const t = node->inputs[i];
        if (t != NULL && t->constant == NULL && qn__same_dims(t, node->outputs[0]) &&
            step->in_layout[i] == QN_LAYOUT_CHANNELS_LAST)
            layout = QN_LAYOUT_CHANNELS_LAST;
    }
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const qn_tensor *const t = node->inputs[i];
        if (t != NULL && t->rank == node->outputs[0]->rank && qn__same_dims(t, node->outputs[0]))
            step->in_layout[i] = layout;
    }
    step->out_layout[0] = layout;
}

static void merge(qn_broadcast *b)
{
    size_t n = 0;
    for (size_t i = 0; i < b->rank; i++) {
        if (b->dims[i] == 1)
            continue;
        bool joins = n > 0;
        for (size_t k = 0; k < b->n && joins; k++)
            joins = b->strides[k][n - 1] == b->strides[k][i] * b->dims[i];
        if (joins) {
            b->dims[n - 1] *= b->dims[i];
            for (size_t k = 0; k < b->n; k++)
                b->strides[k][n - 1] = b->strides[k][i];
            continue;
        }
        b->dims[n] = b->dims[i];
        for (size_t k = 0; k < b->n; k++)
            b->strides[k][n] = b->strides[k][i];
        n++;
    }
    if (n == 0) {
        b->dims[0] = 1;
        for (size_t k = 0; k < b->n; k++)
            b->strides[k][0] = 0;
        n = 1;
    }
    b->rank = n;
}

bool qn__broadcast_make(qn_broadcast *b, const qn_tensor *output, qn_layout output_layout,
                        const qn_tensor *const *tensors, const qn_layout *layouts, size_t n)
{
    int64_t out_dims[QN_MAX_RANK] = {0};
    size_t order[QN_MAX_RANK];
    *b = (qn_broadcast){.n = n, .rank = output->rank};
    qn__tensor_dims(output, out_dims);
    qn__layout_order(output->rank, output_layout, order);
    for (size_t i = 0; i < b->rank; i++)
        b->dims[i] = out_dims[order[i]];
    for (size_t k = 0; k < n; k++) {
        const qn_tensor *const t = tensors[k];
        int64_t dims[QN_MAX_RANK] = {0}, strides[QN_MAX_RANK] = {0};
        if (t->rank > output->rank)
            return false;
        qn__tensor_dims(t, dims);
        qn__layout_strides(t->rank, dims, layouts[k], strides);
        for (size_t i = 0; i < b->rank; i++) {
            const size_t missing = (size_t)(output->rank - t->rank);
            if (order[i] < missing)
                continue;
            const size_t axis = order[i] - missing;
            if (dims[axis] == out_dims[order[i]])
                b->strides[k][i] = dims[axis] == 1 ? 0 : strides[axis];
            else if (dims[axis] != 1)
                return false;
        }
    }
    merge(b);
    b->row = (size_t)b->dims[b->rank - 1];
    b->rows = 1;
    for (size_t i = 0; i + 1 < b->rank; i++)
        b->rows *= (size_t)b->dims[i];
    return true;
}

bool qn__broadcast_matrices(qn_broadcast *b, const qn_tensor *output, const qn_tensor *left,
                            const qn_tensor *right)
{
    qn_tensor t[3] = {*output, *left, *right};
    for (size_t i = 0; i < 3; i++)
        t[i].rank = t[i].rank < 2 ? 0 : (uint8_t)(t[i].rank - 2);
    const qn_tensor *const inputs[2] = {&t[1], &t[2]};
    const qn_layout layouts[2] = {QN_LAYOUT_ROW_MAJOR, QN_LAYOUT_ROW_MAJOR};
    return qn__broadcast_make(b, &t[0], QN_LAYOUT_ROW_MAJOR, inputs, layouts, 2);
}

void qn__broadcast_row(const qn_broadcast *b, size_t row, int64_t offsets[QN_BROADCAST_MAX])
{
    for (size_t k = 0; k < b->n; k++)
        offsets[k] = 0;
    for (size_t i = b->rank - 1; i-- > 0;) {
        const int64_t at = (int64_t)(row % (size_t)b->dims[i]);
        row /= (size_t)b->dims[i];
        for (size_t k = 0; k < b->n; k++)
            offsets[k] += at * b->strides[k][i];
    }
}
