#include "quant/gptq.h"

#include "core/threads.h"

#include <math.h>
#include <string.h>

enum {
    PAIR_LIMIT = 128, /* of the positive and of the negative weights of a pair */
    BLOCK = 64,       /* columns rounded, or factored, between two matrix products */
    /* Above this many columns H is taken as block-diagonal: its factorization is cubic. */
    MAX_COLUMNS = 1536,
    SQUARE_ROWS = 256 /* rows multiplied in one product when H is summed */
};

/* Fraction of H's mean diagonal added to the diagonal: keeps H regular when there are fewer rows
 * than columns, and rounding errors small against what was observed. */
#define DAMPING 0.01

/* What one thread multiplies with. */
typedef struct scratch {
    float *packed;  /* one operand of a product */
    float *product; /* [BLOCK][k] */
    const float **pointers;
} scratch;

typedef struct solver {
    const qn_context *ctx;
    const qn_gptq_problem *problem;
    const qn_kernels *kernels;
    uint32_t n_workers;
    scratch *scratches; /* [n_workers] */
    size_t first;       /* columns first .. first + k of the problem: one block-diagonal part */
    size_t k;
    float *h;      /* [k][k]; after factoring: rows of U^T */
    float *errors; /* [channels][k] w - q * scale, in reversed column order: those already rounded
                      are one contiguous run */
    float *moved;  /* [channels][BLOCK] */
    int8_t *q;
} solver;

/* c[m][n] = sum over d < depth of a[m][d] * b(d, n), b(d, n) = b[n * stride_n + d * stride_d]. */
static void multiply(const solver *s, const scratch *w, const float *a, size_t stride_a, size_t m,
                     const float *b, size_t stride_n, size_t stride_d, size_t n, size_t depth,
                     float *c, size_t stride_c)
{
    const qn_f32_igemm *gemm = &s->kernels->f32_igemm;
    const qn_clamp_f32 none = {-INFINITY, INFINITY};
    qn__f32_gemm_pack(w->packed, b, NULL, n, depth, 1, stride_n, 0, stride_d, gemm->nr);
    for (size_t row = 0; row < m; row += gemm->mr) {
        const size_t mr = m - row < gemm->mr ? m - row : gemm->mr;
        for (size_t i = 0; i < gemm->mr; i++)
            w->pointers[i] = a + (row + (i < mr ? i : 0)) * stride_a;
        gemm->fn(mr, n, depth, 1, w->pointers, w->packed, c + row * stride_c, stride_c, &none);
    }
}

/* h[at + i][at + j] += sign * sum over d < depth of a[i][d] * a[j][d], lower triangle, by blocks of
 * rows. */
typedef struct square_job {
    const solver *s;
    const float *a;
    size_t stride, depth, at;
    float sign;
} square_job;

static void square_rows(void *arg, uint32_t worker, size_t index)
{
    const square_job *job = arg;
    const solver *s = job->s;
    const scratch *w = &s->scratches[worker];
    const size_t k = s->k, size = k - job->at, i = index * BLOCK;
    const size_t m = size - i < BLOCK ? size - i : BLOCK, width = i + m;
    multiply(s, w, job->a + i * job->stride, job->stride, m, job->a, job->stride, 1, width,
             job->depth, w->product, k);
    for (size_t r = 0; r < m; r++) {
        float *out = s->h + (job->at + i + r) * k + job->at;
        for (size_t c = 0; c < width; c++)
            out[c] += job->sign * w->product[r * k + c];
    }
}

static void add_square(const solver *s, const float *a, size_t stride, size_t depth, size_t at,
                       float sign)
{
    square_job job = {s, a, stride, depth, at, sign};
    const size_t blocks = (s->k - at + BLOCK - 1) / BLOCK;
    qn__parallel_worker(s->problem->pool, square_rows, &job, blocks);
}

/* Columns of the rows, a block of them at a time. */
typedef struct column_job {
    const solver *s;
    float *columns, *mean;
    size_t start, n; /* rows */
} column_job;

static void average_columns(void *arg, size_t block)
{
    const column_job *job = arg;
    const qn_gptq_problem *p = job->s->problem;
    const size_t k = job->s->k, begin = block * BLOCK;
    const size_t n = k - begin < BLOCK ? k - begin : BLOCK;
    double sums[BLOCK] = {0};
    for (size_t r = 0; r < p->n_rows; r++) {
        const float *row = p->rows + r * p->row_stride + job->s->first + begin;
        for (size_t j = 0; j < n; j++)
            sums[j] += (double)row[j];
    }
    for (size_t j = 0; j < n; j++)
        job->mean[k - 1 - begin - j] = (float)(sums[j] / (double)(p->n_rows > 0 ? p->n_rows : 1));
}

static void copy_columns(void *arg, size_t block)
{
    const column_job *job = arg;
    const qn_gptq_problem *p = job->s->problem;
    const size_t k = job->s->k, begin = block * BLOCK;
    const size_t n = k - begin < BLOCK ? k - begin : BLOCK;
    for (size_t r = 0; r < job->n; r++) {
        const float *row = p->rows + (job->start + r) * p->row_stride + job->s->first + begin;
        float *to = job->columns + (k - 1 - begin) * SQUARE_ROWS + r;
        for (size_t j = 0; j < n; j++)
            to[-(ptrdiff_t)(j * SQUARE_ROWS)] = row[j] - job->mean[k - 1 - begin - j];
    }
}

/* H = sum of x x^T over the rows (deviations from the mean when centred), damped. Reversed: column
 * j of the problem is row and column k - 1 - j of H, so that an ordinary Cholesky factor of it is
 * the U D U^T of the original order. */
static qn_status second_moment(const solver *s, qn_error *error)
{
    const qn_gptq_problem *p = s->problem;
    const size_t k = s->k;
    /* [k][SQUARE_ROWS], reversed */
    float *columns = qn__reallocarray(s->ctx, NULL, k * SQUARE_ROWS, sizeof(float));
    float *mean = qn__calloc(s->ctx, k, sizeof(float));
    if (columns == NULL || mean == NULL) {
        qn__free(s->ctx, columns);
        qn__free(s->ctx, mean);
        return QN_NOMEM(error);
    }
    column_job job = {s, columns, mean, 0, 0};
    const size_t blocks = (k + BLOCK - 1) / BLOCK;
    if (p->center)
        qn__parallel(p->pool, average_columns, &job, blocks);
    memset(s->h, 0, k * k * sizeof(float));
    for (; job.start < p->n_rows; job.start += SQUARE_ROWS) {
        job.n = p->n_rows - job.start < SQUARE_ROWS ? p->n_rows - job.start : SQUARE_ROWS;
        qn__parallel(p->pool, copy_columns, &job, blocks);
        add_square(s, columns, SQUARE_ROWS, job.n, 0, 1.0f);
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

/* H = L L^T in reversed order; then columns are divided by their pivot, which makes the factor unit
 * triangular: u_jk of the header is h[(k-1-j)][(k-1-kk)]. */
static void factor(const solver *s)
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
        if (at + n < k) /* A22 -= L21 L21^T */
            add_square(s, s->h + (at + n) * k + at, k, n, at + n, -1.0f);
    }
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < i; j++)
            s->h[i * k + j] /= s->h[j * k + j];
}

/* Two powers of two are at most 64 each and never leave the limit. */
static inline int8_t round_one(const qn_levels *levels, float value, float scale, bool second,
                               int8_t first)
{
    if (levels->set != QN_LEVELS_UNIFORM)
        return qn__levels_round_one(levels, value, scale);
    /* The same integers as qn__levels_round_one, inline: adding 1.5 * 2^23 rounds half to even. */
    const int32_t qmax = levels->qmax;
    const float magic = 12582912.0f, top = (float)qmax;
    float r = value / scale;
    r = r > top ? top : r;
    r = r < -top ? -top : r;
    int32_t q = (int32_t)((r + magic) - magic);
    if (second) {
        const int32_t hi = first > 0 ? PAIR_LIMIT - first : qmax;
        const int32_t lo = first < 0 ? -PAIR_LIMIT - first : -qmax;
        q = q > hi ? hi : q < lo ? lo : q;
    }
    return (int8_t)q;
}

/* Rounds the part's columns of one share of the channels. */
static void round_channels(void *arg, uint32_t worker, size_t share)
{
    const solver *s = arg;
    const qn_gptq_problem *p = s->problem;
    const size_t k = s->k, first = s->first;
    const size_t begin = p->channels * share / s->n_workers;
    const size_t end = p->channels * (share + 1) / s->n_workers;
    for (size_t at = 0; at < k && begin < end; at += BLOCK) {
        const size_t n = k - at < BLOCK ? k - at : BLOCK;
        float *moved = s->moved + begin * BLOCK;
        /* errors of all earlier blocks: column j is reversed column k - 1 - j */
        if (at == 0)
            memset(moved, 0, (end - begin) * BLOCK * sizeof(float));
        else
            multiply(s, &s->scratches[worker], s->errors + begin * k + (k - at), k, end - begin,
                     s->h + (k - at) * k + (k - at - n), 1, k, n, at, moved, BLOCK);
        for (size_t c = begin; c < end; c++) {
            const float *w = p->w + c * p->k + first + at;
            int8_t *out = s->q + c * p->k + first + at;
            float *e = s->errors + c * k;
            float *shift = s->moved + c * BLOCK; /* of reversed columns k - at - n and on */
            for (size_t j = 0; j < n; j++) {
                const size_t left = n - 1 - j, column = k - 1 - (at + j);
                const bool second = p->pairs && (first + at + j) % 2 == 1;
                out[j] = round_one(&p->levels, w[j] + shift[left], p->scales[c], second,
                                   second ? out[j - 1] : 0);
                const float lost = w[j] - (float)out[j] * p->scales[c];
                const float *u = s->h + column * k + (k - at - n);
                e[column] = lost;
                for (size_t i = 0; i < left; i++)
                    shift[i] += lost * u[i];
            }
        }
    }
}

static bool scratch_create(const solver *s, scratch *out, size_t k, size_t depth)
{
    const qn_f32_igemm *gemm = &s->kernels->f32_igemm;
    out->packed =
        qn__alloc_aligned(s->ctx, sizeof(float) * qn__f32_gemm_packed_count(k, depth, 1, gemm->nr));
    out->product = qn__reallocarray(s->ctx, NULL, k, BLOCK * sizeof(float));
    out->pointers = qn__calloc(s->ctx, gemm->mr, sizeof(*out->pointers));
    return out->packed != NULL && out->product != NULL && out->pointers != NULL;
}

static void scratch_free(const qn_context *ctx, scratch *w)
{
    qn__free_aligned(ctx, w->packed);
    qn__free(ctx, w->product);
    qn__free(ctx, (void *)w->pointers);
}

qn_status qn__gptq_round(const qn_context *ctx, const qn_gptq_problem *problem, float *scales,
                         int8_t *q, qn_error *error)
{
    (void)scales;
    qn_kernels kernels;
    qn__kernels_init(&kernels, ctx->cpu_flags);
    const size_t parts = (problem->k + MAX_COLUMNS - 1) / MAX_COLUMNS;
    /* whole blocks, so that pairs never straddle two parts */
    const size_t part = ((problem->k + parts - 1) / parts + BLOCK - 1) / BLOCK * BLOCK;
    const size_t k = part < problem->k ? part : problem->k;
    const size_t depth = k > SQUARE_ROWS ? k : SQUARE_ROWS;
    solver s = {.ctx = ctx,
                .problem = problem,
                .kernels = &kernels,
                .n_workers = qn__pool_size(problem->pool),
                .q = q};
    qn_status status = QN_OK;
    s.h = qn__reallocarray(ctx, NULL, k, k * sizeof(float));
    s.errors = qn__reallocarray(ctx, NULL, problem->channels, k * sizeof(float));
    s.moved = qn__reallocarray(ctx, NULL, problem->channels, BLOCK * sizeof(float));
    s.scratches = qn__calloc(ctx, s.n_workers, sizeof(*s.scratches));
    bool ready = s.h != NULL && s.errors != NULL && s.moved != NULL && s.scratches != NULL;
    for (uint32_t i = 0; ready && i < s.n_workers; i++)
        ready = scratch_create(&s, &s.scratches[i], k, depth);
    if (!ready) {
        status = QN_NOMEM(error);
        goto done;
    }
    for (; s.first < problem->k; s.first += part) {
        s.k = problem->k - s.first < part ? problem->k - s.first : part;
        QN_TRY_GOTO(second_moment(&s, error));
        factor(&s);
        qn__parallel_worker(problem->pool, round_channels, &s, s.n_workers);
    }
done:
    for (uint32_t i = 0; s.scratches != NULL && i < s.n_workers; i++)
        scratch_free(ctx, &s.scratches[i]);
    qn__free(ctx, s.scratches);
    qn__free(ctx, s.moved);
    qn__free(ctx, s.errors);
    qn__free(ctx, s.h);
    return status;
}
