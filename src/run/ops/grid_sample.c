/* GridSample: values of an image at computed places, any number of axes. */
#include "run/nd.h"
#include "run/op.h"

#include <math.h>
#include <string.h>

#define AXES (QN_MAX_RANK - 2)

typedef struct grid_state {
    size_t axes, taps; /* taps along each axis: 1 nearest, 2 linear, 4 cubic */
    char padding;      /* 'z' zeros, 'b' border, 'r' reflection */
    bool align_corners;
    int64_t dims[AXES];
} grid_state;

static int find_name(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    static const char *const MODES[] = {"nearest", "linear", "bilinear", "cubic", "bicubic"};
    static const size_t TAPS[] = {1, 2, 2, 4, 4};
    static const char *const PADDINGS[] = {"zeros", "border", "reflection"};
    const qn_node *const node = step->node;
    const qn_tensor *const x = qn__step_input(step, 0), *const grid = qn__step_input(step, 1);
    const qn_tensor *const y = node->outputs[0];
    const int mode = find_name(MODES, 5, qn__attr_string(node, "mode", "linear"));
    const int padding = find_name(PADDINGS, 3, qn__attr_string(node, "padding_mode", "zeros"));
    if (x == NULL || grid == NULL || x->type.dtype != QN_DTYPE_F32 ||
        grid->type.dtype != QN_DTYPE_F32 || grid->type.kind == QN_TYPE_QUANT)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "needs float32 inputs");
    if (mode < 0 || padding < 0)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "mode \"%s\", padding \"%s\"",
                             qn__attr_string(node, "mode", ""),
                             qn__attr_string(node, "padding_mode", ""));
    if (x->rank < 3 || grid->rank != x->rank || y->rank != x->rank ||
        x->dims[0].value != grid->dims[0].value ||
        grid->dims[grid->rank - 1].value != x->rank - 2 ||
        qn__tensor_elements(grid) / (size_t)(x->rank - 2) * (size_t)x->dims[1].value !=
            qn__tensor_elements(y))
        return qn__step_fail(step, error, QN_CORRUPT, "input and grid do not fit");
    grid_state *const s = qn__calloc(qn__plan_context(plan), 1, sizeof(*s));
    if (s == NULL)
        return QN_NOMEM(error);
    s->axes = (size_t)x->rank - 2;
    s->taps = TAPS[mode];
    s->padding = PADDINGS[padding][0];
    s->align_corners = qn__attr_int(node, "align_corners", 0) != 0;
    for (size_t i = 0; i < s->axes; i++)
        s->dims[i] = x->dims[2 + i].value;
    for (uint32_t i = 0; i < node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    step->out_layout[0] = QN_LAYOUT_ROW_MAJOR;
    step->state = s;
    return QN_OK;
}

/* Mirrored at lo and hi until inside. */
static double reflect(double x, double lo, double hi)
{
    const double range = hi - lo;
    if (range <= 0.0)
        return lo;
    if (x >= lo && x <= hi)
        return x;
    const double distance = x < lo ? lo - x : x - hi;
    const double times = floor(distance / range), rest = distance - times * range;
    const bool from_start = (x < lo) == (fmod(times, 2.0) == 0.0);
    return from_start ? lo + rest : hi - rest;
}

/* Where the taps of one axis lie and what they weigh; -1: nothing there. */
static void axis_taps(const grid_state *s, size_t axis, double place, int64_t *index,
                      double *weight)
{
    const double length = (double)s->dims[axis];
    const double lo = s->align_corners ? 0.0 : -0.5,
                 hi = s->align_corners ? length - 1.0 : length - 0.5;
    /* Positions are float32, as ONNX's definition has them. */
    double x = (double)(float)(s->align_corners ? (place + 1.0) / 2.0 * (length - 1.0)
                                                : ((place + 1.0) * length - 1.0) / 2.0);
    if (!(fabs(x) < 1e9))
        x = -1e9;
    if (s->taps == 1)
        x = rint(x);
    if (s->padding == 'b')
        x = x < 0.0 ? 0.0 : x > length - 1.0 ? length - 1.0 : x;
    else if (s->padding == 'r')
        x = reflect(x, lo, hi);
    const double down = s->taps == 1 ? rint(x) : floor(x), t = x - down;
    weight[0] = 1.0;
    if (s->taps == 2) {
        weight[0] = 1.0 - t;
        weight[1] = t;
    } else if (s->taps == 4) {
        const double a = -0.75, far[2] = {t + 1.0, 2.0 - t}, near[2] = {t, 1.0 - t};
        for (int i = 0; i < 2; i++) {
            weight[3 * i] = ((a * far[i] - 5.0 * a) * far[i] + 8.0 * a) * far[i] - 4.0 * a;
            weight[1 + i] = ((a + 2.0) * near[i] - (a + 3.0)) * near[i] * near[i] + 1.0;
        }
    }
    for (size_t i = 0; i < s->taps; i++) {
        double at = down + (double)i - (s->taps == 4 ? 1.0 : 0.0);
        if (s->padding == 'b')
            at = at < 0.0 ? 0.0 : at > length - 1.0 ? length - 1.0 : at;
        else if (s->padding == 'r')
            at = trunc(reflect(at, lo, hi));
        index[i] = at >= 0.0 && at < length ? (int64_t)at : -1;
    }
}

typedef struct grid_job {
    const grid_state *s;
    const float *x, *grid;
    float *y;
    size_t channels, plane, places; /* elements of a channel in and out */
} grid_job;

static void run_places(void *arg, size_t begin, size_t end)
{
    const grid_job *const job = arg;
    const grid_state *const s = job->s;
    size_t combinations = 1;
    for (size_t i = 0; i < s->axes; i++)
        combinations *= s->taps;
    for (size_t place = begin; place < end; place++) {
        const float *const at = job->grid + place * s->axes;
        int64_t index[AXES][4];
        double weight[AXES][4];
        for (size_t i = 0; i < s->axes; i++) /* the grid names the last axis first */
            axis_taps(s, i, (double)at[s->axes - 1 - i], index[i], weight[i]);
        const size_t image = place / job->places, out = place % job->places;
        for (size_t c = 0; c < job->channels; c++) {
            const float *const x = job->x + (image * job->channels + c) * job->plane;
            double sum = 0.0;
            for (size_t k = 0; k < combinations; k++) {
                size_t rest = k, offset = 0;
                double w = 1.0;
                bool inside = true;
                for (size_t i = 0; i < s->axes; i++, rest /= s->taps) {
                    const size_t tap = rest % s->taps;
                    w *= weight[i][tap];
                    inside = inside && index[i][tap] >= 0;
                    offset = offset * (size_t)s->dims[i] + (size_t)index[i][tap];
                }
                if (inside)
                    sum += w * (double)x[offset];
            }
            job->y[(image * job->channels + c) * job->places + out] = (float)sum;
        }
    }
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const grid_state *const s = step->state;
    if (out[0].count == 0)
        return QN_OK;
    grid_job job = {.s = s, .x = in[0].data, .grid = in[1].data, .y = out[0].data};
    const size_t images = (size_t)out[0].dims[0];
    job.channels = (size_t)out[0].dims[1];
    job.places = out[0].count / images / job.channels;
    job.plane = in[0].count / images / job.channels;
    qn__parallel_ranges(env->pool, run_places, &job, images * job.places,
                        64 * job.channels * s->taps * s->taps);
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_grid_sample = {QN_OP_GRID_SAMPLE, prepare, run, release};
