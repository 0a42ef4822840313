/* Every allocation of planning fails once: the status says so, nothing leaks. Running allocates
 * nothing at all. */
#include "plan_fault.h"

static const int64_t SHAPE[2] = {1, -1};

static qn_type bytes_type(builder *b, qn_dtype dtype, float scale, int32_t zero)
{
    const bool s8 = dtype == QN_DTYPE_I8;
    const qn_quant q = {.bits = 8,
                        .is_signed = s8,
                        .axis = -1,
                        .qmin = s8 ? -128 : 0,
                        .qmax = s8 ? 127 : 255,
                        .n_scales = 1,
                        .scales = &scale,
                        .zero_points = &zero};
    return qn_type_quant_make(dtype, qn__graph_quant(b->graph, &q));
}

/* Operators in float16, computed in float32, with constant weights and a pool of any rank. */
static qn_tensor *build_narrow(builder *b, qn_tensor *x)
{
    const int64_t conv_dims[4] = {4, 4, 1, 1}, ones[2] = {1, 1};
    uint16_t halves[16];
    for (int i = 0; i < 16; i++)
        halves[i] = 0x3800; /* 0.5 */
    qn_tensor *narrow = NODE(b, CAST, "narrow", x);
    set_int(b, narrow, "to", 10);
    qn_tensor *c =
        NODE(b, CONV, "c16", narrow, build_const(b, "w16", QN_DTYPE_F16, halves, 4, conv_dims));
    qn_tensor *p = NODE(b, LP_POOL, "p16", c);
    set_ints(b, p, "kernel_shape", 2, ones);
    qn_tensor *wide = NODE(b, CAST, "wide", p);
    set_int(b, wide, "to", 1);
    qn_tensor *e = NODE(b, EINSUM, "e", wide);
    assert_true(qn__node_set_string(b->graph, e->producer, "equation", "abcd->abcd"));
    return e;
}

/* Float and quantized operators of every file that keeps state. */
static void build(builder *b)
{
    const float lo = -1.0f, hi = 1.0f, params[4] = {1, 2, 3, 4}, scales[4] = {1, 1, 2, 2};
    const int64_t starts[1] = {1}, ends[1] = {5}, axes[1] = {2}, pads[8] = {0, 0, 1, 1, 0, 0, 1, 1};
    int8_t wq[16];
    for (int i = 0; i < 16; i++)
        wq[i] = (int8_t)(i * 11 - 80);
    qn_tensor *x = build_input(b, "x", DIMS(-1, 4, 6, 6));
    qn_tensor *s = build_floats(b, "s", 4, params);
    qn_tensor *n = NODE(b, BATCH_NORMALIZATION, "n", build_narrow(b, x), s, s, s, s);
    qn_tensor *c = NODE(b, CLIP, "c", n, build_const(b, "lo", QN_DTYPE_F32, &lo, 0, NULL),
                        build_const(b, "hi", QN_DTYPE_F32, &hi, 0, NULL));
    qn_tensor *r = NODE(b, RESIZE, "r", c, NULL, build_floats(b, "scales", 4, scales));
    assert_true(qn__node_set_string(b->graph, r->producer, "mode", "linear"));
    qn_tensor *p = NODE(b, PAD, "p", r, build_ints(b, "pads", 8, pads));
    qn_tensor *cut = NODE(b, SLICE, "cut", p, build_ints(b, "starts", 1, starts),
                          build_ints(b, "ends", 1, ends), build_ints(b, "axes", 1, axes));
    qn_tensor *q = NODE(b, QUANTIZE_LINEAR, "q", cut);
    q->type = bytes_type(b, QN_DTYPE_U8, 0.01f, 128);
    const int64_t conv_dims[4] = {4, 4, 1, 1};
    qn_tensor *w = build_const(b, "w", QN_DTYPE_I8, wq, 4, conv_dims);
    w->type = bytes_type(b, QN_DTYPE_I8, 0.02f, 0);
    qn_tensor *y = NODE(b, CONV, "y", q, w);
    y->type = bytes_type(b, QN_DTYPE_U8, 0.05f, 100);
    qn_tensor *sum = NODE(b, ADD, "sum", y, q);
    sum->type = bytes_type(b, QN_DTYPE_U8, 0.05f, 100);
    qn_tensor *d = NODE(b, DEQUANTIZE_LINEAR, "d", sum);
    qn_tensor *m = NODE(b, MUL, "m", d, d);
    qn_tensor *both = NODE(b, CONCAT, "both", m, d);
    set_int(b, both, "axis", 1);
    qn_tensor *mean = NODE(b, REDUCE_MEAN, "mean", both, build_ints(b, "axis", 1, axes));
    build_output(b, NODE(b, RESHAPE, "flat", mean, build_ints(b, "shape", 2, SHAPE)));
}

static void planning_survives_lack_of_memory(void **state)
{
    (void)state;
    fault f = {0};
    builder b = {0};
    plan_fault_start(&f, &b);
    build(&b);
    static float x[4 * 6 * 6];
    net_fill(x, 4 * 6 * 6);
    const void *inputs[1] = {x};
    plan_fault_sweep(&f, &b, inputs, 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planning_survives_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
