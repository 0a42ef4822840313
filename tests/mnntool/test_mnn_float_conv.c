/* Convolutions in the order of MNN's kernels: the choice of tiles, transforms against what they
 * stand for, sums that show their order, and the operator against plain sums. That the values are
 * MNN's to the last bit is for tests/interop/test_mnn_float_conv.py to see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ir/graph_build.h"
#include "mnntool/float_conv.h"
#include "mnntool/winograd.h"
#include "quant/model.h"
#include "run/plan_fault.h"

/* --- choice ------------------------------------------------------------------------------------*/
static void test_units(void **state)
{
    (void)state;
    /* height, width of the output; inputs, outputs, kernel; unit */
    static const struct {
        size_t oh, ow, c, oc, k;
        int32_t unit;
    } cases[] = {
        {32, 32, 16, 16, 3, 4}, {32, 32, 3, 16, 3, 4},  {8, 8, 64, 64, 3, 4},
        {30, 40, 8, 16, 3, 6},  {4, 5, 256, 12, 3, 4},  {7, 7, 512, 512, 3, 4},
        {1, 1, 8, 8, 3, 0},     {2, 2, 64, 64, 3, 2},   {3, 3, 64, 64, 3, 2},
        {32, 32, 1, 1, 3, 0},   {31, 33, 12, 20, 2, 3}, {28, 32, 12, 20, 4, 5},
        {5, 6, 12, 20, 4, 3},   {31, 33, 12, 20, 5, 4}, {19, 20, 12, 20, 6, 3},
        {20, 21, 12, 20, 7, 2}, {20, 21, 12, 20, 8, 0}, {20, 21, 12, 20, 1, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const qn_window w = {.oh = cases[i].oh,
                             .ow = cases[i].ow,
                             .kh = cases[i].k,
                             .kw = cases[i].k,
                             .sh = 1,
                             .sw = 1,
                             .dh = 1,
                             .dw = 1};
        if (qn__mnn_winograd_unit(&w, cases[i].c, cases[i].oc) != cases[i].unit)
            fail_msg("case %zu", i);
    }
    const qn_window good = {
        .oh = 32, .ow = 32, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .dh = 1, .dw = 1};
    qn_window w = good;
    w.kw = 5;
    assert_int_equal(qn__mnn_winograd_unit(&w, 16, 16), 0);
    w = good;
    w.sw = 2;
    assert_int_equal(qn__mnn_winograd_unit(&w, 16, 16), 0);
    w = good;
    w.dh = 2;
    assert_int_equal(qn__mnn_winograd_unit(&w, 16, 16), 0);
}

/* --- transforms --------------------------------------------------------------------------------*/
static void test_weight_matrix(void **state)
{
    (void)state;
    static const float wanted[12] = {1, 0, 0, 0.5f, 0.5f, 0.5f, 0.5f, -0.5f, 0.5f, 0, 0, 1};
    float g[12];
    qn__winograd_weight_matrix(4, 3, g);
    for (size_t i = 0; i < 12; i++)
        assert_true(fabsf(g[i]) == fabsf(wanted[i]));
    /* Both sides: the transform of a kernel that is an outer product is one. */
    static const float w[9] = {1, 2, 3, 2, 4, 6, -1, -2, -3};
    float out[16], row[4], column[4];
    qn__winograd_weights(4, 3, g, w, out);
    for (size_t j = 0; j < 4; j++) {
        row[j] = g[j * 3] * 1 + g[j * 3 + 1] * 2 + g[j * 3 + 2] * 3;
        column[j] = g[j * 3] * 1 + g[j * 3 + 1] * 2 + g[j * 3 + 2] * -1;
    }
    for (size_t y = 0; y < 4; y++)
        for (size_t x = 0; x < 4; x++)
            assert_true(fabsf(out[y * 4 + x] - column[y] * row[x]) < 1e-6f);
}

enum { LANES = 11 };

/* A line of inputs transformed, times transformed weights, transformed back: the correlation. */
static void check_line(int32_t alpha, int32_t unit, bool second, bool last)
{
    const int32_t kernel = alpha - unit + 1;
    float g[64], in[8 * LANES], middle[8 * LANES], out[8 * LANES], w[8], tw[8] = {0};
    qn__winograd_weight_matrix(alpha, kernel, g);
    for (int32_t i = 0; i < kernel; i++)
        w[i] = net_random_float();
    for (int32_t j = 0; j < alpha; j++)
        for (int32_t i = 0; i < kernel; i++)
            tw[j] += g[j * kernel + i] * w[i];
    for (int32_t i = 0; i < alpha * LANES; i++)
        in[i] = net_random_float();
    qn__winograd_input_line(alpha, second, &(qn_winograd_line){in, LANES, middle, LANES, LANES});
    for (int32_t j = 0; j < alpha; j++)
        for (int32_t c = 0; c < LANES; c++)
            middle[j * LANES + c] *= tw[j];
    qn__winograd_output_line(alpha, unit, last,
                             &(qn_winograd_line){middle, LANES, out, LANES, LANES});
    for (int32_t i = 0; i < unit; i++)
        for (int32_t c = 0; c < LANES; c++) {
            double sum = 0, size = 0;
            for (int32_t k = 0; k < kernel; k++) {
                sum += (double)in[(i + k) * LANES + c] * w[k];
                size += fabs((double)in[(i + k) * LANES + c] * w[k]);
            }
            if (!(fabs(sum - out[i * LANES + c]) < 1e-3 * (size + 1)))
                fail_msg("F(%d, %d), output %d: %g, not %g", unit, kernel, i, out[i * LANES + c],
                         sum);
        }
}

static void test_lines(void **state)
{
    (void)state;
    for (int32_t alpha = 4; alpha <= 8; alpha += 2)
        for (int32_t unit = 2; unit < alpha; unit++)
            for (int form = 0; form < 4; form++)
                check_line(alpha, unit, form % 2 != 0, form / 2 != 0);
}

/* The two orders of inputs' transforms round differently. */
static void test_orders_differ(void **state)
{
    (void)state;
    float in[6 * LANES], a[6 * LANES], b[6 * LANES];
    for (size_t i = 0; i < 6 * LANES; i++)
        in[i] = net_random_float() / 3.0f;
    qn__winograd_input_line(6, false, &(qn_winograd_line){in, LANES, a, LANES, LANES});
    qn__winograd_input_line(6, true, &(qn_winograd_line){in, LANES, b, LANES, LANES});
    assert_memory_not_equal(a, b, sizeof(a));
}

/* --- sums --------------------------------------------------------------------------------------*/
static void test_chains(void **state)
{
    (void)state;
    /* Chains of 1e8 - 1e8 lose nothing; one chain would lose the ones in between. */
    static const float a[9] = {1e8f, 1, 1e8f, 1, -1e8f, 1, -1e8f, 1, 0.5f};
    static const float ones[18] = {1, 9, 1, 9, 1, 9, 1, 9, 1, 9, 1, 9, 1, 9, 1, 9, 1, 9};
    assert_true(qn__mnn_sum_in_chains(a, ones, 2, 9) == 4.5f);
    assert_true(qn__mnn_sum_in_chains(a, ones, 2, 0) == 0);
    assert_true(qn__mnn_sum_in_chains(a, ones, 2, 3) == fmaf(a[2], 1, fmaf(a[1], 1, a[0])));
    for (size_t n = 1; n <= QN_MNN_GROUP; n++)
        assert_int_equal(qn__mnn_leaves_one(n), n == 1 || n == 6 || n == 11 || n == 17 || n == 21);
}

static qn_f32_igemm kernel_of(void)
{
    qn_context *ctx = NULL;
    qn_error error;
    qn_kernels kernels;
    assert_int_equal(qn_context_create(NULL, &ctx, &error), QN_OK);
    qn__kernels_init(&kernels, ctx->cpu_flags);
    qn_context_destroy(ctx);
    return kernels.f32_igemm;
}

/* Every output within rounding of a sum in double; bias NULL: neither bias nor clamp. */
static void check_product(size_t e, size_t l, size_t h, const float *bias, bool cut)
{
    const qn_f32_igemm kernel = kernel_of();
    const size_t lda = l + 3, ldb = l + 1, ldc = h + 2;
    float *const a = calloc(e * lda, sizeof(float)), *const b = calloc(h * ldb, sizeof(float));
    float *const c = calloc(e * ldc, sizeof(float));
    size_t floats;
    assert_int_equal(qn__mnn_product_is_cut(e, l, h), cut);
    assert_true(qn__mnn_product_floats(&kernel, e, l, h, &floats));
    float *const scratch = malloc(floats * sizeof(float));
    assert_true(a != NULL && b != NULL && c != NULL && scratch != NULL);
    net_fill(a, e * lda);
    net_fill(b, h * ldb);
    const qn_mnn_product p = {e, l, h, a, b, lda, ldb, c, ldc, bias, {0, INFINITY}};
    qn__mnn_product(&kernel, &p, scratch);
    for (size_t i = 0; i < e; i++)
        for (size_t n = 0; n < h; n += n % 16 == 0 || n + 17 > h ? 1 : 15) {
            double sum = bias != NULL ? bias[n] : 0, size = 1;
            for (size_t k = 0; k < l; k++) {
                sum += (double)a[i * lda + k] * b[n * ldb + k];
                size += fabs((double)a[i * lda + k] * b[n * ldb + k]);
            }
            if (bias != NULL && sum < 0)
                sum = 0;
            if (!(fabs(sum - c[i * ldc + n]) < 1e-5 * size))
                fail_msg("[%zu][%zu]: %g, not %g", i, n, c[i * ldc + n], sum);
        }
    for (size_t i = 0; i < e; i++)
        assert_true(c[i * ldc + h] == 0 && c[i * ldc + h + 1] == 0);
    free(a);
    free(b);
    free(c);
    free(scratch);
}

static void test_products(void **state)
{
    (void)state;
    static float bias[600];
    net_fill(bias, 600);
    for (size_t e = 1; e <= 50; e++)
        check_product(e, 7, 5, e % 2 != 0 ? bias : NULL, false);
    check_product(1, 6600, 3, bias, true);  /* blocks of 6,552 inputs */
    check_product(30, 1200, 9, NULL, true); /* of 1,168 */
    check_product(30, 1170, 9, bias, false);
    check_product(24 * 24 + 7, 512, 524, bias, true); /* Strassen, with rests */
    check_product(24 * 24, 512, 512, NULL, true);
    check_product(24 * 24, 520, 512, bias, false); /* half the inputs are no whole vectors */
}

/* --- the operator ------------------------------------------------------------------------------*/
typedef struct shape {
    int64_t n, c, h, w, oc, k, pad, stride, dilation, group;
    bool bias, relu;
} shape;

static void build_conv(builder *b, const shape *s)
{
    const int64_t dims[4] = {s->oc, s->c / s->group, s->k, s->k};
    const int64_t pads[4] = {s->pad, s->pad, s->pad, s->pad};
    qn_tensor *const x = build_input(b, "x", DIMS(s->n, s->c, s->h, s->w));
    const size_t n = (size_t)(s->oc * s->c / s->group * s->k * s->k);
    float *const values = qn__arena_calloc(&b->graph->arena, n, sizeof(*values));
    assert_non_null(values);
    net_fill(values, n);
    qn_tensor *const w = build_const(b, "w", QN_DTYPE_F32, values, 4, dims);
    qn_tensor *const bias = s->bias ? build_weights(b, "b", 1, &s->oc) : NULL;
    qn_tensor *const y = NODE(b, CONV, "conv", x, w, bias);
    set_int(b, y, "group", s->group);
    set_ints(b, y, "pads", 4, pads);
    set_ints(b, y, "strides", 2, (const int64_t[]){s->stride, s->stride});
    set_ints(b, y, "dilations", 2, (const int64_t[]){s->dilation, s->dilation});
    if (s->relu)
        y->producer->act = QN_ACT_RELU;
    build_output(b, y);
}

/* Runs the graph with and without the operator; *kernel: its name in the profile. */
static void run_both(const shape *s, float *with, float *without, size_t *count, char *kernel)
{
    static float x[1 << 16];
    const void *const inputs[1] = {x};
    builder b;
    build_start(&b);
    build_conv(&b, s);
    net_fill(x, (size_t)(s->n * s->c * s->h * s->w));
    for (int form = 0; form < 2; form++) {
        qn_plan_options options;
        qn_plan *plan;
        qn_exec *exec;
        size_t n_steps;
        qn__plan_options_init(&options, b.ctx);
        options.instead = form == 0 ? qn__mnn_float_op : NULL;
        assert_ok(&b, qn__plan_create(b.graph, &options, &plan, &b.error));
        assert_ok(&b, qn__exec_create(plan, NULL, &exec, &b.error));
        qn__exec_set_profiling(exec, true);
        assert_ok(&b, qn__exec_run(exec, inputs, &b.error));
        const qn_view *const out = qn__exec_output(exec, 0);
        *count = out->count;
        memcpy(form == 0 ? with : without, out->data, out->count * sizeof(float));
        const qn_step_time *const steps = qn__exec_profile(exec, &n_steps);
        for (size_t i = 0; form == 0 && i < n_steps; i++)
            if (strcmp(steps[i].node, "conv") == 0)
                snprintf(kernel, 64, "%s", steps[i].kernel);
        qn__exec_destroy(exec);
        qn__plan_destroy(plan);
    }
    build_end(&b);
}

static void test_operator(void **state)
{
    (void)state;
    /* n, c, h, w, oc, kernel, pad, stride, dilation, group, bias, relu; is Winograd's */
    static const struct {
        shape s;
        bool winograd;
    } cases[] = {
        {{1, 9, 13, 17, 18, 3, 1, 1, 1, 1, true, false}, true},
        {{3, 16, 9, 11, 12, 3, 1, 1, 1, 1, false, true}, true}, /* groups across pictures */
        {{1, 16, 9, 11, 12, 3, 0, 1, 1, 1, true, true}, true},
        {{2, 16, 20, 19, 24, 3, 2, 1, 1, 2, true, true}, true},
        {{1, 12, 11, 11, 20, 2, 0, 1, 1, 1, true, false}, true},
        {{1, 12, 15, 15, 20, 5, 2, 1, 1, 1, true, false}, true},
        {{1, 12, 15, 15, 20, 7, 3, 1, 1, 1, true, false}, true},
        {{1, 3, 15, 15, 20, 3, 1, 2, 1, 1, true, true}, false},
        {{2, 24, 7, 9, 20, 3, 2, 1, 2, 1, false, true}, false},
        {{3, 24, 7, 9, 20, 1, 0, 1, 1, 1, true, false}, false},
        {{3, 24, 7, 9, 20, 1, 0, 2, 1, 4, true, false}, false},
        {{1, 70, 1, 1, 10, 1, 0, 1, 1, 1, true, false}, false},
        {{1, 6600, 1, 1, 9, 1, 0, 1, 1, 1, true, false}, false}, /* blocks of inputs */
    };
    static float with[1 << 15], without[1 << 15];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char kernel[64] = "";
        size_t count;
        float largest = 0, worst = 0;
        run_both(&cases[i].s, with, without, &count, kernel);
        for (size_t k = 0; k < count; k++) {
            largest = fmaxf(largest, fabsf(without[k]));
            worst = fmaxf(worst, fabsf(with[k] - without[k]));
        }
        if (!(worst <= 1e-3f * largest) || largest == 0)
            fail_msg("case %zu: off by %g of %g", i, worst, largest);
        if ((strcmp(kernel, "f32_winograd") == 0) != cases[i].winograd)
            fail_msg("case %zu ran %s", i, kernel);
    }
}

/* --- means and Sigmoid -------------------------------------------------------------------------*/
static void check_node(builder *b, qn_tensor *y, const float *x)
{
    const void *const inputs[1] = {x};
    float with[4096];
    build_output(b, y);
    for (int form = 0; form < 2; form++) {
        qn_plan_options options;
        qn_plan *plan;
        qn_exec *exec;
        qn__plan_options_init(&options, b->ctx);
        options.instead = form == 0 ? qn__mnn_float_op : NULL;
        assert_ok(b, qn__plan_create(b->graph, &options, &plan, &b->error));
        assert_ok(b, qn__exec_create(plan, NULL, &exec, &b->error));
        assert_ok(b, qn__exec_run(exec, inputs, &b->error));
        const qn_view *const out = qn__exec_output(exec, 0);
        const float *const values = out->data;
        assert_true(out->count <= 4096);
        for (size_t i = 0; i < out->count && form == 0; i++)
            with[i] = values[i];
        for (size_t i = 0; i < out->count && form == 1; i++)
            assert_true(fabsf(with[i] - values[i]) <= 2e-6f * (1 + fabsf(values[i])));
        qn__exec_destroy(exec);
        qn__plan_destroy(plan);
    }
}

static void test_means(void **state)
{
    (void)state;
    static float x[2 * 5 * 11 * 13];
    net_fill(x, sizeof(x) / sizeof(x[0]));
    for (int form = 0; form < 5; form++) {
        builder b;
        build_start(&b);
        qn_tensor *const in = build_input(&b, "x", DIMS(2, 5, 11, 13)), *y;
        if (form == 0) {
            y = NODE(&b, GLOBAL_AVERAGE_POOL, "mean", in);
        } else {
            y = NODE(&b, AVERAGE_POOL, "mean", in);
            set_ints(&b, y, "kernel_shape", 2, (const int64_t[]){3, 4});
            set_ints(&b, y, "strides", 2, (const int64_t[]){2, 1 + form % 2});
            if (form > 1)
                set_ints(&b, y, "pads", 4, (const int64_t[]){1, 2, 2, 3});
            set_int(&b, y, "count_include_pad", form == 3);
            set_int(&b, y, "ceil_mode", form == 4);
        }
        check_node(&b, y, x);
        build_end(&b);
    }
}

static void test_sigmoid(void **state)
{
    (void)state;
    static float x[1003];
    net_fill(x, 1003);
    for (size_t i = 0; i < 20; i++) { /* where the exponential ends; the last are left over */
        x[i] = ((float)i - 10.0f) * 20.0f;
        x[1002 - i] = x[i];
    }
    for (int form = 0; form < 2; form++) {
        builder b;
        build_start(&b);
        qn_tensor *const in = form == 0 ? build_input(&b, "x", DIMS(1, 1003))
                                        : build_input(&b, "x", DIMS(1, 17, 1, 59));
        check_node(&b, NODE(&b, SIGMOID, "s", in), x);
        build_end(&b);
    }
}

static const qn_run_op *chosen(const shape *s)
{
    builder b;
    qn_graph *bound;
    build_start(&b);
    build_conv(&b, s);
    assert_ok(&b, qn__graph_bound(b.graph, NULL, 1, &bound, &b.error));
    const qn_run_op *const op = qn__mnn_float_op(bound->nodes[0]);
    qn__graph_destroy(bound);
    build_end(&b);
    return op;
}

static void test_choice(void **state)
{
    (void)state;
    const shape winograd = {1, 16, 12, 12, 12, 3, 1, 1, 1, 1, true, false};
    const shape whole = {1, 16, 12, 12, 12, 1, 0, 1, 1, 1, true, false}; /* six groups of 24 */
    const shape rest = {1, 16, 5, 5, 12, 1, 0, 1, 1, 1, true, false};
    const shape depthwise = {1, 16, 5, 5, 16, 3, 1, 1, 1, 16, true, false};
    assert_ptr_equal(chosen(&winograd), &qn__mnn_winograd_op);
    assert_null(chosen(&whole));
    assert_ptr_equal(chosen(&rest), &qn__mnn_tiled_op);
    assert_null(chosen(&depthwise));
}

static void test_no_memory(void **state)
{
    (void)state;
    static const float x[16 * 16 * 16];
    const void *const inputs[1] = {x};
    static const shape shapes[] = {{1, 4, 11, 9, 8, 3, 1, 1, 1, 1, true, false},
                                   {1, 4, 11, 9, 8, 3, 1, 2, 1, 1, false, false},
                                   {1, 2400, 1, 1, 3, 1, 0, 1, 1, 1, true, false}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        fault f = {0};
        builder b = {0};
        qn_plan_options options;
        plan_fault_start(&f, &b);
        build_conv(&b, &shapes[i]);
        qn__plan_options_init(&options, b.ctx);
        options.instead = qn__mnn_float_op;
        plan_fault_sweep_as(&f, &b, &options, inputs, 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units),     cmocka_unit_test(test_weight_matrix),
        cmocka_unit_test(test_lines),     cmocka_unit_test(test_orders_differ),
        cmocka_unit_test(test_chains),    cmocka_unit_test(test_products),
        cmocka_unit_test(test_operator),  cmocka_unit_test(test_choice),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_means),
        cmocka_unit_test(test_sigmoid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
