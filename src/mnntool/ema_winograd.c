/* The Winograd transform that MNN's EMA simulates (winogradOpt): which convolutions it is for, the
 * ranges of their transformed inputs, and what the file keeps of them. The simulated convolution
 * reads values that were not rounded. MNN takes its pads from fields that SAME padding leaves 0,
 * makes smaller outputs and reads past tensors behind them; here the pads are the convolution's. */
#include "mnntool/ema.h"
#include "mnntool/winograd.h"
#include "run/run.h"

#include <math.h>
#include <string.h>

enum { MOST_UNIT = 6, LEAST_UNIT = 2, PACK = 12, MOST_ALPHA = 6, ATTR_HEAD = 9 };
#define LEAST_GAIN 2.0f
#define MOVING 0.01f
#define SMALLEST 1e-6f

/* Positions are rows of the transformed tile times its columns; [0] is vertical. */
struct qn_ema_winograd {
    qn_train_look look;
    int64_t channels, size[2], pads[2], out[2]; /* pads: before */
    int32_t kernel[2], unit[2], alpha[2];
    float input[2][MOST_ALPHA * MOST_ALPHA]; /* [alpha][alpha] transform of the input, B */
    size_t positions;
    bool seen;
    float *lo, *hi;          /* [positions] */
    float *sample_lo_and_hi; /* [samples][2 * positions] */
};

/* Coefficients of the product of (x - point) over all points but `left_out`. */
static void product(int32_t n_points, int32_t left_out, float *out)
{
    memset(out, 0, MOST_ALPHA * sizeof(*out));
    out[0] = 1;
    for (int32_t i = 0, degree = 0; i < n_points; i++) {
        if (i == left_out)
            continue;
        for (int32_t k = ++degree; k >= 0; k--)
            out[k] = (k > 0 ? out[k - 1] : 0) - (float)qn__winograd_points[i] * out[k];
    }
}

static void input_transform(int32_t alpha, float *b)
{
    const int32_t n = alpha - 1;
    for (int32_t j = 0; j < alpha; j++) {
        float column[MOST_ALPHA];
        product(n, j, column); /* j == n: nothing is left out */
        const float sign = j == 0 && qn__winograd_divisor(n, 0) < 0 ? -1.0f : 1.0f;
        for (int32_t y = 0; y < alpha; y++)
            b[y * alpha + j] = sign * column[y];
    }
}

/* --- which convolutions ------------------------------------------------------------------------*/
static int64_t tiles(int64_t size, int32_t unit)
{
    return (size + unit - 1) / unit;
}

/* MNN's estimate of what is saved; false: nothing worth it. */
static bool choose_units(const int64_t out[2], const int32_t kernel[2], int64_t channels,
                         int64_t rows, int32_t unit[2])
{
    const float plain = (float)out[0] * (float)out[1] * (float)channels * (float)rows *
                        (float)kernel[0] * (float)kernel[1];
    const double per_unit = ceil((double)out[0] * (double)out[1] / PACK);
    const int32_t most = (int32_t)fmin(fmax(floor(sqrt(per_unit)), LEAST_UNIT), MOST_UNIT);
    float best = LEAST_GAIN;
    unit[0] = unit[1] = 0;
    for (int32_t y = LEAST_UNIT; y <= most; y++)
        for (int32_t x = LEAST_UNIT; x <= most; x++) {
            const int32_t ay = y + kernel[0] - 1, ax = x + kernel[1] - 1;
            if ((ay != 4 && ay != 6) || (ax != 4 && ax != 6))
                continue;
            const double area = (double)ay * ax;
            const double tile = 2 * area * (double)channels +
                                area * (double)channels * (double)rows +
                                (area + (double)y * ax) * (double)rows;
            const double n_tiles = (double)tiles(out[0], y) * (double)tiles(out[1], x);
            const float gain = plain / (float)(tile * n_tiles);
            if (gain > best) {
                best = gain;
                unit[0] = y;
                unit[1] = x;
            }
        }
    return unit[0] != 0;
}

static bool all_are(const qn_node *node, const char *name, int64_t wanted)
{
    size_t n = 0;
    const int64_t *v = qn__attr_ints(node, name, &n);
    for (size_t i = 0; i < n; i++)
        if (v[i] != wanted)
            return false;
    return true;
}

static void read_pads(const qn_node *node, const int32_t kernel[2], int64_t pads[4])
{
    size_t n = 0;
    const char *automatic = qn__attr_string(node, "auto_pad", "NOTSET");
    const int64_t *given = qn__attr_ints(node, "pads", &n);
    for (size_t i = 0; i < 4; i++)
        pads[i] = n == 4 ? given[i] : 0;
    if (strncmp(automatic, "SAME", 4) != 0)
        return;
    for (size_t i = 0; i < 2; i++) { /* stride 1 */
        pads[i] = (kernel[i] - 1) / 2;
        pads[2 + i] = kernel[i] - 1 - pads[i];
    }
}

/* MNN reads the first two pads of the file, twice each. */
static bool as_mnn_pads(const qn_mnn_source *s, size_t op, const int64_t pads[4])
{
    const qn_fb_object *main = qn__fb_table(s->ops[op], QN_MNN_Op_main);
    const qn_fb_object *c = qn__fb_table(main, QN_MNN_Convolution2D_common);
    size_t n = 0;
    (void)qn__fb_bytes(c, QN_MNN_Convolution2DCommon_pads, &n);
    const int64_t x = n > 1 ? qn__fb_int_at(&s->doc, c, QN_MNN_Convolution2DCommon_pads, 0)
                            : qn__fb_int(&s->doc, c, QN_MNN_Convolution2DCommon_padX);
    const int64_t y = n > 1 ? qn__fb_int_at(&s->doc, c, QN_MNN_Convolution2DCommon_pads, 1)
                            : qn__fb_int(&s->doc, c, QN_MNN_Convolution2DCommon_padY);
    return pads[0] == y && pads[2] == y && pads[1] == x && pads[3] == x;
}

static qn_status see_sample(void *arg, size_t index, const qn_view *view, qn_error *error);
static qn_status see_batch(void *arg, size_t n_samples, qn_error *error);

qn_status qn__ema_winograd(qn_ema *e, qn_ema_block *b, size_t samples, bool *other_pads,
                           qn_error *error)
{
    const qn_node *node = b->node;
    const qn_tensor *w = node->inputs[1], *x = node->inputs[0];
    if (w->rank != 4 || x == NULL || x->rank != 4 || qn__attr_int(node, "group", 1) != 1 ||
        !all_are(node, "strides", 1) || !all_are(node, "dilations", 1))
        return QN_OK;
    struct qn_ema_winograd p = {.channels = w->dims[1].value};
    int64_t pads[4];
    for (size_t i = 0; i < 2; i++) {
        const int64_t k = w->dims[2 + i].value;
        if (k < 2 || k > MOST_ALPHA || x->dims[2 + i].kind != QN_DIM_CONST)
            return QN_OK;
        p.kernel[i] = (int32_t)k;
        p.size[i] = x->dims[2 + i].value;
    }
    read_pads(node, p.kernel, pads);
    for (size_t i = 0; i < 2; i++) {
        p.pads[i] = pads[i];
        p.out[i] = p.size[i] + pads[i] + pads[2 + i] - p.kernel[i] + 1;
        if (p.out[i] < 1)
            return QN_OK;
    }
    if (!choose_units(p.out, p.kernel, p.channels, (int64_t)b->rows, p.unit))
        return QN_OK;
    for (size_t i = 0; i < 2; i++) {
        p.alpha[i] = p.unit[i] + p.kernel[i] - 1;
        input_transform(p.alpha[i], p.input[i]);
    }
    p.positions = (size_t)p.alpha[0] * (size_t)p.alpha[1];
    p.lo = qn__arena_calloc(&e->arena, p.positions, 2 * sizeof(*p.lo));
    p.sample_lo_and_hi =
        qn__arena_calloc(&e->arena, samples, 2 * p.positions * sizeof(*p.sample_lo_and_hi));
    struct qn_ema_winograd *kept = qn__arena_memdup(&e->arena, &p, sizeof(p));
    if (p.lo == NULL || p.sample_lo_and_hi == NULL || kept == NULL)
        return QN_NOMEM(error);
    kept->hi = kept->lo + p.positions;
    kept->look = (qn_train_look){kept, see_sample, see_batch};
    b->winograd = kept;
    *other_pads = *other_pads || !as_mnn_pads(e->run->source, b->conv, pads);
    return QN_OK;
}

const qn_train_look *qn__ema_winograd_look(const struct qn_ema_winograd *p)
{
    return &p->look;
}

/* --- ranges ------------------------------------------------------------------------------------*/
/* Transposed input transform * tile * input transform. */
static void transform_tile(const struct qn_ema_winograd *p, const float *tile, float *out)
{
    const int32_t h = p->alpha[0], w = p->alpha[1];
    float half[MOST_ALPHA * MOST_ALPHA];
    for (int32_t i = 0; i < h; i++)
        for (int32_t x = 0; x < w; x++) {
            float sum = 0;
            for (int32_t y = 0; y < h; y++)
                sum += p->input[0][y * h + i] * tile[y * w + x];
            half[i * w + x] = sum;
        }
    for (int32_t i = 0; i < h; i++)
        for (int32_t j = 0; j < w; j++) {
            float sum = 0;
            for (int32_t x = 0; x < w; x++)
                sum += half[i * w + x] * p->input[1][x * w + j];
            out[i * w + j] = sum;
        }
}

typedef struct plane {
    const float *data;
    int64_t row, column; /* strides */
} plane;

static void load_tile(const struct qn_ema_winograd *p, const plane *in, int64_t y0, int64_t x0,
                      float *tile)
{
    for (int64_t y = 0; y < p->alpha[0]; y++)
        for (int64_t x = 0; x < p->alpha[1]; x++) {
            const bool inside =
                y0 + y >= 0 && y0 + y < p->size[0] && x0 + x >= 0 && x0 + x < p->size[1];
            *tile++ = inside ? in->data[(y0 + y) * in->row + (x0 + x) * in->column] : 0.0f;
        }
}

static void see_plane(const struct qn_ema_winograd *p, const plane *in, float *lo, float *hi)
{
    const int64_t rows = tiles(p->out[0], p->unit[0]), columns = tiles(p->out[1], p->unit[1]);
    float tile[MOST_ALPHA * MOST_ALPHA], values[MOST_ALPHA * MOST_ALPHA];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            load_tile(p, in, r * p->unit[0] - p->pads[0], c * p->unit[1] - p->pads[1], tile);
            transform_tile(p, tile, values);
            for (size_t i = 0; i < p->positions; i++) {
                lo[i] = fminf(lo[i], values[i]);
                hi[i] = fmaxf(hi[i], values[i]);
            }
        }
}

static qn_status see_sample(void *arg, size_t index, const qn_view *view, qn_error *error)
{
    const struct qn_ema_winograd *p = arg;
    const bool last = view->layout == QN_LAYOUT_CHANNELS_LAST;
    QN_FAIL_IF(view->rank != 4 || view->dims[1] != p->channels || view->dims[2] != p->size[0] ||
                   view->dims[3] != p->size[1],
               error, QN_UNSUPPORTED, "tensor \"%s\" changes its size", view->tensor->name);
    float *lo = p->sample_lo_and_hi + index * 2 * p->positions, *hi = lo + p->positions;
    memset(lo, 0, 2 * p->positions * sizeof(*lo)); /* every range holds 0 */
    const int64_t area = p->size[0] * p->size[1], n = p->channels;
    for (int64_t i = 0; i < view->dims[0]; i++)
        for (int64_t c = 0; c < n; c++) {
            const float *data = (const float *)view->data + i * n * area;
            const plane in = last ? (plane){data + c, p->size[1] * n, n}
                                  : (plane){data + c * area, p->size[1], 1};
            see_plane(p, &in, lo, hi);
        }
    return QN_OK;
}

static const qn_range_format format_8 = {.qmin = -127, .qmax = 127};

static qn_status see_batch(void *arg, size_t n_samples, qn_error *error)
{
    struct qn_ema_winograd *p = arg;
    (void)error;
    for (size_t i = 0; i < p->positions; i++) {
        float lo = 0, hi = 0;
        for (size_t s = 0; s < n_samples; s++) {
            const float *seen = p->sample_lo_and_hi + s * 2 * p->positions;
            lo = fminf(lo, seen[i]);
            hi = fmaxf(hi, seen[p->positions + i]);
        }
        (void)qn__train_grid(&lo, &hi, &format_8);
        p->lo[i] = p->seen ? (1.0f - MOVING) * p->lo[i] + MOVING * lo : lo;
        p->hi[i] = p->seen ? (1.0f - MOVING) * p->hi[i] + MOVING * hi : hi;
    }
    p->seen = true;
    return QN_OK;
}

/* --- what the file keeps -----------------------------------------------------------------------*/
/* Largest magnitude of each position of a row's transformed kernels. */
static void row_peaks(const struct qn_ema_winograd *p, const float g[2][MOST_ALPHA * MOST_ALPHA],
                      const int8_t *q, float scale, float *peaks)
{
    const int32_t kh = p->kernel[0], kw = p->kernel[1];
    for (int64_t c = 0; c < p->channels; c++, q += kh * kw)
        for (int32_t i = 0; i < p->alpha[0]; i++)
            for (int32_t j = 0; j < p->alpha[1]; j++) {
                float sum = 0;
                for (int32_t x = 0; x < kw; x++) {
                    float column = 0;
                    for (int32_t y = 0; y < kh; y++)
                        column += g[0][i * kh + y] * ((float)q[y * kw + x] * scale);
                    sum += column * g[1][j * kw + x];
                }
                float *peak = &peaks[i * p->alpha[1] + j];
                *peak = fmaxf(*peak, fabsf(sum));
            }
}

static qn_status weight_scales(qn_ema *e, const qn_ema_block *b, float *out, qn_error *error)
{
    const struct qn_ema_winograd *p = b->winograd;
    float g[2][MOST_ALPHA * MOST_ALPHA];
    for (size_t i = 0; i < 2; i++)
        qn__winograd_weight_matrix(p->alpha[i], p->kernel[i], g[i]);
    float *scales = qn__arena_alloc(&e->arena, b->rows * sizeof(*scales));
    int8_t *q = qn__arena_alloc(&e->arena, b->rows * b->columns);
    if (scales == NULL || q == NULL)
        return QN_NOMEM(error);
    qn__ema_round_rows(b->weights, b->rows, b->columns, e->levels, scales, q);
    for (size_t r = 0; r < b->rows; r++) {
        float peaks[MOST_ALPHA * MOST_ALPHA] = {0};
        row_peaks(p, g, q + r * b->columns, scales[r], peaks);
        for (size_t i = 0; i < p->positions; i++)
            out[i * b->rows + r] = fmaxf(peaks[i], SMALLEST) * (1.0f / (float)e->levels);
    }
    return QN_OK;
}

qn_status qn__ema_winograd_attr(qn_ema *e, const qn_ema_block *b, const int32_t **out,
                                size_t *count, qn_error *error)
{
    const struct qn_ema_winograd *p = b->winograd;
    const size_t n = ATTR_HEAD + p->positions * (2 + b->rows);
    QN_FAIL_IF(n > INT32_MAX, error, QN_UNSUPPORTED, "operator \"%s\" has too many scales",
               b->node->name);
    int32_t *attr = qn__arena_calloc(&e->arena, n, sizeof(*attr));
    float *scales = qn__arena_calloc(&e->arena, p->positions, (b->rows + 1) * sizeof(*scales));
    if (attr == NULL || scales == NULL)
        return QN_NOMEM(error);
    /* version, number of parts, size of the part, where its kernel begins, kernel, unit */
    const int32_t head[ATTR_HEAD] = {
        0, 1, (int32_t)n - 3, 0, 0, p->kernel[0], p->kernel[1], p->unit[0], p->unit[1]};
    memcpy(attr, head, sizeof(head));
    for (size_t i = 0; i < p->positions; i++) {
        float lo = p->lo[i], hi = p->hi[i];
        const qn_train_grid grid = qn__train_grid(&lo, &hi, &format_8);
        scales[i] = grid.scale > 0 ? grid.scale : 1.0f; /* nothing but zeros */
        attr[ATTR_HEAD + p->positions + i] = (int32_t)grid.zero;
    }
    QN_TRY(weight_scales(e, b, scales + p->positions, error));
    memcpy(attr + ATTR_HEAD, scales, p->positions * sizeof(*scales));
    memcpy(attr + ATTR_HEAD + 2 * p->positions, scales + p->positions,
           p->positions * b->rows * sizeof(*scales));
    *out = attr;
    *count = n;
    return QN_OK;
}
