#include "quant/gptq.h"

#include <math.h>
#include <string.h>

enum {
    QMAX = 127,
    PAIR_LIMIT = 128, /* of the positive and of the negative weights of a pair */
    BLOCK = 64,       /* columns rounded, or factored, between two matrix products */
    /* Above this many columns H is taken as block-diagonal: its factorization is cubic. */
    MAX_COLUMNS = 1536,
    SQUARE_ROWS = 256 /* rows multiplied in one product when H is summed */
};

/* Fraction of H's mean diagonal added to the diagonal: keeps H regular when there are fewer rows
 * than columns, and rounding errors small against what was observed. */
#define DAMPING 0.01

typedef struct solver {
    const qn_context *ctx;
    const qn_kernels *kernels;
    size_t k;       /* columns of this block-diagonal part */
    float *h;       /* [k][k]; after factoring: rows of U^T */
    float *packed;  /* one operand of a product */
    float *product; /* [mr][k] or [channels][BLOCK] */
    const float **pointers;
} solver;

/* c[m][n] = sum over d < depth of a[m][d] * b(d, n), b(d, n) = b[n * stride_n + d * stride_d]. */
static void multiply(solver *s, const float *a, size_t stride_a, size_t m, const float *b,
                     size_t stride_n, size_t stride_d, size_t n, size_t depth, float *c,
                     size_t stride_c)
{
    const qn_f32_igemm *gemm = &s->kernels->f32_igemm;
    const qn_clamp_f32 none = {-INFINITY, INFINITY};
    qn__f32_gemm_pack(s->packed, b, NULL, n, depth, 1, stride_n, 0, stride_d, gemm->nr);
    for (size_t row = 0; row < m; row += gemm->mr) {
        const size_t mr = m - row < gemm->mr ? m - row : gemm->mr;
        for (size_t i = 0; i < gemm->mr; i++)
            s->pointers[i] = a + (row + (i < mr ? i : 0)) * stride_a;
        gemm->fn(mr, n, depth, 1, s->pointers, s->packed, c + row * stride_c, stride_c, &none);
    }
}

/* H = sum of x x^T over the rows (deviations from the mean when centred), damped. Reversed: column
 * j of the problem is row and column k - 1 - j of H, so that an ordinary Cholesky factor of it is
 * the U D U^T of the original order. */
static qn_status second_moment(solver *s, const qn_gptq_problem *p, size_t first, qn_error *error)
{
    const size_t k = s->k;
    float *columns = qn__reallocarray(s->ctx, NULL, k * SQUARE_ROWS, sizeof(float)); /* [k][rows] */
    float *mean = qn__calloc(s->ctx, k, sizeof(float));
    if (columns == NULL || mean == NULL) {
        qn__free(s->ctx, columns);
        qn__free(s->ctx, mean);
        return QN_NOMEM(error);
    }
    for (size_t j = 0; p->center && j < k; j++) {
        double sum = 0;
        for (size_t r = 0; r < p->n_rows; r++)
            sum += (double)p->rows[r * p->row_stride + first + j];
        mean[k - 1 - j] = (float)(sum / (double)(p->n_rows > 0 ? p->n_rows : 1));
    }
    memset(s->h, 0, k * k * sizeof(float));
    for (size_t start = 0; start < p->n_rows; start += SQUARE_ROWS) {
        const size_t n = p->n_rows - start < SQUARE_ROWS ? p->n_rows - start : SQUARE_ROWS;
        for (size_t r = 0; r < n; r++) {
            const float *row = p->rows + (start + r) * p->row_stride + first;
            for (size_t j = 0; j < k; j++)
                columns[j * SQUARE_ROWS + r] = row[k - 1 - j] - mean[j];
        }
        for (size_t i = 0; i < k; i += BLOCK) {
            const size_t m = k - i < BLOCK ? k - i : BLOCK;
            const size_t width = i + m; /* the lower triangle is enough */
            multiply(s, columns + i * SQUARE_ROWS, SQUARE_ROWS, m, columns, SQUARE_ROWS, 1, width,
                     n, s->product, k);
            for (size_t a = 0; a < m; a++)
                for (size_t b = 0; b < width; b++)
                    s->h[(i + a) * k + b] += s->product[a * k + b];
        }
    }
    double trace = 0;
    for (size_t j = 0; j < k; j++)
        trace += (double)s->h[j * k + j];
    const float ridge = (float)(DAMPING * trace / (double)k);
    for (size_t j = 0; j < k; j++)
        s->h[j * k + j] += ridge > 0 ? ridge : 1.0f;
    qn__free(s->ctx, columns);
    qn__free(s->ctx, mean);
    return QN_OK;
}

/* Cholesky factor of the block at (at, at) of size n, in place in the lower triangle. A pivot lost
 * to rounding is replaced by a small positive one: its column then hands on no error. */
static void factor_block(float *h, size_t k, size_t at, size_t n, float tiny)
{
    for (size_t j = at; j < at + n; j++) {
        double pivot = (double)h[j * k + j];
        for (size_t d = at; d < j; d++)
            pivot -= (double)h[j * k + d] * (double)h[j * k + d];
        const double root = sqrt(pivot > (double)tiny ? pivot : (double)tiny);
        h[j * k + j] = (float)root;
        for (size_t i = j + 1; i < at + n; i++) {
            double sum = (double)h[i * k + j];
            for (size_t d = at; d < j; d++)
                sum -= (double)h[i * k + d] * (double)h[j * k + d];
            h[i * k + j] = (float)(sum / root);
        }
    }
}

/* Rows below the block: L21 = A21 L11^-T. The block is transposed so that the inner loop runs along
 * memory. */
static void solve_below(float *h, size_t k, size_t at, size_t n)
{
    float upper[BLOCK][BLOCK];
    for (size_t j = 0; j < n; j++)
        for (size_t d = 0; d < n; d++)
            upper[j][d] = h[(at + d) * k + at + j];
    for (size_t i = at + n; i < k; i++) {
        float *row = h + i * k + at;
        for (size_t j = 0; j < n; j++) {
            const float value = row[j] / upper[j][j];
            row[j] = value;
            for (size_t d = j + 1; d < n; d++)
                row[d] -= value * upper[j][d];
        }
    }
}

/* A22 -= L21 L21^T, lower triangle. */
static void update_trailing(solver *s, size_t at, size_t n)
{
    const size_t k = s->k;
    for (size_t i = at + n; i < k; i += BLOCK) {
        const size_t m = k - i < BLOCK ? k - i : BLOCK;
        const size_t width = i + m - (at + n);
        multiply(s, s->h + i * k + at, k, m, s->h + (at + n) * k + at, k, 1, width, n, s->product,
                 k);
        for (size_t a = 0; a < m; a++)
            for (size_t b = 0; b < width; b++)
                s->h[(i + a) * k + at + n + b] -= s->product[a * k + b];
    }
}

/* H = L L^T in reversed order; then columns are divided by their pivot, which makes the factor unit
 * triangular: u_jk of the header is h[(k-1-j)][(k-1-kk)]. */
static void factor(solver *s)
{
    const size_t k = s->k;
    float largest = 0;
    for (size_t j = 0; j < k; j++)
        largest = fmaxf(largest, s->h[j * k + j]);
    const float tiny = largest * 1e-7f;
    for (size_t at = 0; at < k; at += BLOCK) {
        const size_t n = k - at < BLOCK ? k - at : BLOCK;
        factor_block(s->h, k, at, n, tiny);
        solve_below(s->h, k, at, n);
        update_trailing(s, at, n);
    }
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < i; j++)
            s->h[i * k + j] /= s->h[j * k + j];
}

static int8_t round_one(float value, float scale, bool second, int8_t first)
{
    int32_t q = qn__quantize_value(value, scale, 0, -QMAX, QMAX);
    if (second) {
        const int32_t hi = first > 0 ? PAIR_LIMIT - first : QMAX;
        const int32_t lo = first < 0 ? -PAIR_LIMIT - first : -QMAX;
        q = q > hi ? hi : q < lo ? lo : q;
    }
    return (int8_t)q;
}

/* Rounds columns first .. first + s->k of every channel. errors: [channels][s->k] = w - q * scale,
 * in reversed column order, so that those already rounded are one contiguous run. */
static void round_columns(solver *s, const qn_gptq_problem *p, size_t first, float *errors,
                          float *moved, int8_t *q)
{
    const size_t k = s->k;
    for (size_t at = 0; at < k; at += BLOCK) {
        const size_t n = k - at < BLOCK ? k - at : BLOCK;
        /* errors of all earlier blocks: column j is reversed column k - 1 - j */
        const size_t done = at;
        if (done == 0)
            memset(moved, 0, p->channels * BLOCK * sizeof(float));
        else
            multiply(s, errors + (k - done), k, p->channels, s->h + (k - done) * k + (k - at - n),
                     1, k, n, done, moved, BLOCK);
        for (size_t c = 0; c < p->channels; c++) {
            const float *w = p->w + c * p->k + first + at;
            int8_t *out = q + c * p->k + first + at;
            float *e = errors + c * k;
            float *shift = moved + c * BLOCK; /* of reversed columns k - at - n and on */
            for (size_t j = 0; j < n; j++) {
                const size_t left = n - 1 - j, column = k - 1 - (at + j);
                const bool second = p->pairs && (first + at + j) % 2 == 1;
                out[j] =
                    round_one(w[j] + shift[left], p->scales[c], second, second ? out[j - 1] : 0);
                const float lost = w[j] - (float)out[j] * p->scales[c];
                const float *u = s->h + column * k + (k - at - n);
                e[column] = lost;
                for (size_t i = 0; i < left; i++)
                    shift[i] += lost * u[i];
            }
        }
    }
}

qn_status qn__gptq_round(const qn_context *ctx, const qn_gptq_problem *problem, int8_t *q,
                         qn_error *error)
{
    qn_kernels kernels;
    qn__kernels_init(&kernels, ctx->cpu_flags);
    const size_t parts = (problem->k + MAX_COLUMNS - 1) / MAX_COLUMNS;
    /* whole blocks, so that pairs never straddle two parts */
    const size_t part = ((problem->k + parts - 1) / parts + BLOCK - 1) / BLOCK * BLOCK;
    const size_t k = part < problem->k ? part : problem->k;
    const size_t depth = k > SQUARE_ROWS ? k : SQUARE_ROWS;
    const size_t rows = problem->channels;
    solver s = {.ctx = ctx, .kernels = &kernels};
    float *errors = NULL, *moved = NULL;
    qn_status status = QN_OK;
    s.h = qn__reallocarray(ctx, NULL, k, k * sizeof(float));
    s.packed = qn__alloc_aligned(
        ctx, sizeof(float) * qn__f32_gemm_packed_count(k, depth, 1, kernels.f32_igemm.nr));
    s.product = qn__reallocarray(ctx, NULL, k, BLOCK * sizeof(float));
    s.pointers = qn__calloc(ctx, kernels.f32_igemm.mr, sizeof(*s.pointers));
    errors = qn__reallocarray(ctx, NULL, rows, k * sizeof(float));
    moved = qn__reallocarray(ctx, NULL, rows, BLOCK * sizeof(float));
    if (s.h == NULL || s.packed == NULL || s.product == NULL || s.pointers == NULL ||
        errors == NULL || moved == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    for (size_t first = 0; first < problem->k; first += part) {
        s.k = problem->k - first < part ? problem->k - first : part;
        QN_TRY_GOTO(second_moment(&s, problem, first, error));
        factor(&s);
        round_columns(&s, problem, first, errors, moved, q);
    }
done:
    qn__free(ctx, moved);
    qn__free(ctx, errors);
    qn__free(ctx, (void *)s.pointers);
    qn__free(ctx, s.product);
    qn__free_aligned(ctx, s.packed);
    qn__free(ctx, s.h);
    return status;
}
