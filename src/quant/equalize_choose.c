/* How far the channels of a flow are divided. */
#include "quant/equalize.h"

#include <math.h>
#include <string.h>

enum { MAX_EXPONENT = 6, PHASES = 8 };

/* How much of a reading row's range channel c takes, at most; 0 where only depthwise convolutions
 * read it, which have a scale per channel. */
static bool weight_share(const qn_eq_flow *f, double *share)
{
    for (size_t s = 0; s < f->n_sinks; s++) {
        qn_weight_view v;
        size_t count;
        const float *w = qn__tensor_floats(f->graph, f->sinks[s].node->inputs[1], &count);
        if (w == NULL || !qn__weight_view(f->sinks[s].node, &v))
            return false;
        const size_t group = (size_t)qn__attr_int(f->sinks[s].node, "group", 1);
        if (v.k == v.positions)
            continue;
        for (size_t o = 0; o < v.channels; o++) {
            float row = 0;
            for (size_t k = 0; k < v.k; k++)
                row = fmaxf(row, fabsf(w[o * v.k + k]));
            for (size_t k = 0; row > 0 && k < v.k; k++) {
                const size_t i = qn__eq_input_channel(&v, group, o * v.k + k);
                const int32_t c = f->sinks[s].channel[i];
                double *to = c == QN_EQ_FOREIGN ? NULL : &share[c];
                if (to != NULL)
                    *to = fmax(*to, (double)(fabsf(w[o * v.k + k]) / row));
            }
        }
    }
    return true;
}

/* --- sums: several tensors of unlike channels share the exponents -----------------------------*/
/* A step of tensor i is as long as its largest channel needs; its rounding reaches what reads it
 * through the weights. With p the peaks, the exponents a are to make
 *   sum over i of (max over c of p_ic / 2^a_c)^2 * (sum over c of cost_ic * 4^a_c)
 * least. The maximum is softened to a norm, which makes a stationary point a fixed point. */
enum { SUM_ROUNDS = 60 };
#define SUM_NORM 8.0
#define DEAD (-20.0) /* exponent of a channel that is always zero */

/* after[i]: a bit for each tensor of the flow made from tensor i. */
static void find_descendants(const qn_eq_flow *f, uint32_t *after)
{
    for (size_t round = 0; round < f->n_tensors; round++)
        for (size_t j = 0; j < f->n_tensors; j++) {
            const qn_node *node = f->tensors[j]->producer;
            for (uint32_t k = 0; node->op != QN_OP_CONV && k < node->n_inputs; k++) {
                const size_t i = qn__eq_find(f, node->inputs[k]);
                if (i < f->n_tensors)
                    after[i] |= after[j] | UINT32_C(1) << j;
            }
        }
}

/* Sum of the squared weights of one sink by channel. */
static bool sink_gain(const qn_eq_flow *f, const qn_eq_end *sink, double *gain)
{
    qn_weight_view v;
    size_t count;
    const float *w = qn__tensor_floats(f->graph, sink->node->inputs[1], &count);
    if (w == NULL || !qn__weight_view(sink->node, &v))
        return false;
    const size_t group = (size_t)qn__attr_int(sink->node, "group", 1);
    memset(gain, 0, f->channels * sizeof(*gain));
    for (size_t i = 0; i < v.channels * v.k; i++)
        gain[sink->channel[qn__eq_input_channel(&v, group, i)]] += (double)w[i] * (double)w[i];
    return true;
}

/* cost[i][c]: what rounding channel c of tensor i does to the sinks behind it, each relative to
 * what it reads. */
static bool rounding_costs(const qn_eq_flow *f, float *const *peaks, double **cost)
{
    uint32_t after[QN_EQ_TENSORS] = {0};
    double *gain = qn__arena_calloc(&f->graph->arena, f->channels, sizeof(*gain));
    find_descendants(f, after);
    for (size_t s = 0; s < f->n_sinks; s++) {
        const size_t at = qn__eq_find(f, f->sinks[s].node->inputs[0]);
        const float *p = peaks[f->tensors[at]->id];
        double read = 0;
        if (gain == NULL || !sink_gain(f, &f->sinks[s], gain))
            return false;
        for (size_t c = 0; c < f->channels; c++)
            read += gain[c] * (double)p[c] * (double)p[c];
        for (size_t i = 0; read > 0 && i < f->n_tensors; i++)
            for (size_t c = 0; (i == at || (after[i] >> at & 1) != 0) && c < f->channels; c++)
                cost[i][c] += gain[c] / read;
    }
    return true;
}

/* One step towards the fixed point. up, down: [channels] */
static void balance(const qn_eq_flow *f, float *const *peaks, double peak, double *const *cost,
                    double *up, double *down, double *fill)
{
    const double r = SUM_NORM;
    memset(up, 0, f->channels * sizeof(*up));
    memset(down, 0, f->channels * sizeof(*down));
    for (size_t i = 0; i < f->n_tensors; i++) {
        const float *p = peaks[f->tensors[i]->id];
        double reach = 0, noise = 0;
        for (size_t c = 0; c < f->channels; c++) {
            reach += pow((double)p[c] / peak * exp2(-fill[c]), 2 * r);
            noise += cost[i][c] * exp2(2 * fill[c]);
        }
        for (size_t c = 0; reach > 0 && c < f->channels; c++) {
            up[c] += noise * pow(reach, 1 / r - 1) * pow((double)p[c] / peak, 2 * r);
            down[c] += pow(reach, 1 / r) * cost[i][c];
        }
    }
    for (size_t c = 0; c < f->channels; c++) {
        double target = fill[c]; /* read by nobody: stays */
        if (!(up[c] > 0))
            target = DEAD;
        else if (down[c] > 0)
            target = log2(up[c] / down[c]) / (2 * r + 2);
        fill[c] += 0.5 * (target - fill[c]);
    }
}

/* How far each channel is to be divided, as log2 and at most 0. False: not a flow of plain sums. */
static bool fill_sums(const qn_eq_flow *f, float *const *peaks, size_t n_peaks, double *fill)
{
    double *cost[QN_EQ_TENSORS], peak = 0, top = -INFINITY;
    double *up = qn__arena_calloc(&f->graph->arena, f->channels, sizeof(*up));
    double *down = qn__arena_calloc(&f->graph->arena, f->channels, sizeof(*down));
    for (size_t i = 0; i < f->n_tensors; i++) {
        const uint32_t id = f->tensors[i]->id;
        if (id >= n_peaks || peaks[id] == NULL ||
            !qn__eq_same(f->channel[i], f->channel[0], f->channels))
            return false;
        cost[i] = qn__arena_calloc(&f->graph->arena, f->channels, sizeof(**cost));
        if (cost[i] == NULL)
            return false;
        for (size_t c = 0; c < f->channels; c++)
            peak = fmax(peak, (double)peaks[id][c]);
    }
    if (up == NULL || down == NULL || !(peak > 0) || !rounding_costs(f, peaks, cost))
        return false;
    for (int round = 0; round < SUM_ROUNDS; round++)
        balance(f, peaks, peak, cost, up, down, fill);
    for (size_t c = 0; c < f->channels; c++)
        top = fmax(top, fill[c]);
    for (size_t c = 0; c < f->channels; c++)
        fill[c] -= top;
    return true;
}

/* Mean over the measured tensors of what each channel fills of their range, as log2. */
static bool fill_average(const qn_eq_flow *f, float *const *peaks, size_t n_peaks, double *fill)
{
    size_t n_measured = 0;
    bool among_others = false;
    for (size_t i = 0; i < f->n_tensors; i++) {
        /* a tensor renamed by an earlier scaling was not measured */
        const float *p = f->tensors[i]->id < n_peaks ? peaks[f->tensors[i]->id] : NULL;
        float largest = 0, foreign = 0;
        size_t width = 0;
        if (p == NULL || !qn__eq_channels(f->tensors[i], &width))
            continue;
        for (size_t c = 0; c < width; c++) {
            largest = fmaxf(largest, p[c]);
            if (f->channel[i][c] == QN_EQ_FOREIGN)
                foreign = fmaxf(foreign, p[c]);
        }
        if (!(largest > 0) || (foreign == 0 && among_others))
            continue;
        /* Beside another tensor's channels, in a Concat, theirs is the range to come to. */
        if (foreign > 0 && !among_others) {
            among_others = true;
            n_measured = 0;
            memset(fill, 0, f->channels * sizeof(*fill));
        }
        n_measured++;
        const float level = foreign > 0 ? foreign : largest;
        for (size_t c = 0; c < width; c++)
            if (f->channel[i][c] != QN_EQ_FOREIGN)
                fill[f->channel[i][c]] += log2(fmax((double)(p[c] / level), 1e-6));
    }
    for (size_t c = 0; n_measured > 0 && c < f->channels; c++)
        fill[c] /= (double)n_measured;
    return n_measured > 0;
}

/* What one sink loses to rounding, relative to what it reads, with exponents e; 0: not known. */
static double sink_loss(const qn_eq_flow *f, const qn_eq_end *sink, float *const *peaks,
                        size_t n_peaks, const int32_t *e)
{
    const qn_tensor *t = sink->node->inputs[0];
    const float *p = t->id < n_peaks ? peaks[t->id] : NULL;
    qn_weight_view v;
    size_t count, width;
    const float *w = qn__tensor_floats(f->graph, sink->node->inputs[1], &count);
    if (p == NULL || w == NULL || !qn__weight_view(sink->node, &v) || !qn__eq_channels(t, &width))
        return 0;
    const size_t group = (size_t)qn__attr_int(sink->node, "group", 1);
    double reach = 0, noise = 0, read = 0, peak = 0;
    for (size_t c = 0; c < width; c++)
        peak = fmax(peak, (double)p[c]);
    if (!(peak > 0))
        return 0;
    for (size_t c = 0; c < width; c++) {
        const int32_t from = sink->channel[c];
        const double x = ldexp((double)p[c] / peak, from == QN_EQ_FOREIGN ? 0 : -e[from]);
        reach += pow(x, 2 * SUM_NORM);
    }
    for (size_t i = 0; i < v.channels * v.k; i++) {
        const size_t c = qn__eq_input_channel(&v, group, i);
        const double gain = (double)w[i] * (double)w[i];
        const int32_t from = sink->channel[c];
        noise += ldexp(gain, from == QN_EQ_FOREIGN ? 0 : 2 * e[from]);
        read += gain * ((double)p[c] / peak) * ((double)p[c] / peak);
    }
    return read > 0 ? pow(reach, 1 / SUM_NORM) * noise / read : 0;
}

/* e[c]: channel c is divided by 2^e[c]. Activations and weights share the gain: where a channel
 * fills A of its tensors' ranges and B of the rows that read it, dividing by A^p / B^(1-p) leaves
 * A^(1-p) B^(1-p) and (A B)^p. Weights have a scale per row and are rounded with care, so p is
 * above one half (0.5, 0.7 and 1 were compared on calibration pictures of MENet and SqueezeNet). */
#define ACTIVATION_PART 0.7

/* Exponents of fill and share, all shifted by `phase` of a power of two before they are rounded. */
static void round_exponents(const qn_eq_flow *f, const double *fill, const double *share,
                            double phase, int32_t *e)
{
    for (size_t c = 0; c < f->channels; c++) {
        const double part = share[c] > 0 ? ACTIVATION_PART : 1;
        const double weights = share[c] > 0 ? (1 - ACTIVATION_PART) * log2(share[c]) : 0;
        const double x = part * fill[c] - weights + phase;
        /* A channel that is (nearly) always zero stays what it is. */
        e[c] = fill[c] < -15 ? 0 : (int32_t)rint(fmax(-MAX_EXPONENT, fmin(MAX_EXPONENT, x)));
    }
}

bool qn__eq_choose(const qn_eq_flow *f, float *const *peaks, size_t n_peaks, int32_t *e)
{
    double *share = qn__arena_calloc(&f->graph->arena, f->channels, sizeof(*share));
    double *fill = qn__arena_calloc(&f->graph->arena, f->channels, sizeof(*fill));
    int32_t *tried = qn__arena_calloc(&f->graph->arena, f->channels, sizeof(*tried));
    double least = INFINITY;
    bool any = false;
    if (share == NULL || fill == NULL || tried == NULL || !weight_share(f, share))
        return false;
    if (!(f->n_makers > 1 && fill_sums(f, peaks, n_peaks, fill)) &&
        !fill_average(f, peaks, n_peaks, fill))
        return false;
    /* The same everywhere changes nothing but how exponents fall to whole numbers. */
    for (int phase = 0; phase < PHASES; phase++) {
        double loss = 0;
        const int shift = phase <= PHASES / 2 ? phase : phase - PHASES;
        round_exponents(f, fill, share, (double)shift / PHASES, tried);
        for (size_t s = 0; s < f->n_sinks; s++)
            loss += sink_loss(f, &f->sinks[s], peaks, n_peaks, tried);
        if (loss < least) {
            least = loss;
            memcpy(e, tried, f->channels * sizeof(*e));
        }
    }
    for (size_t c = 0; c < f->channels; c++)
        any |= e[c] != 0;
    return any;
}
