/* Products of matrices in the order of MNN's AVX2 kernels and of what cuts large ones for them. A
 * complete group of rows starts its chains at the bias; an incomplete one at 0, the bias comes
 * last, and where its rows are taken 20, 16 and 5 at a time and one is left, that one is summed in
 * four chains. Strassen's sums are those of Winograd's variant: seven products, 15 additions. */
#include "core/checked.h"
#include "mnntool/float_conv.h"

#include <math.h>
#include <string.h>

enum { PACK = 8, PANEL = 4, MOST_DEPTH = 5, CACHE_FLOATS = 32768, MOST_GEMM_ROWS = 64 };

/* --- one block of inputs -----------------------------------------------------------------------*/
bool qn__mnn_leaves_one(size_t n)
{
    if (n == QN_MNN_GROUP)
        return false;
    if (n >= 20)
        return n == 21;
    return (n >= 16 ? n - 16 : n % 5) == 1;
}

float qn__mnn_sum_in_chains(const float *a, const float *b, size_t step_b, size_t n)
{
    const size_t whole = n / 4 * 4;
    float chain[4] = {0, 0, 0, 0};
    for (size_t k = 0; k < whole; k += 4)
        for (size_t i = 0; i < 4; i++)
            chain[i] = fmaf(a[k + i], b[(k + i) * step_b], chain[i]);
    float sum = (chain[0] + chain[2]) + (chain[1] + chain[3]);
    for (size_t k = whole; k < n; k++)
        sum = fmaf(a[k], b[k * step_b], sum);
    return sum;
}

static float clamped(float v, const qn_clamp_f32 *clamp)
{
    v = v < clamp->hi ? v : clamp->hi;
    return v > clamp->lo ? v : clamp->lo;
}

static void add_bias(const qn_mnn_product *p, size_t rows)
{
    for (size_t i = 0; p->bias != NULL && i < rows; i++)
        for (size_t n = 0; n < p->h; n++)
            p->c[i * p->ldc + n] = clamped(p->c[i * p->ldc + n] + p->bias[n], &p->clamp);
}

static const qn_clamp_f32 open_range = {-INFINITY, INFINITY};

void qn__mnn_packed_product(const qn_f32_igemm *kernel, const float *a, size_t lda, size_t m,
                            size_t n, size_t k, const float *packed, float *c, size_t ldc,
                            const qn_clamp_f32 *clamp)
{
    for (size_t m0 = 0; m0 < m; m0 += kernel->mr) {
        const float *rows[MOST_GEMM_ROWS];
        const size_t mr = m - m0 < kernel->mr ? m - m0 : kernel->mr;
        for (size_t r = 0; r < kernel->mr; r++)
            rows[r] = a + (m0 + (r < mr ? r : mr - 1)) * lda;
        kernel->fn(mr, n, k, 1, rows, packed, c + m0 * ldc, ldc, clamp);
    }
}

bool qn__mnn_rest_floats(const qn_f32_igemm *kernel, size_t l, size_t h, size_t *out)
{
    size_t columns, sums;
    return qn_mul_size(&columns, QN_MNN_GROUP + kernel->nr, l + 1) &&
           qn_mul_size(&sums, QN_MNN_GROUP, h) && qn_add_size(out, columns, sums);
}

/* The other way round: few rows are packed as columns, and b's rows, which are many, are read as
 * they lie. Each sum is the same chain. */
void qn__mnn_rest(const qn_f32_igemm *kernel, const qn_mnn_product *p, float *scratch)
{
    const size_t together = p->e - (qn__mnn_leaves_one(p->e) ? 1 : 0);
    float *const sums = scratch, *const packed = scratch + QN_MNN_GROUP * p->h;
    if (together > 0) {
        qn__f32_gemm_pack(packed, p->a, NULL, together, p->l, 1, p->lda, p->lda, 1, kernel->nr);
        qn__mnn_packed_product(kernel, p->b, p->ldb, p->h, together, p->l, packed, sums, together,
                               &open_range);
        for (size_t i = 0; i < together; i++)
            for (size_t n = 0; n < p->h; n++)
                p->c[i * p->ldc + n] = sums[n * together + i];
    }
    for (size_t n = 0; together < p->e && n < p->h; n++)
        p->c[together * p->ldc + n] =
            qn__mnn_sum_in_chains(p->a + together * p->lda, p->b + n * p->ldb, 1, p->l);
    add_bias(p, p->e);
}

static void multiply_block(const qn_f32_igemm *kernel, const qn_mnn_product *p, float *scratch)
{
    const size_t whole = p->e / QN_MNN_GROUP * QN_MNN_GROUP;
    if (whole > 0) {
        qn__f32_gemm_pack(scratch, p->b, p->bias, p->h, p->l, 1, p->ldb, p->ldb, 1, kernel->nr);
        qn__mnn_packed_product(kernel, p->a, p->lda, whole, p->h, p->l, scratch, p->c, p->ldc,
                               p->bias != NULL ? &p->clamp : &open_range);
    }
    if (whole == p->e)
        return;
    qn_mnn_product rest = *p;
    rest.e = p->e - whole;
    rest.a += whole * p->lda;
    rest.c += whole * p->ldc;
    qn__mnn_rest(kernel, &rest, scratch);
}

/* --- blocks of inputs --------------------------------------------------------------------------*/
/* Inputs that MNN takes at once; all of them where they fit. */
static size_t inputs_at_once(size_t e, size_t l)
{
    const size_t most = CACHE_FLOATS / ((e < QN_MNN_GROUP ? e : QN_MNN_GROUP) + PANEL);
    return l <= most ? l : most / PACK * PACK;
}

static void multiply_blocks(const qn_f32_igemm *kernel, const qn_mnn_product *p, float *scratch)
{
    const size_t most = inputs_at_once(p->e, p->l);
    if (most == p->l) {
        multiply_block(kernel, p, scratch);
        return;
    }
    float *const sums = scratch;
    for (size_t k = 0; k < p->l; k += most) {
        qn_mnn_product part = *p;
        part.bias = NULL;
        part.l = p->l - k < most ? p->l - k : most;
        part.a += k;
        part.b += k;
        if (k > 0) {
            part.c = sums;
            part.ldc = p->h;
        }
        multiply_block(kernel, &part, scratch + p->e * p->h);
        for (size_t i = 0; k > 0 && i < p->e; i++)
            for (size_t n = 0; n < p->h; n++)
                p->c[i * p->ldc + n] += sums[i * p->h + n];
    }
    add_bias(p, p->e);
}

/* --- Strassen ----------------------------------------------------------------------------------*/
typedef struct halves {
    size_t e, l, h;
} halves;

/* MNN's estimate of memory traffic that is saved. */
static bool is_halved(size_t e, size_t l, size_t h, int depth, halves *out)
{
    const halves s = {e / QN_MNN_GROUP / 2 * QN_MNN_GROUP, l / 2, h / PACK / 2 * PACK};
    *out = s;
    if (depth >= MOST_DEPTH || s.e == 0 || s.h == 0 || l % (2 * PACK) != 0)
        return false;
    const float sums =
        4 * ((float)s.e * (float)s.l) + 4 * (float)s.l * (float)s.h + 7 * (float)s.e * (float)s.h;
    const float saved =
        (float)((e / QN_MNN_GROUP) * (QN_MNN_GROUP * s.h + s.l * QN_MNN_GROUP + s.l * s.h));
    return saved - sums * 1.5f > 0;
}

typedef struct matrix {
    float *at;
    size_t rows, columns, step;
} matrix;

static matrix part_of(const float *at, size_t step, size_t row, size_t column, size_t rows,
                      size_t columns)
{
    return (matrix){(float *)at + row * step + column, rows, columns, step};
}

/* to = a + b or a - b; `to` may be either. */
static void combine(matrix to, matrix a, matrix b, bool minus)
{
    for (size_t i = 0; i < to.rows; i++) {
        float *const t = to.at + i * to.step;
        const float *const x = a.at + i * a.step, *const y = b.at + i * b.step;
        for (size_t k = 0; k < to.columns; k++)
            t[k] = minus ? x[k] - y[k] : x[k] + y[k];
    }
}

static void merge(matrix c11, matrix c12, matrix c21, matrix c22, matrix p1)
{
    for (size_t i = 0; i < c11.rows; i++)
        for (size_t n = 0; n < c11.columns; n++) {
            float *const v12 = &c12.at[i * c12.step + n], *const v21 = &c21.at[i * c21.step + n];
            float *const v22 = &c22.at[i * c22.step + n];
            const float u2 = *v12 + p1.at[i * p1.step + n], u3 = u2 + *v21;
            const float u4 = *v22 + u2;
            *v21 = u3;
            *v22 = *v22 + u3;
            *v12 = c11.at[i * c11.step + n] + u4;
        }
}

static void multiply(const qn_f32_igemm *kernel, const qn_mnn_product *p, int depth,
                     float *scratch);

static void multiply_parts(const qn_f32_igemm *kernel, matrix a, matrix b, matrix c, int depth,
                           float *scratch)
{
    const qn_mnn_product p = {.e = c.rows,
                              .l = a.columns,
                              .h = c.columns,
                              .a = a.at,
                              .b = b.at,
                              .lda = a.step,
                              .ldb = b.step,
                              .c = c.at,
                              .ldc = c.step};
    multiply(kernel, &p, depth, scratch);
}

static void multiply_halves(const qn_f32_igemm *kernel, const qn_mnn_product *p, const halves *s,
                            int depth, float *scratch)
{
    const size_t e = s->e, l = s->l, h = s->h, wide = l > h ? l : h;
    const matrix a11 = part_of(p->a, p->lda, 0, 0, e, l), a12 = part_of(p->a, p->lda, 0, l, e, l);
    const matrix a21 = part_of(p->a, p->lda, e, 0, e, l), a22 = part_of(p->a, p->lda, e, l, e, l);
    const matrix b11 = part_of(p->b, p->ldb, 0, 0, h, l), b12 = part_of(p->b, p->ldb, h, 0, h, l);
    const matrix b21 = part_of(p->b, p->ldb, 0, l, h, l), b22 = part_of(p->b, p->ldb, h, l, h, l);
    const matrix c11 = part_of(p->c, p->ldc, 0, 0, e, h), c12 = part_of(p->c, p->ldc, 0, h, e, h);
    const matrix c21 = part_of(p->c, p->ldc, e, 0, e, h), c22 = part_of(p->c, p->ldc, e, h, e, h);
    const matrix x = {scratch, e, l, wide}, p1 = {scratch, e, h, wide};
    const matrix y = {scratch + e * wide, h, l, l};
    float *const left = y.at + h * l;
    combine(x, a11, a21, true);
    combine(y, b22, b12, true);
    multiply_parts(kernel, x, y, c21, depth, left);
    combine(x, a21, a22, false);
    combine(y, b12, b11, true);
    multiply_parts(kernel, x, y, c22, depth, left);
    combine(x, x, a11, true);
    combine(y, b22, y, true);
    multiply_parts(kernel, x, y, c12, depth, left);
    combine(x, a12, x, true);
    multiply_parts(kernel, x, b22, c11, depth, left);
    multiply_parts(kernel, a11, b11, p1, depth, left);
    merge(c11, c12, c21, c22, p1);
    combine(y, y, b21, true);
    multiply_parts(kernel, a22, y, c11, depth, left);
    combine(c21, c21, c11, true);
    multiply_parts(kernel, a12, b21, c11, depth, left);
    combine(c11, c11, p1, false);
}

static void multiply(const qn_f32_igemm *kernel, const qn_mnn_product *p, int depth, float *scratch)
{
    halves s;
    if (!is_halved(p->e, p->l, p->h, depth, &s)) {
        multiply_blocks(kernel, p, scratch);
        return;
    }
    multiply_halves(kernel, p, &s, depth + 1, scratch);
    qn_mnn_product part = *p;
    part.h = 2 * s.h;
    add_bias(&part, 2 * s.e);
    if (p->h > 2 * s.h) {
        part = *p;
        part.e = 2 * s.e;
        part.h = p->h - 2 * s.h;
        part.b += 2 * s.h * p->ldb;
        part.c += 2 * s.h;
        part.bias = p->bias == NULL ? NULL : p->bias + 2 * s.h;
        multiply_blocks(kernel, &part, scratch);
    }
    if (p->e > 2 * s.e) {
        part = *p;
        part.e = p->e - 2 * s.e;
        part.a += 2 * s.e * p->lda;
        part.c += 2 * s.e * p->ldc;
        multiply_blocks(kernel, &part, scratch);
    }
}

bool qn__mnn_product_is_cut(size_t e, size_t l, size_t h)
{
    halves s;
    return inputs_at_once(e, l) < l || is_halved(e, l, h, 0, &s);
}

void qn__mnn_product(const qn_f32_igemm *kernel, const qn_mnn_product *p, float *scratch)
{
    multiply(kernel, p, 0, scratch);
}

/* Each halving needs a quarter of e * max(l, h) and of l * h, those of all depths less than half;
 * below them blocks of inputs need e * h and packed weights. */
bool qn__mnn_product_floats(const qn_f32_igemm *kernel, size_t e, size_t l, size_t h, size_t *out)
{
    size_t rows, weights, sums, rest, packed;
    const size_t wide = l > h ? l : h;
    return qn_mul_size(&rows, e, wide) && qn_mul_size(&weights, l, h) && qn_mul_size(&sums, e, h) &&
           qn_mul_size(&packed, h + kernel->nr, l + 1) &&
           qn__mnn_rest_floats(kernel, l, h, &rest) && qn_add_size(out, rows / 2, weights / 2) &&
           qn_add_size(out, *out, sums) && qn_add_size(out, *out, rest) &&
           qn_add_size(out, *out, packed);
}
