/* LSTM, GRU and RNN: one loop over time for each direction. */
#include "run/dynamic.h"
#include "run/nd.h"

#include <math.h>
#include <string.h>
#include <strings.h>

/* Inputs in ONNX's order. */
enum { IN_X, IN_W, IN_R, IN_B, IN_LENGTHS, IN_H, IN_C, IN_P };

typedef enum act_kind {
    ACT_SIGMOID,
    ACT_TANH,
    ACT_RELU,
    ACT_AFFINE,
    ACT_LEAKY_RELU,
    ACT_THRESHOLDED_RELU,
    ACT_SCALED_TANH,
    ACT_HARD_SIGMOID,
    ACT_ELU,
    ACT_SOFTSIGN,
    ACT_SOFTPLUS,
    ACT_COUNT
} act_kind;
static const struct {
    const char *name;
    float alpha, beta;
} ACTS[ACT_COUNT] = {
    {"Sigmoid", 0.0f, 0.0f},    {"Tanh", 0.0f, 0.0f},        {"Relu", 0.0f, 0.0f},
    {"Affine", 1.0f, 0.0f},     {"LeakyRelu", 0.01f, 0.0f},  {"ThresholdedRelu", 1.0f, 0.0f},
    {"ScaledTanh", 1.0f, 1.0f}, {"HardSigmoid", 0.2f, 0.5f}, {"Elu", 1.0f, 0.0f},
    {"Softsign", 0.0f, 0.0f},   {"Softplus", 0.0f, 0.0f}};

typedef struct activation {
    act_kind kind;
    float alpha, beta;
} activation;

typedef struct recurrent {
    qn_op op;
    size_t steps, batch, in, hidden, directions, gates;
    bool batch_first, backward, reset_first, coupled; /* backward: the only direction is */
    bool rounds_state; /* products see the state as bytes with a scale of their own */
    float clip;
    activation acts[6]; /* three a direction */
} recurrent;

static double apply(const activation *a, double x)
{
    const double alpha = (double)a->alpha, beta = (double)a->beta;
    switch (a->kind) {
    case ACT_SIGMOID:
        return 1.0 / (1.0 + exp(-x));
    case ACT_TANH:
        return tanh(x);
    case ACT_RELU:
        return x > 0.0 ? x : 0.0;
    case ACT_AFFINE:
        return alpha * x + beta;
    case ACT_LEAKY_RELU:
        return x < 0.0 ? alpha * x : x;
    case ACT_THRESHOLDED_RELU:
        return x >= alpha ? x : 0.0;
    case ACT_SCALED_TANH:
        return alpha * tanh(beta * x);
    case ACT_HARD_SIGMOID:
        x = alpha * x + beta;
        return x < 0.0 ? 0.0 : x > 1.0 ? 1.0 : x;
    case ACT_ELU:
        return x < 0.0 ? alpha * expm1(x) : x;
    case ACT_SOFTSIGN:
        return x / (1.0 + fabs(x));
    default:
        return log1p(exp(-fabs(x))) + (x > 0.0 ? x : 0.0);
    }
}

/* Names are as many as gates have activations, for each direction; alphas and betas go to those
 * functions that have one, in order. */
static qn_status read_activations(const qn_step *step, recurrent *r, qn_error *error)
{
    const size_t per = r->op == QN_OP_LSTM ? 3 : r->op == QN_OP_GRU ? 2 : 1;
    const qn_attr *const names = qn__node_attr(step->node, "activations");
    const qn_attr *const alphas = qn__node_attr(step->node, "activation_alpha");
    const qn_attr *const betas = qn__node_attr(step->node, "activation_beta");
    size_t n_alphas = 0, n_betas = 0;
    if (names != NULL && (names->kind != QN_ATTR_STRINGS || names->count != per * r->directions))
        return qn__step_fail(step, error, QN_CORRUPT, "\"activations\" is not a list of %zu names",
                             per * r->directions);
    for (size_t i = 0; i < per * r->directions; i++) {
        const char *const fallback = r->op != QN_OP_RNN && i % per == 0 ? "Sigmoid" : "Tanh";
        const char *const name = names != NULL ? names->strings[i] : fallback;
        activation *const act = &r->acts[i / per * 3 + i % per];
        int kind = 0;
        while (kind < ACT_COUNT && strcasecmp(ACTS[kind].name, name) != 0)
            kind++;
        if (kind == ACT_COUNT)
            return qn__step_fail(step, error, QN_UNSUPPORTED, "activation \"%s\"", name);
        *act = (activation){(act_kind)kind, ACTS[kind].alpha, ACTS[kind].beta};
        if (kind < ACT_AFFINE || kind > ACT_ELU)
            continue;
        if (alphas != NULL && alphas->kind == QN_ATTR_FLOATS && n_alphas < alphas->count)
            act->alpha = alphas->floats[n_alphas++];
        if ((kind == ACT_AFFINE || kind == ACT_SCALED_TANH || kind == ACT_HARD_SIGMOID) &&
            betas != NULL && betas->kind == QN_ATTR_FLOATS && n_betas < betas->count)
            act->beta = betas->floats[n_betas++];
    }
    return QN_OK;
}

static qn_status need(const qn_step *step, uint32_t index, size_t count, bool optional,
                      qn_error *error)
{
    const qn_tensor *const t = qn__step_input(step, index);
    const qn_dtype wanted = index == IN_LENGTHS ? QN_DTYPE_I32 : QN_DTYPE_F32;
    if (t == NULL && optional)
        return QN_OK;
    if (t == NULL || t->type.kind == QN_TYPE_QUANT || t->type.dtype != wanted)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "input %u is not %s", (unsigned)index,
                             qn__dtype_name(wanted));
    if (qn__tensor_elements(t) != count)
        return qn__step_fail(step, error, QN_CORRUPT, "input \"%s\" has %zu elements, not %zu",
                             t->name, qn__tensor_elements(t), count);
    return QN_OK;
}

static qn_status read_node(const qn_step *step, recurrent *r, qn_error *error)
{
    const qn_node *const node = step->node;
    const qn_tensor *const x = qn__step_input(step, IN_X), *const w = qn__step_input(step, IN_R);
    const char *const direction = qn__attr_string(node, "direction", "forward");
    const bool both = strcmp(direction, "bidirectional") == 0;
    *r = (recurrent){.op = node->op, .directions = both ? 2 : 1};
    r->backward = strcmp(direction, "reverse") == 0;
    if (!both && !r->backward && strcmp(direction, "forward") != 0)
        return qn__step_fail(step, error, QN_UNSUPPORTED, "direction \"%s\"", direction);
    if (x == NULL || w == NULL || x->rank != 3 || w->rank != 3)
        return qn__step_fail(step, error, QN_CORRUPT, "input or weights do not have rank 3");
    r->batch_first = qn__attr_int(node, "layout", 0) != 0;
    r->steps = (size_t)x->dims[r->batch_first ? 1 : 0].value;
    r->batch = (size_t)x->dims[r->batch_first ? 0 : 1].value;
    r->in = (size_t)x->dims[2].value;
    r->hidden = (size_t)w->dims[2].value;
    r->gates = r->op == QN_OP_LSTM ? 4 : r->op == QN_OP_GRU ? 3 : 1;
    r->reset_first = qn__attr_int(node, "linear_before_reset", 0) == 0;
    r->rounds_state = r->op == QN_OP_LSTM && qn__attr_int(node, "rounds_state", 0) != 0;
    r->coupled = qn__attr_int(node, "input_forget", 0) != 0;
    const float clip = qn__attr_float(node, "clip", 0.0f);
    r->clip = clip > 0.0f ? clip : INFINITY;
    if (r->hidden > 1u << 24 || r->in > 1u << 28 || r->batch > 1u << 28)
        return qn__step_fail(step, error, QN_LIMIT, "%zu hidden units", r->hidden);
    const size_t rows = r->directions * r->gates * r->hidden;
    const size_t state = r->directions * r->batch * r->hidden;
    QN_TRY(need(step, IN_X, qn__tensor_elements(x), false, error));
    QN_TRY(need(step, IN_W, rows * r->in, false, error));
    QN_TRY(need(step, IN_R, rows * r->hidden, false, error));
    QN_TRY(need(step, IN_B, 2 * rows, true, error));
    QN_TRY(need(step, IN_LENGTHS, r->batch, true, error));
    QN_TRY(need(step, IN_H, state, true, error));
    if (r->op == QN_OP_LSTM) {
        QN_TRY(need(step, IN_C, state, true, error));
        QN_TRY(need(step, IN_P, 3 * r->directions * r->hidden, true, error));
    }
    const size_t all = r->steps * state;
    for (uint32_t i = 0; i < node->n_outputs && i < 3; i++)
        if (node->outputs[i] != NULL &&
            qn__tensor_elements(node->outputs[i]) != (i == 0 ? all : state))
            return qn__step_fail(step, error, QN_CORRUPT, "output %u does not fit", (unsigned)i);
    return read_activations(step, r, error);
}

static qn_status prepare(const qn_plan *plan, qn_step *step, qn_error *error)
{
    recurrent r;
    QN_TRY(read_node(step, &r, error));
    for (uint32_t i = 0; i < step->node->n_inputs; i++)
        step->in_layout[i] = QN_LAYOUT_ROW_MAJOR;
    for (uint32_t i = 0; i < step->node->n_outputs; i++)
        step->out_layout[i] = QN_LAYOUT_ROW_MAJOR;
    /* Per direction and sequence: h, c, and the gates' sums. */
    step->scratch_bytes = r.directions * r.batch * (r.gates + 4) * r.hidden * sizeof(double);
    recurrent *const state = qn__alloc(qn__plan_context(plan), sizeof(*state));
    if (state == NULL)
        return QN_NOMEM(error);
    *state = r;
    step->state = state;
    return QN_OK;
}

typedef struct recurrent_job {
    const recurrent *r;
    const float *x, *w, *weights, *bias, *peepholes, *h, *c; /* weights: of the recurrence */
    const int32_t *lengths;
    float *y, *last_h, *last_c;
    double *scratch;
} recurrent_job;

static double clipped(const recurrent *r, double x)
{
    const double limit = (double)r->clip;
    return x > limit ? limit : x < -limit ? -limit : x;
}

/* sums[gate * hidden + i] of one step: input and recurrence. */
static double dot(const float *weights, const double *x, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)weights[i] * x[i];
    return sum;
}

static double dot_f32(const float *weights, const float *x, size_t n)
{
    float sum[4] = {0.0f};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t k = 0; k < 4; k++)
            sum[k] += weights[i + k] * x[i + k];
    for (; i < n; i++)
        sum[0] += weights[i] * x[i];
    return (double)(sum[0] + sum[1]) + (double)(sum[2] + sum[3]);
}

static void step_lstm(const recurrent *r, const activation *acts, const float *peepholes,
                      const double *sums, double *h, double *c)
{
    const size_t n = r->hidden;
    for (size_t i = 0; i < n; i++) { /* gates in the order i, o, f, c */
        const double p[3] = {peepholes != NULL ? (double)peepholes[i] : 0.0,
                             peepholes != NULL ? (double)peepholes[n + i] : 0.0,
                             peepholes != NULL ? (double)peepholes[2 * n + i] : 0.0};
        const double in = apply(&acts[0], clipped(r, sums[i] + p[0] * c[i]));
        const double forget =
            r->coupled ? 1.0 - in : apply(&acts[0], clipped(r, sums[2 * n + i] + p[2] * c[i]));
        c[i] = forget * c[i] + in * apply(&acts[1], clipped(r, sums[3 * n + i]));
        h[i] = apply(&acts[0], clipped(r, sums[n + i] + p[1] * c[i])) * apply(&acts[2], c[i]);
    }
}

/* Gates in the order z, r, h; fresh is room for the reset state. */
static void step_gru(const recurrent *r, const activation *acts, const float *weights,
                     const float *bias, const double *sums, double *h, double *fresh)
{
    const size_t n = r->hidden;
    double *const reset = fresh, *const next = fresh + n;
    for (size_t i = 0; i < n; i++)
        reset[i] = apply(&acts[0], clipped(r, sums[n + i])) * (r->reset_first ? h[i] : 1.0);
    for (size_t i = 0; i < n; i++) {
        const float *const row = weights + (2 * n + i) * n;
        const double b = bias != NULL ? (double)bias[5 * n + i] : 0.0;
        const double back =
            r->reset_first ? dot(row, reset, n) + b : reset[i] * (dot(row, h, n) + b);
        const double z = apply(&acts[0], clipped(r, sums[i]));
        next[i] = (1.0 - z) * apply(&acts[1], clipped(r, sums[2 * n + i] + back)) + z * h[i];
    }
    memcpy(h, next, n * sizeof(*h));
}

static void gate_sums(const recurrent *r, const recurrent_job *job, size_t d, const float *x,
                      const double *h, double *sums)
{
    const size_t n = r->hidden, rows = r->gates * n;
    const float *const w = job->w + d * rows * r->in;
    const float *const back = job->weights + d * rows * n;
    const float *const bias = job->bias != NULL ? job->bias + d * 2 * rows : NULL;
    for (size_t i = 0; i < rows; i++) {
        /* The GRU's last gate sees the state after its reset. */
        const bool own = r->op != QN_OP_GRU || i < 2 * n;
        sums[i] = dot_f32(w + i * r->in, x, r->in) + (own ? dot(back + i * n, h, n) : 0.0);
        if (bias != NULL)
            sums[i] += (double)bias[i] + (own ? (double)bias[rows + i] : 0.0);
    }
}

/* What DynamicQuantizeLinear of it stands for. */
static void round_state(const double *h, size_t n, double *out)
{
    float lo = 0.0f, hi = 0.0f;
    for (size_t i = 0; i < n; i++) {
        const float v = (float)h[i];
        lo = v < lo ? v : lo;
        hi = v > hi ? v : hi;
    }
    const qn_dynamic_params p = qn__dynamic_params(lo, hi);
    for (size_t i = 0; i < n; i++) {
        /* Below 0 there is nothing: both roundings are the same. */
        const float most = (float)(255 - p.zero), q = rintf((float)h[i] / p.scale);
        out[i] = (double)((q < most ? q : most) * p.scale);
    }
}

/* One sequence in one direction. */
static void run_sequence(const recurrent_job *job, size_t d, size_t b)
{
    const recurrent *const r = job->r;
    const size_t n = r->hidden, at = r->batch_first ? b * r->directions + d : d * r->batch + b;
    double *const h = job->scratch + (d * r->batch + b) * (r->gates + 4) * n;
    double *const c = h + n, *const fresh = h + 2 * n, *const sums = h + 4 * n;
    int64_t length = job->lengths != NULL ? job->lengths[b] : (int64_t)r->steps;
    length = length < 0 ? 0 : length > (int64_t)r->steps ? (int64_t)r->steps : length;
    const bool backward = d == 1 || r->backward;
    for (size_t i = 0; i < n; i++) {
        h[i] = job->h != NULL ? (double)job->h[at * n + i] : 0.0;
        c[i] = job->c != NULL ? (double)job->c[at * n + i] : 0.0;
    }
    for (size_t s = 0; s < r->steps; s++) {
        const size_t t = !backward ? s : s < (size_t)length ? (size_t)length - 1 - s : s;
        const size_t place = r->batch_first ? b * r->steps + t : t * r->batch + b;
        float *const y = job->y == NULL   ? NULL
                         : r->batch_first ? job->y + ((b * r->steps + t) * r->directions + d) * n
                                          : job->y + ((t * r->directions + d) * r->batch + b) * n;
        if (s >= (size_t)length) {
            for (size_t i = 0; y != NULL && i < n; i++)
                y[i] = 0.0f;
            continue;
        }
        if (r->rounds_state)
            round_state(h, n, fresh);
        gate_sums(r, job, d, job->x + place * r->in, r->rounds_state ? fresh : h, sums);
        if (r->op == QN_OP_LSTM)
            step_lstm(r, r->acts + 3 * d,
                      job->peepholes != NULL ? job->peepholes + d * 3 * n : NULL, sums, h, c);
        else if (r->op == QN_OP_GRU)
            step_gru(r, r->acts + 3 * d, job->weights + d * 3 * n * n,
                     job->bias != NULL ? job->bias + d * 6 * n : NULL, sums, h, fresh);
        else
            for (size_t i = 0; i < n; i++)
                h[i] = apply(&r->acts[3 * d], clipped(r, sums[i]));
        for (size_t i = 0; y != NULL && i < n; i++)
            y[i] = (float)h[i];
    }
    for (size_t i = 0; i < n; i++) {
        if (job->last_h != NULL)
            job->last_h[at * n + i] = (float)h[i];
        if (job->last_c != NULL)
            job->last_c[at * n + i] = (float)c[i];
    }
}

static void run_range(void *arg, size_t begin, size_t end)
{
    const recurrent_job *const job = arg;
    for (size_t i = begin; i < end; i++)
        run_sequence(job, i / job->r->batch, i % job->r->batch);
}

static const void *data_of(const qn_step *step, const qn_view *in, uint32_t index)
{
    return qn__step_input(step, index) != NULL ? in[index].data : NULL;
}

static qn_status run(const qn_step *step, const qn_run_env *env, const qn_view *in,
                     const qn_view *out, qn_error *error)
{
    (void)error;
    const recurrent *const r = step->state;
    const bool lstm = r->op == QN_OP_LSTM;
    float *outs[3] = {NULL};
    for (uint32_t i = 0; i < step->node->n_outputs && i < 3; i++)
        outs[i] = step->node->outputs[i] != NULL ? out[i].data : NULL;
    recurrent_job job = {.r = r,
                         .x = in[IN_X].data,
                         .w = in[IN_W].data,
                         .weights = in[IN_R].data,
                         .bias = data_of(step, in, IN_B),
                         .lengths = data_of(step, in, IN_LENGTHS),
                         .h = data_of(step, in, IN_H),
                         .c = lstm ? data_of(step, in, IN_C) : NULL,
                         .peepholes = lstm ? data_of(step, in, IN_P) : NULL,
                         .y = outs[0],
                         .last_h = outs[1],
                         .last_c = lstm ? outs[2] : NULL,
                         .scratch = env->scratch};
    qn__parallel_ranges(env->pool, run_range, &job, r->directions * r->batch,
                        4 * r->steps * r->gates * r->hidden * (r->in + r->hidden));
    return QN_OK;
}

static void release(const qn_context *ctx, qn_step *step)
{
    qn__free(ctx, step->state);
    step->state = NULL;
}

const qn_run_op qn__op_recurrent = {QN_OP_NONE, prepare, run, release};
