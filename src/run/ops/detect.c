/* Detection: RoiAlign and NonMaxSuppression. */
#include "run/nd.h"
#include "run/op.h"

#include <math.h>
#include <string.h>

/* --- RoiAlign -------------------------------------------------------------------------------- */
static qn_status prepare_roi(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    const qn_node *const node = step->node;
    const qn_tensor *const x = qn__step_input(step, 0), *const rois = qn__step_input(step, 1);
    const qn_tensor *const images = qn__step_input(step, 2), *const y = node->outputs[0];
    if (x == NULL || rois == NULL || images == NULL || x->type.dtype != QN_DTYPE_F32 ||
        rois->type.dtype != QN_DTYPE_F32 || images->type.dtype != QN_DTYPE_I64 ||
        rois->type.kind == QN_TYPE_QUANT)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "needs float32 inputs, int64 images");
    if (x->rank != 4 || rois->rank != 2 || y->rank != 4 || rois->dims[1].value != 4 ||
        qn__tensor_elements(images) != (size_t)rois->dims[0].value ||
        y->dims[0].value != rois->dims[0].value || y->dims[1].value != x->dims[1].value)
        return qn__step_fail(step, error, QN_CORRUPT, "input and regions do not fit");
    const char *const mode = qn__attr_string(node, "mode", "avg");
    if (strcmp(mode, "avg") != 0 && strcmp(mode, "max") != 0)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "mode \"%s\"", mode);
    const int64_t ratio = qn__attr_int(node, "sampling_ratio", 0);
    if (ratio < 0 || ratio > 1024 || !isfinite(qn__attr_float(node, "spatial_scale", 1.0f)))
        return qn__step_fail(step, error, QN_CORRUPT, "\"sampling_ratio\" or scale out of range");
    for (uint32_t i = 0; i < node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->out_layout[0] = QN_LAYOUT_ROW_MAJOR;
    return QN_OK;
}

typedef struct region {
    float start[2], bin[2]; /* y, x */
    int64_t samples[2];
} region;

/* Four neighbours of a place and their weights; false: too far outside. */
static bool neighbours(float y, float x, int64_t height, int64_t width, size_t at[4], float w[4])
{
    float place[2] = {y, x};
    const int64_t size[2] = {height, width};
    int64_t low[2], high[2];
    for (int i = 0; i < 2; i++) {
        if (!(place[i] >= -1.0f && place[i] <= (float)size[i]))
            return false;
        place[i] = place[i] < 0.0f ? 0.0f : place[i];
        low[i] = (int64_t)place[i];
        high[i] = low[i] + 1;
        if (low[i] >= size[i] - 1) {
            high[i] = low[i] = size[i] - 1;
            place[i] = (float)low[i];
        }
        place[i] -= (float)low[i];
    }
    for (int i = 0; i < 4; i++) {
        const int64_t row = i < 2 ? low[0] : high[0], column = i % 2 == 0 ? low[1] : high[1];
        at[i] = (size_t)(row * width + column);
        w[i] = (i < 2 ? 1.0f - place[0] : place[0]) * (i % 2 == 0 ? 1.0f - place[1] : place[1]);
    }
    return true;
}

static float sample_at(const region *r, int axis, int64_t bin, int64_t i)
{
    return r->start[axis] + (float)bin * r->bin[axis] +
           ((float)i + 0.5f) * r->bin[axis] / (float)r->samples[axis];
}

/* First sample of a bin at `place` or behind it (behind it: `after`). Samples rise with i. */
static int64_t first_sample(const region *r, int axis, int64_t bin, float place, bool after)
{
    int64_t low = 0, high = r->samples[axis];
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        const float at = sample_at(r, axis, bin, middle);
        if (after ? at > place : at >= place)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Samples [from[axis], to[axis]) may lie on the map: a region far larger than it costs no more. */
static void samples_on_map(const region *r, const int64_t bin[2], const int64_t *dims,
                           int64_t from[2], int64_t to[2])
{
    for (int axis = 0; axis < 2; axis++) {
        from[axis] = 0;
        to[axis] = r->samples[axis];
        if (r->bin[axis] > 0.0f) {
            from[axis] = first_sample(r, axis, bin[axis], -1.0f, false);
            to[axis] = first_sample(r, axis, bin[axis], (float)dims[axis], true);
        }
    }
}

static float pool_bin(const region *r, const float *plane, const int64_t *dims, int64_t by,
                      int64_t bx, bool max)
{
    double sum = 0.0;
    const int64_t bin[2] = {by, bx};
    int64_t from[2], to[2];
    samples_on_map(r, bin, dims, from, to);
    /* a sample that is left out counts as 0 */
    bool any = to[0] - from[0] < r->samples[0] || to[1] - from[1] < r->samples[1];
    float best = 0.0f;
    for (int64_t iy = from[0]; iy < to[0]; iy++) {
        const float y = sample_at(r, 0, by, iy);
        for (int64_t ix = from[1]; ix < to[1]; ix++) {
            const float x = sample_at(r, 1, bx, ix);
            size_t at[4] = {0};
            float w[4] = {0.0f};
            float here = 0.0f;
            if (neighbours(y, x, dims[0], dims[1], at, w)) {
                here = w[0] * plane[at[0]];
                for (int i = 0; i < 4; i++) {
                    const float part = w[i] * plane[at[i]];
                    sum += (double)part;
                    here = part > here ? part : here;
                }
            }
            best = !any || here > best ? here : best;
            any = true;
        }
    }
    const int64_t n = r->samples[0] * r->samples[1];
    return max ? best : (float)(sum / (double)(n > 0 ? n : 1));
}

static qn_status run_roi(const qn_step *step, const qn_run_env *env, const qn_view *in,
                         const qn_view *out, qn_error *error)
{
    (void)env;
    const qn_node *const node = step->node;
    const bool max = strcmp(qn__attr_string(node, "mode", "avg"), "max") == 0;
    const bool half = strcmp(qn__attr_string(node, "coordinate_transformation_mode", "half_pixel"),
                             "half_pixel") == 0;
    const float scale = qn__attr_float(node, "spatial_scale", 1.0f), offset = half ? 0.5f : 0.0f;
    const int64_t ratio = qn__attr_int(node, "sampling_ratio", 0);
    const int64_t *const dims = in[0].dims + 2, *const cells = out[0].dims + 2;
    const size_t plane = (size_t)(dims[0] * dims[1]), channels = (size_t)in[0].dims[1];
    float *y = out[0].data;
    if (out[0].count > 0 && plane == 0)
        return qn__step_fail(step, error, QN_CORRUPT, "empty input");
    for (int64_t n = 0; n < out[0].dims[0]; n++) {
        const float *const box = (const float *)in[1].data + 4 * n;
        const int64_t image = ((const int64_t *)in[2].data)[n];
        region r;
        if (image < 0 || image >= in[0].dims[0])
            return qn__step_fail(step, error, QN_CORRUPT, "region of image %lld", (long long)image);
        for (int i = 0; i < 2; i++) {
            r.start[i] = box[1 - i] * scale - offset;
            float extent = box[3 - i] * scale - offset - r.start[i];
            if (!half && extent < 1.0f)
                extent = 1.0f;
            if (!(fabsf(extent) < 1e6f) || !(fabsf(r.start[i]) < 1e9f))
                return qn__step_fail(step, error, QN_CORRUPT, "region %lld is too large",
                                     (long long)n);
            r.bin[i] = extent / (float)cells[i];
            r.samples[i] = ratio > 0 ? ratio : (int64_t)ceilf(r.bin[i]);
        }
        for (size_t c = 0; c < channels; c++) {
            const float *const x =
                (const float *)in[0].data + ((size_t)image * channels + c) * plane;
            for (int64_t by = 0; by < cells[0]; by++)
                for (int64_t bx = 0; bx < cells[1]; bx++)
                    *y++ = pool_bin(&r, x, dims, by, bx, max);
        }
    }
    return QN_OK;
}

/* --- NonMaxSuppression ----------------------------------------------------------------------- */
static qn_status prepare_nms(const qn_plan *plan, qn_step *step, qn_error *error)
{
    (void)plan;
    const qn_node *const node = step->node;
    const qn_tensor *const boxes = qn__step_input(step, 0), *const scores = qn__step_input(step, 1);
    if (boxes == NULL || scores == NULL || boxes->type.dtype != QN_DTYPE_F32 ||
        scores->type.dtype != QN_DTYPE_F32 || scores->type.kind == QN_TYPE_QUANT)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "needs float32 boxes and scores");
    if (boxes->rank != 3 || scores->rank != 3 || boxes->dims[2].value != 4 ||
        boxes->dims[0].value != scores->dims[0].value ||
        boxes->dims[1].value != scores->dims[2].value)
        return qn__step_fail(step, error, QN_CORRUPT, "boxes and scores do not fit");
    for (uint32_t i = 2; i < 5; i++) {
        const qn_tensor *const t = qn__step_input(step, i);
        if (t != NULL && (qn__tensor_elements(t) != 1 || t->type.kind == QN_TYPE_QUANT))
            return qn__step_fail(step, error, QN_CORRUPT, "input %u is not one number",
                                 (unsigned)i);
    }
    for (uint32_t i = 0; i < node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->out_layout[0] = QN_LAYOUT_ROW_MAJOR;
    step->scratch_bytes = (size_t)boxes->dims[1].value; /* a mark for each box */
    step->resizes = true;
    return QN_OK;
}

/* y0, x0, y1, x1 in order. */
static void corners(const float *box, bool centers, float out[4])
{
    if (centers) {
        out[0] = box[1] - box[3] / 2.0f;
        out[1] = box[0] - box[2] / 2.0f;
        out[2] = box[1] + box[3] / 2.0f;
        out[3] = box[0] + box[2] / 2.0f;
        return;
    }
    for (int i = 0; i < 2; i++) {
        out[i] = box[i] < box[i + 2] ? box[i] : box[i + 2];
        out[i + 2] = box[i] < box[i + 2] ? box[i + 2] : box[i];
    }
}

static float overlap(const float *a, const float *b)
{
    const float top = a[0] > b[0] ? a[0] : b[0], left = a[1] > b[1] ? a[1] : b[1];
    const float bottom = a[2] < b[2] ? a[2] : b[2], right = a[3] < b[3] ? a[3] : b[3];
    if (bottom <= top || right <= left)
        return 0.0f;
    const float shared = (bottom - top) * (right - left);
    const float whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared;
    return whole > 0.0f ? shared / whole : 0.0f;
}

static double number(const qn_step *step, const qn_view *in, uint32_t index, double fallback)
{
    const qn_tensor *const t = qn__step_input(step, index);
    return t != NULL ? qn__load_real(in[index].data, t->type.dtype, 0) : fallback;
}

static qn_status run_nms(const qn_step *step, const qn_run_env *env, const qn_view *in,
                         const qn_view *out, qn_error *error)
{
    const bool centers = qn__attr_int(step->node, "center_point_box", 0) != 0;
    const double most = number(step, in, 2, 0.0), threshold = number(step, in, 3, 0.0);
    const double least = number(step, in, 4, -INFINITY);
    const size_t n = (size_t)in[0].dims[1];
    const size_t images = (size_t)in[1].dims[0], classes = (size_t)in[1].dims[1];
    uint8_t *const done = env->scratch;
    int64_t *rows = out[0].data;
    size_t n_rows = 0, room = out[0].count / 3;
    for (size_t part = 0; part < images * classes; part++) {
        const float *const boxes = (const float *)in[0].data + part / classes * n * 4;
        const float *const scores = (const float *)in[1].data + part * n;
        double taken = 0.0;
        for (size_t i = 0; i < n; i++)
            done[i] = !((double)scores[i] > least);
        while (taken < most) {
            size_t best = n;
            for (size_t i = 0; i < n; i++)
                if (!done[i] && (best == n || scores[i] > scores[best]))
                    best = i;
            if (best == n)
                break;
            if (n_rows == room)
                return qn__step_fail(step, error, QN_INTERNAL, "more boxes than there is room for");
            const int64_t row[3] = {(int64_t)(part / classes), (int64_t)(part % classes),
                                    (int64_t)best};
            memcpy(rows + 3 * n_rows++, row, sizeof(row));
            taken += 1.0;
            float chosen[4], other[4];
            corners(boxes + 4 * best, centers, chosen);
            done[best] = 1;
            for (size_t i = 0; i < n; i++) {
                if (done[i])
                    continue;
                corners(boxes + 4 * i, centers, other);
                done[i] = (double)overlap(chosen, other) > threshold;
            }
        }
    }
    env->out_dims[0][0] = (int64_t)n_rows;
    return QN_OK;
}

const qn_run_op qn__op_roi_align = {QN_OP_ROI_ALIGN, prepare_roi, run_roi, NULL};
const qn_run_op qn__op_non_max_suppression = {QN_OP_NON_MAX_SUPPRESSION, prepare_nms, run_nms,
                                              NULL};
