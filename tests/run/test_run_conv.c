/* Conv, pools, Gemm and MatMul through the executor against loops in double, for random shapes and
 * attributes, on every instruction set of this CPU, with one thread and with three. The seed is
 * printed; QN_TEST_SEED repeats a run. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "core/alloc.h"
#include "core/context.h"
#include "core/threads.h"
#include "run/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Random cases of each test; QN_TEST_ROUNDS makes a longer campaign. */
static int cases = 150;
/* Starting a team of threads costs far more than these small layers, most of all where threads are
 * more than cores: every such case alone is run with threads too. */
enum { THREADED_EVERY = 10 };

static uint64_t rng_state;
static uint64_t rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state;
}
static int64_t pick(int64_t lo, int64_t hi)
{
    return lo + (int64_t)(rng() % (uint64_t)(hi - lo + 1));
}
static float unit(void)
{
    return (float)((double)(rng() >> 40) / (1 << 23) - 1.0);
}
static float *random_floats(size_t count)
{
    float *const values = malloc((count + 1) * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = unit();
    return values;
}

static const char *const masks[] = {"scalar", "avx2", "", "neon"};

typedef struct fixture {
    qn_context *ctx;
    qn_graph *graph;
    qn_node *node;
    qn_pool *pools[2];
    size_t checks;
} fixture;

static size_t count_of(const int64_t *dims, size_t rank)
{
    size_t count = 1;
    for (size_t i = 0; i < rank; i++)
        count *= (size_t)dims[i];
    return count;
}

static qn_tensor *add_input(fixture *f, const char *name, size_t rank, const int64_t *dims)
{
    qn_tensor *const t = qn__graph_add_tensor(f->graph, name, qn_type_plain_make(QN_DTYPE_F32));
    assert_non_null(t);
    qn__tensor_set_shape(t, rank, dims);
    return t;
}

static qn_tensor *add_const(fixture *f, const char *name, size_t rank, const int64_t *dims,
                            const float *values)
{
    qn_blob *const blob = qn__blob_copy(f->ctx, values, count_of(dims, rank) * sizeof(float));
    qn_tensor *const t =
        qn__graph_add_constant(f->graph, name, qn_type_plain_make(QN_DTYPE_F32), rank, dims, blob);
    assert_non_null(t);
    qn__blob_unref(blob);
    return t;
}

static void begin(fixture *f)
{
    qn_error error;
    assert_int_equal(qn__graph_create(f->ctx, &f->graph, &error), QN_OK);
}

/* Runs the graph of one node with each instruction set and thread count; every result must be
 * within tolerance of `expected`, and threads must not change a bit. */
static void check(fixture *f, const float *const *inputs, size_t n_inputs,
                  qn_tensor **input_tensors, const double *expected, const double *magnitude,
                  size_t count, const char *what)
{
    f->graph->inputs = qn__arena_calloc(&f->graph->arena, n_inputs, sizeof(qn_tensor *));
    f->graph->outputs = qn__arena_calloc(&f->graph->arena, 1, sizeof(qn_tensor *));
    memcpy(f->graph->inputs, input_tensors, n_inputs * sizeof(qn_tensor *));
    f->graph->n_inputs = n_inputs;
    f->graph->outputs[0] = f->node->outputs[0];
    f->graph->n_outputs = 1;
    qn_error error = {0};
    const size_t n_pools = f->checks++ % THREADED_EVERY == 0 ? 2 : 1;
    for (size_t m = 0; m < sizeof masks / sizeof masks[0]; m++) {
        qn_plan_options options;
        qn__plan_options_init(&options, f->ctx);
        assert_true(qn__cpu_mask(&options.cpu_flags, masks[m]));
        qn_plan *plan = NULL;
        if (qn__plan_create(f->graph, &options, &plan, &error) != QN_OK)
            fail_msg("%s: %s", what, error.message);
        float *first = NULL;
        for (size_t p = 0; p < n_pools; p++) {
            qn_exec *exec = NULL;
            assert_int_equal(qn__exec_create(plan, f->pools[p], &exec, &error), QN_OK);
            assert_int_equal(qn__exec_run(exec, (const void *const *)inputs, &error), QN_OK);
            const qn_view *const y = qn__exec_output(exec, 0);
            assert_int_equal(y->count, count);
            const float *const values = y->data;
            for (size_t i = 0; i < count; i++) {
                /* Any order of n additions is off by at most about n ulp of the sum of
                 * magnitudes; the sizes here stay below 2000 terms. */
                if (!(fabs(values[i] - expected[i]) <= 1e-6 + 2e-6 * magnitude[i]))
                    fail_msg("%s mask \"%s\" threads %zu: [%zu] is %g, not %g", what, masks[m],
                             2 * p + 1, i, (double)values[i], expected[i]);
            }
            if (p == 0) {
                first = malloc(count * sizeof *first + 1);
                memcpy(first, values, count * sizeof *first);
            } else if (memcmp(first, values, count * sizeof *first) != 0) {
                fail_msg("%s mask \"%s\": threads change the result", what, masks[m]);
            }
            qn__exec_destroy(exec);
        }
        free(first);
        qn__plan_destroy(plan);
    }
    qn__graph_destroy(f->graph);
    f->graph = NULL;
}

typedef struct window_case {
    int64_t n, c, oc, groups, axes; /* axes 1: h is 1 everywhere */
    int64_t in[2], out[2], kernel[2], stride[2], dilation[2], pad0[2], pad1[2];
    bool ceil;
    char text[256];
} window_case;

/* false: a dimension comes out empty. */
static bool random_window(window_case *w, bool is_pool)
{
    w->axes = pick(0, 5) == 0 ? 1 : 2;
    w->ceil = is_pool && pick(0, 1) != 0;
    for (int i = 0; i < 2; i++) {
        const bool real = w->axes == 2 || i == 1;
        w->in[i] = real ? pick(1, 14) : 1;
        w->kernel[i] = real ? pick(1, 4) : 1;
        w->stride[i] = real ? pick(1, 3) : 1;
        w->dilation[i] = real && pick(0, 2) == 0 ? pick(1, 3) : 1;
        const int64_t extent = (w->kernel[i] - 1) * w->dilation[i] + 1;
        const int64_t limit = is_pool ? w->kernel[i] - 1 : 3;
        w->pad0[i] = real ? pick(0, limit) : 0;
        w->pad1[i] = real ? pick(0, limit) : 0;
        const int64_t room = w->in[i] + w->pad0[i] + w->pad1[i] - extent;
        if (room < 0 && (!w->ceil || room <= -w->stride[i]))
            return false;
        w->out[i] = room / w->stride[i] + 1;
        /* A window that starts in the pads at the end is dropped. */
        if (w->ceil && room > 0 && room % w->stride[i] != 0 &&
            w->out[i] * w->stride[i] < w->in[i] + w->pad0[i])
            w->out[i]++;
    }
    return true;
}

static void describe(window_case *w, const char *op)
{
    snprintf(w->text, sizeof w->text,
             "%s n %d c %d oc %d groups %d axes %d in %dx%d out %dx%d kernel %dx%d stride %dx%d "
             "dilation %dx%d pads %d,%d,%d,%d",
             op, (int)w->n, (int)w->c, (int)w->oc, (int)w->groups, (int)w->axes, (int)w->in[0],
             (int)w->in[1], (int)w->out[0], (int)w->out[1], (int)w->kernel[0], (int)w->kernel[1],
             (int)w->stride[0], (int)w->stride[1], (int)w->dilation[0], (int)w->dilation[1],
             (int)w->pad0[0], (int)w->pad0[1], (int)w->pad1[0], (int)w->pad1[1]);
}

static size_t dims_of(const window_case *w, int64_t channels, const int64_t *spatial, int64_t *dims)
{
    dims[0] = w->n;
    dims[1] = channels;
    if (w->axes == 1) {
        dims[2] = spatial[1];
        return 3;
    }
    dims[2] = spatial[0];
    dims[3] = spatial[1];
    return 4;
}

static void set_attrs(fixture *f, const window_case *w)
{
    const size_t axes = (size_t)w->axes, at = 2 - axes;
    int64_t pads[4];
    for (size_t i = 0; i < axes; i++) {
        pads[i] = w->pad0[at + i];
        pads[axes + i] = w->pad1[at + i];
    }
    assert_true(qn__node_set_ints(f->graph, f->node, "kernel_shape", w->kernel + at, axes));
    assert_true(qn__node_set_ints(f->graph, f->node, "strides", w->stride + at, axes));
    assert_true(qn__node_set_ints(f->graph, f->node, "dilations", w->dilation + at, axes));
    assert_true(qn__node_set_ints(f->graph, f->node, "pads", pads, 2 * axes));
}

static double clamp(double v, const qn_node *node)
{
    if (node->act == QN_ACT_NONE)
        return v;
    const double lo = node->act == QN_ACT_RELU ? 0.0 : (double)node->act_lo;
    const double hi = node->act == QN_ACT_RELU ? INFINITY : (double)node->act_hi;
    return v < lo ? lo : v > hi ? hi : v;
}

static void random_act(qn_node *node)
{
    const int64_t kind = pick(0, 3);
    if (kind == 1)
        node->act = QN_ACT_RELU;
    if (kind == 2) {
        node->act = QN_ACT_CLIP;
        node->act_lo = -0.5f;
        node->act_hi = 0.75f;
    }
}

static void naive_conv(const window_case *w, const float *x, const float *k, const float *bias,
                       const qn_node *node, double *y, double *magnitude)
{
    const int64_t gc = w->c / w->groups, goc = w->oc / w->groups;
    for (int64_t n = 0; n < w->n; n++)
        for (int64_t o = 0; o < w->oc; o++)
            for (int64_t oy = 0; oy < w->out[0]; oy++)
                for (int64_t ox = 0; ox < w->out[1]; ox++) {
                    double sum = bias == NULL ? 0.0 : (double)bias[o], size = fabs(sum);
                    for (int64_t i = 0; i < gc; i++)
                        for (int64_t ky = 0; ky < w->kernel[0]; ky++)
                            for (int64_t kx = 0; kx < w->kernel[1]; kx++) {
                                const int64_t iy =
                                    oy * w->stride[0] - w->pad0[0] + ky * w->dilation[0];
                                const int64_t ix =
                                    ox * w->stride[1] - w->pad0[1] + kx * w->dilation[1];
                                if (iy < 0 || ix < 0 || iy >= w->in[0] || ix >= w->in[1])
                                    continue;
                                const int64_t c = o / goc * gc + i;
                                const double product =
                                    (double)x[((n * w->c + c) * w->in[0] + iy) * w->in[1] + ix] *
                                    (double)
                                        k[((o * gc + i) * w->kernel[0] + ky) * w->kernel[1] + kx];
                                sum += product;
                                size += fabs(product);
                            }
                    *y++ = clamp(sum, node);
                    *magnitude++ = size;
                }
}

static void run_conv(fixture *f, window_case *w)
{
    describe(w, "Conv");
    int64_t in[4], out[4], weights[4] = {w->oc, w->c / w->groups};
    const size_t rank = dims_of(w, w->c, w->in, in);
    dims_of(w, w->oc, w->out, out);
    for (int64_t i = 0; i < w->axes; i++)
        weights[2 + i] = w->kernel[2 - w->axes + i];
    const size_t count = count_of(out, rank);
    float *const x = random_floats(count_of(in, rank));
    float *const k = random_floats(count_of(weights, rank));
    float *const bias = pick(0, 3) == 0 ? NULL : random_floats((size_t)w->oc);
    double *const expected = malloc((2 * count + 1) * sizeof *expected);
    begin(f);
    qn_tensor *input = add_input(f, "x", rank, in);
    f->node = qn__graph_add_node(f->graph, SIZE_MAX, QN_OP_CONV, "conv", bias == NULL ? 2 : 3, 1);
    f->node->inputs[0] = input;
    f->node->inputs[1] = add_const(f, "w", rank, weights, k);
    if (bias != NULL)
        f->node->inputs[2] = add_const(f, "b", 1, &w->oc, bias);
    qn__node_set_output(f->node, 0, add_input(f, "y", rank, out));
    set_attrs(f, w);
    assert_true(qn__node_set_int(f->graph, f->node, "group", w->groups));
    random_act(f->node);
    naive_conv(w, x, k, bias, f->node, expected, expected + count);
    check(f, (const float *const[]){x}, 1, &input, expected, expected + count, count, w->text);
    free(x), free(k), free(bias), free(expected);
}

static void conv_equals_loops_in_double(void **state)
{
    for (int i = 0; i < cases; i++) {
        window_case w = {.n = pick(1, 2)};
        if (!random_window(&w, false))
            continue;
        const int64_t kind = pick(0, 4);
        w.groups = kind == 0 ? pick(1, 3) : 1;
        w.c = kind == 1 ? pick(1, 4) : pick(1, 12) * w.groups;
        w.oc = pick(1, 40) * w.groups;
        if (kind == 2) { /* depthwise */
            w.c = w.oc = w.groups = pick(2, 37);
        } else if (kind == 3) { /* depthwise, two filters per channel */
            w.groups = w.c = pick(2, 9);
            w.oc = 2 * w.c;
        }
        run_conv(*state, &w);
    }
}

static void naive_transpose(const window_case *w, const float *x, const float *k, const float *bias,
                            const qn_node *node, double *y, double *magnitude)
{
    const int64_t gc = w->c / w->groups, goc = w->oc / w->groups;
    const int64_t plane = w->out[0] * w->out[1];
    for (int64_t i = 0; i < w->n * w->oc * plane; i++) {
        y[i] = bias == NULL ? 0.0 : (double)bias[i / plane % w->oc];
        magnitude[i] = fabs(y[i]);
    }
    for (int64_t n = 0; n < w->n; n++)
        for (int64_t c = 0; c < w->c; c++)
            for (int64_t iy = 0; iy < w->in[0]; iy++)
                for (int64_t ix = 0; ix < w->in[1]; ix++)
                    for (int64_t o = 0; o < goc; o++)
                        for (int64_t ky = 0; ky < w->kernel[0]; ky++)
                            for (int64_t kx = 0; kx < w->kernel[1]; kx++) {
                                const int64_t oy =
                                    iy * w->stride[0] - w->pad0[0] + ky * w->dilation[0];
                                const int64_t ox =
                                    ix * w->stride[1] - w->pad0[1] + kx * w->dilation[1];
                                if (oy < 0 || ox < 0 || oy >= w->out[0] || ox >= w->out[1])
                                    continue;
                                const double product =
                                    (double)x[((n * w->c + c) * w->in[0] + iy) * w->in[1] + ix] *
                                    (double)
                                        k[((c * goc + o) * w->kernel[0] + ky) * w->kernel[1] + kx];
                                const int64_t at =
                                    (n * w->oc + c / gc * goc + o) * plane + oy * w->out[1] + ox;
                                y[at] += product;
                                magnitude[at] += fabs(product);
                            }
    for (int64_t i = 0; i < w->n * w->oc * plane; i++)
        y[i] = clamp(y[i], node);
}

static void conv_transpose_equals_loops_in_double(void **state)
{
    fixture *const f = *state;
    for (int i = 0; i < cases; i++) {
        window_case w = {.n = pick(1, 2), .groups = pick(1, 3)};
        w.c = pick(1, 9) * w.groups;
        w.oc = pick(1, 20) * w.groups;
        if (!random_window(&w, false))
            continue;
        int64_t extra[2] = {0, 0};
        for (int a = 0; a < 2; a++) {
            const bool real = w.axes == 2 || a == 1;
            const int64_t slack = w.stride[a] > w.dilation[a] ? w.stride[a] : w.dilation[a];
            extra[a] = real ? pick(0, slack - 1) : 0;
            w.out[a] = (w.in[a] - 1) * w.stride[a] + extra[a] + (w.kernel[a] - 1) * w.dilation[a] +
                       1 - w.pad0[a] - w.pad1[a];
        }
        if (w.out[0] < 1 || w.out[1] < 1)
            continue;
        describe(&w, "ConvTranspose");
        int64_t in[4], out[4], weights[4] = {w.c, w.oc / w.groups};
        const size_t rank = dims_of(&w, w.c, w.in, in);
        dims_of(&w, w.oc, w.out, out);
        for (int64_t a = 0; a < w.axes; a++)
            weights[2 + a] = w.kernel[2 - w.axes + a];
        const size_t count = count_of(out, rank);
        float *const x = random_floats(count_of(in, rank));
        float *const k = random_floats(count_of(weights, rank));
        float *const bias = pick(0, 3) == 0 ? NULL : random_floats((size_t)w.oc);
        double *const expected = malloc((2 * count + 1) * sizeof *expected);
        begin(f);
        qn_tensor *input = add_input(f, "x", rank, in);
        f->node = qn__graph_add_node(f->graph, SIZE_MAX, QN_OP_CONV_TRANSPOSE, "up",
                                     bias == NULL ? 2 : 3, 1);
        f->node->inputs[0] = input;
        f->node->inputs[1] = add_const(f, "w", rank, weights, k);
        if (bias != NULL)
            f->node->inputs[2] = add_const(f, "b", 1, &w.oc, bias);
        qn__node_set_output(f->node, 0, add_input(f, "y", rank, out));
        set_attrs(f, &w);
        assert_true(qn__node_set_ints(f->graph, f->node, "output_padding", extra + 2 - w.axes,
                                      (size_t)w.axes));
        assert_true(qn__node_set_int(f->graph, f->node, "group", w.groups));
        random_act(f->node);
        naive_transpose(&w, x, k, bias, f->node, expected, expected + count);
        check(f, (const float *const[]){x}, 1, &input, expected, expected + count, count, w.text);
        free(x), free(k), free(bias), free(expected);
    }
}

static void conv_of_real_sizes_equals_loops(void **state)
{
    /* n, c, oc, groups, axes, in, out, kernel, stride, dilation, pads */
    window_case window_cases[] = {
        {1, 3, 64, 1, 2, {30, 30}, {15, 15}, {7, 7}, {2, 2}, {1, 1}, {3, 3}, {3, 3}, false, ""},
        {1, 16, 24, 1, 2, {9, 9}, {5, 5}, {11, 11}, {2, 2}, {1, 1}, {5, 5}, {5, 5}, false, ""},
        {1, 1, 2, 1, 2, {16, 20}, {3, 6}, {16, 16}, {2, 2}, {1, 1}, {2, 3}, {3, 3}, false, ""},
        {1, 24, 24, 24, 2, {28, 28}, {28, 28}, {5, 5}, {1, 1}, {1, 1}, {2, 2}, {2, 2}, false, ""},
        {1, 144, 144, 144, 2, {14, 14}, {7, 7}, {3, 3}, {2, 2}, {1, 1}, {0, 0}, {1, 1}, false, ""},
        {1, 128, 160, 1, 2, {7, 7}, {7, 7}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, false, ""},
        {1, 5, 7, 1, 2, {20, 20}, {2, 2}, {17, 17}, {3, 3}, {1, 1}, {0, 0}, {0, 0}, false, ""},
    };
    for (size_t i = 0; i < sizeof window_cases / sizeof window_cases[0]; i++)
        run_conv(*state, &window_cases[i]);
}

static void naive_pool(const window_case *w, bool is_max, bool count_pads, const float *x,
                       double *y)
{
    for (int64_t plane = 0; plane < w->n * w->c; plane++)
        for (int64_t oy = 0; oy < w->out[0]; oy++)
            for (int64_t ox = 0; ox < w->out[1]; ox++) {
                double best = -INFINITY, sum = 0.0;
                int64_t inside = 0, padded = 0;
                for (int64_t ky = 0; ky < w->kernel[0]; ky++)
                    for (int64_t kx = 0; kx < w->kernel[1]; kx++) {
                        const int64_t iy = oy * w->stride[0] - w->pad0[0] + ky * w->dilation[0];
                        const int64_t ix = ox * w->stride[1] - w->pad0[1] + kx * w->dilation[1];
                        padded += iy < w->in[0] + w->pad1[0] && ix < w->in[1] + w->pad1[1];
                        if (iy < 0 || ix < 0 || iy >= w->in[0] || ix >= w->in[1])
                            continue;
                        const double v = (double)x[(plane * w->in[0] + iy) * w->in[1] + ix];
                        inside++;
                        sum += v;
                        best = v > best ? v : best;
                    }
                if (inside == 0) /* dilated taps may all miss */
                    *y++ = is_max ? -3.4028234663852886e38 : 0.0;
                else
                    *y++ = is_max ? best : sum / (double)(count_pads ? padded : inside);
            }
}

static void pools_equal_loops_in_double(void **state)
{
    fixture *const f = *state;
    for (int i = 0; i < cases; i++) {
        window_case w = {.n = pick(1, 2), .c = pick(1, 70), .groups = 1};
        w.oc = w.c;
        if (!random_window(&w, true))
            continue;
        const bool is_max = pick(0, 1) != 0, count_pads = !is_max && pick(0, 1) != 0;
        describe(&w, is_max ? "MaxPool" : count_pads ? "AveragePool with pads" : "AveragePool");
        int64_t in[4], out[4];
        const size_t rank = dims_of(&w, w.c, w.in, in);
        dims_of(&w, w.c, w.out, out);
        const size_t count = count_of(out, rank);
        float *const x = random_floats(count_of(in, rank));
        double *const expected = calloc(2 * count + 1, sizeof *expected);
        begin(f);
        qn_tensor *input = add_input(f, "x", rank, in);
        f->node = qn__graph_add_node(f->graph, SIZE_MAX,
                                     is_max ? QN_OP_MAX_POOL : QN_OP_AVERAGE_POOL, "pool", 1, 1);
        f->node->inputs[0] = input;
        qn__node_set_output(f->node, 0, add_input(f, "y", rank, out));
        set_attrs(f, &w);
        assert_true(qn__node_set_int(f->graph, f->node, "ceil_mode", w.ceil));
        assert_true(qn__node_set_int(f->graph, f->node, "count_include_pad", count_pads));
        naive_pool(&w, is_max, count_pads, x, expected);
        check(f, (const float *const[]){x}, 1, &input, expected, expected + count, count, w.text);
        free(x), free(expected);
    }
}

static void global_pools_equal_loops_in_double(void **state)
{
    fixture *const f = *state;
    for (int i = 0; i < 40; i++) {
        const size_t rank = (size_t)pick(3, 5);
        const int64_t in[5] = {pick(1, 2), pick(1, 600), pick(1, 7), pick(1, 7), pick(1, 3)};
        const int64_t out[5] = {in[0], in[1], 1, 1, 1};
        const bool is_max = pick(0, 1) != 0;
        const size_t planes = (size_t)(in[0] * in[1]), size = count_of(in, rank) / planes;
        float *const x = random_floats(planes * size);
        double *const expected = calloc(2 * planes, sizeof *expected);
        for (size_t p = 0; p < planes; p++) {
            double best = -INFINITY, sum = 0.0;
            for (size_t j = 0; j < size; j++) {
                best = fmax(best, (double)x[p * size + j]);
                sum += (double)x[p * size + j];
            }
            expected[p] = is_max ? best : sum / (double)size;
        }
        begin(f);
        qn_tensor *input = add_input(f, "x", rank, in);
        f->node = qn__graph_add_node(f->graph, SIZE_MAX,
                                     is_max ? QN_OP_GLOBAL_MAX_POOL : QN_OP_GLOBAL_AVERAGE_POOL,
                                     "g", 1, 1);
        f->node->inputs[0] = input;
        qn__node_set_output(f->node, 0, add_input(f, "y", rank, out));
        check(f, (const float *const[]){x}, 1, &input, expected, expected + planes, planes,
              is_max ? "GlobalMaxPool" : "GlobalAveragePool");
        free(x), free(expected);
    }
}

static void gemm_equals_loops_in_double(void **state)
{
    fixture *const f = *state;
    for (int i = 0; i < cases; i++) {
        const bool ta = pick(0, 1) != 0, tb = pick(0, 1) != 0, const_b = pick(0, 2) != 0;
        /* A panel of weights may be more than what threads hold in the cache. */
        const int64_t most = i % 64 == 1 ? 60000 : 50;
        f->checks = i % 64 == 1 ? 0 : f->checks;
        const int64_t m = pick(1, 30), n = pick(1, 100), k = pick(most / 2, most);
        const int64_t ad[2] = {ta ? k : m, ta ? m : k}, bd[2] = {tb ? n : k, tb ? k : n};
        const int64_t yd[2] = {m, n};
        const int64_t c_kind = pick(0, 4); /* none, [n], [1], [m, n], [m, 1] */
        const int64_t cd[2] = {c_kind >= 3 ? m : 1, c_kind == 2 || c_kind == 4 ? 1 : n};
        const bool const_c = pick(0, 1) != 0;
        const float alpha = pick(0, 1) != 0 ? 1.0f : 0.5f, beta = pick(0, 1) != 0 ? 1.0f : -2.0f;
        float *const a = random_floats((size_t)(m * k)), *const b = random_floats((size_t)(n * k));
        float *const c = random_floats((size_t)(cd[0] * cd[1]));
        char text[128];
        snprintf(text, sizeof text, "Gemm %d x %d x %d ta %d tb %d const %d c %d const %d", (int)m,
                 (int)n, (int)k, ta, tb, const_b, (int)c_kind, const_c);
        begin(f);
        qn_tensor *inputs[3];
        const float *values[3];
        size_t n_inputs = 0;
        f->node =
            qn__graph_add_node(f->graph, SIZE_MAX, QN_OP_GEMM, "gemm", c_kind == 0 ? 2 : 3, 1);
        f->node->inputs[0] = inputs[n_inputs] = add_input(f, "a", 2, ad);
        values[n_inputs++] = a;
        if (const_b) {
            f->node->inputs[1] = add_const(f, "b", 2, bd, b);
        } else {
            f->node->inputs[1] = inputs[n_inputs] = add_input(f, "b", 2, bd);
            values[n_inputs++] = b;
        }
        const size_t c_rank = cd[0] == 1 ? 1 : 2;
        if (c_kind != 0 && const_c) {
            f->node->inputs[2] = add_const(f, "c", c_rank, cd + 2 - c_rank, c);
        } else if (c_kind != 0) {
            f->node->inputs[2] = inputs[n_inputs] = add_input(f, "c", c_rank, cd + 2 - c_rank);
            values[n_inputs++] = c;
        }
        qn__node_set_output(f->node, 0, add_input(f, "y", 2, yd));
        assert_true(qn__node_set_int(f->graph, f->node, "transA", ta));
        assert_true(qn__node_set_int(f->graph, f->node, "transB", tb));
        assert_true(qn__node_set_float(f->graph, f->node, "alpha", alpha));
        assert_true(qn__node_set_float(f->graph, f->node, "beta", beta));
        random_act(f->node);
        const size_t count = (size_t)(m * n);
        double *const expected = calloc(2 * count, sizeof *expected);
        for (int64_t y = 0; y < m; y++)
            for (int64_t x = 0; x < n; x++) {
                double sum = 0.0, size = 0.0;
                for (int64_t j = 0; j < k; j++) {
                    const double p = (double)alpha * (double)a[ta ? j * m + y : y * k + j] *
                                     (double)b[tb ? x * k + j : j * n + x];
                    sum += p;
                    size += fabs(p);
                }
                if (c_kind != 0) {
                    const double v = (double)beta *
                                     (double)c[(cd[0] == 1 ? 0 : y * cd[1]) + (cd[1] == 1 ? 0 : x)];
                    sum += v;
                    size += fabs(v);
                }
                expected[y * n + x] = clamp(sum, f->node);
                expected[count + (size_t)(y * n + x)] = size;
            }
        check(f, values, n_inputs, inputs, expected, expected + count, count, text);
        free(a), free(b), free(c), free(expected);
    }
}

static void matmul_equals_loops_in_double(void **state)
{
    fixture *const f = *state;
    for (int i = 0; i < cases; i++) {
        const int64_t m = pick(1, 12), n = pick(1, 40), k = pick(1, 20);
        const size_t ar = (size_t)pick(1, 4), br = (size_t)pick(1, 4);
        const size_t batch_rank = (ar > br ? ar : br) > 2 ? (ar > br ? ar : br) - 2 : 0;
        int64_t ad[4], bd[4], yd[6], ab[2] = {1, 1}, bb[2] = {1, 1}, yb[2] = {1, 1};
        for (size_t d = 0; d < 2; d++) { /* right-aligned batch dims */
            const int64_t size = pick(1, 3);
            ab[d] = d + ar >= 4 && ar > 2 && pick(0, 1) != 0 ? size : 1;
            bb[d] = d + br >= 4 && br > 2 && pick(0, 1) != 0 ? size : 1;
            yb[d] = ab[d] > bb[d] ? ab[d] : bb[d];
        }
        for (size_t d = 0; d + 2 < ar; d++)
            ad[d] = ab[4 - ar + d];
        for (size_t d = 0; d + 2 < br; d++)
            bd[d] = bb[4 - br + d];
        if (ar > 1)
            ad[ar - 2] = m;
        ad[ar - 1] = k;
        if (br > 1)
            bd[br - 1] = n;
        bd[br == 1 ? 0 : br - 2] = k;
        const int64_t rows = ar == 1 ? 1 : m, columns = br == 1 ? 1 : n;
        size_t yr = 0;
        for (size_t d = 0; d < batch_rank; d++)
            yd[yr++] = yb[2 - batch_rank + d];
        if (ar > 1)
            yd[yr++] = m;
        if (br > 1)
            yd[yr++] = n;
        const size_t count = count_of(yd, yr);
        float *const a = random_floats(count_of(ad, ar)), *const b =
                                                              random_floats(count_of(bd, br));
        double *const expected = calloc(2 * count, sizeof *expected);
        size_t at = 0;
        for (int64_t p = 0; p < yb[0]; p++)
            for (int64_t q = 0; q < yb[1]; q++) {
                const float *const am =
                    a + ((ab[0] == 1 ? 0 : p) * ab[1] + (ab[1] == 1 ? 0 : q)) * rows * k;
                const float *const bm =
                    b + ((bb[0] == 1 ? 0 : p) * bb[1] + (bb[1] == 1 ? 0 : q)) * k * columns;
                for (int64_t y = 0; y < rows; y++)
                    for (int64_t x = 0; x < columns; x++, at++)
                        for (int64_t j = 0; j < k; j++) {
                            const double v = (double)am[y * k + j] * (double)bm[j * columns + x];
                            expected[at] += v;
                            expected[count + at] += fabs(v);
                        }
            }
        assert_int_equal(at, count);
        char text[128];
        snprintf(text, sizeof text, "MatMul rank %zu x %zu, %d x %d x %d", ar, br, (int)m, (int)n,
                 (int)k);
        begin(f);
        qn_tensor *inputs[2];
        const float *values[2];
        size_t n_inputs = 0;
        f->node = qn__graph_add_node(f->graph, SIZE_MAX, QN_OP_MATMUL, "matmul", 2, 1);
        const int64_t constant = pick(0, 2); /* neither, b, a */
        if (constant == 2) {
            f->node->inputs[0] = add_const(f, "a", ar, ad, a);
        } else {
            f->node->inputs[0] = inputs[n_inputs] = add_input(f, "a", ar, ad);
            values[n_inputs++] = a;
        }
        if (constant == 1) {
            f->node->inputs[1] = add_const(f, "b", br, bd, b);
        } else {
            f->node->inputs[1] = inputs[n_inputs] = add_input(f, "b", br, bd);
            values[n_inputs++] = b;
        }
        qn__node_set_output(f->node, 0, add_input(f, "y", yr, yd));
        check(f, values, n_inputs, inputs, expected, expected + count, count, text);
        free(a), free(b), free(expected);
    }
}

/* Whatever a file says about a window, planning refuses what does not fit its tensors. */
static void contradicting_windows_are_refused(void **state)
{
    fixture *const f = *state;
    static const struct {
        const char *attr;
        int64_t values[4];
        size_t count;
    } bad[] = {
        {"strides", {0, 1}, 2},    {"strides", {1}, 1},
        {"strides", {2, 1}, 2},    {"dilations", {-1, 1}, 2},
        {"pads", {1, 1, 1}, 3},    {"pads", {-1, 0, 0, 0}, 4},
        {"pads", {9, 9, 9, 9}, 4}, {"strides", {INT64_MAX, 1}, 2},
        {"dilations", {1, 5}, 2},  {"pads", {INT64_MAX, 0, 1, 0}, 4},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        begin(f);
        const int64_t in[4] = {1, 3, 8, 8}, weights[4] = {5, 3, 3, 3}, out[4] = {1, 5, 6, 6};
        float *const k = random_floats(135);
        f->node = qn__graph_add_node(f->graph, SIZE_MAX, QN_OP_CONV, "conv", 2, 1);
        qn_tensor *input = add_input(f, "x", 4, in);
        f->node->inputs[0] = input;
        f->node->inputs[1] = add_const(f, "w", 4, weights, k);
        qn__node_set_output(f->node, 0, add_input(f, "y", 4, out));
        assert_true(qn__node_set_ints(f->graph, f->node, bad[i].attr, bad[i].values, bad[i].count));
        f->graph->inputs = qn__arena_calloc(&f->graph->arena, 1, sizeof(qn_tensor *));
        f->graph->inputs[0] = input;
        f->graph->n_inputs = 1;
        f->graph->outputs = &f->node->outputs[0];
        f->graph->n_outputs = 1;
        qn_plan_options options;
        qn__plan_options_init(&options, f->ctx);
        qn_plan *plan = NULL;
        qn_error error = {0};
        const qn_status status = qn__plan_create(f->graph, &options, &plan, &error);
        if (status == QN_OK) {
            /* Shape inference corrected the output's shape: then it must run. */
            qn_exec *exec = NULL;
            float *const x = random_floats(192);
            assert_int_equal(qn__exec_create(plan, NULL, &exec, &error), QN_OK);
            assert_int_equal(qn__exec_run(exec, (const void *const[]){x}, &error), QN_OK);
            qn__exec_destroy(exec);
            free(x);
        }
        qn__plan_destroy(plan);
        qn__graph_destroy(f->graph);
        free(k);
    }
}

static int setup(void **state)
{
    static fixture f;
    qn_error error;
    const char *const seed = getenv("QN_TEST_SEED");
    rng_state = seed != NULL ? strtoull(seed, NULL, 0) : 0x9e3779b97f4a7c15u;
    const char *const rounds = getenv("QN_TEST_ROUNDS");
    if (rounds != NULL)
        cases = atoi(rounds);
    printf("QN_TEST_SEED=0x%llx QN_TEST_ROUNDS=%d\n", (unsigned long long)rng_state, cases);
    if (qn_context_create(NULL, &f.ctx, &error) != QN_OK ||
        qn__pool_create(f.ctx, 3, &f.pools[1], &error) != QN_OK)
        return 1;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *const f = *state;
    qn__pool_destroy(f->ctx, f->pools[1]);
    qn_context_destroy(f->ctx);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conv_equals_loops_in_double),
        cmocka_unit_test(conv_of_real_sizes_equals_loops),
        cmocka_unit_test(conv_transpose_equals_loops_in_double),
        cmocka_unit_test(pools_equal_loops_in_double),
        cmocka_unit_test(global_pools_equal_loops_in_double),
        cmocka_unit_test(gemm_equals_loops_in_double),
        cmocka_unit_test(matmul_equals_loops_in_double),
        cmocka_unit_test(contradicting_windows_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
