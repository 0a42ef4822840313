/* Quantized arithmetic shared by the operators. */
#include "run/ops/qcore.h"

#include "run/nd.h"
#include "kernel/vmath.h"

qn_status qn__qparams_read(const qn_step *step, const qn_tensor *tensor, qn_qparams *out,
                           qn_error *error)
{
    const qn_quant *const q = tensor->type.quant;
    const qn_dtype dtype = tensor->type.dtype;
    if (tensor->type.kind != QN_TYPE_QUANT || (dtype != QN_DTYPE_U8 && dtype != QN_DTYPE_I8) ||
        q->axis >= 0 || q->n_scales != 1 || q->n_codebook != 0)
        return qn__step_fail(step, error, QN_UNSUPPORTED,
                             "tensor \"%s\" is not quantized to 8 bits with one scale",
                             tensor->name);
    *out = (qn_qparams){dtype, q->scales[0], q->zero_points != NULL ? q->zero_points[0] : 0,
                        q->qmin, q->qmax};
    return QN_OK;
}

int32_t qn__quantize_one(float x, const qn_qparams *p)
{
    const float lo = (float)(p->qmin - p->zero), hi = (float)(p->qmax - p->zero);
    float v = x / p->scale;
    v = v > lo ? v : lo;
    v = v < hi ? v : hi;
    return (int32_t)qn_rne_small(v) + p->zero;
}

void qn__qact_bounds(const qn_step *step, const qn_qparams *p, int32_t *lo, int32_t *hi)
{
    const qn_clamp_f32 clamp = qn__step_clamp(step);
    *lo = clamp.lo == -INFINITY ? p->qmin : qn__quantize_one(clamp.lo, p);
    *hi = clamp.hi == INFINITY ? p->qmax : qn__quantize_one(clamp.hi, p);
}

typedef struct table_job {
    qn_q8_table_fn fn;
    const uint8_t *table, *src;
    uint8_t *dst;
} table_job;

static void table_range(void *arg, size_t begin, size_t end)
{
    const table_job *const job = arg;
    job->fn(job->table, job->src + begin, job->dst + begin, end - begin);
}

void qn__table_run(qn_pool *pool, qn_q8_table_fn fn, const uint8_t table[256], const uint8_t *src,
                   uint8_t *dst, size_t count)
{
    table_job job = {fn, table, src, dst};
    qn__parallel_ranges(pool, table_range, &job, count, 2);
}

bool qn__table_requantize(uint8_t table[256], const qn_qparams *from, const qn_qparams *to,
                          qn_requantize kind)
{
    qn_multiplier fixed = {0};
    if (kind != QN_REQUANTIZE_DEFAULT &&
        !qn__fixed_make((double)from->scale / (double)to->scale, kind, &fixed))
        return false;
    for (size_t i = 0; i < 256; i++) {
        const uint8_t byte = (uint8_t)i;
        const int32_t q = qn_qload(&byte, from->dtype, 0);
        const bool same =
            from->scale == to->scale && from->zero == to->zero && from->dtype == to->dtype;
        if (kind != QN_REQUANTIZE_DEFAULT)
            table[i] =
                (uint8_t)qn_fixed_byte(q - from->zero, fixed, kind, to->zero, to->qmin, to->qmax);
        else
            table[i] =
                (uint8_t)(same ? q : qn__quantize_one((float)(q - from->zero) * from->scale, to));
    }
    return true;
}

typedef struct unpack_job {
    const void *src;
    float *dst;
    qn_dtype dtype;
    int32_t zero;
} unpack_job;

static void unpack_range(void *arg, size_t begin, size_t end)
{
    const unpack_job *const job = arg;
    const int32_t zero = job->zero;
    float *restrict const dst = job->dst;
    if (job->dtype == QN_DTYPE_I8) {
        const int8_t *restrict const src = job->src;
        for (size_t i = begin; i < end; i++)
            dst[i] = (float)(src[i] - zero);
    } else {
        const uint8_t *restrict const src = job->src;
        for (size_t i = begin; i < end; i++)
            dst[i] = (float)(src[i] - zero);
    }
}

void qn__unpack_centered(qn_pool *pool, const void *src, qn_dtype dtype, int32_t zero, float *dst,
                         size_t count)
{
    unpack_job job = {src, dst, dtype, zero};
    qn__parallel_ranges(pool, unpack_range, &job, count, 5);
}

void qn__requant_row(const qn_requant *r, const int32_t *acc, size_t c0, size_t n, void *row)
{
    const float *const scale = r->scale + c0;
    const float lo = (float)(r->lo - r->zero), hi = (float)(r->hi - r->zero);
    int32_t sums[64];
    for (size_t i0 = 0; i0 < n; i0 += 64) {
        const size_t part = n - i0 < 64 ? n - i0 : 64;
        for (size_t i = 0; i < part; i++)
            sums[i] = (int32_t)((uint32_t)acc[i0 + i] +
                                (r->bias != NULL ? (uint32_t)r->bias[c0 + i0 + i] : 0u));
        if (r->dtype == QN_DTYPE_F32) {
            float *const dst = (float *)row + c0 + i0;
            for (size_t i = 0; i < part; i++) {
                float v = (float)sums[i] * scale[i0 + i];
                v = v < r->clamp.lo ? r->clamp.lo : v;
                dst[i] = v > r->clamp.hi ? r->clamp.hi : v;
            }
            continue;
        }
        uint8_t *const dst = (uint8_t *)row + c0 + i0; /* both signednesses: low byte */
        if (r->kind != QN_REQUANTIZE_DEFAULT) {
            const qn_q8_fixed_args args = {.rows = 1,
                                           .n = part,
                                           .sums = sums,
                                           .fixed = r->fixed + c0 + i0,
                                           .once = qn_fixed_once(r->kind),
                                           .zero = r->zero,
                                           .lo = r->lo,
                                           .hi = r->hi,
                                           .out = dst};
            qn__q8_fixed_scalar(&args);
            continue;
        }
        for (size_t i = 0; i < part; i++) {
            float v = (float)sums[i] * scale[i0 + i];
            v = v > lo ? v : lo;
            v = v < hi ? v : hi;
            dst[i] = (uint8_t)((int32_t)qn_rne_small(v) + r->zero);
        }
    }
}

/* --- integer product ------------------------------------------------------------------------- */
#define EXACT 16777215    /* largest sum a float holds exactly with all below it */
#define MAX_K 512         /* of one block */
#define MAX_POINTERS 1024 /* row pointers of one kernel call */
#define MAX_MR 16
#define TILE_N 512

qn_status qn__qproduct_plan(const qn_context *ctx, const qn_f32_igemm *kernel, size_t n, size_t kc,
                            size_t ks, int32_t x_max, int32_t w_max, qn_qproduct *out,
                            qn_error *error)
{
    const int64_t product = (int64_t)(x_max > 0 ? x_max : 1) * (w_max > 0 ? w_max : 1);
    size_t limit = (size_t)(EXACT / product);
    limit = limit > MAX_K ? MAX_K : limit;
    if (kernel->mr > MAX_MR || kernel->nr > TILE_N || limit == 0)
        return qn__error_set(error, QN_INTERNAL, "kernel %s cannot run integer products",
                             kernel->name);
    *out = (qn_qproduct){.kernel = kernel, .n = n, .kc = kc, .ks = ks};
    const size_t nk = kc < limit ? kc : limit;
    size_t np = nk < kc || nk == 0 ? 1 : limit / nk;
    np = np > MAX_POINTERS / kernel->mr ? MAX_POINTERS / kernel->mr : np;
    np = np > ks && ks > 0 ? ks : np;
    const size_t per_tap = nk == 0 ? 0 : (kc + nk - 1) / nk;
    const size_t tap_blocks = (ks + np - 1) / np;
    size_t count;
    if (!qn_mul_size(&count, per_tap, tap_blocks))
        return QN_NOMEM(error);
    out->blocks = qn__calloc(ctx, count + 1, sizeof(*out->blocks));
    if (out->blocks == NULL)
        return QN_NOMEM(error);
    for (size_t p0 = 0; p0 < ks; p0 += np) {
        for (size_t k0 = 0; k0 < kc; k0 += nk) {
            const size_t taps = ks - p0 < np ? ks - p0 : np, part = kc - k0 < nk ? kc - k0 : nk;
            out->blocks[out->n_blocks++] = (qn_qblock){p0, taps, k0, part, out->group_floats};
            out->group_floats += qn__f32_gemm_packed_count(n, part, taps, kernel->nr);
        }
    }
    return QN_OK;
}

void qn__qproduct_free(const qn_context *ctx, qn_qproduct *product)
{
    qn__free(ctx, product->blocks);
    product->blocks = NULL;
}

void qn__qproduct_pack(const qn_qproduct *product, float *packed, const float *w, size_t stride_n,
                       size_t stride_p, size_t stride_k)
{
    for (size_t i = 0; i < product->n_blocks; i++) {
        const qn_qblock *const b = &product->blocks[i];
        qn__f32_gemm_pack(packed + b->offset, w + b->p0 * stride_p + b->k0 * stride_k, NULL,
                          product->n, b->nk, b->np, stride_n, stride_p, stride_k,
                          product->kernel->nr);
    }
}

static void product_tile(const qn_qrun *run, size_t group, size_t m0, size_t mr, size_t c0,
                         size_t nc)
{
    const qn_qproduct *const product = run->product;
    const qn_f32_igemm *const kernel = product->kernel;
    const qn_clamp_f32 open = {-INFINITY, INFINITY};
    const float *a[MAX_POINTERS];
    float sums[MAX_MR * TILE_N];
    int32_t acc[MAX_MR * TILE_N];
    for (size_t i = 0; i < mr * nc; i++)
        acc[i] = 0;
    for (size_t b = 0; b < product->n_blocks; b++) {
        const qn_qblock *const block = &product->blocks[b];
        for (size_t i = 0; i < kernel->mr; i++)
            run->rows(run, group, m0 + (i < mr ? i : 0), block->p0, block->np, block->k0, a + i,
                      kernel->mr);
        const float *const packed = run->packed + group * product->group_floats + block->offset +
                                    c0 * (1 + block->np * block->nk);
        kernel->fn(mr, nc, block->nk, block->np, a, packed, sums, nc, &open);
        for (size_t i = 0; i < mr * nc; i++)
            acc[i] += (int32_t)sums[i];
    }
    const size_t elem = run->requant->dtype == QN_DTYPE_F32 ? sizeof(float) : 1;
    for (size_t i = 0; i < mr; i++)
        qn__requant_row(run->requant, acc + i * nc, group * product->n + c0, nc,
                        (uint8_t *)run->dst + (m0 + i) * run->dst_stride * elem);
}

static void product_range(void *arg, size_t begin, size_t end)
{
    const qn_qrun *const run = arg;
    const qn_qproduct *const product = run->product;
    const size_t mr = product->kernel->mr, tiles = (run->m + mr - 1) / mr;
    const size_t step = TILE_N / product->kernel->nr * product->kernel->nr;
    for (size_t index = begin; index < end; index++) {
        const size_t group = index / tiles, m0 = index % tiles * mr;
        const size_t rows = run->m - m0 < mr ? run->m - m0 : mr;
        for (size_t c0 = 0; c0 < product->n; c0 += step)
            product_tile(run, group, m0, rows, c0, product->n - c0 < step ? product->n - c0 : step);
    }
}

void qn__qproduct_run(const qn_qrun *run, qn_pool *pool)
{
    const size_t mr = run->product->kernel->mr, tiles = (run->m + mr - 1) / mr;
    const size_t work = run->product->n * run->product->kc * run->product->ks * mr / 4;
    qn__parallel_ranges(pool, product_range, (void *)run, tiles * run->groups, work);
}

void qn__saturating_part(const float *x, const float *w, size_t pairs, size_t n, size_t stride,
                         int32_t *acc)
{
    enum { COLUMNS = 64, EXACT_PAIRS = 512 }; /* 512 * 32768 = 2^24 */
    for (size_t c0 = 0; c0 < n; c0 += COLUMNS) {
        const size_t part = n - c0 < COLUMNS ? n - c0 : COLUMNS;
        for (size_t p0 = 0; p0 < pairs; p0 += EXACT_PAIRS) {
            const size_t p1 = pairs - p0 < EXACT_PAIRS ? pairs : p0 + EXACT_PAIRS;
            float sums[COLUMNS] = {0};
            for (size_t p = p0; p < p1; p++) {
                const float x0 = x[2 * p], x1 = x[2 * p + 1];
                const float *const w0 = w + (2 * p) * stride + c0;
                const float *const w1 = w0 + stride;
                for (size_t i = 0; i < part; i++) {
                    float pair = x0 * w0[i] + x1 * w1[i];
                    pair = pair > -32768.0f ? pair : -32768.0f;
                    sums[i] += pair < 32767.0f ? pair : 32767.0f;
                }
            }
            for (size_t i = 0; i < part; i++)
                acc[c0 + i] += (int32_t)sums[i];
        }
    }
}
