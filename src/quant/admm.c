#include "quant/admm.h"

#include "core/threads.h"

#include <math.h>
#include <string.h>

enum {
    CHUNK = 16,        /* channels solved together */
    STEPS = 30,        /* of the alternation, for each damping */
    POLISHES = 3,      /* passes over the weights one by one, after them */
    SCALE_STEPS = 4,   /* of scale and levels in turn, in one projection */
    MAX_COLUMNS = 512, /* above, H is taken as block-diagonal: its inverse is cubic */
};

#define RHO 0.3 /* with H's mean diagonal at 1 */
/* Added to the diagonal of H, whose mean is 1. The first is what f is measured with; the others
 * pull the solution nearer to the original weights, for channels that go too far without. */
static const float DAMPING[] = {0.3f, 1.0f, 3.0f, 10.0f};
enum { N_DAMPING = sizeof(DAMPING) / sizeof(DAMPING[0]) };

/* A run of columns that H is taken for by itself. */
typedef struct part {
    size_t first, k;
    float *moment;             /* [k][k] H */
    float *packed;             /* H for the matrix product */
    float *inverse[N_DAMPING]; /* rho (H + rho I)^-1 for the matrix product */
} part;

typedef struct solver {
    const qn_context *ctx;
    const qn_gptq_problem *problem;
    const qn_kernels *kernels;
    part *parts;
    size_t n_parts;
    float *scales;
    int8_t *q;
    _Atomic bool failed;
} solver;

/* --- H and its inverse -------------------------------------------------------------------------*/
static bool second_moment(const solver *s, part *p)
{
    const qn_gptq_problem *problem = s->problem;
    const size_t k = p->k;
    float *row = qn__calloc(s->ctx, k, sizeof(*row));
    double *mean = qn__calloc(s->ctx, k, sizeof(*mean));
    if (row == NULL || mean == NULL) {
        qn__free(s->ctx, row);
        qn__free(s->ctx, mean);
        return false;
    }
    for (size_t r = 0; problem->center && r < problem->n_rows; r++)
        for (size_t j = 0; j < k; j++)
            mean[j] += (double)problem->rows[r * problem->row_stride + p->first + j] /
                       (double)problem->n_rows;
    memset(p->moment, 0, k * k * sizeof(*p->moment));
    for (size_t r = 0; r < problem->n_rows; r++) {
        const float *from = problem->rows + r * problem->row_stride + p->first;
        for (size_t j = 0; j < k; j++)
            row[j] = (float)((double)from[j] - mean[j]);
        for (size_t i = 0; i < k; i++) {
            const float x = row[i];
            float *out = p->moment + i * k;
            for (size_t j = 0; x != 0 && j < k; j++)
                out[j] += x * row[j];
        }
    }
    qn__free(s->ctx, row);
    qn__free(s->ctx, mean);
    return true;
}

/* Brings H to a mean diagonal of 1, which changes no minimum, and damps it. False: not finite. */
static bool scale_moment(part *p)
{
    const size_t k = p->k;
    double trace = 0;
    for (size_t j = 0; j < k; j++)
        trace += (double)p->moment[j * k + j];
    if (!isfinite(trace))
        return false;
    const double factor = trace > 0 ? (double)k / trace : 0;
    for (size_t i = 0; i < k * k; i++)
        p->moment[i] = (float)((double)p->moment[i] * factor);
    for (size_t j = 0; j < k; j++)
        p->moment[j * k + j] += DAMPING[0];
    return true;
}

/* In place, by Gauss and Jordan; positive definite: every pivot is positive. */
static void invert(double *a, size_t k)
{
    for (size_t p = 0; p < k; p++) {
        double *pivot_row = a + p * k;
        const double inv = 1.0 / pivot_row[p];
        pivot_row[p] = 1.0;
        for (size_t j = 0; j < k; j++)
            pivot_row[j] *= inv;
        for (size_t i = 0; i < k; i++) {
            double *row = a + i * k;
            const double f = row[p];
            if (i == p || f == 0)
                continue;
            row[p] = 0;
            for (size_t j = 0; j < k; j++)
                row[j] -= f * pivot_row[j];
        }
    }
}

static float *pack(const solver *s, const float *matrix, size_t k)
{
    const size_t nr = s->kernels->f32_igemm.nr;
    float *packed =
        qn__alloc_aligned(s->ctx, sizeof(float) * qn__f32_gemm_packed_count(k, k, 1, nr));
    if (packed != NULL)
        qn__f32_gemm_pack(packed, matrix, NULL, k, k, 1, k, 0, 1, nr);
    return packed;
}

static bool prepare(const solver *s, part *p)
{
    const size_t k = p->k;
    double *a = qn__reallocarray(s->ctx, NULL, k, k * sizeof(*a));
    float *b = qn__reallocarray(s->ctx, NULL, k, k * sizeof(*b));
    bool ok = a != NULL && b != NULL;
    p->packed = pack(s, p->moment, k);
    ok = ok && p->packed != NULL;
    for (size_t d = 0; ok && d < N_DAMPING; d++) {
        for (size_t i = 0; i < k * k; i++)
            a[i] = (double)p->moment[i];
        for (size_t j = 0; j < k; j++)
            a[j * k + j] += RHO + (double)(DAMPING[d] - DAMPING[0]);
        invert(a, k);
        for (size_t i = 0; i < k * k; i++)
            b[i] = (float)(RHO * a[i]);
        p->inverse[d] = pack(s, b, k);
        ok = p->inverse[d] != NULL;
    }
    qn__free(s->ctx, a);
    qn__free(s->ctx, b);
    return ok;
}

/* --- channels ----------------------------------------------------------------------------------*/
/* Channels that are solved together; all weights in units of their channel's largest. */
typedef struct chunk {
    size_t n;           /* channels */
    float *x;           /* [n][k] original weights */
    float *u;           /* [n][k] scaled multipliers */
    float *v;           /* [n][k] what is projected */
    float *e, *product; /* [n][k] a difference, and a matrix times it */
    int8_t *q;          /* [n][k] */
    const float **rows;
    double alpha[CHUNK], first_alpha[CHUNK];
    double unit[CHUNK];  /* largest weight */
    double bound[CHUNK]; /* squared distance allowed */
    double least[CHUNK]; /* f of what is kept */
} chunk;

/* product = H e, or rho (H + rho I)^-1 e with more damping. */
static void multiply(const solver *s, const chunk *c, const size_t *inverse)
{
    const qn_f32_igemm *gemm = &s->kernels->f32_igemm;
    const qn_clamp_f32 none = {-INFINITY, INFINITY};
    const size_t k = s->problem->k;
    for (size_t i = 0; i < s->n_parts; i++) {
        const part *p = &s->parts[i];
        for (size_t row = 0; row < c->n; row += gemm->mr) {
            const size_t mr = c->n - row < gemm->mr ? c->n - row : gemm->mr;
            for (size_t m = 0; m < gemm->mr; m++)
                c->rows[m] = c->e + (row + (m < mr ? m : 0)) * k + p->first;
            gemm->fn(mr, p->k, p->k, 1, c->rows, inverse != NULL ? p->inverse[*inverse] : p->packed,
                     c->product + row * k + p->first, k, &none);
        }
    }
}

/* f of channel i, twice; product is H e. */
static double objective(const solver *s, const chunk *c, size_t i)
{
    const size_t k = s->problem->k;
    const float *e = c->e + i * k, *he = c->product + i * k;
    double f = 0;
    for (size_t j = 0; j < k; j++)
        f += (double)e[j] * (double)he[j];
    return f;
}

/* Keeps the levels of channel i when they are the best so far. */
static void consider(const solver *s, chunk *c, size_t first, size_t i)
{
    const qn_gptq_problem *p = s->problem;
    const size_t k = p->k;
    const double f = objective(s, c, i);
    const float scale = (float)(c->alpha[i] * c->unit[i]);
    if (!(f < c->least[i]) || !isfinite(scale) || !(scale > 0) ||
        (p->min_scales != NULL && scale < p->min_scales[first + i]) ||
        (p->pairs && !qn__pairs_safe_adjacent(c->q + i * k, k, 1)))
        return;
    double distance = 0;
    for (size_t j = 0; j < k; j++) {
        const double d = (double)p->w[(first + i) * k + j] - (double)scale * c->q[i * k + j];
        distance += d * d;
    }
    if (distance > c->bound[i])
        return;
    c->least[i] = f;
    s->scales[first + i] = scale;
    memcpy(s->q + (first + i) * k, c->q + i * k, k);
}

/* e = s q - x and product = H e for all channels. */
static void measure(const solver *s, chunk *c)
{
    const size_t k = s->problem->k;
    for (size_t i = 0; i < c->n; i++)
        for (size_t j = 0; j < k; j++)
            c->e[i * k + j] = (float)c->alpha[i] * (float)c->q[i * k + j] - c->x[i * k + j];
    multiply(s, c, NULL);
}

/* Nearest levels to v, scale and levels in turn. */
static void project(const solver *s, chunk *c, size_t i)
{
    const qn_gptq_problem *p = s->problem;
    const float *v = c->v + i * p->k;
    for (int step = 0; !p->shared_scale && step < SCALE_STEPS; step++) {
        const qn_level_fit f = qn__levels_fit(&p->levels, v, p->k, (float)c->alpha[i]);
        if (!(f.xq > 0))
            break;
        c->alpha[i] = f.xq / f.qq;
    }
    qn__levels_round(&p->levels, v, p->k, (float)c->alpha[i], c->q + i * p->k);
}

static void iterate(const solver *s, chunk *c, size_t damping)
{
    const size_t k = s->problem->k;
    for (size_t i = 0; i < c->n * k; i++) {
        const float g = (float)c->alpha[i / k] * (float)c->q[i];
        c->e[i] = g - c->u[i] - c->x[i];
    }
    multiply(s, c, &damping);
    for (size_t i = 0; i < c->n * k; i++)
        c->v[i] = c->x[i] + c->product[i] + c->u[i];
    for (size_t i = 0; i < c->n; i++)
        project(s, c, i);
    for (size_t i = 0; i < c->n * k; i++)
        c->u[i] = c->v[i] - (float)c->alpha[i / k] * (float)c->q[i];
}

/* One weight after the other takes the level that makes f least, the others and the scale fixed. */
static void polish(const solver *s, chunk *c, size_t i, size_t damping)
{
    const float more = DAMPING[damping] - DAMPING[0];
    const size_t k = s->problem->k;
    float *he = c->product + i * k;
    int8_t *q = c->q + i * k;
    const float alpha = (float)c->alpha[i];
    for (size_t n = 0; n < s->n_parts; n++) {
        const part *p = &s->parts[n];
        for (size_t j = 0; j < p->k; j++) {
            const size_t at = p->first + j;
            const float *h = p->moment + j * p->k;
            const float slope = he[at] + more * (alpha * (float)q[at] - c->x[i * k + at]);
            const float wanted = alpha * (float)q[at] - slope / (h[j] + more);
            const int8_t to = qn__levels_round_one(&s->problem->levels, wanted, alpha);
            if (to == q[at])
                continue;
            const float delta = alpha * (float)(to - q[at]);
            q[at] = to;
            for (size_t l = 0; l < p->k; l++)
                he[p->first + l] += delta * h[l];
        }
    }
}

static bool chunk_create(const solver *s, chunk *c)
{
    const size_t k = s->problem->k;
    float **arrays[] = {&c->x, &c->u, &c->v, &c->e, &c->product};
    bool ok = true;
    for (size_t i = 0; i < 5; i++) {
        *arrays[i] = qn__calloc(s->ctx, CHUNK * k, sizeof(float));
        ok &= *arrays[i] != NULL;
    }
    c->q = qn__alloc(s->ctx, CHUNK * k);
    c->rows = qn__calloc(s->ctx, s->kernels->f32_igemm.mr, sizeof(*c->rows));
    return ok && c->q != NULL && c->rows != NULL;
}

static void chunk_free(const solver *s, chunk *c)
{
    float *arrays[] = {c->x, c->u, c->v, c->e, c->product};
    for (size_t i = 0; i < 5; i++)
        qn__free(s->ctx, arrays[i]);
    qn__free(s->ctx, c->q);
    qn__free(s->ctx, (void *)c->rows);
}

/* Starting point: the levels nearest to the original weights. */
static void start(const solver *s, chunk *c, size_t first)
{
    const qn_gptq_problem *p = s->problem;
    const size_t k = p->k;
    for (size_t i = 0; i < c->n; i++) {
        const float *w = p->w + (first + i) * k;
        const float scale = s->scales[first + i];
        const float max = qn__max_abs(w, k);
        int8_t *kept = s->q + (first + i) * k;
        c->unit[i] = max > 0 ? (double)max : 1;
        c->alpha[i] = c->first_alpha[i] = (double)scale / c->unit[i];
        for (size_t j = 0; j < k; j++)
            c->x[i * k + j] = (float)((double)w[j] / c->unit[i]);
        qn__levels_round(&p->levels, w, k, scale, kept);
        memcpy(c->q + i * k, kept, k);
        c->bound[i] = p->slack * qn__levels_error(&p->levels, w, k, scale);
    }
    measure(s, c);
    for (size_t i = 0; i < c->n; i++)
        c->least[i] = objective(s, c, i);
}

/* The alternation from the start, and what single weights can add; H with this damping. */
static void follow(const solver *s, chunk *c, size_t first, size_t damping)
{
    const size_t k = s->problem->k;
    memset(c->u, 0, c->n * k * sizeof(*c->u));
    for (size_t i = 0; i < c->n; i++) {
        c->alpha[i] = c->first_alpha[i];
        qn__levels_round(&s->problem->levels, c->x + i * k, k, (float)c->alpha[i], c->q + i * k);
    }
    for (int step = 0; step < STEPS + POLISHES; step++) {
        if (step < STEPS)
            iterate(s, c, damping);
        for (size_t i = 0; step >= STEPS && i < c->n; i++)
            polish(s, c, i, damping);
        measure(s, c);
        for (size_t i = 0; i < c->n; i++)
            consider(s, c, first, i);
    }
}

static void solve(void *arg, size_t index)
{
    solver *s = arg;
    const size_t first = index * CHUNK, left = s->problem->channels - first;
    chunk c = {.n = left < CHUNK ? left : CHUNK};
    if (!chunk_create(s, &c)) {
        s->failed = true;
    } else {
        start(s, &c, first);
        for (size_t d = 0; d < N_DAMPING; d++)
            follow(s, &c, first, d);
    }
    chunk_free(s, &c);
}

qn_status qn__admm_round(const qn_context *ctx, const qn_gptq_problem *problem, float *scales,
                         int8_t *q, qn_error *error)
{
    qn_kernels kernels;
    qn__kernels_init(&kernels, ctx->cpu_flags);
    const size_t k = problem->k, n_parts = (k + MAX_COLUMNS - 1) / MAX_COLUMNS;
    solver s = {.ctx = ctx,
                .problem = problem,
                .kernels = &kernels,
                .n_parts = n_parts,
                .scales = scales,
                .q = q};
    bool ready = true, finite = true;
    s.parts = qn__calloc(ctx, n_parts, sizeof(*s.parts));
    for (size_t i = 0; s.parts != NULL && i < n_parts; i++) {
        part *p = &s.parts[i];
        p->first = k * i / n_parts;
        p->k = k * (i + 1) / n_parts - p->first;
        p->moment = qn__reallocarray(ctx, NULL, p->k, p->k * sizeof(float));
        ready = ready && p->moment != NULL && second_moment(&s, p);
        finite = ready && finite && scale_moment(p);
        ready = ready && (!finite || prepare(&s, p));
    }
    if (s.parts == NULL || !ready)
        s.failed = true;
    else if (finite)
        qn__parallel(problem->pool, solve, &s, (problem->channels + CHUNK - 1) / CHUNK);
    else /* inputs beyond float32's squares: the weights alone decide */
        for (size_t c = 0; c < problem->channels; c++)
            qn__levels_round(&problem->levels, problem->w + c * k, k, scales[c], q + c * k);
    for (size_t i = 0; s.parts != NULL && i < n_parts; i++) {
        qn__free(ctx, s.parts[i].moment);
        qn__free_aligned(ctx, s.parts[i].packed);
        for (size_t d = 0; d < N_DAMPING; d++)
            qn__free_aligned(ctx, s.parts[i].inverse[d]);
    }
    qn__free(ctx, s.parts);
    return s.failed ? QN_NOMEM(error) : QN_OK;
}
