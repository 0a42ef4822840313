#include "quant/gptq.h"

#include "core/threads.h"

#include <math.h>
#include <string.h>

enum {
    PAIR_LIMIT = 128,         /* of the positive and of the negative weights of a pair */
    BLOCK = QN_ROUND_COLUMNS, /* rounded, or factored, between two matrix products */
    /* Above this many columns H is taken as block-diagonal: its factorization is cubic. */
    MAX_COLUMNS = 1536,
    SQUARE_ROWS = 256, /* rows multiplied in one product when H is summed */
    AVERAGE_COLUMNS = 256
};

/* Fraction of H's mean diagonal added to the diagonal: keeps H regular when there are fewer rows
 * than columns, and rounding errors small against what was observed. */
#define DAMPING 0.01

/* What one thread multiplies with. */
typedef struct scratch {
    float *packed;  /* [BLOCK columns][1 + k] one operand of a product */
    float *product; /* [mr][k] */
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
    float *h;       /* [k][k]; after factoring: rows of U^T */
    float *columns; /* [k][SQUARE_ROWS] */
    float *panels;  /* panels of nr of these columns, for products of them with each other */
    float *errors;  /* [channels][k] w - q * scale, in reversed column order: those already rounded
                       are one contiguous run */
    float *moved;   /* [channels][BLOCK] */
    int8_t *q;
} solver;

/* c[m][n] = sum over d < depth of a[m][d] * b[d][n], b packed. Rows of m after the last repeat the
 * first one's address. */
static void multiply(const solver *s, const scratch *w, const float *a, size_t stride_a, size_t m,
                     const float *packed, size_t n, size_t depth, float *c, size_t stride_c)
{
    const qn_f32_igemm *gemm = &s->kernels->f32_igemm;
    const qn_clamp_f32 none = {-INFINITY, INFINITY};
    for (size_t row = 0; row < m; row += gemm->mr) {
        const size_t mr = m - row < gemm->mr ? m - row : gemm->mr;
        for (size_t i = 0; i < gemm->mr; i++)
            w->pointers[i] = a + (row + (i < mr ? i : 0)) * stride_a;
        gemm->fn(mr, n, depth, 1, w->pointers, packed, c + row * stride_c, stride_c, &none);
    }
}

/* h[at + i][at + j] += sign * sum over d < depth of a[i][d] * a[j][d], lower triangle, by blocks of
 * rows; the panels hold a. */
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
    const size_t k = s->k, size = k - job->at, begin = index * BLOCK, mr = s->kernels->f32_igemm.mr;
    const size_t end = size - begin < BLOCK ? size : begin + BLOCK;
    for (size_t i = begin; i < end; i += mr) {
        const size_t m = end - i < mr ? end - i : mr;
        multiply(s, w, job->a + i * job->stride, job->stride, m, s->panels, end, job->depth,
                 w->product, k);
        for (size_t r = 0; r < m; r++) {
            float *restrict out = s->h + (job->at + i + r) * k + job->at;
            const float *restrict add = w->product + r * k;
            for (size_t c = 0; c <= i + r; c++)
                out[c] += job->sign * add[c];
        }
    }
}

static void add_square(const solver *s, const float *a, size_t stride, size_t depth, size_t at,
                       float sign)
{
    square_job job = {s, a, stride, depth, at, sign};
    const size_t blocks = (s->k - at + BLOCK - 1) / BLOCK;
    qn__parallel_worker(s->problem->pool, square_rows, &job, blocks);
}

/* Columns of the rows, some of them at a time. */
typedef struct column_job {
    const solver *s;
    float *mean;     /* [k] */
    size_t start, n; /* rows */
} column_job;

static void average_columns(void *arg, size_t block)
{
    const column_job *job = arg;
    const qn_gptq_problem *p = job->s->problem;
    const size_t k = job->s->k, begin = block * AVERAGE_COLUMNS;
    const size_t n = k - begin < AVERAGE_COLUMNS ? k - begin : AVERAGE_COLUMNS;
    double sums[AVERAGE_COLUMNS] = {0};
    for (size_t r = 0; r < p->n_rows; r++) {
        const float *row = p->rows + r * p->row_stride + job->s->first + begin;
        for (size_t j = 0; j < n; j++)
            sums[j] += (double)row[j];
    }
    for (size_t j = 0; j < n; j++)
        job->mean[k - 1 - begin - j] = (float)(sums[j] / (double)(p->n_rows > 0 ? p->n_rows : 1));
}

/* One panel of columns, both as it is multiplied from the left (columns) and from the right. */
static void copy_columns(void *arg, size_t panel)
{
    const column_job *job = arg;
    const solver *s = job->s;
    const qn_gptq_problem *p = s->problem;
    const size_t nr = s->kernels->f32_igemm.nr, begin = panel * nr;
    const size_t n = s->k - begin < nr ? s->k - begin : nr;
    const float *mean = job->mean + begin;
    float *packed = s->panels + panel * nr * (1 + job->n);
    memset(packed, 0, nr * sizeof(float));
    for (size_t r = 0; r < job->n; r++) {
        const float *row =
            p->rows + (job->start + r) * p->row_stride + s->first + (s->k - begin - n);
        float *to = s->columns + begin * SQUARE_ROWS + r;
        packed += nr;
        for (size_t j = 0; j < n; j++)
            packed[j] = row[n - 1 - j] - mean[j];
        for (size_t j = n; j < nr; j++)
            packed[j] = 0;
        for (size_t j = 0; j < n; j++)
            to[j * SQUARE_ROWS] = packed[j];
    }
}

/* H = sum of x x^T over the rows (deviations from the mean when centred), damped. Reversed: column
 * j of the problem is row and column k - 1 - j of H, so that an ordinary Cholesky factor of it is
 * the U D U^T of the original order. */
static qn_status second_moment(const solver *s, qn_error *error)
{
    const qn_gptq_problem *p = s->problem;
    const size_t k = s->k, nr = s->kernels->f32_igemm.nr;
    float *mean = qn__calloc(s->ctx, k, sizeof(float)); /* reversed */
    if (mean == NULL)
        return QN_NOMEM(error);
    column_job job = {s, mean, 0, 0};
    if (p->center)
        qn__parallel(p->pool, average_columns, &job, (k + AVERAGE_COLUMNS - 1) / AVERAGE_COLUMNS);
    memset(s->h, 0, k * k * sizeof(float));
    for (; job.start < p->n_rows; job.start += SQUARE_ROWS) {
        job.n = p->n_rows - job.start < SQUARE_ROWS ? p->n_rows - job.start : SQUARE_ROWS;
        qn__parallel(p->pool, copy_columns, &job, (k + nr - 1) / nr);
        add_square(s, s->columns, SQUARE_ROWS, job.n, 0, 1.0f);
    }
    double trace = 0;
    for (size_t j = 0; j < k; j++)
        trace += (double)s->h[j * k + j];
    const float ridge = (float)(DAMPING * trace / (double)k);
    for (size_t j = 0; j < k; j++)
        s->h[j * k + j] += ridge > 0 ? ridge : 1.0f;
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

/* Rows below a factored block: L21 = A21 L11^-T, a panel of rows at a time, which is packed for the
 * product that follows. The block is transposed so that the inner loop runs along memory. */
typedef struct below_job {
    const solver *s;
    size_t at, n;
    float upper[BLOCK][BLOCK];
} below_job;

static void solve_below(void *arg, size_t panel)
{
    const below_job *job = arg;
    const solver *s = job->s;
    const size_t k = s->k, n = job->n, nr = s->kernels->f32_igemm.nr;
    const size_t begin = job->at + n + panel * nr, rows = k - begin < nr ? k - begin : nr;
    float *packed = s->panels + panel * nr * (1 + n);
    memset(packed, 0, nr * (1 + n) * sizeof(float));
    packed += nr;
    for (size_t i = 0; i < rows; i++) {
        float *restrict row = s->h + (begin + i) * k + job->at;
        for (size_t j = 0; j < n; j++) {
            const float *restrict upper = job->upper[j];
            const float value = row[j] / upper[j];
            row[j] = value;
            packed[j * nr + i] = value;
            for (size_t d = j + 1; d < n; d++)
                row[d] -= value * upper[d];
        }
    }
}

static void divide_by_pivots(void *arg, size_t block)
{
    const solver *s = arg;
    const size_t begin = block * BLOCK, end = s->k - begin < BLOCK ? s->k : begin + BLOCK;
    for (size_t i = begin; i < end; i++)
        for (size_t j = 0; j < i; j++)
            s->h[i * s->k + j] /= s->h[j * s->k + j];
}

/* H = L L^T in reversed order; then columns are divided by their pivot, which makes the factor unit
 * triangular: u_jk of the header is h[(k-1-j)][(k-1-kk)]. */
static void factor(const solver *s)
{
    const size_t k = s->k, nr = s->kernels->f32_igemm.nr;
    float largest = 0;
    for (size_t j = 0; j < k; j++)
        largest = fmaxf(largest, s->h[j * k + j]);
    const float tiny = largest * 1e-7f;
    for (size_t at = 0; at < k; at += BLOCK) {
        below_job job = {.s = s, .at = at, .n = k - at < BLOCK ? k - at : BLOCK};
        factor_block(s->h, k, at, job.n, tiny);
        const size_t below = at + job.n;
        if (below == k)
            break;
        for (size_t j = 0; j < job.n; j++)
            for (size_t d = 0; d < job.n; d++)
                job.upper[j][d] = s->h[(at + d) * k + at + j];
        qn__parallel(s->problem->pool, solve_below, &job, (k - below + nr - 1) / nr);
        /* A22 -= L21 L21^T */
        add_square(s, s->h + below * k + at, k, job.n, below, -1.0f);
    }
    qn__parallel(s->problem->pool, divide_by_pivots, (void *)s, (k + BLOCK - 1) / BLOCK);
}

/* The kernel's contract for levels that are not steps. Two powers of two are at most 64 each and
 * never leave the limit of pairs. */
static void round_levels(const qn_levels *levels, const qn_f32_round_args *a)
{
    for (size_t c = 0; c < a->channels; c++) {
        float *shift = a->moved + c * a->moved_stride;
        for (size_t j = 0; j < a->n; j++) {
            const size_t left = a->n - 1 - j;
            const float w = a->w[c * a->w_stride + j];
            const int8_t q = qn__levels_round_one(levels, w + shift[left], a->scales[c]);
            const float lost = w - (float)q * a->scales[c];
            a->q[c * a->q_stride + j] = q;
            a->errors[c * a->errors_stride + left] = lost;
            for (size_t i = 0; i < left; i++)
                shift[i] += lost * a->u[left * a->u_stride + i];
        }
    }
}

/* Rounds the part's columns of one share of the channels. */
static void round_channels(void *arg, uint32_t worker, size_t share)
{
    const solver *s = arg;
    const qn_gptq_problem *p = s->problem;
    const size_t k = s->k, first = s->first, nr = s->kernels->f32_igemm.nr;
    const size_t begin = p->channels * share / s->n_workers;
    const size_t end = p->channels * (share + 1) / s->n_workers;
    const scratch *w = &s->scratches[worker];
    for (size_t at = 0; at < k && begin < end; at += BLOCK) {
        const size_t n = k - at < BLOCK ? k - at : BLOCK;
        /* errors of all earlier blocks: column j is reversed column k - 1 - j */
        const size_t left = k - at - n; /* columns behind the block */
        const qn_f32_round_args args = {.channels = end - begin,
                                        .n = n,
                                        .w = p->w + begin * p->k + first + at,
                                        .w_stride = p->k,
                                        .scales = p->scales + begin,
                                        .u = s->h + left * k + left,
                                        .u_stride = k,
                                        .moved = s->moved + begin * BLOCK,
                                        .moved_stride = BLOCK,
                                        .errors = s->errors + begin * k + left,
                                        .errors_stride = k,
                                        .q = s->q + begin * p->k + first + at,
                                        .q_stride = p->k,
                                        .top = (float)p->levels.qmax,
                                        .pair_limit = PAIR_LIMIT,
                                        .pairs = p->pairs};
        if (at == 0) {
            memset(args.moved, 0, args.channels * BLOCK * sizeof(float));
        } else {
            qn__f32_gemm_pack(w->packed, s->h + (k - at) * k + left, NULL, n, at, 1, 1, 0, k, nr);
            multiply(s, w, s->errors + begin * k + (k - at), k, args.channels, w->packed, n, at,
                     args.moved, BLOCK);
        }
        if (p->levels.set == QN_LEVELS_UNIFORM)
            s->kernels->f32_round.fn(&args);
        else
            round_levels(&p->levels, &args);
    }
}

static bool scratch_create(const solver *s, scratch *out, size_t k)
{
    const qn_f32_igemm *gemm = &s->kernels->f32_igemm;
    out->packed =
        qn__alloc_aligned(s->ctx, sizeof(float) * qn__f32_gemm_packed_count(BLOCK, k, 1, gemm->nr));
    out->product = qn__reallocarray(s->ctx, NULL, k, gemm->mr * sizeof(float));
    out->pointers = qn__calloc(s->ctx, gemm->mr, sizeof(*out->pointers));
    return out->packed != NULL && out->product != NULL && out->pointers != NULL;
}

static void scratch_free(const qn_context *ctx, scratch *w)
{
    qn__free_aligned(ctx, w->packed);
    qn__free(ctx, w->product);
    qn__free(ctx, (void *)w->pointers);
}

static bool solver_create(solver *s, size_t k)
{
    const qn_context *ctx = s->ctx;
    const size_t nr = s->kernels->f32_igemm.nr;
    s->h = qn__reallocarray(ctx, NULL, k, k * sizeof(float));
    s->columns = qn__reallocarray(ctx, NULL, k, SQUARE_ROWS * sizeof(float));
    s->panels =
        qn__alloc_aligned(ctx, sizeof(float) * qn__f32_gemm_packed_count(k, SQUARE_ROWS, 1, nr));
    s->errors = qn__reallocarray(ctx, NULL, s->problem->channels, k * sizeof(float));
    s->moved = qn__reallocarray(ctx, NULL, s->problem->channels, BLOCK * sizeof(float));
    s->scratches = qn__calloc(ctx, s->n_workers, sizeof(*s->scratches));
    bool ready = s->h != NULL && s->columns != NULL && s->panels != NULL && s->errors != NULL &&
                 s->moved != NULL && s->scratches != NULL;
    for (uint32_t i = 0; ready && i < s->n_workers; i++)
        ready = scratch_create(s, &s->scratches[i], k);
    return ready;
}

static void solver_free(solver *s)
{
    const qn_context *ctx = s->ctx;
    for (uint32_t i = 0; s->scratches != NULL && i < s->n_workers; i++)
        scratch_free(ctx, &s->scratches[i]);
    qn__free(ctx, s->scratches);
    qn__free(ctx, s->moved);
    qn__free(ctx, s->errors);
    qn__free_aligned(ctx, s->panels);
    qn__free(ctx, s->columns);
    qn__free(ctx, s->h);
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
    solver s = {.ctx = ctx,
                .problem = problem,
                .kernels = &kernels,
                .n_workers = qn__pool_size(problem->pool),
                .q = q};
    qn_status status = QN_OK;
    if (!solver_create(&s, part < problem->k ? part : problem->k)) {
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
    solver_free(&s);
    return status;
}
