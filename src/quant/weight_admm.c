/* Scale and levels of least squared error: min over s > 0 and q in the level set of ||w - s q||^2,
 * by exact minimization over q (the nearest level) and over s (w.q / q.q) in turn. Source: Leng,
 * Dou, Li, Zhu, Jin, "Extremely Low Bit Neural Network: Squeeze the Last Bit Out with ADMM" (AAAI
 * 2018), equations 12 to 15. Its descent ends in the minimum next to where it starts, so it starts
 * from several clips of the original weights; where the problem is small, every optimal assignment
 * of levels is visited and the minimum is the true one. */
#include "quant/admm.h"

#include <math.h>
#include <stdlib.h>

enum {
    STARTS = 64,         /* clips, each a part of the one before */
    REFINED = 3,         /* best starts that are followed to their minimum */
    MAX_STEPS = 100,     /* a descent ends by itself, after 5 to 30 */
    MAX_EVENTS = 1 << 14 /* weights times levels that are visited one by one */
};

typedef struct problem {
    const qn_levels *levels;
    const float *x; /* weights over their largest magnitude */
    size_t count;
} problem;

/* How much of x.x a fit explains. */
static double gain(qn_level_fit f)
{
    return f.qq > 0 ? f.xq * f.xq / f.qq : 0;
}

static qn_level_fit assign(const problem *p, double alpha)
{
    return qn__levels_fit(p->levels, p->x, p->count, (float)alpha);
}

/* Follows the alternation from alpha to where it stands still. */
static double descend(const problem *p, double alpha, double *reached)
{
    double best = 0;
    for (int step = 0; step < MAX_STEPS; step++) {
        const qn_level_fit f = assign(p, alpha);
        if (!(gain(f) > best))
            break;
        best = gain(f);
        alpha = f.xq / f.qq;
    }
    *reached = best;
    return alpha;
}

/* |x| takes its next level when the step falls below `at`. */
typedef struct event {
    float at, x;
    int32_t from, to;
} event;

static int later(const void *a, const void *b)
{
    const float x = ((const event *)a)->at, y = ((const event *)b)->at;
    return (x < y) - (x > y);
}

/* Lets the step fall from infinity to 0: every assignment that is optimal for some step goes by, so
 * the best of them with its own best step is the minimum over both. */
static bool sweep(const qn_context *ctx, const problem *p, double *alpha)
{
    const uint32_t levels = qn__levels_count(p->levels);
    event *events = qn__reallocarray(ctx, NULL, p->count * levels, sizeof(*events));
    size_t n = 0;
    if (events == NULL)
        return false;
    for (size_t i = 0; i < p->count; i++) {
        const float x = fabsf(p->x[i]);
        for (uint32_t l = 1; x > 0 && l <= levels; l++) {
            const int32_t to = qn__levels_magnitude(p->levels, l);
            const int32_t from = qn__levels_magnitude(p->levels, l - 1);
            events[n++] = (event){2.0f * x / (float)(from + to), x, from, to};
        }
    }
    qsort(events, n, sizeof(*events), later);
    qn_level_fit f = {0, 0};
    double best = 0;
    for (size_t i = 0; i < n; i++) {
        const event *e = &events[i];
        f.xq += (double)e->x * (e->to - e->from);
        f.qq += (double)(e->to * e->to - e->from * e->from);
        if (gain(f) > best) {
            best = gain(f);
            *alpha = f.xq / f.qq;
        }
    }
    qn__free(ctx, events);
    return true;
}

/* The best of descents from the most promising clips. Many levels clip little, and the error then
 * jumps with every value that changes its level: starts are dense where there are many. */
static double search(const problem *p)
{
    const uint32_t levels = qn__levels_count(p->levels);
    const double part = levels >= 31 ? 0.985 : levels >= 15 ? 0.97 : 0.92;
    const double qmax = p->levels->qmax;
    double starts[REFINED], gains[REFINED] = {0};
    size_t n = 0;
    for (int i = 0; i < STARTS; i++) {
        const double alpha = pow(part, i) / qmax;
        const double g = gain(assign(p, alpha));
        if (n == REFINED && !(g > gains[n - 1]))
            continue;
        size_t at = n < REFINED ? n++ : n - 1;
        for (; at > 0 && g > gains[at - 1]; at--) {
            gains[at] = gains[at - 1];
            starts[at] = starts[at - 1];
        }
        gains[at] = g;
        starts[at] = alpha;
    }
    double best = 0, alpha = 1 / qmax;
    for (size_t i = 0; i < n; i++) {
        double reached;
        const double a = descend(p, starts[i], &reached);
        if (reached > best) {
            best = reached;
            alpha = a;
        }
    }
    return alpha;
}

/* The step as float32 can give a hair more error than max_abs where that is as good as optimal:
 * what is returned is compared in the arithmetic that will round the weights. */
static void keep_better(const qn_levels *levels, const float *w, size_t count, double step,
                        double *least, float *best)
{
    const float s = (float)step;
    if (!(s > 0) || !isfinite(s))
        return;
    const double e = qn__levels_error(levels, w, count, s);
    if (e < *least) {
        *least = e;
        *best = s;
    }
}

static bool scale(const qn_context *ctx, const float *w, size_t count, const qn_levels *levels,
                  float *out)
{
    const float max = qn__max_abs(w, count);
    *out = max / (float)levels->qmax;
    if (!(*out > 0))
        return true;
    float *x = qn__reallocarray(ctx, NULL, count, sizeof(*x));
    if (x == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        x[i] = (float)((double)w[i] / (double)max);
    const problem p = {levels, x, count};
    double least = qn__levels_error(levels, w, count, *out);
    double alpha = 1.0, reached;
    bool ok = true;
    if (count <= MAX_EVENTS / qn__levels_count(levels)) {
        ok = sweep(ctx, &p, &alpha);
        alpha = descend(&p, alpha, &reached);
    } else {
        alpha = search(&p);
    }
    keep_better(levels, w, count, alpha * (double)max, &least, out);
    qn__free(ctx, x);
    return ok;
}

const qn_weight_method qn__weight_admm = {
    .name = "admm",
    .summary = "scale and levels of least squared error, found in turn (Leng et al. 2018)",
    .scale = scale,
    .round = qn__admm_round,
    .wants_slack = true,
};
