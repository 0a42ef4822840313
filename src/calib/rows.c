#include "calib/rows.h"

#include <string.h>

enum {
    MIN_ROWS = 128,
    FEWEST_ROWS = 64, /* where memory is short */
    MAX_ROWS = 1024,
    ROWS_PER_COLUMN = 16,
    MAX_BYTES = 16 << 20 /* of one layer */
};

static bool is_spatial(const qn_node *node)
{
    return node->op == QN_OP_CONV && node->inputs[1]->rank == 4;
}

qn_status qn__rows_create(const qn_graph *graph, uint32_t node_index, size_t max_bytes,
                          qn_rows *out, qn_error *error)
{
    const qn_node *node = graph->nodes[node_index];
    const qn_tensor *w = node->inputs[1];
    int64_t dims[QN_MAX_RANK];
    *out = (qn_rows){.node = node_index, .groups = 1};
    if (!qn__tensor_static_dims(w, dims))
        return QN_OK;
    if (is_spatial(node)) {
        out->groups = (size_t)qn__attr_int(node, "group", 1);
        out->k = (size_t)(dims[1] * dims[2] * dims[3]);
    } else if (w->rank == 2 && (node->op == QN_OP_MATMUL || node->op == QN_OP_GEMM) &&
               qn__attr_int(node, "transA", 0) == 0) {
        const bool transposed = node->op == QN_OP_GEMM && qn__attr_int(node, "transB", 0) != 0;
        out->k = (size_t)dims[transposed ? 1 : 0];
    } else {
        return QN_OK;
    }
    size_t width, bytes;
    if (out->k == 0 || !qn_mul_size(&width, out->groups, out->k) ||
        !qn_mul_size(&bytes, width, sizeof(float)) || bytes > MAX_BYTES / 16)
        return QN_OK;
    out->n_rows = out->k * ROWS_PER_COLUMN;
    if (out->n_rows < MIN_ROWS)
        out->n_rows = MIN_ROWS;
    if (out->n_rows > MAX_ROWS)
        out->n_rows = MAX_ROWS;
    if (out->n_rows > MAX_BYTES / bytes)
        out->n_rows = MAX_BYTES / bytes;
    if (out->n_rows > FEWEST_ROWS && out->n_rows > max_bytes / bytes)
        out->n_rows = max_bytes / bytes > FEWEST_ROWS ? max_bytes / bytes : FEWEST_ROWS;
    out->data = qn__calloc(graph->ctx, out->n_rows, bytes);
    return out->data == NULL ? QN_NOMEM(error) : QN_OK;
}

void qn__rows_free(const qn_context *ctx, qn_rows *rows)
{
    qn__free(ctx, rows->data);
    rows->data = NULL;
}

/* Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014): its mixing step. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

typedef struct window {
    int64_t kh, kw, stride_h, stride_w, dilation_h, dilation_w, top, left, oh, ow;
} window;

static int64_t value_or(const int64_t *values, size_t count, size_t index, int64_t fallback)
{
    return index < count ? values[index] : fallback;
}

static window window_of(const qn_node *node, const qn_view *input)
{
    size_t ns, nd, np;
    const int64_t *strides = qn__attr_ints(node, "strides", &ns);
    const int64_t *dilations = qn__attr_ints(node, "dilations", &nd);
    const int64_t *pads = qn__attr_ints(node, "pads", &np);
    const qn_tensor *w = node->inputs[1];
    window v = {.kh = w->dims[2].value,
                .kw = w->dims[3].value,
                .stride_h = value_or(strides, ns, 0, 1),
                .stride_w = value_or(strides, ns, 1, 1),
                .dilation_h = value_or(dilations, nd, 0, 1),
                .dilation_w = value_or(dilations, nd, 1, 1),
                .top = value_or(pads, np, 0, 0),
                .left = value_or(pads, np, 1, 0)};
    const int64_t bottom = value_or(pads, np, 2, 0), right = value_or(pads, np, 3, 0);
    v.oh = (input->dims[2] + v.top + bottom - (v.kh - 1) * v.dilation_h - 1) / v.stride_h + 1;
    v.ow = (input->dims[3] + v.left + right - (v.kw - 1) * v.dilation_w - 1) / v.stride_w + 1;
    return v;
}

static void copy_patch(const qn_rows *rows, const window *v, const qn_view *input, uint64_t at,
                       float *row)
{
    const float *data = input->data;
    const int64_t channels = input->dims[1], h = input->dims[2], w = input->dims[3];
    const int64_t cin = channels / (int64_t)rows->groups;
    const int64_t x = (int64_t)(at % (uint64_t)v->ow);
    const int64_t y = (int64_t)(at / (uint64_t)v->ow % (uint64_t)v->oh);
    const int64_t n = (int64_t)(at / (uint64_t)v->ow / (uint64_t)v->oh);
    for (int64_t p = 0; p < v->kh * v->kw; p++) {
        const int64_t iy = y * v->stride_h - v->top + p / v->kw * v->dilation_h;
        const int64_t ix = x * v->stride_w - v->left + p % v->kw * v->dilation_w;
        if (iy < 0 || iy >= h || ix < 0 || ix >= w)
            continue; /* padding: the row is zero already */
        for (int64_t g = 0; g < (int64_t)rows->groups; g++) {
            float *out = row + g * (int64_t)rows->k + p * cin;
            if (input->layout == QN_LAYOUT_CHANNELS_LAST) {
                memcpy(out, data + ((n * h + iy) * w + ix) * channels + g * cin,
                       (size_t)cin * sizeof(float));
                continue;
            }
            for (int64_t c = 0; c < cin; c++)
                out[c] = data[((n * channels + g * cin + c) * h + iy) * w + ix];
        }
    }
}

void qn__rows_add(const qn_rows *rows, const qn_node *node, const qn_view *input, uint64_t sample,
                  uint64_t n_samples)
{
    const bool spatial = is_spatial(node);
    if (input->count == 0 || (spatial && input->rank != 4))
        return;
    const window v = spatial ? window_of(node, input) : (window){.oh = 1, .ow = 1};
    const uint64_t positions =
        spatial ? (uint64_t)(input->dims[0] * v.oh * v.ow) : (uint64_t)(input->count / rows->k);
    const size_t width = rows->groups * rows->k;
    if (positions == 0)
        return;
    /* row r belongs to sample r * n_samples / n_rows */
    const uint64_t first = (sample * rows->n_rows + n_samples - 1) / n_samples;
    for (uint64_t r = first; r < rows->n_rows && r * n_samples / rows->n_rows == sample; r++) {
        const uint64_t at = mix(r * 1000003 + rows->node) % positions;
        float *row = rows->data + r * width;
        if (spatial)
            copy_patch(rows, &v, input, at, row);
        else
            memcpy(row, (const float *)input->data + at * rows->k, rows->k * sizeof(float));
    }
}
