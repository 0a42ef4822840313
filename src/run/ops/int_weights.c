#include "run/ops/int_weights.h"

#include "core/checked.h"
#include "core/threads.h"
#include "run/nd.h"

#include <string.h>

/* Floats of the columns that are expanded at once stay in the second-level cache; matrices below
 * that are kept as floats. */
enum { FLOAT_BYTES = 512 << 10, PANEL_STEP = 3 };

bool qn__int_weights_fit(const qn_step *step, size_t n, size_t k, bool trans_b)
{
    const qn_tensor *const w = qn__step_input(step, 1);
    const qn_quant *const q = w->type.quant;
    const int k_axis = trans_b ? 1 : 0;
    size_t count, bytes;
    if (w->constant == NULL || w->type.kind != QN_TYPE_QUANT || w->rank != 2 || q->n_codebook > 0 ||
        qn__dtype_is_float(w->type.dtype) || qn__dtype_bits(w->type.dtype) > 8)
        return false;
    if (!qn_mul_size(&count, n, k) || count < FLOAT_BYTES / sizeof(float) ||
        !qn__dtype_bytes(&bytes, w->type.dtype, count) || bytes > w->constant->size_bytes)
        return false;
    if (q->block > 0)
        return q->axis == k_axis &&
               q->n_scales == n * ((k + (size_t)q->block - 1) / (size_t)q->block);
    return q->axis < 0 || (q->axis == 1 - k_axis && q->n_scales == n);
}

/* The least integer of a type: what is stored is counted from there. */
static int32_t least_of(const qn_tensor *w)
{
    return w->type.quant->is_signed ? -(1 << (qn__dtype_bits(w->type.dtype) - 1)) : 0;
}

bool qn__int_weights_plan(const qn_step *step, size_t n, size_t k, size_t nr, qn_int_weights *out)
{
    const qn_tensor *const w = qn__step_input(step, 1);
    const qn_quant *const q = w->type.quant;
    qn_int_weights r = {
        .kernel = step->kernels->f32_ints, .n = n, .k = k, .nr = nr, .panels = (n + nr - 1) / nr};
    r.block = q->block > 0 && (size_t)q->block < k ? (size_t)q->block : k;
    r.blocks = (k + r.block - 1) / r.block;
    r.halves = qn__dtype_bits(w->type.dtype) <= 4;
    int32_t zero = q->zero_points != NULL ? q->zero_points[0] : 0;
    for (size_t i = 0; q->zero_points != NULL && i < q->n_scales; i++)
        r.zeros |= q->zero_points[i] != zero;
    r.zero = (float)(zero - least_of(w));
    size_t heads, columns;
    if (r.kernel.nr == 0 || nr != r.kernel.nr || !qn_mul_size(&heads, r.blocks, r.zeros ? 2 : 1) ||
        !qn_add_size(&heads, heads, 1) || !qn_mul_size(&heads, heads, nr * sizeof(float)) ||
        !qn_mul_size(&r.panel_bytes, k, r.halves ? nr / 2 : nr) ||
        !qn_add_size(&r.panel_bytes, r.panel_bytes, heads) ||
        !qn_align_size(&r.panel_bytes, r.panel_bytes, 64) ||
        !qn_mul_size(&r.bytes, r.panel_bytes, r.panels) || !qn_add_size(&columns, k, 1) ||
        !qn_mul_size(&r.float_bytes, columns, nr * sizeof(float)))
        return false;
    r.at_once = FLOAT_BYTES / r.float_bytes / PANEL_STEP * PANEL_STEP;
    r.at_once = r.at_once < PANEL_STEP ? PANEL_STEP : r.at_once;
    r.at_once = r.at_once < r.panels ? r.at_once : r.panels;
    *out = r;
    return true;
}

static size_t scale_of(const qn_int_weights *w, const qn_quant *q, size_t n, size_t b, bool trans_b)
{
    if (q->axis < 0)
        return 0;
    return q->block == 0 ? n : trans_b ? n * w->blocks + b : b * w->n + n;
}

static void make_panel(const qn_int_weights *w, const qn_tensor *t, bool trans_b, const float *bias,
                       uint8_t *panel, size_t n0)
{
    const qn_quant *const q = t->type.quant;
    const int32_t least = least_of(t);
    const size_t nr = w->nr, width = w->n - n0 < nr ? w->n - n0 : nr;
    memset(panel, 0, w->panel_bytes);
    float *head = (float *)(void *)panel;
    if (bias != NULL)
        memcpy(head, bias + n0, width * sizeof(float));
    head += nr;
    for (size_t b = 0; b < w->blocks; b++, head += w->zeros ? 2 * nr : nr) {
        for (size_t j = 0; j < width; j++) {
            const size_t s = scale_of(w, q, n0 + j, b, trans_b);
            head[j] = q->scales[s];
            if (w->zeros)
                head[nr + j] = (float)(q->zero_points[s] - least);
        }
    }
    uint8_t *to = (uint8_t *)head;
    for (size_t k = 0; k < w->k; k++, to += w->halves ? nr / 2 : nr) {
        for (size_t j = 0; j < width; j++) {
            const size_t at = trans_b ? (n0 + j) * w->k + k : k * w->n + n0 + j;
            const uint32_t v =
                (uint32_t)(qn__load_int(t->constant->data, t->type.dtype, at) - least);
            if (w->halves)
                to[j % (nr / 2)] |= (uint8_t)(v << (j < nr / 2 ? 0 : 4));
            else
                to[j] = (uint8_t)v;
        }
    }
}

uint32_t qn__int_weights_layout(const qn_int_weights *w)
{
    return qn_packing_id(QN_PACKED_F32_INTS, QN_F32_INTS_LAYOUT_VERSION, w->nr, w->halves ? 4 : 8);
}

void qn__int_weights_make(const qn_int_weights *w, const qn_step *step, bool trans_b,
                          const float *bias, uint8_t *to)
{
    for (size_t p = 0; p < w->panels; p++)
        make_panel(w, qn__step_input(step, 1), trans_b, bias, to + p * w->panel_bytes, p * w->nr);
}

qn_f32_ints_args qn__int_weights_args(const qn_int_weights *w)
{
    return (qn_f32_ints_args){.n = w->n,
                              .k = w->k,
                              .block = w->block,
                              .w = w->data,
                              .panel_bytes = w->panel_bytes,
                              .halves = w->halves,
                              .zeros = w->zeros,
                              .zero = w->zero};
}

/* --- running -----------------------------------------------------------------------------------*/
typedef struct expand_call {
    const qn_int_weights *w;
    size_t first;
    float *out;
} expand_call;

static void expand_panel(void *arg, size_t index)
{
    const expand_call *const call = arg;
    qn_f32_ints_args args = qn__int_weights_args(call->w);
    args.w += (call->first + index) * args.panel_bytes;
    call->w->kernel.expand(&args, call->out + index * call->w->float_bytes / sizeof(float));
}

void qn__int_weights_expand(const qn_int_weights *w, size_t first, size_t count, float *out,
                            qn_pool *pool)
{
    expand_call call = {w, first, out};
    qn__parallel(pool, expand_panel, &call, count);
}
